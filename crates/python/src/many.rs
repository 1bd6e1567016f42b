//! Many publishes in one call.

use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyDictMethods};

use crate::args::{OPTION_COUNT, Object, Signature};
use crate::awaitable::Outcome;
use crate::drive::{Driven, send};
use crate::globals::globals;
use crate::obj::{R, Raised, Ref, attached, is_exception, raise, raise_object, taken};
use crate::publish::{self, Patience, Progress};
use crate::results::Results;
use crate::route::Route;
use crate::router::Router;
use crate::run::{self, Items};

/// A call with room for all may go on this long before it lets the loop run.
const STRIDE: u32 = 1024;

/// As many enter a mailbox in one step at most: others want its lock.
const RUN: usize = 256;

pub(crate) struct Many {
    pub(crate) router: Ref,
    pub(crate) items: Items,
    pub(crate) results: Results,
    pub(crate) errors: Vec<(usize, Ref)>,
    /// The last channel, its route, and the router's table it was found in.
    pub(crate) last: Option<(Ref, Ref, u64)>,
    /// The awaitable of the item that has to wait.
    pub(crate) current: Option<Ref>,
    pub(crate) since_yield: u32,
    pub(crate) must_yield: bool,
    pub(crate) begun: bool,
    pub(crate) running: bool,
    pub(crate) over: bool,
}

#[repr(C)]
pub(crate) struct ManyObject {
    pub(crate) ob_base: ffi::PyObject,
    pub(crate) many: Option<Box<Many>>,
}

/// `Router.publish_many(items)`.
pub(crate) fn start(router: &Ref, items: &Bound<'_, PyAny>) -> R<Ref> {
    // SAFETY: the fresh object's only field is written before the collector may see it.
    unsafe {
        let items = Items::new(items.as_ptr())?;
        let many = Many {
            router: router.clone(),
            results: Results::new(Router::of(router).ids.prefix(), items.left()),
            items,
            errors: Vec::new(),
            last: None,
            current: None,
            since_yield: 0,
            must_yield: false,
            begun: false,
            running: false,
            over: false,
        };
        let kind = globals().many_type.as_ptr().cast();
        let object = ffi::PyObject_GC_New::<ManyObject>(kind);
        if object.is_null() {
            return Err(Raised);
        }
        ptr::write(&raw mut (*object).many, Some(Box::new(many)));
        ffi::PyObject_GC_Track(object.cast());
        Ref::steal(object.cast())
    }
}

pub(crate) enum Step {
    Yield(Ref),
    Return(Ref),
}

impl Many {
    pub(crate) fn advance(&mut self, mut input: Option<Ref>) -> R<Step> {
        loop {
            if let Some(current) = self.current.take()
                && let Some(yielded) = self.driven(drive(current, input.take()))?
            {
                return Ok(Step::Yield(yielded));
            }
            if self.must_yield && self.since_yield >= STRIDE {
                return Ok(self.pause());
            }
            if self.run() {
                continue;
            }
            let Some(item) = self.items.next()? else {
                return if self.must_yield {
                    Ok(self.pause())
                } else {
                    self.answer().map(Step::Return)
                };
            };
            self.count(1);
            match self.publish(item) {
                Ok(Progress::Done(outcome)) => self.results.push(outcome),
                Ok(Progress::Waiting(awaitable)) => self.current = Some(awaitable),
                Err(raised) => self.refused(raised)?,
            }
        }
    }

    /// What became of the item that waits; what it yields, if it still does.
    pub(crate) fn driven(&mut self, driven: Driven) -> R<Option<Ref>> {
        match driven {
            Driven::Yielded(yielded, current) => {
                self.current = Some(current);
                self.since_yield = 0;
                return Ok(Some(yielded));
            }
            Driven::Returned(value) => self.results.push(Outcome::Object(value)),
            Driven::Failed(raised) => self.refused(raised)?,
        }
        Ok(None)
    }

    /// Many at once, if they are such.
    fn run(&mut self) -> bool {
        let entered = run::enter(self, RUN);
        if entered > 0 {
            self.count(entered as u32);
        }
        entered > 0
    }

    fn count(&mut self, publishes: u32) {
        self.must_yield |= Router::of(&self.router).tick(publishes);
        self.since_yield += publishes;
    }

    pub(crate) fn pause(&mut self) -> Step {
        self.must_yield = false;
        self.since_yield = 0;
        Step::Yield(Ref::none())
    }

    /// One item: `(channel, payload[, priority[, options]])`.
    pub(crate) fn publish(&mut self, item: Ref) -> R<Progress> {
        // SAFETY: the tuple keeps its items alive for the call.
        unsafe {
            let item = match ffi::PyTuple_CheckExact(item.as_ptr()) {
                0 => Ref::steal(ffi::PySequence_Tuple(item.as_ptr()))?,
                _ => item,
            };
            let part = |index: isize| ffi::PyTuple_GET_ITEM(item.as_ptr(), index);
            let length = ffi::PyTuple_GET_SIZE(item.as_ptr());
            if !(2..=4).contains(&length) {
                let text = format!(
                    "an item is (channel, payload[, priority[, options]]), not {length} values"
                );
                return Err(raise(&globals().type_error, &text));
            }
            let route = self.route(part(0))?;
            let mut slots = [ptr::null_mut(); OPTION_COUNT];
            if length > 2 {
                slots[0] = part(2);
            }
            let options = if length > 3 && part(3) != ffi::Py_None() {
                Some(mapping(part(3), &mut slots)?)
            } else {
                None
            };
            if let Some(path) = Route::of(&route).settings().path.clone() {
                return crate::router::call_path(&path, part(1), &slots)
                    .and_then(|answer| awaiting(answer));
            }
            let slots = (length > 2).then_some(&slots);
            let progress = publish::enter(&route, part(1), slots, Patience::Wait);
            drop(options);
            progress
        }
    }

    /// The route of a channel.
    #[inline]
    unsafe fn route(&mut self, channel: Object) -> R<Ref> {
        // SAFETY: the item keeps the channel alive.
        unsafe {
            match self.known(channel) {
                Some(route) => Ok(route),
                None => Router::of(&self.router).route(channel),
            }
        }
    }

    /// The route of a channel that has one; most calls name one channel throughout, by the same object.
    ///
    /// # Safety
    /// `channel` stays alive for the call, which may run Python code.
    #[inline]
    pub(crate) unsafe fn known(&mut self, channel: Object) -> Option<Ref> {
        let router = Router::of(&self.router);
        if let Some((last, route, version)) = &self.last
            && last.as_ptr() == channel
            && *version == router.version()
        {
            return Some(route.clone());
        }
        // SAFETY: by contract.
        unsafe {
            let route = router.known(channel)?;
            let last = (Ref::borrow(channel), route.clone(), router.version());
            // What was there is dropped out here, where the collector no longer finds it.
            let old = self.last.replace(last);
            drop(old);
            Some(route)
        }
    }

    /// Keeps the error of one item; what is no `Exception` stops everything.
    #[cold]
    pub(crate) fn refused(&mut self, raised: Raised) -> R<()> {
        let exception = taken(raised);
        if !is_exception(&exception, &globals().exception) {
            return Err(raise_object(exception));
        }
        self.errors.push((self.results.len(), exception));
        self.results.push(Outcome::Object(Ref::none()));
        Ok(())
    }

    /// Keeps one error of several items.
    #[cold]
    pub(crate) fn fail(&mut self, items: usize, exception: &Ref) {
        for _ in 0..items {
            self.errors.push((self.results.len(), exception.clone()));
            self.results.push(Outcome::Object(Ref::none()));
        }
    }

    pub(crate) fn answer(&mut self) -> R<Ref> {
        let py = attached();
        let results = std::mem::replace(&mut self.results, Results::new(0, 0));
        let results = Bound::new(py, results)?;
        if self.errors.is_empty() {
            return Ok(Ref::from(results.into_any()));
        }
        let errors = PyDict::new(py);
        for (index, exception) in self.errors.drain(..) {
            errors.set_item(index, exception)?;
        }
        let detail = (results, errors).into_pyobject(py)?;
        let detail = Ref::from(detail.into_any());
        Err(Router::of(&self.router).error("many", &globals().empty, &detail))
    }
}

/// The options of one item, sorted into `slots`; the dict that keeps them alive.
pub(crate) unsafe fn mapping(options: Object, slots: &mut [Object; OPTION_COUNT]) -> R<Ref> {
    let names = &globals().publish_names[2..];
    let signature = Signature { function: "publish_many", names, positional: 0, required: 0 };
    // SAFETY: a copy is ours, and its values live as long as it.
    unsafe {
        let copy = Ref::steal(ffi::PyDict_New())?;
        if ffi::PyDict_Update(copy.as_ptr(), options) != 0 {
            return Err(Raised);
        }
        signature.keywords(slots, copy.as_ptr())?;
        Ok(copy)
    }
}

/// What a path answered, as what can be driven.
pub(crate) unsafe fn awaiting(awaitable: Ref) -> R<Progress> {
    // SAFETY: reading the type of a live object.
    unsafe {
        let slots = (*ffi::Py_TYPE(awaitable.as_ptr())).tp_as_async;
        let iterator = match slots.as_ref().and_then(|slots| slots.am_await) {
            Some(_) if ffi::PyCoro_CheckExact(awaitable.as_ptr()) != 0 => awaitable,
            Some(am_await) => Ref::steal(am_await(awaitable.as_ptr()))?,
            None => awaitable,
        };
        Ok(Progress::Waiting(iterator))
    }
}

/// Goes on with the item that waits.
pub(crate) fn drive(iterator: Ref, input: Option<Ref>) -> Driven {
    let value = input.unwrap_or_else(Ref::none);
    // SAFETY: both are live.
    unsafe { send(iterator, value.as_ptr()) }
}

pub(crate) fn of<'a>(object: Object) -> R<&'a mut Many> {
    // SAFETY: CPython checked the type of self; a step that is under way keeps others out by `running`.
    let many = unsafe { (*object.cast::<ManyObject>()).many.as_deref_mut() };
    match many {
        Some(many) if many.running => {
            Err(raise(&globals().value_error, "publish_many is already executing"))
        }
        Some(many) if !many.over => Ok(many),
        _ => Err(raise(&globals().runtime_error, "cannot reuse already awaited publish_many")),
    }
}

/// Runs one step with everybody else kept out; it is over unless it yielded.
pub(crate) fn step(object: Object, body: impl FnOnce(&mut Many) -> R<Step>) -> R<Step> {
    let many = of(object)?;
    many.begun = true;
    many.running = true;
    let answer = body(many);
    many.running = false;
    many.over = !matches!(answer, Ok(Step::Yield(_)));
    answer
}
