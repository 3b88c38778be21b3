//! Times of what is run again and again, side by side.
//!
//! A busy machine slows whatever runs on it, in stretches that are longer than a
//! run. So candidates take turns: in each round each of them is run, one round
//! after the other, and what is compared are the times of one round. Over the
//! rounds each candidate follows each other one as often, since what ran before
//! leaves its traces in caches and branch predictors.
//!
//! A time is that of a sample: as many runs in a row as the clock needs to tell
//! them from its own cost, the same number for all candidates. In front of each
//! sample a candidate is [prepared](Candidate::prepare), which is not timed. While
//! a sample is taken, nothing is allocated here.
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
//! # Ok::<(), svod_runtime::Error>(())
//! ```

use std::time::{Duration, Instant};

use crate::Error;
use crate::bundle::Bundle;
use crate::memory::View;
use crate::plan::{Executable, Instance, Plan, Run, Trace};

/// What takes part in a [`race`]. A closure `FnMut() -> Result<(), Error>` does, as
/// one that needs no preparation.
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
}

impl<F: FnMut() -> Result<(), Error>> Candidate for F {
    fn run(&mut self) -> Result<(), Error> {
        self()
    }
}

/// How long a [`race`] goes on. Times are by the clock on the wall, for each
/// candidate: of three, three times as much passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

impl Default for Budget {
    /// 0.2 s of warm-up and 1 s that counts, in 10 to 10,000 rounds. Samples of 20
    /// µs: an empty one takes some 20 ns, a thousandth of it.
    fn default() -> Budget {
        Budget {
            warm_up: Duration::from_millis(200),
            time: Duration::from_secs(1),
            min_rounds: 10,
            max_rounds: 10_000,
            sample: Duration::from_micros(20),
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
}

/// No sample has more runs than this, however short they are.
const MAX_RUNS: u32 = 1 << 20;

/// Runs all candidates in turn, round after round.
///
/// # Errors
///
/// The first that a candidate returns, and [`Error::OutOfMemory`] where the samples
/// of `max_rounds` have no room.
pub fn race(candidates: &mut [&mut dyn Candidate], budget: &Budget) -> Result<Race, Error> {
    let count = candidates.len();
    let share = u32::try_from(count).unwrap_or(u32::MAX);
    let max_rounds = budget.max_rounds.max(budget.min_rounds).max(1);
    let mut samples = Vec::new();
    for _ in 0..count {
        let mut times = Vec::new();
        times
            .try_reserve_exact(max_rounds)
            .map_err(|_| Error::OutOfMemory {
                what: format!("the samples of {max_rounds} rounds"),
                bytes: max_rounds.saturating_mul(size_of::<f64>()),
            })?;
        samples.push(times);
    }

    let start = Instant::now();
    for round in 0.. {
        for turn in 0..count {
            sample(candidates[whose_turn(round, turn, count)], 1)?;
        }
        if start.elapsed() >= budget.warm_up.saturating_mul(share) {
            break;
        }
    }
    let runs = runs_in_a_row(candidates, budget.sample)?;

    let start = Instant::now();
    for round in 0..max_rounds {
        for turn in 0..count {
            let i = whose_turn(round, turn, count);
            let time = sample(candidates[i], runs)?;
            samples[i].push(time.as_secs_f64() * 1e9 / f64::from(runs));
        }
        if round + 1 >= budget.min_rounds && start.elapsed() >= budget.time.saturating_mul(share) {
            break;
        }
    }
    Ok(Race { runs, samples })
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

/// How many runs a sample needs so that the fastest candidate's lasts for `enough`:
/// found by samples that grow until they do.
fn runs_in_a_row(candidates: &mut [&mut dyn Candidate], enough: Duration) -> Result<u32, Error> {
    let mut runs = 1;
    while !enough.is_zero() && runs < MAX_RUNS {
        let mut fastest = Duration::MAX;
        for candidate in &mut *candidates {
            fastest = fastest.min(sample(*candidate, runs)?);
        }
        if fastest >= enough {
            break;
        }
        runs = more_runs(runs, fastest, enough);
    }
    Ok(runs)
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

/// Which of `count` candidates is run in a round's turn. Over `2 * count` rounds each
/// is run twice in each turn, and twice right after each other one: a Williams
/// square, with every second row read backwards.
const fn whose_turn(round: usize, turn: usize, count: usize) -> usize {
    let turn = if round % 2 == 1 {
        count - 1 - turn
    } else {
        turn
    };
    // 0, the last, 1, the last but one, 2, …
    let zigzag = if turn % 2 == 0 {
        turn / 2
    } else {
        count - turn.div_ceil(2)
    };
    (zigzag + round / 2 % count) % count
}

/// What came of a [`race`].
#[derive(Clone, Debug, PartialEq)]
pub struct Race {
    runs: u32,
    samples: Vec<Vec<f64>>,
}

impl Race {
    /// How many runs in a row a sample has.
    #[must_use]
    pub const fn runs_in_a_sample(&self) -> u32 {
        self.runs
    }

    /// A candidate's times of a run in nanoseconds, one for each round: of more than
    /// one run in a sample, their mean. Empty where there is no such candidate.
    #[must_use]
    pub fn samples(&self, candidate: usize) -> &[f64] {
        self.samples.get(candidate).map_or(&[], Vec::as_slice)
    }

    /// A candidate's times of a run, in nanoseconds.
    #[must_use]
    pub fn times(&self, candidate: usize) -> Spread {
        Spread::of(self.samples(candidate))
    }

    /// How many times as long as `other` a candidate took, each round on its own.
    #[must_use]
    pub fn ratios(&self, candidate: usize, other: usize) -> Spread {
        let rounds = self.samples(candidate).iter().zip(self.samples(other));
        Spread::of(&rounds.map(|(a, b)| a / b).collect::<Vec<_>>())
    }
}

/// Where numbers lie, and how far apart: NaN in each field, if there are none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// A quarter of them lies below.
    pub lower: f64,
    /// Half of them lies below.
    pub median: f64,
    /// Three quarters of them lie below.
    pub upper: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of these numbers, in any order.
    #[must_use]
    pub fn of(numbers: &[f64]) -> Spread {
        let mut sorted = numbers.to_vec();
        sorted.sort_by(f64::total_cmp);
        Spread {
            min: quantile(&sorted, 0),
            lower: quantile(&sorted, 1),
            median: quantile(&sorted, 2),
            upper: quantile(&sorted, 3),
            max: quantile(&sorted, 4),
        }
    }
}

/// So many quarters of the way from the first to the last; between two numbers, in
/// proportion.
fn quantile(sorted: &[f64], quarters: usize) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let (at, rest) = (last * quarters / 4, last * quarters % 4);
    let next = sorted[(at + 1).min(last)];
    #[allow(clippy::cast_precision_loss)] // 0 to 3
    let part = rest as f64 / 4.0;
    sorted[at] + (next - sorted[at]) * part
}

/// An instance that takes part in a race. Each sample starts from the initial states;
/// of several runs in a sample, each finds the states that the one before has left.
#[derive(Debug)]
pub struct Replay<'a> {
    plan: &'a Plan,
    instance: Instance,
    /// In the plan's order.
    variables: Vec<i64>,
}

impl<'a> Replay<'a> {
    /// A new instance whose inputs are zeros, with each variable at its minimum.
    ///
    /// # Errors
    ///
    /// As [`Executable::instance`].
    pub fn new(executable: &'a Executable) -> Result<Replay<'a>, Error> {
        let mut instance = executable.instance()?;
        for input in executable.plan().inputs() {
            // What is given of it are the zeros with which it was born.
            instance.input(input.name.as_deref().unwrap_or_default())?;
        }
        let variables = executable.plan().variables();
        Ok(Replay {
            plan: executable.plan(),
            instance,
            variables: variables.iter().map(|v| v.min).collect(),
        })
    }

    /// The instance, as its last run left it.
    #[must_use]
    pub const fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The variables and what was chosen for them, in the plan's order.
    pub fn variables(&self) -> impl Iterator<Item = (&'a str, i64)> {
        let variables = self.plan.variables().iter().zip(&self.variables);
        variables.map(|(variable, value)| (variable.name.as_str(), *value))
    }

    /// Gives it the inputs and variables of a recorded run, of a bundle whose executable
    /// it is an instance of. What the run leaves out is given as by those before.
    ///
    /// # Errors
    ///
    /// [`Error::Run`] where there is no such test; whatever reading its files may
    /// return.
    pub fn set_test(&mut self, bundle: &Bundle, test: usize) -> Result<(), Error> {
        let tests = bundle.tests();
        let Some(tests) = tests.get(..=test) else {
            return Err(Error::run(format!(
                "there is no recorded test {test}; there are {}, counted from 0",
                tests.len()
            )));
        };
        for test in tests {
            test.give(&mut self.instance)?;
            for (name, value) in &test.variables {
                self.set_variable(name, *value)?;
            }
        }
        Ok(())
    }

    /// Copies an input's elements from the caller.
    ///
    /// # Errors
    ///
    /// As [`Instance::set_input`].
    pub fn set_input(&mut self, name: &str, elements: View<'_>) -> Result<(), Error> {
        self.instance.set_input(name, elements)
    }

    /// Runs until the executable has learned its schedule, but no more than `most` runs, each
    /// from the initial states; says whether nothing is left to learn.
    ///
    /// # Errors
    ///
    /// As [`run`](Candidate::run).
    pub fn learn(&mut self, most: usize) -> Result<bool, Error> {
        for _ in 0..most {
            if !self.instance.executable().is_learning() {
                break;
            }
            self.prepare()?;
            self.run()?;
        }
        Ok(!self.instance.executable().is_learning())
    }

    /// Runs once from the initial states, and has the trace say what ran when.
    ///
    /// # Errors
    ///
    /// As [`run`](Candidate::run).
    pub fn trace(&mut self, trace: &mut Trace) -> Result<(), Error> {
        self.prepare()?;
        self.trace_on(trace)
    }

    /// As [`trace`](Self::trace), from the states that the last run left.
    ///
    /// # Errors
    ///
    /// As [`run`](Candidate::run).
    pub fn trace_on(&mut self, trace: &mut Trace) -> Result<(), Error> {
        self.instance.run_with(Run {
            variables: &self.variables,
            trace: Some(trace),
            ..Run::default()
        })
    }

    /// Chooses a variable.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`] where there is no such variable, [`Error::Run`] where it does
    /// not take the value.
    pub fn set_variable(&mut self, name: &str, value: i64) -> Result<(), Error> {
        let i = self.plan.find_variable(name)?;
        self.plan.check_variable(i, value)?;
        self.variables[i] = value;
        Ok(())
    }
}

impl Candidate for Replay<'_> {
    fn prepare(&mut self) -> Result<(), Error> {
        self.instance.reset();
        Ok(())
    }

    fn run(&mut self) -> Result<(), Error> {
        self.instance.run_with(Run {
            variables: &self.variables,
            ..Run::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn quartiles_lie_between_numbers_in_proportion() {
        let spread = |numbers: &[f64]| {
            let s = Spread::of(numbers);
            [s.min, s.lower, s.median, s.upper, s.max]
        };
        assert_eq!(spread(&[3.0]), [3.0; 5]);
        assert_eq!(
            spread(&[5.0, 1.0, 4.0, 2.0, 3.0]),
            [1.0, 2.0, 3.0, 4.0, 5.0]
        );
        assert_eq!(
            spread(&[40.0, 10.0, 30.0, 20.0]),
            [10.0, 17.5, 25.0, 32.5, 40.0]
        );
        // One slow round moves nothing but the maximum.
        assert_eq!(spread(&[1.0, 1.0, 1.0, 1.0, 1e9])[..4], [1.0; 4]);
        assert!(spread(&[]).iter().all(|v| v.is_nan()));
    }

    #[test]
    fn ratios_are_of_each_round_on_its_own() {
        // The machine is ten times slower in every second round; candidate 1 takes
        // twice as long in all of them, but for one in which it was disturbed.
        let race = Race {
            runs: 1,
            samples: vec![
                vec![1.0, 10.0, 1.0, 10.0, 1.0],
                vec![2.0, 20.0, 2.0, 20.0, 200.0],
            ],
        };
        let ratio = race.ratios(1, 0);
        assert_eq!((ratio.lower, ratio.median, ratio.upper), (2.0, 2.0, 2.0));
        assert_eq!(ratio.max, 200.0);
        assert_eq!(race.ratios(0, 0).median, 1.0);
        assert!(race.times(2).median.is_nan() && race.samples(2).is_empty());
    }

    #[test]
    fn each_follows_each_other_as_often() {
        for count in 1..8 {
            let mut after = vec![vec![0; count]; count];
            let mut in_turn = vec![vec![0; count]; count];
            for round in 0..2 * count {
                let order: Vec<_> = (0..count).map(|t| whose_turn(round, t, count)).collect();
                for (turn, &candidate) in order.iter().enumerate() {
                    in_turn[turn][candidate] += 1;
                }
                for pair in order.windows(2) {
                    after[pair[1]][pair[0]] += 1;
                }
            }
            for (i, row) in after.iter().enumerate() {
                assert!(in_turn[i].iter().all(|&n| n == 2), "{count}: {in_turn:?}");
                let mut others = row.iter().enumerate().filter(|(j, _)| *j != i);
                assert!(others.all(|(_, &n)| n == 2), "{count}: {after:?}");
            }
        }
    }

    #[test]
    fn a_sample_has_as_many_runs_as_the_clock_needs() {
        let nanos = Duration::from_nanos;
        let more = |runs, took, enough| more_runs(runs, nanos(took), nanos(enough));
        assert_eq!(more(1, 19_999, 20_000), 2);
        assert_eq!(more(1, 4_000, 20_000), 5);
        assert_eq!(more(5, 350, 20_000), 40, "no more than eight times as many");
        assert_eq!(more(40, 2_800, 20_000), 286);
        assert_eq!(more(1, 0, 20_000), 8);
        assert_eq!(more(MAX_RUNS / 2, 1, u64::MAX), MAX_RUNS);
        // What lasts for long enough is run once.
        let mut slow = || {
            let start = Instant::now();
            while start.elapsed() < nanos(10_000) {}
            Ok(())
        };
        assert_eq!(runs_in_a_row(&mut [&mut slow], nanos(10_000)).unwrap(), 1);
    }

    /// Notes what is done with it.
    struct Witness<'a>(char, &'a RefCell<String>);

    impl Candidate for Witness<'_> {
        fn prepare(&mut self) -> Result<(), Error> {
            self.1.borrow_mut().push(self.0.to_ascii_uppercase());
            Ok(())
        }

        fn run(&mut self) -> Result<(), Error> {
            self.1.borrow_mut().push(self.0);
            Ok(())
        }
    }

    /// A budget that no clock has a say in.
    fn rounds(rounds: usize) -> Budget {
        Budget {
            warm_up: Duration::ZERO,
            sample: Duration::ZERO,
            ..Budget::rounds(rounds)
        }
    }

    #[test]
    fn candidates_are_prepared_before_each_sample_and_take_turns() {
        let log = RefCell::new(String::new());
        let (mut a, mut b) = (Witness('a', &log), Witness('b', &log));
        let race = race(&mut [&mut a, &mut b], &rounds(3)).unwrap();
        // A round of warm-up, and three that count.
        assert_eq!(*log.borrow(), "AaBb AaBb BbAa BbAa".replace(' ', ""));
        assert_eq!(race.runs_in_a_sample(), 1);
        for i in 0..2 {
            assert_eq!(race.samples(i).len(), 3);
            assert!(race.samples(i).iter().all(|t| *t >= 0.0));
        }
    }

    #[test]
    fn the_budget_says_how_many_rounds() {
        let run_for = |budget: &Budget| {
            let race = race(&mut [&mut || Ok(())], budget).unwrap();
            race.samples(0).len()
        };
        let no_time = Budget {
            time: Duration::ZERO,
            ..rounds(0)
        };
        let at_least = |min_rounds| Budget {
            min_rounds,
            max_rounds: 10_000,
            ..no_time
        };
        assert_eq!(run_for(&at_least(7)), 7);
        assert_eq!(run_for(&at_least(0)), 1);
        let all_time = Budget {
            time: Duration::MAX,
            max_rounds: 13,
            ..no_time
        };
        assert_eq!(run_for(&all_time), 13);
        assert!(race(&mut [], &rounds(3)).unwrap().samples(0).is_empty());
    }

    #[test]
    fn a_failure_ends_the_race() {
        let mut runs = 0;
        let mut fails = || {
            runs += 1;
            if runs < 3 {
                Ok(())
            } else {
                Err(Error::run("it is broken"))
            }
        };
        let error = race(&mut [&mut fails], &rounds(10)).unwrap_err();
        assert!(error.to_string().contains("broken"));
        assert_eq!(runs, 3);
        let too_many = race(&mut [&mut || Ok(())], &rounds(usize::MAX)).unwrap_err();
        assert!(matches!(too_many, Error::OutOfMemory { .. }), "{too_many}");
    }
}
