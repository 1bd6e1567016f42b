//! A mailbox without its lock: slots, order, keys, delays and workers, each step of which is one method.

use std::collections::VecDeque;

use crate::answers::*;
use crate::delayed::Delayed as Delays;
use crate::keys::{Holder, Keys, Place};
use crate::mailbox::{Keyed, MailboxConfig, Overflow};
use crate::queue::PriorityQueue;
use crate::workers::{Mode, WorkerId, Workers};

/// An item and where it stands among its equals.
#[derive(Debug)]
struct Entry<T> {
    position: i64,
    item: T,
}

/// A publisher that waits for a slot; `worker` if it does so inside a handler of this same mailbox.
#[derive(Debug)]
struct Waiter<W> {
    ticket: W,
    worker: Option<WorkerId>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    delivered: u64,
    acked: u64,
    retried: u64,
    released: u64,
    dropped: u64,
    expired: u64,
}

/// While publishers wait, `used >= capacity`: whoever frees a slot grants it.
#[derive(Debug)]
pub(crate) struct State<T, W> {
    /// Slots taken: queued, parked, delayed, in flight or reserved.
    used: usize,
    capacity: usize,
    reserved: usize,
    in_flight: usize,
    overflow: Overflow,
    hold_keys: bool,
    closed: bool,
    back: i64,
    front: i64,
    counts: Counts,
    workers: Workers,
    /// None until the first key is used.
    keys: Option<Box<Keys<T>>>,
    waiters: VecDeque<Waiter<W>>,
    delayed: Delays<T>,
    queue: PriorityQueue<Entry<T>>,
}

/// Publishing.
impl<T: Keyed, W> State<T, W> {
    pub(crate) fn new(config: MailboxConfig) -> Self {
        Self {
            used: 0,
            capacity: config.capacity,
            reserved: 0,
            in_flight: 0,
            overflow: config.overflow,
            hold_keys: config.hold_keys,
            closed: false,
            back: 0,
            front: 0,
            counts: Counts::default(),
            workers: Workers::new(),
            keys: None,
            waiters: VecDeque::new(),
            delayed: Delays::new(),
            queue: PriorityQueue::new(),
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, rank: i64, item: T) -> Push<T> {
        if self.closed {
            return Push::Closed(item);
        }
        if self.used < self.capacity {
            self.used += 1;
            return Push::Queued(self.queue_back(rank, item));
        }
        self.push_full(rank, item)
    }

    #[cold]
    fn push_full(&mut self, rank: i64, item: T) -> Push<T> {
        match self.overflow {
            Overflow::Block => Push::Full(item),
            Overflow::Reject => Push::Rejected(item),
            Overflow::DropNew => {
                self.counts.dropped += 1;
                Push::Dropped(item)
            }
            Overflow::DropOld => match self.evict() {
                Some(evicted) => Push::Replaced {
                    evicted,
                    wake: self.queue_back(rank, item),
                },
                None => {
                    self.counts.dropped += 1;
                    Push::Dropped(item)
                }
            },
        }
    }

    pub(crate) fn reserve(&mut self, ticket: W, worker: Option<WorkerId>) -> Reserve<W> {
        if self.closed {
            return Reserve::Closed(ticket);
        }
        if self.used < self.capacity || self.may_exceed() {
            self.used += 1;
            self.reserved += 1;
            return Reserve::Granted;
        }
        match self.overflow {
            Overflow::Reject => Reserve::Reject(ticket),
            Overflow::DropNew | Overflow::DropOld => {
                self.counts.dropped += 1;
                Reserve::DropNew(ticket)
            }
            Overflow::Block => {
                if worker.is_some_and(|worker| !self.workers.block(worker)) {
                    return Reserve::Deadlock(ticket);
                }
                self.waiters.push_back(Waiter { ticket, worker });
                Reserve::Waiting
            }
        }
    }

    pub(crate) fn enter(&mut self, rank: i64, item: T) -> Entered<T> {
        match self.use_reserved() {
            None => Entered::Closed(item),
            Some(evicted) => Entered::Queued {
                evicted,
                wake: self.queue_back(rank, item),
            },
        }
    }

    pub(crate) fn delay(&mut self, rank: i64, item: T, due_ns: u64, now_ns: u64) -> Delayed<T> {
        let Some(evicted) = self.use_reserved() else {
            return Delayed::Closed(item);
        };
        if due_ns <= now_ns {
            let wake = self.queue_back(rank, item);
            return Delayed::Held {
                evicted,
                earliest_changed: None,
                wake,
            };
        }
        let earliest_changed = self.delayed.push(due_ns, rank, item, false);
        Delayed::Held {
            evicted,
            earliest_changed,
            wake: None,
        }
    }

    pub(crate) fn unreserve(&mut self) -> Option<W> {
        self.take_reserved();
        self.give_slot()
    }

    pub(crate) fn cancel(&mut self, mut is: impl FnMut(&W) -> bool) -> Option<W> {
        let at = self.waiters.iter().position(|waiter| is(&waiter.ticket))?;
        self.waiters
            .remove(at)
            .map(|waiter| self.stop_waiting(waiter))
    }

    pub(crate) fn offer(&mut self, rank: i64, item: T) -> Result<Option<WorkerId>, T> {
        if self.closed {
            return Err(item);
        }
        self.used += 1;
        Ok(self.queue_back(rank, item))
    }

    /// Whether a slot past the capacity may be granted because its owner will evict an item for it.
    fn may_exceed(&self) -> bool {
        let owed = self.used.saturating_sub(self.capacity);
        self.overflow == Overflow::DropOld && self.queued() + self.parked() > owed
    }

    /// Turns a reserved slot into a used one and evicts what a policy of dropping the old owes for it; None if closed.
    fn use_reserved(&mut self) -> Option<Option<T>> {
        self.take_reserved();
        if self.closed {
            self.used -= 1;
            return None;
        }
        let owed = self.overflow == Overflow::DropOld && self.used > self.capacity;
        let evicted = if owed { self.evict() } else { None };
        self.used -= usize::from(evicted.is_some());
        Some(evicted)
    }

    fn take_reserved(&mut self) {
        let reserved = self.reserved.checked_sub(1);
        self.reserved = reserved.expect("a slot is used that nobody reserved");
    }

    /// Takes out the oldest item of the least urgent rank; its slot is the caller's.
    fn evict(&mut self) -> Option<T> {
        let queued = self
            .queue
            .peek_evict()
            .map(|(rank, entry)| (rank, entry.position));
        let parked = self.keys.as_ref().and_then(|keys| keys.peek_evict());
        let item = if parked.is_some_and(|parked| queued.is_none_or(|queued| older(parked, queued)))
        {
            self.keys.as_mut()?.evict()?.1
        } else {
            let (_, entry) = self.queue.evict()?;
            self.removed(&entry);
            entry.item
        };
        self.counts.dropped += 1;
        Some(item)
    }

    #[inline]
    fn queue_back(&mut self, rank: i64, item: T) -> Option<WorkerId> {
        let position = self.next_position();
        self.queue_at(rank, position, item);
        self.wake()
    }

    fn next_position(&mut self) -> i64 {
        self.back += 1;
        self.back
    }

    /// Queues at the back. What `take` would park at once is parked here, so that it wakes nobody in vain.
    #[inline]
    fn queue_at(&mut self, rank: i64, position: i64, item: T) {
        if let (Some(keys), Some(key)) = (&mut self.keys, item.key()) {
            let key = keys.hash(key);
            if self.queue.is_empty_at(rank) && keys.blocks(key, position) {
                return keys.park(key, (rank, position), item);
            }
        }
        self.queue.push_back(rank, Entry { position, item });
    }
}

/// Taking and settling.
impl<T: Keyed, W> State<T, W> {
    #[inline]
    pub(crate) fn take(&mut self) -> Option<(i64, T)> {
        let (rank, item) = self.next()?;
        self.in_flight += 1;
        self.counts.delivered += 1;
        Some((rank, item))
    }

    #[inline]
    fn next(&mut self) -> Option<(i64, T)> {
        loop {
            if let Some(keys) = &mut self.keys {
                let queued = self
                    .queue
                    .peek()
                    .map(|(rank, entry)| (rank, entry.position));
                let parked = keys.peek();
                if parked.is_some_and(|parked| queued.is_none_or(|queued| parked < queued)) {
                    return keys.take();
                }
            }
            let (rank, entry) = self.queue.pop()?;
            let Some(key) = entry.item.key() else {
                return Some((rank, entry.item));
            };
            let keys = self.keys.get_or_insert_with(|| Box::new(Keys::new()));
            let key = keys.hash(key);
            if !keys.blocks(key, entry.position) {
                keys.hold(key, Holder::InFlight);
                return Some((rank, entry.item));
            }
            keys.park(key, (rank, entry.position), entry.item);
        }
    }

    #[inline]
    pub(crate) fn ack(&mut self, key: Option<&str>) -> Option<W> {
        self.settle(key);
        self.counts.acked += 1;
        self.give_slot()
    }

    pub(crate) fn expire(&mut self, key: Option<&str>) -> Option<W> {
        self.settle(key);
        self.counts.delivered -= 1;
        self.counts.expired += 1;
        self.give_slot()
    }

    pub(crate) fn retry(&mut self, rank: i64, item: T, due_ns: u64, now_ns: u64) -> Retried {
        let holds_key = self.hold_keys;
        self.settle(if holds_key { None } else { item.key() });
        self.counts.retried += 1;
        let mut earliest_changed = None;
        if due_ns <= now_ns {
            self.come_back(rank, item, holds_key);
        } else {
            if holds_key {
                self.hold_key(&item, Holder::Delayed);
            }
            earliest_changed = self.delayed.push(due_ns, rank, item, holds_key);
        }
        Retried {
            earliest_changed,
            wake: self.wake(),
        }
    }

    pub(crate) fn release(&mut self, rank: i64, item: T) -> Option<WorkerId> {
        self.settle(item.key());
        self.counts.released += 1;
        self.front -= 1;
        self.queue.push_front(
            rank,
            Entry {
                position: self.front,
                item,
            },
        );
        self.wake()
    }

    pub(crate) fn promote(&mut self, now_ns: u64) -> Promoted {
        while let Some(delay) = self.delayed.pop_due(now_ns) {
            self.come_back(delay.rank, delay.item, delay.holds_key);
        }
        Promoted {
            next_due: self.delayed.next_due(),
            wake: self.wake(),
        }
    }

    /// Queues an item behind its equals; a key that it holds stays its own.
    fn come_back(&mut self, rank: i64, item: T, holds_key: bool) {
        let position = self.next_position();
        if holds_key {
            self.hold_key(&item, Holder::Queued(position));
        }
        self.queue_at(rank, position, item);
    }

    fn hold_key(&mut self, item: &T, holder: Holder) {
        if let (Some(keys), Some(key)) = (&mut self.keys, item.key()) {
            let key = keys.hash(key);
            keys.hold(key, holder);
        }
    }

    /// One item is in flight no more; its slot is still taken.
    #[inline]
    fn settle(&mut self, key: Option<&str>) {
        let in_flight = self.in_flight.checked_sub(1);
        self.in_flight = in_flight.expect("an item is settled that nobody took");
        if let (Some(keys), Some(key)) = (&mut self.keys, key) {
            let key = keys.hash(key);
            keys.free(key);
        }
    }

    /// An entry has left the queue untaken: a key that it held is free.
    fn removed(&mut self, entry: &Entry<T>) {
        if let (Some(keys), Some(key)) = (&mut self.keys, entry.item.key()) {
            let key = keys.hash(key);
            keys.removed(key, entry.position);
        }
    }

    #[inline]
    fn give_slot(&mut self) -> Option<W> {
        self.used -= 1;
        if self.waiters.is_empty() {
            None
        } else {
            self.grant()
        }
    }

    fn grant(&mut self) -> Option<W> {
        if self.used >= self.capacity && self.overflow != Overflow::DropOld {
            return None;
        }
        let waiter = self.waiters.pop_front()?;
        self.used += 1;
        self.reserved += 1;
        Some(self.stop_waiting(waiter))
    }

    fn grant_all(&mut self) -> Vec<W> {
        std::iter::from_fn(|| self.grant()).collect()
    }

    fn stop_waiting(&mut self, waiter: Waiter<W>) -> W {
        if let Some(worker) = waiter.worker {
            self.workers.unblock(worker);
        }
        waiter.ticket
    }
}

/// Workers.
impl<T: Keyed, W> State<T, W> {
    pub(crate) fn workers(&mut self) -> &mut Workers {
        &mut self.workers
    }

    pub(crate) fn leave(&mut self, worker: WorkerId) -> Option<WorkerId> {
        if self.workers.leave(worker) {
            let theirs = self
                .waiters
                .iter_mut()
                .filter(|waiter| waiter.worker == Some(worker));
            theirs.for_each(|waiter| waiter.worker = None);
        }
        if self.finished() {
            self.workers.choose()
        } else {
            self.wake()
        }
    }

    pub(crate) fn idle(&mut self, worker: WorkerId) -> bool {
        let rests = !self.has_work() && !self.finished();
        if rests {
            self.workers.set(worker, Mode::Idle);
        }
        rests
    }

    /// The worker waits for something else, or runs again.
    pub(crate) fn set_away(&mut self, worker: WorkerId) -> Option<WorkerId> {
        self.workers.set(worker, Mode::Away);
        self.wake()
    }

    pub(crate) fn resumed(&mut self, worker: WorkerId) {
        self.workers.set(worker, Mode::Active);
    }

    /// Whether `take` may find something. A message whose key is busy counts until `take` has looked at it.
    #[inline]
    fn has_work(&mut self) -> bool {
        !self.queue.is_empty() || self.keys.as_mut().is_some_and(|keys| keys.peek().is_some())
    }

    #[inline]
    pub(crate) fn wake(&mut self) -> Option<WorkerId> {
        if self.workers.resting() && self.has_work() {
            self.workers.choose()
        } else {
            None
        }
    }

    /// Closed and empty.
    pub(crate) fn finished(&self) -> bool {
        self.closed && self.depth() == 0
    }
}

/// Inspection and control.
impl<T: Keyed, W> State<T, W> {
    pub(crate) fn configure(
        &mut self,
        capacity: Option<usize>,
        overflow: Option<Overflow>,
    ) -> Vec<W> {
        self.capacity = capacity.unwrap_or(self.capacity);
        self.overflow = overflow.unwrap_or(self.overflow);
        self.grant_all()
    }

    pub(crate) fn close(&mut self) -> Closed<W> {
        self.closed = true;
        let waiters = std::mem::take(&mut self.waiters).into_iter();
        let waiters = waiters.map(|waiter| self.stop_waiting(waiter)).collect();
        Closed {
            waiters,
            workers: self.workers.choose_all(),
        }
    }

    pub(crate) fn clear(&mut self) -> Cleared<T, W> {
        let queued = self.queue.drain().into_iter();
        let mut items: Vec<(Place, T)> = queued
            .map(|(rank, entry)| ((rank, entry.position), entry.item))
            .collect();
        items.extend(self.keys.iter_mut().flat_map(|keys| keys.clear()));
        items.extend(
            self.delayed
                .drain()
                .map(|delay| ((delay.rank, i64::MAX), delay.item)),
        );
        items.sort_by_key(|&(place, _)| place);
        self.used -= items.len();
        Cleared {
            items: items
                .into_iter()
                .map(|((rank, _), item)| (rank, item))
                .collect(),
            granted: self.grant_all(),
            workers: if self.closed {
                self.workers.choose_all()
            } else {
                Vec::new()
            },
        }
    }

    pub(crate) fn take_relaxed(&mut self, above: i64) -> Relaxed<T, W> {
        let relaxed = self.queue.relaxed_rank().filter(|&rank| rank > above);
        let Some((rank, entry)) = relaxed.and_then(|_| self.queue.pop_relaxed()) else {
            return Relaxed {
                item: None,
                granted: None,
                wake: None,
            };
        };
        self.removed(&entry);
        let granted = self.give_slot();
        Relaxed {
            item: Some((rank, entry.item)),
            granted,
            wake: self.wake(),
        }
    }

    pub(crate) fn most_relaxed(&self) -> Option<i64> {
        self.queue.relaxed_rank()
    }

    pub(crate) fn depths(&self) -> Vec<(i64, usize)> {
        self.queue.depths()
    }

    pub(crate) fn depth(&self) -> usize {
        self.queued() + self.parked() + self.delayed.len()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn overflow(&self) -> Overflow {
        self.overflow
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    fn queued(&self) -> usize {
        self.queue.len()
    }

    fn parked(&self) -> usize {
        self.keys.as_ref().map_or(0, |keys| keys.len())
    }

    /// All figures but the histograms.
    pub(crate) fn stats(&self) -> MailboxStats {
        MailboxStats {
            capacity: self.capacity,
            queued: self.queued(),
            parked: self.parked(),
            delayed: self.delayed.len(),
            in_flight: self.in_flight,
            waiting: self.waiters.len(),
            delivered: self.counts.delivered,
            acked: self.counts.acked,
            retried: self.counts.retried,
            released: self.counts.released,
            dropped: self.counts.dropped,
            expired: self.counts.expired,
            ..MailboxStats::default()
        }
    }
}

/// Whether `a` would be evicted before `b`.
fn older(a: Place, b: Place) -> bool {
    (std::cmp::Reverse(a.0), a.1) < (std::cmp::Reverse(b.0), b.1)
}
