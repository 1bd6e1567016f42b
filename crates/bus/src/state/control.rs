//! Changes and figures.

use super::{Entry, State};
use crate::answers::{Closed, MailboxStats, Relaxed};
use crate::delayed::Delayed;
use crate::keys::{Parked, Place};
use crate::mailbox::{Keyed, Overflow};
use crate::queue::PriorityQueue;
use crate::ranked::Ranked;
use crate::workers::WorkerId;

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
        Closed { waiters, workers: self.workers.choose_all() }
    }

    /// Takes out all that is not in flight, to be sorted without the lock, and the rest of the answer.
    pub(crate) fn clear(&mut self) -> (Contents<T>, Vec<W>, Vec<WorkerId>) {
        self.used -= self.depth();
        let contents = Contents {
            queue: std::mem::take(&mut self.queue),
            parked: self.keys.as_mut().map(|keys| keys.clear()),
            delayed: std::mem::replace(&mut self.delayed, Delayed::new()),
            held: std::mem::replace(&mut self.held, Delayed::new()),
        };
        let workers = if self.closed { self.workers.choose_all() } else { Vec::new() };
        (contents, self.grant_all(), workers)
    }

    pub(crate) fn take_relaxed(&mut self, above: i64) -> Relaxed<T, W> {
        let relaxed = self.queue.relaxed_rank().filter(|&rank| rank > above);
        let Some((rank, entry)) = relaxed.and_then(|_| self.queue.pop_relaxed()) else {
            return Relaxed { item: None, granted: None, wake: None };
        };
        self.removed(&entry);
        let granted = self.give_slot();
        Relaxed { item: Some((rank, entry.item)), granted, wake: self.wake() }
    }

    pub(crate) fn most_relaxed(&self) -> Option<i64> {
        self.queue.relaxed_rank()
    }

    pub(crate) fn depths(&self) -> Vec<(i64, usize)> {
        self.queue.depths()
    }

    pub(crate) fn depth(&self) -> usize {
        self.queued() + self.parked() + self.delayed()
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

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn parked(&self) -> usize {
        self.keys.as_ref().map_or(0, |keys| keys.len())
    }

    pub(super) fn delayed(&self) -> usize {
        self.delayed.len() + self.held.len()
    }

    /// All that is not in flight, in no order.
    pub(crate) fn items(&self) -> impl Iterator<Item = &T> {
        let queued = self.queue.items().map(|entry| &entry.item);
        let parked = self.keys.iter().flat_map(|keys| keys.items());
        queued.chain(parked).chain(self.delayed.items()).chain(self.held.items())
    }

    /// All figures but the histograms.
    pub(crate) fn stats(&self) -> MailboxStats {
        MailboxStats {
            capacity: self.capacity,
            queued: self.queued(),
            parked: self.parked(),
            delayed: self.delayed(),
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

/// What was in a mailbox.
pub(crate) struct Contents<T> {
    queue: PriorityQueue<Entry<T>>,
    parked: Option<Ranked<Parked<T>>>,
    delayed: Delayed<T>,
    held: Delayed<T>,
}

impl<T> Contents<T> {
    /// Most urgent first; inside a rank, what is delayed comes last.
    pub(crate) fn in_order(mut self) -> Vec<(i64, T)> {
        let queued = self.queue.drain().into_iter();
        let mut items: Vec<(Place, T)> =
            queued.map(|(rank, entry)| ((rank, entry.position), entry.item)).collect();
        let parked = self.parked.into_iter().flat_map(|mut parked| parked.drain());
        items.extend(parked.map(|(rank, parked)| ((rank, parked.position), parked.item)));
        let delayed = self.delayed.drain().chain(self.held.drain());
        items.extend(delayed.map(|delay| ((delay.rank, i64::MAX), delay.item)));
        items.sort_by_key(|&(place, _)| place);
        items.into_iter().map(|((rank, _), item)| (rank, item)).collect()
    }
}
