//! A mailbox without its lock: slots, order, keys, delays and workers, each step of which is one method.

mod control;
mod publish;
mod settle;
mod slots;
mod workers;

use std::collections::VecDeque;

use crate::delayed::Delayed as Delays;
use crate::keys::Keys;
use crate::mailbox::{Keyed, MailboxConfig, Overflow};
use crate::queue::PriorityQueue;
use crate::workers::{WorkerId, Workers};

/// An item and where it stands among its equals.
///
/// The item comes first in memory, so that to copy it out of a copied entry reads what was written whole: a load that
/// spans two stores waits for both.
#[derive(Debug)]
#[repr(C)]
struct Entry<T> {
    item: T,
    position: i64,
}

/// A publisher that waits for a slot; `worker` if it does so inside a handler of this same mailbox.
#[derive(Debug)]
struct Waiter<W> {
    ticket: W,
    worker: Option<WorkerId>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    delivered: u64,
    acked: u64,
    retried: u64,
    released: u64,
    dropped: u64,
    expired: u64,
}

/// While publishers wait, `used >= capacity`: whoever frees a slot grants it.
#[derive(Debug)]
pub(crate) struct State<T, W> {
    /// Slots taken: queued, parked, delayed, in flight or reserved.
    used: usize,
    capacity: usize,
    reserved: usize,
    in_flight: usize,
    overflow: Overflow,
    hold_keys: bool,
    closed: bool,
    back: i64,
    front: i64,
    counts: Counts,
    workers: Workers,
    /// None until the first key is used.
    keys: Option<Box<Keys<T>>>,
    waiters: VecDeque<Waiter<W>>,
    delayed: Delays<T>,
    /// By the wall clock.
    held: Delays<T>,
    queue: PriorityQueue<Entry<T>>,
}

impl<T: Keyed, W> State<T, W> {
    pub(crate) fn new(config: MailboxConfig) -> Self {
        Self {
            used: 0,
            capacity: config.capacity,
            reserved: 0,
            in_flight: 0,
            overflow: config.overflow,
            hold_keys: config.hold_keys,
            closed: false,
            back: 0,
            front: 0,
            counts: Counts::default(),
            workers: Workers::new(),
            keys: None,
            waiters: VecDeque::new(),
            delayed: Delays::new(),
            held: Delays::new(),
            queue: PriorityQueue::new(),
        }
    }
}
