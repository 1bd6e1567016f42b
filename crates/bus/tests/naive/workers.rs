//! Who runs, who rests, who is to be woken.

use neuralcore_bus::mailbox::WorkerId;

use super::{Naive, Worker};

impl Naive {
    pub(crate) fn join(&mut self, worker: WorkerId) {
        assert!(self.workers.insert(worker, Worker::Active).is_none(), "the id is in use");
    }

    pub(crate) fn leave(&mut self, worker: WorkerId) -> Option<WorkerId> {
        self.set(worker, Worker::Away);
        self.workers.remove(&worker);
        for (_, waiting) in &mut self.waiters {
            waiting.take_if(|waiting| *waiting == worker);
        }
        self.wake()
    }

    pub(crate) fn idle(&mut self, worker: WorkerId) -> bool {
        let rests = !self.has_work() && !self.finished();
        if rests {
            self.set(worker, Worker::Idle);
        }
        rests
    }

    pub(crate) fn away(&mut self, worker: WorkerId) -> Option<WorkerId> {
        self.set(worker, Worker::Away);
        self.wake()
    }

    pub(crate) fn resumed(&mut self, worker: WorkerId) {
        self.set(worker, Worker::Active);
    }

    fn set(&mut self, worker: WorkerId, to: Worker) {
        self.resting.retain(|&resting| resting != worker);
        if to == Worker::Idle {
            self.resting.push(worker);
        }
        self.workers.insert(worker, to);
    }

    pub(crate) fn worker(&self, n: usize) -> Option<WorkerId> {
        self.workers.keys().nth(n % self.workers.len().max(1)).copied()
    }

    pub(super) fn wake(&mut self) -> Option<WorkerId> {
        let active = self.workers.values().any(|&worker| worker == Worker::Active);
        if active || !(self.has_work() || self.finished()) {
            return None;
        }
        let worker = self.resting.last().copied()?;
        self.set(worker, Worker::Active);
        Some(worker)
    }

    pub(super) fn wake_all(&mut self) -> Vec<WorkerId> {
        let resting: Vec<_> = self.resting.drain(..).rev().collect();
        resting.iter().for_each(|&worker| self.resumed(worker));
        resting
    }

    /// What is queued counts until somebody has found that its key is busy.
    pub(super) fn has_work(&self) -> bool {
        self.queued.iter().any(|queued| !queued.parked || !self.is_held(&queued.item))
    }

    pub(crate) fn finished(&self) -> bool {
        self.closed && self.depth() == 0
    }
}
