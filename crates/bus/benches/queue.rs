//! What does one push and one pop cost on one core, behind the lock that makes the queue shareable?

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::hint::black_box;
use std::sync::mpsc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_queue::SegQueue;
use neuralcore_bus::PriorityQueue;
use parking_lot::Mutex;

/// As large as a message of the bus.
type Item = [u64; 4];

fn pairs(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue");
    group.throughput(Throughput::Elements(1));
    let bare = std::cell::RefCell::new(PriorityQueue::<Item>::new());
    group.bench_function("bare", |b| {
        b.iter(|| {
            bare.borrow_mut().push_back(black_box(50), black_box([1; 4]));
            bare.borrow_mut().pop()
        });
    });
    let ours = Mutex::new(PriorityQueue::<Item>::new());
    group.bench_function("PriorityQueue", |b| {
        b.iter(|| {
            ours.lock().push_back(black_box(50), black_box([1; 4]));
            ours.lock().pop()
        });
    });
    let lock = Mutex::new(0u64);
    group.bench_function("lock only", |b| {
        b.iter(|| {
            *lock.lock() += black_box(1);
            *lock.lock() -= black_box(1);
        });
    });
    let lock = std::sync::Mutex::new(0u64);
    group.bench_function("std lock only", |b| {
        b.iter(|| {
            *lock.lock().unwrap() += black_box(1);
            *lock.lock().unwrap() -= black_box(1);
        });
    });
    let heap = Mutex::new((0u64, BinaryHeap::<Reverse<(i64, u64, Item)>>::new()));
    group.bench_function("BinaryHeap", |b| {
        b.iter(|| {
            {
                let mut heap = heap.lock();
                heap.0 += 1;
                let entry = Reverse((black_box(50), heap.0, black_box([1; 4])));
                heap.1.push(entry);
            }
            heap.lock().1.pop()
        });
    });
    let map = Mutex::new(BTreeMap::<i64, VecDeque<Item>>::new());
    group.bench_function("BTreeMap", |b| {
        b.iter(|| {
            map.lock().entry(black_box(50)).or_default().push_back(black_box([1; 4]));
            let mut map = map.lock();
            let mut first = map.first_entry().unwrap();
            let item = first.get_mut().pop_front();
            if first.get().is_empty() {
                first.remove();
            }
            item
        });
    });
    let seg = SegQueue::<Item>::new();
    group.bench_function("SegQueue", |b| {
        b.iter(|| {
            seg.push(black_box([1; 4]));
            seg.pop()
        });
    });
    let (tx, rx) = crossbeam_channel::unbounded::<Item>();
    group.bench_function("crossbeam_channel", |b| {
        b.iter(|| {
            tx.send(black_box([1; 4])).unwrap();
            rx.try_recv()
        });
    });
    let (tx, rx) = mpsc::channel::<Item>();
    group.bench_function("mpsc", |b| {
        b.iter(|| {
            tx.send(black_box([1; 4])).unwrap();
            rx.try_recv()
        });
    });
    group.finish();
}

criterion_group!(benches, pairs);
criterion_main!(benches);
