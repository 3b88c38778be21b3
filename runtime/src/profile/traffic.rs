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
use crate::plan::Plan;

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
    let touches = order.iter().map(|&op| plan.touches(op).count());
    let mut recency = Recency::new(plan.buffers().len(), 2 * touches.sum::<usize>());
    let mut traffic = vec![Vec::new(); plan.ops().len()];
    // All of a run is gone through once before it counts.
    for counts in [false, true] {
        for &op in order {
            if counts {
                let seen = plan.touches(op).map(|touch| Traffic {
                    bytes: touch.range.bytes,
                    writes: touch.access.writes(),
                    distance: recency.since(touch.range.buffer) + touch.range.bytes,
                });
                traffic[op] = seen.collect();
            }
            for touch in plan.touches(op) {
                recency.touch(touch.range.buffer, touch.range.bytes);
            }
        }
    }
    traffic
}

/// What was touched when: at the time of the last touch of each buffer stands how many bytes that
/// touched, in a tree of sums (Fenwick, "A new data structure for cumulative frequency tables",
/// Software: Practice and Experience 24(3), 1994).
struct Recency {
    sums: Vec<usize>,
    /// By buffer: the time of the last touch, from 1, and its bytes; 0 if there was none.
    last: Vec<(usize, usize)>,
    now: usize,
}

impl Recency {
    fn new(buffers: usize, touches: usize) -> Recency {
        Recency {
            sums: vec![0; touches + 1],
            last: vec![(0, 0); buffers],
            now: 0,
        }
    }

    fn touch(&mut self, buffer: usize, bytes: usize) {
        let (time, before) = self.last[buffer];
        if time > 0 {
            self.add(time, before.wrapping_neg());
        }
        self.now += 1;
        self.add(self.now, bytes);
        self.last[buffer] = (self.now, bytes);
    }

    /// How many bytes of other buffers were touched after the last touch of this one.
    fn since(&self, buffer: usize) -> usize {
        self.until(self.now)
            .wrapping_sub(self.until(self.last[buffer].0))
    }

    fn add(&mut self, mut time: usize, bytes: usize) {
        while let Some(sum) = self.sums.get_mut(time) {
            *sum = sum.wrapping_add(bytes);
            time += time & time.wrapping_neg();
        }
    }

    fn until(&self, mut time: usize) -> usize {
        let mut sum = 0_usize;
        while time > 0 {
            sum = sum.wrapping_add(self.sums[time]);
            time &= time - 1;
        }
        sum
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Recency;

    proptest! {
        #[test]
        fn a_distance_is_what_others_have_touched_since(
            touches in prop::collection::vec((0..6_usize, 1..100_usize), 1..60),
        ) {
            let mut recency = Recency::new(6, touches.len());
            let mut stack: Vec<(usize, usize)> = Vec::new();
            for (buffer, bytes) in touches {
                let since = stack.iter().rev().take_while(|(other, _)| *other != buffer);
                let since: usize = since.map(|(_, bytes)| bytes).sum();
                prop_assert_eq!(recency.since(buffer), since);
                stack.retain(|(other, _)| *other != buffer);
                stack.push((buffer, bytes));
                recency.touch(buffer, bytes);
            }
        }
    }
}
