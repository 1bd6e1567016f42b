//! The Python face of a mailbox, and what follows from its answers: whom to wake, whose slot it is now.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use neuralcore_bus::mailbox::{Acked, MailboxConfig, Overflow};
use neuralcore_bus::{Clock, WorkerId};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::clock::PyClock;
use crate::entry::{Entry, Text};
use crate::globals::globals;
use crate::message::{self, MessageObject};
use crate::obj::{GilCell, R, Ref, frozen, raise};
use crate::{message_type, pump, ready, stats, waiting};

/// A publisher that waits, known by the address of its awaitable; the awaitable withdraws it before it dies.
#[derive(Clone, Copy)]
pub(crate) struct Ticket(usize);

impl Ticket {
    /// Asks whether a reservation would wait; withdrawn at once.
    pub(crate) const PROBE: Ticket = Ticket(0);

    pub(crate) fn of(object: *mut ffi::PyObject) -> Ticket {
        Ticket(object as usize)
    }

    pub(crate) fn is(self, object: *mut ffi::PyObject) -> bool {
        self.0 == object as usize
    }

    pub(crate) fn address(self) -> *mut ffi::PyObject {
        self.0 as *mut ffi::PyObject
    }

    pub(crate) fn is_probe(self) -> bool {
        self.0 == 0
    }

    /// A reference to the awaitable.
    pub(crate) fn into_object(self) -> Ref {
        // SAFETY: the awaitable withdraws its ticket before it is freed.
        unsafe { Ref::borrow(self.0 as *mut ffi::PyObject) }
    }
}

pub(crate) type Core = neuralcore_bus::Mailbox<Entry, Ticket>;

/// What waits for a time of the wall clock sleeps no longer than this before the clock is looked at again.
const WALL_CHECK_NS: u64 = 1_000_000_000;

static MADE: AtomicU64 = AtomicU64::new(0);

#[pyclass(frozen, weakref, module = "neuralcore._native")]
pub(crate) struct Mailbox {
    pub(crate) core: Core,
    /// Ascends in the order of construction.
    pub(crate) id: u64,
    pub(crate) clock: Arc<Clock>,
    settler: GilCell<Option<Ref>>,
    /// The pumps and `ready()` awaitables by worker id, unowned: each leaves before it dies.
    workers: GilCell<Vec<usize>>,
    /// Monotonic: when a message woke a worker that is still on its way to it.
    woken_ns: GilCell<u64>,
    /// Monotonic: the due time that the settler knows of; 0 for none.
    announced_ns: GilCell<u64>,
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
        while let Some(worker) = chosen.take() {
            // SAFETY: read at once; a registered worker is alive.
            let object = unsafe {
                match self.workers.get()[worker as usize] {
                    0 => None,
                    address => Some(Ref::borrow(address as *mut ffi::PyObject)),
                }
            };
            let alive = object.is_some_and(|object| wake_worker(&object));
            if !alive {
                // SAFETY: as above.
                unsafe { self.workers.get()[worker as usize] = 0 };
                chosen = self.core.leave(worker);
            }
        }
    }

    /// Tells the settler when something is due, if that is earlier than what it knows.
    pub(crate) fn announce(&self, this: &Ref, due_ns: Option<u64>) -> R<()> {
        let Some(due_ns) = due_ns else { return Ok(()) };
        // SAFETY: no Python code runs.
        let announced_ns = unsafe { self.announced_ns.get() };
        if *announced_ns <= due_ns && *announced_ns > self.clock.monotonic_ns() {
            return Ok(());
        }
        *announced_ns = due_ns;
        let Some(settler) = self.settler() else { return Ok(()) };
        // SAFETY: answers a new reference or null.
        let due = unsafe { Ref::steal(ffi::PyLong_FromUnsignedLongLong(due_ns))? };
        settler.method(&globals().due, &[this.as_ptr(), due.as_ptr()]).map(drop)
    }

    /// When to look at the wall clock, which may jump, for what it holds until `at_ns`.
    pub(crate) fn wall_check(&self, at_ns: u64) -> u64 {
        let left = at_ns.saturating_sub(self.clock.time_ns().max(0) as u64);
        self.clock.monotonic_ns() + left.min(WALL_CHECK_NS)
    }

    /// All publishers that wait, whose places are given up.
    fn withdrawn(&self) -> Vec<Ref> {
        let mut tickets = Vec::new();
        let mut first = |ticket: &Ticket| {
            tickets.push(*ticket);
            true
        };
        while self.core.cancel(&mut first) {}
        tickets.into_iter().map(Ticket::into_object).collect()
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
    fn deliver_special(&self, this: &Ref, mut taken: (i64, Entry)) -> R<Option<(Ref, bool)>> {
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
    fn sample(&self, entry: &Entry) -> bool {
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
        let fields = unsafe { MessageObject::of(message) };
        if fields.finish() {
            let wake = self.core.release(fields.rank, Entry::ready_made(message.clone()));
            self.wake_some(wake);
        }
    }

    /// The message in flight of an argument; it is so no more.
    fn landing(&self, message: &Bound<'_, PyAny>, verb: &str) -> R<Ref> {
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

fn wake_worker(object: &Ref) -> bool {
    if pump::check(object) { pump::wake(object) } else { ready::wake(object) }
}

#[pymethods]
impl Mailbox {
    #[new]
    #[pyo3(signature = (clock, settler, *, capacity, overflow = "block", hold_keys = true))]
    fn new(
        clock: &Bound<'_, PyClock>,
        settler: &Bound<'_, PyAny>,
        capacity: i64,
        overflow: &str,
        hold_keys: bool,
    ) -> PyResult<Mailbox> {
        let config = MailboxConfig {
            capacity: checked_capacity(capacity)?,
            overflow: parse_overflow(overflow)?,
            hold_keys,
        };
        Ok(Mailbox {
            core: Core::new(config),
            id: MADE.fetch_add(1, Ordering::Relaxed),
            clock: clock.get().shared(),
            settler: GilCell::new(Some(Ref::from(settler))),
            workers: GilCell::default(),
            woken_ns: GilCell::default(),
            announced_ns: GilCell::default(),
        })
    }

    #[getter]
    fn capacity(&self) -> usize {
        self.core.capacity()
    }

    #[getter]
    fn overflow(&self) -> &'static str {
        match self.core.overflow() {
            Overflow::Block => "block",
            Overflow::DropNew => "drop_new",
            Overflow::DropOld => "drop_old",
            Overflow::Reject => "reject",
        }
    }

    #[getter]
    fn closed(&self) -> bool {
        self.core.is_closed()
    }

    #[getter(settler)]
    fn settler_object(&self) -> Option<Ref> {
        self.settler()
    }

    #[pyo3(signature = (*, capacity = None, overflow = None))]
    fn configure(&self, capacity: Option<i64>, overflow: Option<&str>) -> PyResult<()> {
        let capacity = capacity.map(checked_capacity).transpose()?;
        let overflow = overflow.map(parse_overflow).transpose()?;
        for ticket in self.core.configure(capacity, overflow) {
            waiting::granted(Some(ticket));
        }
        if overflow.is_some_and(|overflow| overflow != Overflow::Block) {
            // who still waits has the new policy decide
            self.withdrawn().into_iter().for_each(waiting::again);
        }
        Ok(())
    }

    fn offer(slf: &Bound<'_, Self>, message: &Bound<'_, PyAny>) -> PyResult<()> {
        let (mailbox, mut message) = (slf.get(), Ref::from(message));
        message_type::expect(&message)?;
        // SAFETY: no other borrow of it is alive.
        let fields = unsafe { MessageObject::of(&message) };
        if mailbox.core.is_closed() {
            return Err(PyRuntimeError::new_err(format!(
                "message {} was offered to a closed mailbox",
                Text::new(fields.id()?)?.as_str()
            )));
        }
        if fields.mailbox.is_some() {
            message = fields.again(fields.attempt)?;
        }
        // SAFETY: as above.
        let fields = unsafe { MessageObject::of(&message) };
        let old = fields.mailbox.replace(Ref::from(slf.as_any()));
        let rank = fields.rank;
        drop(old);
        match mailbox.core.offer(rank, Entry::ready_made(message)) {
            Ok(wake) => mailbox.wake_some(wake),
            Err(entry) => drop(entry),
        }
        Ok(())
    }

    fn take(slf: &Bound<'_, Self>) -> PyResult<Option<Ref>> {
        let mailbox = slf.get();
        let Some(taken) = mailbox.core.take() else { return Ok(None) };
        let delivered = mailbox.deliver(&Ref::from(slf.as_any()), taken)?;
        Ok(delivered.map(|(message, _)| message))
    }

    fn ready(slf: &Bound<'_, Self>) -> PyResult<Ref> {
        Ok(ready::new(Ref::from(slf.as_any()))?)
    }

    fn ack(&self, message: &Bound<'_, PyAny>) -> PyResult<()> {
        let message = self.landing(message, "ack")?;
        // SAFETY: only read while the mailbox works on it.
        self.finish(unsafe { MessageObject::of(&message) });
        Ok(())
    }

    fn retry(slf: &Bound<'_, Self>, message: &Bound<'_, PyAny>, delay_ns: i64) -> PyResult<()> {
        let mailbox = slf.get();
        let message = mailbox.landing(message, "retry")?;
        // SAFETY: no other borrow of it is alive.
        let fields = unsafe { MessageObject::of(&message) };
        let next = fields.again(fields.attempt.saturating_add(1))?;
        let now = mailbox.clock.monotonic_ns();
        let due = now.saturating_add(delay_ns.max(0) as u64);
        let retried = mailbox.core.retry(fields.rank, Entry::ready_made(next), due, now);
        mailbox.wake_some(retried.wake);
        Ok(mailbox.announce(&Ref::from(slf.as_any()), retried.earliest_changed)?)
    }

    fn release(&self, message: &Bound<'_, PyAny>) -> PyResult<()> {
        let message = self.landing(message, "release")?;
        // SAFETY: only read while the mailbox works on it.
        let fields = unsafe { MessageObject::of(&message) };
        let touched = fields.settled() || fields.lease_lost();
        let next = if touched { fields.again(fields.attempt)? } else { message.clone() };
        let wake = self.core.release(fields.rank, Entry::ready_made(next));
        self.wake_some(wake);
        Ok(())
    }

    fn promote(&self) -> Option<u64> {
        let promoted = self.core.promote(self.clock.monotonic_ns());
        self.wake_some(promoted.wake);
        let released = self.core.promote_until(self.clock.time_ns().max(0) as u64);
        self.wake_some(released.wake);
        let wall = released.next_due.map(|at_ns| self.wall_check(at_ns));
        let next_due = promoted.next_due.into_iter().chain(wall).min();
        // SAFETY: no Python code runs.
        unsafe { *self.announced_ns.get() = next_due.unwrap_or(0) };
        next_due
    }

    fn clear<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyList>> {
        let mailbox = slf.get();
        let cleared = mailbox.core.clear();
        let messages = cleared
            .items
            .into_iter()
            .map(|(rank, entry)| message::from_entry(entry, rank, None))
            .collect::<R<Vec<Ref>>>();
        cleared.granted.into_iter().for_each(|ticket| waiting::granted(Some(ticket)));
        cleared.workers.into_iter().for_each(|worker| mailbox.wake(worker));
        PyList::new(slf.py(), messages?)
    }

    fn close(&self) {
        let closed = self.core.close();
        closed.waiters.into_iter().for_each(waiting::closed);
        closed.workers.into_iter().for_each(|worker| self.wake(worker));
    }

    fn depth(&self) -> usize {
        self.core.depth()
    }

    fn depths<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let depths = PyDict::new(py);
        for (rank, depth) in self.core.depths() {
            depths.set_item(rank, depth)?;
        }
        Ok(depths)
    }

    fn most_relaxed(&self) -> Option<i64> {
        self.core.most_relaxed()
    }

    fn take_relaxed(&self, rank: i64) -> PyResult<Option<Ref>> {
        let relaxed = self.core.take_relaxed(rank);
        waiting::granted(relaxed.granted);
        self.wake_some(relaxed.wake);
        let message = relaxed.item.map(|(rank, entry)| message::from_entry(entry, rank, None));
        Ok(message.transpose()?)
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        stats::mailbox(py, &self.core.stats())
    }

    fn __repr__(&self) -> String {
        let stats = self.core.stats();
        format!(
            "<Mailbox: {} of {} slots in flight, {} queued{}>",
            stats.in_flight,
            stats.capacity,
            stats.queued,
            if self.core.is_closed() { ", closed" } else { "" }
        )
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // SAFETY: the collector only reads.
        if let Some(settler) = unsafe { self.settler.get() } {
            visit.call(settler.as_py())?;
        }
        let mut answer = Ok(());
        self.core.visit(|entry| {
            entry.traverse(&mut |reference| {
                answer = visit.call(reference.as_py());
                answer.is_ok()
            })
        });
        answer
    }

    fn __clear__(&self) {
        let cleared = self.core.clear();
        // SAFETY: the borrow ends before anything is dropped.
        let settler = unsafe { self.settler.get().take() };
        cleared.granted.into_iter().for_each(|ticket| waiting::granted(Some(ticket)));
        drop((cleared.items, settler));
    }
}

fn checked_capacity(capacity: i64) -> PyResult<usize> {
    match usize::try_from(capacity) {
        Ok(capacity) if capacity > 0 => Ok(capacity),
        _ => Err(PyValueError::new_err(format!("capacity must be at least 1, not {capacity}"))),
    }
}

fn parse_overflow(overflow: &str) -> PyResult<Overflow> {
    match overflow {
        "block" => Ok(Overflow::Block),
        "drop_new" => Ok(Overflow::DropNew),
        "drop_old" => Ok(Overflow::DropOld),
        "reject" => Ok(Overflow::Reject),
        _ => Err(PyValueError::new_err(format!(
            "overflow must be block, drop_new, drop_old or reject, not {overflow:?}"
        ))),
    }
}
