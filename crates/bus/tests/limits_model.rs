//! A token bucket keeps its rate and its word; a deduplication window remembers what a list would.

#![cfg(not(loom))]

use neuralcore_bus::{DedupWindow, TokenBucket};
use proptest::prelude::*;

const SECOND_NS: f64 = 1e9;

proptest! {
    #[test]
    fn a_bucket_keeps_its_rate_and_its_word(
        rate in 0.01..1e6f64,
        burst in 0.5..1e4f64,
        steps in prop::collection::vec((0..2_000_000_000u64, 0.0..1.2f64), 1..100),
    ) {
        let (mut now_ns, mut taken) = (7, 0.0);
        let mut bucket = TokenBucket::new(rate, burst, now_ns).unwrap();
        let start_ns = now_ns;
        for (elapsed_ns, part) in steps {
            now_ns += elapsed_ns;
            let tokens = part * burst;
            let wait = bucket.take(tokens, now_ns);
            if tokens > burst + 1e-6 {
                prop_assert_eq!(wait, f64::INFINITY);
                continue;
            }
            if wait > 0.0 {
                now_ns += (wait * SECOND_NS).ceil() as u64;
                prop_assert_eq!(bucket.take(tokens, now_ns), 0.0, "it named the time itself");
            }
            taken += tokens;
            let most = burst + rate * (now_ns - start_ns) as f64 / SECOND_NS;
            prop_assert!(taken <= most * (1.0 + 1e-9) + 1e-3, "{} of {}", taken, most);
        }
    }

    #[test]
    fn a_window_remembers_what_a_list_would(
        span_ns in 1..20u64,
        limit in 0..6usize,
        steps in prop::collection::vec((0..5u64, 0..9u8, 0..4u8), 1..200),
    ) {
        let mut window = DedupWindow::new(span_ns, limit);
        let mut list: Vec<(u64, u8)> = Vec::new();
        let mut now_ns = 0;
        for (elapsed_ns, key, step) in steps {
            now_ns += elapsed_ns;
            if step > 0 {
                list.retain(|(seen_ns, _)| now_ns - seen_ns < span_ns);
            }
            let seen = list.iter().any(|(_, other)| *other == key);
            match step {
                0 => {
                    list.retain(|(_, other)| *other != key);
                    prop_assert_eq!(window.forget(&key), seen);
                }
                1 => prop_assert_eq!(window.contains(&key, now_ns), seen),
                _ => {
                    prop_assert_eq!(window.insert(key, now_ns), !seen);
                    if !seen {
                        list.push((now_ns, key));
                        list.drain(..list.len().saturating_sub(limit));
                    }
                }
            }
            prop_assert_eq!((window.len(), window.is_empty()), (list.len(), list.is_empty()));
        }
    }
}
