//! What it takes to build a plan of many ops over as many views, to join it with its
//! kernel, and to make an instance of it; and the latter for the bundles that are named.

use std::ffi::c_void;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use svod_runtime::bundle::Bundle;
use svod_runtime::plan::{Executable, Plan, PlanBuilder};
use svod_runtime::{DType, Error, Kernel, Runtime, Signature};

/// Elements of a view.
const LEN: usize = 16;

/// Medians of so many rounds.
const ROUNDS: usize = 15;

unsafe extern "C" fn noop(_: *mut f32, _: *const f32, _: *const f32) {}

fn signature() -> Result<Signature, Error> {
    let signature = Signature::builder().write(DType::F32, LEN);
    let signature = signature.read(DType::F32, LEN).read(DType::F32, LEN);
    signature.build()
}

/// Every op writes a view of one temp, and reads the views before it.
fn one_buffer(ops: usize) -> Result<Plan, Error> {
    let mut plan = PlanBuilder::new("views of one buffer");
    let kernel = plan.kernel("noop", signature()?);
    let all = plan.temp(DType::F32, &[LEN * (ops + 2)])?;
    for op in 0..ops {
        let view = |i: usize| plan.view(all, LEN * i..LEN * (i + 1));
        let args = [view(op + 2)?, view(op + 1)?, view(op)?];
        plan.launch(kernel, &args, &[], 1)?;
    }
    plan.build()
}

/// Every op writes half of a temp of its own, and reads halves of the two before it.
fn own_buffers(ops: usize) -> Result<Plan, Error> {
    let mut plan = PlanBuilder::new("a temp an op");
    let kernel = plan.kernel("noop", signature()?);
    let mut temps = Vec::new();
    for _ in 0..ops + 2 {
        temps.push(plan.temp(DType::F32, &[2 * LEN])?);
    }
    for op in 0..ops {
        let half = |i: usize| plan.view(temps[i], LEN * (op % 2)..LEN * (op % 2 + 1));
        let args = [half(op + 2)?, half(op + 1)?, half(op)?];
        plan.launch(kernel, &args, &[], 1)?;
    }
    plan.build()
}

/// In each wave 32 ops, of which each reads two temps of the wave before.
fn wide(ops: usize) -> Result<Plan, Error> {
    const WIDTH: usize = 32;
    let mut plan = PlanBuilder::new("32 ops a wave");
    let kernel = plan.kernel("noop", signature()?);
    let mut temps = Vec::new();
    for i in 0..ops + WIDTH {
        temps.push(plan.temp(DType::F32, &[LEN * (1 + i % 7)])?);
    }
    for op in 0..ops {
        let first = op / WIDTH * WIDTH;
        let view = |i: usize| plan.view(temps[i], 0..LEN);
        let (a, b) = (op % WIDTH, (op * 5 + 1) % WIDTH);
        let (a, b) = (first + a, first + b);
        let args = [view(op + WIDTH)?, view(a)?, view(b)?];
        plan.launch(kernel, &args, &[], 1)?;
    }
    plan.build()
}

fn median<T>(mut make: impl FnMut() -> Result<T, Error>) -> Result<Duration, Error> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let made = black_box(make()?);
        times.push(start.elapsed());
        drop(made);
    }
    times.sort_unstable();
    Ok(times[ROUNDS / 2])
}

fn executable(plan: Plan) -> Result<Executable, Error> {
    // SAFETY: the function has the prototype, and touches nothing.
    let kernel = unsafe { Kernel::from_entry("noop", noop as *const c_void, signature()?) };
    Executable::new(plan, vec![kernel], [])
}

fn main() -> Result<(), Error> {
    println!("medians of {ROUNDS}\n");
    println!(
        "                              ops      build   ns an op  executable   instance  edges"
    );
    for (name, build) in [
        (
            "views of one buffer",
            one_buffer as fn(usize) -> Result<Plan, Error>,
        ),
        ("a temp an op", own_buffers),
        ("32 ops a wave", wide),
    ] {
        for ops in [1_000, 10_000, 100_000] {
            let time = median(|| build(ops))?;
            let plan = build(ops)?;
            let edges = plan.edges();
            let joining = median(|| executable(plan.clone()))?;
            let executable = executable(plan)?;
            let instance = median(|| executable.instance())?;
            println!(
                "  {name:<22} {ops:>8} {:>7.2} ms {:>10} {:>8.2} ms {:>7.2} ms  {edges}",
                time.as_secs_f64() * 1e3,
                time.as_nanos() / ops as u128,
                joining.as_secs_f64() * 1e3,
                instance.as_secs_f64() * 1e3,
            );
        }
    }
    let bundles: Vec<_> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    if bundles.is_empty() {
        return Ok(());
    }
    println!("\n                            instance    constants       other");
    let runtime = Runtime::new()?;
    for path in bundles {
        let bundle = Bundle::open(Path::new(&path))?;
        // SAFETY: whoever names a bundle here trusts it.
        let executable = unsafe { bundle.load(&runtime, &|_| {}) }?;
        let time = median(|| executable.instance())?;
        let memory = executable.plan().memory();
        println!(
            "  {:<22} {:>8.1} µs {:>9} kB {:>8} kB",
            bundle.plan().name(),
            time.as_secs_f64() * 1e6,
            memory.bytes(svod_runtime::plan::Role::Constant) / 1000,
            memory.instance / 1000,
        );
    }
    Ok(())
}
