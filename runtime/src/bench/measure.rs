//! One candidate alone.

use super::rounds;
use super::{Budget, Candidate, Interval, Race, Spread};
use crate::Error;

/// Runs a candidate until its time is known as [precisely](Budget::precision) as the
/// budget asks for, or the budget is spent, or it is clearly slower than `cut_off`
/// nanoseconds a run: at least twice as long in each of three samples or more, or with the
/// whole interval above 1.01 of it.
///
/// `cut_off` is a time of another moment, at which the machine may have been faster: what is nearly
/// as fast is told apart in a [`race`](super::race()) alone.
///
/// ```
/// use svod_runtime::bench::{Budget, Ending, measure};
///
/// let budget = Budget { time: std::time::Duration::from_millis(5), ..Budget::to_within(0.01) };
/// let best = measure(&mut || Ok(()), &budget, None)?;
/// let mut slow = || {
///     std::thread::sleep(std::time::Duration::from_millis(1));
///     Ok(())
/// };
/// let other = measure(&mut slow, &budget, Some(best.times().median))?;
/// assert_eq!((other.ending(), other.samples().len()), (Ending::Slower, 3));
/// # Ok::<(), svod_runtime::Error>(())
/// ```
///
/// # Errors
///
/// As [`race`](super::race()).
pub fn measure(
    candidate: &mut dyn Candidate,
    budget: &Budget,
    cut_off: Option<f64>,
) -> Result<Measured, Error> {
    let (race, ending) = rounds::run(&mut [candidate], budget, 0, cut_off)?;
    Ok(Measured { race, ending })
}

/// Why a measurement ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The interval is as narrow as the budget asks for.
    Precise,
    /// Time, or the number of rounds, is spent.
    Spent,
    /// It is clearly slower than the time at which it was to be cut off.
    Slower,
}

/// What came of a [`measure`].
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    race: Race,
    ending: Ending,
}

impl Measured {
    pub(super) const fn new(race: Race, ending: Ending) -> Measured {
        Measured { race, ending }
    }

    /// Why it ended.
    #[must_use]
    pub const fn ending(&self) -> Ending {
        self.ending
    }

    /// How many runs in a row a sample has.
    #[must_use]
    pub const fn runs_in_a_sample(&self) -> u32 {
        self.race.runs_in_a_sample()
    }

    /// The times of a run in nanoseconds, one for each sample.
    #[must_use]
    pub fn samples(&self) -> &[f64] {
        self.race.samples(0)
    }

    /// The times of a run, in nanoseconds.
    #[must_use]
    pub fn times(&self) -> Spread {
        self.race.times(0)
    }

    /// Between what bounds their median lies, as [`Race::interval`].
    #[must_use]
    pub fn interval(&self) -> Option<Interval> {
        self.race.interval(0)
    }
}
