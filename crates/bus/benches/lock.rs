//! What does a lock cost, alone and when two or four threads want it?

#[path = "support/together.rs"]
mod together;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use neuralcore_bus::PriorityQueue;
use neuralcore_bus::lock::Mutex as ShortMutex;
use together::together;

type Queue = PriorityQueue<u64>;

fn contended(c: &mut Criterion) {
    let mut group = c.benchmark_group("lock");
    group.throughput(Throughput::Elements(1));
    for threads in [1, 2, 4] {
        let short = ShortMutex::new(Queue::new());
        group.bench_function(format!("ours/{threads} threads"), |b| {
            b.iter_custom(|rounds| {
                together(threads, rounds, || {
                    short.lock().push_back(50, black_box(1));
                    black_box(short.lock().pop());
                })
            });
        });
        let parking = parking_lot::Mutex::new(Queue::new());
        group.bench_function(format!("parking_lot/{threads} threads"), |b| {
            b.iter_custom(|rounds| {
                together(threads, rounds, || {
                    parking.lock().push_back(50, black_box(1));
                    black_box(parking.lock().pop());
                })
            });
        });
        let std = std::sync::Mutex::new(Queue::new());
        group.bench_function(format!("std/{threads} threads"), |b| {
            b.iter_custom(|rounds| {
                together(threads, rounds, || {
                    std.lock().unwrap().push_back(50, black_box(1));
                    black_box(std.lock().unwrap().pop());
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, contended);
criterion_main!(benches);
