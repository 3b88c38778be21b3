//! Threads that help, those of this process and of no other.

use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use super::board::{Board, Forked, Summons};
use super::delays::Delays;
use super::float_env::DefaultFloatEnv;
use super::fork::ForkMark;
use super::platform::{FutexGate, Gate, Native};
use super::slot::Job;
use super::{Invitation, Members, PoolBuilder};
use crate::Error;

/// The most runs that are helped at the same time: helpers look at all of them, of which
/// each is a load.
const MAX_SLOTS: usize = 64;

/// The least, so that several runs can share few helpers.
const MIN_SLOTS: usize = 4;

/// Threads that help, those of this process and of no other.
pub(super) struct Crew {
    board: Arc<Board<Native>>,
    threads: Vec<JoinHandle<()>>,
    mark: ForkMark,
}

impl Crew {
    /// Starts what the options ask for, and as many threads of it as the system admits.
    pub(super) fn start(options: &PoolBuilder) -> Result<Crew, Error> {
        let mark = ForkMark::new()?;
        let helpers = options.threads - 1;
        let slots = options.threads.clamp(MIN_SLOTS, MAX_SLOTS);
        let board = |absent, summons| {
            Board::new(
                slots,
                absent,
                summons,
                options.spins(),
                options.delays.map(Delays::new),
            )
        };
        let (board, helpers) = match &options.members {
            Members::Own => (Arc::new(board(0, Summons::Gate(FutexGate::new()))), helpers),
            Members::Lent(team) => {
                let team = team.clone();
                let absent = u32::try_from(helpers).unwrap_or(u32::MAX);
                let board = Arc::new_cyclic(|this: &Weak<Board<Native>>| {
                    let this = this.clone();
                    let call = move |count| {
                        // Who calls works on this board.
                        for board in (0..count).filter_map(|_| this.upgrade()) {
                            team.invite(Invitation::new(board));
                        }
                    };
                    board(absent, Summons::Call(Box::new(call)))
                });
                (board, 0)
            }
        };
        let mut threads = Vec::with_capacity(helpers);
        for i in 0..helpers {
            let board = board.clone();
            let thread = std::thread::Builder::new()
                .name(format!("svod-{}", i + 1))
                .stack_size(options.stack);
            match thread.spawn(move || {
                let _default = DefaultFloatEnv::enter();
                board.serve();
            }) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    tracing::warn!(
                        "a team of {} threads has only {}: {error}",
                        options.threads,
                        threads.len() + 1
                    );
                    break;
                }
            }
        }
        Ok(Crew {
            board,
            threads,
            mark,
        })
    }

    /// Whether its threads are in this process.
    pub(super) fn is_here(&self) -> bool {
        self.mark.is_here()
    }

    pub(super) fn lead(&self, hint: &mut usize, job: &dyn Job) -> Result<(), Forked> {
        self.board.lead(hint, job, &|| self.is_here())
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        if !self.is_here() {
            // There is nothing to wait for, and nobody to give anything back.
            std::mem::take(&mut self.threads)
                .into_iter()
                .for_each(std::mem::forget);
            return;
        }
        self.board.close();
        let this = std::thread::current().id();
        for thread in std::mem::take(&mut self.threads) {
            // One that drops the last handle of its own team ends by itself.
            if thread.thread().id() != this {
                // It ends the process rather than to unwind.
                let _ = thread.join();
            }
        }
    }
}
