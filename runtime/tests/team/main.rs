//! Teams of threads as an embedder meets them: runs within runs, forks, threads that are
//! lent, threads that go when nobody needs them.
//!
//! That a team comes to the right bits whatever it runs is for the random plans.

// A helper of a test says what it expects by failing, as the test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fork;
mod lent;
mod lifetime;
mod nested;

use std::error::Error as StdError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use svod_runtime::plan::{Executable, Instance, PlanBuilder, Schedule};
use svod_runtime::pool::Pool;
use svod_runtime::{Arg, DType};

/// One test at a time: they look at the threads of the process, and fork it.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pool(threads: usize) -> Pool {
    Pool::builder().threads(threads).build()
}

/// A plan of `width` host functions side by side, each of which calls `work` with its
/// number; and a last one, which adds to the state `sum` what they came to.
fn wide(
    width: usize,
    pool: &Pool,
    work: impl Fn(usize) -> Result<u64, Box<dyn StdError + Send + Sync>> + Send + Sync + 'static,
) -> Executable {
    let work = Arc::new(work);
    let mut plan = PlanBuilder::new("wide");
    let sum = plan.state("sum", DType::U64, &[1]).unwrap();
    let parts = plan.temp(DType::U64, &[width]).unwrap();
    for i in 0..width {
        let work = work.clone();
        let part = parts.part(8 * i..8 * (i + 1)).write();
        let host = plan.host("work", &[part], move |args| {
            let [Arg::Write(part)] = args else {
                return Ok(());
            };
            part.reborrow().into_slice::<u64>()?[0] = work(i)?;
            Ok(())
        });
        host.unwrap();
    }
    let host = plan.host("sum", &[parts.read(), sum.read_write()], |args| {
        let [Arg::Read(parts), Arg::Write(sum)] = args else {
            return Ok(());
        };
        sum.reborrow().into_slice::<u64>()?[0] += parts.as_slice::<u64>()?.iter().sum::<u64>();
        Ok(())
    });
    host.unwrap();
    let plan = plan.build().unwrap();
    let waves = Schedule::waves(&plan, 1);
    let executable = Executable::new(plan, Vec::new(), []).unwrap();
    executable
        .with_schedule(&waves)
        .unwrap()
        .with_pool(pool.clone())
}

/// A plan of eight host functions side by side, and what a run adds to its sum.
fn squares(pool: &Pool) -> (Executable, u64) {
    (wide(8, pool, |i| Ok((i * i) as u64)), 140)
}

fn sum(instance: &Instance) -> u64 {
    instance.state("sum").unwrap().as_slice::<u64>().unwrap()[0]
}

/// That an instance runs and adds so much to its sum.
#[track_caller]
fn check(instance: &mut Instance, adds: u64) {
    let before = sum(instance);
    instance.run(&[]).unwrap();
    assert_eq!(sum(instance), before + adds);
}
