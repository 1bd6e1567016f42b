//! Every interleaving of a few threads: no wake-up is lost, no slot leaks, no item is lost or doubled.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --profile model --test loom`

#![cfg(loom)]

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use neuralcore_bus::mailbox::*;

struct Item(Option<&'static str>);

impl Keyed for Item {
    fn key(&self) -> Option<&str> {
        self.0
    }
}

/// Remembers that it was given until somebody has waited for it.
struct Signal(Mutex<bool>, Condvar);

impl Signal {
    fn new() -> Self {
        Self(Mutex::new(false), Condvar::new())
    }

    fn notify(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_one();
    }

    fn wait(&self) {
        let mut given = self.0.lock().unwrap();
        while !*given {
            given = self.1.wait(given).unwrap();
        }
        *given = false;
    }
}

/// A mailbox with workers that are threads, and publishers whose ticket is their own place to wait.
struct Bus {
    mailbox: Mailbox<Item, Arc<Signal>>,
    workers: Vec<Signal>,
    handled: AtomicUsize,
    /// Given by the second handler to the first.
    met: Signal,
    /// Given once two are handled: to close wakes everybody, and would hide that a wake-up was lost.
    both: Signal,
}

fn model(
    capacity: usize,
    overflow: Overflow,
    workers: usize,
    test: impl Fn(Arc<Bus>) + Send + Sync + 'static,
) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let config = MailboxConfig { capacity, overflow, hold_keys: true };
        let bus = Bus {
            mailbox: Mailbox::new(config),
            workers: (0..workers).map(|_| Signal::new()).collect(),
            handled: AtomicUsize::new(0),
            met: Signal::new(),
            both: Signal::new(),
        };
        test(Arc::new(bus));
    });
}

impl Bus {
    fn wake(&self, worker: Option<WorkerId>) {
        if let Some(worker) = worker {
            self.workers[worker as usize].notify();
        }
    }

    fn push(&self, key: Option<&'static str>) -> Push<Item> {
        let pushed = self.mailbox.push(0, Item(key));
        if let Push::Queued(wake) | Push::Replaced { wake, .. } = &pushed {
            self.wake(*wake);
        }
        pushed
    }

    fn close(&self) {
        let closed = self.mailbox.close();
        closed.workers.into_iter().for_each(|worker| self.wake(Some(worker)));
        closed.waiters.into_iter().for_each(|waiter| waiter.notify());
    }

    fn ack(&self, item: &Item) -> usize {
        let handled = self.handled.fetch_add(1, Ordering::SeqCst);
        if handled == 1 {
            self.both.notify();
        }
        let Acked { granted, wake } = self.mailbox.ack(item.0);
        self.wake(wake);
        granted.into_iter().for_each(|waiter| waiter.notify());
        handled
    }

    /// Handles what there is until the mailbox is closed and empty.
    fn work(&self, worker: WorkerId, handle: fn(&Self, WorkerId, &Item)) {
        loop {
            while let Some((_, item)) = self.mailbox.take() {
                handle(self, worker, &item);
            }
            if self.mailbox.idle(worker) {
                self.workers[worker as usize].wait();
            } else if self.mailbox.finished() {
                break;
            }
        }
        self.wake(self.mailbox.leave(worker));
    }

    fn handled(&self) -> usize {
        self.handled.load(Ordering::SeqCst)
    }
}

fn spawn(bus: &Arc<Bus>, handle: fn(&Bus, WorkerId, &Item)) -> thread::JoinHandle<()> {
    let (bus, worker) = (bus.clone(), bus.mailbox.join());
    thread::spawn(move || bus.work(worker, handle))
}

fn at_once(bus: &Bus, _: WorkerId, item: &Item) {
    bus.ack(item);
}

/// The first handler waits for the second, which another worker has to run meanwhile.
fn meet(bus: &Bus, first: bool) {
    if first { bus.met.wait() } else { bus.met.notify() }
}

#[test]
fn a_push_is_seen_by_a_worker_that_goes_to_rest() {
    model(9, Overflow::Block, 1, |bus| {
        let worker = spawn(&bus, at_once);
        let publisher = thread::spawn({
            let bus = bus.clone();
            move || assert!(matches!(bus.push(None), Push::Queued(_)))
        });
        assert!(matches!(bus.push(None), Push::Queued(_)));
        publisher.join().unwrap();
        bus.both.wait();
        bus.close();
        worker.join().unwrap();
    });
}

fn two_workers_handle_two(key: Option<&'static str>, handle: fn(&Bus, WorkerId, &Item)) {
    model(9, Overflow::Block, 2, move |bus| {
        let workers = [spawn(&bus, handle), spawn(&bus, handle)];
        for _ in 0..2 {
            assert!(matches!(bus.push(key), Push::Queued(_)));
        }
        bus.both.wait();
        bus.close();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

#[test]
fn a_suspending_worker_hands_over() {
    two_workers_handle_two(None, |bus, worker, item| {
        let first = bus.mailbox.stats().delivered == 1;
        bus.wake(bus.mailbox.suspended(worker));
        meet(bus, first);
        bus.mailbox.resumed(worker);
        bus.ack(item);
    });
}

#[test]
fn a_key_is_in_flight_once() {
    two_workers_handle_two(Some("k"), |bus, worker, item| {
        let handled = bus.handled();
        bus.wake(bus.mailbox.suspended(worker));
        thread::yield_now();
        bus.mailbox.resumed(worker);
        assert_eq!(bus.ack(item), handled, "somebody else had the key too");
    });
}

#[test]
fn the_successor_of_a_key_is_not_forgotten() {
    two_workers_handle_two(Some("k"), |bus, worker, item| {
        bus.wake(bus.mailbox.suspended(worker));
        let first = bus.ack(item) == 0;
        meet(bus, first);
        bus.mailbox.resumed(worker);
    });
}

#[test]
fn a_worker_cancelled_at_rest_passes_its_wake_on() {
    model(9, Overflow::Block, 2, |bus| {
        let cancelled = bus.mailbox.join();
        assert!(bus.mailbox.idle(cancelled));
        let worker = spawn(&bus, at_once);
        let publisher = thread::spawn({
            let bus = bus.clone();
            move || assert!(matches!(bus.push(None), Push::Queued(_)))
        });
        bus.wake(bus.mailbox.unidle(cancelled));
        bus.wake(bus.mailbox.leave(cancelled));
        assert!(matches!(bus.push(None), Push::Queued(_)));
        publisher.join().unwrap();
        bus.both.wait();
        bus.close();
        worker.join().unwrap();
    });
}

/// Publishes as somebody who waits for room.
fn publish(bus: &Bus) -> bool {
    match bus.push(None) {
        Push::Queued(_) => return true,
        Push::Full(_) => {}
        _ => return false,
    }
    let ticket = Arc::new(Signal::new());
    match bus.mailbox.reserve(ticket.clone()) {
        Reserve::Granted => {}
        Reserve::Waiting => ticket.wait(),
        _ => return false,
    }
    match bus.mailbox.enter(0, Item(None)) {
        Entered::Queued { wake, .. } => {
            bus.wake(wake);
            true
        }
        Entered::Closed(_) => panic!("it was granted and nobody closed"),
    }
}

#[test]
fn a_publisher_that_waits_gets_its_slot() {
    model(1, Overflow::Block, 1, |bus| {
        let worker = spawn(&bus, at_once);
        let publisher = thread::spawn({
            let bus = bus.clone();
            move || assert!(publish(&bus))
        });
        assert!(publish(&bus));
        publisher.join().unwrap();
        bus.both.wait();
        bus.close();
        worker.join().unwrap();
    });
}

#[test]
fn a_ticket_is_either_cancelled_or_granted_and_no_slot_is_lost() {
    model(1, Overflow::Block, 0, |bus| {
        assert!(matches!(bus.push(None), Push::Queued(None)));
        assert!(bus.mailbox.take().is_some());
        let ticket = Arc::new(Signal::new());
        assert!(matches!(bus.mailbox.reserve(ticket.clone()), Reserve::Waiting));
        let acking = thread::spawn({
            let bus = bus.clone();
            move || bus.mailbox.ack(None).granted.is_some()
        });
        let cancelled = bus.mailbox.cancel(|waiting| Arc::ptr_eq(waiting, &ticket));
        let granted = acking.join().unwrap();
        assert_ne!(cancelled, granted);
        if granted {
            assert!(bus.mailbox.unreserve().is_none());
        }
        assert!(matches!(bus.push(None), Push::Queued(None)));
    });
}

#[test]
fn of_what_is_dropped_under_load_nothing_is_lost_or_doubled() {
    for overflow in [Overflow::DropOld, Overflow::DropNew] {
        model(1, overflow, 1, |bus| {
            let publisher = thread::spawn({
                let bus = bus.clone();
                move || (0..2).for_each(|_| drop(bus.push(None)))
            });
            let worker = spawn(&bus, at_once);
            drop(bus.push(None));
            publisher.join().unwrap();
            bus.close();
            worker.join().unwrap();
            let stats = bus.mailbox.stats();
            assert_eq!(stats.acked + stats.dropped, 3);
            assert_eq!(stats.delivered as usize, bus.handled());
            assert_eq!(bus.mailbox.depth() + stats.in_flight, 0);
        });
    }
}

#[test]
fn who_waits_when_it_closes_is_told() {
    model(1, Overflow::Block, 0, |bus| {
        assert!(matches!(bus.push(None), Push::Queued(None)));
        let publisher = thread::spawn({
            let bus = bus.clone();
            move || {
                let ticket = Arc::new(Signal::new());
                match bus.mailbox.reserve(ticket.clone()) {
                    Reserve::Waiting => ticket.wait(),
                    Reserve::Closed(_) => {}
                    _ => panic!("there is no room"),
                }
            }
        });
        bus.close();
        publisher.join().unwrap();
        assert_eq!(bus.mailbox.stats().waiting, 0);
    });
}
