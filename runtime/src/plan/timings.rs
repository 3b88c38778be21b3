//! What each op of a plan took, over the runs that were asked to measure it.

use std::time::Duration;

use super::Plan;

/// What each op of a plan took: given to a [`Run`](super::Run), which adds to it.
///
/// Reading the clock around each op takes some 60 ns, about half of which is in the op's
/// own time: what takes less than a microsecond takes less than it seems.
#[derive(Clone, Debug)]
pub struct Timings {
    ops: Vec<OpTime>,
}

/// What one op took, over several runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpTime {
    /// How often it ran.
    pub runs: u64,
    /// All of its times together.
    pub total: Duration,
    /// The shortest of them.
    pub min: Duration,
}

impl OpTime {
    /// The mean of its times; nothing where it never ran.
    #[must_use]
    pub fn mean(&self) -> Duration {
        let runs = u32::try_from(self.runs).unwrap_or(u32::MAX);
        self.total.checked_div(runs).unwrap_or_default()
    }
}

impl Timings {
    /// Nothing measured yet, for the ops of a plan.
    #[must_use]
    pub fn new(plan: &Plan) -> Timings {
        Timings {
            ops: vec![OpTime::default(); plan.ops().len()],
        }
    }

    /// What each op took, in the order of the plan's ops.
    #[must_use]
    pub fn ops(&self) -> &[OpTime] {
        &self.ops
    }

    pub(super) fn record(&mut self, op: usize, time: Duration) {
        // Made for another plan, it may have no such op.
        if let Some(op) = self.ops.get_mut(op) {
            op.min = match op.runs {
                0 => time,
                _ => op.min.min(time),
            };
            op.runs += 1;
            op.total += time;
        }
    }
}
