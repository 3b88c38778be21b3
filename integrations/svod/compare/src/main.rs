//! What the runtime that this was built with costs. The same text is built with the original
//! and with ours, and each line is `name TAB value TAB unit`.
//!
//! `svod-compare overhead` has every kernel's body replaced by an empty one, so that what is
//! left is the runtime; `svod-compare model FILE.onnx NAME=1,3,48,192…` prepares and runs a
//! model.

use std::collections::HashMap;
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use svod_device::device::{Device, Program, ProgramSpec, Renderer};
use svod_dtype::{DType, DeviceSpec};
use svod_ir::UOp;
use svod_onnx::OnnxImporter;
use svod_onnx::parser::ModelProto;
use svod_runtime::{CpuBackend, DEVICE_FACTORIES, ExecutionPlan, create_cpu_device_with_backend};
use svod_tensor::{PrepareConfig, Tensor};

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["overhead"] => overhead(),
        ["model", file, ref shapes @ ..] => model(file, shapes),
        _ => Err("overhead, or model FILE.onnx NAME=SHAPE…".into()),
    }
}

fn say(name: &str, value: f64, unit: &str) {
    println!("{name}\t{value:.1}\t{unit}");
}

/// The median of how long `run` takes, of `rounds` rounds of `calls` calls, with `between` done
/// before each call and not counted.
fn median(rounds: usize, calls: u32, mut between: impl FnMut(), mut run: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            let mut took = Duration::ZERO;
            for _ in 0..calls {
                between();
                let start = Instant::now();
                run();
                took += start.elapsed();
            }
            took.as_nanos() as f64 / f64::from(calls)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[rounds / 2]
}

/// Svod's own renderer, whose kernels are emptied.
struct Empty(Arc<dyn Renderer>);

impl Renderer for Empty {
    fn render(&self, ast: &Arc<UOp>, name: Option<&str>) -> svod_device::Result<ProgramSpec> {
        let mut spec = self.0.render(ast, name)?;
        let head = format!("void {}(", spec.name);
        if let Some(at) = spec.src.find(&head)
            && let Some(body) = spec.src[at..].find('{')
        {
            spec.src.truncate(at + body);
            spec.src.push_str("{}\n");
        }
        Ok(spec)
    }

    fn device(&self) -> &DeviceSpec {
        self.0.device()
    }
}

/// A chain of products of matrices.
fn chain(links: usize, size: usize) -> Result<(Tensor, ExecutionPlan), Failure> {
    let values: Vec<f32> = (0..size * size).map(|i| (i % 7) as f32 / 7.0 / size as f32).collect();
    let matrix = || -> Result<Tensor, Failure> {
        Ok(Tensor::from_slice(&values).try_reshape([size as isize, size as isize])?)
    };
    let mut product = matrix()?;
    for _ in 0..links {
        product = product.matmul(&matrix()?)?.contiguous();
    }
    let plan = product.prepare_with(&PrepareConfig::from_env())?;
    Ok((product, plan))
}

fn overhead() -> Result<(), Failure> {
    DEVICE_FACTORIES.register_factory(
        "CPU",
        Arc::new(|_, registry| {
            let real = create_cpu_device_with_backend(registry, CpuBackend::Clang)?;
            let renderer = Arc::new(Empty(real.renderer));
            let Device { allocator, compiler, runtime, .. } = real;
            Ok(Device::new(DeviceSpec::Cpu, allocator, renderer, compiler, runtime))
        }),
    );
    let (_kept, plan) = chain(30, 8)?;
    let ops = plan.prepared_kernels().len() as f64;
    let run = || plan.execute().unwrap_or_else(|e| panic!("{e}"));
    (0..2000).for_each(|_| run());
    say("a plan of 30 empty kernels, a kernel", median(101, 200, || (), run) / ops, "ns");

    let kernel = plan.prepared_kernels()[0];
    let ptrs: Vec<*mut u8> = kernel.buffer_ptrs.iter().map(|&p| p as *mut u8).collect();
    let program: &dyn Program = &*kernel.kernel.program;
    // SAFETY: what the plan calls it with; its body is empty.
    let call = || unsafe {
        let done = program.execute(&ptrs, &kernel.vals, Some([1, 1, 1]), None);
        black_box(done.is_ok());
    };
    (0..2000).for_each(|_| call());
    say("a call of an empty kernel", median(101, 1000, || (), call), "ns");

    let (_kept, wide) = chain(1, 512)?;
    let grid = |p: &ExecutionPlan| {
        let kernels = p.prepared_kernels();
        let with = kernels.into_iter().find(|k| k.kernel.var_names.iter().any(|n| n == "core_id"));
        with.cloned()
    };
    if let Some(kernel) = grid(&wide) {
        let ptrs: Vec<*mut u8> = kernel.buffer_ptrs.iter().map(|&p| p as *mut u8).collect();
        let program: &dyn Program = &*kernel.kernel.program;
        // SAFETY: as above.
        let launch = || unsafe {
            let done = program.execute(&ptrs, &kernel.vals, Some([2, 1, 1]), None);
            black_box(done.is_ok());
        };
        (0..2000).for_each(|_| launch());
        say("a two-way launch, back to back", median(101, 200, || (), launch), "ns");
        say("a two-way launch, after 2 ms of serial work", median(51, 5, work, launch), "ns");
        let run = || wide.execute().unwrap_or_else(|e| panic!("{e}"));
        (0..2000).for_each(|_| run());
        say("a plan of one two-way launch, back to back", median(101, 200, || (), run), "ns");
        say("a plan of one two-way launch, after 2 ms", median(51, 5, work, run), "ns");
    }
    Ok(())
}

/// Two milliseconds of one thread's work.
fn work() {
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2) {
        std::hint::spin_loop();
    }
}

fn model(file: &str, shapes: &[&str]) -> Result<(), Failure> {
    let start = Instant::now();
    let proto = ModelProto::decode(&*std::fs::read(file)?)?;
    let mut inputs = HashMap::new();
    for shape in shapes {
        let (name, shape) = shape.rsplit_once('=').ok_or("NAME=SHAPE")?;
        // `i32:` before a shape has an input be of such integers.
        let (integers, shape) = match shape.strip_prefix("i32:") {
            Some(rest) => (true, rest),
            None => (false, shape),
        };
        let shape = shape.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
        let count: usize = shape.iter().product();
        let tensor = if integers {
            let bytes: Vec<u8> = (0..count).flat_map(|i| (i as i32 % 128).to_le_bytes()).collect();
            Tensor::from_raw_bytes(&bytes, &shape, DType::Int32)?
        } else {
            let number = |i| (i % 97) as f32 / 97.0;
            let bytes: Vec<u8> = (0..count).flat_map(|i| number(i).to_le_bytes()).collect();
            Tensor::from_raw_bytes(&bytes, &shape, DType::Float32)?
        };
        inputs.insert(name.to_owned(), tensor);
    }
    let outputs = proto.graph.iter().flat_map(|g| &g.output);
    let names: Vec<String> = outputs.map(|o| o.name.clone()).collect();
    let imported = OnnxImporter::new().import_model_with_inputs(proto, inputs, &[])?;
    let mut outputs: Vec<Tensor> =
        names.iter().filter_map(|n| imported.outputs.get(n).cloned()).collect();
    let plan = Tensor::prepare_batch_with(outputs.iter_mut(), &PrepareConfig::from_env())?;
    plan.execute()?;
    say("from the file to the first answer", start.elapsed().as_secs_f64() * 1e3, "ms");
    let run = || plan.execute().unwrap_or_else(|e| panic!("{e}"));
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1500) {
        run();
    }
    say("a run", median(15, 3, || (), run) / 1e3, "us");
    Ok(())
}
