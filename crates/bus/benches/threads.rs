//! What does a message cost when two or four threads publish into and take from one mailbox?

#[path = "support/together.rs"]
mod together;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use neuralcore_bus::mailbox::*;
use together::together;

const CAPACITY: usize = 1000;

struct Item(u64);

impl Keyed for Item {
    fn key(&self) -> Option<&str> {
        None
    }
}

fn threads(c: &mut Criterion) {
    for threads in [1, 2, 4] {
        let mut group = c.benchmark_group(format!("{threads} threads"));
        group.throughput(Throughput::Elements(1));

        let overflow = Overflow::Block;
        let config = MailboxConfig { capacity: CAPACITY, overflow, hold_keys: true };
        let mailbox = Mailbox::<Item, Box<u64>>::new(config);
        group.bench_function("mailbox: push, take, ack", |b| {
            b.iter_custom(|rounds| {
                together(threads, rounds, || {
                    assert!(matches!(mailbox.push(50, Item(1)), Push::Queued(_)));
                    black_box(mailbox.take().map(|(_, item)| item.0));
                    let _ = mailbox.ack(None);
                })
            });
        });
        let stats = mailbox.stats();
        assert_eq!((stats.delivered, mailbox.depth()), (stats.acked, 0));

        let (tx, rx) = crossbeam_channel::bounded(CAPACITY);
        group.bench_function("crossbeam_channel: send, receive", |b| {
            b.iter_custom(|rounds| {
                together(threads, rounds, || {
                    tx.send(Item(1)).unwrap();
                    black_box(rx.try_recv().map(|item| item.0)).unwrap();
                })
            });
        });

        let heap = parking_lot::Mutex::new((0u64, BinaryHeap::new()));
        group.bench_function("BinaryHeap: push, pop", |b| {
            b.iter_custom(|rounds| {
                together(threads, rounds, || {
                    {
                        let (entered, heap) = &mut *heap.lock();
                        *entered += 1;
                        heap.push(Reverse((50i64, *entered, 1u64)));
                    }
                    black_box(heap.lock().1.pop());
                })
            });
        });
        group.finish();
    }
}

criterion_group!(benches, threads);
criterion_main!(benches);
