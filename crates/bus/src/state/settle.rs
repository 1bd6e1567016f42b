//! Taking in order, and the ways in which a delivery ends.

use super::{Entry, State};
use crate::answers::{Promoted, Retried};
use crate::keys::{Holder, Keys};
use crate::mailbox::Keyed;
use crate::workers::WorkerId;

impl<T: Keyed, W> State<T, W> {
    #[inline]
    pub(crate) fn take(&mut self) -> Option<(i64, T)> {
        let (rank, item) = self.next()?;
        self.in_flight += 1;
        self.counts.delivered += 1;
        Some((rank, item))
    }

    pub(crate) fn take_many(&mut self, limit: usize, into: &mut Vec<(i64, T)>) {
        let limit = into.len() + limit;
        while into.len() < limit {
            if self.take_plain(limit - into.len(), into) > 0 {
                continue;
            }
            match self.take() {
                Some(taken) => into.push(taken),
                None => break,
            }
        }
    }

    /// The front of the queue, as long as it has no keys to look after.
    fn take_plain(&mut self, limit: usize, into: &mut Vec<(i64, T)>) -> usize {
        if self.keys.is_some() {
            return 0;
        }
        let keyless = |entry: &Entry<T>| entry.item.key().is_none();
        let each = |rank, entry: Entry<T>| into.push((rank, entry.item));
        let count = self.queue.pop_while(limit, keyless, each);
        self.in_flight += count;
        self.counts.delivered += count as u64;
        count
    }

    #[inline]
    fn next(&mut self) -> Option<(i64, T)> {
        if self.keys.is_some() {
            return self.next_by_key();
        }
        let (rank, entry) = self.queue.pop()?;
        if entry.item.key().is_some() {
            self.keys = Some(Box::new(Keys::new()));
            self.hold_key(&entry.item, Holder::InFlight);
        }
        Some((rank, entry.item))
    }

    /// Once keys are in use, what is parked may be before what is queued, and what is queued may have to be parked.
    #[inline(never)]
    fn next_by_key(&mut self) -> Option<(i64, T)> {
        let keys = self.keys.as_mut()?;
        loop {
            let queued = self.queue.peek().map(|(rank, entry)| (rank, entry.position));
            let parked = keys.peek();
            if parked.is_some_and(|parked| queued.is_none_or(|queued| parked < queued)) {
                return keys.take();
            }
            let (rank, entry) = self.queue.pop()?;
            let Some(key) = entry.item.key() else {
                return Some((rank, entry.item));
            };
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

    #[inline]
    pub(crate) fn ack_many<'k>(&mut self, keys: impl Iterator<Item = Option<&'k str>>) -> Vec<W> {
        keys.filter_map(|key| self.ack(key)).collect()
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
        Retried { earliest_changed, wake: self.wake() }
    }

    pub(crate) fn release(&mut self, rank: i64, item: T) -> Option<WorkerId> {
        self.settle(item.key());
        self.counts.released += 1;
        self.front -= 1;
        self.queue.push_front(rank, Entry { position: self.front, item });
        self.wake()
    }

    pub(crate) fn promote(&mut self, now_ns: u64) -> Promoted {
        while let Some(delay) = self.delayed.pop_due(now_ns) {
            self.come_back(delay.rank, delay.item, delay.holds_key);
        }
        Promoted { next_due: self.delayed.next_due(), wake: self.wake() }
    }

    pub(crate) fn promote_until(&mut self, now_wall_ns: u64) -> Promoted {
        while let Some(delay) = self.held.pop_due(now_wall_ns) {
            self.come_back(delay.rank, delay.item, false);
        }
        Promoted { next_due: self.held.next_due(), wake: self.wake() }
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
    pub(super) fn removed(&mut self, entry: &Entry<T>) {
        if let (Some(keys), Some(key)) = (&mut self.keys, entry.item.key()) {
            let key = keys.hash(key);
            keys.removed(key, entry.position);
        }
    }
}
