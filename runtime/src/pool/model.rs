//! The protocol, explored by loom in all interleavings of two and three threads.

use std::sync::Arc;
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::board::{Board, Spins, Summons};
use super::platform::{Gate, Platform, Spin, Word};
use super::slot::Job;

struct Model;

impl Platform for Model {
    type Word = AtomicU64;
    type Gate = Permits;
    type Spin = NoSpin;
}

impl Word for AtomicU64 {
    fn new(value: u64) -> Self {
        AtomicU64::new(value)
    }
    fn load(&self) -> u64 {
        self.load(Ordering::Acquire)
    }
    fn peek(&self) -> u64 {
        self.load(Ordering::Relaxed)
    }
    fn put(&self, value: u64) {
        self.store(value, Ordering::Relaxed);
    }
    fn add(&self, value: u64) -> u64 {
        self.fetch_add(value, Ordering::AcqRel)
    }
    fn sub(&self, value: u64) -> u64 {
        self.fetch_sub(value, Ordering::AcqRel)
    }
    fn set(&self, bits: u64) -> u64 {
        self.fetch_or(bits, Ordering::AcqRel)
    }
    fn clear(&self, bits: u64) -> u64 {
        self.fetch_and(!bits, Ordering::AcqRel)
    }
    fn exchange(&self, current: u64, new: u64) -> Result<(), u64> {
        self.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
            .map(|_| ())
    }
}

struct Permits {
    permits: Mutex<u32>,
    more: Condvar,
}

impl Gate for Permits {
    fn new() -> Self {
        Permits {
            permits: Mutex::new(0),
            more: Condvar::new(),
        }
    }
    fn post(&self, count: u32) {
        *self.permits.lock().unwrap() += count;
        self.more.notify_all();
    }
    fn wait(&self) {
        let mut permits = self.permits.lock().unwrap();
        while *permits == 0 {
            permits = self.more.wait(permits).unwrap();
        }
        *permits -= 1;
    }
}

/// To wait is to sleep at once.
struct NoSpin;

impl Spin for NoSpin {
    fn new() -> Self {
        NoSpin
    }
    fn goes_on(&mut self, _: Duration) -> bool {
        false
    }
}

/// Each unit writes a cell of its own, after it has read all of the phase before. Loom
/// tells where two threads use a cell and nothing orders them, and a cell says how often
/// its unit ran.
struct Cells {
    phases: Vec<Vec<UnsafeCell<u32>>>,
    /// The first unit of each phase of several waits until another unit of it has run:
    /// by another thread, as it holds its own.
    meeting: Option<(Mutex<u32>, Condvar)>,
}

// SAFETY: loom checks that no two threads use a cell at the same time.
unsafe impl Sync for Cells {}

impl Cells {
    fn new(units: &[u32]) -> Cells {
        let phase = |&units: &u32| (0..units).map(|_| UnsafeCell::new(0)).collect();
        Cells {
            phases: units.iter().map(phase).collect(),
            meeting: None,
        }
    }

    fn meeting(units: &[u32]) -> Cells {
        Cells {
            meeting: Some((Mutex::new(0), Condvar::new())),
            ..Cells::new(units)
        }
    }

    fn check(&self, times: u32) {
        for cell in self.phases.iter().flatten() {
            // SAFETY: loom checks it.
            cell.with(|count| assert_eq!(unsafe { *count }, times));
        }
    }
}

impl Job for Cells {
    fn phases(&self) -> u32 {
        self.phases.len() as u32
    }

    fn units(&self, phase: u32) -> u32 {
        self.phases[phase as usize].len() as u32
    }

    fn run(&self, phase: u32, unit: u32) {
        let phase = phase as usize;
        // SAFETY: loom checks it.
        let mine = self.phases[phase][unit as usize].with_mut(|count| unsafe {
            *count += 1;
            *count
        });
        if let Some(before) = phase.checked_sub(1) {
            for cell in &self.phases[before] {
                // SAFETY: loom checks it.
                cell.with(|count| assert_eq!(unsafe { *count }, mine));
            }
        }
        if let Some((met, changed)) = &self.meeting
            && self.phases[phase].len() > 1
        {
            let mut met = met.lock().unwrap();
            if unit == 0 {
                while *met == 0 {
                    met = changed.wait(met).unwrap();
                }
                *met = 0;
            } else {
                *met += 1;
                changed.notify_all();
            }
        }
    }
}

const NO_SPINS: Spins = Spins {
    in_run: Duration::ZERO,
    between_runs: Duration::ZERO,
};

/// Has `helpers` threads on a board while the closure runs.
fn with_board(slots: usize, helpers: usize, act: impl FnOnce(&Arc<Board<Model>>)) {
    let gate = Summons::Gate(Permits::new());
    let board = Arc::new(Board::new(slots, 0, gate, NO_SPINS, None));
    let threads: Vec<_> = (0..helpers)
        .map(|_| {
            let board = board.clone();
            thread::spawn(move || board.serve())
        })
        .collect();
    act(&board);
    board.close();
    for thread in threads {
        thread.join().unwrap();
    }
}

fn lead(board: &Board<Model>, job: &Cells) {
    let led = board.lead(&mut 0, job, &|| true);
    assert!(led.is_ok());
}

/// Explores a model. More than a few switches against a thread's will find nothing new, and
/// take hours.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    // `LOOM_MAX_PREEMPTIONS` asks for more.
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = 10_000;
    builder.check(model);
}

#[test]
fn each_unit_runs_once_and_after_the_phase_before() {
    explore(3, || {
        with_board(1, 1, |board| {
            let job = Cells::new(&[2, 1, 2]);
            lead(board, &job);
            job.check(1);
        });
    });
}

#[test]
fn two_helpers() {
    explore(1, || {
        with_board(1, 2, |board| {
            let job = Cells::new(&[3, 2]);
            lead(board, &job);
            job.check(1);
        });
    });
}

#[test]
fn a_slot_is_used_again() {
    explore(2, || {
        with_board(1, 1, |board| {
            let first = Cells::new(&[2]);
            lead(board, &first);
            first.check(1);
            drop(first);
            let second = Cells::new(&[2]);
            lead(board, &second);
            lead(board, &second);
            second.check(2);
        });
    });
}

#[test]
fn a_helper_that_sleeps_is_woken() {
    explore(2, || {
        with_board(1, 1, |board| {
            let job = Cells::meeting(&[2, 1, 2]);
            lead(board, &job);
            lead(board, &job);
            job.check(2);
        });
    });
}

#[test]
fn as_many_are_woken_as_there_is_work_for() {
    explore(1, || {
        with_board(1, 2, |board| {
            let job = Cells::meeting(&[2]);
            lead(board, &job);
            lead(board, &job);
            job.check(2);
        });
    });
}

#[test]
fn two_runs_share_a_helper_and_wait_for_none() {
    for slots in [1, 2] {
        explore(1, move || {
            with_board(slots, 1, |board| {
                let other = board.clone();
                let thread = thread::spawn(move || {
                    let job = Cells::new(&[2]);
                    lead(&other, &job);
                    job.check(1);
                });
                let job = Cells::new(&[2]);
                lead(board, &job);
                job.check(1);
                thread.join().unwrap();
            });
        });
    }
}
