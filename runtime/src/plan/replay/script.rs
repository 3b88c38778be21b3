//! Steps in the order of a schedule.

use std::ops::Range;
use std::sync::Arc;

use super::super::trace::Place;
use super::super::{Op, Plan, Schedule, Task};
use super::step::{Step, run_all};
use super::{Asked, Code, Frames, Watch};
use crate::Error;
use crate::pool::{MAX_PHASES, MAX_UNITS};
use crate::signature::Convention;

/// The longest frame of which each thread that takes a part of a launch makes a copy, in
/// slots, as the index in it is its own. A launch with a longer one is not cut.
pub(super) const MAX_OWN_SLOTS: usize = 64;

/// The most parts of launches that a schedule may have beside its tasks, of some 40 bytes each.
const MAX_PARTS: u64 = 1 << 22;

/// Steps in the order of a schedule, and the units that a team takes. It keeps the code that
/// its steps call.
#[derive(Debug)]
pub(in crate::plan) struct Script {
    schedule: Schedule,
    pub(super) code: Arc<Code>,
    pub(super) steps: Vec<Step>,
    /// How many steps come before the first that writes a state.
    before_state: usize,
    /// Whether a second thread has something to do, and may.
    is_shared: bool,
    pub(super) units: Vec<Unit>,
    /// The units of each phase.
    pub(super) phases: Vec<Range<u32>>,
}

/// What a thread takes at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    /// Its steps.
    pub(super) start: u32,
    pub(super) end: u32,
    /// Which part of a launch it is, of how many; of one, if it is whole steps.
    pub(super) part: u32,
    pub(super) parts: u32,
    /// For a part, the number of slots of its frame, and its kernel, if the slots
    /// point at each other.
    pub(super) slots: u32,
    pub(super) packed: Option<u32>,
    /// How many of its steps come before the first that writes a state.
    pub(super) before_state: u32,
    /// The first of its spans in a [trace](super::super::trace).
    pub(super) span: u32,
}

// SAFETY: as for `Code`, whose steps these are, and which the script keeps beside them.
unsafe impl Send for Script {}
// SAFETY: as above.
unsafe impl Sync for Script {}

impl Script {
    /// A script of a schedule that has each op once.
    pub(in crate::plan) fn new(
        plan: &Plan,
        code: Arc<Code>,
        schedule: Schedule,
    ) -> Result<Script, Error> {
        let tasks = schedule.phases.iter().flatten();
        let parts: u64 = tasks.map(|task| u64::from(task.parts.max(1))).sum();
        if parts > plan.ops.len() as u64 + MAX_PARTS {
            let reason = format!("it has {parts} tasks and parts");
            return Err(Error::Schedule { reason });
        }
        let mut script = Script {
            steps: Vec::with_capacity(plan.ops.len()),
            before_state: 0,
            is_shared: false,
            units: Vec::new(),
            phases: Vec::new(),
            schedule: Schedule::default(),
            code,
        };
        for tasks in &schedule.phases {
            let first = script.units.len();
            for task in tasks.iter().filter(|task| !task.ops.is_empty()) {
                script.add(task, plan);
            }
            script.end_phase(first);
        }
        if script.phases.len() > MAX_PHASES {
            let reason = format!("it has {} phases", script.phases.len());
            return Err(Error::Schedule { reason });
        }
        let before_state = script.steps.iter().position(|step| step.writes_state);
        script.before_state = before_state.unwrap_or(script.steps.len());
        let mut spans = 0;
        for unit in &mut script.units {
            unit.span = spans;
            spans += unit.end - unit.start;
            let steps = &script.steps[unit.start as usize..unit.end as usize];
            let before = steps.iter().position(|step| step.writes_state);
            unit.before_state = before.unwrap_or(steps.len()) as u32;
        }
        // One that breaks the plan is for one thread: on several it would be a data race. And the
        // calls of kernels with state come in an order that does not change from run to run.
        script.is_shared = script.phases.iter().any(|phase| phase.len() > 1)
            && !script.code.keeps_state
            && plan.check_schedule(&schedule).is_ok();
        script.schedule = schedule;
        Ok(script)
    }

    /// A script of one op alone, cut in so many parts.
    pub(in crate::plan) fn of_op(
        plan: &Plan,
        code: Arc<Code>,
        op: usize,
        parts: u32,
    ) -> Result<Script, Error> {
        let task = Task::split(op, parts);
        plan.check_parts(&task)?;
        let phases = vec![vec![task]];
        let mut script = Script::new(plan, code, Schedule { phases })?;
        // Nothing else runs beside the parts, which are independent.
        script.is_shared = script.units.len() > 1 && !script.code.keeps_state;
        Ok(script)
    }

    fn add(&mut self, task: &Task, plan: &Plan) {
        let start = self.steps.len();
        self.steps
            .extend(task.ops.iter().map(|&op| self.code.steps[op]));
        let mut unit = Unit {
            start: start as u32,
            end: self.steps.len() as u32,
            part: 0,
            parts: task.parts,
            slots: 0,
            packed: None,
            before_state: 0,
            span: 0,
        };
        if task.parts > 1
            && let Op::Launch(launch) = &plan.ops[task.ops[0]]
        {
            let kernel = &self.code.kernels()[launch.kernel];
            let is_packed = kernel.signature().convention() == Convention::Packed;
            unit.packed = is_packed.then_some(launch.kernel as u32);
            unit.slots = kernel.slots() as u32;
        }
        if unit.slots as usize > MAX_OWN_SLOTS {
            unit.parts = 1;
        }
        let parts = (0..unit.parts).map(|part| Unit { part, ..unit });
        self.units.extend(parts);
    }

    /// Makes a phase of the units from `first` on, or several of those that are too many. One
    /// unit after another is one.
    fn end_phase(&mut self, first: usize) {
        let end = self.units.len();
        let is_one = |phase: &Range<u32>| phase.len() == 1;
        if end - first == 1
            && self.units[first].parts == 1
            && self.phases.last().is_some_and(is_one)
            && self.units[first - 1].parts == 1
        {
            let unit = self.units.remove(first);
            let before = &mut self.units[first - 1];
            before.end = unit.end;
            return;
        }
        for start in (first..end).step_by(MAX_UNITS as usize) {
            let end = end.min(start + MAX_UNITS as usize);
            self.phases.push(start as u32..end as u32);
        }
    }

    /// The schedule that it follows.
    pub(in crate::plan) fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Adds the place of each span of a run, in the order in which they are numbered.
    pub(in crate::plan) fn places(&self, with_team: bool, places: &mut Vec<Place>) {
        let whole = |step: &Step| Place {
            op: step.op,
            part: 0,
            parts: 1,
            phase: 0,
        };
        if !with_team {
            places.extend(self.steps.iter().map(whole));
            return;
        }
        for (phase, units) in self.phases.iter().enumerate() {
            for unit in &self.units[units.start as usize..units.end as usize] {
                let steps = &self.steps[unit.start as usize..unit.end as usize];
                places.extend(steps.iter().map(|step| Place {
                    part: unit.part,
                    parts: unit.parts,
                    phase: phase as u32,
                    ..whole(step)
                }));
            }
        }
    }

    /// The code that its steps call.
    pub(in crate::plan) const fn code(&self) -> &Arc<Code> {
        &self.code
    }

    /// Whether it has something for a second thread, and gives the same results with one.
    pub(in crate::plan) const fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Runs all steps on this thread, and does nothing else. `torn` is whether states are
    /// left half written.
    ///
    /// # Safety
    ///
    /// The frames must be of the replay whose script this is, with every address and value
    /// put in, and memory behind them as the plan says, and the code must do what the plan's
    /// signatures say; nothing else may use what the ops write meanwhile, or write what they
    /// read.
    pub(in crate::plan) unsafe fn run(
        &self,
        plan: &Plan,
        frames: &mut Frames,
        torn: &mut bool,
    ) -> Result<(), Error> {
        let table = frames.table();
        let (before, after) = self.steps.split_at(self.before_state);
        // SAFETY: promised by the caller.
        unsafe { run_all(plan, before, table)? };
        if !after.is_empty() {
            *torn = true;
            // SAFETY: promised by the caller.
            unsafe { run_all(plan, after, table)? };
            *torn = false;
        }
        Ok(())
    }

    /// As [`run`](Self::run), with someone who asks or watches.
    ///
    /// # Safety
    ///
    /// As [`run`](Self::run).
    pub(in crate::plan) unsafe fn run_watched(
        &self,
        plan: &Plan,
        frames: &mut Frames,
        torn: &mut bool,
        asked: &Asked<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<(), Error> {
        let table = frames.table();
        for (done, step) in self.steps.iter().enumerate() {
            let op = step.op as usize;
            asked.may_go_on(op, done, self.steps.len())?;
            if let Some(before) = &mut watch.before {
                before(op);
            }
            if done == self.before_state {
                *torn = true;
            }
            let start = asked.clock();
            // SAFETY: promised by the caller.
            let result = unsafe { step.run(plan, table) };
            asked.note(op, done, start);
            // Whatever a kernel says that it came to, what `after` finds may be the
            // reason.
            if let Some(after) = &watch.after {
                after(op)?;
            }
            result?;
        }
        *torn = false;
        Ok(())
    }
}
