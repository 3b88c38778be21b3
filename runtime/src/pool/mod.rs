//! The threads that runs share.
//!
//! A run enters the team once: its thread and those of the team walk the plan together,
//! each taking the next unit of work that nobody has taken. A phase ends when its units
//! are done, not when threads arrive, so that a run waits for nobody who has not taken a
//! part of it: threads may come late, leave, or never come at all, and what they would have
//! done is done by those who are there. [The protocol](protocol) says how that is kept
//! right with one atomic word.
//!
//! A [`Pool`] is a handle to a team: threads of its own, started by the first run that
//! can use them; threads that an embedder [lends](Team); or nobody but the caller.

mod board;
pub(crate) mod cpus;
mod crew;
mod delays;
mod float_env;
mod fork;
mod grid;
mod platform;
mod prepared;
mod slot;
mod word;

#[doc = include_str!("protocol.md")]
pub mod protocol {}

use std::fmt;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

use board::{Board, Spins};
use crew::Crew;
use platform::Native;

pub(crate) use board::{Forked, run_alone};
pub use cpus::available_threads;
pub(crate) use float_env::{DefaultFloatEnv, restore_default};
pub use prepared::PreparedLaunch;
pub(crate) use slot::Job;
pub(crate) use word::{MAX_PHASES, MAX_UNITS};

/// How long a thread waits awake for the rest of a run that is on. Serial stretches
/// between parallel ones are mostly shorter, and to be woken takes 10 to 50 µs. Zero has
/// it sleep at once.
pub const SPIN_IN_RUN: Duration = Duration::from_micros(500);

/// How long a thread waits awake for the next run. It is what a run costs in CPU time
/// beyond its end, for each thread. Zero has it sleep at once.
pub const SPIN_BETWEEN_RUNS: Duration = Duration::from_micros(50);

/// The most threads that a pool has. More are a slip.
pub const MAX_THREADS: usize = 4096;

/// The size of a thread's stack, in bytes: what Rust's threads have, and far more than
/// kernels use. A kernel or a host function that needs more, on whatever thread it runs, must
/// be given it.
pub const STACK: usize = 2 << 20;

/// The threads of an embedder's, lent to runs.
///
/// The team's threads are asked to [accept](Invitation::accept) an invitation; while one
/// does, it works on the runs of the pool that were started meanwhile, and returns after
/// some time without work. A run never waits for a thread that has not come.
///
/// The pool drops the team when the last of its handles and invitations goes, perhaps on one of
/// the team's own threads: a `Drop` must not wait for these.
///
/// `examples/rayon.rs` lends the threads of a rayon pool.
pub trait Team: fmt::Debug + Send + Sync {
    /// How many threads a run may have, with the one that calls it. It is asked once.
    fn threads(&self) -> usize;

    /// Has one of the team's threads accept the invitation, soon, or never. This is called
    /// by a thread in the middle of a run. It is not to wait for anything, and not to panic,
    /// which would end the process.
    fn invite(&self, invitation: Invitation);
}

/// An invitation to work on the runs of a [`Pool`].
pub struct Invitation {
    /// None once it was accepted.
    board: Option<Arc<Board<Native>>>,
}

impl Invitation {
    fn new(board: Arc<Board<Native>>) -> Invitation {
        Invitation { board: Some(board) }
    }

    /// Works on what there is, and returns when there has been nothing for a while.
    pub fn accept(mut self) {
        if let Some(board) = self.board.take() {
            let _default = DefaultFloatEnv::enter();
            board.serve();
        }
    }
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Invitation")
    }
}

impl Drop for Invitation {
    /// Declines.
    fn drop(&mut self) {
        if let Some(board) = &self.board {
            board.decline();
        }
    }
}

/// A handle to a team of threads. Clones are the same team.
///
/// Its own threads start with the first run that can use them, and end with the last
/// handle, which waits for them: that of the runtime that made it, of executables and of
/// instances. In a forked process the handle has a team of its own as soon as one is needed.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    options: PoolBuilder,
    /// None before the first run.
    crew: AtomicPtr<Crew>,
}

/// Whose threads they are.
#[derive(Clone, Debug)]
enum Members {
    Own,
    Lent(Arc<dyn Team>),
}

/// Configures a [`Pool`].
#[derive(Clone, Debug)]
#[must_use]
pub struct PoolBuilder {
    threads: usize,
    members: Members,
    spins: Option<Spins>,
    stack: usize,
    delays: Option<u64>,
}

impl Default for PoolBuilder {
    fn default() -> PoolBuilder {
        PoolBuilder {
            threads: 1,
            members: Members::Own,
            spins: None,
            stack: STACK,
            delays: None,
        }
    }
}

impl PoolBuilder {
    /// How many threads a run may have, with the one that calls it; at least 1, and at most
    /// [`MAX_THREADS`]. [`available_threads`] says how many there is room for.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.clamp(1, MAX_THREADS);
        self.members = Members::Own;
        self
    }

    /// Has the threads of an embedder's help instead of threads of the pool's own.
    pub fn team(mut self, team: Arc<dyn Team>) -> Self {
        self.threads = team.threads().clamp(1, MAX_THREADS);
        self.members = Members::Lent(team);
        self
    }

    /// How long a thread waits awake, in a run and between runs: [`SPIN_IN_RUN`] and
    /// [`SPIN_BETWEEN_RUNS`] where this is not called and there is a CPU for each thread, and
    /// not at all where there is not.
    pub fn spin(mut self, in_run: Duration, between_runs: Duration) -> Self {
        self.spins = Some(Spins {
            in_run,
            between_runs,
        });
        self
    }

    /// The size of the stack of the pool's own threads, in bytes; [`STACK`] where this is not
    /// called. The system has a least size, and a larger page size rounds it up.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack = bytes;
        self
    }

    /// Has threads wait for random whiles where others could come between: for tests that
    /// a plan has the same results whatever its threads do. It costs much.
    pub fn disturb(mut self, seed: u64) -> Self {
        self.delays = Some(seed);
        self
    }

    /// The same, with what is else asked of the system by the first run asked now: for a process
    /// that cannot open files any more by then.
    pub(crate) fn settled(mut self) -> Self {
        self.spins = Some(self.spins());
        self
    }

    /// The handle. Nothing is started yet.
    #[must_use]
    pub fn build(self) -> Pool {
        Pool {
            shared: Arc::new(Shared {
                options: self,
                crew: AtomicPtr::new(ptr::null_mut()),
            }),
        }
    }

    fn spins(&self) -> Spins {
        self.spins.unwrap_or_else(|| {
            // A thread that waits awake for one that has no CPU keeps it from having one.
            let awake =
                matches!(self.members, Members::Lent(_)) || self.threads <= available_threads();
            let (in_run, between_runs) = match awake {
                true => (SPIN_IN_RUN, SPIN_BETWEEN_RUNS),
                false => (Duration::ZERO, Duration::ZERO),
            };
            Spins {
                in_run,
                between_runs,
            }
        })
    }
}

impl Pool {
    /// A builder, of a pool of one thread if nothing else is said.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::default()
    }

    /// No team: every run is on the thread that calls it.
    #[must_use]
    pub fn alone() -> Pool {
        PoolBuilder::default().build()
    }

    /// How many threads a run may have.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.shared.options.threads
    }

    /// Runs a job. `hint` is where the last one was run.
    pub(crate) fn run(&self, hint: &mut usize, job: &dyn Job) -> Result<(), Forked> {
        match self.shared.crew() {
            Some(crew) => crew.lead(hint, job),
            None => {
                run_alone(job);
                Ok(())
            }
        }
    }
}

impl Shared {
    /// The team, started if it is not in this process. None where nobody could help.
    fn crew(&self) -> Option<&Crew> {
        if self.options.threads < 2 {
            return None;
        }
        let here = self.crew.load(Ordering::Acquire);
        // SAFETY: it was a box, and no one frees it before `self` goes.
        if let Some(crew) = unsafe { here.as_ref() }
            && crew.is_here()
        {
            return Some(crew);
        }
        self.start(here)
    }

    #[cold]
    fn start(&self, gone: *mut Crew) -> Option<&Crew> {
        // Without a lock, since a process can be forked while another thread holds it.
        let crew = match Crew::start(&self.options) {
            Ok(crew) => Box::into_raw(Box::new(crew)),
            Err(error) => {
                tracing::warn!("runs have no team: {error}");
                return None;
            }
        };
        let exchanged = self
            .crew
            .compare_exchange(gone, crew, Ordering::AcqRel, Ordering::Acquire);
        let crew = match exchanged {
            // What was there is another process's. Its memory is given up, since a thread
            // that is not here may have been in the middle of it.
            Ok(_) => crew,
            Err(other) => {
                // SAFETY: it was made above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(crew) });
                other
            }
        };
        // SAFETY: as in `crew`.
        unsafe { crew.as_ref() }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let crew = *self.crew.get_mut();
        if !crew.is_null() {
            // SAFETY: it was a box, and this is the last that leads to it.
            drop(unsafe { Box::from_raw(crew) });
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Pool");
        shown.field("threads", &self.threads());
        if let Members::Lent(team) = &self.shared.options.members {
            shown.field("team", team);
        }
        shown.finish()
    }
}

#[cfg(test)]
mod model;
