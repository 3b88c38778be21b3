//! Which schedule a team should run, from what each op costs.
//!
//! A phase ends when all of its tasks are done, and to open one costs about as much as a
//! cheap op. So the question is where to end phases, and what to put side by side in
//! each. Three ideas answer it:
//!
//! - *Cutting an order.* Any order that keeps what must come before what can be cut into
//!   stretches, each of which is a phase: what hangs together in it is a chain, what stands
//!   alone may be split. Where best to cut is found exactly, by dynamic programming
//!   (`cutting`, `stretch`, `bunching`). What stays in one chain costs nothing more: the other
//!   threads are not told of it.
//! - *Orders.* Which ops can share a phase depends on the order. Several are tried: the
//!   plan's own, and those in which a team that needed no phases would start and end ops,
//!   forwards and backwards in time (`orders`).
//! - *Rounds.* The tasks that come out are what the next round orders and cuts
//!   (`nodes`), so that a cut reaches farther each time, and the work stays near linear.
//!
//! What comes of it is timed by [`predict`], as are all ops in turn and the plan's waves, and
//! the best is proposed.

mod bunching;
mod cutting;
mod nodes;
mod orders;
mod predicting;
mod stretch;
#[cfg(test)]
pub(super) mod tests;

use super::{Plan, Schedule};
use cutting::Cutter;
use nodes::Nodes;
use predicting::{Team, units};

/// The most units that a phase may have: what threads count as they take them.
pub(super) const MAX_UNITS: usize = 1 << 15;

/// More threads than this are not planned for, so that some units for each are no more
/// than [`MAX_UNITS`].
const MAX_THREADS: usize = 256;

/// How often tasks are made nodes and scheduled again.
const ROUNDS: usize = 4;

/// By what factor the time must become shorter in a round for there to be another.
const WORTHWHILE: f64 = 0.999;

/// What an op costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cost {
    /// The time of the whole op on one thread, in nanoseconds.
    pub(super) nanos: f64,
    /// In how many parts it can be cut: the grid that it has in these runs; 1 for what is
    /// no launch.
    pub(super) parts: u32,
}

/// What it costs that threads work together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Overheads {
    /// To hand a phase of more than one unit over to the other threads, in nanoseconds.
    pub(super) phase: f64,
    /// To take a unit of such a phase, in nanoseconds. A unit is a task, or a part of one
    /// that is split.
    pub(super) unit: f64,
}

impl Default for Overheads {
    fn default() -> Overheads {
        Overheads {
            phase: 150.0,
            unit: 40.0,
        }
    }
}

/// A schedule, and how long it is thought to take.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Proposal {
    pub(super) schedule: Schedule,
    /// The time of a run, in nanoseconds.
    pub(super) nanos: f64,
}

/// The schedule that a team of `threads` should run. `costs` has one for each op; an op
/// without one costs nothing. More than 256 threads are planned for as 256.
///
/// It takes some microseconds for each op, and the same questions have the same answers.
pub(super) fn propose(
    plan: &Plan,
    costs: &[Cost],
    threads: usize,
    overheads: &Overheads,
) -> Proposal {
    let threads = threads.clamp(1, MAX_THREADS);
    let proposal = |schedule: Schedule| Proposal {
        nanos: predict(plan, &schedule, costs, threads, overheads),
        schedule,
    };
    let better = |best: Proposal, schedule: Schedule| {
        if schedule.phases.iter().any(|phase| units(phase) > MAX_UNITS) {
            return best;
        }
        let other = proposal(schedule);
        if other.nanos < best.nanos {
            other
        } else {
            best
        }
    };
    let mut best = proposal(Schedule::serial(plan.order()));
    if threads == 1 || plan.ops.is_empty() {
        return best;
    }
    best = better(best, Schedule::waves(plan, threads as u32));
    let team = Team::new(threads, *overheads);
    let mut nodes = Nodes::new(plan, costs, &team);
    let mut cutter = Cutter::new(team);
    let mut last = f64::INFINITY;
    for _ in 0..ROUNDS {
        let (nanos, phases) = cutter.best_phases(&nodes);
        best = better(best, nodes.schedule(&phases));
        if nanos > last * WORTHWHILE {
            break;
        }
        last = nanos;
        nodes = nodes.grouped(&phases);
    }
    best
}

/// A time that no schedule is faster than, in nanoseconds: all work shared evenly, or the
/// longest path on which each op is split as evenly as its grid allows.
pub(super) fn bound(plan: &Plan, costs: &[Cost], threads: usize) -> f64 {
    let work: f64 = (0..plan.ops.len()).map(|op| cost(costs, op).nanos).sum();
    let (longest, _) = longest_path(plan, costs, threads);
    longest.max(work / threads.max(1) as f64)
}

/// The longest path on which each op is split as evenly as its grid allows: its time in
/// nanoseconds, and its ops.
pub(super) fn longest_path(plan: &Plan, costs: &[Cost], threads: usize) -> (f64, Vec<usize>) {
    let threads = threads.max(1);
    let mut ends = vec![0.0_f64; plan.ops.len()];
    let mut from = vec![None; plan.ops.len()];
    let mut last: Option<usize> = None;
    for &op in &plan.layout.order {
        let op = op as usize;
        let cost = cost(costs, op);
        let before = plan.layout.graph.predecessors(op).iter();
        let before = before.map(|&p| p as usize);
        from[op] = before.max_by(|&a, &b| ends[a].total_cmp(&ends[b]));
        let start = from[op].map_or(0.0, |p| ends[p]);
        ends[op] = start + shared(cost.nanos, cost.parts, threads);
        if last.is_none_or(|last| ends[op] > ends[last]) {
            last = Some(op);
        }
    }
    let path = std::iter::successors(last, |&op| from[op]);
    let mut path: Vec<_> = path.collect();
    path.reverse();
    (last.map_or(0.0, |last| ends[last]), path)
}

/// How long a run takes in which threads take the units of each phase in order, as they
/// become free; in nanoseconds.
pub(super) fn predict(
    plan: &Plan,
    schedule: &Schedule,
    costs: &[Cost],
    threads: usize,
    overheads: &Overheads,
) -> f64 {
    debug_assert!(schedule.ops().all(|op| op < plan.ops.len()));
    let mut team = Team::new(threads.max(1), *overheads);
    let phases = schedule.phases.iter();
    let nanos = phases.map(|phase| {
        team.run(phase.iter().flat_map(|task| {
            let nanos = task.ops.iter().map(|&op| cost(costs, op).nanos).sum();
            let grid = match task.ops[..] {
                [op] if task.parts > 1 => cost(costs, op).parts,
                _ => 1,
            };
            predicting::parts(nanos, grid, task.parts)
        }))
    });
    nanos.sum()
}

/// What an op costs, as a number that can be added up.
fn cost(costs: &[Cost], op: usize) -> Cost {
    let none = Cost {
        nanos: 0.0,
        parts: 1,
    };
    let Cost { nanos, parts } = *costs.get(op).unwrap_or(&none);
    Cost {
        // What is no number becomes 0; a run of centuries is long enough.
        nanos: nanos.clamp(0.0, 1e18).max(0.0),
        parts: parts.max(1),
    }
}

/// The time of an op that nothing else runs beside, cut as evenly as its grid allows.
fn shared(nanos: f64, grid: u32, threads: usize) -> f64 {
    let most = u64::from(grid).div_ceil(threads as u64);
    nanos * most as f64 / f64::from(grid)
}
