//! The Python face of a mailbox.

use std::sync::atomic::{AtomicBool, Ordering};

use neuralcore_bus::mailbox::{MailboxConfig, Overflow};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::clock::PyClock;
use crate::entry::{Entry, Text};
use crate::mailbox::{Core, MADE, Mailbox};
use crate::message::{self, MessageObject};
use crate::obj::{GilCell, R, Ref};
use crate::ticket::Ticket;
use crate::{message_type, ready, stats, waiting};

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
            deserted: AtomicBool::new(false),
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
        waiting::granted(self.core.configure(capacity, overflow));
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
        mailbox.announce(&Ref::from(slf.as_any()), retried.earliest_changed);
        Ok(())
    }

    #[pyo3(name = "release")]
    fn release_message(&self, message: &Bound<'_, PyAny>) -> PyResult<()> {
        let message = self.landing(message, "release")?;
        self.release(&message);
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
        let granted = Ticket::into_objects(cleared.granted);
        let messages = cleared
            .items
            .into_iter()
            .map(|(rank, entry)| message::from_entry(entry, rank, None))
            .collect::<R<Vec<Ref>>>();
        granted.into_iter().for_each(waiting::grant);
        cleared.workers.into_iter().for_each(|worker| mailbox.wake(worker));
        PyList::new(slf.py(), messages?)
    }

    fn close(&self) {
        let closed = self.core.close();
        self.deserted.store(false, Ordering::Relaxed);
        Ticket::into_objects(closed.waiters).into_iter().for_each(waiting::closed);
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
        // Whoever waits here is garbage too, and nothing may happen to it but its own end.
        drop(self.core.close());
        let cleared = self.core.clear();
        // SAFETY: the borrow ends before anything is dropped.
        let settler = unsafe { self.settler.get().take() };
        drop((cleared.items, settler));
    }
}

pub(crate) fn checked_capacity(capacity: i64) -> PyResult<usize> {
    match usize::try_from(capacity) {
        Ok(capacity) if capacity > 0 => Ok(capacity),
        _ => Err(PyValueError::new_err(format!("capacity must be at least 1, not {capacity}"))),
    }
}

pub(crate) fn parse_overflow(overflow: &str) -> PyResult<Overflow> {
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
