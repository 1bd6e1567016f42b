//! `Mailbox.ready()`: waits as a worker does, for those who take messages themselves.

use std::ffi::{c_int, c_void};
use std::ptr;

use neuralcore_bus::WorkerId;
use pyo3::ffi;

use crate::args::Object;
use crate::awaitable::{as_next, coroutine_like, thrown};
use crate::globals::globals;
use crate::mailbox::Mailbox;
use crate::message_type::boolean;
use crate::obj::{R, Raised, Ref, guarded, guarded_object, preserving, raise};
use crate::rawtype::TypeBuilder;
use crate::waker::Waker;

struct Ready {
    mailbox: Ref,
    waiting: Option<(WorkerId, Waker)>,
    over: bool,
}

#[repr(C)]
struct ReadyObject {
    ob_base: ffi::PyObject,
    ready: Option<Ready>,
}

pub(crate) fn build() -> R<Ref> {
    coroutine_like(
        TypeBuilder::new::<ReadyObject>(c"neuralcore._native.Ready", c"Waits for a message."),
        am_send,
        next,
    )
    .collected(traverse, clear)
    .slot(ffi::Py_tp_finalize, finalize as *mut c_void)
    .slot(ffi::Py_tp_dealloc, dealloc as *mut c_void)
    .fast(c"throw", c"throw($self, typ, val=None, tb=None, /)\n--\n\n", throw)
    .no_args(c"close", c"close($self, /)\n--\n\n", close)
    .build()
}

pub(crate) fn new(mailbox: Ref) -> R<Ref> {
    // SAFETY: the fresh object's only field is written before the collector may see it.
    unsafe {
        let object = ffi::PyObject_GC_New::<ReadyObject>(globals().ready_type.as_ptr().cast());
        if object.is_null() {
            return Err(Raised);
        }
        let ready = Ready { mailbox, waiting: None, over: false };
        ptr::write(&raw mut (*object).ready, Some(ready));
        ffi::PyObject_GC_Track(object.cast());
        Ref::steal(object.cast())
    }
}

/// Wakes a chosen one; false when its loop is closed.
pub(crate) fn wake(object: &Ref) -> bool {
    let Some((_, waker)) = of(object.as_ptr()).and_then(|ready| ready.waiting.clone()) else {
        return true;
    };
    let alive = waker.wake();
    if !alive && let Some(ready) = of(object.as_ptr()) {
        // The mailbox strikes it off.
        ready.waiting = None;
    }
    alive
}

fn of<'a>(object: Object) -> Option<&'a mut Ready> {
    // SAFETY: callers hold the object and pass only this type; no borrow lasts across Python code.
    unsafe { (*object.cast::<ReadyObject>()).ready.as_mut() }
}

unsafe extern "C" fn am_send(object: Object, _: Object, result: *mut Object) -> ffi::PySendResult {
    guarded(ffi::PySendResult::PYGEN_ERROR, || {
        let (status, value) = step(object)?;
        // SAFETY: `result` is writable.
        unsafe { *result = value.into_ptr() };
        Ok(status)
    })
}

fn step(object: Object) -> R<(ffi::PySendResult, Ref)> {
    let Some(ready) = of(object).filter(|ready| !ready.over) else {
        return Err(raise(&globals().runtime_error, "cannot reuse already awaited ready()"));
    };
    let held = ready.mailbox.clone();
    let mailbox = Mailbox::of(&held);
    if ready.waiting.is_none() {
        let waker = Waker::new()?;
        let future = waker.yielded()?;
        let worker = mailbox.join(object);
        if let Some(ready) = of(object) {
            ready.waiting = Some((worker, waker));
        }
        if mailbox.core.idle(worker) {
            return Ok((ffi::PySendResult::PYGEN_NEXT, future));
        }
    }
    let more = !mailbox.core.finished();
    leave(object);
    Ok((ffi::PySendResult::PYGEN_RETURN, boolean(more)))
}

/// Stops waiting; a wake that was for it goes to the next.
fn leave(object: Object) {
    let Some(ready) = of(object) else { return };
    ready.over = true;
    if let Some((worker, waker)) = ready.waiting.take() {
        let held = ready.mailbox.clone();
        Mailbox::of(&held).leave(worker);
        drop(waker);
    }
}

unsafe extern "C" fn next(object: Object) -> Object {
    let mut result = ptr::null_mut();
    // SAFETY: as `am_send`.
    unsafe {
        let status = am_send(object, ptr::null_mut(), &mut result);
        as_next(status, result)
    }
}

unsafe extern "C" fn throw(object: Object, args: *mut Object, nargs: isize) -> Object {
    guarded_object(|| {
        leave(object);
        // SAFETY: CPython's own arguments.
        Err(unsafe { thrown(args, nargs) })
    })
}

unsafe extern "C" fn close(object: Object, _: Object) -> Object {
    guarded_object(|| {
        leave(object);
        Ok(Ref::none())
    })
}

unsafe extern "C" fn traverse(object: Object, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector only reads; the first non-zero answer is handed on.
    unsafe {
        let answer = visit(ffi::Py_TYPE(object).cast(), arg);
        if answer != 0 {
            return answer;
        }
        let Some(ready) = of(object) else { return 0 };
        let waker = ready.waiting.iter().flat_map(|(_, waker)| waker.references());
        for reference in std::iter::once(&ready.mailbox).chain(waker) {
            let answer = visit(reference.as_ptr(), arg);
            if answer != 0 {
                return answer;
            }
        }
    }
    0
}

/// Stops waiting: while that runs Python code, it is a whole object.
unsafe extern "C" fn finalize(object: Object) {
    preserving(|| leave(object));
}

unsafe extern "C" fn clear(object: Object) -> c_int {
    // SAFETY: the fields are out of the object before any destructor runs.
    unsafe {
        let garbage = (*object.cast::<ReadyObject>()).ready.take();
        drop(garbage);
    }
    0
}

unsafe extern "C" fn dealloc(object: Object) {
    // SAFETY: the last reference is gone, and after `finalize` no mailbox knows it.
    unsafe {
        if ffi::PyObject_CallFinalizerFromDealloc(object) < 0 {
            return;
        }
        ffi::PyObject_GC_UnTrack(object.cast());
        preserving(|| clear(object));
        let kind = ffi::Py_TYPE(object);
        ffi::PyObject_GC_Del(object.cast());
        ffi::Py_DECREF(kind.cast());
    }
}
