//! Bundles that run at once, on quickly compiled code, and soon on optimised code.
//!
//! What the user waits for is the first answer. So kernels that neither the bundle nor the
//! cache has are compiled with little effort first, and all of them again with the runtime's
//! own level in the background. When that is done the executable's code is replaced: each
//! instance has it from its next run on, and no run waits for it. Results are the same, but for
//! what a compiler computes itself where it optimises: a function of libm of a constant, which
//! it may round otherwise than libm does, and which NaN a NaN is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use super::load::{self, Load};
use super::{Bundle, in_bundle};
use crate::Error;
use crate::compile::{Object, OptLevel, Source};
use crate::plan::Executable;
use crate::runtime::Runtime;

/// By how much the compilers of the background give way to everybody else, as `nice` counts.
/// With 0 they would take half of the time of the runs that they are to be better than.
const NICENESS: i32 = 10;

/// Optimised code that is being made. Dropped, it is given up, unless it is there already; the
/// executable keeps the quickly compiled code then, and learns no schedule.
#[derive(Debug)]
#[must_use = "the optimised code is given up when this is dropped"]
pub struct Upgrade(Arc<State>);

#[derive(Debug, Default)]
struct State {
    given_up: AtomicBool,
    outcome: Mutex<Outcome>,
    done: Condvar,
}

#[derive(Debug, Default)]
enum Outcome {
    #[default]
    Pending,
    Done,
    Failed(Error),
}

impl Upgrade {
    /// Whether nothing more will change: the optimised code has taken over, or could not be
    /// made.
    #[must_use]
    pub fn is_done(&self) -> bool {
        !matches!(*self.0.outcome(), Outcome::Pending)
    }

    /// Waits until the optimised code has taken over.
    ///
    /// # Errors
    ///
    /// As [`Bundle::load`]: why it could not be made; the executable goes on with the code that
    /// it has. It is told once.
    pub fn wait(&self) -> Result<(), Error> {
        let mut outcome = self.0.outcome();
        while matches!(*outcome, Outcome::Pending) {
            let woken = self.0.done.wait(outcome);
            outcome = woken.unwrap_or_else(PoisonError::into_inner);
        }
        match std::mem::replace(&mut *outcome, Outcome::Done) {
            Outcome::Failed(error) => Err(error),
            Outcome::Pending | Outcome::Done => Ok(()),
        }
    }
}

impl Drop for Upgrade {
    fn drop(&mut self) {
        self.0.given_up.store(true, Ordering::Relaxed);
    }
}

impl State {
    fn outcome(&self) -> std::sync::MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, result: Result<(), Error>) {
        *self.outcome() = match result {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::Failed(error),
        };
        self.done.notify_all();
    }
}

/// What is made ready at once, and what is made better afterwards.
pub(super) struct Tiers {
    /// The objects of all kernels.
    pub(super) objects: Vec<Object>,
    /// The kernels whose objects are quickly compiled, and their sources.
    pub(super) quick: Vec<(usize, Source)>,
}

impl Bundle {
    /// As [`load_with`](Self::load_with), but kernels that have to be compiled are compiled
    /// with little effort first, at the level `quick`, and in the background as the runtime has
    /// it otherwise: [`Upgrade`] says when that code has taken over. Until it has, no schedule
    /// is learned.
    ///
    /// Results are the same on either code, bit for bit, unless flags of the runtime's
    /// ([`RuntimeBuilder::flag`](crate::RuntimeBuilder::flag)) let the compiler trade that away;
    /// but for functions of libm of constants, which an optimising compiler computes itself,
    /// perhaps with another last bit, and for which NaN a NaN is.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load). What goes wrong in the background is the error of
    /// [`Upgrade::wait`].
    ///
    /// # Safety
    ///
    /// As [`load`](Self::load).
    pub unsafe fn load_tiered(
        &self,
        runtime: &Runtime,
        load: &Load<'_>,
        quick: OptLevel,
    ) -> Result<(Executable, Upgrade), Error> {
        // SAFETY: promised by the caller.
        let loaded = unsafe { self.load_in_tiers(runtime, load, quick) };
        loaded.map_err(|e| in_bundle(self.path(), e))
    }

    /// # Safety
    ///
    /// As [`load`](Self::load).
    unsafe fn load_in_tiers(
        &self,
        runtime: &Runtime,
        load: &Load<'_>,
        quick: OptLevel,
    ) -> Result<(Executable, Upgrade), Error> {
        let tiers = load::tiers(self, runtime, load, Some(quick))?;
        let provisional = !tiers.quick.is_empty();
        // SAFETY: promised by the caller.
        let executable = unsafe {
            load::link(
                self,
                runtime,
                &tiers.objects,
                load::contents(self)?,
                provisional,
            )
        }?;
        let state = Arc::new(State::default());
        if !provisional {
            state.end(Ok(()));
            return Ok((executable, Upgrade(state)));
        }
        let background = Background {
            runtime: runtime.clone(),
            executable: executable.clone(),
            tiers,
        };
        let path = self.path().to_owned();
        let told = state.clone();
        let work = move || {
            // SAFETY: promised by the caller, for the same kernels on every level.
            let result = unsafe { background.replace(&told.given_up) };
            told.end(result.map_err(|e| in_bundle(&path, e)));
        };
        let spawned = thread::Builder::new().name("svod-tier".into()).spawn(work);
        if let Err(e) = spawned {
            state.end(Err(Error::system("start a thread to compile on", e)));
        }
        Ok((executable, Upgrade(state)))
    }
}

/// What the thread in the background has.
struct Background {
    runtime: Runtime,
    executable: Executable,
    tiers: Tiers,
}

impl Background {
    /// # Safety
    ///
    /// As [`Bundle::load`].
    unsafe fn replace(self, given_up: &AtomicBool) -> Result<(), Error> {
        // Of this thread alone, and of the compilers that it starts. That it cannot be changed
        // is no reason not to compile.
        let _ = rustix::process::nice(NICENESS);
        let Background {
            runtime,
            executable,
            tiers: Tiers { mut objects, quick },
        } = self;
        let (kernels, sources): (Vec<usize>, Vec<Source>) = quick.into_iter().unzip();
        let compiled = runtime.compile_until(&sources, given_up);
        if given_up.load(Ordering::Relaxed) {
            return Ok(());
        }
        for (kernel, object) in kernels.into_iter().zip(compiled) {
            objects[kernel] = object?;
        }
        let signatures = executable.plan().kernels().iter().map(|k| &k.signature);
        let pairs: Vec<_> = objects.iter().zip(signatures).collect();
        // SAFETY: promised by the caller.
        let kernels = unsafe { runtime.link_all(&pairs) }?;
        // SAFETY: promised by the caller.
        unsafe { executable.replace_code_unchecked(kernels) }?;
        Ok(())
    }
}
