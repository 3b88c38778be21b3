//! One launch, without a plan around it.

use std::cell::Cell;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::slot::Job;
use super::{DefaultFloatEnv, MAX_UNITS, Pool};
use crate::Error;
use crate::dispatch::{Cost, Kernel};

/// Launches that take less on one thread are not shared: two indices of 0.2 µs took 0.98 µs shared with
/// a thread that was awake, and 0.86 alone; two of 1 µs 1.7 and 1.9 (`cargo bench --bench team`).
/// Zero shares all.
const SHARED_FROM: Duration = Duration::from_micros(1);

/// Launches that take less are measured only now and then: two looks at the clock are 40 ns.
const MEASURED_FROM: Duration = Duration::from_micros(2);

/// One in so many of these, a power of two.
const MEASURED_EVERY: u32 = 16;

/// About what a unit takes where that is known, in nanoseconds: seven times the 67 of a step of two units
/// that two threads share (`cargo bench --bench team`). Longer ones are claimed less often, shorter
/// ones are shared more evenly.
const UNIT: u128 = 500;

thread_local! {
    /// Which launches are measured: in no pattern that kernels launched in turn could have too.
    static LOT: Cell<u32> = const { Cell::new(0) };
}

impl Pool {
    /// Calls a kernel once for each grid index below `grid`, from buffers and scalars as they
    /// come, as [`Kernel::call`] takes them, and has the pool's threads share the calls: for a
    /// framework that launches kernels one by one. A [plan](crate::plan) of many launches has
    /// less to do for each.
    ///
    /// What calls of the kernel take is measured, and decides who has a part: a launch that is
    /// too short to be shared is not, and threads that sleep are woken when waking them pays.
    ///
    /// # Errors
    ///
    /// [`Error::KernelStatus`] of the lowest index that failed; all the others were called
    /// nevertheless. [`Error::Forked`] where this process was forked meanwhile.
    ///
    /// # Panics
    ///
    /// As [`Kernel::call`].
    ///
    /// # Safety
    ///
    /// As [`Kernel::call`], for each index, and `grid` must be at most what the signature says.
    pub unsafe fn launch(
        &self,
        kernel: &Kernel,
        buffers: &[*mut u8],
        scalars: &[u64],
        grid: u64,
    ) -> Result<(), Error> {
        kernel.assert_counts(buffers.len(), scalars.len());
        let shares = grid > 1 && self.threads() > 1 && !kernel.keeps_state();
        let cost = kernel.cost(scalars);
        let takes = if shares { cost.of(grid) } else { None };
        let measures = shares && takes.is_none_or(is_measured);
        let is_shared = shares && takes.is_none_or(|takes| takes >= SHARED_FROM);
        let launch = Launch {
            takes,
            measured: (measures && is_shared).then_some(cost),
            kernel,
            buffers,
            scalars,
            grid,
            units: units(grid, takes),
            failed: Mutex::new(None),
        };
        let _default = DefaultFloatEnv::enter();
        if is_shared {
            self.run(&mut 0, &launch).map_err(|_| Error::Forked)?;
        } else {
            let start = measures.then(Instant::now);
            for unit in 0..launch.units {
                launch.run(0, unit);
            }
            if let Some(start) = start {
                cost.note(grid, start.elapsed());
            }
        }
        let failed = launch.failed.into_inner();
        match failed.unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some((index, status)) => Err(Error::KernelStatus {
                kernel: kernel.name().to_owned(),
                op: None,
                status,
                index,
            }),
        }
    }
}

/// In how many units a launch is shared that takes about so long.
fn units(grid: u64, takes: Option<Duration>) -> u32 {
    let most = grid.min(MAX_UNITS.into()) as u32;
    let Some(takes) = takes else { return most };
    let units = u32::try_from(takes.as_nanos() / UNIT).unwrap_or(most);
    units.clamp(most.min(2), most)
}

/// Whether a launch that takes about so long is measured.
fn is_measured(takes: Duration) -> bool {
    takes >= MEASURED_FROM || {
        // Of a linear congruential generator, the highest bits have the longest period.
        let lot = LOT
            .get()
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        LOT.set(lot);
        lot >> (u32::BITS - MEASURED_EVERY.ilog2()) == 0
    }
}

struct Launch<'a> {
    /// What it takes on one thread, if that is known.
    takes: Option<Duration>,
    /// Where it is noted what the unit in the middle takes, which is the mean if calls take longer
    /// the higher their index is.
    measured: Option<Cost<'a>>,
    kernel: &'a Kernel,
    buffers: &'a [*mut u8],
    scalars: &'a [u64],
    grid: u64,
    /// How many units there are, each of indices that follow one another.
    units: u32,
    /// The lowest index that failed, and its status.
    failed: Mutex<Option<(u64, i32)>>,
}

// SAFETY: the threads of a run read what the launch borrows; what they do with the buffers is
// what `Pool::launch` was promised of all indices.
unsafe impl Sync for Launch<'_> {}

impl Launch<'_> {
    /// The indices of a unit; no unit has two more than another.
    fn indices(&self, unit: u32) -> Range<u64> {
        let (unit, units) = (u64::from(unit), u64::from(self.units));
        let (each, more) = (self.grid / units, self.grid % units);
        let from = |unit: u64| each * unit + more.min(unit);
        from(unit)..from(unit + 1)
    }
}

impl Job for Launch<'_> {
    fn phases(&self) -> u32 {
        1
    }

    fn units(&self, _phase: u32) -> u32 {
        self.units
    }

    fn run(&self, _phase: u32, unit: u32) {
        let measured = self.measured.filter(|_| unit == self.units / 2);
        let start = measured.map(|_| Instant::now());
        let indices = self.indices(unit);
        let calls = indices.end - indices.start;
        for index in indices {
            // SAFETY: promised by the caller of `Pool::launch`, which waits for all units.
            let status = unsafe { self.kernel.call(self.buffers, self.scalars, index) };
            if status != 0 {
                let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                if failed.is_none_or(|(lowest, _)| index < lowest) {
                    *failed = Some((index, status));
                }
            }
        }
        if let Some((cost, start)) = measured.zip(start) {
            cost.note(calls, start.elapsed());
        }
    }

    fn gain(&self) -> Option<u64> {
        // Half of it, with one more thread.
        let takes = self.takes?.as_nanos() / 2;
        u64::try_from(takes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_as_long_as_it_pays_and_two_at_least() {
        let micros = |n| Some(Duration::from_micros(n));
        assert_eq!(units(1000, None), 1000);
        assert_eq!(units(1000, micros(1)), 2);
        assert_eq!(units(1000, micros(50)), 100);
        assert_eq!(units(3, micros(1_000_000)), 3);
        assert_eq!(units(u64::MAX, Some(Duration::MAX)), MAX_UNITS);
        assert_eq!((units(1, micros(9)), units(0, micros(9))), (1, 0));
    }
}
