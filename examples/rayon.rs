//! A plan on threads that this program has anyway: those of a rayon pool.
//!
//! `cargo run --release -p svod-runtime --example rayon`

use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuilder};
use svod_runtime::plan::{Executable, PlanBuilder, Schedule};
use svod_runtime::pool::{Invitation, Pool, Team};
use svod_runtime::{DType, Error, Runtime, RuntimeBuilder, Signature, Source};

/// Lends a rayon pool's threads.
#[derive(Debug)]
struct RayonTeam(ThreadPool);

impl Team for RayonTeam {
    fn threads(&self) -> usize {
        // And the one that runs the plan.
        self.0.current_num_threads() + 1
    }

    fn invite(&self, invitation: Invitation) {
        self.0.spawn(move || invitation.accept());
    }
}

const ROWS: usize = 1024;

/// How many steps of `n → n / 2` or `n → 3 n + 1` lead from `i + 1` to 1.
const STEPS: &str = "
void steps(int *restrict steps, int i) {
    int count = 0;
    for (long n = i + 1; n != 1; n = n % 2 ? 3 * n + 1 : n / 2) count++;
    steps[i] = count;
}";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let threads = ThreadPoolBuilder::new().num_threads(2).build()?;
    let pool = Pool::builder().team(Arc::new(RayonTeam(threads))).build();
    let runtime = RuntimeBuilder::from_env().pool(pool).build()?;

    let executable = executable(&runtime)?;
    let mut instance = executable.instance()?;
    for _ in 0..100 {
        instance.run(&[])?;
    }
    let steps = instance.output("steps")?;
    let longest = steps.as_slice::<i32>()?.iter().zip(1..).max();
    println!(
        "{longest:?} (steps, from) on {} threads",
        runtime.pool().threads()
    );
    assert_eq!(longest, Some((&178, 871)));
    Ok(())
}

fn executable(runtime: &Runtime) -> Result<Executable, Error> {
    let signature = Signature::builder()
        .write(DType::I32, ROWS)
        .index(DType::I32, ROWS as u64)
        .build()?;
    let mut plan = PlanBuilder::new("steps");
    let steps = plan.output("steps", DType::I32, &[ROWS])?;
    let kernel = plan.kernel("steps", signature.clone());
    plan.launch(kernel, &[steps], &[], ROWS as i64)?;
    let plan = plan.build()?;
    // SAFETY: each call writes the one element that its index says.
    let kernel = unsafe { runtime.load(&Source::c("steps", STEPS), signature)? };
    // Without a schedule, it would learn one.
    let schedule = Schedule::waves(&plan, 16);
    let executable = Executable::new(plan, vec![kernel], [])?;
    executable
        .with_pool(runtime.pool().clone())
        .with_schedule(&schedule)
}
