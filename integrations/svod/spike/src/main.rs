//! Svod's tensors, computed by our runtime: checks of results, and what a call costs.

mod device;

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use svod_device::device::ProgramSpec;
use svod_dtype::{DType, DeviceSpec};
use svod_runtime::{CpuBackend, DEVICE_FACTORIES, ExecutionPlan, create_cpu_device_with_backend};
use svod_tensor::{PrepareConfig, Tensor, Variable};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    let runtime = Arc::new(ours::Runtime::new()?);
    // Before the first tensor: Svod keeps a device once it has made it.
    DEVICE_FACTORIES.register_factory(
        "CPU",
        Arc::new(move |_, registry| device::device(registry, Arc::clone(&runtime))),
    );
    elementwise()?;
    types()?;
    matmul()?;
    reductions()?;
    variables()?;
    println!(
        "all right: {} kernels loaded, {} launches, each checked\n",
        device::LOADED.load(Ordering::Relaxed),
        device::LAUNCHED.load(Ordering::Relaxed)
    );
    cost()
}

/// Realizes a tensor on our device and compares it with what it should be.
fn expect(what: &str, mut tensor: Tensor, expected: &[f64], tolerance: f64) -> Outcome {
    // First, so that the kernel is one of the tensor's own type.
    tensor.realize()?;
    let mut wide = tensor.cast(DType::Float64)?;
    wide.realize()?;
    let got = wide.as_vec::<f64>()?;
    let worst = got
        .iter()
        .zip(expected)
        .map(|(g, e)| (g - e).abs() / e.abs().max(1.0));
    let worst = worst.fold(0.0, f64::max);
    if got.len() != expected.len() || worst > tolerance || got.iter().any(|g| g.is_nan()) {
        return Err(format!("{what}: {got:?}, not {expected:?}").into());
    }
    println!("{what:<44} {:>6} elements, off by {worst:.1e}", got.len());
    Ok(())
}

fn ramp(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i * 37 % 101) as f32 / 25.0 - 2.0).collect()
}

fn elementwise() -> Outcome {
    let (x, y) = (ramp(1000), ramp(1007)[7..].to_vec());
    let (a, b) = (Tensor::from_slice(&x), Tensor::from_slice(&y));
    let pairs = || {
        x.iter()
            .zip(&y)
            .map(|(x, y)| (f64::from(*x), f64::from(*y)))
    };
    let sum: Vec<f64> = pairs().map(|(x, y)| x + y).collect();
    expect("f32: a + b", &a + &b, &sum, 1e-6)?;
    let mixed: Vec<f64> = pairs().map(|(x, y)| (x * y - x).exp2()).collect();
    expect(
        "f32: exp2(a * b - a)",
        (&(&a * &b) - &a).try_exp2()?,
        &mixed,
        1e-5,
    )?;
    let sine: Vec<f64> = x.iter().map(|x| f64::from(*x).sin()).collect();
    expect("f32: sin(a), of libm", a.sin()?, &sine, 1e-6)
}

fn types() -> Outcome {
    let x = ramp(256);
    let a = Tensor::from_slice(&x);
    for (name, dtype, tolerance) in [
        ("f16", DType::Float16, 5e-3),
        ("bf16", DType::BFloat16, 3e-2),
        ("f64", DType::Float64, 1e-6),
    ] {
        let product: Vec<f64> = x.iter().map(|x| f64::from(x * x + x)).collect();
        let a = a.cast(dtype)?;
        expect(
            &format!("{name}: a * a + a"),
            &(&a * &a) + &a,
            &product,
            tolerance,
        )?;
    }
    let whole: Vec<i64> = (0..256).map(|i| i * 7 - 900).collect();
    for (name, dtype) in [
        ("i16", DType::Int16),
        ("i32", DType::Int32),
        ("i64", DType::Int64),
    ] {
        let product: Vec<f64> = whole.iter().map(|x| (x * 3 + x) as f64).collect();
        let a = Tensor::from_slice(&whole).cast(dtype)?;
        expect(
            &format!("{name}: a + a + a + a"),
            &(&(&a + &a) + &a) + &a,
            &product,
            0.0,
        )?;
    }
    let bytes: Vec<u8> = (0..=255).collect();
    let wrapped: Vec<f64> = bytes
        .iter()
        .map(|b| f64::from(b.wrapping_add(*b)))
        .collect();
    let a = Tensor::from_slice(&bytes);
    expect("u8: a + a", &a + &a, &wrapped, 0.0)?;
    let b = Tensor::from_slice(x.iter().rev().copied().collect::<Vec<_>>());
    let less: Vec<f64> = x
        .iter()
        .zip(x.iter().rev())
        .map(|(x, y)| f64::from(x < y))
        .collect();
    expect(
        "bool: a < b",
        Tensor::from_slice(&x).try_lt(&b)?,
        &less,
        0.0,
    )
}

fn matmul() -> Outcome {
    for n in [8, 50, 256] {
        let (x, y) = (ramp(n * n), ramp(n * n + 3)[3..].to_vec());
        let square = |v: &[f32]| -> Outcome<Tensor> {
            Ok(Tensor::from_slice(v).try_reshape([n as i64, n as i64])?)
        };
        let product = square(&x)?.matmul(&square(&y)?)?;
        let at = |i: usize, j: usize| -> f64 {
            (0..n)
                .map(|k| f64::from(x[i * n + k]) * f64::from(y[k * n + j]))
                .sum()
        };
        let expected: Vec<f64> = (0..n * n).map(|i| at(i / n, i % n)).collect();
        expect(
            &format!("f32: {n} x {n} matmul"),
            product.flatten()?,
            &expected,
            1e-4,
        )?;
    }
    Ok(())
}

fn reductions() -> Outcome {
    let x = ramp(64 * 100);
    let a = Tensor::from_slice(&x).try_reshape([64, 100])?;
    let rows = || x.chunks(100).map(|row| row.iter().map(|x| f64::from(*x)));
    let sums: Vec<f64> = rows().map(Iterator::sum).collect();
    expect("f32: sum of rows", a.sum(1)?, &sums, 1e-5)?;
    let largest: Vec<f64> = rows().map(|r| r.fold(f64::MIN, f64::max)).collect();
    expect("f32: max of rows", a.max(1)?, &largest, 0.0)?;
    let mean = sums.iter().sum::<f64>() / 6400.0;
    expect("f32: mean of all", a.mean(())?, &[mean], 1e-5)?;
    let whole: Vec<i32> = (0..100_000).collect();
    let total = whole.iter().map(|x| f64::from(x % 1000)).sum();
    let a = Tensor::from_slice(whole.iter().map(|x| x % 1000).collect::<Vec<i32>>());
    expect("i32: sum of 100000", a.sum(())?, &[total], 0.0)
}

/// One plan, run with several values of a variable: a scalar argument of its kernels.
fn variables() -> Outcome {
    let n = Variable::new("n", 1, 16);
    let input = Tensor::empty_dynamic(&[n.bind(4)?.as_sint()], DType::Float32);
    input.assign(&Tensor::from_slice([1.0f32, 2.0, 3.0, 4.0]));
    input.clone().realize()?;
    let mut sum = input.sum(())?;
    let mut plan = sum.prepare()?;
    for (value, expected) in [(4, 10.0), (2, 3.0), (3, 6.0)] {
        plan.execute_with_vars(&[n.bind(value)?.as_var_val()])?;
        let got = plan.output_buffer().ok_or("no output")?.as_slice::<f32>()?[0];
        if got != expected {
            return Err(format!("sum of n = {value}: {got}, not {expected}").into());
        }
    }
    println!("{:<44} n = 4, 2, 3 in one plan", "f32: sum of n elements");
    Ok(())
}

/// What a call costs on Svod's device, and on ours: the same sources, in turns.
fn cost() -> Outcome {
    let theirs = || PrepareConfig::for_cpu_backend(CpuBackend::Clang);
    if let Err(e) = plan_of(1, &theirs()) {
        println!(
            "no comparison with Svod's own device, which wants a compiler named `clang`:\n{e}"
        );
        return Ok(());
    }
    println!("ns, medians of 301 batches of 1000 calls, in turns   Svod's   checked  unchecked");
    for inputs in [1, 2, 4, 8] {
        let (own, our) = (
            plan_of(inputs, &theirs())?,
            plan_of(inputs, &PrepareConfig::from_env())?,
        );
        if body(&own) != body(&our) || our.prepared_kernels().len() != 1 {
            return Err("the two plans are not of one and the same kernel".into());
        }
        row(
            &format!("{} pointers, Program::execute", inputs + 1),
            &own,
            &our,
            &program,
        )?;
        row(
            &format!("{} pointers, ExecutionPlan::execute", inputs + 1),
            &own,
            &our,
            &plan,
        )?;
    }
    loading()
}

/// From a kernel's text to a program, on either device.
fn loading() -> Outcome {
    let registry = svod_device::registry::registry();
    let own = create_cpu_device_with_backend(registry, CpuBackend::Clang)?;
    let our = DEVICE_FACTORIES.device(&DeviceSpec::Cpu, registry)?;
    let plan = plan_of(4, &PrepareConfig::from_env())?;
    let kernel = plan.prepared_kernels()[0];
    let mut spec = ProgramSpec::new(
        kernel.kernel.entry_point.clone(),
        kernel.kernel.code.clone(),
        DeviceSpec::Cpu,
        Arc::clone(&kernel.ast),
    );
    spec.apply_derived_metadata_from_ast();
    let mut times = [const { Vec::new() }; 2];
    for _ in 0..31 {
        for (times, device) in times.iter_mut().zip([&own, &*our]) {
            let start = Instant::now();
            let compiled = device.compiler.compile(&spec)?;
            black_box((device.runtime)(&compiled)?);
            times.push(start.elapsed().as_secs_f64() * 1000.0);
        }
    }
    let [own, our] = times.map(median);
    println!("ms, medians of 31, in turns: text to program      {own:>8.1} {our:>9.1}");
    Ok(())
}

fn plan_of(inputs: usize, config: &PrepareConfig) -> Outcome<ExecutionPlan> {
    let terms: Vec<Tensor> = (0..inputs)
        .map(|i| Tensor::from_slice([i as f32]))
        .collect();
    let first = terms[0].try_neg()?;
    let mut sum = terms[1..].iter().fold(first, |sum, term| &sum + term);
    Ok(sum.prepare_with(config)?)
}

/// A kernel's source, without its name, which Svod numbers.
fn body(plan: &ExecutionPlan) -> String {
    let kernel = &plan.prepared_kernels()[0].kernel;
    kernel.code.replace(&kernel.entry_point, "kernel")
}

fn program(plan: &ExecutionPlan) {
    let kernel = plan.prepared_kernels()[0];
    let buffers: Vec<*mut u8> = kernel.buffer_ptrs.iter().map(|&p| p as *mut u8).collect();
    for _ in 0..1000 {
        // SAFETY: the plan's own buffers, which live as long as it, and its own values.
        let done = unsafe {
            let program = &kernel.kernel.program;
            program.execute(
                black_box(&buffers),
                &kernel.vals,
                Some([1; 3]),
                Some([1; 3]),
            )
        };
        done.expect("a launch that was made before");
    }
}

fn plan(plan: &ExecutionPlan) {
    for _ in 0..1000 {
        plan.execute().expect("a plan that ran before");
    }
}

fn row(
    what: &str,
    own: &ExecutionPlan,
    our: &ExecutionPlan,
    run: &dyn Fn(&ExecutionPlan),
) -> Outcome {
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..301 {
        for (i, (plan, checked)) in [(own, true), (our, true), (our, false)]
            .into_iter()
            .enumerate()
        {
            device::CHECKED.store(checked, Ordering::Relaxed);
            let start = Instant::now();
            run(plan);
            times[i].push(start.elapsed().as_nanos() as f64 / 1000.0);
        }
    }
    let [own, checked, unchecked] = times.map(median);
    println!("{what:<50} {own:>8.1} {checked:>9.1} {unchecked:>10.1}");
    Ok(())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
