//! A schedule that learns what this machine is good at.
//!
//! Which ops are worth a second thread depends on what they cost here, which nobody knows
//! before they have run. So the first runs of an executable measure its ops, on one thread. From
//! that [schedules are proposed](super::scheduling), and the next runs try them in turn,
//! beside the serial one, as whole runs: what counts in the end is the time of a run, and not
//! what was predicted for it. The fastest is kept, and the serial one if none is clearly
//! faster. All give the same bits, so that nobody sees it but by the clock.
//!
//! From then on a run in [`CHECK_EVERY`] is measured again, and where it has long become
//! another machine, or other work, all starts anew.

mod explain;
mod json;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use explain::ScheduleExplanation;

use super::replay::Script;
use super::scheduling::{Cost, Overheads, bound, propose};
use super::{Plan, Schedule};
use crate::Error;

/// How many runs measure the ops before schedules are proposed. What an op costs is its
/// least time in these: the first comes with cold caches.
const COST_RUNS: u32 = 4;

/// How often each schedule is tried; the first does not count, as it may have to start or
/// wake the team.
const TRIALS: usize = 8;

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

/// How an executable comes to its schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheduling {
    /// It is learned in the first runs, and checked now and then.
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
    threads: usize,
    /// Whether runs are asked to measure something, and what they follow otherwise.
    asks: AtomicBool,
    version: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    current: Arc<Script>,
    /// The plan's own order.
    serial: Arc<Script>,
    stage: Stage,
    learned: Option<LearnedSchedule>,
    /// What the ops took together when they were last learned, and how many checks in a row
    /// found something else.
    work: f64,
    changes: u32,
}

#[derive(Debug)]
enum Stage {
    /// The schedule is the caller's, or the plan's.
    Fixed,
    Measuring {
        runs: u32,
        nanos: Vec<f64>,
    },
    Racing {
        candidates: Vec<Candidate>,
        next: usize,
        nanos: Vec<f64>,
        bound: f64,
    },
    Settled,
}

#[derive(Debug)]
struct Candidate {
    script: Arc<Script>,
    nanos: Vec<f64>,
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
    /// All of it, as the candidate of this number.
    Run(usize),
    /// Its ops, to see whether they have changed.
    Check,
}

impl Measure {
    /// Whether each op is measured.
    pub(super) fn is_of_ops(self) -> bool {
        matches!(self, Measure::Ops | Measure::Check)
    }
}

impl Learner {
    /// One that has nothing to learn.
    pub(super) fn fixed(script: Arc<Script>) -> Learner {
        Learner::new(1, script.clone(), script, Stage::Fixed)
    }

    /// One that learns for runs of so many threads.
    pub(super) fn learning(threads: usize, serial: Arc<Script>) -> Learner {
        let stage = Stage::Measuring {
            runs: 0,
            nanos: Vec::new(),
        };
        Learner::new(threads, serial.clone(), serial, stage)
    }

    /// One that goes on from what was learned before.
    pub(super) fn learned(
        learned: LearnedSchedule,
        script: Arc<Script>,
        serial: Arc<Script>,
    ) -> Learner {
        let learner = Learner::new(learned.threads, script, serial, Stage::Settled);
        let mut state = learner.lock();
        state.work = learned.op_nanos.iter().sum();
        state.learned = Some(learned);
        drop(state);
        learner
    }

    fn new(threads: usize, current: Arc<Script>, serial: Arc<Script>, stage: Stage) -> Learner {
        Learner {
            threads,
            asks: AtomicBool::new(matches!(stage, Stage::Measuring { .. })),
            version: AtomicU32::new(0),
            state: Mutex::new(State {
                current,
                serial,
                stage,
                learned: None,
                work: 0.0,
                changes: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a run should ask for a [trial](Self::trial).
    #[inline]
    pub(super) fn asks(&self) -> bool {
        self.asks.load(Ordering::Relaxed)
    }

    /// Which script is the current one: another number for another script.
    #[inline]
    pub(super) fn version(&self) -> u32 {
        self.version.load(Ordering::Relaxed)
    }

    pub(super) fn current(&self) -> Arc<Script> {
        self.lock().current.clone()
    }

    pub(super) fn report(&self) -> Option<LearnedSchedule> {
        self.lock().learned.clone()
    }

    /// After how many runs an instance has one measured again.
    pub(super) fn check_every(&self) -> Option<u32> {
        let fixed = matches!(self.lock().stage, Stage::Fixed);
        (!fixed && CHECK_EVERY > 0).then_some(CHECK_EVERY)
    }

    /// What the next run is to try; None where it is to follow the current script.
    pub(super) fn trial(&self, check: bool) -> Option<Trial> {
        let mut state = self.lock();
        let state = &mut *state;
        let (script, measure) = match &mut state.stage {
            Stage::Fixed => return None,
            Stage::Measuring { .. } => (&state.serial, Measure::Ops),
            Stage::Racing {
                candidates, next, ..
            } => {
                let number = *next % candidates.len();
                *next += 1;
                (&candidates[number].script, Measure::Run(number))
            }
            Stage::Settled if check => (&state.current, Measure::Check),
            Stage::Settled => return None,
        };
        Some(Trial {
            script: script.clone(),
            measure,
        })
    }

    /// What a run that went well came to: how long it took, and each op, where these were
    /// measured. `parts` says in how many parts an op can be cut in runs like this.
    pub(super) fn learn(
        &self,
        measure: Measure,
        took: Duration,
        ops: &[f64],
        plan: &Plan,
        parts: &dyn Fn(usize) -> u32,
        script: &dyn Fn(Schedule) -> Result<Script, Error>,
    ) {
        let mut state = self.lock();
        let state = &mut *state;
        match (measure, &mut state.stage) {
            (Measure::Ops, Stage::Measuring { runs, nanos }) => {
                if nanos.is_empty() {
                    nanos.extend_from_slice(ops);
                }
                for (least, nanos) in nanos.iter_mut().zip(ops) {
                    *least = least.min(*nanos);
                }
                *runs += 1;
                if *runs >= COST_RUNS {
                    let nanos = std::mem::take(nanos);
                    state.propose(plan, nanos, self.threads, parts, script);
                }
            }
            (Measure::Run(number), Stage::Racing { candidates, .. }) => {
                let nanos = &mut candidates[number].nanos;
                nanos.push(took.as_nanos() as f64);
                if candidates.iter().all(|c| c.nanos.len() >= TRIALS) {
                    state.settle(plan, self.threads);
                }
            }
            (Measure::Check, Stage::Settled) => {
                let work: f64 = ops.iter().sum();
                let ratio = work / state.work.max(1.0);
                if (1.0 / CHANGED..CHANGED).contains(&ratio) {
                    state.changes = 0;
                } else {
                    state.changes += 1;
                }
                if state.changes >= CHANGES {
                    state.changes = 0;
                    state.stage = Stage::Measuring {
                        runs: 0,
                        nanos: Vec::new(),
                    };
                }
            }
            // It began before others had settled the matter.
            _ => {}
        }
        let asks = matches!(state.stage, Stage::Measuring { .. } | Stage::Racing { .. });
        self.asks.store(asks, Ordering::Relaxed);
        if !asks {
            self.version.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl State {
    /// Goes over to trying schedules, if there are any to try.
    fn propose(
        &mut self,
        plan: &Plan,
        nanos: Vec<f64>,
        threads: usize,
        parts: &dyn Fn(usize) -> u32,
        script: &dyn Fn(Schedule) -> Result<Script, Error>,
    ) {
        let cost = |(op, &nanos): (usize, &f64)| Cost {
            nanos,
            parts: parts(op),
        };
        let costs: Vec<_> = nanos.iter().enumerate().map(cost).collect();
        self.work = nanos.iter().sum();
        let candidate = |script| Candidate {
            script,
            nanos: Vec::new(),
        };
        let mut candidates = vec![candidate(self.serial.clone())];
        let mut of = threads;
        while of > 1 {
            let proposal = propose(plan, &costs, of, &Overheads::default());
            let known = |c: &Candidate| *c.script.schedule() == proposal.schedule;
            if !candidates.iter().any(known)
                && plan.check_schedule(&proposal.schedule).is_ok()
                && let Ok(script) = script(proposal.schedule)
                && !script.is_serial()
            {
                candidates.push(candidate(Arc::new(script)));
            }
            of /= 2;
        }
        self.stage = Stage::Racing {
            candidates,
            next: 0,
            bound: bound(plan, &costs, threads),
            nanos,
        };
    }

    /// Keeps the fastest.
    fn settle(&mut self, plan: &Plan, threads: usize) {
        let Stage::Racing {
            candidates,
            nanos,
            bound,
            ..
        } = std::mem::replace(&mut self.stage, Stage::Settled)
        else {
            return;
        };
        let times: Vec<_> = candidates.iter().map(|c| typical(&c.nanos)).collect();
        let fastest = (1..times.len()).min_by(|&a, &b| times[a].total_cmp(&times[b]));
        let kept = match fastest {
            Some(fastest) if times[fastest] < times[0] * WORTH => fastest,
            _ => 0,
        };
        self.current = candidates[kept].script.clone();
        self.learned = Some(LearnedSchedule {
            plan: plan.name.clone(),
            cpu: cpu_name(),
            threads,
            schedule: self.current.schedule().clone(),
            op_nanos: nanos,
            serial_nanos: times[0],
            nanos: times[kept],
            tried_nanos: fastest.map(|fastest| times[fastest]),
            bound_nanos: bound,
        });
    }
}

/// The lower quartile of all but the first: what a run takes where nothing comes between,
/// and no stroke of luck.
fn typical(nanos: &[f64]) -> f64 {
    let mut sorted = nanos.get(1..).unwrap_or_default().to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 4).copied().unwrap_or(f64::MAX)
}

/// The processor, as the system names it; empty where it does not.
pub(crate) fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = |line: &str| {
        let (key, value) = line.split_once(':')?;
        let known = ["model name", "Processor", "CPU part"].contains(&key.trim());
        known.then(|| value.trim().to_owned())
    };
    info.lines().find_map(name).unwrap_or_default()
}
