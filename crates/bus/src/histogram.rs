//! A latency histogram with fixed bounds, recorded from any thread.

use crate::sync::{AtomicU64, Ordering};

/// Upper bounds of the buckets: 1, 2.5, 5 per decade from 100 ns to 10 s.
pub const BOUNDS_NS: [u64; 25] = bounds();

/// One bucket per bound and one for what is above the last.
pub const BUCKETS: usize = BOUNDS_NS.len() + 1;

const fn bounds() -> [u64; 25] {
    let mut bounds = [0; 25];
    let (mut index, mut decade) = (0, 100);
    while index < 24 {
        bounds[index] = decade;
        bounds[index + 1] = decade * 5 / 2;
        bounds[index + 2] = decade * 5;
        index += 3;
        decade *= 10;
    }
    bounds[24] = decade;
    bounds
}

/// Counts durations by bucket.
#[derive(Debug)]
pub struct Histogram {
    sum_ns: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

/// The figures of a [`Histogram`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// The sum of all durations.
    pub sum_ns: u64,
    /// How many fell between a bucket's lower neighbour (exclusive) and its bound (inclusive); not cumulative.
    pub buckets: [u64; BUCKETS],
}

impl HistogramSnapshot {
    /// How many durations there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Self {
        Self { sum_ns: AtomicU64::new(0), buckets: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Counts a duration.
    pub fn record(&self, ns: u64) {
        let bucket = BOUNDS_NS.partition_point(|&bound| bound < ns);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// The figures now. What is recorded meanwhile may be counted in part.
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            sum_ns: self.sum_ns.load(Ordering::Relaxed),
            buckets: std::array::from_fn(|bucket| self.buckets[bucket].load(Ordering::Relaxed)),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_one_two_and_a_half_and_five_per_decade() {
        assert_eq!(BOUNDS_NS[..6], [100, 250, 500, 1_000, 2_500, 5_000]);
        assert_eq!(BOUNDS_NS[23..], [5_000_000_000, 10_000_000_000]);
        assert!(BOUNDS_NS.is_sorted());
    }

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        let histogram = Histogram::new();
        for ns in [0, 100, 101, 10_000_000_000, 10_000_000_001] {
            histogram.record(ns);
        }
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.buckets[..2], [2, 1]);
        assert_eq!(snapshot.buckets[24..], [1, 1]);
        assert_eq!(snapshot.count(), 5);
        assert_eq!(snapshot.sum_ns, 20_000_000_202);
    }
}
