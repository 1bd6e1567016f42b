//! Real threads at full speed: what goes in comes out, is dropped by policy, or is still there.

#![cfg(not(loom))]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use neuralcore_bus::mailbox::*;

const PUBLISHERS: u64 = 4;
const WORKERS: usize = 3;
const EACH: u64 = if cfg!(debug_assertions) { 5_000 } else { 50_000 };
const KEYS: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Debug)]
struct Item {
    id: u64,
    key: Option<&'static str>,
}

impl Keyed for Item {
    fn key(&self) -> Option<&str> {
        self.key
    }
}

/// Remembers that it was given until somebody has waited for it.
#[derive(Debug, Default)]
struct Signal(Mutex<bool>, Condvar);

impl Signal {
    fn notify(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_one();
    }

    fn wait(&self) {
        let mut given = self.1.wait_while(self.0.lock().unwrap(), |given| !*given).unwrap();
        *given = false;
    }
}

type Ticket = Arc<Signal>;

struct Bus {
    mailbox: Mailbox<Item, Ticket>,
    workers: [Signal; WORKERS],
    now_ns: AtomicU64,
    key_taken: [AtomicBool; KEYS.len()],
    handled: Mutex<Vec<u64>>,
    dropped: Mutex<Vec<u64>>,
}

impl Bus {
    fn new(capacity: usize, overflow: Overflow) -> Self {
        Self {
            mailbox: Mailbox::new(MailboxConfig { capacity, overflow, hold_keys: true }),
            workers: Default::default(),
            now_ns: AtomicU64::new(0),
            key_taken: Default::default(),
            handled: Mutex::default(),
            dropped: Mutex::default(),
        }
    }

    fn wake(&self, worker: Option<WorkerId>) {
        if let Some(worker) = worker {
            self.workers[worker as usize].notify();
        }
    }

    fn lost(&self, item: Item) {
        self.dropped.lock().unwrap().push(item.id);
    }

    fn publish(&self, item: Item) {
        let rank = (item.id % 3) as i64 * 50;
        match self.mailbox.push(rank, item) {
            Push::Queued(wake) => self.wake(wake),
            Push::Replaced { evicted, wake } => {
                self.wake(wake);
                self.lost(evicted);
            }
            Push::Dropped(item) | Push::Rejected(item) => self.lost(item),
            Push::Full(item) => self.wait_and_enter(rank, item),
            Push::Closed(item) => panic!("closed too early for {item:?}"),
        }
    }

    /// Every eighth publisher loses patience.
    fn wait_and_enter(&self, rank: i64, item: Item) {
        let ticket = Ticket::default();
        match self.mailbox.reserve(ticket.clone()) {
            Reserve::Granted => {}
            Reserve::Waiting if item.id.is_multiple_of(8) => {
                if self.mailbox.cancel(|waiting| Arc::ptr_eq(waiting, &ticket)) {
                    return self.lost(item);
                }
                self.granted(self.mailbox.unreserve());
                return self.lost(item);
            }
            Reserve::Waiting => ticket.wait(),
            other => panic!("{other:?}"),
        }
        match self.mailbox.enter(rank, item) {
            Entered::Queued { evicted: None, wake } => self.wake(wake),
            other => panic!("{other:?}"),
        }
    }

    fn granted(&self, ticket: Option<Ticket>) {
        ticket.into_iter().for_each(|ticket| ticket.notify());
    }

    fn work(&self, worker: WorkerId) {
        let mut turn = 0;
        loop {
            let mut next = self.mailbox.take();
            while let Some((rank, item)) = next {
                turn += 1;
                next = self.handle(worker, turn, rank, item);
            }
            if self.mailbox.idle(worker) {
                // Nobody else may be left to see that their time has come.
                self.wake(self.mailbox.promote(u64::MAX).wake);
                self.workers[worker as usize].wait();
            } else if self.mailbox.finished() {
                break;
            }
        }
        self.wake(self.mailbox.leave(worker));
    }

    fn handle(&self, worker: WorkerId, turn: u64, rank: i64, item: Item) -> Option<(i64, Item)> {
        let key = item.key.map(|key| KEYS.iter().position(|other| *other == key).unwrap());
        let taken =
            |taken| key.is_some_and(|key| self.key_taken[key].swap(taken, Ordering::SeqCst));
        assert!(!taken(true), "the key of {item:?} is in flight twice");
        if turn.is_multiple_of(5) {
            self.wake(self.mailbox.suspended(worker));
            thread::yield_now();
            self.mailbox.resumed(worker);
        }
        assert!(key.is_none() || taken(false));
        match turn % 7 {
            0 => {
                self.wake(self.mailbox.release(rank, item));
                None
            }
            1 => {
                let now_ns = self.now_ns.fetch_add(1, Ordering::SeqCst);
                let Retried { wake, .. } = self.mailbox.retry(rank, item, now_ns + 2, now_ns);
                self.wake(wake);
                self.wake(self.mailbox.promote(now_ns).wake);
                None
            }
            2 => {
                self.handled.lock().unwrap().push(item.id);
                let Acked { granted, wake } = self.mailbox.ack(item.key);
                self.granted(granted);
                self.wake(wake);
                None
            }
            _ => {
                self.handled.lock().unwrap().push(item.id);
                let (granted, next) = self.mailbox.settle_and_take(item.key);
                self.granted(granted);
                next
            }
        }
    }

    fn close(&self) {
        let Closed { waiters, workers } = self.mailbox.close();
        assert!(waiters.is_empty(), "all publishers are through");
        workers.into_iter().for_each(|worker| self.wake(Some(worker)));
    }
}

fn hammer(capacity: usize, overflow: Overflow) {
    let bus = Bus::new(capacity, overflow);
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            let worker = bus.mailbox.join();
            let bus = &bus;
            scope.spawn(move || bus.work(worker));
        }
        let publish = |publisher| {
            for n in 0..EACH {
                let id = publisher * EACH + n;
                let key = KEYS.get(id as usize % 9).copied();
                bus.publish(Item { id, key });
            }
        };
        thread::scope(|scope| {
            for publisher in 0..PUBLISHERS {
                scope.spawn(move || publish(publisher));
            }
        });
        bus.close();
    });
    check(&bus, overflow);
}

fn check(bus: &Bus, overflow: Overflow) {
    let (handled, dropped) = (bus.handled.lock().unwrap(), bus.dropped.lock().unwrap());
    let all: HashSet<_> = handled.iter().chain(dropped.iter()).collect();
    assert_eq!(all.len() as u64, PUBLISHERS * EACH, "something is lost");
    assert_eq!(handled.len() + dropped.len(), all.len(), "something is doubled");
    let stats = bus.mailbox.stats();
    assert_eq!(stats.acked as usize, handled.len());
    assert_eq!(stats.delivered, stats.acked + stats.retried + stats.released);
    assert_eq!((bus.mailbox.depth(), stats.in_flight, stats.waiting), (0, 0, 0));
    if matches!(overflow, Overflow::DropNew | Overflow::DropOld) {
        assert_eq!(stats.dropped as usize, dropped.len());
    }
    assert_eq!(bus.mailbox.workers(), 0);
}

#[test]
fn publishers_wait_for_room() {
    hammer(16, Overflow::Block);
}

#[test]
fn newcomers_are_dropped_under_load() {
    hammer(16, Overflow::DropNew);
}

#[test]
fn the_old_is_dropped_under_load() {
    hammer(16, Overflow::DropOld);
}

#[test]
fn publishers_are_refused_under_load() {
    hammer(4, Overflow::Reject);
}

#[test]
fn without_a_limit_nothing_is_dropped() {
    hammer(usize::MAX, Overflow::Reject);
}
