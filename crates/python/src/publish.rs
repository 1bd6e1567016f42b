//! From a publish to the mailboxes.

use neuralcore_bus::mailbox::{Push, Reserve};
use pyo3::ffi;

use crate::args::{OPTION_COUNT, Object, Options};
use crate::awaitable::{Outcome, done};
use crate::entry::Entry;
use crate::mailbox::Mailbox;
use crate::obj::{R, Raised, Ref};
use crate::parcel::{Parcel, When, give_back, hand_over, identified, parcel, refused, unrouted};
use crate::pump;
use crate::route::{self, Route};
use crate::ticket::Ticket;
use crate::waiting;

/// One publish in this many is timed.
const SAMPLE: u64 = 64;

/// How far a publish came.
pub(crate) enum Progress {
    Done(Outcome),
    Waiting(Ref),
}

/// Whether a publish may wait for room.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    Wait,
    Refuse,
}

/// `publish`: the awaitable.
#[inline]
pub(crate) fn awaited(
    route: &Ref,
    payload: Object,
    options: Option<&[Object; OPTION_COUNT]>,
) -> R<Ref> {
    let yields = Route::of(route).router().tick(1);
    match enter(route, payload, options, Patience::Wait)? {
        Progress::Done(outcome) => done(outcome, yields),
        Progress::Waiting(waiting) => Ok(waiting),
    }
}

/// `publish_nowait`: the id, or None.
pub(crate) fn immediate(
    route: &Ref,
    payload: Object,
    options: Option<&[Object; OPTION_COUNT]>,
) -> R<Outcome> {
    match enter(route, payload, options, Patience::Refuse)? {
        Progress::Done(outcome) => Ok(outcome),
        Progress::Waiting(_) => unreachable!("a publish without patience never waits"),
    }
}

/// Enters one message, or begins to wait.
#[inline]
pub(crate) fn enter(
    route_ref: &Ref,
    payload: Object,
    options: Option<&[Object; OPTION_COUNT]>,
    patience: Patience,
) -> R<Progress> {
    let route = Route::of(route_ref);
    let mut sampled = 0;
    route.count(|counters| sampled = counters.published);
    if sampled.is_multiple_of(SAMPLE) {
        return timed(route_ref, payload, options, patience);
    }
    dispatch(route_ref, payload, options, patience)
}

/// Whether one of the next `count` messages of a route is one that is timed.
pub(crate) fn sampled_among(route: &Route, count: usize) -> bool {
    let mut published = 0;
    route.count(|counters| published = counters.published);
    published.next_multiple_of(SAMPLE) - published < count as u64
}

#[cold]
pub(crate) fn timed(
    route_ref: &Ref,
    payload: Object,
    options: Option<&[Object; OPTION_COUNT]>,
    patience: Patience,
) -> R<Progress> {
    let clock = &Route::of(route_ref).router().clock;
    let begun = clock.monotonic_ns();
    let progress = dispatch(route_ref, payload, options, patience)?;
    if let Progress::Done(_) = progress {
        let elapsed = clock.monotonic_ns().saturating_sub(begun);
        Route::of(route_ref).latency.record(elapsed);
    }
    Ok(progress)
}

#[inline]
pub(crate) fn dispatch(
    route_ref: &Ref,
    payload: Object,
    options: Option<&[Object; OPTION_COUNT]>,
    patience: Patience,
) -> R<Progress> {
    let route = Route::of(route_ref);
    // SAFETY: the payload is live. The borrows of settings and targets end before Python code can run.
    unsafe {
        if let Some(rank) = plain(route, options)?
            && let &[target] = route.targets()?
        {
            let router = route.router();
            let id = router.ids.next();
            let entry = Entry {
                payload: Ref::borrow(payload),
                route: Some(route_ref.clone()),
                extras: None,
                seq: id.count,
                stamp_ns: router.stamp(id.count),
            };
            let parcel = Parcel { entry, rank, when: When::Now, mandatory: false };
            let outcome = Outcome::Id { prefix: id.prefix, seq: id.count };
            return single(route_ref, target, parcel, outcome, patience);
        }
        let options =
            options.map_or_else(|| Ok(Options::default()), |slots| Options::read(slots))?;
        general(route_ref, Ref::borrow(payload), options, patience)
    }
}

/// The rank of a message that needs no more than one, and no clock.
#[inline]
pub(crate) unsafe fn plain(
    route: &Route,
    options: Option<&[Object; OPTION_COUNT]>,
) -> R<Option<i64>> {
    // SAFETY: copied out at once.
    let (default, ttl_ns) = unsafe {
        let settings = route.settings();
        (settings.priority, settings.ttl_ns)
    };
    if ttl_ns.is_some() {
        return Ok(None);
    }
    let Some([priority, others @ ..]) = options else { return Ok(Some(default)) };
    if priority.is_null() || others.iter().any(|option| !option.is_null()) {
        return Ok(None);
    }
    // SAFETY: a given slot is live.
    let rank = unsafe { ffi::PyLong_AsLongLong(*priority) };
    // Errors, and ranks that need a second look, take the long way.
    if !(0..=255).contains(&rank) {
        // SAFETY: forgets an error that the long way meets again.
        unsafe { ffi::PyErr_Clear() };
        return Ok(None);
    }
    Ok(Some(rank))
}

/// The hot path: one mailbox, at once.
///
/// # Safety
/// `target` is a live mailbox of the route's current targets.
#[inline]
pub(crate) unsafe fn single(
    route_ref: &Ref,
    target: *mut ffi::PyObject,
    parcel: Parcel,
    outcome: Outcome,
    patience: Patience,
) -> R<Progress> {
    let Parcel { entry, rank, mandatory, .. } = parcel;
    // SAFETY: by contract; what runs Python code below holds its own reference.
    let mailbox: &Mailbox = unsafe { route::mailbox(target) };
    if mailbox.is_deserted() {
        drop(entry);
        return Err(deserted(Route::of(route_ref)));
    }
    match mailbox.core.push(rank, entry) {
        Push::Queued(None) => {
            Route::of(route_ref).count(|counters| counters.published += 1);
            Ok(Progress::Done(outcome))
        }
        Push::Queued(Some(worker)) => {
            // SAFETY: the mailbox is live, and held while it wakes.
            let held = unsafe { Ref::borrow(target) };
            Mailbox::of(&held).wake(worker);
            if Mailbox::of(&held).is_deserted() {
                Mailbox::of(&held).take_back(1);
                return Err(deserted(Route::of(route_ref)));
            }
            Route::of(route_ref).count(|counters| counters.published += 1);
            Ok(Progress::Done(outcome))
        }
        other => {
            // SAFETY: the mailbox is live, and held from here on.
            let mailbox = unsafe { Ref::borrow(target) };
            crowded(route_ref, mailbox, (rank, mandatory), other, outcome, patience)
        }
    }
}

/// Sets the exception for a publish to workers whose loops are closed.
#[cold]
pub(crate) fn deserted(route: &Route) -> Raised {
    route.count(|counters| counters.refused += 1);
    route.router().error("loop_closed", route.channel(), &Ref::none())
}

/// What is left of [`single`] when there was no room.
#[cold]
pub(crate) fn crowded(
    route_ref: &Ref,
    mailbox: Ref,
    (rank, mandatory): (i64, bool),
    push: Push<Entry>,
    outcome: Outcome,
    patience: Patience,
) -> R<Progress> {
    let route = Route::of(route_ref);
    let parcel = |entry| Parcel { entry, rank, when: When::Now, mandatory };
    match push {
        Push::Queued(_) => unreachable!("there was room"),
        Push::Replaced { evicted, wake } => {
            route.count(|counters| counters.published += 1);
            drop(evicted);
            Mailbox::of(&mailbox).wake_some(wake);
            Ok(Progress::Done(outcome))
        }
        Push::Dropped(entry) => {
            route.count(|counters| counters.dropped += 1);
            drop(entry);
            Ok(Progress::Done(Outcome::Object(Ref::none())))
        }
        Push::Rejected(entry) => Err(refused(route, "full", parcel(entry))),
        Push::Full(entry) if patience == Patience::Refuse => {
            Err(refused(route, "full", parcel(entry)))
        }
        Push::Full(entry) => waiting::start(route_ref, vec![mailbox], parcel(entry)),
        Push::Closed(entry) => unrouted(route, parcel(entry)),
    }
}

/// Any number of mailboxes, any options.
pub(crate) fn general(
    route_ref: &Ref,
    payload: Ref,
    options: Options,
    patience: Patience,
) -> R<Progress> {
    let route = Route::of(route_ref);
    let parcel = parcel(route_ref, payload, options)?;
    // SAFETY: the mailboxes are held before anything else happens.
    let targets = unsafe {
        let targets = route.targets()?;
        if let (&[target], When::Now) = (targets, parcel.when) {
            let outcome = identified(route, &parcel.entry);
            return single(route_ref, target, parcel, outcome, patience);
        }
        route::held(targets)
    };
    if targets.is_empty() {
        return unrouted(route, parcel);
    }
    if targets.iter().all(|target| Mailbox::of(target).is_deserted()) {
        drop(parcel);
        return Err(deserted(route));
    }
    let mut reserved = Vec::with_capacity(targets.len());
    let mut dropped = false;
    for (index, target) in targets.iter().enumerate() {
        if Mailbox::of(target).is_deserted() {
            continue;
        }
        let core = &Mailbox::of(target).core;
        match core.reserve(Ticket::PROBE) {
            Reserve::Granted => reserved.push(index),
            Reserve::DropNew(_) => dropped = true,
            Reserve::Closed(_) => {}
            Reserve::Reject(_) | Reserve::Deadlock(_) => {
                give_back(&targets, &reserved);
                return Err(refused(route, "full", parcel));
            }
            Reserve::Waiting => {
                core.cancel(|ticket| ticket.is_probe());
                if patience == Patience::Refuse {
                    give_back(&targets, &reserved);
                    return Err(refused(route, "full", parcel));
                }
                let begun = waiting::Begun { reserved, next: index, dropped };
                return waiting::resume(route_ref, targets, parcel, begun);
            }
        }
    }
    hand_over(route, &targets, &reserved, dropped, parcel).map(Progress::Done)
}

/// The worker of `mailbox` whose handler is publishing, if any.
pub(crate) fn publishing_worker(mailbox: &Mailbox) -> Option<neuralcore_bus::WorkerId> {
    pump::driving().and_then(|pump| pump.worker_of(mailbox))
}
