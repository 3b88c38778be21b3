//! Samples taken in turn: what a race and a measurement have in common.

use std::time::{Duration, Instant};

use super::interval::Interval;
use super::turns::whose_turn;
use super::{Budget, Candidate, Ending, Race};
use crate::Error;

/// No sample has more runs than this, however short they are.
const MAX_RUNS: u32 = 1 << 20;

/// Before so many rounds, nobody is clearly slower.
const FEW_ROUNDS: usize = 3;
/// So many times as long in each of a few rounds is clear.
const FAR: f64 = 2.0;
/// So many times as long is clear where the interval of the ratio says it.
const NEAR: f64 = 1.01;

/// Runs all candidates in turn, from round `first` of the order on. With a `cut_off`, in
/// nanoseconds, the first one's time is held against it.
pub(super) fn run(
    mut candidates: &mut [&mut dyn Candidate],
    budget: &Budget,
    first: usize,
    cut_off: Option<f64>,
) -> Result<(Race, Ending), Error> {
    let mut field = Field::new(candidates.len(), budget, cut_off)?;
    let ending = field.run(&mut candidates, budget, first)?;
    Ok((field.race, ending))
}

/// Candidates, of one type or of several.
pub(super) trait Entrants {
    fn count(&self) -> usize;
    /// One that there is.
    fn at(&mut self, i: usize) -> &mut dyn Candidate;
}

impl Entrants for &mut [&mut dyn Candidate] {
    fn count(&self) -> usize {
        self.len()
    }

    fn at(&mut self, i: usize) -> &mut dyn Candidate {
        self[i]
    }
}

/// Who is in the race, and how it has gone.
pub(super) struct Field {
    pub(super) race: Race,
    /// Who has not dropped out.
    there: Vec<usize>,
    /// Of each candidate's last sample that does not count.
    took: Vec<Duration>,
    looks: Looks,
    cut_off: Option<f64>,
}

impl Field {
    pub(super) fn new(count: usize, budget: &Budget, cut_off: Option<f64>) -> Result<Field, Error> {
        let rounds = budget.max_rounds.max(budget.min_rounds).max(1);
        let looks = budget.drop_out || budget.precision > 0.0 || cut_off.is_some();
        let mut samples = Vec::with_capacity(count);
        for _ in 0..count {
            samples.push(room(rounds)?);
        }
        Ok(Field {
            race: Race::new(samples, budget.confidence),
            there: (0..count).collect(),
            took: vec![Duration::MAX; count],
            looks: Looks {
                next: if looks { FEW_ROUNDS } else { usize::MAX },
                ratios: room(if looks { rounds } else { 0 })?,
                scratch: room(if looks { rounds } else { 0 })?,
            },
            cut_off,
        })
    }

    /// Runs all candidates in turn, from round `first` of the order on. Nothing is allocated
    /// here.
    pub(super) fn run(
        &mut self,
        candidates: &mut dyn Entrants,
        budget: &Budget,
        first: usize,
    ) -> Result<Ending, Error> {
        self.warm_up(candidates, budget)?;
        let runs = match budget.runs {
            _ if (0..candidates.count()).any(|i| candidates.at(i).runs_once()) => 1,
            0 => self.runs_in_a_row(candidates, budget.sample)?,
            runs => runs,
        };
        self.race.set_runs(runs);
        self.race(candidates, budget, first)
    }

    /// Rounds that do not count.
    fn warm_up(&mut self, candidates: &mut dyn Entrants, budget: &Budget) -> Result<(), Error> {
        let count = candidates.count();
        let start = Instant::now();
        for round in 0.. {
            for turn in 0..count {
                sample(candidates.at(whose_turn(round, turn, count)), 1)?;
            }
            if start.elapsed() >= times(budget.warm_up, count) {
                break;
            }
        }
        Ok(())
    }

    /// How many runs a sample needs so that the fastest candidate's lasts for `enough`:
    /// found by samples that grow until they do. Whoever's sample has lasted for so long
    /// is not asked again.
    fn runs_in_a_row(
        &mut self,
        candidates: &mut dyn Entrants,
        enough: Duration,
    ) -> Result<u32, Error> {
        let mut runs = 1;
        self.took.fill(Duration::ZERO);
        while !enough.is_zero() && runs < MAX_RUNS {
            for (i, took) in self.took.iter_mut().enumerate() {
                if *took < enough {
                    *took = sample(candidates.at(i), runs)?;
                }
            }
            let fastest = self.took.iter().min().copied();
            match fastest.filter(|took| *took < enough) {
                None => break,
                Some(fastest) => runs = more_runs(runs, fastest, enough),
            }
        }
        Ok(runs)
    }

    /// Rounds that count.
    fn race(
        &mut self,
        candidates: &mut dyn Entrants,
        budget: &Budget,
        first: usize,
    ) -> Result<Ending, Error> {
        let max_rounds = budget.max_rounds.max(budget.min_rounds).max(1);
        let runs = self.race.runs_in_a_sample();
        let start = Instant::now();
        for rounds in 1..=max_rounds {
            let count = self.there.len();
            for turn in 0..count {
                let i = self.there[whose_turn(first + rounds - 1, turn, count)];
                let time = sample(candidates.at(i), runs)?;
                let time = time.as_secs_f64() * 1e9 / f64::from(runs);
                self.race.push(i, time);
            }
            let enough = rounds >= budget.min_rounds;
            if let Some(ending) = self.look(rounds, enough, budget) {
                return Ok(ending);
            }
            if enough && start.elapsed() >= times(budget.time, self.there.len()) {
                break;
            }
        }
        Ok(Ending::Spent)
    }

    /// Looks, where it is time to, who is clearly slower, and whether all is known.
    fn look(&mut self, rounds: usize, enough: bool, budget: &Budget) -> Option<Ending> {
        if rounds < self.looks.next {
            return None;
        }
        // Each further look is another chance to be wrong, and takes time.
        self.looks.next = rounds + (rounds / 4).max(1);
        let (race, looks) = (&self.race, &mut self.looks);
        if let Some(limit) = self.cut_off
            && looks.is_slower(race.samples(0).iter().map(|time| time / limit), budget)
        {
            return Some(Ending::Slower);
        }
        if budget.drop_out && self.there.len() > 1 {
            let best = looks.fastest(race, &self.there)?;
            self.there.retain(|&i| {
                let rounds = race.samples(i).iter().zip(race.samples(best));
                i == best || !looks.is_slower(rounds.map(|(a, b)| a / b), budget)
            });
        }
        let alone = self.there.len() == 1 && race.candidates() > 1;
        if !enough {
            return None;
        }
        let mut there = self.there.iter();
        if budget.precision > 0.0 && there.all(|&i| looks.is_precise(race.samples(i), budget)) {
            return Some(Ending::Precise);
        }
        alone.then_some(Ending::Spent)
    }
}

/// What a look needs, with room for all rounds.
struct Looks {
    /// After how many rounds.
    next: usize,
    ratios: Vec<f64>,
    scratch: Vec<f64>,
}

impl Looks {
    /// Who of these has the least median.
    fn fastest(&mut self, race: &Race, of: &[usize]) -> Option<usize> {
        let medians = of.iter().map(|&i| (self.median(race.samples(i)), i));
        medians.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, i)| i)
    }

    /// Whether these ratios say that it is clearly slower than what they are to.
    fn is_slower(&mut self, ratios: impl Iterator<Item = f64>, budget: &Budget) -> bool {
        self.ratios.clear();
        self.ratios.extend(ratios);
        if self.ratios.iter().all(|ratio| *ratio >= FAR) {
            return true;
        }
        let confidence = budget.confidence;
        let interval = Interval::of_parts(&self.ratios, &[], confidence, &mut self.scratch);
        interval.is_some_and(|interval| interval.low > NEAR)
    }

    /// Whether the interval of these times is as narrow as asked for.
    fn is_precise(&mut self, times: &[f64], budget: &Budget) -> bool {
        let interval = Interval::of_parts(times, &[], budget.confidence, &mut self.scratch);
        interval.is_some_and(|interval| interval.width() <= self.median(times) * budget.precision)
    }

    fn median(&mut self, times: &[f64]) -> f64 {
        self.scratch.clear();
        self.scratch.extend_from_slice(times);
        let middle = times.len() / 2;
        *self
            .scratch
            .select_nth_unstable_by(middle, f64::total_cmp)
            .1
    }
}

/// Room for so many numbers.
fn room(rounds: usize) -> Result<Vec<f64>, Error> {
    let mut numbers = Vec::new();
    let reserved = numbers.try_reserve_exact(rounds);
    reserved.map_err(|_| Error::OutOfMemory {
        what: format!("the samples of {rounds} rounds"),
        bytes: rounds.saturating_mul(size_of::<f64>()),
    })?;
    Ok(numbers)
}

fn times(time: Duration, count: usize) -> Duration {
    time.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}

/// What `runs` runs in a row take.
fn sample(candidate: &mut dyn Candidate, runs: u32) -> Result<Duration, Error> {
    candidate.prepare()?;
    let start = Instant::now();
    for _ in 0..runs {
        candidate.run()?;
    }
    Ok(start.elapsed())
}

/// How many runs to try after so many took less than `enough`. At most eight times as
/// many: a first sample finds cold caches, and says little of those after it.
fn more_runs(runs: u32, took: Duration, enough: Duration) -> u32 {
    let needed = u128::from(runs).saturating_mul(enough.as_nanos());
    let needed = needed.div_ceil(took.as_nanos().max(1));
    let needed = u32::try_from(needed).unwrap_or(MAX_RUNS);
    let most = runs.saturating_mul(8).min(MAX_RUNS);
    needed.clamp((runs + 1).min(most), most)
}

#[cfg(test)]
mod tests;
