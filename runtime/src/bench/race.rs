//! Candidates side by side.

use super::rounds;
use super::{Budget, Candidate, Interval, Spread, Verdict};
use crate::Error;

/// Runs all candidates in turn, round after round.
///
/// # Errors
///
/// The first that a candidate returns, and [`Error::OutOfMemory`] where the samples
/// of `max_rounds` have no room.
pub fn race(candidates: &mut [&mut dyn Candidate], budget: &Budget) -> Result<Race, Error> {
    Ok(rounds::run(candidates, budget, 0, None)?.0)
}

/// A race in parts, for each of which all candidates are made anew, so that what is said
/// of them is not of where their memory happened to lie: that moves the times of a
/// candidate by a few percent from one to the next, and no number of rounds shows it. The
/// budget is that of all parts together. [Intervals](Interval) take each part as a block:
/// 0.95 needs six, and nine leave one odd one out at either end. Candidates of the part
/// before are dropped only when those of the next are made.
///
/// Nobody drops out of it, and it has all its parts, whatever the budget says of
/// precision.
///
/// # Errors
///
/// As [`race`], what `make` returns, and [`Error::Run`] where it does not make as
/// many candidates each time.
pub fn race_sets<C: Candidate, E: From<Error>>(
    sets: usize,
    budget: &Budget,
    mut make: impl FnMut() -> Result<Vec<C>, E>,
) -> Result<Race, E> {
    let mut budget = Budget {
        drop_out: false,
        precision: 0.0,
        ..*budget
    };
    let sets = sets.max(1);
    let mut whole: Option<Race> = None;
    let mut kept = Vec::new();
    for set in 0..sets {
        let mut made = make()?;
        let first = whole.as_ref().map_or(0, Race::rounds);
        let part = budget.part(set, sets);
        let mut all: Vec<&mut dyn Candidate> = Vec::new();
        for candidate in &mut made {
            all.push(candidate);
        }
        let (race, _) = rounds::run(&mut all, &part, first, None)?;
        // Samples of all parts are alike.
        budget.runs = race.runs;
        match &mut whole {
            None => whole = Some(race),
            Some(whole) => whole.join(race)?,
        }
        kept = made;
    }
    drop(kept);
    Ok(whole.unwrap_or_else(|| Race::new(Vec::new(), budget.confidence)))
}

/// What came of a [`race`].
#[derive(Clone, Debug, PartialEq)]
pub struct Race {
    runs: u32,
    samples: Vec<Vec<f64>>,
    /// Where each part ends, of a race that has several.
    ends: Vec<usize>,
    confidence: f64,
}

impl Race {
    pub(super) const fn new(samples: Vec<Vec<f64>>, confidence: f64) -> Race {
        Race {
            runs: 1,
            samples,
            ends: Vec::new(),
            confidence,
        }
    }

    pub(super) const fn set_runs(&mut self, runs: u32) {
        self.runs = runs;
    }

    pub(super) fn push(&mut self, candidate: usize, time: f64) {
        self.samples[candidate].push(time);
    }

    /// Goes on with another part.
    fn join(&mut self, part: Race) -> Result<(), Error> {
        if part.samples.len() != self.samples.len() {
            return Err(Error::run(format!(
                "a race of {} candidates goes on with {}; make as many for each part",
                self.samples.len(),
                part.samples.len()
            )));
        }
        if self.ends.is_empty() {
            self.ends.push(self.rounds());
        }
        for (all, more) in self.samples.iter_mut().zip(part.samples) {
            all.extend(more);
        }
        self.ends.push(self.rounds());
        Ok(())
    }

    /// How many runs in a row a sample has.
    #[must_use]
    pub const fn runs_in_a_sample(&self) -> u32 {
        self.runs
    }

    /// How many candidates there are.
    #[must_use]
    pub const fn candidates(&self) -> usize {
        self.samples.len()
    }

    /// How many rounds there were.
    #[must_use]
    pub fn rounds(&self) -> usize {
        self.samples.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// How many times the candidates were made: 1, but for [`race_sets`].
    #[must_use]
    pub fn sets(&self) -> usize {
        self.ends.len().max(1)
    }

    /// A candidate's times of a run in nanoseconds, one for each round: of more than
    /// one run in a sample, their mean. Those until it dropped out; empty where there is
    /// no such candidate.
    #[must_use]
    pub fn samples(&self, candidate: usize) -> &[f64] {
        self.samples.get(candidate).map_or(&[], Vec::as_slice)
    }

    /// Whether a candidate [dropped out](Budget::drop_out).
    #[must_use]
    pub fn dropped_out(&self, candidate: usize) -> bool {
        self.samples(candidate).len() < self.rounds()
    }

    /// The candidate with the least median, among those that have not dropped out.
    #[must_use]
    pub fn fastest(&self) -> Option<usize> {
        let there = (0..self.candidates()).filter(|&i| !self.dropped_out(i));
        let medians = there.map(|i| (self.times(i).median, i));
        medians.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, i)| i)
    }

    /// A candidate's times of a run, in nanoseconds.
    #[must_use]
    pub fn times(&self, candidate: usize) -> Spread {
        Spread::of(self.samples(candidate))
    }

    /// How many times as long as `other` a candidate took, each round on its own, as far
    /// as both took part.
    #[must_use]
    pub fn ratios(&self, candidate: usize, other: usize) -> Spread {
        Spread::of(&self.all_ratios(candidate, other))
    }

    /// Between what bounds the median of a candidate's times lies, in nanoseconds. It
    /// holds what varied within this race; the next one may find the machine another. None
    /// where there are too few rounds to say it, or too few parts.
    #[must_use]
    pub fn interval(&self, candidate: usize) -> Option<Interval> {
        self.interval_of(self.samples(candidate))
    }

    /// Between what bounds the median of the [ratios](Self::ratios) lies.
    #[must_use]
    pub fn ratio_interval(&self, candidate: usize, other: usize) -> Option<Interval> {
        self.interval_of(&self.all_ratios(candidate, other))
    }

    /// What may be said of a candidate beside another.
    #[must_use]
    pub fn verdict(&self, candidate: usize, other: usize) -> Verdict {
        Verdict::of(self.ratio_interval(candidate, other))
    }

    /// The same samples, with intervals that hold the median in this share of all cases,
    /// such as 0.99, instead of what the budget said.
    #[must_use]
    pub const fn with_confidence(mut self, confidence: f64) -> Race {
        self.confidence = confidence;
        self
    }

    fn all_ratios(&self, candidate: usize, other: usize) -> Vec<f64> {
        let rounds = self.samples(candidate).iter().zip(self.samples(other));
        rounds.map(|(a, b)| a / b).collect()
    }

    fn interval_of(&self, numbers: &[f64]) -> Option<Interval> {
        Interval::of_parts(numbers, &self.ends, self.confidence, &mut Vec::new())
    }
}

#[cfg(test)]
mod tests;
