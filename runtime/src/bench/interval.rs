//! Between what bounds a median lies.
//!
//! The interval is the binomial one between two order statistics: each of `n`
//! independent samples lies below the median of what they are drawn from with
//! probability ½, so how many of them do is binomial, whatever their distribution.
//! (H. A. David and H. N. Nagaraja, *Order Statistics*, 3rd ed., section 7.1.)
//!
//! Samples of a busy machine are not independent: a slow stretch lasts for many of
//! them, and `n` samples then say less than `n` independent ones. So the same interval
//! is taken a second time, of the medians of blocks of successive rounds, and what is
//! told is the interval that spans both. What is assumed is that blocks are independent
//! of each other: stretches are shorter than a twelfth of the race, or last for all of
//! it. A ratio within rounds asks for less, since what slows a whole round drops out. A
//! block has an odd number of rounds, so that its median is as often above as below that
//! of a sample. Blocks that were [made anew](super::race_sets) are independent by
//! design.

/// Less is lost in rounding.
const LEAST_TAIL: f64 = 1e-12;

/// A race has at least so many blocks, where it has rounds enough: fewer would make
/// wider intervals, more would be shorter than slow stretches are.
const BLOCKS: usize = 12;

/// From `low` to `high`, both included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Interval {
    /// Of the median of what these numbers were drawn from, in the order in which they
    /// were: it holds the median in at least this share of all cases, such as 0.95. It
    /// spans that of all numbers and that of the medians of blocks, as the
    /// [module](super) says. None where there are too few, 6 for 0.95, or it has no
    /// finite ends.
    ///
    /// ```
    /// use svod_runtime::bench::Interval;
    ///
    /// let times = [4.0, 2.0, 6.0, 3.0, 1.0, 5.0];
    /// let all = Interval { low: 1.0, high: 6.0 };
    /// assert_eq!(Interval::of_median(&times, 0.95), Some(all));
    /// assert_eq!(Interval::of_median(&times[1..], 0.95), None);
    /// ```
    #[must_use]
    pub fn of_median(numbers: &[f64], confidence: f64) -> Option<Interval> {
        Interval::of_parts(numbers, &[], confidence, &mut Vec::new())
    }

    /// The same, where the blocks end at `ends`; without any, they are as long as each
    /// other. Asks for no memory where `scratch` has room for the numbers.
    pub(super) fn of_parts(
        numbers: &[f64],
        ends: &[usize],
        confidence: f64,
        scratch: &mut Vec<f64>,
    ) -> Option<Interval> {
        scratch.clear();
        scratch.extend_from_slice(numbers);
        let all = order_statistics(scratch, confidence)?;
        scratch.clear();
        scratch.extend_from_slice(numbers);
        let blocks = match ends {
            [] => equal_blocks(scratch),
            ends => medians(scratch, 0, ends.iter().copied()),
        };
        let blocks = order_statistics(&mut scratch[..blocks], confidence)?;
        let (low, high) = (all.low.min(blocks.low), all.high.max(blocks.high));
        (low.is_finite() && high.is_finite()).then_some(Interval { low, high })
    }

    /// How wide it is.
    #[must_use]
    pub const fn width(&self) -> f64 {
        self.high - self.low
    }
}

/// Moves the medians of equal blocks to the front, and says how many they are.
fn equal_blocks(numbers: &mut [f64]) -> usize {
    let len = numbers.len() / BLOCKS;
    let len = if len.is_multiple_of(2) {
        len.max(2) - 1
    } else {
        len
    };
    // What fills no block is left out at the start, nearest to the warm-up.
    let first = numbers.len() % len;
    let ends = (first + len..=numbers.len()).step_by(len);
    medians(numbers, first, ends)
}

/// Moves the medians of the blocks between `first` and each of `ends` to the front, and
/// says how many they are.
fn medians(numbers: &mut [f64], first: usize, ends: impl Iterator<Item = usize>) -> usize {
    let (mut start, mut count) = (first, 0);
    for end in ends {
        let block = &mut numbers[start..end];
        if !block.is_empty() {
            block.sort_unstable_by(f64::total_cmp);
            let middle = f64::midpoint(block[(block.len() - 1) / 2], block[block.len() / 2]);
            // There are no more medians than numbers before the block's end.
            numbers[count] = middle;
            count += 1;
        }
        start = end;
    }
    count
}

/// The interval of the median of what these were drawn from, each on its own.
fn order_statistics(numbers: &mut [f64], confidence: f64) -> Option<Interval> {
    let rank = rank(numbers.len(), (1.0 - confidence) / 2.0)?;
    numbers.sort_unstable_by(f64::total_cmp);
    Some(Interval {
        low: numbers[rank],
        high: numbers[numbers.len() - 1 - rank],
    })
}

/// The largest `k` for which at most `k` of `n` tosses of a coin are heads with a
/// probability of at most `tail`.
#[allow(clippy::cast_precision_loss)] // a number of samples
fn rank(n: usize, tail: f64) -> Option<usize> {
    if !(LEAST_TAIL..=0.5).contains(&tail) {
        return None;
    }
    // The probability of k heads, in parts of that of `middle`; of all k, the sum.
    let middle = n / 2;
    let fewer = |k: usize| k as f64 / (n - k + 1) as f64;
    let (mut weight, mut below) = (1.0, 0.0);
    for k in (1..=middle).rev() {
        weight *= fewer(k);
        below += weight;
        if weight < below * 1e-18 {
            break;
        }
    }
    let sum = match n % 2 {
        0 => 1.0 + 2.0 * below,
        _ => 2.0 * (1.0 + below),
    };
    let (mut k, mut weight, mut at_most) = (middle, 1.0, 1.0 + below);
    while at_most > tail * sum {
        at_most -= weight;
        weight *= fewer(k);
        k = k.checked_sub(1)?;
    }
    Some(k)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look random (xorshift64*).
    struct Random(u64);

    impl Random {
        /// From 0 to 1.
        fn uniform(&mut self) -> f64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
            bits as f64 / (1_u64 << 53) as f64
        }

        /// About normal.
        fn normal(&mut self) -> f64 {
            (0..4).map(|_| self.uniform()).sum::<f64>() - 2.0
        }
    }

    #[test]
    fn a_confidence_that_is_none_bounds_nothing() {
        for confidence in [-1.0, f64::NAN, 1.0, 2.0] {
            for numbers in [&[][..], &[1.0, 2.0]] {
                assert!(Interval::of_median(numbers, confidence).is_none());
            }
        }
    }

    #[test]
    fn ranks_are_those_of_tables() {
        // The binomial distribution's: P(B <= k) <= 0.025.
        for (n, k) in [(6, 0), (8, 0), (9, 1), (12, 2), (20, 5), (25, 7), (100, 39)] {
            assert_eq!(rank(n, 0.025), Some(k), "{n}");
        }
        assert_eq!(rank(8, 0.005), Some(0));
        for n in 0..6 {
            assert_eq!(rank(n, 0.025), None, "{n}");
        }
        // By the normal distribution: 500,000 - 1.96 * 500, and half of one less.
        assert_eq!(rank(1_000_000, 0.025), Some(499_019));
        for nonsense in [0.0, -1.0, f64::NAN] {
            assert_eq!(rank(1000, nonsense), None);
        }
    }

    #[test]
    fn blocks_are_odd_and_at_least_twelve() {
        for n in 6..3000 {
            let mut ones: Vec<f64> = vec![1.0; n];
            let count = equal_blocks(&mut ones);
            assert!(count >= n.min(BLOCKS), "{n}: {count}");
            assert!(count <= n.min(3 * BLOCKS), "{n}: {count}");
        }
        let mut numbers: Vec<f64> = (0..61).map(f64::from).collect();
        assert_eq!(equal_blocks(&mut numbers), 12);
        // The first is left out; 1 to 5 are a block.
        assert_eq!(numbers[..3], [3.0, 8.0, 13.0]);
    }

    #[test]
    fn parts_are_blocks_as_they_were_made() {
        // Within a part nothing varies; from part to part it does.
        let numbers: Vec<f64> = (0..60).map(|i| f64::from(i / 10)).collect();
        let ends: Vec<usize> = (1..=6).map(|part| part * 10).collect();
        let interval = |ends| Interval::of_parts(&numbers, ends, 0.95, &mut Vec::new());
        let (low, high) = (0.0, 5.0);
        assert_eq!(interval(&ends[..]), Some(Interval { low, high }));
        // Five parts are too few, however many numbers they have.
        let numbers = &numbers[..50];
        let five = Interval::of_parts(numbers, &ends[..5], 0.95, &mut Vec::new());
        assert_eq!(five, None);
    }

    #[test]
    fn what_has_no_ends_has_no_interval() {
        assert_eq!(Interval::of_median(&[], 0.95), None);
        assert_eq!(Interval::of_median(&[f64::NAN; 50], 0.95), None);
        assert_eq!(Interval::of_median(&[f64::INFINITY; 50], 0.95), None);
        assert_eq!(Interval::of_median(&[1.0; 50], 1.0), None);
        let ones = Interval::of_median(&[1.0; 50], 0.95).unwrap();
        assert_eq!((ones.low, ones.high, ones.width()), (1.0, 1.0, 0.0));
    }

    /// In how many of 1,000 races the interval holds the median.
    fn covers(rounds: usize, median: f64, mut draw: impl FnMut(&mut Random) -> f64) -> f64 {
        const RACES: u32 = 1000;
        let mut random = Random(0x5eed);
        let mut hits = 0;
        for _ in 0..RACES {
            let numbers: Vec<f64> = (0..rounds).map(|_| draw(&mut random)).collect();
            let interval = Interval::of_median(&numbers, 0.95).unwrap();
            hits += u32::from(interval.low <= median && median <= interval.high);
        }
        f64::from(hits) / f64::from(RACES)
    }

    #[test]
    fn independent_samples_are_covered_as_stated() {
        // As times are: a floor, and a long tail. The median of -ln(u) is ln(2).
        let skewed = |random: &mut Random| -random.uniform().max(1e-300).ln();
        for rounds in [6, 10, 30, 61, 200, 500] {
            let share = covers(rounds, std::f64::consts::LN_2, skewed);
            assert!((0.94..=0.995).contains(&share), "{rounds}: {share}");
        }
    }

    #[test]
    fn samples_that_follow_each_other_are_covered_as_stated() {
        // Slow and fast stretches of some ten rounds.
        let mut last = 0.0;
        let stretches = |random: &mut Random| {
            last = 0.9 * last + random.normal();
            last
        };
        let share = covers(1000, 0.0, stretches);
        assert!((0.93..=0.99).contains(&share), "{share}");

        // All rounds as if they were independent would not do.
        let (mut random, mut last, mut hits) = (Random(0x5eed), 0.0, 0);
        for _ in 0..200 {
            let mut numbers = [0.0; 600];
            for number in &mut numbers {
                last = 0.9 * last + random.normal();
                *number = last;
            }
            let plain = order_statistics(&mut numbers, 0.95).unwrap();
            hits += i32::from(plain.low <= 0.0 && 0.0 <= plain.high);
        }
        assert!(hits < 140, "{hits}");
    }
}
