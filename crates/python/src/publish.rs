//! From a publish to the mailboxes.

use neuralcore_bus::Clock;
use neuralcore_bus::mailbox::{Delayed, Entered, Push, Reserve};
use pyo3::ffi;

use crate::args::{OPTION_COUNT, Object, Options};
use crate::awaitable::{Outcome, done};
use crate::entry::Entry;
use crate::mailbox::{Mailbox, Ticket};
use crate::message;
use crate::obj::{R, Raised, Ref};
use crate::pump;
use crate::route::{self, Route};
use crate::waiting;

/// One publish in this many is timed.
const SAMPLE: u64 = 64;

/// A message on its way into its mailboxes.
pub(crate) struct Parcel {
    pub(crate) entry: Entry,
    pub(crate) rank: i64,
    pub(crate) when: When,
    pub(crate) mandatory: bool,
}

/// When it may be handled.
#[derive(Clone, Copy)]
pub(crate) enum When {
    Now,
    /// Monotonic.
    After(u64),
    /// Wall clock.
    NotBefore(i64),
}

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
    let yields = Route::of(route).router().tick();
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

#[cold]
fn timed(
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
fn dispatch(
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
unsafe fn plain(route: &Route, options: Option<&[Object; OPTION_COUNT]>) -> R<Option<i64>> {
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
unsafe fn single(
    route_ref: &Ref,
    target: *mut ffi::PyObject,
    parcel: Parcel,
    outcome: Outcome,
    patience: Patience,
) -> R<Progress> {
    let Parcel { entry, rank, mandatory, .. } = parcel;
    // SAFETY: by contract; what runs Python code below holds its own reference.
    let mailbox: &Mailbox = unsafe { route::mailbox(target) };
    match mailbox.core.push(rank, entry) {
        Push::Queued(wake) => {
            Route::of(route_ref).count(|counters| counters.published += 1);
            if let Some(worker) = wake {
                // SAFETY: the mailbox is live, and held while it wakes.
                let held = unsafe { Ref::borrow(target) };
                Mailbox::of(&held).wake(worker);
            }
            Ok(Progress::Done(outcome))
        }
        other => {
            // SAFETY: the mailbox is live, and held from here on.
            let mailbox = unsafe { Ref::borrow(target) };
            crowded(route_ref, mailbox, (rank, mandatory), other, outcome, patience)
        }
    }
}

/// What is left of [`single`] when there was no room.
#[cold]
fn crowded(
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
fn general(route_ref: &Ref, payload: Ref, options: Options, patience: Patience) -> R<Progress> {
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
    let mut reserved = Vec::with_capacity(targets.len());
    let mut dropped = false;
    for (index, target) in targets.iter().enumerate() {
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

/// Builds the entry from the options and the route's defaults.
fn parcel(route_ref: &Ref, payload: Ref, options: Options) -> R<Parcel> {
    let route = Route::of(route_ref);
    let router = route.router();
    // SAFETY: copied out at once.
    let (rank, ttl_ns) = unsafe {
        let settings = route.settings();
        (options.priority.unwrap_or(settings.priority), options.ttl_ns.or(settings.ttl_ns))
    };
    if let Some(key) = &options.idempotency_key {
        route.count(|counters| counters.refused += 1);
        return Err(router.error("idempotency", route.channel(), key));
    }
    if options.priority.is_some() && !router.admits(rank) {
        route.count(|counters| counters.refused += 1);
        // SAFETY: answers a new reference or null.
        let number = unsafe { Ref::steal(ffi::PyLong_FromLongLong(rank))? };
        return Err(router.error("priority", route.channel(), &number));
    }
    let mut extras = options.extras;
    if let Some(ttl_ns) = ttl_ns {
        let expires = router.clock.time_ns().saturating_add(ttl_ns);
        extras.get_or_insert_default().expires_at_ns = Some(expires);
    }
    let when = when(&router.clock, options.delay_ns, options.not_before_ns);
    if let Some(due_ns) = when.monotonic(&router.clock) {
        extras.get_or_insert_default().due_ns = due_ns;
    }
    let id = router.ids.next();
    let entry = Entry {
        payload,
        route: Some(route_ref.clone()),
        extras,
        seq: id.count,
        stamp_ns: router.stamp(id.count),
    };
    Ok(Parcel { entry, rank, when, mandatory: options.mandatory })
}

/// Enters a parcel into the mailboxes that have a slot for it.
pub(crate) fn hand_over(
    route: &Route,
    targets: &[Ref],
    reserved: &[usize],
    dropped: bool,
    parcel: Parcel,
) -> R<Outcome> {
    let Some((&last, others)) = reserved.split_last() else {
        if !dropped {
            return match unrouted(route, parcel)? {
                Progress::Done(outcome) => Ok(outcome),
                Progress::Waiting(_) => unreachable!("nobody to wait for"),
            };
        }
        route.count(|counters| counters.dropped += 1);
        return Ok(Outcome::Object(Ref::none()));
    };
    let outcome = identified(route, &parcel.entry);
    let mut raised = Ok(());
    for &index in others {
        let copy = parcel.entry.copied();
        raised = raised.and(put(&targets[index], parcel.rank, copy, parcel.when));
    }
    raised = raised.and(put(&targets[last], parcel.rank, parcel.entry, parcel.when));
    route.count(|counters| counters.published += 1);
    raised.map(|()| outcome)
}

/// Uses one reserved slot.
fn put(target: &Ref, rank: i64, entry: Entry, when: When) -> R<()> {
    let mailbox = Mailbox::of(target);
    let (core, clock) = (&mailbox.core, &mailbox.clock);
    let held = match when {
        When::Now => {
            match core.enter(rank, entry) {
                Entered::Queued { evicted, wake } => {
                    drop(evicted);
                    mailbox.wake_some(wake);
                }
                Entered::Closed(entry) => drop(entry),
            }
            return Ok(());
        }
        When::After(due_ns) => core.delay(rank, entry, due_ns, clock.monotonic_ns()),
        When::NotBefore(at_ns) => {
            core.delay_until(rank, entry, at_ns.max(0) as u64, clock.time_ns().max(0) as u64)
        }
    };
    match held {
        Delayed::Held { evicted, wake, .. } => {
            drop(evicted);
            mailbox.wake_some(wake);
            let due_ns = match when {
                When::NotBefore(at_ns) => Some(mailbox.wall_check(at_ns.max(0) as u64)),
                _ => when.monotonic(clock),
            };
            mailbox.announce(target, due_ns)
        }
        Delayed::Closed(entry) => {
            drop(entry);
            Ok(())
        }
    }
}

fn when(clock: &Clock, delay_ns: Option<u64>, not_before_ns: Option<i64>) -> When {
    match (delay_ns, not_before_ns) {
        (None, None) => When::Now,
        (Some(delay), None) => When::After(clock.monotonic_ns().saturating_add(delay)),
        (delay, Some(at)) => {
            let earliest = clock.time_ns().saturating_add_unsigned(delay.unwrap_or(0));
            When::NotBefore(earliest.max(at))
        }
    }
}

impl When {
    /// The monotonic time as far as it can be foretold; None if that has come.
    fn monotonic(self, clock: &Clock) -> Option<u64> {
        match self {
            When::Now => None,
            When::After(due_ns) => (due_ns > clock.monotonic_ns()).then_some(due_ns),
            When::NotBefore(at_ns) => {
                let left = at_ns.saturating_sub(clock.time_ns());
                (left > 0).then(|| clock.monotonic_ns().saturating_add(left as u64))
            }
        }
    }
}

pub(crate) fn give_back(targets: &[Ref], reserved: &[usize]) {
    for &index in reserved {
        let granted = Mailbox::of(&targets[index]).core.unreserve();
        waiting::granted(granted);
    }
}

/// The message is gone: nobody listens.
fn unrouted(route: &Route, parcel: Parcel) -> R<Progress> {
    if parcel.mandatory {
        return Err(refused(route, "no_subscribers", parcel));
    }
    route.count(|counters| counters.unrouted += 1);
    Ok(Progress::Done(identified(route, &parcel.entry)))
}

/// Sets the exception for a publish that is refused.
pub(crate) fn refused(route: &Route, kind: &str, parcel: Parcel) -> Raised {
    route.count(|counters| counters.refused += 1);
    match message::from_entry(parcel.entry, parcel.rank, None) {
        Ok(message) => route.router().error(kind, route.channel(), &message),
        Err(raised) => raised,
    }
}

pub(crate) fn identified(route: &Route, entry: &Entry) -> Outcome {
    let given = entry.extras.as_ref().and_then(|extras| extras.message_id.clone());
    match given {
        Some(id) => Outcome::Object(id),
        None => Outcome::Id { prefix: route.router().ids.prefix(), seq: entry.seq },
    }
}

/// The worker of `mailbox` whose handler is publishing, if any.
pub(crate) fn publishing_worker(mailbox: &Mailbox) -> Option<neuralcore_bus::WorkerId> {
    pump::driving().and_then(|pump| pump.worker_of(mailbox))
}
