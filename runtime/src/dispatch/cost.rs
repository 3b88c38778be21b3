//! What a call of a kernel takes, as was last seen.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a call of a kernel takes, as was last seen; nothing is right or wrong by it. Threads that
/// measure at the same time may lose each other's figures.
#[derive(Debug, Default)]
pub(crate) struct Cost {
    /// Picoseconds a call; 0 where none was measured.
    picos: AtomicU64,
}

impl Cost {
    /// What so many calls take on one thread; `None` where none was measured.
    pub(crate) fn of(&self, calls: u64) -> Option<Duration> {
        let picos = self.picos.load(Ordering::Relaxed);
        (picos > 0).then(|| Duration::from_nanos(picos.saturating_mul(calls) / 1000))
    }

    /// Notes that so many calls, at least one, took so long. A figure that is too high is forgotten
    /// by the next, as the first of all has code and data to fetch and any may be interrupted;
    /// one that is too low, by and by.
    pub(crate) fn note(&self, calls: u64, took: Duration) {
        let picos = took.as_nanos().saturating_mul(1000) / u128::from(calls);
        let picos = u64::try_from(picos).unwrap_or(u64::MAX).max(1);
        let known = self.picos.load(Ordering::Relaxed);
        let now = if known == 0 || picos < known {
            picos
        } else {
            known + (picos - known) / 2
        };
        self.picos.store(now, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_follows_what_is_measured() {
        let cost = Cost::default();
        assert_eq!(cost.of(1), None);
        cost.note(10, Duration::from_nanos(1000));
        assert_eq!(cost.of(3), Some(Duration::from_nanos(300)));
        cost.note(10, Duration::from_nanos(25));
        assert_eq!(cost.of(4), Some(Duration::from_nanos(10)));
        (0..20).for_each(|_| cost.note(1, Duration::from_nanos(80)));
        assert_eq!(cost.of(1000).map(|c| c.as_micros()), Some(79));
        // No time at all is something that was measured, and no time is too long.
        let cost = Cost::default();
        cost.note(5, Duration::ZERO);
        assert_eq!(cost.of(1), Some(Duration::ZERO));
        cost.note(1, Duration::MAX);
        assert!(cost.of(u64::MAX).is_some());
    }
}
