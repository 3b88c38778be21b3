//! One run: what it is given, which schedule it follows, and what it has measured.

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::builder::as_grid;
use super::super::learning::{Measure, Trial};
use super::super::replay::{Asked, Watch};
use super::super::run::{Bound, check_overlap};
use super::super::storage::Storage;
use super::super::{Executable, Op, Run};
use super::Instance;
use crate::Error;
use crate::memory::Guard;
use crate::pool::DefaultFloatEnv;

impl Instance {
    /// Runs the plan as `run` asks, with the variables that the instance has. An error of a kernel
    /// is without [names](super::super::Plan::with_names).
    pub(super) fn walk(&mut self, run: &mut Run<'_, '_>) -> Result<(), Error> {
        if let Some(trace) = &mut run.trace {
            trace.clear();
        }
        if self.is_torn() {
            return Err(Error::Torn);
        }
        let _run = tracing::trace_span!("run", plan = self.executable.plan().name()).entered();
        self.bind(run)?;
        if !self.computed {
            let replay = self.executable.replay();
            replay.compute(&mut self.frames, &self.variables)?;
            self.computed = true;
        }

        self.look();
        let _default = DefaultFloatEnv::enter();
        let guarded = self.executable.guard() != Guard::Off || self.bound.iter().any(|b| b.guarded);
        let trial = match guarded || self.observer.is_some() || run.timings.is_some() {
            true => None,
            false => self.trial(),
        };
        let measures_ops = trial.as_ref().is_some_and(|t| t.measure.is_of_ops());
        let script = trial.as_ref().map_or(&self.script, |trial| &trial.script);
        self.generation = script.code().generation();

        let mut trace = run.trace.take();
        let is_watched = guarded || self.observer.is_some();
        let with_team = script.is_shared() && self.executable.pool().threads() > 1 && !is_watched;
        if let Some(trace) = &mut trace {
            trace.begin(script, with_team, trial.is_some());
        }
        let start = trial.is_some().then(Instant::now);
        let Instance {
            frames,
            storage,
            torn,
            running,
            observer,
            hint,
            clocks,
            executable,
            ..
        } = self;
        let slack = |op| check_slack(executable, storage, run, op);
        let asked = Asked {
            cancel: run.cancel,
            deadline: run.deadline,
            clocks: (measures_ops || run.timings.is_some()).then_some(&*clocks),
            spans: trace.as_ref().map(|trace| trace.open()),
        };
        let mut watch = Watch {
            before: observer.as_mut().map(|o| &mut *o.0 as _),
            after: guarded.then_some(&slack),
        };
        let running = Running::start(running);
        let (plan, pool) = (executable.plan(), executable.pool());
        // SAFETY: the plan was checked when it was built: every argument is
        // within its buffer, aligned, long enough, and overlaps no other
        // that is written; temps that share bytes live at different times; scalars and
        // grids were proved to stay in bounds for all variables, and those of this run
        // are within theirs; what has no bounds was vouched for when the executable was
        // made. Memory of the caller's was checked to be as good, and is borrowed by
        // the run. Instance and executable own the rest, which no one else uses
        // while `self` is borrowed. Who loaded the kernels vouched for them, and the script,
        // which the instance or the trial keeps until the run is over, keeps them. A script
        // that breaks the plan is not a shared one, and whoever made it vouched for it.
        let result = unsafe {
            if with_team {
                script.run_with_team(plan, frames, torn, asked, (pool, hint))
            } else if watch.is_idle() && asked.is_nothing() {
                script.run(plan, frames, torn)
            } else {
                script.run_watched(plan, frames, torn, &asked, &mut watch)
            }
        };
        drop(running);
        if let Some(trace) = trace {
            trace.end();
        }
        if trial.is_some() || run.timings.is_some() {
            let took = start.map_or_else(Default::default, |start| start.elapsed());
            self.account(run, trial.filter(|_| result.is_ok()), took);
        }
        result
    }

    /// Brings the script up to date: another schedule was learned, or there is other code.
    #[inline]
    pub(super) fn look(&mut self) {
        let learner = self.executable.learner();
        let version = learner.version();
        if self.version != version
            && let Some(script) = learner.try_current()
        {
            (self.script, self.version) = (script, version);
        }
    }

    /// What this run is to try, if the executable has something to learn.
    #[inline]
    fn trial(&mut self) -> Option<Trial> {
        let learner = self.executable.learner();
        let check = match &mut self.check_in {
            None => false,
            Some(1) => {
                self.check_in = learner.check_every();
                true
            }
            Some(runs) => {
                *runs -= 1;
                false
            }
        };
        let trial = (check || learner.asks()).then(|| learner.trial(check))??;
        // Where this run could not look, code that is newer still is for the next: with that of
        // one trial and without it in the next, it would come and go.
        Arc::ptr_eq(trial.script.code(), self.script.code()).then_some(trial)
    }

    /// Hands over what a run has measured.
    #[cold]
    fn account(&mut self, run: &mut Run<'_, '_>, trial: Option<Trial>, took: Duration) {
        let plan = self.executable.plan();
        let mut nanos = Vec::new();
        if trial.as_ref().is_some_and(|t| t.measure == Measure::Ops) {
            nanos.resize(plan.ops.len(), 0.0);
        }
        let mut work = Duration::ZERO;
        for (op, time) in self.clocks.take() {
            if let Some(timings) = &mut run.timings {
                timings.record(op, time);
            }
            work += time;
            if let Some(nanos) = nanos.get_mut(op) {
                *nanos = time.as_nanos() as f64;
            }
        }
        let Some(Trial { measure, script }) = trial else {
            return;
        };
        let parts = |op: usize| {
            let grid = match &plan.ops[op] {
                Op::Launch(launch) => launch.grid.evaluate(&self.variables).map(as_grid),
                _ => return 1,
            };
            let grid = grid.and_then(|grid| grid).unwrap_or(1);
            u32::try_from(grid.max(1)).unwrap_or(u32::MAX)
        };
        let learner = self.executable.learner();
        match measure {
            Measure::Ops => learner.learn_ops(&script, nanos, plan, &parts),
            Measure::Run(run) => learner.learn_run(run, took),
            Measure::Check => learner.check(&script, work),
        }
    }

    /// Checks that all inputs are there, and has the frames find memory of the caller's
    /// where the run brings some, and the instance's own everywhere else.
    pub(super) fn bind(&mut self, run: &Run<'_, '_>) -> Result<(), Error> {
        let Instance {
            frames,
            storage,
            bases,
            inputs,
            bound,
            binding,
            executable,
            ..
        } = self;
        let plan = executable.plan();
        binding.clear();
        for one in run.bound(plan) {
            binding.push(one?);
        }
        check_overlap(plan, binding)?;
        for one in binding.iter() {
            if let Ok(i) = inputs.binary_search_by_key(&one.buffer, |input| input.buffer) {
                inputs[i].bound = true;
            }
        }
        let mut missing = None;
        for input in inputs {
            let bound = std::mem::take(&mut input.bound);
            if !bound && !input.given {
                missing.get_or_insert(input.buffer);
            }
        }
        if let Some(missing) = missing {
            let label = plan.buffer_label(missing);
            return Err(Error::run(format!("the input {label} was not given")));
        }

        let mut rebase = |buffer: usize, base: NonNull<u8>| {
            bases[buffer] = base;
            executable.replay().set_base(frames, buffer, base);
        };
        for Bound { buffer, .. } in bound.drain(..) {
            rebase(buffer, storage.base(executable, buffer));
        }
        std::mem::swap(bound, binding);
        for Bound { buffer, start, .. } in bound {
            rebase(*buffer, *start);
        }
        Ok(())
    }
}

/// Says that a run is on, until it is dropped, however the run ends.
struct Running<'a>(&'a mut bool);

impl Running<'_> {
    fn start(running: &mut bool) -> Running<'_> {
        *running = true;
        Running(running)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        *self.0 = false;
    }
}

/// Whether the launch `op` has written beside one of its arguments. Copies and fills
/// stay where the plan says.
pub(super) fn check_slack(
    executable: &Executable,
    storage: &Storage,
    run: &Run<'_, '_>,
    op: usize,
) -> Result<(), Error> {
    let plan = executable.plan();
    let Op::Launch(launch) = &plan.ops[op] else {
        return Ok(());
    };
    for (argument, arg) in launch.args.iter().enumerate() {
        let own = storage.own(arg.buffer).and_then(|b| b.as_view().stray());
        if let Some(stray) = own.or_else(|| run.stray(plan, arg.buffer)) {
            return Err(Error::Overrun {
                kernel: String::new(),
                op: Some(op),
                argument,
                buffer: None,
                stray,
            });
        }
    }
    Ok(())
}
