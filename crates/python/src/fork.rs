//! A forked process must not hand out its parent's ids again.

use std::ptr;
use std::sync::{Arc, Weak};

use neuralcore_bus::IdSource;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::args::Object;
use crate::obj::{GilCell, R, Ref, guarded_object};

static SOURCES: GilCell<Vec<Weak<IdSource>>> = GilCell::new(Vec::new());

pub(crate) fn register(source: &Arc<IdSource>) {
    // SAFETY: no Python code runs.
    let sources = unsafe { SOURCES.get() };
    if sources.len() == sources.capacity() {
        sources.retain(|source| source.strong_count() > 0);
    }
    sources.push(Arc::downgrade(source));
}

pub(crate) fn install(py: Python<'_>) -> PyResult<()> {
    let os = py.import("os")?;
    if !os.hasattr("register_at_fork")? {
        return Ok(());
    }
    let options = PyDict::new(py);
    options.set_item("after_in_child", function()?)?;
    os.call_method("register_at_fork", (), Some(&options)).map(drop)
}

fn function() -> R<Ref> {
    let def = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: c"reseed".as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunction: reseed },
        ml_flags: ffi::METH_NOARGS,
        ml_doc: ptr::null(),
    }));
    // SAFETY: the definition lives for ever.
    unsafe { Ref::steal(ffi::PyCFunction_NewEx(def, ptr::null_mut(), ptr::null_mut())) }
}

unsafe extern "C" fn reseed(_: Object, _: Object) -> Object {
    guarded_object(|| {
        // SAFETY: no Python code runs.
        unsafe {
            SOURCES.get().iter().filter_map(Weak::upgrade).for_each(|source| source.reseed())
        };
        Ok(Ref::none())
    })
}
