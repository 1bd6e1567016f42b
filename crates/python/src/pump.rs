//! A worker's coroutine: its fields, and what others may ask of it at any time.

use std::cell::Cell;

use neuralcore_bus::WorkerId;
use pyo3::ffi;

use crate::entry::Entry;
use crate::globals::globals;
use crate::mailbox::Mailbox;
use crate::message::MessageObject;
use crate::obj::{R, Ref, taken};
use crate::waker::Waker;

#[repr(C)]
pub(crate) struct PumpObject {
    pub(crate) ob_base: ffi::PyObject,
    pub(crate) weakrefs: *mut ffi::PyObject,
    /// None once the collector has cleared it.
    pub(crate) pump: Option<Box<Pump>>,
}

/// Where the coroutine stands between two steps.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Created,
    /// On its waker.
    Idle,
    /// It let the loop run.
    Yielded,
    /// On what the handler, or one of the callbacks after it, waits for.
    Suspended(Phase),
    Closed,
}

/// Whose awaitable is driven.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Handling,
    Replying,
    Deciding,
}

pub(crate) struct Pump {
    pub(crate) mailbox: Ref,
    pub(crate) handler: Ref,
    pub(crate) failed: Ref,
    pub(crate) replied: Ref,
    pub(crate) settled: Option<Ref>,
    /// Never entered: each message gets a copy.
    pub(crate) base: Ref,
    pub(crate) name: Slot,
    pub(crate) qualname: Slot,
    pub(crate) batch: usize,
    pub(crate) timeout: Option<f64>,
    pub(crate) budget: u32,
    pub(crate) slice_ns: u64,
    pub(crate) worker: WorkerId,
    pub(crate) state: Cell<State>,
    pub(crate) running: Cell<bool>,
    pub(crate) stopping: Cell<bool>,
    /// The next cancellation gives the message back.
    pub(crate) releasing: Cell<bool>,
    pub(crate) event_loop: Slot,
    pub(crate) waker: Cell<Option<Waker>>,
    /// What the handler was given: a message or a list.
    pub(crate) current: Slot,
    /// The messages of a batch; handlers may change their list.
    pub(crate) messages: Cell<Vec<Ref>>,
    /// Empty but for its memory, which the next batch is taken into.
    pub(crate) taken: Cell<Vec<(i64, Entry)>>,
    pub(crate) context: Slot,
    /// What is driven, while suspended.
    pub(crate) iterator: Slot,
    /// The handler's result, while its reply is under way.
    pub(crate) result: Slot,
    /// What the pump ends with once the decision on its message is made.
    pub(crate) ending: Slot,
    pub(crate) task: Slot,
    pub(crate) timer: Slot,
    pub(crate) timed_out: Cell<bool>,
    /// A cancellation of the task has reached the handler.
    pub(crate) thrown: Cell<bool>,
    /// Cancellations of the task before the timeout's own.
    pub(crate) cancelling: Cell<i64>,
    /// When the handler began, if this one is measured.
    pub(crate) measured_ns: Cell<u64>,
}

/// A reference that comes and goes.
#[derive(Default)]
pub(crate) struct Slot(Cell<Option<Ref>>);

impl Slot {
    pub(crate) fn new(value: Ref) -> Slot {
        Slot(Cell::new(Some(value)))
    }

    #[inline]
    pub(crate) fn set(&self, value: Ref) {
        self.0.set(Some(value));
    }

    #[inline]
    pub(crate) fn take(&self) -> Option<Ref> {
        self.0.take()
    }

    #[inline]
    pub(crate) fn is_some(&self) -> bool {
        // SAFETY: only the discriminant is read.
        unsafe { (*self.0.as_ptr()).is_some() }
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<Ref> {
        // SAFETY: cloning runs no other code.
        unsafe { (*self.0.as_ptr()).clone() }
    }

    /// Borrowed, for as long as nobody sets it.
    #[inline]
    pub(crate) fn address(&self) -> *mut ffi::PyObject {
        // SAFETY: only the address is read.
        unsafe { (*self.0.as_ptr()).as_ref().map_or(std::ptr::null_mut(), Ref::as_ptr) }
    }
}

thread_local! {
    /// The pump that this thread is driving: the one whose handler runs, if any does.
    static DRIVING: Cell<*const Pump> = const { Cell::new(std::ptr::null()) };
}

/// Marks a pump as driven for the time of one step.
pub(crate) struct Drive<'a> {
    pump: &'a Pump,
    outer: *const Pump,
}

impl Drive<'_> {
    pub(crate) fn new(pump: &Pump) -> Drive<'_> {
        pump.running.set(true);
        Drive { pump, outer: DRIVING.replace(pump) }
    }
}

impl Drop for Drive<'_> {
    fn drop(&mut self) {
        DRIVING.set(self.outer);
        self.pump.running.set(false);
    }
}

/// The pump in whose handler this thread is.
pub(crate) fn driving<'a>() -> Option<&'a Pump> {
    // SAFETY: as above; callers use it at once.
    unsafe { DRIVING.get().as_ref() }
}

pub(crate) fn check(object: &Ref) -> bool {
    // SAFETY: both are live.
    unsafe { std::ptr::eq(ffi::Py_TYPE(object.as_ptr()).cast(), globals().pump_type.as_ptr()) }
}

/// How many messages its handler is at; 0 if it is no pump.
///
/// # Safety
/// `object` is live.
pub(crate) unsafe fn held(object: *mut ffi::PyObject) -> usize {
    // SAFETY: the type is looked at first; counting runs no other code.
    unsafe {
        if !std::ptr::eq(ffi::Py_TYPE(object).cast(), globals().pump_type.as_ptr()) {
            return 0;
        }
        at(object).map_or(0, |pump| {
            let single = usize::from(pump.batch == 0 && pump.current.is_some());
            single + (*pump.messages.as_ptr()).len()
        })
    }
}

/// # Safety
/// `object` is a pump that was not cleared.
pub(crate) unsafe fn at<'a>(object: *mut ffi::PyObject) -> Option<&'a Pump> {
    // SAFETY: by contract.
    unsafe { (*object.cast::<PumpObject>()).pump.as_deref() }
}

/// Wakes a chosen pump; false when its loop is closed.
pub(crate) fn wake(object: &Ref) -> bool {
    // SAFETY: only live pumps are registered.
    let Some(pump) = (unsafe { at(object.as_ptr()) }) else { return false };
    pump.wake()
}

impl Pump {
    pub(crate) fn mailbox(&self) -> &Mailbox {
        Mailbox::of(&self.mailbox)
    }

    /// Its id, if it works for `mailbox` and a handler is at it.
    pub(crate) fn worker_of(&self, mailbox: &Mailbox) -> Option<WorkerId> {
        let ours = std::ptr::eq(self.mailbox(), mailbox) && self.current.is_some();
        ours.then_some(self.worker)
    }

    fn wake(&self) -> bool {
        // SAFETY: cloning runs no other code.
        let Some(waker) = (unsafe { (*self.waker.as_ptr()).clone() }) else {
            // Not on a future: it runs or will.
            return true;
        };
        let alive = waker.wake();
        if !alive {
            // The mailbox strikes it off, and its id may be another's before it dies.
            self.state.set(State::Closed);
        }
        alive
    }

    pub(crate) fn stop(&self, cancel: bool) {
        self.stopping.set(true);
        if cancel {
            self.releasing.set(true);
        }
        if self.state.get() == State::Idle {
            self.mailbox().core.resumed(self.worker);
            if !self.wake() {
                self.mailbox().leave(self.worker);
            }
        }
    }

    /// The timer's callback.
    pub(crate) fn expire(&self) -> R<()> {
        self.timed_out.set(true);
        match self.task.get() {
            Some(task) => task.method(&globals().cancel, &[]).map(drop),
            None => Ok(()),
        }
    }

    /// The handler is over: stops the timer. Answers whether the task was cancelled besides the timeout.
    pub(crate) fn disarm(&self) -> R<bool> {
        let g = globals();
        let mut cancelled = self.thrown.replace(false);
        let Some(timer) = self.timer.take() else { return Ok(cancelled) };
        timer.method(&g.cancel, &[])?;
        let task = self.task.take();
        if self.timed_out.replace(false)
            && let Some(task) = task
        {
            cancelled = count(&task, &g.uncancel)? > self.cancelling.get();
        }
        Ok(cancelled)
    }

    /// Starts the timer, when the handler suspends for the first time.
    pub(crate) fn arm(&self, this: *mut ffi::PyObject) -> R<()> {
        let Some(timeout) = self.timeout else { return Ok(()) };
        if self.timer.is_some() {
            return Ok(());
        }
        let g = globals();
        let Some(event_loop) = self.event_loop.get() else { return Ok(()) };
        let task = g.current_task.call(&[event_loop.as_ptr()])?;
        self.cancelling.set(if task.is_none() { 0 } else { count(&task, &g.cancelling)? });
        // SAFETY: `this` is the live pump.
        let callback = unsafe { Ref::steal(ffi::PyObject_GetAttr(this, g.expire.as_ptr()))? };
        // SAFETY: answers a new reference or null.
        let delay = unsafe { Ref::steal(ffi::PyFloat_FromDouble(timeout))? };
        let timer = event_loop.method(&g.call_later, &[delay.as_ptr(), callback.as_ptr()])?;
        self.timer.set(timer);
        if !task.is_none() {
            self.task.set(task);
        }
        Ok(())
    }

    /// Back into the mailbox: all that was taken and that nobody has settled.
    pub(crate) fn give_back(&self) {
        let mailbox = self.mailbox();
        let batch = self.messages.take();
        for message in batch.iter().rev() {
            give_back(mailbox, message);
        }
        if self.batch == 0
            && let Some(message) = self.current.get()
        {
            give_back(mailbox, &message);
        }
    }

    /// The batch is over; its memory serves the next one.
    pub(crate) fn forget_messages(&self) {
        self.forget(self.messages.take());
    }

    pub(crate) fn forget(&self, mut messages: Vec<Ref>) {
        messages.clear();
        self.messages.set(messages);
    }

    /// The end: others take over what is left.
    pub(crate) fn finish(&self) {
        if self.state.replace(State::Closed) != State::Closed {
            self.mailbox().leave(self.worker);
        }
        self.current.take();
        self.messages.take();
        self.waker.take();
    }
}

fn give_back(mailbox: &Mailbox, message: &Ref) {
    // SAFETY: no other borrow of it is alive.
    if !unsafe { MessageObject::of(message) }.settled() {
        mailbox.give_up(message);
    }
}

/// `task.cancelling()` or `task.uncancel()`; Python 3.10 does not count.
fn count(task: &Ref, name: &Ref) -> R<i64> {
    match task.attr(name) {
        Ok(method) => crate::args::integer(method.call(&[])?, "the count of cancellations"),
        Err(raised) => {
            drop(taken(raised));
            Ok(0)
        }
    }
}
