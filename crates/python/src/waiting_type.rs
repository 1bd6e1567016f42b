//! The Python face of a publish that waits: an awaitable that gives back what it had when it is thrown away.

use std::ffi::{c_int, c_void};
use std::ptr;

use pyo3::ffi;

use crate::args::Object;
use crate::awaitable::{as_next, coroutine_like, thrown};
use crate::globals::globals;
use crate::obj::{R, Raised, Ref, guarded, guarded_object, preserving, raise_object, unraisable};
use crate::rawtype::TypeBuilder;
use crate::waiting::{Status, WaitingObject, cancel, of};
use crate::waker::Waker;

pub(crate) fn build() -> R<Ref> {
    coroutine_like(
        TypeBuilder::new::<WaitingObject>(
            c"neuralcore._native.WaitingPublish",
            c"A publish that waits for room.",
        ),
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

pub(crate) unsafe extern "C" fn am_send(
    object: Object,
    _: Object,
    result: *mut Object,
) -> ffi::PySendResult {
    guarded(ffi::PySendResult::PYGEN_ERROR, || {
        // SAFETY: the object is live for the call.
        let object = unsafe { Ref::borrow(object) };
        let (status, value) = step(&object)?;
        // SAFETY: `result` is writable.
        unsafe { *result = value.into_ptr() };
        Ok(status)
    })
}

/// Answers the outcome, or the future to wait on. Making that lets other threads run, so the outcome may be there
/// before anybody could be told: it is looked for again.
pub(crate) fn step(object: &Ref) -> R<(ffi::PySendResult, Ref)> {
    of(object).awaited = true;
    if let Some(outcome) = outcome(object) {
        return outcome.map(|value| (ffi::PySendResult::PYGEN_RETURN, value));
    }
    let waker = Waker::new()?;
    let future = waker.yielded()?;
    let old = of(object).waker.replace(waker);
    drop(old);
    match outcome(object) {
        Some(outcome) => outcome.map(|value| (ffi::PySendResult::PYGEN_RETURN, value)),
        None => Ok((ffi::PySendResult::PYGEN_NEXT, future)),
    }
}

/// None while it is not decided.
fn outcome(object: &Ref) -> Option<R<Ref>> {
    let status = &mut of(object).status;
    match status {
        Status::Pending(_) | Status::Busy => None,
        Status::Done(outcome) => Some(outcome.value()),
        Status::Failed(_) | Status::Over => match std::mem::replace(status, Status::Over) {
            Status::Failed(exception) => Some(Err(raise_object(exception))),
            _ => Some(Err(crate::obj::raise(
                &globals().runtime_error,
                "this publish was cancelled or has already failed",
            ))),
        },
    }
}

pub(crate) unsafe extern "C" fn next(object: Object) -> Object {
    let mut result = ptr::null_mut();
    // SAFETY: as `am_send`.
    unsafe {
        let status = am_send(object, ptr::null_mut(), &mut result);
        as_next(status, result)
    }
}

pub(crate) unsafe extern "C" fn throw(object: Object, args: *mut Object, nargs: isize) -> Object {
    guarded_object(|| {
        // SAFETY: CPython's own arguments.
        unsafe {
            (*object.cast::<WaitingObject>()).waiting.iter_mut().for_each(|w| w.awaited = true);
            cancel(object);
            Err(thrown(args, nargs))
        }
    })
}

pub(crate) unsafe extern "C" fn close(object: Object, _: Object) -> Object {
    guarded_object(|| {
        // SAFETY: CPython passes a live object.
        unsafe {
            (*object.cast::<WaitingObject>()).waiting.iter_mut().for_each(|w| w.awaited = true);
            cancel(object);
        }
        Ok(Ref::none())
    })
}

pub(crate) unsafe extern "C" fn traverse(
    object: Object,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the collector only reads; the first non-zero answer is handed on.
    unsafe {
        let kind = ffi::Py_TYPE(object).cast();
        let answer = visit(kind, arg);
        if answer != 0 {
            return answer;
        }
        let Some(waiting) = &(*object.cast::<WaitingObject>()).waiting else { return 0 };
        let mut answer = 0;
        let mut see = |reference: &Ref| {
            answer = visit(reference.as_ptr(), arg);
            answer == 0
        };
        let _ = see(&waiting.route)
            && waiting.targets.iter().all(&mut see)
            && waiting.waker.iter().flat_map(Waker::references).all(&mut see)
            && match &waiting.status {
                Status::Pending(parcel) => parcel.entry.traverse(&mut see),
                Status::Failed(exception) => see(exception),
                Status::Busy | Status::Done(_) | Status::Over => true,
            };
        answer
    }
}

/// Gives back what it holds: while that runs Python code, it is a whole object.
pub(crate) unsafe extern "C" fn finalize(object: Object) {
    preserving(|| {
        // SAFETY: CPython keeps the object alive for the call.
        unsafe {
            let waiting = (*object.cast::<WaitingObject>()).waiting.as_ref();
            let unawaited = waiting.is_some_and(|waiting| {
                !waiting.awaited && matches!(waiting.status, Status::Pending(_))
            });
            cancel(object);
            if unawaited {
                warn();
            }
        }
    });
}

pub(crate) unsafe extern "C" fn clear(object: Object) -> c_int {
    // SAFETY: what is dropped is out of the object before any destructor runs.
    unsafe {
        let garbage = (*object.cast::<WaitingObject>()).waiting.take();
        drop(garbage);
    }
    0
}

pub(crate) unsafe extern "C" fn dealloc(object: Object) {
    // SAFETY: the last reference is gone, and after `finalize` no mailbox knows the pointer.
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

pub(crate) fn warn() {
    let text = c"a publish that waits for room was never awaited, so it has not happened";
    // SAFETY: a warning turned into an error has nobody to go to but the unraisable hook.
    unsafe {
        if ffi::PyErr_WarnEx(globals().runtime_warning.as_ptr(), text.as_ptr(), 1) != 0 {
            unraisable(Raised, ptr::null_mut());
        }
    }
}
