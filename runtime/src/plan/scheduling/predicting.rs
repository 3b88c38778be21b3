//! A phase played through: threads that take units as they become free.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::Overheads;
use crate::plan::Task;

/// A time in nanoseconds, which can be compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nanos(pub(super) f64);

impl Ord for Nanos {
    fn cmp(&self, other: &Nanos) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Nanos {
    fn partial_cmp(&self, other: &Nanos) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Nanos {
    fn eq(&self, other: &Nanos) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Nanos {}

/// Threads that are timed.
#[derive(Debug)]
pub(super) struct Team {
    pub(super) threads: usize,
    pub(super) overheads: Overheads,
    /// When each thread that has taken something becomes free.
    free: BinaryHeap<Reverse<Nanos>>,
}

impl Team {
    pub(super) fn new(threads: usize, overheads: Overheads) -> Team {
        Team {
            threads,
            overheads,
            free: BinaryHeap::new(),
        }
    }

    /// How long a phase of these units takes.
    pub(super) fn run(&mut self, units: impl IntoIterator<Item = f64>) -> f64 {
        let mut units = units.into_iter();
        let (first, second) = (units.next(), units.next());
        let (Some(first), Some(second)) = (first, second) else {
            return first.unwrap_or(0.0);
        };
        self.free.clear();
        let mut last = 0.0_f64;
        for nanos in [first, second].into_iter().chain(units) {
            let nanos = self.overheads.unit + nanos;
            let end = if self.free.len() < self.threads {
                self.free.push(Reverse(Nanos(nanos)));
                nanos
            } else if let Some(mut next) = self.free.peek_mut() {
                next.0.0 += nanos;
                next.0.0
            } else {
                nanos
            };
            last = last.max(end);
        }
        self.overheads.phase + last
    }
}

/// How long each part of a task takes whose grid is cut in `parts`.
pub(super) fn parts(nanos: f64, grid: u32, parts: u32) -> impl Iterator<Item = f64> {
    let (g, n) = (u64::from(grid), u64::from(parts));
    (0..n).map(move |i| {
        let indices = g * (i + 1) / n - g * i / n;
        nanos * indices as f64 / f64::from(grid)
    })
}

/// How many units a phase has.
pub(super) fn units(phase: &[Task]) -> usize {
    phase.iter().map(|task| task.parts as usize).sum()
}
