//! The mailbox as its documentation describes it, without a thought for speed: one sorted list.

mod workers;

use std::collections::{BTreeMap, VecDeque};

use neuralcore_bus::mailbox::*;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) id: u32,
    pub(crate) key: Option<&'static str>,
}

impl Keyed for Item {
    fn key(&self) -> Option<&str> {
        self.key
    }
}

pub(crate) type Ticket = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    InFlight,
    /// Waits for its retry, or is queued after it.
    Item(u32),
}

#[derive(Debug)]
struct Queued {
    rank: i64,
    position: i64,
    parked: bool,
    item: Item,
}

#[derive(Debug)]
struct Late {
    due_ns: u64,
    rank: i64,
    holds_key: bool,
    item: Item,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worker {
    Active,
    Idle,
    Away,
}

#[derive(Debug)]
pub(crate) struct Naive {
    pub(crate) stats: MailboxStats,
    pub(crate) reserved: usize,
    overflow: Overflow,
    hold_keys: bool,
    closed: bool,
    back: i64,
    front: i64,
    queued: Vec<Queued>,
    delayed: Vec<Late>,
    /// By the wall clock.
    held: Vec<Late>,
    waiters: VecDeque<(Ticket, Option<WorkerId>)>,
    holders: BTreeMap<&'static str, Holder>,
    workers: BTreeMap<WorkerId, Worker>,
    resting: Vec<WorkerId>,
}

impl Naive {
    pub(crate) fn new(config: MailboxConfig) -> Self {
        Self {
            stats: MailboxStats { capacity: config.capacity, ..Default::default() },
            reserved: 0,
            overflow: config.overflow,
            hold_keys: config.hold_keys,
            closed: false,
            back: 0,
            front: 0,
            queued: Vec::new(),
            delayed: Vec::new(),
            held: Vec::new(),
            waiters: VecDeque::new(),
            holders: BTreeMap::new(),
            workers: BTreeMap::new(),
            resting: Vec::new(),
        }
    }

    pub(crate) fn stats(&self) -> MailboxStats {
        let parked = self.queued.iter().filter(|queued| queued.parked).count();
        MailboxStats {
            queued: self.queued.len() - parked,
            parked,
            delayed: self.delayed.len() + self.held.len(),
            waiting: self.waiters.len(),
            ..self.stats
        }
    }

    pub(crate) fn used(&self) -> usize {
        self.depth() + self.stats.in_flight + self.reserved
    }

    pub(crate) fn depth(&self) -> usize {
        self.queued.len() + self.delayed.len() + self.held.len()
    }

    fn is_full(&self) -> bool {
        self.used() >= self.stats.capacity
    }

    /// A reservation past the capacity owes an eviction, for which there must be an item.
    fn may_reserve(&self) -> bool {
        let owed = self.used().saturating_sub(self.stats.capacity).min(self.reserved);
        !self.is_full() || (self.overflow == Overflow::DropOld && self.queued.len() > owed)
    }

    pub(crate) fn push(&mut self, rank: i64, item: Item) -> Push<Item> {
        if self.closed {
            return Push::Closed(item);
        }
        if !self.is_full() {
            return Push::Queued(self.queue(rank, item));
        }
        match self.overflow {
            Overflow::Block => Push::Full(item),
            Overflow::Reject => Push::Rejected(item),
            Overflow::DropOld if !self.queued.is_empty() => {
                let evicted = self.evict();
                Push::Replaced { evicted, wake: self.queue(rank, item) }
            }
            Overflow::DropNew | Overflow::DropOld => {
                self.stats.dropped += 1;
                Push::Dropped(item)
            }
        }
    }

    pub(crate) fn push_many(&mut self, rank: i64, items: Vec<Item>) -> (usize, Option<WorkerId>) {
        let (mut entered, mut wake) = (0, None);
        for item in items {
            if self.closed || self.is_full() {
                break;
            }
            wake = wake.or(self.queue(rank, item));
            entered += 1;
        }
        (entered, wake.or_else(|| self.wake()))
    }

    pub(crate) fn reserve(&mut self, ticket: Ticket, worker: Option<WorkerId>) -> Reserve<Ticket> {
        if self.closed {
            return Reserve::Closed(ticket);
        }
        if self.may_reserve() {
            self.reserved += 1;
            return Reserve::Granted;
        }
        match self.overflow {
            Overflow::Reject => Reserve::Reject(ticket),
            Overflow::DropNew | Overflow::DropOld => {
                self.stats.dropped += 1;
                Reserve::DropNew(ticket)
            }
            Overflow::Block => {
                let free = |worker: &&WorkerId| !self.is_blocked(**worker);
                let others = self.workers.keys().filter(free).any(|&other| Some(other) != worker);
                if worker.is_some_and(|worker| !self.is_blocked(worker)) && !others {
                    return Reserve::Deadlock(ticket);
                }
                self.waiters.push_back((ticket, worker));
                Reserve::Waiting
            }
        }
    }

    fn is_blocked(&self, worker: WorkerId) -> bool {
        self.waiters.iter().any(|&(_, waiting)| waiting == Some(worker))
    }

    pub(crate) fn enter(&mut self, rank: i64, item: Item) -> Entered<Item> {
        match self.use_reserved() {
            Err(()) => Entered::Closed(item),
            Ok(evicted) => Entered::Queued { evicted, wake: self.queue(rank, item) },
        }
    }

    pub(crate) fn delay(
        &mut self,
        rank: i64,
        item: Item,
        due_ns: u64,
        now_ns: u64,
    ) -> Delayed<Item> {
        let Ok(evicted) = self.use_reserved() else { return Delayed::Closed(item) };
        if due_ns <= now_ns {
            let wake = self.queue(rank, item);
            return Delayed::Held { evicted, earliest_changed: None, wake };
        }
        let earliest_changed = self.put_off(due_ns, rank, item, false);
        Delayed::Held { evicted, earliest_changed, wake: None }
    }

    pub(crate) fn delay_until(
        &mut self,
        rank: i64,
        item: Item,
        wall_ns: u64,
        now_wall_ns: u64,
    ) -> Delayed<Item> {
        let Ok(evicted) = self.use_reserved() else { return Delayed::Closed(item) };
        let mut wake = None;
        if wall_ns <= now_wall_ns {
            wake = self.queue(rank, item);
        } else {
            self.held.push(Late { due_ns: wall_ns, rank, holds_key: false, item });
            self.held.sort_by_key(|late| late.due_ns);
        }
        Delayed::Held { evicted, earliest_changed: None, wake }
    }

    fn use_reserved(&mut self) -> Result<Option<Item>, ()> {
        let over = self.used() > self.stats.capacity;
        self.reserved -= 1;
        if self.closed {
            return Err(());
        }
        let evicts = over && self.overflow == Overflow::DropOld && !self.queued.is_empty();
        Ok(evicts.then(|| self.evict()))
    }

    pub(crate) fn unreserve(&mut self) -> Option<Ticket> {
        self.reserved -= 1;
        self.grant()
    }

    pub(crate) fn cancel(&mut self, ticket: Ticket) -> bool {
        let before = self.waiters.len();
        self.waiters.retain(|&(waiting, _)| waiting != ticket);
        before > self.waiters.len()
    }

    pub(crate) fn offer(&mut self, rank: i64, item: Item) -> Result<Option<WorkerId>, Item> {
        if self.closed { Err(item) } else { Ok(self.queue(rank, item)) }
    }

    fn evict(&mut self) -> Item {
        self.stats.dropped += 1;
        let place = |&at: &usize| (-self.queued[at].rank, self.queued[at].position);
        let at = (0..self.queued.len()).min_by_key(place).unwrap();
        self.remove(at).1
    }

    /// Takes an entry out untaken; a key that it held is free.
    fn remove(&mut self, at: usize) -> (i64, Item) {
        let Queued { rank, item, .. } = self.queued.remove(at);
        self.holders.retain(|_, holder| *holder != Holder::Item(item.id));
        (rank, item)
    }

    fn queue(&mut self, rank: i64, item: Item) -> Option<WorkerId> {
        self.back += 1;
        self.insert(rank, self.back, item);
        self.wake()
    }

    fn insert(&mut self, rank: i64, position: i64, item: Item) {
        let alone = !self.queued.iter().any(|queued| queued.rank == rank && !queued.parked);
        let parked = alone && position > 0 && self.is_held(&item);
        self.queued.push(Queued { rank, position, parked, item });
        self.queued.sort_by_key(|queued| (queued.rank, queued.position));
    }

    fn is_held(&self, item: &Item) -> bool {
        let holder = item.key.and_then(|key| self.holders.get(key));
        holder.is_some_and(|&holder| holder != Holder::Item(item.id))
    }

    pub(crate) fn take(&mut self) -> Option<(i64, Item)> {
        let at = (0..self.queued.len()).find(|&at| {
            let held = self.is_held(&self.queued[at].item);
            self.queued[at].parked |= held;
            !held
        })?;
        let Queued { rank, item, .. } = self.queued.remove(at);
        if let Some(key) = item.key {
            self.holders.insert(key, Holder::InFlight);
        }
        self.stats.in_flight += 1;
        self.stats.delivered += 1;
        Some((rank, item))
    }

    fn settle(&mut self, item: &Item) {
        self.stats.in_flight -= 1;
        if let Some(key) = item.key {
            self.holders.remove(key);
        }
    }

    pub(crate) fn ack(&mut self, item: &Item) -> Acked<Ticket> {
        self.stats.acked += 1;
        self.settle(item);
        Acked { granted: self.grant(), wake: self.wake() }
    }

    pub(crate) fn ack_many(&mut self, items: &[Item]) -> (Vec<Ticket>, Option<WorkerId>) {
        let mut granted = Vec::new();
        for item in items {
            self.stats.acked += 1;
            self.settle(item);
            granted.extend(self.grant());
        }
        (granted, self.wake())
    }

    pub(crate) fn settle_and_take(&mut self, item: &Item) -> (Option<Ticket>, Option<(i64, Item)>) {
        self.stats.acked += 1;
        self.settle(item);
        (self.grant(), self.take())
    }

    pub(crate) fn expire(&mut self, item: &Item) -> Acked<Ticket> {
        self.stats.delivered -= 1;
        self.stats.expired += 1;
        self.settle(item);
        Acked { granted: self.grant(), wake: self.wake() }
    }

    pub(crate) fn release(&mut self, rank: i64, item: Item) -> Option<WorkerId> {
        self.stats.released += 1;
        self.settle(&item);
        self.front -= 1;
        self.insert(rank, self.front, item);
        self.wake()
    }

    pub(crate) fn retry(&mut self, rank: i64, item: Item, due_ns: u64, now_ns: u64) -> Retried {
        self.stats.retried += 1;
        self.settle(&item);
        self.hold(&item, self.hold_keys);
        let mut earliest_changed = None;
        if due_ns <= now_ns {
            self.back += 1;
            self.insert(rank, self.back, item);
        } else {
            earliest_changed = self.put_off(due_ns, rank, item, self.hold_keys);
        }
        Retried { earliest_changed, wake: self.wake() }
    }

    fn hold(&mut self, item: &Item, holds_key: bool) {
        if let Some(key) = item.key.filter(|_| holds_key) {
            self.holders.insert(key, Holder::Item(item.id));
        }
    }

    fn put_off(&mut self, due_ns: u64, rank: i64, item: Item, holds_key: bool) -> Option<u64> {
        let earlier = self.delayed.first().is_none_or(|first| due_ns < first.due_ns);
        self.delayed.push(Late { due_ns, rank, holds_key, item });
        self.delayed.sort_by_key(|late| late.due_ns);
        earlier.then_some(due_ns)
    }

    pub(crate) fn promote(&mut self, now_ns: u64) -> Promoted {
        let due = self.delayed.iter().take_while(|late| late.due_ns <= now_ns).count();
        let due: Vec<_> = self.delayed.drain(..due).collect();
        due.into_iter().for_each(|late| self.come_back(late));
        let next_due = self.delayed.first().map(|late| late.due_ns);
        Promoted { next_due, wake: self.wake() }
    }

    pub(crate) fn promote_until(&mut self, now_wall_ns: u64) -> Promoted {
        let due = self.held.iter().take_while(|late| late.due_ns <= now_wall_ns).count();
        let due: Vec<_> = self.held.drain(..due).collect();
        due.into_iter().for_each(|late| self.come_back(late));
        let next_due = self.held.first().map(|late| late.due_ns);
        Promoted { next_due, wake: self.wake() }
    }

    fn come_back(&mut self, Late { rank, holds_key, item, .. }: Late) {
        self.hold(&item, holds_key);
        self.back += 1;
        self.insert(rank, self.back, item);
    }

    fn grant(&mut self) -> Option<Ticket> {
        if !self.may_reserve() {
            return None;
        }
        let (ticket, _) = self.waiters.pop_front()?;
        self.reserved += 1;
        Some(ticket)
    }

    pub(crate) fn configure(
        &mut self,
        capacity: Option<usize>,
        overflow: Option<Overflow>,
    ) -> Vec<Ticket> {
        self.stats.capacity = capacity.unwrap_or(self.stats.capacity);
        self.overflow = overflow.unwrap_or(self.overflow);
        std::iter::from_fn(|| self.grant()).collect()
    }

    pub(crate) fn take_relaxed(&mut self, above: i64) -> Relaxed<Item, Ticket> {
        let mut queued = (0..self.queued.len()).rev().filter(|&at| !self.queued[at].parked);
        match queued.next().filter(|&at| self.queued[at].rank > above) {
            None => Relaxed { item: None, granted: None, wake: None },
            Some(at) => {
                let item = Some(self.remove(at));
                Relaxed { item, granted: self.grant(), wake: self.wake() }
            }
        }
    }

    pub(crate) fn clear(&mut self) -> Cleared<Item, Ticket> {
        let mut items: Vec<_> =
            self.queued.drain(..).map(|queued| (queued.rank, queued.item)).collect();
        let delayed = self.delayed.drain(..).chain(self.held.drain(..));
        items.extend(delayed.map(|late| (late.rank, late.item)));
        items.sort_by_key(|&(rank, _)| rank);
        self.holders.retain(|_, holder| *holder == Holder::InFlight);
        let granted = std::iter::from_fn(|| self.grant()).collect();
        let workers = if self.closed { self.wake_all() } else { Vec::new() };
        Cleared { items, granted, workers }
    }

    pub(crate) fn close(&mut self) -> Closed<Ticket> {
        self.closed = true;
        let waiters = self.waiters.drain(..).map(|(ticket, _)| ticket).collect();
        Closed { waiters, workers: self.wake_all() }
    }
}
