//! A channel's publish path: defaults, counters, and its compiled list of mailboxes.

use std::ptr;

use neuralcore_bus::Histogram;
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use crate::args::{OPTION_COUNT, Object, Signature};
use crate::globals::globals;
use crate::mailbox::Mailbox;
use crate::obj::{GilCell, R, Ref, guarded_object};
use crate::publish;
use crate::router::Router;
use crate::stats;

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) published: u64,
    pub(crate) unrouted: u64,
    pub(crate) dropped: u64,
    pub(crate) refused: u64,
}

pub(crate) struct Settings {
    pub(crate) priority: i64,
    pub(crate) ttl_ns: Option<i64>,
    pub(crate) path: Option<Ref>,
}

/// The mailboxes of the channel as of one generation of the router's subscriptions. The router keeps them alive for as
/// long as that generation lasts.
struct Targets {
    generation: u64,
    mailboxes: Vec<*mut ffi::PyObject>,
}

#[pyclass(frozen, weakref, module = "neuralcore._native")]
pub(crate) struct Route {
    router: Ref,
    channel: Ref,
    settings: GilCell<Settings>,
    targets: GilCell<Targets>,
    counters: GilCell<Counters>,
    pub(crate) latency: Histogram,
}

// SAFETY: the raw pointers are used with the GIL held.
unsafe impl Send for Targets {}

impl Route {
    /// # Panics
    /// Never: callers pass routes only.
    #[inline]
    pub(crate) fn of(object: &Ref) -> &Route {
        // SAFETY: references of this crate to routes hold routes, which are frozen.
        unsafe { Route::at(object.as_ptr()) }
    }

    /// # Safety
    /// `object` is a route that outlives the borrow.
    #[inline]
    pub(crate) unsafe fn at<'a>(object: *mut ffi::PyObject) -> &'a Route {
        // SAFETY: by contract.
        unsafe { crate::obj::frozen(object) }
    }

    pub(crate) fn channel(&self) -> &Ref {
        &self.channel
    }

    #[inline]
    pub(crate) fn router(&self) -> &Router {
        Router::of(&self.router)
    }

    /// # Safety
    /// As [`GilCell::get`].
    #[allow(clippy::mut_from_ref)]
    #[inline]
    pub(crate) unsafe fn settings(&self) -> &mut Settings {
        // SAFETY: by contract.
        unsafe { self.settings.get() }
    }

    #[inline]
    pub(crate) fn count(&self, change: impl FnOnce(&mut Counters)) {
        // SAFETY: the closures only add.
        change(unsafe { self.counters.get() });
    }

    /// The mailboxes, in ascending order.
    ///
    /// # Safety
    /// They are borrowed from the router: hold references before anything that can run Python code.
    #[inline]
    pub(crate) unsafe fn targets(&self) -> R<&[*mut ffi::PyObject]> {
        let router = self.router();
        // SAFETY: compiling runs no Python code.
        let targets = unsafe { self.targets.get() };
        if targets.generation != router.generation() {
            targets.mailboxes = router.compile(&self.channel)?;
            targets.generation = router.generation();
        }
        Ok(&targets.mailboxes)
    }
}

#[pymethods]
impl Route {
    #[new]
    #[pyo3(signature = (router, channel, *, priority = 50, ttl_ns = None, path = None))]
    fn new(
        router: &Bound<'_, Router>,
        channel: &Bound<'_, pyo3::types::PyString>,
        priority: i64,
        ttl_ns: Option<i64>,
        path: Option<&Bound<'_, PyAny>>,
    ) -> Route {
        Route {
            router: Ref::from(router.as_any()),
            channel: Ref::from(channel.as_any()),
            settings: GilCell::new(Settings { priority, ttl_ns, path: path.map(Ref::from) }),
            targets: GilCell::new(Targets { generation: 0, mailboxes: Vec::new() }),
            counters: GilCell::default(),
            latency: Histogram::default(),
        }
    }

    #[getter(channel)]
    fn channel_text(&self) -> Ref {
        self.channel.clone()
    }

    #[pyo3(signature = (*, priority, ttl_ns, path))]
    fn configure(&self, priority: i64, ttl_ns: Option<i64>, path: Option<&Bound<'_, PyAny>>) {
        let settings = Settings { priority, ttl_ns, path: path.map(Ref::from) };
        // SAFETY: the borrow ends before the old settings are dropped.
        let old = unsafe { std::mem::replace(self.settings.get(), settings) };
        drop(old);
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: copied out before Python code runs.
        let counters = unsafe {
            let now = self.counters.get();
            [now.published, now.unrouted, now.dropped, now.refused]
        };
        stats::route(py, counters, &self.latency.snapshot())
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<Route {}>", self.channel.bind(py).repr()?))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(self.router.as_py())?;
        // SAFETY: the collector only reads.
        match unsafe { &self.settings.get().path } {
            Some(path) => visit.call(path.as_py()),
            None => Ok(()),
        }
    }

    /// The router stays: the dict of its routes, which the collector clears, is part of every cycle through it.
    fn __clear__(&self) {
        // SAFETY: the borrows end before anything is dropped.
        let garbage = unsafe {
            self.targets.get().mailboxes.clear();
            self.settings.get().path.take()
        };
        drop(garbage);
    }
}

/// `Route.publish(payload, *, …)`: straight to the mailboxes.
pub(crate) unsafe extern "C" fn publish(
    object: Object,
    args: *const Object,
    nargs: isize,
    kwnames: Object,
) -> Object {
    guarded_object(|| {
        // SAFETY: CPython's own arguments, and it checked the type of self.
        unsafe {
            let route = Ref::borrow(object);
            if nargs == 1 && kwnames.is_null() {
                return publish::awaited(&route, *args, None);
            }
            let mut slots = [ptr::null_mut(); OPTION_COUNT + 1];
            let names = &globals().publish_names[1..];
            Signature { function: "publish", names, positional: 1, required: 1 }
                .bind(&mut slots, args, nargs, kwnames)?;
            let [payload, options @ ..] = &slots;
            publish::awaited(&route, *payload, Some(options))
        }
    })
}

/// A strong reference to each mailbox.
///
/// # Safety
/// The pointers are live mailboxes.
pub(crate) unsafe fn held(targets: &[*mut ffi::PyObject]) -> Vec<Ref> {
    // SAFETY: by contract.
    targets.iter().map(|&mailbox| unsafe { Ref::borrow(mailbox) }).collect()
}

/// # Safety
/// `object` is a live mailbox.
#[inline]
pub(crate) unsafe fn mailbox<'a>(object: *mut ffi::PyObject) -> &'a Mailbox {
    // SAFETY: by contract.
    unsafe { crate::obj::frozen(object) }
}
