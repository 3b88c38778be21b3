//! From where an op has its bytes.
//!
//! A kernel whose arguments were just written has them from a cache, and one that goes through
//! weights once a run has them from memory, though both may be as large. How near data is
//! follows from the plan: what other ops touch between one use of it and the next must have
//! had room beside it (the *reuse distance*; Mattson, Gecsei, Slutz and Traiger, "Evaluation
//! techniques for storage hierarchies", IBM Systems Journal 9(2), 1970), counted here by whole
//! ranges, and round from the end of a run to the start of the next.

use std::time::Duration;

use super::machine::{Rates, seconds};
use crate::plan::{Plan, Touch};

/// What an op touches of one range, and how far back that was touched before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Traffic {
    pub(super) bytes: usize,
    pub(super) writes: bool,
    /// The size of what is touched from one use to the next, with the range itself.
    pub(super) distance: usize,
}

/// The traffic of each op, in the order in which one thread runs them.
pub(super) fn of(plan: &Plan, order: &[usize]) -> Vec<Vec<Traffic>> {
    // When each buffer was last touched, in ops from the start of the run before: all of a run
    // is gone through once before it counts.
    let mut stack: Vec<(usize, usize)> = Vec::new();
    let mut traffic = vec![Vec::new(); plan.ops().len()];
    for counts in [false, true] {
        for &op in order {
            let touches: Vec<Touch> = plan.touches(op).collect();
            if counts {
                traffic[op] = touches.iter().map(|touch| seen(&stack, touch)).collect();
            }
            for touch in touches {
                stack.retain(|(buffer, _)| *buffer != touch.range.buffer);
                stack.push((touch.range.buffer, touch.range.bytes));
            }
        }
    }
    traffic
}

fn seen(stack: &[(usize, usize)], touch: &Touch) -> Traffic {
    let bytes = touch.range.bytes;
    let since = stack.iter().rev();
    let since = since.take_while(|(buffer, _)| *buffer != touch.range.buffer);
    let since: usize = since.map(|(_, bytes)| bytes).sum();
    Traffic {
        bytes,
        writes: touch.access.writes(),
        distance: since.saturating_add(bytes),
    }
}

/// The least time in which threads of these rates move it. Where the compiler has said how many
/// bytes that are, it is in proportion.
pub(super) fn time(traffic: &[Traffic], stated: Option<u64>, rates: &Rates) -> Duration {
    let one = |t: &Traffic| {
        let level = rates.bandwidth(t.distance);
        let rate = level.map_or(f64::INFINITY, |l| if t.writes { l.copy } else { l.read });
        t.bytes as f64 / rate
    };
    let whole: f64 = traffic.iter().map(one).sum();
    let bytes: usize = traffic.iter().map(|t| t.bytes).sum();
    let part = match stated {
        Some(stated) if bytes > 0 => stated as f64 / bytes as f64,
        _ => 1.0,
    };
    seconds(whole * part)
}
