//! Launches that a child makes again and again: what measuring them in one takes.

use std::sync::atomic::{AtomicU64, Ordering};

use super::control::{Region, Slot};
use super::launch::Launch;
use super::outcome::Outcome;
use super::prepared::Prepared;
use super::{CrashIsolation, Limits, fault};
use crate::Error;

/// After how many runs in a row a limit on time is that of the next ones. To note it takes some
/// 30 ns, or 300 ns where there is a limit on the processors' time.
const NOTED_EACH: u32 = 1024;

/// With which status a child exits in which a launch has failed by itself.
const FAILED: i32 = 123;

/// A launch, in a child that makes it again and again.
pub(crate) struct Repeated<'r, 'l, 'b> {
    region: &'r Region,
    position: usize,
    limits: &'r Limits,
    runs: u32,
    prepared: Prepared<'l, 'b>,
    index: AtomicU64,
}

impl Repeated<'_, '_, '_> {
    /// Notes that it is next.
    pub(crate) fn begin(&mut self) {
        self.runs = 0;
        self.region.begin(self.position, self.limits.cpu);
    }

    /// Runs it once.
    pub(crate) fn run(&mut self) {
        if self.runs == NOTED_EACH {
            self.begin();
        }
        self.runs += 1;
        let (status, index) = self.prepared.call(&self.index);
        if status != 0 {
            if let Some(slot) = self.region.slots().get(self.position) {
                slot.status.store(status, Ordering::Relaxed);
                slot.index.store(index, Ordering::Relaxed);
                slot.state.store(Slot::STATUS, Ordering::Release);
            }
            fault::exit(FAILED);
        }
    }
}

impl CrashIsolation {
    /// Has a child do `body` with some of these launches, over their arguments as they lie, and
    /// says which one has ended it, and how, where one has. `body` has numbers that this process
    /// sees as well, and must do what [a child](Self::attempt) may.
    pub(crate) fn repeat<'l, 'b>(
        &self,
        launches: &'l [Launch<'b>],
        which: &[usize],
        body: &mut dyn FnMut(&mut [Repeated<'_, 'l, 'b>]),
    ) -> Result<Option<(usize, Outcome)>, Error> {
        let region = self.region(which.len())?;
        let mut repeated = Vec::with_capacity(which.len());
        for (position, &number) in which.iter().enumerate() {
            let launch = launches.get(number);
            let launch = launch.ok_or_else(|| Error::run("a launch that is not there"))?;
            repeated.push(Repeated {
                region: &region,
                position,
                limits: self.limits(),
                runs: 0,
                prepared: Prepared::bare(number, launch)?,
                index: AtomicU64::new(0),
            });
        }
        // It begins again every so many runs.
        let ended = self.attempt(&region, usize::MAX, &mut || body(&mut repeated))?;
        let bad = ended.and_then(|(ended, at)| {
            let one = &repeated.get(at).or(repeated.last())?.prepared;
            let noted = region.slots().get(at).and_then(|slot| one.outcome(slot));
            let outcome = noted.unwrap_or_else(|| self.explain(&region, ended, &one.suspect()));
            Some((one.number, outcome))
        });
        drop(repeated);
        self.give_back(region);
        Ok(bad)
    }
}
