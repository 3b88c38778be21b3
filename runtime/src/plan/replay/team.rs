//! A script walked by several threads.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::super::Plan;
use super::script::{MAX_OWN_SLOTS, Script, Unit};
use super::step::{Kind, Step, failed, run_all};
use super::{Asked, Frames, Table};
use crate::Error;
use crate::pool::{Forked, Job, Pool};

/// What the ops of a plan took in one run: the time of all threads together.
#[derive(Debug)]
pub(in crate::plan) struct Clocks {
    /// In nanoseconds, by op.
    ops: Box<[AtomicU64]>,
}

impl Clocks {
    pub(in crate::plan) fn new(ops: usize) -> Clocks {
        Clocks {
            ops: (0..ops).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Adds to an op's time.
    pub(super) fn add(&self, op: usize, time: Duration) {
        // At least 1: that it ran. 500 years are enough.
        let nanos = (time.as_nanos() as u64).max(1);
        self.ops[op].fetch_add(nanos, Ordering::Relaxed);
    }

    /// The time of each op that ran, by its number; none is left.
    pub(in crate::plan) fn take(&mut self) -> impl Iterator<Item = (usize, Duration)> {
        let times = self.ops.iter_mut().map(|op| std::mem::take(op.get_mut()));
        let ran = times.enumerate().filter(|(_, nanos)| *nanos > 0);
        ran.map(|(op, nanos)| (op, Duration::from_nanos(nanos)))
    }
}

/// One run of a script by a team. It has cache lines of its own, as all read it while its owner
/// writes to the stack around it.
#[repr(align(128))]
struct TeamRun<'a> {
    plan: &'a Plan,
    script: &'a Script,
    table: Table<'a>,
    asked: Option<Asked<'a>>,
    /// Whether a state may have been written.
    torn: AtomicBool,
    /// The first unit of those that failed. Nothing is done with those after it; units are
    /// claimed in order, so that those before it have run or will: which error a run ends
    /// with is the same on any number of threads.
    failed: AtomicU32,
    error: Mutex<Option<(u32, Error)>>,
}

/// No unit.
const NONE: u32 = u32::MAX;

impl Script {
    /// Runs all steps with a team. `hint` is where the pool had the last run.
    ///
    /// # Safety
    ///
    /// As [`run`](Self::run), and the script must be [shared](Self::is_shared).
    pub(in crate::plan) unsafe fn run_with_team(
        &self,
        plan: &Plan,
        frames: &mut Frames,
        torn: &mut bool,
        asked: Asked<'_>,
        (pool, hint): (&Pool, &mut usize),
    ) -> Result<(), Error> {
        let run = TeamRun {
            plan,
            script: self,
            table: frames.table(),
            asked: (!asked.is_nothing()).then_some(asked),
            torn: AtomicBool::new(false),
            failed: AtomicU32::new(NONE),
            error: Mutex::new(None),
        };
        let led = pool.run(hint, &run);
        let error = run.error.into_inner();
        match (led, error.unwrap_or_else(PoisonError::into_inner)) {
            (Ok(()), None) => Ok(()),
            (Ok(()), Some((_, error))) => {
                *torn = run.torn.into_inner();
                Err(error)
            }
            // What the others were about to write, nobody knows.
            (Err(Forked), _) => {
                *torn = true;
                Err(Error::Forked)
            }
        }
    }
}

impl Job for TeamRun<'_> {
    fn phases(&self) -> u32 {
        self.script.phases.len() as u32
    }

    #[inline]
    fn units(&self, phase: u32) -> u32 {
        let units = &self.script.phases[phase as usize];
        units.end - units.start
    }

    fn run(&self, phase: u32, unit: u32) {
        let number = self.script.phases[phase as usize].start + unit;
        if self.failed.load(Ordering::Relaxed) < number {
            return;
        }
        let unit = &self.script.units[number as usize];
        let steps = &self.script.steps[unit.start as usize..unit.end as usize];
        // SAFETY: promised by whoever made the run; the pool runs each unit once, and after
        // those of the phases before.
        let result = unsafe {
            match &self.asked {
                None => self.run_unit(unit, steps),
                Some(asked) => self.run_asked(unit, steps, asked),
            }
        };
        if let Err(error) = result {
            self.fail(number, error);
        }
    }
}

impl TeamRun<'_> {
    /// # Safety
    ///
    /// As [`Script::run`], for these steps, which are the unit's.
    #[inline]
    unsafe fn run_unit(&self, unit: &Unit, steps: &[Step]) -> Result<(), Error> {
        let (before, after) = steps.split_at(unit.before_state as usize);
        // SAFETY: promised by the caller.
        unsafe { self.run_steps(unit, before)? };
        if !after.is_empty() {
            self.tear();
            // SAFETY: promised by the caller.
            unsafe { self.run_steps(unit, after)? };
        }
        Ok(())
    }

    /// # Safety
    ///
    /// As [`run_unit`](Self::run_unit), for some of the unit's steps.
    #[inline]
    unsafe fn run_steps(&self, unit: &Unit, steps: &[Step]) -> Result<(), Error> {
        match steps {
            // SAFETY: promised by the caller.
            [step] if unit.parts > 1 => unsafe { self.run_part(unit, step) },
            // SAFETY: promised by the caller.
            _ => unsafe { run_all(self.plan, steps, self.table) },
        }
    }

    /// Says that a state is about to be written.
    #[inline]
    fn tear(&self) {
        // Most often it was said before, and a look leaves the line where it is.
        if !self.torn.load(Ordering::Relaxed) {
            self.torn.store(true, Ordering::Relaxed);
        }
    }

    /// Runs a part of a launch, with a frame of this thread's own: the index is in it.
    ///
    /// # Safety
    ///
    /// As [`Script::run`], for the unit's part of this step.
    unsafe fn run_part(&self, unit: &Unit, step: &Step) -> Result<(), Error> {
        let Kind::Launch(entry) = step.kind else {
            return Ok(());
        };
        let mut own = [const { std::mem::MaybeUninit::<u64>::uninit() }; MAX_OWN_SLOTS];
        let slots: *mut u64 = own.as_mut_ptr().cast();
        // SAFETY: the frame lies within the table. It begins with the grid, and the slots are
        // behind it, as many as the unit says, which is no more than there is room for.
        // Threads that run other parts read them as well; none writes them.
        let grid = unsafe {
            let frame = self.table.words.add(step.frame as usize);
            slots.copy_from_nonoverlapping(frame.add(1), unit.slots as usize);
            frame.read()
        };
        if let Some(kernel) = unit.packed {
            // SAFETY: these are as many slots as the kernel has.
            unsafe { self.script.code.kernels()[kernel as usize].bind(slots) };
        }
        for index in part(grid, unit.part, unit.parts) {
            // SAFETY: as for a whole launch, whose slots these are.
            let status = unsafe { entry.call_at(slots, index) };
            if status != 0 {
                return Err(failed(step.op, status, index));
            }
        }
        Ok(())
    }

    /// As [`run_unit`](Self::run_unit), with someone who asks.
    ///
    /// # Safety
    ///
    /// As [`run_unit`](Self::run_unit).
    unsafe fn run_asked(
        &self,
        unit: &Unit,
        steps: &[Step],
        asked: &Asked<'_>,
    ) -> Result<(), Error> {
        for (i, step) in steps.iter().enumerate() {
            let op = step.op as usize;
            let before = unit.start as usize + i;
            asked.may_go_on(op, before, self.script.steps.len())?;
            if step.writes_state {
                self.tear();
            }
            let start = asked.clock();
            // SAFETY: promised by the caller.
            let result = unsafe { self.run_steps(unit, std::slice::from_ref(step)) };
            asked.note(op, unit.span as usize + i, start);
            result?;
        }
        Ok(())
    }

    #[cold]
    fn fail(&self, unit: u32, error: Error) {
        self.failed.fetch_min(unit, Ordering::Relaxed);
        let mut first = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        if first.as_ref().is_none_or(|(other, _)| unit < *other) {
            *first = Some((unit, error));
        }
    }
}

/// The indices of a part of a grid.
#[inline]
fn part(grid: u64, part: u32, parts: u32) -> Range<u64> {
    let (part, parts) = (u64::from(part), u64::from(parts));
    if grid <= u64::from(u32::MAX) {
        return grid * part / parts..grid * (part + 1) / parts;
    }
    let at = |part: u64| (u128::from(grid) * u128::from(part) / u128::from(parts)) as u64;
    at(part)..at(part + 1)
}
