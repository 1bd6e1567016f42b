//! The Python face of the router: routes by channel, mailboxes by pattern.

use std::collections::HashMap;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use neuralcore_bus::{Clock, IdSource};
use pyo3::ffi;
use pyo3::prelude::*;

use crate::args::{OPTION_COUNT, Object, Signature};
use crate::awaitable::Outcome;
use crate::entry::Text;
use crate::globals::globals;
use crate::obj::{GilCell, R, Raised, Ref, frozen, guarded_object, raise, raise_object};
use crate::publish;
use crate::route::Route;

/// A mailbox in the table of patterns; `attached` owns the reference.
#[derive(Clone, Copy)]
pub(crate) struct Unowned(pub(crate) *mut ffi::PyObject);

// SAFETY: used with the GIL held.
unsafe impl Send for Unowned {}
// SAFETY: as above.
unsafe impl Sync for Unowned {}

#[pyclass(frozen, weakref, module = "neuralcore._native")]
pub(crate) struct Router {
    pub(crate) clock: Arc<Clock>,
    pub(crate) ids: Arc<IdSource>,
    pub(crate) missing: GilCell<Option<Ref>>,
    pub(crate) error: GilCell<Option<Ref>>,
    pub(crate) any_rank: bool,
    pub(crate) budget: u32,
    /// Awaited publishes until the next one yields.
    pub(crate) left: GilCell<u32>,
    /// A dict of channels to routes: the fastest table for str that there is.
    pub(crate) routes: Ref,
    pub(crate) table: GilCell<neuralcore_bus::Router<Unowned>>,
    pub(crate) attached: GilCell<HashMap<(String, u64), Ref>>,
    /// Changes with the subscriptions; 0 is never current.
    pub(crate) generation: AtomicU64,
    pub(crate) closed: AtomicBool,
    /// Changes with the table of routes, and when it is closed.
    pub(crate) version: AtomicU64,
    pub(crate) stamped_ns: GilCell<i64>,
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

    pub(crate) fn changed(&self) {
        self.version.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts awaited publishes; true when they have to yield.
    #[inline]
    pub(crate) fn tick(&self, publishes: u32) -> bool {
        // SAFETY: no Python code runs.
        let left = unsafe { self.left.get() };
        let over = *left <= publishes;
        *left = if over { self.budget } else { *left - publishes };
        over
    }

    /// The wall clock for a new message; precise where its latency will be measured.
    ///
    /// The coarse clock lags: what follows a precise stamp is not stamped before it, unless the wall clock was set back.
    #[inline]
    pub(crate) fn stamp(&self, seq: u64) -> i64 {
        let now = if sampled(seq) { self.clock.time_ns() } else { self.clock.stamp_ns() };
        self.stamped(now)
    }

    /// As [`stamp`](Self::stamp), for messages some of which will be measured.
    pub(crate) fn stamp_now(&self) -> i64 {
        self.stamped(self.clock.time_ns())
    }

    #[inline]
    fn stamped(&self, now: i64) -> i64 {
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

    pub(crate) fn check_open(&self, channel: &Ref) -> R<()> {
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

    /// The route of a channel of an open router, if it has one already.
    ///
    /// # Safety
    /// `channel` stays alive for the call, which may run Python code.
    pub(crate) unsafe fn known(&self, channel: Object) -> Option<Ref> {
        // SAFETY: by contract; a found route is held at once.
        unsafe {
            if self.is_closed() || ffi::PyUnicode_CheckExact(channel) == 0 {
                return None;
            }
            let found = ffi::PyDict_GetItemWithError(self.routes.as_ptr(), channel);
            if found.is_null() {
                ffi::PyErr_Clear();
                return None;
            }
            Some(Ref::borrow(found))
        }
    }

    #[cold]
    pub(crate) unsafe fn make_route(&self, channel: Object) -> R<Ref> {
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

pub(crate) fn is_route(object: &Ref) -> bool {
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

pub(crate) unsafe fn bind(
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
pub(crate) fn route_path(route: &Ref) -> Option<Ref> {
    // SAFETY: cloned at once.
    unsafe { Route::of(route).settings().path.clone() }
}
