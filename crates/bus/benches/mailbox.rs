//! What does one message cost in a mailbox: entered, taken, acknowledged?

#[path = "support/thread_time.rs"]
mod thread_time;

use std::hint::black_box;
use std::sync::mpsc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use neuralcore_bus::mailbox::*;
use thread_time::ThreadTime;

/// As large as a message of the bus.
struct Item {
    key: Option<&'static str>,
    _rest: [u64; 3],
}

impl Keyed for Item {
    fn key(&self) -> Option<&str> {
        self.key
    }
}

type Ticket = Box<u64>;

const KEY: Option<&str> = Some("customer-4711");

fn item(key: Option<&'static str>) -> Item {
    Item { key, _rest: [black_box(1); 3] }
}

fn mailbox(capacity: usize, overflow: Overflow) -> Mailbox<Item, Ticket> {
    Mailbox::new(MailboxConfig { capacity, overflow, hold_keys: true })
}

fn push(mailbox: &Mailbox<Item, Ticket>, rank: i64, key: Option<&'static str>) {
    assert!(matches!(mailbox.push(black_box(rank), item(key)), Push::Queued(_)));
}

fn messages(c: &mut Criterion<ThreadTime>) {
    let mut group = c.benchmark_group("mailbox");
    group.throughput(Throughput::Elements(1));

    let shallow = mailbox(1000, Overflow::Block);
    group.bench_function("push, take, ack", |b| {
        b.iter(|| {
            push(&shallow, 50, None);
            let item = shallow.take();
            let _ = black_box(shallow.ack(None));
            item
        });
    });

    let going_on = mailbox(1000, Overflow::Block);
    push(&going_on, 50, None);
    going_on.take();
    group.bench_function("push, settle_and_take", |b| {
        b.iter(|| {
            push(&going_on, 50, None);
            going_on.settle_and_take(None)
        });
    });

    let deep = mailbox(usize::MAX, Overflow::Block);
    (0..100_000).for_each(|n| push(&deep, n % 101, None));
    deep.take();
    let mut rank = 0;
    group.bench_function("the same above 100,000", |b| {
        b.iter(|| {
            rank = (rank + 37) % 101;
            push(&deep, rank, None);
            deep.settle_and_take(None)
        });
    });

    let keyed = mailbox(1000, Overflow::Block);
    group.bench_function("with a key", |b| {
        b.iter(|| {
            push(&keyed, 50, KEY);
            let item = keyed.take();
            let _ = black_box(keyed.ack(KEY));
            item
        });
    });

    let parking = mailbox(1000, Overflow::Block);
    push(&parking, 50, KEY);
    parking.take();
    push(&parking, 50, KEY);
    group.bench_function("with a key that is busy", |b| {
        b.iter(|| {
            push(&parking, 50, KEY);
            parking.settle_and_take(KEY)
        });
    });

    let waking = mailbox(1000, Overflow::Block);
    let worker = waking.join();
    group.bench_function("with a worker that rests in between", |b| {
        b.iter(|| {
            assert!(waking.idle(worker));
            push(&waking, 50, None);
            let item = waking.take();
            let _ = black_box(waking.ack(None));
            item
        });
    });

    let full = mailbox(1000, Overflow::DropOld);
    (0..1000).for_each(|_| push(&full, 50, None));
    group.bench_function("push that drops the oldest", |b| {
        b.iter(|| full.push(black_box(50), item(None)));
    });

    let (tx, rx) = crossbeam_channel::bounded::<Item>(1000);
    group.bench_function("crossbeam_channel: send, receive", |b| {
        b.iter(|| {
            tx.send(item(None)).unwrap();
            rx.try_recv().unwrap()
        });
    });
    let (tx, rx) = mpsc::sync_channel::<Item>(1000);
    group.bench_function("sync_channel: send, receive", |b| {
        b.iter(|| {
            tx.send(item(None)).unwrap();
            rx.try_recv().unwrap()
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = thread_time::criterion();
    targets = messages
}
criterion_main!(benches);
