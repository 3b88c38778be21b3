//! Schedules side by side, as whole runs: what counts is the time of a run, and not what was
//! predicted for it.

use std::sync::Arc;

use super::super::Plan;
use super::super::replay::Script;
use super::super::scheduling::{Cost, Overheads, bound, propose};

/// How many runs in a row try the same schedule, of which the first does not count: the
/// team may have to start or to wake, and memory lies in other caches.
const BLOCK: usize = 4;

/// How many such rows each schedule has, in turns with the others.
const ROUNDS: usize = 3;

/// Schedules that are tried in turns. The first is the serial one.
#[derive(Debug)]
pub(super) struct Race {
    /// Tells it from earlier ones.
    pub(super) number: u32,
    pub(super) candidates: Vec<Candidate>,
    /// How many runs were asked to try one.
    asked: usize,
    pub(super) op_nanos: Vec<f64>,
    pub(super) bound: f64,
}

#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) script: Arc<Script>,
    pub(super) nanos: Vec<f64>,
}

impl Race {
    /// Which candidate comes next, and whether its time counts; None when all is tried.
    pub(super) fn next(&mut self) -> Option<(usize, bool)> {
        let many = self.candidates.len();
        let (round, at) = (self.asked / (many * BLOCK), self.asked % (many * BLOCK));
        if round >= ROUNDS {
            return None;
        }
        self.asked += 1;
        // Who comes first is another one in each round.
        Some(((at / BLOCK + round) % many, !at.is_multiple_of(BLOCK)))
    }

    pub(super) fn is_done(&self) -> bool {
        self.asked >= self.candidates.len() * BLOCK * ROUNDS
    }
}

/// A race of what is proposed, for all threads and for fewer, with the serial order.
pub(super) fn race(
    plan: &Plan,
    op_nanos: Vec<f64>,
    threads: usize,
    serial: &Arc<Script>,
    parts: &dyn Fn(usize) -> u32,
) -> Race {
    let cost = |(op, &nanos): (usize, &f64)| Cost {
        nanos,
        parts: parts(op),
    };
    let costs: Vec<_> = op_nanos.iter().enumerate().map(cost).collect();
    let candidate = |script| Candidate {
        script,
        nanos: Vec::with_capacity(BLOCK * ROUNDS),
    };
    let mut candidates = vec![candidate(serial.clone())];
    let mut of = threads;
    while of > 1 {
        let proposal = propose(plan, &costs, of, &Overheads::default());
        let known = |c: &Candidate| *c.script.schedule() == proposal.schedule;
        if !candidates.iter().any(known)
            && let Ok(script) = Script::new(plan, serial.code().clone(), proposal.schedule)
            && script.is_shared()
        {
            candidates.push(candidate(Arc::new(script)));
        }
        of /= 2;
    }
    Race {
        number: 0,
        candidates,
        asked: 0,
        bound: bound(plan, &costs, threads),
        op_nanos,
    }
}

/// The lower quartile: what a run takes where nothing comes between, and no stroke of luck.
pub(super) fn typical(nanos: &[f64]) -> f64 {
    let mut sorted = nanos.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 4).copied().unwrap_or(f64::MAX)
}
