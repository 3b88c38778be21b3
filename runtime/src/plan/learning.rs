//! A schedule that learns what this machine is good at.
//!
//! Which ops are worth a second thread depends on what they cost here, which nobody knows
//! before they have run. So the first runs of an executable measure its ops, on one thread. From
//! that [schedules are proposed](super::scheduling), and the next runs try them in turn,
//! beside the serial one, as whole runs: what counts in the end is the time of a run, and not
//! what was predicted for it. The fastest is kept, and the serial one if none is clearly
//! faster. All give the same bits, so that nobody sees it but by the clock.
//!
//! From then on a run in [`CHECK_EVERY`] is measured again. Where the work has become other
//! work, all starts anew, and in any case after [`CHECKS`]: the machine may have been busy
//! when it was measured, or is now.
//!
//! What runs follow hangs on a hook of its own, for which a run looks at a number and no more.
//! [Other code](code) comes to runs by the same hook, since a script keeps its code.

mod code;
mod explain;
mod json;
mod race;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockWriteGuard};
use std::sync::{TryLockError, TryLockResult};
use std::time::Duration;

pub use explain::ScheduleExplanation;

use super::replay::Script;
use super::{Plan, Schedule};
use race::{Race, race, typical};

/// How many runs measure the ops before schedules are proposed. What an op costs is its
/// least time in these: the first comes with cold caches.
const COST_RUNS: u32 = 4;

/// What of the serial run's time a schedule may take at most to be kept, of 1. Below the 3 %
/// by which several threads must never be slower, above the noise of a quiet machine. 0 keeps
/// none.
const WORTH: f64 = 0.98;

/// After how many runs of an instance one is measured again. Measuring costs some 60 ns an
/// op, which is then less than a tenth of a nanosecond per op and run. 0 measures none.
const CHECK_EVERY: u32 = 1024;

/// By which factor a run's work must have changed, in [`CHANGES`] checks one after another, to
/// learn anew: more than what a busy neighbour does to it in passing.
const CHANGED: f64 = 1.5;
const CHANGES: u32 = 3;

/// After how many checks all is learned anew, in the two dozen runs that this takes: with
/// [`CHECK_EVERY`], less than 0.4 % of all runs. Where the serial order has won over another
/// it is after one check first, then two, and so on up to this: with another program on the
/// machine it wins for a while. [`u32::MAX`] leaves it at what was learned.
const CHECKS: u32 = 8;

/// How often a run tries the lock of the current script, some microseconds in all. Who has it
/// has no more to do than to clone or to write a pointer, but may have lost its CPU; or be gone,
/// in a forked process.
const LOOKS: usize = 256;

/// How an executable comes to its schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheduling {
    /// It is learned in the first runs, and checked now and then: some runs in each thousand are
    /// measured, and a few in ten thousand learn anew, for which memory is allocated. Where
    /// no run may, a schedule is [fixed](super::Executable::with_schedule).
    #[default]
    Learned,
    /// Runs are on the calling thread, in the plan's own order.
    Off,
}

/// What was learned: a schedule, for whom, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct LearnedSchedule {
    /// The plan's name.
    pub plan: String,
    /// The processor, as the system names it.
    pub cpu: String,
    /// How many threads a run may have.
    pub threads: usize,
    /// The schedule.
    pub schedule: Schedule,
    /// What each op costs on one thread, in nanoseconds.
    pub op_nanos: Vec<f64>,
    /// What a run took on one thread, in nanoseconds.
    pub serial_nanos: f64,
    /// What a run takes with the schedule, in nanoseconds.
    pub nanos: f64,
    /// What a run takes with the fastest of the schedules for several threads that were
    /// tried, in nanoseconds, whether it is this one or was not worth it; `None` where there
    /// was none to try.
    pub tried_nanos: Option<f64>,
    /// What it could take at best, by the costs of the ops: the work shared by all threads, or
    /// the longest path, with each launch shared as far as its grid goes.
    pub bound_nanos: f64,
}

/// What the runs of an executable have taught.
#[derive(Debug)]
pub(super) struct Learner {
    /// The plan's name.
    plan: String,
    threads: usize,
    /// Whether runs are asked to measure something, and what they follow otherwise.
    asks: AtomicBool,
    /// Whether runs are measured again now and then.
    checks: bool,
    /// How often `current` was exchanged, counted after the exchange.
    version: AtomicU32,
    /// What runs follow that try nothing. Held for as long as it takes to clone or to exchange
    /// it, and locked after `state` where both are.
    current: RwLock<Arc<Script>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The plan's own order. Its code is the code that is learned about.
    serial: Arc<Script>,
    /// Whether nothing is to be learned about the code that there is.
    waits: bool,
    stage: Stage,
    learned: Option<LearnedSchedule>,
    races: u32,
    /// What the ops took together, in nanoseconds, at the first check with this schedule; how
    /// many checks in a row found something else, and how many there were.
    work: f64,
    changes: u32,
    checks: u32,
    /// How often in a row the serial order has won over another.
    losses: u32,
}

#[derive(Debug)]
enum Stage {
    /// The schedule is the caller's, or the plan's.
    Fixed,
    /// `asked` runs were to measure the ops, `runs` did.
    Measuring {
        asked: u32,
        runs: u32,
        nanos: Vec<f64>,
    },
    /// A run is making schedules to try.
    Proposing,
    Racing(Race),
    Settled,
}

impl Stage {
    const fn start() -> Stage {
        Stage::Measuring {
            asked: 0,
            runs: 0,
            nanos: Vec::new(),
        }
    }
}

/// What a run is asked for.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) script: Arc<Script>,
    pub(super) measure: Measure,
}

/// What of a run is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// Its ops, on one thread, to learn.
    Ops,
    /// All of it.
    Run(Tried),
    /// Its ops, to see whether they have changed.
    Check,
}

/// Which candidate of which race a run has tried, and whether that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tried {
    race: u32,
    candidate: usize,
    counts: bool,
}

impl Measure {
    /// Whether each op is measured.
    pub(super) fn is_of_ops(self) -> bool {
        matches!(self, Measure::Ops | Measure::Check)
    }
}

impl Learner {
    /// One that has nothing to learn.
    pub(super) fn fixed(plan: &Plan, script: Arc<Script>) -> Learner {
        Learner::new(plan, 1, script.clone(), script, Stage::Fixed)
    }

    /// One that learns for runs of so many threads.
    pub(super) fn learning(plan: &Plan, threads: usize, serial: Arc<Script>) -> Learner {
        Learner::new(plan, threads, serial.clone(), serial, Stage::start())
    }

    /// One that goes on from what was learned before.
    pub(super) fn learned(
        plan: &Plan,
        learned: LearnedSchedule,
        script: Arc<Script>,
        serial: Arc<Script>,
    ) -> Learner {
        let learner = Learner::new(plan, learned.threads, script, serial, Stage::Settled);
        learner.lock().learned = Some(learned);
        learner
    }

    fn new(
        plan: &Plan,
        threads: usize,
        current: Arc<Script>,
        serial: Arc<Script>,
        stage: Stage,
    ) -> Learner {
        Learner {
            plan: plan.name.clone(),
            threads,
            asks: AtomicBool::new(matches!(stage, Stage::Measuring { .. })),
            checks: !matches!(stage, Stage::Fixed) && CHECK_EVERY > 0,
            version: AtomicU32::new(0),
            current: RwLock::new(current),
            state: Mutex::new(State {
                serial,
                waits: false,
                stage,
                learned: None,
                races: 0,
                work: 0.0,
                changes: 0,
                checks: 0,
                losses: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`lock`](Self::lock), if nobody else has it: runs do not wait for each other, and in
    /// a forked process one who has it may be gone.
    fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Whether a run should ask for a [trial](Self::trial).
    #[inline]
    pub(super) fn asks(&self) -> bool {
        self.asks.load(Ordering::Relaxed)
    }

    /// Which script is the current one: another number for another script. Who then asks for
    /// it gets that one, or one that is newer still.
    #[inline]
    pub(super) fn version(&self) -> u32 {
        // Of the exchange that the number counts, nothing may be seen later than the number.
        self.version.load(Ordering::Acquire)
    }

    /// The current script, for a run, which does not wait for others: there is none where
    /// someone who is exchanging it does not come to an end.
    #[cold]
    pub(super) fn try_current(&self) -> Option<Arc<Script>> {
        let current = look(|| self.current.try_read());
        Some(current?.clone())
    }

    pub(super) fn current(&self) -> Arc<Script> {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has runs follow another script. Who does it has the lock of the state.
    fn exchange(&self, mut current: RwLockWriteGuard<'_, Arc<Script>>, script: Arc<Script>) {
        let before = std::mem::replace(&mut *current, script);
        drop(current);
        // After the exchange, with all that comes before: see `version`.
        self.version.fetch_add(1, Ordering::Release);
        drop(before);
    }

    pub(super) fn report(&self) -> Option<LearnedSchedule> {
        self.lock().learned.clone()
    }

    /// After how many runs an instance has one measured again.
    pub(super) fn check_every(&self) -> Option<u32> {
        self.checks.then_some(CHECK_EVERY)
    }

    /// What the next run is to try; None where it is to follow the current script.
    pub(super) fn trial(&self, check: bool) -> Option<Trial> {
        let mut state = self.try_lock()?;
        if state.waits {
            return None;
        }
        let current;
        let (script, measure) = match &mut state.stage {
            Stage::Fixed | Stage::Proposing => return None,
            // Those that fail do not count, and are not asked for ever.
            Stage::Measuring { asked, .. } if *asked >= 4 * COST_RUNS => {
                state.stage = Stage::Settled;
                self.asks.store(false, Ordering::Relaxed);
                return None;
            }
            Stage::Measuring { asked, .. } => {
                *asked += 1;
                (&state.serial, Measure::Ops)
            }
            Stage::Racing(race) => match race.next() {
                Some((candidate, counts)) => {
                    let measure = Measure::Run(Tried {
                        race: race.number,
                        candidate,
                        counts,
                    });
                    (&race.candidates[candidate].script, measure)
                }
                // The last of them failed, or is not back yet.
                None => {
                    self.settle(&mut state);
                    return None;
                }
            },
            Stage::Settled if check => {
                current = self.try_current()?;
                (&current, Measure::Check)
            }
            Stage::Settled => return None,
        };
        Some(Trial {
            script: script.clone(),
            measure,
        })
    }

    /// What the ops of a run took that followed `serial`, in nanoseconds, on one thread.
    /// `parts` says in how many parts an op can be cut in runs like this.
    pub(super) fn learn_ops(
        &self,
        serial: &Arc<Script>,
        ops: Vec<f64>,
        plan: &Plan,
        parts: &dyn Fn(usize) -> u32,
    ) {
        let op_nanos = {
            let Some(mut state) = self.try_lock() else {
                return;
            };
            // Of other code, it says nothing.
            if !Arc::ptr_eq(serial, &state.serial) {
                return;
            }
            let Stage::Measuring { runs, nanos, .. } = &mut state.stage else {
                return;
            };
            *runs += 1;
            if nanos.is_empty() {
                *nanos = ops;
            } else {
                for (least, nanos) in nanos.iter_mut().zip(&ops) {
                    *least = least.min(*nanos);
                }
            }
            if *runs < COST_RUNS {
                return;
            }
            let nanos = std::mem::take(nanos);
            state.stage = Stage::Proposing;
            nanos
        };
        // Without the lock: it may take some milliseconds.
        let mut race = race(plan, op_nanos, self.threads, serial, parts);
        let mut state = self.lock();
        // All starts anew for code that came meanwhile.
        if !Arc::ptr_eq(serial, &state.serial) {
            return;
        }
        state.races = state.races.wrapping_add(1);
        race.number = state.races;
        state.stage = Stage::Racing(race);
    }

    /// What a run took that has tried a candidate.
    pub(super) fn learn_run(&self, tried: Tried, took: Duration) {
        let Some(mut state) = self.try_lock() else {
            return;
        };
        let Stage::Racing(race) = &mut state.stage else {
            return;
        };
        if race.number == tried.race
            && tried.counts
            && let Some(candidate) = race.candidates.get_mut(tried.candidate)
        {
            candidate.nanos.push(took.as_nanos() as f64);
        }
        if race.is_done() {
            self.settle(&mut state);
        }
    }

    /// Keeps the fastest.
    fn settle(&self, state: &mut State) {
        let Stage::Racing(race) = &state.stage else {
            return;
        };
        let times: Vec<_> = race.candidates.iter().map(|c| typical(&c.nanos)).collect();
        let fastest = (1..times.len()).min_by(|&a, &b| times[a].total_cmp(&times[b]));
        let kept = match fastest {
            Some(fastest) if times[fastest] < times[0] * WORTH => fastest,
            _ => 0,
        };
        let lost = kept == 0 && fastest.is_some();
        let script = race.candidates[kept].script.clone();
        // Where every run failed, nothing was learned.
        let learned = (times[0] < f64::MAX).then(|| LearnedSchedule {
            plan: self.plan.clone(),
            cpu: cpu_name(),
            threads: self.threads,
            schedule: script.schedule().clone(),
            op_nanos: race.op_nanos.clone(),
            serial_nanos: times[0],
            nanos: times[kept],
            tried_nanos: fastest
                .map(|fastest| times[fastest])
                .filter(|t| *t < f64::MAX),
            bound_nanos: race.bound,
        });
        // Where it cannot be had, the next run comes here again.
        let Some(current) = look(|| self.current.try_write()) else {
            return;
        };
        if let Some(learned) = &learned {
            let LearnedSchedule {
                plan,
                threads,
                serial_nanos,
                nanos,
                ..
            } = learned;
            tracing::debug!(plan, threads, serial_nanos, nanos, "a schedule is learned");
        }
        self.exchange(current, script);
        state.losses = if lost { state.losses + 1 } else { 0 };
        state.work = 0.0;
        state.learned = learned;
        state.stage = Stage::Settled;
        self.asks.store(false, Ordering::Relaxed);
    }

    /// What the ops of a run took together that followed `script`.
    pub(super) fn check(&self, script: &Arc<Script>, work: Duration) {
        let Some(mut state) = self.try_lock() else {
            return;
        };
        let state = &mut *state;
        let is_current = |current| Arc::ptr_eq(script, &current);
        if !matches!(state.stage, Stage::Settled) || !self.try_current().is_some_and(is_current) {
            return;
        }
        let work = work.as_nanos() as f64;
        if state.work == 0.0 {
            state.work = work;
        }
        let ratio = work / state.work.max(1.0);
        match (1.0 / CHANGED..CHANGED).contains(&ratio) {
            true => state.changes = 0,
            false => state.changes += 1,
        }
        state.checks += 1;
        let enough = match state.losses {
            0 => CHECKS,
            losses => CHECKS.min(1 << (losses - 1).min(31)),
        };
        if state.changes >= CHANGES || state.checks >= enough {
            (state.changes, state.checks) = (0, 0);
            state.stage = Stage::start();
            self.asks.store(true, Ordering::Relaxed);
        }
    }
}

/// Tries a lock some times.
fn look<G>(mut lock: impl FnMut() -> TryLockResult<G>) -> Option<G> {
    for _ in 0..LOOKS {
        match lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
        }
    }
    None
}

/// The processor, as the system names it; empty where it does not.
pub(crate) fn cpu_name() -> String {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(read_cpu_name).clone()
}

fn read_cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = |line: &str| {
        let (key, value) = line.split_once(':')?;
        let known = ["model name", "Processor", "CPU part"].contains(&key.trim());
        known.then(|| value.trim().to_owned())
    };
    info.lines().find_map(name).unwrap_or_default()
}
