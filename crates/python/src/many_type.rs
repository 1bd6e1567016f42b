//! The Python face of many publishes: an awaitable.

use std::ffi::{c_int, c_void};
use std::ptr;

use pyo3::ffi;

use crate::args::Object;
use crate::awaitable::{as_next, coroutine_like, thrown};
use crate::drive;
use crate::globals::globals;
use crate::many::{ManyObject, Step, step};
use crate::obj::{
    R, Raised, Ref, guarded, guarded_object, preserving, raise, raise_object, taken, unraisable,
};
use crate::rawtype::TypeBuilder;

pub(crate) fn build() -> R<Ref> {
    coroutine_like(
        TypeBuilder::new::<ManyObject>(c"neuralcore._native.PublishMany", c"Publishes in order."),
        am_send,
        next,
    )
    .collected(traverse, clear)
    .slot(ffi::Py_tp_dealloc, dealloc as *mut c_void)
    .fast(c"throw", c"throw($self, typ, val=None, tb=None, /)\n--\n\n", throw)
    .no_args(c"close", c"close($self, /)\n--\n\n", close)
    .build()
}

unsafe extern "C" fn am_send(
    object: Object,
    value: Object,
    result: *mut Object,
) -> ffi::PySendResult {
    guarded(ffi::PySendResult::PYGEN_ERROR, || {
        // SAFETY: CPython's own arguments; `result` is writable.
        unsafe {
            let value = (!value.is_null()).then(|| Ref::borrow(value));
            match step(object, |many| many.advance(value))? {
                Step::Yield(yielded) => {
                    *result = yielded.into_ptr();
                    Ok(ffi::PySendResult::PYGEN_NEXT)
                }
                Step::Return(answer) => {
                    *result = answer.into_ptr();
                    Ok(ffi::PySendResult::PYGEN_RETURN)
                }
            }
        }
    })
}

unsafe extern "C" fn next(object: Object) -> Object {
    let mut result = ptr::null_mut();
    // SAFETY: as `am_send`.
    unsafe {
        let status = am_send(object, ptr::null_mut(), &mut result);
        as_next(status, result)
    }
}

/// Into the item that waits; its error is one item's error unless it is no `Exception`.
unsafe extern "C" fn throw(object: Object, args: *mut Object, nargs: isize) -> Object {
    guarded_object(|| {
        // SAFETY: CPython's own arguments.
        let exception = taken(unsafe { thrown(args, nargs) });
        let answer = step(object, |many| {
            let Some(current) = many.current.take() else {
                return Err(raise_object(exception));
            };
            match many.driven(drive::throw(current, exception))? {
                Some(yielded) => Ok(Step::Yield(yielded)),
                None => many.advance(None),
            }
        })?;
        match answer {
            Step::Yield(yielded) => Ok(yielded),
            Step::Return(value) => {
                Err(raise_object(globals().stop_iteration.call(&[value.as_ptr()])?))
            }
        }
    })
}

unsafe extern "C" fn close(object: Object, _: Object) -> Object {
    guarded_object(|| {
        // SAFETY: CPython passes a live object.
        let Some(many) = (unsafe { (*object.cast::<ManyObject>()).many.as_deref_mut() }) else {
            return Ok(Ref::none());
        };
        if many.running {
            return Err(raise(&globals().value_error, "publish_many is already executing"));
        }
        many.begun = true;
        many.over = true;
        let Some(current) = many.current.take() else { return Ok(Ref::none()) };
        match current.attr(&globals().close) {
            Ok(close) => close.call(&[]),
            Err(raised) => {
                // An iterator without `close` just ends.
                drop(taken(raised));
                Ok(Ref::none())
            }
        }
    })
}

unsafe extern "C" fn traverse(object: Object, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector only reads; the first non-zero answer is handed on.
    unsafe {
        let answer = visit(ffi::Py_TYPE(object).cast(), arg);
        if answer != 0 {
            return answer;
        }
        let Some(many) = &(*object.cast::<ManyObject>()).many else { return 0 };
        let errors = many.errors.iter().map(|(_, exception)| exception);
        let last = many.last.iter().flat_map(|(channel, route, _)| [channel, route]);
        let fixed = [&many.router, &many.items.source].into_iter();
        for reference in fixed.chain(&many.current).chain(last).chain(errors) {
            let answer = visit(reference.as_ptr(), arg);
            if answer != 0 {
                return answer;
            }
        }
    }
    0
}

unsafe extern "C" fn clear(object: Object) -> c_int {
    // SAFETY: the fields are out of the object before any destructor runs.
    unsafe {
        let garbage = (*object.cast::<ManyObject>()).many.take();
        drop(garbage);
    }
    0
}

unsafe extern "C" fn dealloc(object: Object) {
    // SAFETY: the last reference is gone.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        let unawaited =
            (*object.cast::<ManyObject>()).many.as_ref().is_some_and(|many| !many.begun);
        preserving(|| {
            clear(object);
            let text = c"publish_many was never awaited, so nothing was published";
            let warning = globals().runtime_warning.as_ptr();
            if unawaited && ffi::PyErr_WarnEx(warning, text.as_ptr(), 1) != 0 {
                unraisable(Raised, ptr::null_mut());
            }
        });
        let kind = ffi::Py_TYPE(object);
        ffi::PyObject_GC_Del(object.cast());
        ffi::Py_DECREF(kind.cast());
    }
}
