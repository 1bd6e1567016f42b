//! How long does it take to find a channel's mailboxes among 10,000 patterns?

#[path = "support/thread_time.rs"]
mod thread_time;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use neuralcore_bus::Router;
use thread_time::ThreadTime;

const PATTERNS: u64 = 10_000;

/// A third each of exact names, one-token and rest wildcards, in groups.
fn pattern(n: u64) -> String {
    let (service, event) = (n / 100, n % 100);
    match n % 3 {
        0 => format!("service{service}.event{event}.done"),
        1 => format!("service{service}.*.step{event}"),
        _ => format!("service{service}.event{event}.>"),
    }
}

fn filled() -> Router<u64> {
    let mut router = Router::new();
    for n in 0..PATTERNS {
        let group = (n % 2 == 0).then(|| format!("group{}", n % 7));
        assert_eq!(router.insert(&pattern(n), group.as_deref(), n, n), Ok(None));
    }
    router
}

fn routing(c: &mut Criterion<ThreadTime>) {
    let mut group = c.benchmark_group("router");
    let mut router = filled();
    for (name, channel, found) in [
        ("exact", "service42.event0.done", vec![4200]),
        ("two wildcards", "service42.event3.step1", vec![4201]),
        ("nothing", "elsewhere.event3.step1", vec![]),
    ] {
        assert!(found.iter().all(|id| router.matches(channel).contains(id)), "{channel}");
        group.bench_function(name, |b| b.iter(|| router.matches(black_box(channel))));
    }
    group.bench_function("subscribe and unsubscribe", |b| {
        b.iter(|| {
            router.insert(black_box("service42.*.new"), None, PATTERNS, PATTERNS).unwrap();
            router.remove(black_box("service42.*.new"), PATTERNS)
        });
    });
    group.bench_function("10,000 subscriptions", |b| b.iter(filled));
    group.finish();
}

criterion_group! {
    name = benches;
    config = thread_time::criterion();
    targets = routing
}
criterion_main!(benches);
