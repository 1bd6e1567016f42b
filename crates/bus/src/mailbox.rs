//! A bounded priority FIFO with slots, keys, delays and workers, safe to use from any thread.

use std::fmt;

pub use crate::answers::*;
use crate::histogram::Histogram;
use crate::state::State;
use crate::sync::{Mutex, MutexGuard};
pub use crate::workers::WorkerId;

/// What a queued item has to tell a mailbox.
pub trait Keyed {
    /// Items with one key are in flight one at a time.
    fn key(&self) -> Option<&str>;
}

/// What a full mailbox does with a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The publisher waits.
    Block,
    /// The newcomer is dropped.
    DropNew,
    /// The oldest item of the least urgent rank is dropped.
    DropOld,
    /// The publisher is refused.
    Reject,
}

/// How a mailbox is set up.
#[derive(Clone, Copy, Debug)]
pub struct MailboxConfig {
    /// How many items may be queued, parked, delayed, in flight or reserved together.
    pub capacity: usize,
    /// What happens beyond that.
    pub overflow: Overflow,
    /// Whether an item that waits for its retry keeps its key.
    pub hold_keys: bool,
}

/// A bounded priority FIFO of `T`, into which publishers known by tickets `W` wait to get.
///
/// An item takes a slot on entry and gives it back when it is acknowledged; queued, parked, delayed and in flight it
/// keeps it. Lower rank first, first in first out inside a rank; an item whose key is in flight is passed over.
///
/// Every method is one short critical section. Items and tickets are handed back instead of dropped, and whoever has to
/// be told is named in the answer.
///
/// ```
/// use neuralcore_bus::mailbox::*;
///
/// struct Job(&'static str);
/// impl Keyed for Job {
///     fn key(&self) -> Option<&str> {
///         None
///     }
/// }
///
/// let config = MailboxConfig { capacity: 10, overflow: Overflow::Reject, hold_keys: true };
/// let mailbox: Mailbox<Job, ()> = Mailbox::new(config);
/// assert!(matches!(mailbox.push(50, Job("a")), Push::Queued(None)));
/// let (rank, job) = mailbox.take().unwrap();
/// assert_eq!((rank, job.0), (50, "a"));
/// let _ = mailbox.ack(None);
/// ```
///
/// A worker's life, where `park` waits until its id is answered as the one to wake:
///
/// ```text
/// let worker = mailbox.join();
/// loop {
///     while let Some((rank, item)) = mailbox.take() { … mailbox.ack(item.key()) … }
///     if mailbox.idle(worker) { park() } else if mailbox.finished() { break }
/// }
/// wake(mailbox.leave(worker))
/// ```
pub struct Mailbox<T, W> {
    state: Mutex<State<T, W>>,
    wait: Histogram,
    handle: Histogram,
}

impl<T, W> fmt::Debug for Mailbox<T, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

/// Publishing.
impl<T: Keyed, W> Mailbox<T, W> {
    /// An empty mailbox.
    pub fn new(config: MailboxConfig) -> Self {
        Self {
            state: Mutex::new(State::new(config)),
            wait: Histogram::new(),
            handle: Histogram::new(),
        }
    }

    /// Queues an item if there is room, else does what the policy says. Never overtakes a publisher that waits.
    #[inline]
    pub fn push(&self, rank: i64, item: T) -> Push<T> {
        self.lock().push(rank, item)
    }

    /// Queues items of one rank for as long as there is room, in one step; answers how many, and the worker to wake.
    ///
    /// The iterator is asked under the lock, and only for what there is room for: what it still has did not happen.
    pub fn push_many(
        &self,
        rank: i64,
        items: impl Iterator<Item = T>,
    ) -> (usize, Option<WorkerId>) {
        self.lock().push_many(rank, items)
    }

    /// Reserves a slot, or a place in the line of those who wait for one.
    ///
    /// What is granted must be used by [`enter`](Self::enter) or [`delay`](Self::delay), or given back by
    /// [`unreserve`](Self::unreserve). When the policy drops the old, the slot is granted now and the eviction comes
    /// with the entry.
    pub fn reserve(&self, ticket: W) -> Reserve<W> {
        self.lock().reserve(ticket, None)
    }

    /// Like [`reserve`](Self::reserve), for a publish inside a handler of this mailbox.
    ///
    /// Answers [`Reserve::Deadlock`] when all other workers wait like this already. The worker counts as blocked until
    /// the ticket is granted, cancelled or refused.
    pub fn reserve_from(&self, worker: WorkerId, ticket: W) -> Reserve<W> {
        self.lock().reserve(ticket, Some(worker))
    }

    /// Queues an item in a reserved slot.
    pub fn enter(&self, rank: i64, item: T) -> Entered<T> {
        self.lock().enter(rank, item)
    }

    /// Holds an item in a reserved slot until it is due; its key is not held.
    pub fn delay(&self, rank: i64, item: T, due_ns: u64, now_ns: u64) -> Delayed<T> {
        self.lock().delay(rank, item, due_ns, now_ns)
    }

    /// Like [`delay`](Self::delay), until a time of the wall clock, which may jump: what is held so is queued by
    /// [`promote_until`](Self::promote_until), and a change of its earliest time is not announced.
    pub fn delay_until(&self, rank: i64, item: T, wall_ns: u64, now_wall_ns: u64) -> Delayed<T> {
        self.lock().delay_until(rank, item, wall_ns, now_wall_ns)
    }

    /// Gives a reserved slot back; answers the publisher to whom it is granted instead.
    pub fn unreserve(&self) -> Option<W> {
        self.lock().unreserve()
    }

    /// Withdraws a waiting ticket. False if none is like that; then it may have been granted.
    ///
    /// The predicate is called under the lock.
    pub fn cancel(&self, is: impl FnMut(&W) -> bool) -> bool {
        let cancelled = self.lock().cancel(is);
        cancelled.is_some()
    }

    /// Queues an item past the capacity. Answers the worker to wake, or the item if the mailbox is closed.
    pub fn offer(&self, rank: i64, item: T) -> Result<Option<WorkerId>, T> {
        self.lock().offer(rank, item)
    }
}

/// Taking and settling.
impl<T: Keyed, W> Mailbox<T, W> {
    /// Takes the most urgent item whose key is free; it is in flight until it is settled.
    #[inline]
    pub fn take(&self) -> Option<(i64, T)> {
        self.lock().take()
    }

    /// Takes up to `limit` items as [`take`](Self::take) does, in one step, and appends them to `into`.
    pub fn take_many(&self, limit: usize, into: &mut Vec<(i64, T)>) {
        self.lock().take_many(limit, into);
    }

    /// [`ack`](Self::ack) and [`take`](Self::take) in one step, for a worker that goes on.
    #[inline]
    pub fn settle_and_take(&self, key: Option<&str>) -> (Option<W>, Option<(i64, T)>) {
        let mut state = self.lock();
        let granted = state.ack(key);
        (granted, state.take())
    }

    /// An item in flight is done: gives its slot and its key back.
    pub fn ack(&self, key: Option<&str>) -> Acked<W> {
        let mut state = self.lock();
        Acked { granted: state.ack(key), wake: state.wake() }
    }

    /// Several items in flight are done, in one step; answers the publishers that got slots and the worker to wake.
    pub fn ack_many<'k>(
        &self,
        keys: impl Iterator<Item = Option<&'k str>>,
    ) -> (Vec<W>, Option<WorkerId>) {
        let mut state = self.lock();
        (state.ack_many(keys), state.wake())
    }

    /// An item was taken after its expiry: like [`ack`](Self::ack), but it counts as expired and not as delivered.
    pub fn expire(&self, key: Option<&str>) -> Acked<W> {
        let mut state = self.lock();
        Acked { granted: state.expire(key), wake: state.wake() }
    }

    /// Queues an item in flight again behind its equals, once it is due. It keeps its slot, and by
    /// [`hold_keys`](MailboxConfig::hold_keys) its key.
    pub fn retry(&self, rank: i64, item: T, due_ns: u64, now_ns: u64) -> Retried {
        self.lock().retry(rank, item, due_ns, now_ns)
    }

    /// Queues an item in flight again before its equals. It keeps its slot.
    pub fn release(&self, rank: i64, item: T) -> Option<WorkerId> {
        self.lock().release(rank, item)
    }

    /// Queues what is due.
    pub fn promote(&self, now_ns: u64) -> Promoted {
        self.lock().promote(now_ns)
    }

    /// Queues what [`delay_until`](Self::delay_until) holds and is due; answers in terms of the wall clock.
    pub fn promote_until(&self, now_wall_ns: u64) -> Promoted {
        self.lock().promote_until(now_wall_ns)
    }
}

/// Workers. A worker is active from `join` on; ids are used again after `leave`.
impl<T: Keyed, W> Mailbox<T, W> {
    /// Registers a worker, which must look for work before it rests.
    pub fn join(&self) -> WorkerId {
        self.lock().workers().join()
    }

    /// Unregisters a worker in whatever state it is; answers whom to wake in its stead. Twice is harmless.
    pub fn leave(&self, worker: WorkerId) -> Option<WorkerId> {
        self.lock().leave(worker)
    }

    /// Rests until chosen. False, and still active, if there may be work or the mailbox is [`finished`](Self::finished).
    pub fn idle(&self, worker: WorkerId) -> bool {
        self.lock().idle(worker)
    }

    /// Stops resting without work, as one that was cancelled; answers whom to wake if it had been chosen already.
    pub fn unidle(&self, worker: WorkerId) -> Option<WorkerId> {
        self.lock().set_away(worker)
    }

    /// The worker waits inside its handler; answers whom to wake for what is left.
    pub fn suspended(&self, worker: WorkerId) -> Option<WorkerId> {
        self.lock().set_away(worker)
    }

    /// The worker runs again.
    pub fn resumed(&self, worker: WorkerId) {
        self.lock().resumed(worker);
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.lock().workers().joined() as usize
    }

    /// How many of them wait in a publish into this same mailbox.
    pub fn blocked_workers(&self) -> usize {
        self.lock().workers().blocked() as usize
    }
}

/// Inspection and control.
impl<T: Keyed, W> Mailbox<T, W> {
    /// Changes what is given; answers the publishers that now have a slot.
    pub fn configure(&self, capacity: Option<usize>, overflow: Option<Overflow>) -> Vec<W> {
        self.lock().configure(capacity, overflow)
    }

    /// Accepts nothing more from publishers. What is inside can still be taken, retried and released.
    pub fn close(&self) -> Closed<W> {
        self.lock().close()
    }

    /// Takes out all that is not in flight and frees its slots.
    pub fn clear(&self) -> Cleared<T, W> {
        let (contents, granted, workers) = self.lock().clear();
        Cleared { items: contents.in_order(), granted, workers }
    }

    /// Takes out the newest queued item of the least urgent rank, if that is above `rank`, and frees its slot.
    pub fn take_relaxed(&self, rank: i64) -> Relaxed<T, W> {
        self.lock().take_relaxed(rank)
    }

    /// The rank of the least urgent queued item.
    pub fn most_relaxed(&self) -> Option<i64> {
        self.lock().most_relaxed()
    }

    /// How many items are not in flight.
    pub fn depth(&self) -> usize {
        self.lock().depth()
    }

    /// How many queued items each rank has, most urgent first.
    pub fn depths(&self) -> Vec<(i64, usize)> {
        self.lock().depths()
    }

    /// How many slots there are.
    pub fn capacity(&self) -> usize {
        self.lock().capacity()
    }

    /// What happens beyond the capacity.
    pub fn overflow(&self) -> Overflow {
        self.lock().overflow()
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.lock().is_closed()
    }

    /// Whether it was closed and holds nothing more that is not in flight: its workers end.
    pub fn finished(&self) -> bool {
        self.lock().finished()
    }

    /// Shows every item that is not in flight, in no order, until `see` answers false. It is called under the lock.
    pub fn visit(&self, see: impl FnMut(&T) -> bool) -> bool {
        self.lock().items().all(see)
    }

    /// Records a sampled time from publish, or from becoming due, to the handler.
    pub fn record_wait(&self, ns: u64) {
        self.wait.record(ns);
    }

    /// Records a sampled time of the handler.
    pub fn record_handle(&self, ns: u64) {
        self.handle.record(ns);
    }

    /// All figures.
    pub fn stats(&self) -> MailboxStats {
        let stats = self.lock().stats();
        MailboxStats { wait: self.wait.snapshot(), handle: self.handle.snapshot(), ..stats }
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, State<T, W>> {
        self.state.lock()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
