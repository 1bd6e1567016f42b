//! Slots, and the line of publishers that wait for one.

use super::{State, Waiter};
use crate::answers::Reserve;
use crate::mailbox::{Keyed, Overflow};
use crate::workers::WorkerId;

impl<T: Keyed, W> State<T, W> {
    pub(crate) fn reserve(&mut self, ticket: W, worker: Option<WorkerId>) -> Reserve<W> {
        if self.closed {
            return Reserve::Closed(ticket);
        }
        if self.has_room() {
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

    pub(crate) fn unreserve(&mut self) -> Option<W> {
        self.take_reserved();
        self.give_slot()
    }

    pub(crate) fn cancel(&mut self, mut is: impl FnMut(&W) -> bool) -> Option<W> {
        let at = self.waiters.iter().position(|waiter| is(&waiter.ticket))?;
        self.waiters.remove(at).map(|waiter| self.stop_waiting(waiter))
    }

    #[inline]
    pub(super) fn give_slot(&mut self) -> Option<W> {
        self.used -= 1;
        if self.waiters.is_empty() { None } else { self.grant() }
    }

    fn grant(&mut self) -> Option<W> {
        if !self.has_room() {
            return None;
        }
        let waiter = self.waiters.pop_front()?;
        self.used += 1;
        self.reserved += 1;
        Some(self.stop_waiting(waiter))
    }

    pub(super) fn grant_all(&mut self) -> Vec<W> {
        std::iter::from_fn(|| self.grant()).collect()
    }

    pub(super) fn take_reserved(&mut self) {
        let reserved = self.reserved.checked_sub(1);
        self.reserved = reserved.expect("a slot is used that nobody reserved");
    }

    /// Whether a slot may be reserved: there is one, or an item that its owner will evict for it.
    fn has_room(&self) -> bool {
        if self.used < self.capacity {
            return true;
        }
        // What was offered past the capacity is owed by nobody.
        let owed = self.reserved.min(self.used - self.capacity);
        self.overflow == Overflow::DropOld && self.queued() + self.parked() > owed
    }

    pub(super) fn stop_waiting(&mut self, waiter: Waiter<W>) -> W {
        if let Some(worker) = waiter.worker {
            self.workers.unblock(worker);
        }
        waiter.ticket
    }
}
