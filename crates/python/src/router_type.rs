//! The Python face of the router.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use neuralcore_bus::IdSource;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use crate::clock::PyClock;
use crate::mailbox::Mailbox;
use crate::obj::{GilCell, Ref};
use crate::route::Route;
use crate::router::{Router, Unowned};
use crate::{fork, ids, many};

#[pymethods]
impl Router {
    #[new]
    #[pyo3(signature = (clock, *, missing, error, any_rank = false, budget = 256))]
    fn new(
        clock: &Bound<'_, PyClock>,
        missing: &Bound<'_, PyAny>,
        error: &Bound<'_, PyAny>,
        any_rank: bool,
        budget: i64,
    ) -> PyResult<Router> {
        let budget = u32::try_from(budget).ok().filter(|&budget| budget > 0).ok_or_else(|| {
            PyValueError::new_err(format!("a router's budget is 1 or more, not {budget}"))
        })?;
        let ids = Arc::new(IdSource::new());
        fork::register(&ids);
        Ok(Router {
            clock: clock.get().shared(),
            ids,
            missing: GilCell::new(Some(Ref::from(missing))),
            error: GilCell::new(Some(Ref::from(error))),
            any_rank,
            budget,
            left: GilCell::new(budget),
            routes: Ref::from(PyDict::new(clock.py()).into_any()),
            table: GilCell::default(),
            attached: GilCell::default(),
            generation: AtomicU64::new(1),
            closed: AtomicBool::new(false),
            version: AtomicU64::new(0),
            stamped_ns: GilCell::new(0),
        })
    }

    #[getter]
    fn id_prefix(&self) -> PyResult<Ref> {
        Ok(ids::prefix_text(self.ids.prefix())?)
    }

    fn next_id(&self) -> PyResult<Ref> {
        let id = self.ids.next();
        Ok(ids::formatted(id.prefix, id.count)?)
    }

    fn publish_many(slf: &Bound<'_, Self>, items: &Bound<'_, PyAny>) -> PyResult<Ref> {
        Ok(many::start(&Ref::from(slf.as_any()), items)?)
    }

    #[pyo3(signature = (pattern, mailbox, *, group = None))]
    fn attach(
        &self,
        pattern: &str,
        mailbox: &Bound<'_, Mailbox>,
        group: Option<&str>,
    ) -> PyResult<()> {
        let id = mailbox.get().id;
        let reference = Ref::from(mailbox.as_any());
        // SAFETY: the borrows end before the old reference is dropped.
        let old = unsafe {
            self.table
                .get()
                .insert(pattern, group, id, Unowned(reference.as_ptr()))
                .map_err(|err| PyValueError::new_err(format!("{pattern:?}: {err}")))?;
            self.attached.get().insert((pattern.to_owned(), id), reference)
        };
        self.generation.fetch_add(1, Ordering::Relaxed);
        drop(old);
        Ok(())
    }

    fn detach(&self, pattern: &str, mailbox: &Bound<'_, Mailbox>) {
        let id = mailbox.get().id;
        // SAFETY: the borrows end before the reference is dropped.
        let old = unsafe {
            self.table.get().remove(pattern, id);
            self.attached.get().remove(&(pattern.to_owned(), id))
        };
        self.generation.fetch_add(1, Ordering::Relaxed);
        drop(old);
    }

    #[pyo3(name = "match")]
    fn match_<'py>(&self, channel: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyList>> {
        let mailboxes = self.compile(&Ref::from(channel.as_any()))?;
        // SAFETY: attached mailboxes are live.
        let held = unsafe { crate::route::held(&mailboxes) };
        PyList::new(channel.py(), held)
    }

    fn add(&self, route: &Bound<'_, Route>) -> PyResult<()> {
        self.changed();
        self.dict(route.py())?.set_item(route.get().channel(), route)
    }

    fn remove(&self, channel: &Bound<'_, PyString>) -> PyResult<()> {
        self.changed();
        let routes = self.dict(channel.py())?;
        if routes.contains(channel)? { routes.del_item(channel) } else { Ok(()) }
    }

    fn routes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.dict(py)?.copy()
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.changed();
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let routes = self.dict(py)?.len();
        let closed = if self.closed.load(Ordering::Relaxed) { ", closed" } else { "" };
        Ok(format!("<Router {:016x}: {routes} routes{closed}>", self.ids.prefix()))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(self.routes.as_py())?;
        // SAFETY: the collector only reads.
        unsafe {
            let callbacks = [self.missing.get().as_ref(), self.error.get().as_ref()];
            for reference in callbacks.into_iter().flatten().chain(self.attached.get().values()) {
                visit.call(reference.as_py())?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        // SAFETY: the borrows end before anything is dropped.
        let garbage = unsafe {
            *self.table.get() = neuralcore_bus::Router::new();
            let attached = std::mem::take(self.attached.get());
            (attached, self.missing.get().take(), self.error.get().take())
        };
        self.generation.fetch_add(1, Ordering::Relaxed);
        drop(garbage);
        // SAFETY: the dict is live.
        unsafe { ffi::PyDict_Clear(self.routes.as_ptr()) };
    }
}

impl Router {
    fn dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let routes = self.routes.bind(py).cast::<PyDict>();
        routes.cloned().map_err(|_| PyTypeError::new_err("the table of routes is a dict"))
    }
}
