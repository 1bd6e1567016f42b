//! Who runs, who rests, who is to be woken.

use super::State;
use crate::mailbox::Keyed;
use crate::workers::{Mode, WorkerId, Workers};

impl<T: Keyed, W> State<T, W> {
    pub(crate) fn workers(&mut self) -> &mut Workers {
        &mut self.workers
    }

    pub(crate) fn leave(&mut self, worker: WorkerId) -> Option<WorkerId> {
        if self.workers.leave(worker) {
            let theirs = self.waiters.iter_mut().filter(|waiter| waiter.worker == Some(worker));
            theirs.for_each(|waiter| waiter.worker = None);
        }
        self.wake()
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

    /// Chooses a worker for what there is to do, or to end; one that ends is followed by the next.
    #[inline]
    pub(crate) fn wake(&mut self) -> Option<WorkerId> {
        if !self.workers.resting() {
            return None;
        }
        if self.has_work() || self.finished() { self.workers.choose() } else { None }
    }

    /// Closed and empty.
    pub(crate) fn finished(&self) -> bool {
        self.closed && self.depth() == 0
    }
}
