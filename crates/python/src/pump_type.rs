//! The Python face of a pump: constructor, coroutine protocol, introspection.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::ptr;

use pyo3::ffi;
use pyo3::types::PyAnyMethods;

use crate::args::{Object, Signature, integer, nanoseconds, string};
use crate::awaitable::{as_next, coroutine_like, thrown};
use crate::globals::globals;
use crate::mailbox::Mailbox;
use crate::message_type::boolean;
use crate::obj::{R, Raised, Ref, guarded, guarded_object, preserving, raise, taken, unraisable};
use crate::pump::{self, Pump, PumpObject, Slot, State};
use crate::rawtype::TypeBuilder;
use crate::step::{self, Input, Output};

pub(crate) const PARAMETERS: [&str; 11] = [
    "mailbox", "handler", "failed", "replied", "settled", "batch", "timeout", "context", "budget",
    "slice_ns", "name",
];

pub(crate) fn build() -> R<Ref> {
    coroutine_like(
        TypeBuilder::new::<PumpObject>(
            c"neuralcore._native.Pump",
            c"Pump(mailbox, handler, *, failed, replied, settled=None, batch=0, timeout=None, context=None, budget=256, \
           slice_ns=1_000_000, name='pump')\n--\n\nA worker's coroutine: run it as a task.",
        ),
        am_send,
        next,
    )
    .collected(traverse, clear)
    .weakrefs(offset_of!(PumpObject, weakrefs))
    .slot(ffi::Py_tp_new, new as *mut c_void)
    .slot(ffi::Py_tp_finalize, finalize as *mut c_void)
    .slot(ffi::Py_tp_dealloc, dealloc as *mut c_void)
    .slot(ffi::Py_tp_repr, repr as *mut c_void)
    .keywords(c"stop", c"stop($self, *, cancel=False)\n--\n\nEnd after the current message.", stop)
    .fast(c"throw", c"throw($self, typ, val=None, tb=None, /)\n--\n\n", throw)
    .no_args(c"close", c"close($self, /)\n--\n\n", close)
    .no_args(c"_expire", c"_expire($self)\n--\n\n", expire)
    .getter(c"current", current)
    .getter(c"timed_out", timed_out)
    .getter(c"cr_await", cr_await)
    .getter(c"cr_code", cr_code)
    .getter(c"cr_frame", cr_frame)
    .getter(c"cr_running", cr_running)
    .attribute(c"__name__", name, Some(set_name))
    .attribute(c"__qualname__", qualname, Some(set_qualname))
    .build()
}

unsafe extern "C" fn new(_: *mut ffi::PyTypeObject, args: Object, kwargs: Object) -> Object {
    guarded_object(|| {
        let mut slots = [ptr::null_mut(); PARAMETERS.len()];
        let names = &globals().pump_names;
        // SAFETY: CPython passes a tuple and a dict or null; all fields of the fresh object are written before the
        // collector may see it.
        unsafe {
            Signature { function: "Pump", names, positional: 2, required: 4 }
                .bind_tuple(&mut slots, args, kwargs)?;
            let pump = Box::new(configured(&slots)?);
            let object = ffi::PyObject_GC_New::<PumpObject>(globals().pump_type.as_ptr().cast());
            if object.is_null() {
                return Err(Raised);
            }
            (*object).weakrefs = ptr::null_mut();
            ptr::write(&raw mut (*object).pump, Some(pump));
            let object = Ref::steal(object.cast())?;
            if let Some(pump) = &mut (*object.as_ptr().cast::<PumpObject>()).pump {
                pump.worker = Mailbox::of(&pump.mailbox).join(object.as_ptr());
                pump.state.set(State::Created);
                // It has joined, and is not running yet.
                let wake = pump.mailbox().core.suspended(pump.worker);
                pump.mailbox().wake_some(wake);
            }
            ffi::PyObject_GC_Track(object.as_ptr().cast());
            Ok(object)
        }
    })
}

fn configured(slots: &[Object; PARAMETERS.len()]) -> R<Pump> {
    let g = globals();
    let given = |index: usize| {
        let slot: Object = slots[index];
        // SAFETY: a slot is null or a live object.
        unsafe { (!slot.is_null() && slot != ffi::Py_None()).then(|| Ref::borrow(slot)) }
    };
    // SAFETY: required slots are live.
    let required = |index: usize| unsafe { Ref::borrow(slots[index]) };
    let number = |index: usize, default: i64| {
        given(index).map_or(Ok(default), |value| integer(value, PARAMETERS[index]))
    };
    let mailbox = required(0);
    if !mailbox.bind(crate::obj::attached()).is_instance_of::<Mailbox>() {
        return Err(raise(&g.type_error, "a pump needs a Mailbox"));
    }
    let budget = number(8, 256)?;
    let Some(budget) = u32::try_from(budget).ok().filter(|&budget| budget > 0) else {
        return Err(raise(&g.value_error, &format!("a pump's budget is 1 or more, not {budget}")));
    };
    let timeout = given(6).map(|seconds| nanoseconds(seconds, "timeout")).transpose()?;
    let name =
        given(10).map_or_else(|| crate::globals::interned("pump"), |name| string(name, "name"))?;
    // SAFETY: answers a new reference or null; anything but a context is refused by CPython.
    let base = unsafe {
        match given(7) {
            Some(context) => Ref::steal(ffi::PyContext_Copy(context.as_ptr()))?,
            None => Ref::steal(ffi::PyContext_CopyCurrent())?,
        }
    };
    Ok(Pump {
        mailbox,
        handler: required(1),
        failed: required(2),
        replied: required(3),
        settled: given(4),
        base,
        qualname: Slot::new(name.clone()),
        name: Slot::new(name),
        batch: number(5, 0)?.max(0) as usize,
        timeout: timeout.map(|ns| ns as f64 / 1e9),
        budget,
        slice_ns: number(9, 1_000_000)?.max(0) as u64,
        worker: 0,
        state: Cell::new(State::Closed),
        running: Cell::new(false),
        stopping: Cell::new(false),
        releasing: Cell::new(false),
        event_loop: Slot::default(),
        waker: Cell::new(None),
        current: Slot::default(),
        messages: Cell::new(Vec::new()),
        taken: Cell::new(Vec::new()),
        context: Slot::default(),
        iterator: Slot::default(),
        result: Slot::default(),
        ending: Slot::default(),
        task: Slot::default(),
        timer: Slot::default(),
        timed_out: Cell::new(false),
        thrown: Cell::new(false),
        cancelling: Cell::new(0),
        measured_ns: Cell::new(0),
    })
}

fn with<T>(object: Object, body: impl FnOnce(&Pump) -> R<T>) -> R<T> {
    // SAFETY: CPython checked the type of self, which it holds for the call.
    match unsafe { pump::at(object) } {
        Some(pump) => body(pump),
        None => Err(raise(&globals().runtime_error, "the pump was garbage-collected")),
    }
}

unsafe extern "C" fn am_send(
    object: Object,
    value: Object,
    result: *mut Object,
) -> ffi::PySendResult {
    guarded(ffi::PySendResult::PYGEN_ERROR, || {
        // SAFETY: CPython's own arguments.
        unsafe {
            let value = if value.is_null() { Ref::none() } else { Ref::borrow(value) };
            match with(object, |pump| step::resume(pump, object, Input::Send(value)))? {
                Output::Yield(yielded) => {
                    *result = yielded.into_ptr();
                    Ok(ffi::PySendResult::PYGEN_NEXT)
                }
                Output::Return => {
                    *result = Ref::none().into_ptr();
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

unsafe extern "C" fn throw(object: Object, args: *mut Object, nargs: isize) -> Object {
    guarded_object(|| {
        // SAFETY: CPython's own arguments.
        let exception = taken(unsafe { thrown(args, nargs) });
        // SAFETY: as above.
        let output =
            with(object, |pump| unsafe { step::resume(pump, object, Input::Throw(exception)) });
        match output? {
            Output::Yield(yielded) => Ok(yielded),
            Output::Return => {
                let g = globals();
                Err(crate::obj::raise_object(g.stop_iteration.call(&[])?))
            }
        }
    })
}

unsafe extern "C" fn close(object: Object, _: Object) -> Object {
    guarded_object(|| with(object, step::close).map(|()| Ref::none()))
}

unsafe extern "C" fn expire(object: Object, _: Object) -> Object {
    guarded_object(|| with(object, Pump::expire).map(|()| Ref::none()))
}

unsafe extern "C" fn stop(
    object: Object,
    args: *const Object,
    nargs: isize,
    names: Object,
) -> Object {
    guarded_object(|| {
        let mut slots = [ptr::null_mut()];
        let known = std::slice::from_ref(&globals().cancel);
        // SAFETY: CPython's own arguments.
        unsafe {
            Signature { function: "stop", names: known, positional: 0, required: 0 }
                .bind(&mut slots, args, nargs, names)?;
        }
        // SAFETY: a bound slot is live.
        let cancel = !slots[0].is_null() && unsafe { Ref::borrow(slots[0]) }.truthy()?;
        with(object, |pump| {
            pump.stop(cancel);
            Ok(Ref::none())
        })
    })
}

unsafe extern "C" fn repr(object: Object) -> Object {
    guarded_object(|| {
        with(object, |pump| {
            let name = pump.name.get().unwrap_or_else(Ref::none);
            let text = format!("<Pump {}>", name.bind(crate::obj::attached()));
            // SAFETY: valid UTF-8.
            unsafe {
                Ref::steal(ffi::PyUnicode_FromStringAndSize(
                    text.as_ptr().cast(),
                    text.len() as isize,
                ))
            }
        })
    })
}

macro_rules! getters {
    ($($name:ident($pump:ident) $body:expr;)*) => {$(
        unsafe extern "C" fn $name(object: Object, _: *mut c_void) -> Object {
            guarded_object(|| with(object, |$pump| $body))
        }
    )*};
}

getters! {
    current(pump) Ok(pump.current.get().unwrap_or_else(Ref::none));
    timed_out(pump) Ok(boolean(pump.timed_out.get()));
    cr_await(pump) Ok(pump.iterator.get().unwrap_or_else(Ref::none));
    cr_code(pump) inner(pump, &globals().cr_code, &globals().gi_code);
    cr_frame(pump) inner(pump, &globals().cr_frame, &globals().gi_frame);
    cr_running(pump) Ok(boolean(pump.running.get()));
    name(pump) Ok(pump.name.get().unwrap_or_else(Ref::none));
    qualname(pump) Ok(pump.qualname.get().unwrap_or_else(Ref::none));
}

/// An attribute of the suspended handler, by its name on coroutines or on generators.
fn inner(pump: &Pump, coroutine: &Ref, generator: &Ref) -> R<Ref> {
    let Some(iterator) = pump.iterator.get() else { return Ok(Ref::none()) };
    for name in [coroutine, generator] {
        match iterator.attr(name) {
            Ok(value) => return Ok(value),
            Err(raised) => drop(taken(raised)),
        }
    }
    Ok(Ref::none())
}

unsafe extern "C" fn set_name(object: Object, value: Object, _: *mut c_void) -> c_int {
    set(object, value, |pump| &pump.name)
}

unsafe extern "C" fn set_qualname(object: Object, value: Object, _: *mut c_void) -> c_int {
    set(object, value, |pump| &pump.qualname)
}

fn set(object: Object, value: Object, slot: impl FnOnce(&Pump) -> &Slot) -> c_int {
    guarded(-1, || {
        if value.is_null() {
            return Err(raise(&globals().type_error, "the name of a pump cannot be deleted"));
        }
        // SAFETY: the value is live.
        let value = string(unsafe { Ref::borrow(value) }, "the name of a pump")?;
        with(object, |pump| {
            slot(pump).set(value);
            Ok(0)
        })
    })
}

unsafe extern "C" fn traverse(object: Object, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector only reads; the first non-zero answer is handed on.
    unsafe {
        let answer = visit(ffi::Py_TYPE(object).cast(), arg);
        if answer != 0 {
            return answer;
        }
        let Some(pump) = pump::at(object) else { return 0 };
        let mut answer = 0;
        let mut see = |reference: *mut ffi::PyObject| {
            answer = if reference.is_null() { 0 } else { visit(reference, arg) };
            answer == 0
        };
        let fixed = [&pump.mailbox, &pump.handler, &pump.failed, &pump.replied, &pump.base];
        let slots = [
            &pump.event_loop,
            &pump.current,
            &pump.context,
            &pump.iterator,
            &pump.result,
            &pump.ending,
            &pump.task,
            &pump.timer,
        ];
        let waker = (*pump.waker.as_ptr()).as_ref();
        let _ = fixed.into_iter().chain(pump.settled.as_ref()).all(|one| see(one.as_ptr()))
            && slots.into_iter().all(|slot| see(slot.address()))
            && waker.into_iter().flat_map(|w| w.references()).all(|one| see(one.as_ptr()))
            && (*pump.messages.as_ptr()).iter().all(|one| see(one.as_ptr()));
        answer
    }
}

/// Ends the handler and leaves the mailbox: while that runs Python code, the pump is a whole object.
unsafe extern "C" fn finalize(object: Object) {
    preserving(|| {
        // SAFETY: CPython keeps the object alive for the call.
        if let Some(pump) = unsafe { pump::at(object) }
            && let Err(raised) = step::close(pump)
        {
            unraisable(raised, object);
        }
    });
}

unsafe extern "C" fn clear(object: Object) -> c_int {
    // SAFETY: the pump is out of the object before any destructor runs.
    unsafe {
        let garbage = (*object.cast::<PumpObject>()).pump.take();
        drop(garbage);
    }
    0
}

unsafe extern "C" fn dealloc(object: Object) {
    // SAFETY: the last reference is gone, and after `finalize` no mailbox knows the pump.
    unsafe {
        if ffi::PyObject_CallFinalizerFromDealloc(object) < 0 {
            return;
        }
        ffi::PyObject_GC_UnTrack(object.cast());
        if !(*object.cast::<PumpObject>()).weakrefs.is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        preserving(|| clear(object));
        let kind = ffi::Py_TYPE(object);
        ffi::PyObject_GC_Del(object.cast());
        ffi::Py_DECREF(kind.cast());
    }
}
