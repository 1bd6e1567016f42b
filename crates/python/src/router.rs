//! The Python face of the router: routes by channel, mailboxes by pattern.

use std::collections::HashMap;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use neuralcore_bus::{Clock, IdSource};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use crate::args::{OPTION_COUNT, Object, Signature};
use crate::awaitable::Outcome;
use crate::clock::PyClock;
use crate::entry::Text;
use crate::globals::globals;
use crate::mailbox::Mailbox;
use crate::obj::{GilCell, R, Raised, Ref, frozen, guarded_object, raise, raise_object};
use crate::route::Route;
use crate::{fork, ids, many, publish};

/// A mailbox in the table of patterns; `attached` owns the reference.
#[derive(Clone, Copy)]
struct Unowned(*mut ffi::PyObject);

// SAFETY: used with the GIL held.
unsafe impl Send for Unowned {}
// SAFETY: as above.
unsafe impl Sync for Unowned {}

#[pyclass(frozen, weakref, module = "neuralcore._native")]
pub(crate) struct Router {
    pub(crate) clock: Arc<Clock>,
    pub(crate) ids: Arc<IdSource>,
    missing: GilCell<Option<Ref>>,
    error: GilCell<Option<Ref>>,
    any_rank: bool,
    budget: u32,
    /// Awaited publishes until the next one yields.
    left: GilCell<u32>,
    /// A dict of channels to routes: the fastest table for str that there is.
    routes: Ref,
    table: GilCell<neuralcore_bus::Router<Unowned>>,
    attached: GilCell<HashMap<(String, u64), Ref>>,
    /// Changes with the subscriptions; 0 is never current.
    generation: AtomicU64,
    closed: AtomicBool,
    /// Changes with the table of routes, and when it is closed.
    version: AtomicU64,
    stamped_ns: GilCell<i64>,
}

/// How far the clock that stamps messages lags behind the precise one, at most: ten ticks of the slowest kernels.
const LAG_NS: i64 = 100_000_000;

/// Whether a message is one of those whose latencies are measured: 1 in 64, however channels take turns.
#[inline]
pub(crate) fn sampled(seq: u64) -> bool {
    seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58 == 0
}

impl Router {
    #[inline]
    pub(crate) fn of(object: &Ref) -> &Router {
        // SAFETY: references of this crate to routers hold routers.
        unsafe { frozen(object.as_ptr()) }
    }

    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    fn changed(&self) {
        self.version.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an awaited publish; true when it has to yield.
    #[inline]
    pub(crate) fn tick(&self) -> bool {
        // SAFETY: no Python code runs.
        let left = unsafe { self.left.get() };
        *left -= 1;
        if *left == 0 {
            *left = self.budget;
            return true;
        }
        false
    }

    /// The wall clock for a new message; precise where its latency will be measured.
    ///
    /// The coarse clock lags: what follows a precise stamp is not stamped before it, unless the wall clock was set back.
    #[inline]
    pub(crate) fn stamp(&self, seq: u64) -> i64 {
        let now = if sampled(seq) { self.clock.time_ns() } else { self.clock.stamp_ns() };
        // SAFETY: no Python code runs.
        let last = unsafe { self.stamped_ns.get() };
        if now > *last || now < *last - LAG_NS {
            *last = now;
        }
        *last
    }

    pub(crate) fn admits(&self, rank: i64) -> bool {
        self.any_rank || (0..=255).contains(&rank)
    }

    /// The live mailboxes of a channel, borrowed from `attached`.
    #[cold]
    pub(crate) fn compile(&self, channel: &Ref) -> R<Vec<*mut ffi::PyObject>> {
        let channel = Text::new(channel.clone())?;
        // SAFETY: no Python code runs.
        let matches = unsafe { self.table.get().matches(channel.as_str()) };
        Ok(matches.into_iter().map(|mailbox| mailbox.0).collect())
    }

    /// Sets the exception that the application builds.
    pub(crate) fn error(&self, kind: &str, channel: &Ref, detail: &Ref) -> Raised {
        // SAFETY: cloned at once.
        let Some(error) = (unsafe { self.error.get().clone() }) else {
            return raise(&globals().runtime_error, &format!("{kind}: the router is gone"));
        };
        let built = crate::globals::interned(kind)
            .and_then(|kind| error.call(&[kind.as_ptr(), channel.as_ptr(), detail.as_ptr()]));
        match built {
            Err(raised) => raised,
            // SAFETY: the object is live.
            Ok(built) if unsafe { ffi::PyExceptionInstance_Check(built.as_ptr()) } == 0 => {
                raise(&globals().type_error, "error() must answer an exception")
            }
            Ok(built) => raise_object(built),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn check_open(&self, channel: &Ref) -> R<()> {
        if self.is_closed() {
            return Err(self.error("closed", channel, &Ref::none()));
        }
        Ok(())
    }

    /// The route of a channel.
    ///
    /// # Safety
    /// `channel` is a live object.
    #[inline]
    pub(crate) unsafe fn route(&self, channel: Object) -> R<Ref> {
        // SAFETY: by contract; a found route is alive in the dict and held before anything else happens.
        unsafe {
            if self.closed.load(Ordering::Relaxed) {
                self.check_open(&Ref::borrow(channel))?;
            }
            let found = ffi::PyDict_GetItemWithError(self.routes.as_ptr(), channel);
            if found.is_null() { self.make_route(channel) } else { Ok(Ref::borrow(found)) }
        }
    }

    #[cold]
    unsafe fn make_route(&self, channel: Object) -> R<Ref> {
        // SAFETY: by contract of `route`.
        unsafe {
            if crate::args::occurred() {
                return Err(Raised);
            }
            let Some(missing) = self.missing.get().clone() else {
                return Err(raise(&globals().runtime_error, "the router is gone"));
            };
            let route = missing.call(&[channel])?;
            if !is_route(&route) {
                return Err(raise(&globals().type_error, "missing() must answer a Route"));
            }
            let kept = ffi::PyDict_SetDefault(self.routes.as_ptr(), channel, route.as_ptr());
            if kept.is_null() { Err(Raised) } else { Ok(Ref::borrow(kept)) }
        }
    }

    /// `Router.publish` for arguments in their places.
    pub(crate) fn publish_slots(&self, slots: &[Object; OPTION_COUNT + 2]) -> R<Ref> {
        let [channel, payload, options @ ..] = slots;
        // SAFETY: bound slots are live.
        unsafe {
            let route = self.route(*channel)?;
            let path = Route::of(&route).settings().path.clone();
            match path {
                None => publish::awaited(&route, *payload, Some(options)),
                Some(path) => call_path(&path, *payload, options),
            }
        }
    }
}

fn is_route(object: &Ref) -> bool {
    object.bind(crate::obj::attached()).is_instance_of::<Route>()
}

/// `path(payload, **options)` with the options that were given.
pub(crate) fn call_path(path: &Ref, payload: Object, options: &[Object; OPTION_COUNT]) -> R<Ref> {
    // SAFETY: slots are null or live; the names are a new tuple.
    unsafe {
        let names = &globals().publish_names[2..];
        let given: Vec<usize> = (0..OPTION_COUNT)
            .filter(|&index| !options[index].is_null() && options[index] != ffi::Py_None())
            .collect();
        let keywords = Ref::steal(ffi::PyTuple_New(given.len() as isize))?;
        let mut args = vec![payload];
        for (place, &index) in given.iter().enumerate() {
            let name = names[index].clone().into_ptr();
            ffi::PyTuple_SET_ITEM(keywords.as_ptr(), place as isize, name);
            args.push(options[index]);
        }
        Ref::steal(ffi::PyObject_Vectorcall(path.as_ptr(), args.as_ptr(), 1, keywords.as_ptr()))
    }
}

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

impl<'py> IntoPyObject<'py> for &Ref {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = std::convert::Infallible;

    fn into_pyobject(self, py: Python<'py>) -> Result<Self::Output, Self::Error> {
        Ok(self.bind(py).clone())
    }
}

/// `Router.publish(channel, payload, *, …)`.
pub(crate) unsafe extern "C" fn publish(
    object: Object,
    args: *const Object,
    nargs: isize,
    kwnames: Object,
) -> Object {
    guarded_object(|| {
        // SAFETY: CPython's own arguments, and it checked the type of self.
        unsafe {
            let router: &Router = frozen(object);
            if nargs == 2 && kwnames.is_null() {
                let route = router.route(*args)?;
                if let Some(path) = route_path(&route) {
                    return path.call(&[*args.add(1)]);
                }
                return publish::awaited(&route, *args.add(1), None);
            }
            let slots = bind("publish", args, nargs, kwnames)?;
            router.publish_slots(&slots)
        }
    })
}

/// `Router.publish_nowait(channel, payload, *, …)`.
pub(crate) unsafe extern "C" fn publish_nowait(
    object: Object,
    args: *const Object,
    nargs: isize,
    kwnames: Object,
) -> Object {
    guarded_object(|| {
        // SAFETY: CPython's own arguments, and it checked the type of self.
        let outcome: Outcome = unsafe {
            let router: &Router = frozen(object);
            if nargs == 2 && kwnames.is_null() {
                publish::immediate(&router.route(*args)?, *args.add(1), None)?
            } else {
                let slots = bind("publish_nowait", args, nargs, kwnames)?;
                let [channel, payload, options @ ..] = &slots;
                publish::immediate(&router.route(*channel)?, *payload, Some(options))?
            }
        };
        outcome.value()
    })
}

unsafe fn bind(
    function: &'static str,
    args: *const Object,
    nargs: isize,
    kwnames: Object,
) -> R<[Object; OPTION_COUNT + 2]> {
    let mut slots = [ptr::null_mut(); OPTION_COUNT + 2];
    let signature =
        Signature { function, names: &globals().publish_names, positional: 2, required: 2 };
    // SAFETY: by contract of the callers.
    unsafe { signature.bind(&mut slots, args, nargs, kwnames)? };
    Ok(slots)
}

#[inline]
fn route_path(route: &Ref) -> Option<Ref> {
    // SAFETY: cloned at once.
    unsafe { Route::of(route).settings().path.clone() }
}
