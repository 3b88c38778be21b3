//! Crash isolation: launches in a forked child.

use std::sync::{Mutex, PoisonError};

use super::Limits;
use super::control::Region;
use super::launch::Launch;
use super::outcome::{self, Outcome};
use super::prepared::{Prepared, run_in_turn};
use crate::Error;

/// Runs launches in a child that is forked from this process: whatever they do, this process's
/// memory, threads, locks and handlers of signals are as before. What lies in its memory they can
/// read; who must not is [confined](super#which-of-the-two). Memory that processes share is the
/// child's as well: of a kernel that misses an argument by more than the 64 KiB that nothing may touch,
/// the writes to [shared](crate::Buffer::shared) buffers, and to what other launches of its list work
/// on, are not taken back.
///
/// A child runs one launch after another, on one thread, so that a list of them costs little more
/// than the launches. When one ends it, another child goes on behind that one. Processes that a
/// kernel starts end with their child, as far as they stay in its group. One thing is told to this
/// process that no way of starting a child prevents: `SIGCHLD`, where a child stops itself, unless
/// its handler was set with `SA_NOCLDSTOP`.
///
/// ```
/// use svod_runtime::sandbox::{CrashIsolation, Launch, Limits, Outcome};
/// use svod_runtime::{Buffer, DType, Runtime, Signature, Source};
///
/// let runtime = Runtime::new()?;
/// let source = Source::c(
///     "bump",
///     "void bump(int *x) { for (int i = 0; i <= 4; i++) x[i] += 1; }",
/// );
/// let signature = Signature::builder().read_write(DType::I32, 4).build()?;
/// let bump = runtime.load_untrusted(&source, signature)?;
///
/// let sandbox = CrashIsolation::new(Limits::default());
/// let mut x = Buffer::zeroed(DType::I32, 4)?;
/// let outcome = sandbox.run(Launch::new(&bump, vec![(&mut x).into()], &[], 1))?;
/// let Outcome::Crashed(crash) = outcome else { panic!("{outcome}") };
/// let place = crash.access.and_then(|access| access.argument).expect("it is beside x");
/// assert_eq!((place.argument, place.element, place.outside), (0, 4, 1));
/// assert_eq!(x.as_slice::<i32>()?, [0; 4]);
/// # Ok::<(), svod_runtime::Error>(())
/// ```
#[derive(Debug)]
pub struct CrashIsolation {
    limits: Limits,
    /// Memory for children, of earlier runs.
    spare: Mutex<Vec<Region>>,
}

impl CrashIsolation {
    /// With these limits for each launch.
    #[must_use]
    pub const fn new(limits: Limits) -> CrashIsolation {
        CrashIsolation {
            limits,
            spare: Mutex::new(Vec::new()),
        }
    }

    /// What each launch may take.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Runs one launch.
    ///
    /// # Errors
    ///
    /// [`Error::System`] and [`Error::OutOfMemory`] where there can be no child. What becomes of
    /// the launch is the [`Outcome`].
    pub fn run(&self, launch: Launch<'_>) -> Result<Outcome, Error> {
        outcome::only(self.run_all(&mut [launch])?)
    }

    /// Runs launches one after another, and says of each how it ended. One that works on what an
    /// earlier one has written, in shared memory, finds it.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_all(&self, launches: &mut [Launch<'_>]) -> Result<Vec<Outcome>, Error> {
        self.run_and_take(launches, true)
    }

    /// As [`run_all`](Self::run_all), but what is written to memory that is not shared is lost.
    pub(crate) fn screen(&self, launches: &mut [Launch<'_>]) -> Result<Vec<Outcome>, Error> {
        self.run_and_take(launches, false)
    }

    fn run_and_take(&self, launches: &mut [Launch<'_>], take: bool) -> Result<Vec<Outcome>, Error> {
        let mut outcomes: Vec<Option<Outcome>> = Vec::new();
        let mut prepared = Vec::new();
        for (i, launch) in launches.iter().enumerate() {
            match Prepared::new(i, launch) {
                Ok(one) => {
                    prepared.push(one);
                    outcomes.push(None);
                }
                Err(error) => outcomes.push(Some(Outcome::Failed(error))),
            }
        }
        let region = self.region(prepared.len())?;
        let mut first = 0;
        while first < prepared.len() {
            let left = &mut prepared[first..];
            let cpu = self.limits.cpu;
            let most = left.len();
            let ended = self.attempt(&region, most, &mut || run_in_turn(&region, left, cpu))?;
            let mut next = prepared.len();
            let mut fatal = None;
            if let Some((ended, at)) = ended {
                next = first + at.min(prepared.len() - first - 1) + 1;
                fatal = Some(self.explain(&region, ended, &prepared[next - 1].suspect()));
            }
            for (slot, one) in region.slots().iter().zip(&prepared[first..next]) {
                outcomes[one.number] = one.outcome(slot);
            }
            if let Some(outcome) = fatal {
                outcomes[prepared[next - 1].number] = Some(outcome);
            }
            first = next;
        }
        let staged: Vec<_> = prepared.into_iter().map(|p| (p.number, p.staged)).collect();
        for (number, staged) in staged {
            if take
                && outcomes[number].as_ref().is_some_and(Outcome::is_completed)
                && let Err(error) = launches[number].take(&staged)
            {
                outcomes[number] = Some(Outcome::Failed(error));
            }
        }
        self.give_back(region);
        Ok(outcome::all(outcomes))
    }

    pub(super) fn region(&self, slots: usize) -> Result<Region, Error> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let found = spare.iter().position(|region| {
            region.capacity() >= slots && region.stack_bytes() >= self.limits.stack
        });
        match found {
            Some(found) => Ok(spare.swap_remove(found)),
            None => Region::new(slots.max(16), &self.limits),
        }
    }

    pub(super) fn give_back(&self, region: Region) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        // More are not likely to run at once again.
        if spare.len() < 16 {
            spare.push(region);
        }
    }
}

#[cfg(test)]
mod tests;
