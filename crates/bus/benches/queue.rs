//! What do one push and one pop cost on one core, behind the lock that makes the queue shareable?
//!
//! The peers that keep priorities are a `BinaryHeap` with a counter for the order and a `BTreeMap` of rings; the
//! channels keep none and are here as a measure.

#[path = "support/thread_time.rs"]
mod thread_time;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::hint::black_box;
use std::sync::mpsc;

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_queue::SegQueue;
use neuralcore_bus::PriorityQueue;
use neuralcore_bus::lock::Mutex;
use thread_time::ThreadTime;

/// What the peers have in common. All can be shared between threads.
trait Queue {
    fn push(&self, rank: i64, item: u64);
    fn pop(&self) -> Option<u64>;
}

impl Queue for Mutex<PriorityQueue<u64>> {
    #[inline]
    fn push(&self, rank: i64, item: u64) {
        self.lock().push_back(rank, item);
    }
    #[inline]
    fn pop(&self) -> Option<u64> {
        self.lock().pop().map(|(_, item)| item)
    }
}

impl Queue for parking_lot::Mutex<PriorityQueue<u64>> {
    #[inline]
    fn push(&self, rank: i64, item: u64) {
        self.lock().push_back(rank, item);
    }
    #[inline]
    fn pop(&self) -> Option<u64> {
        self.lock().pop().map(|(_, item)| item)
    }
}

/// A heap keeps no order among equals: the entries are numbered.
type Heap = (u64, BinaryHeap<Reverse<(i64, u64, u64)>>);

impl Queue for parking_lot::Mutex<Heap> {
    #[inline]
    fn push(&self, rank: i64, item: u64) {
        let (entered, heap) = &mut *self.lock();
        *entered += 1;
        heap.push(Reverse((rank, *entered, item)));
    }
    #[inline]
    fn pop(&self) -> Option<u64> {
        self.lock().1.pop().map(|Reverse((_, _, item))| item)
    }
}

impl Queue for parking_lot::Mutex<BTreeMap<i64, VecDeque<u64>>> {
    #[inline]
    fn push(&self, rank: i64, item: u64) {
        self.lock().entry(rank).or_default().push_back(item);
    }
    #[inline]
    fn pop(&self) -> Option<u64> {
        let mut map = self.lock();
        let mut first = map.first_entry()?;
        let item = first.get_mut().pop_front();
        if first.get().is_empty() {
            first.remove();
        }
        item
    }
}

impl Queue for SegQueue<u64> {
    #[inline]
    fn push(&self, _: i64, item: u64) {
        SegQueue::push(self, item);
    }
    #[inline]
    fn pop(&self) -> Option<u64> {
        SegQueue::pop(self)
    }
}

impl Queue for (crossbeam_channel::Sender<u64>, crossbeam_channel::Receiver<u64>) {
    #[inline]
    fn push(&self, _: i64, item: u64) {
        self.0.send(item).unwrap();
    }
    #[inline]
    fn pop(&self) -> Option<u64> {
        self.1.try_recv().ok()
    }
}

impl Queue for (mpsc::Sender<u64>, mpsc::Receiver<u64>) {
    #[inline]
    fn push(&self, _: i64, item: u64) {
        self.0.send(item).unwrap();
    }
    #[inline]
    fn pop(&self) -> Option<u64> {
        self.1.try_recv().ok()
    }
}

fn pairs<Q: Queue>(
    group: &mut BenchmarkGroup<'_, ThreadTime>,
    name: &str,
    (ranks, backlog): ([i64; 4], u64),
    queue: Q,
) {
    let mut turn = 0;
    let mut rank = move || {
        turn = (turn + 1) % ranks.len();
        ranks[turn]
    };
    (0..backlog).for_each(|item| queue.push(rank(), item));
    group.bench_function(name, |b| {
        b.iter(|| {
            queue.push(rank(), black_box(1));
            queue.pop()
        });
    });
    let left = std::iter::from_fn(|| queue.pop()).count() as u64;
    assert_eq!(left, backlog, "a pair leaves nothing behind");
}

fn queues(c: &mut Criterion<ThreadTime>) {
    for (name, load) in [
        ("one rank", ([50; 4], 0)),
        ("four ranks", ([0, 25, 50, 75], 0)),
        ("four ranks, backlog of 10,000", ([0, 25, 50, 75], 10_000)),
    ] {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(1));
        pairs(&mut group, "ours", load, Mutex::new(PriorityQueue::new()));
        let parking = parking_lot::Mutex::new(PriorityQueue::new());
        pairs(&mut group, "ours in parking_lot", load, parking);
        let heap = parking_lot::Mutex::new((0, BinaryHeap::new()));
        pairs(&mut group, "BinaryHeap", load, heap);
        let map = parking_lot::Mutex::new(BTreeMap::<_, VecDeque<_>>::new());
        pairs(&mut group, "BTreeMap", load, map);
        pairs(&mut group, "SegQueue, no priorities", load, SegQueue::new());
        let channel = crossbeam_channel::unbounded();
        pairs(&mut group, "crossbeam_channel, no priorities", load, channel);
        pairs(&mut group, "mpsc, no priorities", load, mpsc::channel());
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = thread_time::criterion();
    targets = queues
}
criterion_main!(benches);
