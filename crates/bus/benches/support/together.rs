//! Several threads do the same at once.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// The wall time in which `threads` threads do `rounds` rounds between them.
pub(crate) fn together(threads: u64, rounds: u64, round: impl Fn() + Sync) -> Duration {
    let barrier = Barrier::new(threads as usize + 1);
    thread::scope(|scope| {
        for thread in 0..threads {
            let (barrier, round) = (&barrier, &round);
            let mine = rounds / threads + u64::from(thread < rounds % threads);
            scope.spawn(move || {
                barrier.wait();
                (0..mine).for_each(|_| round());
                barrier.wait();
            });
        }
        barrier.wait();
        let start = Instant::now();
        barrier.wait();
        start.elapsed()
    })
}
