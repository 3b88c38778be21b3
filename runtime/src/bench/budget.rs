//! How long a measurement goes on.

use std::time::Duration;

/// The confidence of intervals where nothing else is said.
pub const CONFIDENCE: f64 = 0.95;

/// How long a [`race`](super::race) or a [`measure`](super::measure) goes on. Times are by
/// the clock on the wall, for each candidate: of three, three times as much passes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// How long rounds are run that do not count, at least one.
    pub warm_up: Duration,
    /// How long rounds are run that count.
    pub time: Duration,
    /// The fewest rounds that count, whatever time they take; one, if 0.
    pub min_rounds: usize,
    /// The most, whatever time is left.
    pub max_rounds: usize,
    /// What a sample should last at least, of the fastest candidate.
    pub sample: Duration,
    /// How many runs in a row a sample has, whatever it lasts; 0 has as many as `sample`
    /// asks for, which takes a few samples to find out.
    pub runs: u32,
    /// The share of all intervals that hold the median they are of.
    pub confidence: f64,
    /// No more rounds than `min_rounds` are run once the interval of each candidate's
    /// time is at most so wide, as a share of its median. 0 is never.
    pub precision: f64,
    /// Whether a candidate drops out of a race that is clearly slower than the fastest:
    /// takes at least twice as long in each of three or more rounds, or has the whole
    /// interval of its ratio above 1.01. Of two that are as fast, one may drop out. Once
    /// one is left, the race has no more rounds than `min_rounds`.
    pub drop_out: bool,
}

impl Default for Budget {
    /// 0.2 s of warm-up and 1 s that counts, in 10 to 10,000 rounds. Samples of 20
    /// µs: an empty one takes some 20 ns, a thousandth of it. Nothing ends sooner.
    fn default() -> Budget {
        Budget {
            warm_up: Duration::from_millis(200),
            time: Duration::from_secs(1),
            min_rounds: 10,
            max_rounds: 10_000,
            sample: Duration::from_micros(20),
            runs: 0,
            confidence: CONFIDENCE,
            precision: 0.0,
            drop_out: false,
        }
    }
}

impl Budget {
    /// The default, but with so many rounds that count.
    #[must_use]
    pub fn rounds(rounds: usize) -> Budget {
        Budget {
            min_rounds: rounds,
            max_rounds: rounds,
            ..Budget::default()
        }
    }

    /// The default, but done once intervals are as narrow as this share of the median,
    /// such as 0.01.
    #[must_use]
    pub fn to_within(precision: f64) -> Budget {
        Budget {
            precision,
            ..Budget::default()
        }
    }

    /// That of part `part` of `parts`.
    pub(super) fn part(&self, part: usize, parts: usize) -> Budget {
        let share = |rounds: usize| rounds / parts + usize::from(part < rounds % parts);
        let divisor = u32::try_from(parts).unwrap_or(u32::MAX);
        Budget {
            warm_up: self.warm_up / divisor,
            time: self.time / divisor,
            min_rounds: share(self.min_rounds),
            max_rounds: share(self.max_rounds),
            ..*self
        }
    }
}
