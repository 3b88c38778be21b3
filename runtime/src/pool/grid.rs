//! One launch, without a plan around it.

use std::sync::{Mutex, PoisonError};

use super::slot::Job;
use super::{DefaultFloatEnv, MAX_UNITS, Pool};
use crate::Error;
use crate::dispatch::Kernel;

impl Pool {
    /// Calls a kernel once for each grid index below `grid`, from buffers and scalars as they
    /// come, as [`Kernel::call`] takes them, and has the pool's threads share the calls: for a
    /// framework that launches kernels one by one. A [plan](crate::plan) of many launches has
    /// less to do for each.
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
        let launch = Launch {
            kernel,
            buffers,
            scalars,
            grid,
            units: grid.min(MAX_UNITS.into()) as u32,
            failed: Mutex::new(None),
        };
        let _default = DefaultFloatEnv::enter();
        if grid > 1 && self.threads() > 1 && !kernel.keeps_state() {
            self.run(&mut 0, &launch).map_err(|_| Error::Forked)?;
        } else {
            for unit in 0..launch.units {
                launch.run(0, unit);
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

struct Launch<'a> {
    kernel: &'a Kernel,
    buffers: &'a [*mut u8],
    scalars: &'a [u64],
    grid: u64,
    /// Unit `u` is the indices `u`, `u + units`, and so on.
    units: u32,
    /// The lowest index that failed, and its status.
    failed: Mutex<Option<(u64, i32)>>,
}

// SAFETY: the threads of a run read what the launch borrows; what they do with the buffers is
// what `Pool::launch` was promised of all indices.
unsafe impl Sync for Launch<'_> {}

impl Job for Launch<'_> {
    fn phases(&self) -> u32 {
        1
    }

    fn units(&self, _phase: u32) -> u32 {
        self.units
    }

    fn run(&self, _phase: u32, unit: u32) {
        let mut index = u64::from(unit);
        while index < self.grid {
            // SAFETY: promised by the caller of `Pool::launch`, which waits for all units.
            let status = unsafe { self.kernel.call(self.buffers, self.scalars, index) };
            if status != 0 {
                let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                if failed.is_none_or(|(lowest, _)| index < lowest) {
                    *failed = Some((index, status));
                }
            }
            index += u64::from(self.units);
        }
    }
}
