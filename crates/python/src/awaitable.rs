//! What a publish answers when there was room: an awaitable that is already done.

use std::ffi::c_void;
use std::ptr;

use pyo3::ffi;

use crate::args::Object;
use crate::freelist::Freelist;
use crate::globals::globals;
use crate::ids;
use crate::obj::{R, Raised, Ref, guarded, guarded_object, raise_object};
use crate::rawtype::TypeBuilder;

/// What it yields to its awaiter.
pub(crate) enum Outcome {
    /// An id that is formatted when asked for.
    Id { prefix: u64, seq: u64 },
    /// A given id, or None for a dropped message.
    Object(Ref),
}

impl Outcome {
    #[inline]
    pub(crate) fn value(&self) -> R<Ref> {
        match self {
            Outcome::Id { prefix, seq } => ids::recycled(*prefix, *seq),
            Outcome::Object(value) => Ok(value.clone()),
        }
    }
}

#[repr(C)]
struct DoneObject {
    ob_base: ffi::PyObject,
    outcome: Outcome,
    /// Let the loop run once first.
    yields: bool,
}

static FREE: Freelist = Freelist::new();

#[inline]
pub(crate) fn done(outcome: Outcome, yields: bool) -> R<Ref> {
    // SAFETY: all fields of the fresh object are written.
    unsafe {
        let kind = globals().done_type.as_ptr().cast();
        let object = FREE.allocate(kind, size_of::<DoneObject>()).cast::<DoneObject>();
        if object.is_null() {
            return Err(Raised);
        }
        ptr::write(&raw mut (*object).outcome, outcome);
        (*object).yields = yields;
        Ref::steal(object.cast())
    }
}

pub(crate) fn build() -> R<Ref> {
    coroutine_like(
        TypeBuilder::new::<DoneObject>(
            c"neuralcore._native.Published",
            c"A publish that is already done.",
        ),
        am_send,
        next,
    )
    .slot(ffi::Py_tp_dealloc, dealloc as *mut c_void)
    .fast(c"throw", c"throw($self, typ, val=None, tb=None, /)\n--\n\n", throw)
    .no_args(c"close", c"close($self, /)\n--\n\n", close)
    .build()
}

/// The slots that awaiting, `send` and `asyncio.create_task` need.
pub(crate) fn coroutine_like(
    builder: TypeBuilder,
    am_send: ffi::sendfunc,
    next: ffi::iternextfunc,
) -> TypeBuilder {
    builder
        .slot(ffi::Py_am_send, am_send as *mut c_void)
        .slot(ffi::Py_am_await, itself as *mut c_void)
        .slot(ffi::Py_tp_iter, itself as *mut c_void)
        .slot(ffi::Py_tp_iternext, next as *mut c_void)
        .one_arg(c"send", c"send($self, value, /)\n--\n\n", send)
}

pub(crate) unsafe extern "C" fn itself(object: Object) -> Object {
    // SAFETY: a live object gets one more reference.
    unsafe {
        ffi::Py_INCREF(object);
    }
    object
}

/// `send` for every type here: through its `am_send`.
unsafe extern "C" fn send(object: Object, value: Object) -> Object {
    let mut result = ptr::null_mut();
    // SAFETY: both are live, and the type has am_send.
    let status = unsafe { ffi::PyIter_Send(object, value, &mut result) };
    // SAFETY: the result is a new reference unless the call failed.
    unsafe { as_call(status, result) }
}

/// `PyIter_Send`'s answer as a method gives it: a return becomes StopIteration.
pub(crate) unsafe fn as_call(status: ffi::PySendResult, result: Object) -> Object {
    if status != ffi::PySendResult::PYGEN_RETURN {
        return result;
    }
    // SAFETY: a returned result is a new reference.
    if let Ok(value) = unsafe { Ref::steal(result) } {
        set_stop_iteration(value);
    }
    ptr::null_mut()
}

/// The same for `tp_iternext`, where no exception at all stands for StopIteration without a value.
#[inline]
pub(crate) unsafe fn as_next(status: ffi::PySendResult, result: Object) -> Object {
    // SAFETY: a returned result is a new reference.
    unsafe {
        if status == ffi::PySendResult::PYGEN_RETURN && result == ffi::Py_None() {
            ffi::Py_DECREF(result);
            return ptr::null_mut();
        }
        as_call(status, result)
    }
}

#[cfg(all(Py_3_12, not(Py_3_14)))]
fn set_stop_iteration(value: Ref) {
    if let Ok(exception) = recycled::stop_iteration(value) {
        raise_object(exception);
    }
}

#[cfg(not(all(Py_3_12, not(Py_3_14))))]
fn set_stop_iteration(value: Ref) {
    // Through an instance: SetObject would unpack a tuple.
    if let Ok(exception) = globals().stop_iteration.call(&[value.as_ptr()]) {
        raise_object(exception);
    }
}

/// On 3.12 and 3.13 `await` asks `tp_iternext`, and the value travels in an exception that the interpreter drops at
/// once: the same one serves again as long as nobody kept it.
#[cfg(all(Py_3_12, not(Py_3_14)))]
mod recycled {
    use super::*;
    use crate::obj::GilCell;

    static CACHE: GilCell<Option<Ref>> = GilCell::new(None);

    /// The cached exception, if only the cache refers to it and nothing was attached to it.
    fn unshared() -> Option<*mut ffi::PyStopIterationObject> {
        // SAFETY: reading the fields of a live exception.
        unsafe {
            let exception = CACHE.get().as_ref().filter(|exception| exception.refcount() == 1)?;
            let fields = exception.as_ptr().cast::<ffi::PyStopIterationObject>();
            let clean = (*fields).traceback.is_null()
                && (*fields).context.is_null()
                && (*fields).cause.is_null()
                && (*fields).dict.is_null()
                && (*fields).notes.is_null();
            clean.then_some(fields)
        }
    }

    /// Lets go of the last value, so that its string can be recycled too.
    pub(super) fn forget() {
        if let Some(fields) = unshared() {
            // SAFETY: nobody else sees the exception; the value is dropped after it is replaced.
            unsafe {
                let old = std::mem::replace(&mut (*fields).value, ptr::null_mut());
                ffi::Py_XDECREF(old);
            }
        }
    }

    pub(super) fn stop_iteration(value: Ref) -> R<Ref> {
        // SAFETY: nobody else sees the exception; what was there before is dropped last.
        unsafe {
            let (exception, fields) = match unshared() {
                Some(fields) => (Ref::borrow(fields.cast()), fields),
                None => {
                    let exception = globals().stop_iteration.call(&[])?;
                    let before = CACHE.get().replace(exception.clone());
                    drop(before);
                    let fields = exception.as_ptr().cast::<ffi::PyStopIterationObject>();
                    (exception, fields)
                }
            };
            let old = std::mem::replace(&mut (*fields).value, value.into_ptr());
            ffi::Py_XDECREF(old);
            Ok(exception)
        }
    }
}

unsafe extern "C" fn am_send(object: Object, _: Object, result: *mut Object) -> ffi::PySendResult {
    guarded(ffi::PySendResult::PYGEN_ERROR, || {
        // SAFETY: CPython checked the type; `result` is writable.
        unsafe {
            let done = &mut *object.cast::<DoneObject>();
            if std::mem::take(&mut done.yields) {
                *result = Ref::none().into_ptr();
                return Ok(ffi::PySendResult::PYGEN_NEXT);
            }
            *result = done.outcome.value()?.into_ptr();
        }
        Ok(ffi::PySendResult::PYGEN_RETURN)
    })
}

unsafe extern "C" fn next(object: Object) -> Object {
    #[cfg(all(Py_3_12, not(Py_3_14)))]
    recycled::forget();
    let mut result = ptr::null_mut();
    // SAFETY: as `am_send`.
    unsafe {
        let status = am_send(object, ptr::null_mut(), &mut result);
        as_next(status, result)
    }
}

unsafe extern "C" fn throw(_: Object, args: *mut Object, nargs: isize) -> Object {
    // SAFETY: CPython's own arguments.
    guarded_object(|| Err(unsafe { thrown(args, nargs) }))
}

unsafe extern "C" fn close(_: Object, _: Object) -> Object {
    guarded_object(|| Ok(Ref::none()))
}

/// Sets the exception that `throw(typ[, val[, tb]])` was given.
///
/// # Safety
/// `args` holds `nargs` live objects.
pub(crate) unsafe fn thrown(args: *const Object, nargs: isize) -> Raised {
    let g = globals();
    if !(1..=3).contains(&nargs) {
        return crate::obj::raise(&g.type_error, "throw() takes 1 to 3 arguments");
    }
    // SAFETY: by contract.
    unsafe {
        let kind = *args;
        let given = |index: isize| {
            (index < nargs && *args.offset(index) != ffi::Py_None()).then(|| *args.offset(index))
        };
        let value = if ffi::PyExceptionInstance_Check(kind) != 0 {
            Ok(Ref::borrow(kind))
        } else if ffi::PyExceptionClass_Check(kind) != 0 {
            match given(1) {
                Some(value) if ffi::PyExceptionInstance_Check(value) != 0 => Ok(Ref::borrow(value)),
                Some(value) => Ref::borrow(kind).call(&[value]),
                None => Ref::borrow(kind).call(&[]),
            }
        } else {
            Err(crate::obj::raise(
                &g.type_error,
                "exceptions must be classes or instances deriving from BaseException",
            ))
        };
        match value {
            Err(raised) => raised,
            Ok(value) => {
                if let Some(traceback) = given(2)
                    && ffi::PyException_SetTraceback(value.as_ptr(), traceback) != 0
                {
                    return Raised;
                }
                raise_object(value)
            }
        }
    }
}

unsafe extern "C" fn dealloc(object: Object) {
    // SAFETY: the last reference is gone.
    unsafe {
        ptr::drop_in_place(&raw mut (*object.cast::<DoneObject>()).outcome);
        FREE.free(object);
    }
}
