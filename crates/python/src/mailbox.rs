//! The Python face of a mailbox, and what follows from its answers: whom to wake, whose slot it is now.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use neuralcore_bus::mailbox::Acked;
use neuralcore_bus::{Clock, WorkerId};
use pyo3::ffi;
use pyo3::prelude::*;

use crate::entry::{Entry, Text};
use crate::globals::globals;
use crate::message::{self, MessageObject};
use crate::obj::{GilCell, R, Ref, frozen, raise, unraisable};
use crate::ticket::Ticket;
use crate::{message_type, pump, ready, waiting};

pub(crate) type Core = neuralcore_bus::Mailbox<Entry, Ticket>;

/// What waits for a time of the wall clock sleeps no longer than this before the clock is looked at again.
const WALL_CHECK_NS: u64 = 1_000_000_000;

pub(crate) static MADE: AtomicU64 = AtomicU64::new(0);

#[pyclass(frozen, weakref, module = "neuralcore._native")]
pub(crate) struct Mailbox {
    pub(crate) core: Core,
    /// Ascends in the order of construction.
    pub(crate) id: u64,
    pub(crate) clock: Arc<Clock>,
    pub(crate) settler: GilCell<Option<Ref>>,
    /// The pumps and `ready()` awaitables by worker id, unowned: each leaves before it dies.
    pub(crate) workers: GilCell<Vec<usize>>,
    /// Monotonic: when a message woke a worker that is still on its way to it.
    pub(crate) woken_ns: GilCell<u64>,
    /// Monotonic: the due time that the settler knows of; 0 for none.
    pub(crate) announced_ns: GilCell<u64>,
    /// All workers that it had are of loops that are closed.
    pub(crate) deserted: AtomicBool,
}

impl Mailbox {
    #[inline]
    pub(crate) fn of(object: &Ref) -> &Mailbox {
        // SAFETY: references of this crate to mailboxes hold mailboxes.
        unsafe { frozen(object.as_ptr()) }
    }

    pub(crate) fn settler(&self) -> Option<Ref> {
        // SAFETY: cloned at once.
        unsafe { self.settler.get().clone() }
    }

    /// Registers a worker.
    pub(crate) fn join(&self, worker: *mut ffi::PyObject) -> WorkerId {
        let id = self.core.join();
        self.deserted.store(false, Relaxed);
        // SAFETY: no Python code runs.
        let workers = unsafe { self.workers.get() };
        if workers.len() <= id as usize {
            workers.resize(id as usize + 1, 0);
        }
        workers[id as usize] = worker as usize;
        id
    }

    /// Unregisters a worker in whatever state it is.
    pub(crate) fn leave(&self, worker: WorkerId) {
        // SAFETY: no Python code runs.
        unsafe { self.workers.get()[worker as usize] = 0 };
        let wake = self.core.leave(worker);
        self.wake_some(wake);
    }

    /// How many messages a pump's handler is at.
    pub(crate) fn held_by(&self, worker: WorkerId) -> usize {
        // SAFETY: a registered worker is alive; nothing else runs.
        unsafe {
            match self.workers.get().get(worker as usize) {
                None | Some(0) => 0,
                Some(&address) => pump::held(address as *mut ffi::PyObject),
            }
        }
    }

    #[inline]
    pub(crate) fn is_deserted(&self) -> bool {
        self.deserted.load(Relaxed)
    }

    #[inline]
    pub(crate) fn wake_some(&self, worker: Option<WorkerId>) {
        if let Some(worker) = worker {
            self.wake(worker);
        }
    }

    /// Wakes a worker that was chosen, or the next one if nobody runs its loop any more.
    #[cold]
    pub(crate) fn wake(&self, worker: WorkerId) {
        // SAFETY: no Python code runs.
        unsafe { *self.woken_ns.get() = self.clock.monotonic_ns() };
        let mut chosen = Some(worker);
        while let Some(worker) = chosen {
            // SAFETY: no Python code runs.
            let address = unsafe { self.workers.get()[worker as usize] };
            // SAFETY: a registered worker is alive.
            let object = (address != 0).then(|| unsafe { Ref::borrow(address as *mut _) });
            if object.is_some_and(|object| wake_worker(&object)) {
                return;
            }
            // SAFETY: no Python code runs.
            let workers = unsafe { self.workers.get() };
            if workers[worker as usize] != address {
                // It left by itself, and another may have its id.
                return;
            }
            workers[worker as usize] = 0;
            chosen = self.core.leave(worker);
        }
        self.deserted.store(self.core.workers() == 0, Relaxed);
    }

    /// Takes back what was put in last, if nobody is left who would ever take it.
    #[cold]
    pub(crate) fn take_back(&self, items: usize) {
        for _ in 0..items {
            let relaxed = self.core.take_relaxed(i64::MIN);
            waiting::granted(relaxed.granted);
            drop(relaxed.item);
        }
    }

    /// Tells the settler when something is due, if that is earlier than what it knows. What it raises is nothing that
    /// whoever published could do anything about.
    pub(crate) fn announce(&self, this: &Ref, due_ns: Option<u64>) {
        let Some(due_ns) = due_ns else { return };
        // SAFETY: no Python code runs.
        let announced_ns = unsafe { self.announced_ns.get() };
        if *announced_ns <= due_ns && *announced_ns > self.clock.monotonic_ns() {
            return;
        }
        *announced_ns = due_ns;
        let Some(settler) = self.settler() else { return };
        // SAFETY: answers a new reference or null.
        let told = unsafe { Ref::steal(ffi::PyLong_FromUnsignedLongLong(due_ns)) }
            .and_then(|due| settler.method(&globals().due, &[this.as_ptr(), due.as_ptr()]));
        if let Err(raised) = told {
            unraisable(raised, settler.as_ptr());
        }
    }

    /// When to look at the wall clock, which may jump, for what it holds until `at_ns`.
    pub(crate) fn wall_check(&self, at_ns: u64) -> u64 {
        let left = at_ns.saturating_sub(self.clock.time_ns().max(0) as u64);
        self.clock.monotonic_ns() + left.min(WALL_CHECK_NS)
    }

    /// All publishers that wait, whose places are given up.
    pub(crate) fn withdrawn(&self) -> Vec<Ref> {
        let mut tickets = Vec::new();
        let mut first = |ticket: &Ticket| {
            tickets.push(*ticket);
            true
        };
        while self.core.cancel(&mut first) {}
        Ticket::into_objects(tickets)
    }

    pub(crate) fn acked(&self, acked: Acked<Ticket>) {
        waiting::granted(acked.granted);
        self.wake_some(acked.wake);
    }

    /// What was taken, as a message in flight, and whether its handling is to be measured. What has expired gives way
    /// to the next.
    #[inline]
    pub(crate) fn deliver(&self, this: &Ref, taken: (i64, Entry)) -> R<Option<(Ref, bool)>> {
        let (rank, entry) = taken;
        if entry.extras.is_some() || entry.is_ready_made() {
            return self.deliver_special(this, (rank, entry));
        }
        let sampled = self.sample(&entry);
        let message = message::from_entry(entry, rank, Some(this.clone()))?;
        // SAFETY: the message is new.
        unsafe { MessageObject::of(&message) }.start();
        Ok(Some((message, sampled)))
    }

    #[cold]
    pub(crate) fn deliver_special(
        &self,
        this: &Ref,
        mut taken: (i64, Entry),
    ) -> R<Option<(Ref, bool)>> {
        loop {
            let (rank, entry) = taken;
            let expires = entry.extras().and_then(|extras| extras.expires_at_ns);
            let expired = expires.is_some_and(|at| at <= self.clock.time_ns());
            let sampled = !expired && self.sample(&entry);
            let message = message::from_entry(entry, rank, Some(this.clone()))?;
            // SAFETY: no other borrow of it is alive.
            let fields = unsafe { MessageObject::of(&message) };
            if !expired {
                fields.start();
                return Ok(Some((message, sampled)));
            }
            let acked = self.core.expire(fields.key().map(Text::as_str));
            self.acked(acked);
            if let Some(settler) = self.settler() {
                settler.method(&globals().expired, &[message.as_ptr()])?;
            }
            match self.core.take() {
                Some(next) => taken = next,
                None => return Ok(None),
            }
        }
    }

    /// Records how long an entry waited, if it is one that is measured or the one that ended an idle time.
    #[inline]
    pub(crate) fn sample(&self, entry: &Entry) -> bool {
        // SAFETY: no Python code runs.
        let woken_ns = unsafe { std::mem::take(self.woken_ns.get()) };
        if woken_ns == 0 && (entry.is_ready_made() || !crate::router::sampled(entry.seq)) {
            return false;
        }
        let due_ns = entry.extras.as_ref().map_or(0, |extras| extras.due_ns);
        let since = woken_ns.max(due_ns);
        let waited = match since {
            0 => self.clock.time_ns().saturating_sub(entry.stamp_ns).max(0) as u64,
            since => self.clock.monotonic_ns().saturating_sub(since),
        };
        self.core.record_wait(waited);
        true
    }

    /// Gives slot and key back.
    pub(crate) fn finish(&self, message: &MessageObject) {
        let acked = self.core.ack(message.key().map(Text::as_str));
        self.acked(acked);
    }

    /// Back to the front of its equals.
    pub(crate) fn give_up(&self, message: &Ref) {
        // SAFETY: no other borrow of it is alive.
        if unsafe { MessageObject::of(message) }.finish() {
            self.release(message);
        }
    }

    /// A message that has landed goes back to the front of its equals, as it was delivered.
    pub(crate) fn release(&self, message: &Ref) {
        // SAFETY: no other borrow of it is alive.
        let fields = unsafe { MessageObject::of(message) };
        let touched = fields.settled() || fields.lease_lost();
        let fresh = if touched { fields.again(fields.attempt) } else { Ok(message.clone()) };
        let next = fresh.unwrap_or_else(|raised| {
            unraisable(raised, message.as_ptr());
            message.clone()
        });
        let wake = self.core.release(fields.rank, Entry::ready_made(next));
        self.wake_some(wake);
    }

    /// The message in flight of an argument; it is so no more.
    pub(crate) fn landing(&self, message: &Bound<'_, PyAny>, verb: &str) -> R<Ref> {
        let message = Ref::from(message);
        message_type::expect(&message)?;
        // SAFETY: no other borrow of it is alive.
        let fields = unsafe { MessageObject::of(&message) };
        let ours = fields.mailbox().is_some_and(|mailbox| std::ptr::eq(mailbox, self));
        if ours && fields.finish() {
            return Ok(message);
        }
        let id = Text::new(fields.id()?)?;
        let text = format!("cannot {verb} message {}: it is not in flight here", id.as_str());
        Err(raise(&globals().value_error, &text))
    }
}

pub(crate) fn wake_worker(object: &Ref) -> bool {
    if pump::check(object) { pump::wake(object) } else { ready::wake(object) }
}
