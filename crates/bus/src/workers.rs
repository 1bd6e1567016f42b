//! The workers of a mailbox and the rule for waking them.
//!
//! A push wakes an idle worker only when none is active: running, or chosen and about to run. An active worker looks at
//! the queue again before it rests, and one that suspends inside its handler hands over what is left. So a burst wakes
//! one worker once, and no message waits unseen.

/// Names a worker of one mailbox, from `join` until `leave`.
pub type WorkerId = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The id is free.
    Gone,
    /// Runs, or was chosen to.
    Active,
    /// Waits to be chosen.
    Idle,
    /// Waits for something else.
    Away,
}

#[derive(Clone, Copy, Debug)]
struct Worker {
    mode: Mode,
    /// How many publishes into this same mailbox its handler waits for.
    publishes: u32,
}

#[derive(Debug)]
pub(crate) struct Workers {
    workers: Vec<Worker>,
    idle: Vec<WorkerId>,
    gone: Vec<WorkerId>,
    joined: u32,
    active: u32,
    blocked: u32,
}

impl Workers {
    pub(crate) const fn new() -> Self {
        Self {
            workers: Vec::new(),
            idle: Vec::new(),
            gone: Vec::new(),
            joined: 0,
            active: 0,
            blocked: 0,
        }
    }

    pub(crate) fn joined(&self) -> u32 {
        self.joined
    }

    pub(crate) fn blocked(&self) -> u32 {
        self.blocked
    }

    pub(crate) fn join(&mut self) -> WorkerId {
        let worker = Worker { mode: Mode::Active, publishes: 0 };
        self.joined += 1;
        self.active += 1;
        if let Some(id) = self.gone.pop() {
            self.workers[id as usize] = worker;
            return id;
        }
        self.workers.push(worker);
        (self.workers.len() - 1) as WorkerId
    }

    /// Answers whether a publish of this worker still waited.
    pub(crate) fn leave(&mut self, id: WorkerId) -> bool {
        if self.mode(id) == Mode::Gone {
            return false;
        }
        self.set(id, Mode::Gone);
        self.gone.push(id);
        self.joined -= 1;
        let publishes = std::mem::take(&mut self.workers[id as usize].publishes);
        self.blocked -= u32::from(publishes > 0);
        publishes > 0
    }

    pub(crate) fn set(&mut self, id: WorkerId, mode: Mode) {
        let old = self.mode(id);
        assert!(old != Mode::Gone, "worker {id} has not joined this mailbox, or has left it");
        self.active -= u32::from(old == Mode::Active);
        self.active += u32::from(mode == Mode::Active);
        if old == Mode::Idle {
            self.idle.retain(|&other| other != id);
        }
        if mode == Mode::Idle {
            self.idle.push(id);
        }
        self.workers[id as usize].mode = mode;
    }

    /// Whether work would have to wake somebody.
    #[inline]
    pub(crate) fn resting(&self) -> bool {
        self.active == 0 && !self.idle.is_empty()
    }

    /// Makes the one that rested last active.
    pub(crate) fn choose(&mut self) -> Option<WorkerId> {
        let id = self.idle.pop()?;
        self.workers[id as usize].mode = Mode::Active;
        self.active += 1;
        Some(id)
    }

    pub(crate) fn choose_all(&mut self) -> Vec<WorkerId> {
        std::iter::from_fn(|| self.choose()).collect()
    }

    /// False if that would leave no worker to drain the mailbox.
    pub(crate) fn block(&mut self, id: WorkerId) -> bool {
        if self.mode(id) == Mode::Gone {
            return true;
        }
        let worker = &mut self.workers[id as usize];
        if worker.publishes == 0 {
            if self.blocked + 1 >= self.joined {
                return false;
            }
            self.blocked += 1;
        }
        worker.publishes += 1;
        true
    }

    pub(crate) fn unblock(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(id as usize) else {
            return;
        };
        if worker.publishes > 0 {
            worker.publishes -= 1;
            self.blocked -= u32::from(worker.publishes == 0);
        }
    }

    fn mode(&self, id: WorkerId) -> Mode {
        self.workers.get(id as usize).map_or(Mode::Gone, |worker| worker.mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_rested_last_is_chosen() {
        let mut workers = Workers::new();
        let [a, b] = [workers.join(), workers.join()];
        workers.set(a, Mode::Idle);
        assert!(!workers.resting(), "b is active");
        workers.set(b, Mode::Idle);
        assert!(workers.resting());
        assert_eq!(workers.choose(), Some(b));
        assert!(!workers.resting());
        assert_eq!(workers.choose_all(), [a]);
        assert_eq!(workers.choose(), None);
    }

    #[test]
    fn one_that_is_away_does_not_count() {
        let mut workers = Workers::new();
        let [a, b] = [workers.join(), workers.join()];
        workers.set(a, Mode::Idle);
        workers.set(b, Mode::Away);
        assert!(workers.resting());
        workers.set(a, Mode::Away);
        assert!(!workers.resting());
        assert_eq!(workers.choose(), None);
    }

    #[test]
    fn an_id_is_used_again_after_leaving() {
        let mut workers = Workers::new();
        let [a, b] = [workers.join(), workers.join()];
        assert_ne!(a, b);
        assert!(!workers.leave(a) && !workers.leave(a));
        assert_eq!((workers.join(), workers.joined()), (a, 2));
    }

    #[test]
    fn one_worker_must_stay_free() {
        let mut workers = Workers::new();
        let [a, b] = [workers.join(), workers.join()];
        assert!(workers.block(a) && workers.block(a));
        assert!(!workers.block(b));
        workers.unblock(a);
        assert_eq!(workers.blocked(), 1, "it waits twice");
        workers.unblock(a);
        workers.unblock(a);
        assert_eq!(workers.blocked(), 0);
        assert!(workers.block(b));
        assert!(workers.leave(b), "it still waited");
        assert!(!workers.block(a), "it is alone now");
        assert!(workers.block(b), "who has left drains nothing");
    }
}
