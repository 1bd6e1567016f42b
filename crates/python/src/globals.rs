//! Types, interned names and the few objects of the standard library that the core uses.

use std::ffi::CString;
use std::sync::OnceLock;

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::args::PUBLISH_NAMES;
use crate::obj::{GilCell, R, Raised, Ref};
use crate::{awaitable, many_type, message_type, pump_type, ready, waiting_type};

static GLOBALS: GilCell<Option<Globals>> = GilCell::new(None);

macro_rules! globals {
    (names { $($name:ident = $text:literal,)* } objects { $($object:ident,)* }) => {
        pub(crate) struct Globals {
            $(pub(crate) $name: Ref,)*
            $(pub(crate) $object: Ref,)*
            pub(crate) message_names: Vec<Ref>,
            pub(crate) publish_names: Vec<Ref>,
            pub(crate) pump_names: Vec<Ref>,
        }

        impl Globals {
            fn load(objects: Objects) -> R<Globals> {
                Ok(Globals {
                    $($name: interned($text)?,)*
                    $($object: objects.$object,)*
                    message_names: all_interned(&message_type::PARAMETERS)?,
                    publish_names: all_interned(&PUBLISH_NAMES)?,
                    pump_names: all_interned(&pump_type::PARAMETERS)?,
                })
            }
        }

        struct Objects { $($object: Ref,)* }
    };
}

globals! {
    names {
        ack = "ack",
        blocking = "_asyncio_future_blocking",
        call_exception_handler = "call_exception_handler",
        call_later = "call_later",
        call_soon_threadsafe = "call_soon_threadsafe",
        cancel = "cancel",
        cancelled = "cancelled",
        cancelling = "cancelling",
        close = "close",
        connection = "connection",
        co_flags = "co_flags",
        cr_code = "cr_code",
        cr_frame = "cr_frame",
        create_future = "create_future",
        delay = "delay",
        done = "done",
        due = "due",
        empty = "",
        expire = "_expire",
        expired = "expired",
        gi_code = "gi_code",
        gi_frame = "gi_frame",
        nack = "nack",
        payload = "payload",
        reason = "reason",
        reject = "reject",
        release = "release",
        reply = "reply",
        set_result = "set_result",
        throw = "throw",
        transaction = "transaction",
        uncancel = "uncancel",
        value = "value",
    }
    objects {
        cancelled_error,
        current_task,
        done_type,
        exception,
        keyboard_interrupt,
        many_type,
        message_type,
        no_headers,
        pump_type,
        ready_type,
        running_loop,
        runtime_error,
        runtime_warning,
        stop_iteration,
        system_exit,
        timeout_error,
        type_error,
        value_error,
        waiting_type,
        wake,
    }
}

#[inline]
pub(crate) fn globals() -> &'static Globals {
    // SAFETY: filled once by `load` before any object of this module exists, and never changed.
    unsafe { GLOBALS.get().as_ref().unwrap_unchecked() }
}

/// The interpreter that the globals belong to.
static INTERPRETER: OnceLock<i64> = OnceLock::new();

/// Called when the module is initialised; false when it is imported afresh and shares what is there. Types and callbacks
/// are one per process, so another interpreter is refused.
pub(crate) fn load(py: Python<'_>) -> PyResult<bool> {
    // SAFETY: asks for the id of the running interpreter.
    let this = unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) };
    if *INTERPRETER.get_or_init(|| this) != this {
        let text = "neuralcore._native is in use in another interpreter of this process";
        return Err(PyImportError::new_err(text));
    }
    // SAFETY: only looked at.
    if unsafe { GLOBALS.get().is_some() } {
        return Ok(false);
    }
    let asyncio = py.import("asyncio")?;
    let events = py.import("asyncio.events")?;
    let builtin = |kind: *mut ffi::PyObject| {
        // SAFETY: built-in exception types are always alive.
        unsafe { Ref::borrow(kind) }
    };
    // SAFETY: reading the addresses of static exception types.
    let objects = unsafe {
        Objects {
            cancelled_error: asyncio.getattr("CancelledError")?.into(),
            current_task: asyncio.getattr("current_task")?.into(),
            running_loop: events.getattr("get_running_loop")?.into(),
            done_type: awaitable::build()?,
            many_type: many_type::build()?,
            message_type: message_type::build()?,
            pump_type: pump_type::build()?,
            ready_type: ready::build()?,
            waiting_type: waiting_type::build()?,
            no_headers: Ref::steal(ffi::PyDictProxy_New(Ref::steal(ffi::PyDict_New())?.as_ptr()))?,
            wake: crate::waker::function()?,
            exception: builtin(ffi::PyExc_Exception),
            keyboard_interrupt: builtin(ffi::PyExc_KeyboardInterrupt),
            runtime_error: builtin(ffi::PyExc_RuntimeError),
            runtime_warning: builtin(ffi::PyExc_RuntimeWarning),
            stop_iteration: builtin(ffi::PyExc_StopIteration),
            system_exit: builtin(ffi::PyExc_SystemExit),
            timeout_error: builtin(ffi::PyExc_TimeoutError),
            type_error: builtin(ffi::PyExc_TypeError),
            value_error: builtin(ffi::PyExc_ValueError),
        }
    };
    let loaded = Globals::load(objects)?;
    // SAFETY: nothing has read it yet.
    unsafe { *GLOBALS.get() = Some(loaded) };
    Ok(true)
}

fn all_interned(names: &[&str]) -> R<Vec<Ref>> {
    names.iter().map(|name| interned(name)).collect()
}

pub(crate) fn interned(text: &str) -> R<Ref> {
    let Ok(text) = CString::new(text) else { return Err(Raised) };
    // SAFETY: a NUL-terminated string.
    unsafe { Ref::steal(ffi::PyUnicode_InternFromString(text.as_ptr())) }
}
