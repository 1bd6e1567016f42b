//! A publish that waits for room.
//!
//! It has its place among the waiters from the call on. Mailboxes know it by an unowned pointer, which its destructor
//! withdraws: an awaitable that is thrown away gives back all it had.

use std::collections::VecDeque;
use std::ptr;

use neuralcore_bus::WorkerId;
use neuralcore_bus::mailbox::Reserve;
use pyo3::ffi;

use crate::awaitable::Outcome;
use crate::globals::globals;
use crate::mailbox::Mailbox;
use crate::obj::{GilCell, R, Raised, Ref, raise_object, taken, unraisable};
use crate::parcel::{self, Parcel};
use crate::publish::{self, Progress};
use crate::route::Route;
use crate::ticket::Ticket;
use crate::waker::Waker;

pub(crate) enum Status {
    Pending(Parcel),
    /// Somebody is handing it over, or building its error, and may let other threads run meanwhile.
    Busy,
    Done(Outcome),
    Failed(Ref),
    /// Cancelled, or its error was raised.
    Over,
}

/// What a publish had when it began to wait.
pub(crate) struct Begun {
    pub(crate) reserved: Vec<usize>,
    pub(crate) next: usize,
    pub(crate) dropped: bool,
}

pub(crate) struct Waiting {
    pub(crate) route: Ref,
    pub(crate) targets: Vec<Ref>,
    pub(crate) begun: Begun,
    /// The mailbox and worker whose handler published.
    pub(crate) worker: Option<(usize, WorkerId)>,
    pub(crate) status: Status,
    pub(crate) waker: Option<Waker>,
    pub(crate) awaited: bool,
}

#[repr(C)]
pub(crate) struct WaitingObject {
    pub(crate) ob_base: ffi::PyObject,
    /// None once the collector has cleared it.
    pub(crate) waiting: Option<Waiting>,
}

impl Ticket {
    /// What it stands for; None if that was cleared.
    ///
    /// # Safety
    /// The ticket is among a mailbox's waiters, and no other borrow of the publish is changed meanwhile.
    pub(crate) unsafe fn as_waiting(&self) -> Option<&Waiting> {
        // SAFETY: by contract; a probe is never left waiting.
        unsafe { (*self.address().cast::<WaitingObject>()).waiting.as_ref() }
    }
}

/// Waits for one mailbox.
pub(crate) fn start(route: &Ref, targets: Vec<Ref>, parcel: Parcel) -> R<Progress> {
    let begun = Begun { reserved: Vec::new(), next: 0, dropped: false };
    resume(route, targets, parcel, begun)
}

/// Goes on where a publish met a full mailbox.
pub(crate) fn resume(route: &Ref, targets: Vec<Ref>, parcel: Parcel, begun: Begun) -> R<Progress> {
    let worker = targets.iter().enumerate().find_map(|(index, target)| {
        publish::publishing_worker(Mailbox::of(target)).map(|worker| (index, worker))
    });
    let waiting = Waiting {
        route: route.clone(),
        targets,
        begun,
        worker,
        status: Status::Pending(parcel),
        waker: None,
        awaited: false,
    };
    // SAFETY: the fresh object's only field is written before the collector may see it.
    let object = unsafe {
        let kind = globals().waiting_type.as_ptr().cast();
        let object = ffi::PyObject_GC_New::<WaitingObject>(kind);
        if object.is_null() {
            abandon(waiting);
            return Err(Raised);
        }
        ptr::write(&raw mut (*object).waiting, Some(waiting));
        ffi::PyObject_GC_Track(object.cast());
        Ref::steal(object.cast())?
    };
    advance(&object);
    match std::mem::replace(&mut of(&object).status, Status::Over) {
        Status::Failed(exception) => Err(raise_object(exception)),
        Status::Done(outcome) => Ok(Progress::Done(outcome)),
        pending => {
            of(&object).status = pending;
            Ok(Progress::Waiting(object))
        }
    }
}

#[allow(clippy::mut_from_ref)]
pub(crate) fn of(object: &Ref) -> &mut Waiting {
    // SAFETY: the object is a waiting publish; a cleared one has no references left that could get here.
    unsafe {
        let waiting = &mut (*object.as_ptr().cast::<WaitingObject>()).waiting;
        waiting.as_mut().expect("a waiting publish in use was not cleared")
    }
}

pub(crate) fn abandon(waiting: Waiting) {
    parcel::give_back(&waiting.targets, &waiting.begun.reserved);
}

/// Takes slots until one is missing; with all of them hands the message over.
pub(crate) fn advance(object: &Ref) {
    if given_up(object) {
        // SAFETY: the object is live.
        return unsafe { cancel(object.as_ptr()) };
    }
    let waiting = of(object);
    if !matches!(waiting.status, Status::Pending(_)) {
        return surrender(waiting);
    }
    while let Some(target) = waiting.targets.get(waiting.begun.next) {
        let core = &Mailbox::of(target).core;
        let ticket = Ticket::of(object.as_ptr());
        let worker = waiting.worker.filter(|(index, _)| *index == waiting.begun.next);
        let reserve = match worker {
            Some((_, worker)) => core.reserve_from(worker, ticket),
            None => core.reserve(ticket),
        };
        match reserve {
            Reserve::Waiting if worker.is_some() && starved(object) => {
                return fail(object, "deadlock");
            }
            Reserve::Waiting => return,
            Reserve::Granted => waiting.begun.reserved.push(waiting.begun.next),
            Reserve::DropNew(_) => waiting.begun.dropped = true,
            Reserve::Closed(_) => {}
            Reserve::Reject(_) => return fail(object, "full"),
            Reserve::Deadlock(_) => return fail(object, "deadlock"),
        }
        waiting.begun.next += 1;
    }
    if let Some(parcel) = begin_end(waiting) {
        let reserved = std::mem::take(&mut waiting.begun.reserved);
        let held = waiting.route.clone();
        let route = Route::of(&held);
        let outcome =
            parcel::hand_over(route, &waiting.targets, &reserved, waiting.begun.dropped, parcel);
        of(object).status = match outcome {
            Ok(outcome) => Status::Done(outcome),
            Err(raised) => Status::Failed(taken(raised)),
        };
        notify(object);
    }
}

/// Gives back the slots of a publish that ended meanwhile.
fn surrender(waiting: &mut Waiting) {
    let reserved = std::mem::take(&mut waiting.begun.reserved);
    parcel::give_back(&waiting.targets, &reserved);
}

/// Whether the handlers that wait here, this one among them, hold every slot themselves, so that none can come free.
pub(crate) fn starved(object: &Ref) -> bool {
    let waiting = of(object);
    let mailbox = Mailbox::of(&waiting.targets[waiting.begun.next]);
    let mut workers = Vec::new();
    mailbox.core.cancel(|ticket| {
        // SAFETY: a publish that waits is alive, and only read.
        let other = unsafe { ticket.as_waiting() };
        let here = other.and_then(|other| other.worker.filter(|(at, _)| *at == other.begun.next));
        workers.extend(here.map(|(_, worker)| worker));
        false
    });
    workers.sort_unstable();
    workers.dedup();
    let held: usize = workers.into_iter().map(|worker| mailbox.held_by(worker)).sum();
    let stats = mailbox.core.stats();
    let starved = held >= stats.capacity && held >= stats.in_flight && mailbox.core.depth() == 0;
    if starved {
        mailbox.core.cancel(|ticket| ticket.is(object.as_ptr()));
    }
    starved
}

/// Whether the publisher's task was cancelled and only has not heard of it yet.
pub(crate) fn given_up(object: &Ref) -> bool {
    let Some(waker) = of(object).waker.clone() else { return false };
    let cancelled = waker.future.method(&globals().cancelled, &[]).and_then(|it| it.truthy());
    cancelled.unwrap_or_else(|raised| {
        unraisable(raised, object.as_ptr());
        false
    })
}

/// Takes the parcel of a pending publish, whose end is now the caller's to bring about.
fn begin_end(waiting: &mut Waiting) -> Option<Parcel> {
    match std::mem::replace(&mut waiting.status, Status::Busy) {
        Status::Pending(parcel) => Some(parcel),
        other => {
            waiting.status = other;
            None
        }
    }
}

pub(crate) fn fail(object: &Ref, kind: &str) {
    let waiting = of(object);
    if let Some(parcel) = begin_end(waiting) {
        let reserved = std::mem::take(&mut waiting.begun.reserved);
        parcel::give_back(&waiting.targets, &reserved);
        let raised = parcel::refused(Route::of(&waiting.route), kind, parcel);
        of(object).status = Status::Failed(taken(raised));
        notify(object);
    }
}

pub(crate) fn notify(object: &Ref) {
    if let Some(waker) = of(object).waker.take() {
        waker.wake();
    }
}

/// Publishers to whom a slot was granted, until somebody has seen to them: granting can grant again, at any depth.
static GRANTED: GilCell<VecDeque<Ref>> = GilCell::new(VecDeque::new());
static GRANTING: GilCell<bool> = GilCell::new(false);

/// The publishes of these tickets have their slots: they go on.
#[inline]
pub(crate) fn granted(tickets: impl IntoIterator<Item = Ticket>) {
    Ticket::into_objects(tickets).into_iter().for_each(grant);
}

#[cold]
pub(crate) fn grant(object: Ref) {
    // SAFETY: the borrows end with their statements.
    unsafe {
        GRANTED.get().push_back(object);
        if std::mem::replace(GRANTING.get(), true) {
            return;
        }
        let _granting = Granting;
        while let Some(object) = GRANTED.get().pop_front() {
            proceed(&object);
        }
    }
}

/// Ends the granting, even by a panic.
struct Granting;

impl Drop for Granting {
    fn drop(&mut self) {
        // SAFETY: no Python code runs.
        unsafe { *GRANTING.get() = false };
    }
}

pub(crate) fn proceed(object: &Ref) {
    let waiting = of(object);
    waiting.begun.reserved.push(waiting.begun.next);
    waiting.begun.next += 1;
    match waiting.status {
        Status::Pending(_) => advance(object),
        // Cancelled between the grant and now: `cancel` could not give this slot back.
        _ => surrender(waiting),
    }
}

/// The publish has lost its place in line: it asks for one again.
pub(crate) fn again(object: Ref) {
    if matches!(of(&object).status, Status::Pending(_)) {
        advance(&object);
    }
}

/// The mailbox was closed: the publish goes on without it, unless the whole router is closed.
pub(crate) fn closed(object: Ref) {
    let waiting = of(&object);
    if !matches!(waiting.status, Status::Pending(_)) {
        return;
    }
    if Route::of(&waiting.route).router().is_closed() {
        return fail(&object, "closed");
    }
    waiting.begun.next += 1;
    advance(&object);
}

/// Gives back all that a publish which has not happened holds.
pub(crate) unsafe fn cancel(object: *mut ffi::PyObject) {
    // SAFETY: the object is live or in its destructor.
    let Some(waiting) = (unsafe { (*object.cast::<WaitingObject>()).waiting.as_mut() }) else {
        return;
    };
    if !matches!(waiting.status, Status::Pending(_)) {
        return;
    }
    let status = std::mem::replace(&mut waiting.status, Status::Over);
    if let Some(target) = waiting.targets.get(waiting.begun.next) {
        Mailbox::of(target).core.cancel(|ticket| ticket.is(object));
    }
    let reserved = std::mem::take(&mut waiting.begun.reserved);
    parcel::give_back(&waiting.targets, &reserved);
    drop(status);
}
