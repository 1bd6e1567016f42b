//! A message on its way into its mailboxes: what it carries, when it may enter, what it leads to.

use neuralcore_bus::Clock;
use neuralcore_bus::mailbox::{Delayed, Entered};
use pyo3::ffi;

use crate::args::Options;
use crate::awaitable::Outcome;
use crate::entry::Entry;
use crate::mailbox::Mailbox;
use crate::message;
use crate::obj::{R, Raised, Ref};
use crate::publish::{self, Progress};
use crate::route::Route;
use crate::waiting;

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

/// Builds the entry from the options and the route's defaults.
pub(crate) fn parcel(route_ref: &Ref, payload: Ref, options: Options) -> R<Parcel> {
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
    for &index in others {
        put(&targets[index], parcel.rank, parcel.entry.copied(), parcel.when);
    }
    put(&targets[last], parcel.rank, parcel.entry, parcel.when);
    if reserved.iter().all(|&index| Mailbox::of(&targets[index]).is_deserted()) {
        return Err(publish::deserted(route));
    }
    route.count(|counters| counters.published += 1);
    Ok(outcome)
}

/// Uses one reserved slot.
pub(crate) fn put(target: &Ref, rank: i64, entry: Entry, when: When) {
    let mailbox = Mailbox::of(target);
    let (core, clock) = (&mailbox.core, &mailbox.clock);
    let held = match when {
        When::Now => {
            match core.enter(rank, entry) {
                Entered::Queued { evicted, wake } => {
                    drop(evicted);
                    mailbox.wake_some(wake);
                    if wake.is_some() && mailbox.is_deserted() {
                        mailbox.take_back(1);
                    }
                }
                Entered::Closed(entry) => drop(entry),
            }
            return;
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
            mailbox.announce(target, due_ns);
        }
        Delayed::Closed(entry) => drop(entry),
    }
}

pub(crate) fn when(clock: &Clock, delay_ns: Option<u64>, not_before_ns: Option<i64>) -> When {
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
pub(crate) fn unrouted(route: &Route, parcel: Parcel) -> R<Progress> {
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
