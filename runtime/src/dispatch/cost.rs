//! What a call of a kernel takes, as was last seen.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many costs are kept of a kernel: of launches with other scalars, which may take another time.
const COSTS: usize = 8;

/// How many bits of a word say how many picoseconds a call takes: up to 281 seconds. Those above are
/// of the digest of the scalars.
const PICOS: u32 = 48;

/// What calls of a kernel take, as was last seen; nothing is right or wrong by it. Threads that
/// measure at the same time may lose each other's figures.
#[derive(Debug, Default)]
pub(crate) struct Costs {
    /// Each of the scalars that were last measured there; 0 where none were.
    words: [AtomicU64; COSTS],
}

impl Costs {
    /// Of calls with these scalars.
    pub(crate) fn of(&self, scalars: &[u64]) -> Cost<'_> {
        // A product with an odd number spreads what differs over the highest bits.
        let mix = |hash: u64, scalar: &u64| {
            (hash.rotate_left(5) ^ scalar).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        };
        let hash = scalars.iter().fold(0, mix);
        Cost {
            word: &self.words[(hash >> PICOS) as usize % COSTS],
            tag: hash >> PICOS << PICOS,
        }
    }
}

/// What a call of a kernel with some scalars takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost<'a> {
    word: &'a AtomicU64,
    tag: u64,
}

impl Cost<'_> {
    /// Picoseconds a call; `None` where none was measured, or others were meanwhile.
    fn picos(self) -> Option<u64> {
        let picos = self.word.load(Ordering::Relaxed) ^ self.tag;
        (picos > 0 && picos >> PICOS == 0).then_some(picos)
    }

    /// What so many calls take on one thread; `None` where that is not known.
    pub(crate) fn of(self, calls: u64) -> Option<Duration> {
        let picos = self.picos()?.saturating_mul(calls);
        Some(Duration::from_nanos(picos / 1000))
    }

    /// Notes that so many calls, at least one, took so long. A figure that is too high is forgotten
    /// by the next, as the first of all has code and data to fetch and any may be interrupted;
    /// one that is too low, by and by.
    pub(crate) fn note(self, calls: u64, took: Duration) {
        let picos = took.as_nanos().saturating_mul(1000) / u128::from(calls);
        let most = (1 << PICOS) - 1;
        let picos = u64::try_from(picos).unwrap_or(most).clamp(1, most);
        let now = match self.picos() {
            Some(known) if known < picos => known + (picos - known) / 2,
            _ => picos,
        };
        self.word.store(self.tag | now, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_follows_what_is_measured() {
        let costs = Costs::default();
        let cost = costs.of(&[]);
        assert_eq!(cost.of(1), None);
        cost.note(10, Duration::from_nanos(1000));
        assert_eq!(cost.of(3), Some(Duration::from_nanos(300)));
        cost.note(10, Duration::from_nanos(25));
        assert_eq!(cost.of(4), Some(Duration::from_nanos(10)));
        (0..20).for_each(|_| cost.note(1, Duration::from_nanos(80)));
        assert_eq!(cost.of(1000).map(|c| c.as_micros()), Some(79));
        // No time at all is something that was measured, and no time is too long.
        let cost = costs.of(&[7]);
        cost.note(5, Duration::ZERO);
        assert_eq!(cost.of(1), Some(Duration::ZERO));
        cost.note(1, Duration::MAX);
        assert!(cost.of(u64::MAX).is_some());
    }

    #[test]
    fn none_is_taken_for_that_of_other_scalars() {
        let costs = Costs::default();
        for n in 0..200_u64 {
            let scalars = [n, 1 << 40];
            assert_eq!(costs.of(&scalars).of(1), None, "{n}");
            costs.of(&scalars).note(1, Duration::from_nanos(n + 1));
            let took = costs.of(&scalars).of(1);
            assert_eq!(took, Some(Duration::from_nanos(n + 1)));
        }
    }
}
