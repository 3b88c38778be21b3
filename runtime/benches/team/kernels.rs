//! What is launched: kernels that touch no memory, and plans of them.

use std::ffi::c_void;
use std::hint::black_box;
use std::time::Instant;

use svod_runtime::plan::{Executable, Instance, PlanBuilder, Role, Schedule};
use svod_runtime::pool::Pool;
use svod_runtime::signature::Bounds;
use svod_runtime::{DType, Error, Kernel, Signature};

/// How many threads all have.
pub(crate) const THREADS: usize = 2;

pub(crate) type Entry = unsafe extern "C" fn(*mut c_void, i64, i64);

/// So many launches, one after another, of a kernel that counts to `rounds` for each index.
#[derive(Clone, Copy)]
pub(crate) struct Work {
    pub(crate) entry: Entry,
    pub(crate) rounds: i64,
    pub(crate) grid: i64,
    pub(crate) launches: i64,
}

impl Work {
    pub(crate) fn nothing(grid: i64, launches: i64) -> Work {
        Work {
            entry: noop,
            rounds: 0,
            grid,
            launches,
        }
    }

    /// Launches whose indices take so many nanoseconds each.
    pub(crate) fn spinning(nanos: f64, grid: i64, launches: i64) -> Work {
        Work {
            entry: count,
            #[allow(clippy::cast_possible_truncation)] // some thousands
            rounds: (nanos / nanos_of_a_round()) as i64,
            grid,
            launches,
        }
    }

    /// One index of one launch.
    pub(crate) fn call(&self, index: i64) {
        // SAFETY: both kernels do nothing with the pointer.
        unsafe { (self.entry)(std::ptr::null_mut(), self.rounds, index) };
    }

    /// The kernel.
    fn kernel(&self) -> Result<Kernel, Error> {
        let signature = Signature::builder()
            .write(DType::F32, 16)
            .scalar(DType::I64, "rounds", Bounds::integers(0, 1 << 40))
            .index(DType::I64, 1 << 16)
            .build()?;
        let entry = self.entry as *const c_void;
        // SAFETY: both kernels take these, and touch no memory.
        Ok(unsafe { Kernel::from_entry("kernel", entry, signature) })
    }

    /// One launch of it, without a plan.
    pub(crate) fn launch(
        &self,
        pool: &Pool,
    ) -> Result<impl FnMut() -> Result<(), Error> + use<>, Error> {
        let (kernel, pool, work) = (self.kernel()?, pool.clone(), *self);
        Ok(move || {
            let (buffers, scalars) = ([std::ptr::null_mut()], [work.rounds.cast_unsigned()]);
            // SAFETY: both kernels do nothing with the pointer, and the grid is below the
            // signature's maximum.
            unsafe { pool.launch(&kernel, &buffers, &scalars, work.grid.cast_unsigned()) }
        })
    }

    /// A plan of it, in which each launch writes what the next one writes as well, so that
    /// each waits for the one before. Without a pool it is on one thread.
    pub(crate) fn instance(&self, pool: Option<&Pool>) -> Result<Instance, Error> {
        let code = self.kernel()?;
        let mut plan = PlanBuilder::new("team");
        let kernel = plan.kernel("kernel", code.signature().clone());
        let buffer = plan.buffer(None, Role::Temp, DType::F32, &[16])?;
        for _ in 0..self.launches {
            let buffer = plan.whole(buffer)?;
            let rounds = [("rounds", self.rounds.into())];
            plan.launch(kernel, &[buffer], &rounds, self.grid)?;
        }
        let executable = Executable::new(plan.build()?, vec![code], [])?;
        let Some(pool) = pool else {
            return executable.instance();
        };
        let schedule = Schedule::waves(executable.plan(), THREADS as u32);
        let executable = executable.with_pool(pool.clone());
        executable.with_schedule(&schedule)?.instance()
    }
}

unsafe extern "C" fn noop(_: *mut c_void, _: i64, _: i64) {
    // Keeps the function a function, and the call a call.
    // SAFETY: no instruction.
    unsafe { std::arch::asm!("", options(nomem, nostack, preserves_flags)) };
}

unsafe extern "C" fn count(_: *mut c_void, rounds: i64, _: i64) {
    for round in 0..rounds {
        black_box(round);
    }
}

/// What `count` takes for a round: the least of some tries.
fn nanos_of_a_round() -> f64 {
    const ROUNDS: i64 = 100_000;
    let time = || {
        let start = Instant::now();
        // SAFETY: it touches no memory.
        unsafe { black_box(count as Entry)(std::ptr::null_mut(), ROUNDS, 0) };
        start.elapsed().as_secs_f64() * 1e9
    };
    #[allow(clippy::cast_precision_loss)] // 100,000
    let rounds = ROUNDS as f64;
    (0..100).map(|_| time()).fold(f64::INFINITY, f64::min) / rounds
}
