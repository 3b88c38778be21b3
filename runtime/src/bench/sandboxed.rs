//! Candidates that may be bad code.
//!
//! Each is launched once in the sandbox, with guarded arguments; those that come to their end there
//! are measured in a child, over their arguments as they lie. A candidate that ends that child, as
//! one may that goes wrong only now and then, is left out, and the others are measured anew.

use std::sync::atomic::Ordering;

use super::rounds::{Entrants, Field};
use super::{Budget, Candidate, Ending, Measured, Race};
use crate::Error;
use crate::sandbox::{CrashIsolation, Launch, Numbers, Outcome, Repeated};

/// What came of a [`race_in`] a sandbox.
#[derive(Debug)]
pub struct Screened {
    /// The race. A candidate that took no part in it, or not to the end, has no samples, and
    /// counts as [dropped out](Race::dropped_out).
    pub race: Race,
    /// Who did not complete, and why.
    pub bad: Vec<(usize, Outcome)>,
}

/// As [`race`](super::race()), of launches that nobody vouches for, in children of this process:
/// those that crash, hang or fail are left out and reported. Runs are on one thread. What the
/// launches write stays in the children, but for [shared](crate::Buffer::shared) arguments.
///
/// ```
/// use svod_runtime::bench::{Budget, race_in};
/// use svod_runtime::sandbox::{CrashIsolation, Launch, Limits};
/// # use svod_runtime::{Buffer, DType, Runtime, Signature, Source};
/// # let runtime = Runtime::new()?;
/// # let load = |text: &str| {
/// #     let signature = Signature::builder().read_write(DType::I32, 64).build()?;
/// #     runtime.load_untrusted(&Source::c("f", text), signature)
/// # };
/// let good = load("void f(int *x) { for (int i = 0; i < 64; i++) x[i] += 1; }")?;
/// let bad = load("void f(int *x) { for (int i = 0; i < 64; i++) x[1 << i] += 1; }")?;
/// let (mut a, mut b) = (Buffer::zeroed(DType::I32, 64)?, Buffer::zeroed(DType::I32, 64)?);
/// let mut launches = [
///     Launch::new(&bad, vec![(&mut a).into()], &[], 1),
///     Launch::new(&good, vec![(&mut b).into()], &[], 1),
/// ];
/// let sandbox = CrashIsolation::new(Limits::default());
/// let screened = race_in(&sandbox, &mut launches, &Budget::rounds(10))?;
/// assert_eq!(screened.race.fastest(), Some(1));
/// let (candidate, why) = &screened.bad[0];
/// println!("candidate {candidate} is left out: {why}");
/// # Ok::<(), svod_runtime::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::OutOfMemory`] where the samples have no room, and as [`CrashIsolation::run`].
pub fn race_in(
    sandbox: &CrashIsolation,
    launches: &mut [Launch<'_>],
    budget: &Budget,
) -> Result<Screened, Error> {
    let (screened, _) = screened(sandbox, launches, budget, None)?;
    Ok(screened)
}

/// As [`measure`](super::measure()), of a launch that nobody vouches for, in a child of this
/// process; how it ended, where it did not complete.
///
/// # Errors
///
/// As [`race_in`].
pub fn measure_in(
    sandbox: &CrashIsolation,
    launch: Launch<'_>,
    budget: &Budget,
    cut_off: Option<f64>,
) -> Result<Result<Measured, Outcome>, Error> {
    let (mut screened, ending) = screened(sandbox, &mut [launch], budget, cut_off)?;
    Ok(match screened.bad.pop() {
        Some((_, outcome)) => Err(outcome),
        None => Ok(Measured::new(screened.race, ending)),
    })
}

fn screened(
    sandbox: &CrashIsolation,
    launches: &mut [Launch<'_>],
    budget: &Budget,
    cut_off: Option<f64>,
) -> Result<(Screened, Ending), Error> {
    let mut bad = Vec::new();
    let mut good = Vec::new();
    for (i, outcome) in sandbox.screen(launches)?.into_iter().enumerate() {
        match outcome {
            Outcome::Completed { .. } => good.push(i),
            outcome => bad.push((i, outcome)),
        }
    }
    loop {
        let nobody = vec![Vec::new(); launches.len()];
        let mut race = Race::new(nobody, budget.confidence);
        if good.is_empty() {
            return Ok((Screened { race, bad }, Ending::Spent));
        }
        match in_child(sandbox, launches, &good, budget, cut_off)? {
            Ok((samples, runs, ending)) => {
                race.set_runs(runs);
                for (&i, samples) in good.iter().zip(samples) {
                    samples.into_iter().for_each(|time| race.push(i, time));
                }
                return Ok((Screened { race, bad }, ending));
            }
            Err((i, outcome)) => {
                good.retain(|&g| g != i);
                bad.push((i, outcome));
            }
        }
    }
}

/// Samples of each candidate, how many runs a sample had, and why the race ended.
type Raced = (Vec<Vec<f64>>, u32, Ending);

fn in_child(
    sandbox: &CrashIsolation,
    launches: &[Launch<'_>],
    which: &[usize],
    budget: &Budget,
    cut_off: Option<f64>,
) -> Result<Result<Raced, (usize, Outcome)>, Error> {
    /// Runs in a sample, how the race ended, and of each candidate how many samples; then these.
    const HEAD: usize = 2;
    let rounds = budget.max_rounds.max(budget.min_rounds).max(1);
    let head = HEAD + which.len();
    let room = which.len().saturating_mul(rounds).saturating_add(head);
    let told = Numbers::new(room)?;
    let told = told.all();
    let mut field = Field::new(which.len(), budget, cut_off)?;
    let bad = sandbox.repeat(launches, which, &mut |mut repeated| {
        let Ok(ending) = field.run(&mut repeated, budget, 0) else {
            return;
        };
        let tell = |i: usize, number: u64| {
            if let Some(place) = told.get(i) {
                place.store(number, Ordering::Relaxed);
            }
        };
        tell(0, field.race.runs_in_a_sample().into());
        tell(1, ending as u64);
        for i in 0..which.len() {
            let samples = field.race.samples(i);
            tell(HEAD + i, samples.len() as u64);
            for (round, time) in samples.iter().enumerate() {
                tell(head + i * rounds + round, time.to_bits());
            }
        }
    })?;
    if let Some(bad) = bad {
        return Ok(Err(bad));
    }
    let number = |i: usize| told.get(i).map_or(0, |n| n.load(Ordering::Relaxed));
    let samples = (0..which.len()).map(|i| {
        let count = usize::try_from(number(HEAD + i)).unwrap_or(0).min(rounds);
        let times = (0..count).map(|round| f64::from_bits(number(head + i * rounds + round)));
        times.collect()
    });
    let ending = [Ending::Precise, Ending::Spent, Ending::Slower]
        .into_iter()
        .find(|ending| *ending as u64 == number(1))
        .unwrap_or(Ending::Spent);
    let runs = u32::try_from(number(0)).unwrap_or(1).max(1);
    Ok(Ok((samples.collect(), runs, ending)))
}

impl Entrants for &mut [Repeated<'_, '_, '_>] {
    fn count(&self) -> usize {
        self.len()
    }

    fn at(&mut self, i: usize) -> &mut dyn Candidate {
        &mut self[i]
    }
}

impl Candidate for Repeated<'_, '_, '_> {
    fn prepare(&mut self) -> Result<(), Error> {
        self.begin();
        Ok(())
    }

    fn run(&mut self) -> Result<(), Error> {
        Repeated::run(self);
        Ok(())
    }
}
