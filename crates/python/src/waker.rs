//! Waking a task that waits on a future, from any thread.

use std::ptr;

use pyo3::ffi;

use crate::args::Object;
use crate::globals::globals;
use crate::obj::{R, Ref, guarded_object, unraisable};

/// A future of the loop that runs in `thread`, on which somebody waits.
///
/// Its owner keeps it while it is woken: telling another thread's loop lets that loop run, and the owner may by then
/// wait on its next one.
#[derive(Clone)]
pub(crate) struct Waker {
    event_loop: Ref,
    pub(crate) future: Ref,
    thread: u64,
}

impl Waker {
    /// For the loop that runs in this thread.
    pub(crate) fn new() -> R<Waker> {
        let event_loop = globals().running_loop.call(&[])?;
        Waker::on(&event_loop)
    }

    pub(crate) fn on(event_loop: &Ref) -> R<Waker> {
        let g = globals();
        let future = event_loop.method(&g.create_future, &[])?;
        Ok(Waker { event_loop: event_loop.clone(), future, thread: thread() })
    }

    /// The future, as a coroutine yields it to its task.
    pub(crate) fn yielded(&self) -> R<Ref> {
        // SAFETY: True is always alive.
        self.future.set_attr(&globals().blocking, unsafe { ffi::Py_True() })?;
        Ok(self.future.clone())
    }

    /// Resolves the future. False when its loop is closed, so that nobody will ever run.
    pub(crate) fn wake(&self) -> bool {
        let g = globals();
        let woken = if self.thread == thread() {
            resolve(&self.future)
        } else {
            let args = [g.wake.as_ptr(), self.future.as_ptr()];
            self.event_loop.method(&g.call_soon_threadsafe, &args).map(drop)
        };
        let Err(raised) = woken else { return true };
        // SAFETY: an exception is set. RuntimeError is what a closed loop raises.
        unsafe {
            if ffi::PyErr_ExceptionMatches(g.runtime_error.as_ptr()) != 0 {
                ffi::PyErr_Clear();
            } else {
                unraisable(raised, self.future.as_ptr());
            }
        }
        false
    }

    pub(crate) fn references(&self) -> [&Ref; 2] {
        [&self.event_loop, &self.future]
    }
}

fn thread() -> u64 {
    // SAFETY: asks the platform.
    unsafe { ffi::PyThread_get_thread_ident() as u64 }
}

/// Sets the result unless the waiter gave up.
fn resolve(future: &Ref) -> R<()> {
    let g = globals();
    if future.method(&g.done, &[])?.truthy()? {
        return Ok(());
    }
    // SAFETY: None is always alive.
    future.method(&g.set_result, &[unsafe { ffi::Py_None() }]).map(drop)
}

/// What a foreign thread asks the loop to call.
pub(crate) fn function() -> R<Ref> {
    let def = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: c"wake".as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunction: wake },
        ml_flags: ffi::METH_O,
        ml_doc: ptr::null(),
    }));
    // SAFETY: the definition lives for ever.
    unsafe { Ref::steal(ffi::PyCFunction_NewEx(def, ptr::null_mut(), ptr::null_mut())) }
}

unsafe extern "C" fn wake(_: Object, future: Object) -> Object {
    guarded_object(|| {
        // SAFETY: the argument is live.
        let future = unsafe { Ref::borrow(future) };
        resolve(&future).map(|()| Ref::none())
    })
}
