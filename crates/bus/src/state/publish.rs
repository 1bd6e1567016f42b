//! Entering, and what gives way by policy.

use super::{Entry, State};
use crate::answers::{Delayed, Entered, Push};
use crate::keys::Place;
use crate::mailbox::{Keyed, Overflow};
use crate::workers::WorkerId;

impl<T: Keyed, W> State<T, W> {
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

    #[inline]
    pub(crate) fn push_many(
        &mut self,
        rank: i64,
        items: impl Iterator<Item = T>,
    ) -> (usize, Option<WorkerId>) {
        let room = if self.closed { 0 } else { self.capacity.saturating_sub(self.used) };
        let (before, items) = (self.back, items.take(room));
        if self.keys.is_some() {
            for item in items {
                let position = self.next_position();
                self.queue_at(rank, position, item);
            }
        } else {
            let back = &mut self.back;
            let entries = items.map(|item| {
                *back += 1;
                Entry { position: *back, item }
            });
            self.queue.extend(rank, entries);
        }
        let entered = (self.back - before) as usize;
        self.used += entered;
        (entered, self.wake())
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
                Some(evicted) => Push::Replaced { evicted, wake: self.queue_back(rank, item) },
                None => {
                    self.counts.dropped += 1;
                    Push::Dropped(item)
                }
            },
        }
    }

    pub(crate) fn enter(&mut self, rank: i64, item: T) -> Entered<T> {
        match self.use_reserved() {
            None => Entered::Closed(item),
            Some(evicted) => Entered::Queued { evicted, wake: self.queue_back(rank, item) },
        }
    }

    pub(crate) fn delay(&mut self, rank: i64, item: T, due_ns: u64, now_ns: u64) -> Delayed<T> {
        let Some(evicted) = self.use_reserved() else {
            return Delayed::Closed(item);
        };
        if due_ns <= now_ns {
            let wake = self.queue_back(rank, item);
            return Delayed::Held { evicted, earliest_changed: None, wake };
        }
        let earliest_changed = self.delayed.push(due_ns, rank, item, false);
        Delayed::Held { evicted, earliest_changed, wake: None }
    }

    pub(crate) fn delay_until(
        &mut self,
        rank: i64,
        item: T,
        wall_ns: u64,
        now_wall_ns: u64,
    ) -> Delayed<T> {
        let Some(evicted) = self.use_reserved() else {
            return Delayed::Closed(item);
        };
        let mut wake = None;
        if wall_ns <= now_wall_ns {
            wake = self.queue_back(rank, item);
        } else {
            self.held.push(wall_ns, rank, item, false);
        }
        Delayed::Held { evicted, earliest_changed: None, wake }
    }

    pub(crate) fn offer(&mut self, rank: i64, item: T) -> Result<Option<WorkerId>, T> {
        if self.closed {
            return Err(item);
        }
        self.used += 1;
        Ok(self.queue_back(rank, item))
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

    /// Takes out the oldest item of the least urgent rank; its slot is the caller's.
    fn evict(&mut self) -> Option<T> {
        let queued = self.queue.peek_evict().map(|(rank, entry)| (rank, entry.position));
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
    pub(super) fn queue_back(&mut self, rank: i64, item: T) -> Option<WorkerId> {
        let position = self.next_position();
        self.queue_at(rank, position, item);
        self.wake()
    }

    pub(super) fn next_position(&mut self) -> i64 {
        self.back += 1;
        self.back
    }

    #[inline]
    pub(super) fn queue_at(&mut self, rank: i64, position: i64, item: T) {
        if self.keys.is_some() && item.key().is_some() {
            return self.queue_by_key(rank, position, item);
        }
        self.queue.push_back(rank, Entry { position, item });
    }

    /// Parks what `take` would park at once, so that it wakes nobody in vain.
    #[inline(never)]
    fn queue_by_key(&mut self, rank: i64, position: i64, item: T) {
        if let (Some(keys), Some(key)) = (&mut self.keys, item.key())
            && !keys.is_empty()
            && self.queue.is_empty_at(rank)
        {
            let key = keys.hash(key);
            if keys.blocks(key, position) {
                return keys.park(key, (rank, position), item);
            }
        }
        self.queue.push_back(rank, Entry { position, item });
    }
}

/// Whether `a` would be evicted before `b`.
fn older(a: Place, b: Place) -> bool {
    (std::cmp::Reverse(a.0), a.1) < (std::cmp::Reverse(b.0), b.1)
}
