//! What may be said of two candidates.

use std::fmt;

use super::Interval;

/// What the interval of a ratio of times allows to be said of a candidate beside
/// another. Shares are of the other's time: 0.02 is two percent of it.
///
/// It is wrong as often as the confidence leaves: one in twenty, at 0.95, of the
/// verdicts on candidates that are the same. It is of these candidates in this race. To say it of
/// their code, each is to be [made anew](super::race_sets) several times, as where its
/// memory lies moves a time by a few percent.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// It takes less time.
    Faster {
        /// The share of the other's time by which it is less.
        by: Interval,
    },
    /// It takes more time.
    Slower {
        /// The share of the other's time by which it is more.
        by: Interval,
    },
    /// It may take as long, and there is no larger difference than this.
    Alike {
        /// The share of the other's time.
        within: f64,
    },
    /// There are too few rounds, or sets, to say anything.
    Open,
}

impl Verdict {
    /// That which the interval of a ratio allows.
    #[must_use]
    pub fn of(ratio: Option<Interval>) -> Verdict {
        match ratio {
            None => Verdict::Open,
            Some(Interval { low, high }) if high < 1.0 => Verdict::Faster {
                by: Interval {
                    low: 1.0 - high,
                    high: 1.0 - low,
                },
            },
            Some(Interval { low, high }) if low > 1.0 => Verdict::Slower {
                by: Interval {
                    low: low - 1.0,
                    high: high - 1.0,
                },
            },
            Some(Interval { low, high }) => Verdict::Alike {
                within: (1.0 - low).max(high - 1.0),
            },
        }
    }
}

impl Verdict {
    /// It in words, of candidates of these names: `B is 1.8 to 2.1 % slower than A`, `B is not
    /// told apart from A: the difference is below 0.7 %`. Percents are of the other's time.
    #[must_use]
    pub fn sentence(&self, candidate: &str, other: &str) -> String {
        let apart = format!("{candidate} is not told apart from {other}");
        match *self {
            Verdict::Faster { by } if by.low >= 0.5 => {
                let times = Times(1.0 / (1.0 - by.low), 1.0 / (1.0 - by.high));
                format!("{candidate} is {times} as fast as {other}")
            }
            Verdict::Faster { by } => {
                format!("{candidate} is {} faster than {other}", Percents(by))
            }
            Verdict::Slower { by } if by.low >= 1.0 => {
                let times = Times(1.0 + by.low, 1.0 + by.high);
                format!("{candidate} takes {times} as long as {other}")
            }
            Verdict::Slower { by } => {
                format!("{candidate} is {} slower than {other}", Percents(by))
            }
            Verdict::Alike { within } => {
                // What it is below is not rounded down.
                let decimals = decimals(within);
                let step = [1.0, 10.0, 100.0][decimals];
                let percent = ((within * 100.0 * step).floor() + 1.0) / step;
                format!("{apart}: the difference is below {percent:.decimals$} %")
            }
            Verdict::Open => format!("{apart}: there are too few rounds to say"),
        }
    }
}

/// Shares as percents.
struct Percents(Interval);

impl fmt::Display for Percents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Interval { low, high } = self.0;
        let decimals = decimals(high);
        let [low, high] = [low, high].map(|share| format!("{:.decimals$}", share * 100.0));
        if low == high {
            write!(f, "{high} %")
        } else {
            write!(f, "{low} to {high} %")
        }
    }
}

/// From so many times to so many.
struct Times(f64, f64);

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Times(low, high) = *self;
        let decimals = usize::from(high < 100.0);
        write!(f, "{low:.decimals$} to {high:.decimals$} times")
    }
}

/// How many a share has as a percentage: two digits, but no more than two decimals.
fn decimals(share: f64) -> usize {
    match share {
        0.1.. => 0,
        0.01.. => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_says_what_the_interval_allows_and_no_more() {
        let of = |low, high| Verdict::of(Some(Interval { low, high }));
        assert!(matches!(of(1.018, 1.021), Verdict::Slower { .. }));
        assert!(matches!(of(0.95, 0.999), Verdict::Faster { .. }));
        for (low, high) in [(0.999, 1.001), (1.0, 1.1), (0.9, 1.0), (1.0, 1.0)] {
            assert!(
                matches!(of(low, high), Verdict::Alike { .. }),
                "{low} {high}"
            );
        }
        assert_eq!(Verdict::of(None), Verdict::Open);
    }

    #[test]
    fn words_have_the_digits_that_count() {
        let says = |low, high| Verdict::of(Some(Interval { low, high })).sentence("B", "A");
        assert_eq!(says(1.018, 1.021), "B is 1.8 to 2.1 % slower than A");
        assert_eq!(says(0.99501, 0.99599), "B is 0.40 to 0.50 % faster than A");
        assert_eq!(says(0.6, 0.6), "B is 40 % faster than A");
        assert_eq!(says(0.25, 0.5), "B is 2.0 to 4.0 times as fast as A");
        assert_eq!(says(1.25, 1.5), "B is 25 to 50 % slower than A");
        assert_eq!(says(2.5, 3.04), "B takes 2.5 to 3.0 times as long as A");
        assert_eq!(
            says(447.7, 1130.8),
            "B takes 448 to 1131 times as long as A"
        );
        let below = "B is not told apart from A: the difference is below ";
        assert_eq!(says(0.998, 1.00615), format!("{below}0.62 %"));
        assert_eq!(says(0.9841, 1.0), format!("{below}1.6 %"));
        assert_eq!(says(0.876, 1.1), format!("{below}13 %"));
        assert_eq!(says(1.0, 1.0), format!("{below}0.01 %"));
        assert!(Verdict::Open.sentence("B", "A").contains("too few rounds"));
    }
}
