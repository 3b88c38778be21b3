//! Where the time of runs goes, and how far that is from what the machine can do.
//!
//! A [`Trace`] says what one run did. A [`Profile`] takes in any number of them, in memory that
//! does not grow, and its [`Report`] says what each op and each kernel takes, what the threads
//! wait for, and what the runtime takes for itself. With the [`Machine`]'s peaks it says of
//! each kernel what bounds it, and how near it has come.
//!
//! ```
//! # use svod_runtime::plan::{Executable, PlanBuilder, Run, Trace};
//! # use svod_runtime::profile::Profile;
//! # use svod_runtime::{DType, View};
//! # let mut plan = PlanBuilder::new("copy");
//! # let from = plan.input("x", DType::F32, &[2])?;
//! # let to = plan.output("y", DType::F32, &[2])?;
//! # plan.copy(from, to)?;
//! # let executable = Executable::new(plan.build()?, vec![], [])?;
//! let mut instance = executable.instance()?;
//! instance.set_input("x", View::from_slice(&[1.0_f32, 2.0]))?;
//! let (mut trace, mut profile) = (Trace::new(), Profile::new(&executable));
//! for _ in 0..10 {
//!     instance.run_with(Run { trace: Some(&mut trace), ..Run::default() })?;
//!     profile.add(&trace);
//! }
//! let report = profile.report(None, None);
//! assert_eq!(report.ops[0].runs, 10);
//! # Ok::<(), svod_runtime::Error>(())
//! ```

mod counters;
mod events;
mod machine;
mod page;
mod peaks;
mod report;
mod traffic;

use std::time::Duration;

pub use counters::{Counters, Counts, NoCounters};
pub use events::write_events;
pub use machine::{Bandwidth, Machine, Rates};
pub use page::{KernelText, Page, write_page};
pub use report::{Bound, KernelReport, OpReport, Report, ThreadReport, Totals};

use crate::Error;
use crate::bench::{Budget, Replay, Spread, race};
use crate::plan::{Executable, Op, Trace};

/// Of how many runs times are kept: the latest. 512 are 2 KiB an op, and enough for quartiles.
const KEPT: usize = 512;

/// What the ops of an executable take, over many runs.
///
/// To add a run takes some 10 ns an op, and allocates nothing.
#[derive(Clone, Debug)]
pub struct Profile {
    executable: Executable,
    runs: u64,
    walls: Kept,
    /// Of all runs together, in nanoseconds.
    wall: f64,
    ops: Vec<OpTimes>,
    threads: Vec<ThreadTimes>,
}

/// The latest of many numbers.
#[derive(Clone, Debug, Default)]
struct Kept {
    numbers: Vec<f32>,
    next: usize,
}

impl Kept {
    fn new() -> Kept {
        Kept {
            numbers: Vec::with_capacity(KEPT),
            next: 0,
        }
    }

    fn add(&mut self, number: f32) {
        if self.numbers.len() < KEPT {
            self.numbers.push(number);
        } else {
            self.numbers[self.next] = number;
        }
        self.next = (self.next + 1) % KEPT;
    }
}

/// What an op took, in nanoseconds.
#[derive(Clone, Debug)]
struct OpTimes {
    runs: u64,
    /// On all threads together.
    work: Kept,
    /// The most threads that it had at once.
    threads: u32,
    /// Of the run that is being added.
    now: f32,
    seen: u64,
}

/// What a thread did, over all runs, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct ThreadTimes {
    busy: f64,
    /// Until the others had done their part of a phase.
    waits: f64,
    spans: u64,
    /// Of the phase that is being added: when its last op ended.
    last: f64,
    runs: u64,
}

impl Profile {
    /// Of no run yet.
    #[must_use]
    pub fn new(executable: &Executable) -> Profile {
        let op = || OpTimes {
            runs: 0,
            work: Kept::new(),
            threads: 0,
            now: 0.0,
            seen: 0,
        };
        Profile {
            executable: executable.clone(),
            runs: 0,
            walls: Kept::new(),
            wall: 0.0,
            ops: executable.plan().ops().iter().map(|_| op()).collect(),
            threads: Vec::new(),
        }
    }

    /// Adds a run of an instance of the executable.
    pub fn add(&mut self, trace: &Trace) {
        self.runs += 1;
        self.walls.add(nanos(trace.took()) as f32);
        self.wall += nanos(trace.took());
        self.threads.resize_with(
            self.threads.len().max(trace.threads()),
            ThreadTimes::default,
        );
        for thread in &mut self.threads {
            thread.last = 0.0;
        }
        let mut phase = Phase::default();
        for span in trace.spans() {
            let Some(op) = self.ops.get_mut(span.op) else {
                continue;
            };
            if span.phase != phase.number {
                phase.end(&mut self.threads);
                phase.number = span.phase;
            }
            let time = nanos(span.time());
            op.now += time as f32;
            // More threads than bits share one.
            op.seen |= 1 << span.thread.min(63);
            let thread = &mut self.threads[span.thread];
            thread.busy += time;
            thread.spans += 1;
            thread.last = thread.last.max(nanos(span.end));
            phase.until = phase.until.max(nanos(span.end));
        }
        phase.end(&mut self.threads);
        for op in &mut self.ops {
            if op.seen != 0 {
                op.runs += 1;
                op.work.add(op.now);
                op.threads = op.threads.max(op.seen.count_ones());
                (op.now, op.seen) = (0.0, 0);
            }
        }
        for thread in &mut self.threads {
            thread.runs += u64::from(thread.last > 0.0);
        }
    }

    /// How many runs were added.
    #[must_use]
    pub const fn runs(&self) -> u64 {
        self.runs
    }

    /// Where the times of the latest runs lie, in nanoseconds; zeros before the first.
    #[must_use]
    pub fn run_ns(&self) -> Spread {
        report::spread(&self.walls)
    }

    /// What they come to. Without a machine, nothing is said of its limits; without the
    /// [overhead](overhead()) of a launch, nothing of what that bounds.
    #[must_use]
    pub fn report(&self, machine: Option<&Machine>, overhead: Option<f64>) -> Report {
        report::make(self, machine, overhead)
    }

    fn plan(&self) -> &crate::plan::Plan {
        self.executable.plan()
    }
}

/// The phase of which spans are being added.
#[derive(Default)]
struct Phase {
    number: u32,
    from: f64,
    until: f64,
}

impl Phase {
    /// Has each thread wait for its end.
    fn end(&mut self, threads: &mut [ThreadTimes]) {
        for thread in threads {
            thread.waits += (self.until - thread.last.max(self.from)).max(0.0);
        }
        self.from = self.until;
    }
}

/// What the runtime takes for one launch of a plan, in nanoseconds, with the variables that a replay
/// has, and the schedule and threads of its executable: that of a run of the same plan with kernels
/// that return at once, over its launches. What copies, fills and host functions take is in it. Inputs
/// are zeros. Nothing is measured of a plan without launches.
///
/// # Errors
///
/// As [`Executable::with_empty_kernels`] and [`Executable::instance`]; and what a host function
/// returns that does not find what it needs.
pub fn overhead(replay: &Replay<'_>) -> Result<Option<f64>, Error> {
    let executable = replay.instance().executable();
    let launches = executable.plan().ops().iter();
    let launches = launches.filter(|op| matches!(op, Op::Launch(_))).count();
    if launches == 0 {
        return Ok(None);
    }
    let empty = executable.with_empty_kernels()?;
    let variables = replay.variables();
    let mut replay = Replay::new(&empty)?;
    for (name, value) in variables {
        replay.set_variable(name, value)?;
    }
    let budget = Budget {
        warm_up: Duration::from_millis(20),
        time: Duration::from_millis(100),
        ..Budget::default()
    };
    let median = race(&mut [&mut replay], &budget)?.times(0).median;
    Ok(Some(median / launches as f64))
}

fn nanos(time: Duration) -> f64 {
    time.as_nanos() as f64
}
