//! A rate limit.

/// Tokens that come at a steady rate and are kept up to a limit. It has no clock: callers say what time it is.
#[derive(Debug)]
pub struct TokenBucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    refilled_ns: u64,
}

/// Time is counted in whole nanoseconds, so a wait may end this part of a token too early.
const ROUNDING: f64 = 1e-6;

impl TokenBucket {
    /// A full bucket that gains `rate` tokens a second and holds `burst`; None unless both are positive and finite.
    pub fn new(rate: f64, burst: f64, now_ns: u64) -> Option<Self> {
        let usable = |number: f64| number.is_finite() && number > 0.0;
        (usable(rate) && usable(burst)).then_some(Self {
            rate,
            burst,
            tokens: burst,
            refilled_ns: now_ns,
        })
    }

    /// Takes tokens and answers 0.0, or takes none and answers in how many seconds they would be there.
    ///
    /// More than the burst never are: then the answer is infinite.
    pub fn take(&mut self, tokens: f64, now_ns: u64) -> f64 {
        self.refill(now_ns);
        if tokens <= self.tokens + ROUNDING {
            self.tokens = (self.tokens - tokens).clamp(0.0, self.burst);
            return 0.0;
        }
        if tokens > self.burst {
            return f64::INFINITY;
        }
        (tokens - self.tokens) / self.rate
    }

    fn refill(&mut self, now_ns: u64) {
        let elapsed = now_ns.saturating_sub(self.refilled_ns) as f64 / 1e9;
        self.tokens = (self.tokens + elapsed * self.rate).min(self.burst);
        self.refilled_ns = self.refilled_ns.max(now_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_full_bucket_gives_its_burst_and_then_the_rate() {
        let mut bucket = TokenBucket::new(10.0, 2.0, 0).unwrap();
        assert_eq!(bucket.take(1.0, 0), 0.0);
        assert_eq!(bucket.take(1.0, 0), 0.0);
        assert!((bucket.take(1.0, 0) - 0.1).abs() < 1e-9);
        assert_eq!(bucket.take(1.0, SECOND / 10), 0.0);
        assert!(bucket.take(1.0, SECOND / 10) > 0.0);
    }

    #[test]
    fn it_never_holds_more_than_its_burst() {
        let mut bucket = TokenBucket::new(10.0, 2.0, 0).unwrap();
        assert_eq!(bucket.take(2.0, 100 * SECOND), 0.0);
        assert!(bucket.take(0.5, 100 * SECOND) > 0.0);
    }

    #[test]
    fn more_than_the_burst_is_never_there() {
        let mut bucket = TokenBucket::new(10.0, 2.0, 0).unwrap();
        assert_eq!(bucket.take(2.5, SECOND), f64::INFINITY);
        assert_eq!(bucket.take(2.0, SECOND), 0.0);
    }

    #[test]
    fn an_earlier_time_changes_nothing() {
        let mut bucket = TokenBucket::new(1.0, 1.0, 5 * SECOND).unwrap();
        assert_eq!(bucket.take(1.0, 5 * SECOND), 0.0);
        assert_eq!(bucket.take(1.0, 0), 1.0);
        assert_eq!(bucket.take(1.0, 6 * SECOND), 0.0);
    }

    #[test]
    fn rate_and_burst_must_be_positive_and_finite() {
        for (rate, burst) in [(0.0, 1.0), (1.0, -1.0), (f64::NAN, 1.0), (1.0, f64::INFINITY)] {
            assert!(TokenBucket::new(rate, burst, 0).is_none());
        }
    }
}
