//! Times of what is run again and again, alone or side by side, and what may be said of them.
//!
//! A busy machine slows whatever runs on it, in stretches that are longer than a
//! run. So candidates take turns: in each round each of them is run, one round
//! after the other, and what is compared are the times of one round. Over the
//! rounds each candidate follows each other one as often, since what ran before
//! leaves its traces in caches and branch predictors.
//!
//! A time is that of a sample: as many runs in a row as the clock needs to tell
//! them from its own cost, the same number for all candidates. In front of each
//! sample a candidate is [prepared](Candidate::prepare), which is not timed. Once the
//! first sample is taken, nothing is allocated here.
//!
//! What is said of times are medians, and between what bounds they lie: an [`Interval`]
//! without any assumption about how times are distributed, and with one about how they
//! depend on each other: slow stretches are shorter than a twelfth of the race, or, where
//! ratios are asked for, slow whole rounds. A [`Verdict`] says that a candidate is faster or
//! slower only where the interval of the ratio allows it.
//!
//! ```
//! use svod_runtime::bench::{Budget, race};
//!
//! let (mut a, mut b) = (Vec::new(), Vec::new());
//! let mut push = || {
//!     a.push(1);
//!     Ok(())
//! };
//! let mut insert = || {
//!     b.insert(0, 1);
//!     Ok(())
//! };
//! let race = race(&mut [&mut push, &mut insert], &Budget::rounds(100))?;
//! println!("inserted in {:.0} ns, ", race.times(1).median);
//! println!("{:.1} times as long as pushed", race.ratios(1, 0).median);
//! println!("{}", race.verdict(1, 0).sentence("to insert", "to push"));
//! # Ok::<(), svod_runtime::Error>(())
//! ```
//!
//! A tuner asks which of many is the fastest, and wants to know soon of those that are not:
//!
//! ```
//! # use std::time::Duration;
//! # use svod_runtime::bench::{Budget, race};
//! # let (mut a, mut b) = (|| Ok(()), || Ok(()));
//! let budget = Budget {
//!     warm_up: Duration::ZERO,
//!     time: Duration::from_millis(1),
//!     precision: 0.02,
//!     drop_out: true,
//!     ..Budget::default()
//! };
//! let race = race(&mut [&mut a, &mut b], &budget)?;
//! println!("{:?} is the fastest", race.fastest());
//! # Ok::<(), svod_runtime::Error>(())
//! ```

mod budget;
mod caches;
mod interval;
mod measure;
mod race;
mod replay;
mod rounds;
mod sandboxed;
mod spread;
mod turns;
mod verdict;

pub use budget::{Budget, CONFIDENCE};
pub use caches::{Cold, Sweep};
pub use interval::Interval;
pub use measure::{Ending, Measured, measure};
pub use race::{Race, race, race_sets};
pub use replay::Replay;
pub use sandboxed::{Screened, measure_in, race_in};
pub use spread::Spread;
pub use verdict::Verdict;

use crate::Error;
use crate::pool::{Pool, PreparedLaunch};

/// What takes part in a [`race`], or is [measured](measure()). A closure
/// `FnMut() -> Result<(), Error>` does, as one that needs no preparation.
pub trait Candidate {
    /// Gets ready for a sample; not timed.
    ///
    /// # Errors
    ///
    /// Whatever stands in the way. It ends the race.
    fn prepare(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// What is timed: one run.
    ///
    /// # Errors
    ///
    /// As [`prepare`](Self::prepare).
    fn run(&mut self) -> Result<(), Error>;

    /// Whether each run is to be prepared, so that a sample is one run, of all candidates.
    fn runs_once(&self) -> bool {
        false
    }

    /// The pool whose threads share a run, if any does.
    fn pool(&self) -> Option<&Pool> {
        None
    }
}

impl<F: FnMut() -> Result<(), Error>> Candidate for F {
    fn run(&mut self) -> Result<(), Error> {
        self()
    }
}

/// One kernel, on this thread or on a pool.
impl Candidate for PreparedLaunch<'_> {
    fn run(&mut self) -> Result<(), Error> {
        PreparedLaunch::run(self)
    }

    fn pool(&self) -> Option<&Pool> {
        Some(PreparedLaunch::pool(self))
    }
}
