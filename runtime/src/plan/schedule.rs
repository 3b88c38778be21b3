//! Orders in which a plan can be run, and the proof that one of them is right.

use super::Plan;
use crate::Error;

/// An order for the ops of a plan: phases, one after another; in a phase chains, which
/// may run side by side; in a chain ops, one after another.
///
/// Any number of threads can run it, with no more synchronisation than the end of each
/// phase. On one thread its chains run in turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// For each phase its chains, for each chain its ops.
    pub phases: Vec<Vec<Vec<usize>>>,
}

impl Schedule {
    /// One op after another, in the order in which they are given.
    #[must_use]
    pub fn serial(order: Vec<usize>) -> Schedule {
        Schedule {
            phases: vec![vec![order]],
        }
    }

    /// A phase for each wave of a plan, in which every op is a chain.
    #[must_use]
    pub fn waves(plan: &Plan) -> Schedule {
        let phase = |ops: &[u32]| ops.iter().map(|&op| vec![op as usize]).collect();
        Schedule {
            phases: plan.layout.waves().map(phase).collect(),
        }
    }

    /// The ops in the order in which one thread runs them.
    pub fn ops(&self) -> impl Iterator<Item = usize> {
        self.phases.iter().flatten().flatten().copied()
    }
}

impl Plan {
    /// Proves that a schedule runs each op once, and each after all that it must come
    /// after: in an earlier phase, or earlier in the same chain.
    ///
    /// What must come after what is decided over the bytes where things lie in memory, after
    /// temps were laid on top of each other.
    ///
    /// # Errors
    ///
    /// [`Error::Schedule`] names an op that is missing, unknown or there twice, or two
    /// ops whose order the schedule does not keep, and why they need it.
    pub fn check_schedule(&self, schedule: &Schedule) -> Result<(), Error> {
        let refuse = |reason| Err(Error::Schedule { reason });
        // For each op: phase, chain, place in the chain.
        let mut places = vec![None; self.ops.len()];
        for (phase, chains) in schedule.phases.iter().enumerate() {
            for (chain, ops) in chains.iter().enumerate() {
                for (at, &op) in ops.iter().enumerate() {
                    match places.get_mut(op) {
                        None => return refuse(format!("ops[{op}] of {}", self.ops.len())),
                        Some(Some(_)) => return refuse(format!("ops[{op}] is there twice")),
                        Some(place) => *place = Some((phase, chain, at)),
                    }
                }
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
}
