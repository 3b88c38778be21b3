//! Orders in which a plan can be run, and the proof that one of them is right.

use super::builder::as_grid;
use super::{LearnedSchedule, Op, Plan};
use crate::Error;
use crate::pool::MAX_UNITS;

/// An order for the ops of a plan: phases, one after another; in a phase tasks, which may
/// run side by side.
///
/// Any number of threads can run it, with no more synchronisation than the end of each
/// phase. On one thread its tasks run in turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// For each phase its tasks.
    pub phases: Vec<Vec<Task>>,
}

/// What a thread takes at a time: ops that it runs one after another, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The ops, in the order in which they run.
    pub ops: Vec<usize>,
    /// In how many parts the grid of a launch is cut, each of which any thread may take: part
    /// `i` of `n` is the indices from `grid * i / n` up to `grid * (i + 1) / n`. It is 1
    /// for a task of several ops and for what is no launch.
    pub parts: u32,
}

impl Task {
    /// Ops that one thread runs one after another.
    #[must_use]
    pub const fn chain(ops: Vec<usize>) -> Task {
        Task { ops, parts: 1 }
    }

    /// A launch whose grid is cut in `parts`.
    #[must_use]
    pub fn split(op: usize, parts: u32) -> Task {
        Task {
            ops: vec![op],
            parts,
        }
    }
}

impl Schedule {
    /// Phases of chains, in which nothing is split.
    #[must_use]
    pub fn chains(phases: Vec<Vec<Vec<usize>>>) -> Schedule {
        let phase = |chains: Vec<_>| chains.into_iter().map(Task::chain).collect();
        Schedule {
            phases: phases.into_iter().map(phase).collect(),
        }
    }

    /// One op after another, in the order in which they are given.
    #[must_use]
    pub fn serial(order: Vec<usize>) -> Schedule {
        Schedule::chains(vec![vec![order]])
    }

    /// A phase for each wave of a plan, in which every op is a task, and launches that have
    /// an index are cut in up to `parts`.
    #[must_use]
    pub fn waves(plan: &Plan, parts: u32) -> Schedule {
        let task =
            |&op: &u32| Task::split(op as usize, parts.clamp(1, plan.max_parts(op as usize)));
        let phase = |ops: &[u32]| ops.iter().map(task).collect();
        Schedule {
            phases: plan.layout.waves().map(phase).collect(),
        }
    }

    /// The ops in the order in which one thread runs them.
    pub fn ops(&self) -> impl Iterator<Item = usize> {
        let tasks = self.phases.iter().flatten();
        tasks.flat_map(|task| &task.ops).copied()
    }
}

impl Plan {
    /// In how many parts the grid of an op can be cut: as many as it ever has indices, but
    /// at most 32,768, and 1 for what is no launch.
    ///
    /// # Panics
    ///
    /// Where there is no such op.
    #[must_use]
    pub fn max_parts(&self, op: usize) -> u32 {
        let Op::Launch(launch) = &self.ops[op] else {
            return 1;
        };
        let grid = match launch.grid.evaluate(&[]).map(as_grid) {
            Ok(Ok(grid)) if launch.grid.is_constant() => grid,
            _ => self.kernels[launch.kernel].signature.max_grid(),
        };
        grid.clamp(1, MAX_UNITS.into()) as u32
    }

    /// Proves that a schedule runs each op once, and each after all that it must come
    /// after: in an earlier phase, or earlier in the same chain.
    ///
    /// What must come after what is decided over the bytes where things lie in memory, after
    /// temps were laid on top of each other.
    ///
    /// # Errors
    ///
    /// [`Error::Schedule`] names an op that is missing, unknown, there twice, or cut in
    /// parts that it does not have, or two ops whose order the schedule does not keep, and
    /// why they need it.
    pub fn check_schedule(&self, schedule: &Schedule) -> Result<(), Error> {
        let refuse = |reason| Err(Error::Schedule { reason });
        // For each op: phase, task, place in the task.
        let mut places = vec![None; self.ops.len()];
        for (phase, tasks) in schedule.phases.iter().enumerate() {
            for (t, task) in tasks.iter().enumerate() {
                for (at, &op) in task.ops.iter().enumerate() {
                    match places.get_mut(op) {
                        None => return refuse(format!("ops[{op}] of {}", self.ops.len())),
                        Some(Some(_)) => return refuse(format!("ops[{op}] is there twice")),
                        Some(place) => *place = Some((phase, t, at)),
                    }
                }
                self.check_parts(task)?;
            }
        }
        let is_kept = |first: Option<_>, second: Option<_>| match (first, second) {
            (Some((p, c, a)), Some((q, d, b))) => p < q || (p == q && c == d && a < b),
            _ => false,
        };
        for (op, &place) in places.iter().enumerate() {
            if place.is_none() {
                return refuse(format!("ops[{op}] is not there"));
            }
            for &before in self.layout.graph.predecessors(op) {
                if !is_kept(places[before as usize], place) {
                    return refuse(self.explain_wait(op, before as usize));
                }
            }
        }
        Ok(())
    }

    /// Proves that what was learned is this plan's: its schedule, and as many costs as there
    /// are ops.
    ///
    /// # Errors
    ///
    /// As [`check_schedule`](Self::check_schedule).
    pub fn check_learned(&self, learned: &LearnedSchedule) -> Result<(), Error> {
        let (costs, ops) = (learned.op_nanos.len(), self.ops.len());
        if costs != ops {
            let reason = format!("it was learned from {costs} ops, here are {ops}");
            return Err(Error::Schedule { reason });
        }
        self.check_schedule(&learned.schedule)
    }

    pub(super) fn check_parts(&self, task: &Task) -> Result<(), Error> {
        let most = match task.ops[..] {
            [op] if op < self.ops.len() => self.max_parts(op),
            _ => 1,
        };
        if (1..=most).contains(&task.parts) {
            return Ok(());
        }
        let reason = format!(
            "the task of ops {:?} is cut in {} parts; it has 1 to {most}",
            task.ops, task.parts
        );
        Err(Error::Schedule { reason })
    }
}
