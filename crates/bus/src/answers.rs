//! What a mailbox answers: what became of an item, and whom the caller now has to tell.
//!
//! A `wake` names an idle worker to be scheduled; a `granted` ticket belongs to a publisher that now has a slot. Both
//! are handed out once: whoever gets one passes it on.

use crate::histogram::HistogramSnapshot;
use crate::workers::WorkerId;

/// The outcome of [`Mailbox::push`](crate::Mailbox::push).
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum Push<T> {
    /// It is queued.
    Queued(Option<WorkerId>),
    /// It is queued in the place of an older item.
    Replaced {
        /// The item that gave way.
        evicted: T,
        /// The worker to wake.
        wake: Option<WorkerId>,
    },
    /// There was no room, and the policy drops newcomers (or nothing could be evicted).
    Dropped(T),
    /// There was no room, and the policy refuses.
    Rejected(T),
    /// There was no room, and the policy is to wait: reserve a slot.
    Full(T),
    /// The mailbox is closed.
    Closed(T),
}

/// The outcome of [`Mailbox::reserve`](crate::Mailbox::reserve).
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum Reserve<W> {
    /// A slot is reserved.
    Granted,
    /// The ticket waits; it is answered as `granted` once it has a slot.
    Waiting,
    /// There is no room, and the policy drops newcomers (or nothing could be evicted).
    DropNew(W),
    /// There is no room, and the policy refuses.
    Reject(W),
    /// To wait would leave no worker to make room.
    Deadlock(W),
    /// The mailbox is closed.
    Closed(W),
}

/// The outcome of [`Mailbox::enter`](crate::Mailbox::enter).
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum Entered<T> {
    /// It is queued.
    Queued {
        /// The item that gave way to it.
        evicted: Option<T>,
        /// The worker to wake.
        wake: Option<WorkerId>,
    },
    /// The mailbox is closed; the slot is given back.
    Closed(T),
}

/// The outcome of [`Mailbox::delay`](crate::Mailbox::delay).
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum Delayed<T> {
    /// It waits for its time, or is queued if that has come.
    Held {
        /// The item that gave way to it.
        evicted: Option<T>,
        /// When to call `promote`, if that is now earlier than before.
        earliest_changed: Option<u64>,
        /// The worker to wake.
        wake: Option<WorkerId>,
    },
    /// The mailbox is closed; the slot is given back.
    Closed(T),
}

/// The outcome of [`Mailbox::ack`](crate::Mailbox::ack) and [`Mailbox::expire`](crate::Mailbox::expire).
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Acked<W> {
    /// The publisher that got the slot.
    pub granted: Option<W>,
    /// The worker to wake for a successor of the same key.
    pub wake: Option<WorkerId>,
}

/// The outcome of [`Mailbox::retry`](crate::Mailbox::retry).
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Retried {
    /// When to call `promote`, if that is now earlier than before.
    pub earliest_changed: Option<u64>,
    /// The worker to wake.
    pub wake: Option<WorkerId>,
}

/// The outcome of [`Mailbox::promote`](crate::Mailbox::promote).
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Promoted {
    /// When the next item is due.
    pub next_due: Option<u64>,
    /// The worker to wake.
    pub wake: Option<WorkerId>,
}

/// The outcome of [`Mailbox::take_relaxed`](crate::Mailbox::take_relaxed).
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Relaxed<T, W> {
    /// What was taken out, and its rank.
    pub item: Option<(i64, T)>,
    /// The publisher that got the slot.
    pub granted: Option<W>,
    /// The worker to wake for a successor of the same key.
    pub wake: Option<WorkerId>,
}

/// The outcome of [`Mailbox::clear`](crate::Mailbox::clear).
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Cleared<T, W> {
    /// What was taken out, most urgent first, with its rank.
    pub items: Vec<(i64, T)>,
    /// The publishers that got slots.
    pub granted: Vec<W>,
    /// The idle workers of a closed mailbox, which is now finished.
    pub workers: Vec<WorkerId>,
}

/// The outcome of [`Mailbox::close`](crate::Mailbox::close).
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Closed<W> {
    /// The publishers that waited and are refused.
    pub waiters: Vec<W>,
    /// The workers that were idle.
    pub workers: Vec<WorkerId>,
}

/// The figures of a mailbox at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailboxStats {
    /// How many slots there are.
    pub capacity: usize,
    /// Ready to be taken, or not yet found to have a busy key.
    pub queued: usize,
    /// Found to have a busy key.
    pub parked: usize,
    /// Waiting for their time.
    pub delayed: usize,
    /// Taken and not settled.
    pub in_flight: usize,
    /// Publishers that wait for a slot.
    pub waiting: usize,
    /// Items taken.
    pub delivered: u64,
    /// Items settled as done.
    pub acked: u64,
    /// Items given back for another attempt.
    pub retried: u64,
    /// Items given back untouched.
    pub released: u64,
    /// Items an overflow policy dropped or evicted.
    pub dropped: u64,
    /// Items whose expiry passed before a handler got them.
    pub expired: u64,
    /// Sampled time from publish to handler.
    pub wait: HistogramSnapshot,
    /// Sampled time of the handler.
    pub handle: HistogramSnapshot,
}
