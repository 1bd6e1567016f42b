//! A lock for critical sections of some nanoseconds.
//!
//! Its release is a plain store. A lock that can park its waiters has to swap there, to learn whether there are any;
//! that second locked instruction is half the price of an uncontended lock, and a message pays for two locks. So here
//! who waits spins, then yields, and at last sleeps between its looks. `benches/lock.rs` has the figures.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lock_api::{GuardNoSend, RawMutex};

/// Doubling from one, this many rounds of spinning cost about as much as the longest ordinary critical section.
const SPINS: u32 = 6;

/// Then the holder is probably not running: let it. After as many rounds again it is long gone for.
const YIELDS: u32 = 64;

const NAP: Duration = Duration::from_micros(50);

/// See [`Mutex`].
#[derive(Debug)]
pub struct ShortLock {
    held: AtomicBool,
}

/// A mutex for critical sections that are short and call nobody.
pub type Mutex<T> = lock_api::Mutex<ShortLock, T>;

/// What [`Mutex::lock`] answers.
pub type MutexGuard<'a, T> = lock_api::MutexGuard<'a, ShortLock, T>;

// SAFETY: `held` goes from false to true by one thread at a time, with acquire, and back by that thread, with release.
#[allow(unsafe_code)]
unsafe impl RawMutex for ShortLock {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = Self { held: AtomicBool::new(false) };

    type GuardMarker = GuardNoSend;

    #[inline]
    fn lock(&self) {
        if !self.try_lock() {
            self.wait();
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        !self.held.swap(true, Ordering::Acquire)
    }

    #[inline]
    unsafe fn unlock(&self) {
        self.held.store(false, Ordering::Release);
    }
}

impl ShortLock {
    #[cold]
    fn wait(&self) {
        let mut round = 0;
        loop {
            back_off(round);
            round += 1;
            if !self.held.load(Ordering::Relaxed) && self.try_lock() {
                return;
            }
        }
    }
}

fn back_off(round: u32) {
    if round < SPINS {
        (0..1 << round).for_each(|_| spin_loop());
    } else if round < SPINS + YIELDS {
        thread::yield_now();
    } else {
        thread::sleep(NAP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let count = Mutex::new(0u64);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| *count.lock() += 1));
            }
        });
        assert_eq!(count.into_inner(), 40_000);
    }

    #[test]
    fn a_waiter_outlasts_a_long_holder() {
        let order = Mutex::new(Vec::new());
        let mut held = order.lock();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| order.lock().push("waiter"));
            (0..1_000).for_each(|_| thread::yield_now());
            held.push("holder");
            drop(held);
            waiter.join().unwrap();
        });
        assert_eq!(order.into_inner(), ["holder", "waiter"]);
    }

    #[test]
    fn a_panic_releases_it() {
        let value = Mutex::new(1);
        let panicked = thread::scope(|scope| {
            let holder = scope.spawn(|| {
                let _held = value.lock();
                std::panic::resume_unwind(Box::new("as the test wants"));
            });
            holder.join().is_err()
        });
        assert!(panicked);
        assert_eq!(value.try_lock().map(|value| *value), Some(1));
    }
}
