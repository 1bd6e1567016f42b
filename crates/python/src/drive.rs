//! Driving what a handler answers, in place.

use std::ptr;

use pyo3::ffi;

use crate::args::Object;
use crate::globals::globals;
use crate::obj::{R, Raised, Ref, is_exception, raise_object, taken};

/// How the driving of one awaitable went.
pub(crate) enum Driven {
    Returned(Ref),
    Yielded(Ref, Ref),
    Failed(Raised),
}

/// The context of the current message, entered until the end of the scope.
pub(crate) struct Entered(*mut ffi::PyObject);

impl Entered {
    #[inline]
    pub(crate) fn new(context: *mut ffi::PyObject) -> R<Entered> {
        // SAFETY: the context is live and held by the pump.
        match unsafe { ffi::PyContext_Enter(context) } {
            0 => Ok(Entered(context)),
            _ => Err(Raised),
        }
    }
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: it is the current context; leaving it keeps the exception that may be set.
        unsafe { ffi::PyContext_Exit(self.0) };
    }
}

/// One argument, with the spare place before it that bound methods use.
#[inline]
pub(crate) fn call(function: &Ref, argument: Object) -> R<Ref> {
    let args = [ptr::null_mut(), argument];
    // SAFETY: the argument is live for the call, and the place before it may be overwritten.
    unsafe {
        Ref::steal(ffi::PyObject_Vectorcall(
            function.as_ptr(),
            args.as_ptr().add(1),
            1 | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
            ptr::null_mut(),
        ))
    }
}

/// Drives what a function answered, if it is an awaitable; anything else is the result.
#[inline]
pub(crate) fn begin(answer: Ref) -> Driven {
    // SAFETY: reading the type of a live object.
    unsafe {
        if answer.is_none() {
            return Driven::Returned(answer);
        }
        let kind = ffi::Py_TYPE(answer.as_ptr());
        if ptr::eq(kind, &raw const ffi::PyCoro_Type) {
            return send(answer, ffi::Py_None());
        }
        match iterator(answer, kind) {
            Ok(Ok(iterator)) => send(iterator, ffi::Py_None()),
            Ok(Err(plain)) => Driven::Returned(plain),
            Err(raised) => Driven::Failed(raised),
        }
    }
}

/// The iterator of an awaitable, or what is none.
#[cold]
pub(crate) unsafe fn iterator(answer: Ref, kind: *mut ffi::PyTypeObject) -> R<Result<Ref, Ref>> {
    // SAFETY: the type belongs to the live object.
    unsafe {
        let slots = (*kind).tp_as_async;
        if !slots.is_null()
            && let Some(am_await) = (*slots).am_await
        {
            return Ref::steal(am_await(answer.as_ptr())).map(Ok);
        }
        if ffi::PyGen_CheckExact(answer.as_ptr()) != 0 && is_coroutine(&answer)? {
            return Ok(Ok(answer));
        }
    }
    Ok(Err(answer))
}

/// Whether a generator was made by `types.coroutine`.
pub(crate) fn is_coroutine(generator: &Ref) -> R<bool> {
    const CO_ITERABLE_COROUTINE: i64 = 0x100;
    let g = globals();
    let flags = generator.attr(&g.gi_code)?.attr(&g.co_flags)?;
    Ok(crate::args::integer(flags, "co_flags")? & CO_ITERABLE_COROUTINE != 0)
}

#[inline]
pub(crate) unsafe fn send(iterator: Ref, value: Object) -> Driven {
    let mut result = ptr::null_mut();
    // SAFETY: both are live; the result is a new reference unless the call failed.
    unsafe {
        match ffi::PyIter_Send(iterator.as_ptr(), value, &mut result) {
            ffi::PySendResult::PYGEN_RETURN => {
                Driven::Returned(Ref::steal(result).unwrap_unchecked())
            }
            ffi::PySendResult::PYGEN_NEXT => {
                Driven::Yielded(Ref::steal(result).unwrap_unchecked(), iterator)
            }
            ffi::PySendResult::PYGEN_ERROR => Driven::Failed(Raised),
        }
    }
}

/// Throws into what is driven; an iterator without `throw` just ends.
pub(crate) fn throw(iterator: Ref, exception: Ref) -> Driven {
    let g = globals();
    let Ok(method) = iterator.attr(&g.throw) else {
        drop(taken(Raised));
        return Driven::Failed(raise_object(exception));
    };
    match method.call(&[exception.as_ptr()]) {
        Ok(yielded) => Driven::Yielded(yielded, iterator),
        Err(raised) => match stop_value(raised) {
            Ok(value) => Driven::Returned(value),
            Err(raised) => Driven::Failed(raised),
        },
    }
}

/// The value of the StopIteration that is set; any other exception stays set.
pub(crate) fn stop_value(raised: Raised) -> R<Ref> {
    let g = globals();
    let exception = taken(raised);
    if !is_exception(&exception, &g.stop_iteration) {
        return Err(raise_object(exception));
    }
    exception.attr(&g.value)
}
