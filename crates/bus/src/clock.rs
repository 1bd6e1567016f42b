//! The one source of time.

use crate::sync::{AtomicI64, AtomicU64, Ordering};

/// The system's clocks, or a manual clock that a test moves.
#[derive(Debug)]
pub enum Clock {
    /// The system's.
    System,
    /// Stands still until it is moved.
    Manual(ManualClock),
}

/// Two times that only their owner moves.
#[derive(Debug)]
pub struct ManualClock {
    wall_ns: AtomicI64,
    monotonic_ns: AtomicU64,
}

/// The clock is the system's, which nobody moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotManual;

impl std::fmt::Display for NotManual {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("only a manual clock can be moved")
    }
}

impl std::error::Error for NotManual {}

impl Clock {
    /// A clock that stands at these times.
    pub fn manual(wall_ns: i64, monotonic_ns: u64) -> Self {
        Self::Manual(ManualClock {
            wall_ns: AtomicI64::new(wall_ns),
            monotonic_ns: AtomicU64::new(monotonic_ns),
        })
    }

    /// Whether it has to be moved.
    pub fn is_manual(&self) -> bool {
        matches!(self, Self::Manual(_))
    }

    /// Wall clock, nanoseconds since the Unix epoch.
    pub fn time_ns(&self) -> i64 {
        match self {
            Self::System => system::time_ns(),
            Self::Manual(clock) => clock.wall_ns.load(Ordering::Relaxed),
        }
    }

    /// The wall clock at its last tick, some milliseconds ago at most: what a message is stamped with.
    #[inline]
    pub fn stamp_ns(&self) -> i64 {
        match self {
            Self::System => system::stamp_ns(),
            Self::Manual(clock) => clock.wall_ns.load(Ordering::Relaxed),
        }
    }

    /// A clock that never jumps; on Unix the one that Python's `time.monotonic` reads.
    #[inline]
    pub fn monotonic_ns(&self) -> u64 {
        match self {
            Self::System => system::monotonic_ns(),
            Self::Manual(clock) => clock.monotonic_ns.load(Ordering::Relaxed),
        }
    }

    /// Moves both times of a manual clock forward.
    pub fn advance(&self, ns: u64) -> Result<(), NotManual> {
        let clock = self.as_manual()?;
        clock.monotonic_ns.fetch_add(ns, Ordering::Relaxed);
        clock.wall_ns.fetch_add(i64::try_from(ns).unwrap_or(i64::MAX), Ordering::Relaxed);
        Ok(())
    }

    /// Moves the wall clock of a manual clock, either way.
    pub fn jump(&self, ns: i64) -> Result<(), NotManual> {
        self.as_manual()?.wall_ns.fetch_add(ns, Ordering::Relaxed);
        Ok(())
    }

    fn as_manual(&self) -> Result<&ManualClock, NotManual> {
        match self {
            Self::System => Err(NotManual),
            Self::Manual(clock) => Ok(clock),
        }
    }
}

#[cfg(unix)]
mod system {
    use rustix::time::{ClockId, clock_gettime};

    #[cfg(target_os = "linux")]
    const STAMP: ClockId = ClockId::RealtimeCoarse;
    #[cfg(not(target_os = "linux"))]
    const STAMP: ClockId = ClockId::Realtime;

    pub(super) fn time_ns() -> i64 {
        read(ClockId::Realtime)
    }

    #[inline]
    pub(super) fn stamp_ns() -> i64 {
        read(STAMP)
    }

    #[inline]
    pub(super) fn monotonic_ns() -> u64 {
        read(ClockId::Monotonic) as u64
    }

    #[inline]
    fn read(clock: ClockId) -> i64 {
        let time = clock_gettime(clock);
        time.tv_sec as i64 * 1_000_000_000 + time.tv_nsec as i64
    }
}

#[cfg(not(unix))]
mod system {
    use std::sync::OnceLock;
    use std::time::{Instant, SystemTime, UNIX_EPOCH};

    pub(super) fn time_ns() -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or_else(|e| -(e.duration().as_nanos() as i64), |d| d.as_nanos() as i64)
    }

    pub(super) fn stamp_ns() -> i64 {
        time_ns()
    }

    pub(super) fn monotonic_ns() -> u64 {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        ORIGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_when_told() {
        let clock = Clock::manual(1_000, 5);
        assert!(clock.is_manual());
        clock.advance(10).unwrap();
        assert_eq!((clock.time_ns(), clock.stamp_ns(), clock.monotonic_ns()), (1_010, 1_010, 15));
        clock.jump(-2_000).unwrap();
        assert_eq!((clock.time_ns(), clock.monotonic_ns()), (-990, 15));
    }

    #[test]
    fn the_system_clock_cannot_be_moved() {
        assert_eq!(Clock::System.advance(1), Err(NotManual));
        assert_eq!(Clock::System.jump(1), Err(NotManual));
    }

    #[test]
    fn the_system_clock_follows_the_system() {
        let clock = Clock::System;
        let expected = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let minute = 60_000_000_000;
        assert!((clock.time_ns() - expected.as_nanos() as i64).abs() < minute);
        assert!((clock.stamp_ns() - expected.as_nanos() as i64).abs() < minute);
        let first = clock.monotonic_ns();
        assert!(clock.monotonic_ns() >= first);
    }
}
