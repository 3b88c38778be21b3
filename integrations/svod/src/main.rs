//! `svod-capture capture MODEL.onnx -o MODEL.svod`: an ONNX model through the Svod compiler, on
//! this repository's runtime, into a plan bundle.

mod model;
mod output;

use std::collections::HashMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};
use engine::bundle::{Bundle, npy};
use engine::compile::cpu::CpuLevel;
use indicatif::ProgressBar;
use prost::Message;
use svod_dtype::ScalarDType;
use svod_onnx::OnnxImporter;
use svod_onnx::parser::{ModelProto, ValueInfoProto};
use svod_runtime::capture::{Named, Names};
use svod_runtime::{CpuBackend, ExecutionPlan};
use svod_tensor::{PrepareConfig, Tensor};

use crate::model::{Stated, read_external};
use crate::output::Output;

type Failure = Box<dyn Error>;

/// Compiles models with Svod and keeps what came out.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write an ONNX model as a plan bundle, which `svod run` runs.
    ///
    /// The bundle holds one recorded test: what the inputs were given here, and what Svod's run
    /// made of it. It holds each kernel's text and objects for --cpu, and runs without a compiler
    /// where the CPU can run one of these.
    Capture(Capture),
}

#[derive(clap::Args)]
struct Capture {
    /// The ONNX file.
    model: PathBuf,
    /// Where the bundle goes. A bundle that is there already is replaced.
    #[arg(short, long, value_name = "BUNDLE")]
    output: PathBuf,
    /// The shape of an input, NAME=1,3,48,192, where the model leaves it open.
    #[arg(long, value_name = "NAME=SHAPE", value_parser = shape)]
    shape: Vec<(String, Vec<usize>)>,
    /// What an input is given for the recorded test, as an array file, NAME=FILE.npy; it says the
    /// input's shape too. Others are given numbers that are the same in each capture.
    #[arg(long, value_name = "NAME=FILE", value_parser = file)]
    input: Vec<(String, PathBuf)>,
    /// Do not name an input in the bundle: what it is given here is a constant there. So are, named
    /// or not, inputs that Svod reads while it reads the model, such as shapes.
    #[arg(long, value_name = "NAME")]
    constant: Vec<String>,
    /// Hold objects for this CPU, or level of CPUs, once for each: native, which is this
    /// machine's, x86-64, x86-64-v2, x86-64-v3, x86-64-v4 or aarch64; native without any.
    #[arg(long = "cpu", value_name = "NAME", value_parser = CpuLevel::named)]
    cpus: Vec<CpuLevel>,
    /// In which language Svod writes kernels.
    #[arg(long, value_enum, default_value_t = Backend::Clang)]
    backend: Backend,
}

#[derive(Clone, Copy, ValueEnum)]
enum Backend {
    /// C.
    Clang,
    /// LLVM IR.
    Llvm,
}

fn shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, shape) = pair(text)?;
    let shape = shape.split(',').map(|d| d.trim().parse());
    let shape = shape.collect::<Result<_, _>>();
    let shape = shape.map_err(|_| format!("{text}: a shape is numbers with commas between"))?;
    Ok((name, shape))
}

fn file(text: &str) -> Result<(String, PathBuf), String> {
    pair(text).map(|(name, file)| (name, file.into()))
}

fn pair(text: &str) -> Result<(String, &str), String> {
    // Names of inputs may hold a `=`, shapes and most files do not.
    let (name, value) = text.rsplit_once('=').ok_or("NAME=… is expected")?;
    Ok((name.to_owned(), value))
}

fn main() -> ExitCode {
    let Command::Capture(capture) = Cli::parse().command;
    match capture.run() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprintln!("  because: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

impl Capture {
    fn run(&self) -> Result<String, Failure> {
        let start = Instant::now();
        let output = Output::at(&self.output)?;
        let progress = ProgressBar::new_spinner();
        progress.enable_steady_tick(Duration::from_millis(100));
        let model_path = self.model.display();
        let bytes = std::fs::read(&self.model).map_err(|e| format!("read {model_path}: {e}"))?;
        let mut model = ModelProto::decode(&*bytes)
            .map_err(|e| format!("{model_path} is no ONNX model: {e}"))?;
        if let Some(graph) = &mut model.graph {
            read_external(graph, self.model.parent().unwrap_or(Path::new("")))?;
        }

        progress.set_message("reading the model");
        let inputs = self.given(&model)?;
        let tensors: HashMap<_, _> = inputs.iter().cloned().collect();
        let names = model
            .graph
            .as_ref()
            .map(|g| g.output.iter().map(|o| o.name.clone()));
        let names: Vec<String> = names.into_iter().flatten().collect();
        let imported = OnnxImporter::new().import_model_with_inputs(model, tensors, &[])?;
        let mut outputs: Vec<(String, Tensor)> = Vec::new();
        for name in names {
            let tensor = imported.outputs.get(&name);
            let tensor = tensor.ok_or_else(|| format!("Svod has not made the output `{name}`"))?;
            outputs.push((name, tensor.clone()));
        }

        progress.set_message("scheduling and compiling");
        let backend = match self.backend {
            Backend::Clang => CpuBackend::Clang,
            Backend::Llvm => CpuBackend::Llvm,
        };
        let config = PrepareConfig::for_cpu_backend(backend);
        let plan = Tensor::prepare_batch_with(outputs.iter_mut().map(|(_, t)| t), &config)?;

        progress.set_message("writing the bundle");
        let open = inputs.iter().filter(|(n, _)| !self.constant.contains(n));
        let input_buffers = buffers(open.map(|(n, t)| (n.as_str(), t)))?;
        let output_buffers = buffers(outputs.iter().map(|(n, t)| (n.as_str(), t)))?;
        let named_inputs: Vec<_> = input_buffers.iter().map(Held::named).collect();
        let named_outputs: Vec<_> = output_buffers.iter().map(Held::named).collect();
        let stem = self.model.file_stem().unwrap_or_default().to_string_lossy();
        let names = Names {
            model: &stem,
            inputs: &named_inputs,
            states: &[],
            outputs: &named_outputs,
        };
        output.replace(|folder| self.write(&plan, &names, folder))?;
        progress.finish_and_clear();
        Ok(format!(
            "{}: {} launches of {model_path} in {:.1} s; next: svod run {}",
            self.output.display(),
            plan.prepared_kernels().len(),
            start.elapsed().as_secs_f64(),
            self.output.display()
        ))
    }

    /// Writes the bundle into a folder that does not exist yet.
    fn write(&self, plan: &ExecutionPlan, names: &Names<'_>, folder: &Path) -> Result<(), Failure> {
        let text = folder.with_extension("text");
        plan.capture(names, &text)?;
        let mut levels = self.cpus.clone();
        if levels.is_empty() {
            levels.push(CpuLevel::named("native")?);
        }
        let runtime = engine::Runtime::new()?;
        Bundle::open(&text)?.write_compiled(folder, &runtime, &levels, &|_| ())?;
        Ok(())
    }

    /// The model's inputs, each with what it is given.
    fn given(&self, model: &ModelProto) -> Result<Vec<(String, Tensor)>, Failure> {
        let graph = model.graph.as_ref().ok_or("the model has no graph")?;
        let weights = graph.initializer.iter().map(|i| i.name.as_str());
        let weights: Vec<&str> = weights.collect();
        let open = graph.input.iter();
        let open: Vec<_> = open
            .filter(|i| !weights.contains(&i.name.as_str()))
            .collect();
        let known = |name: &str| open.iter().any(|input| input.name == name);
        let named = self.shape.iter().map(|(name, _)| name);
        let named = named.chain(self.input.iter().map(|(name, _)| name));
        for name in named.chain(&self.constant) {
            if !known(name) {
                let known: Vec<_> = open.iter().map(|i| i.name.as_str()).collect();
                return Err(format!("no input `{name}`; it has {}", known.join(", ")).into());
            }
        }
        open.into_iter().map(|input| self.give(input)).collect()
    }

    fn give(&self, input: &ValueInfoProto) -> Result<(String, Tensor), Failure> {
        let name = &input.name;
        let stated = Stated::of(input)?;
        let shape = self.shape.iter().find(|(n, _)| n == name);
        if let Some((_, shape)) = shape {
            stated.check_shape(shape, "--shape")?;
        }
        if let Some((_, file)) = self.input.iter().find(|(n, _)| n == name) {
            let array = npy::read(file)?;
            let from = file.display().to_string();
            stated.check_dtype(array.elements.dtype(), &from)?;
            stated.check_shape(&array.shape, &from)?;
            if let Some((_, shape)) = shape.filter(|(_, shape)| *shape != array.shape) {
                let is = &array.shape;
                return Err(format!("{from} is of the shape {is:?}, and --shape {shape:?}").into());
            }
            let bytes = array.elements.as_view().as_bytes();
            let tensor = Tensor::from_raw_bytes(bytes, &array.shape, stated.dtype)
                .map_err(|e| format!("{from} for the input `{name}`: {e}"))?;
            return Ok((name.clone(), tensor));
        }
        let shape = match shape {
            Some((_, shape)) => shape.clone(),
            None => stated.shape()?,
        };
        let dtype = stated.dtype.clone();
        let bytes = sample(dtype.base(), stated.count(&shape)?)
            .ok_or_else(|| format!("nothing to give `{name}`, a {dtype:?}: use --input"))?;
        let tensor = Tensor::from_raw_bytes(&bytes, &shape, dtype)?;
        Ok((name.clone(), tensor))
    }
}

/// Numbers to give an input, the same each time: floats from 0 to 1, integers 0 to 127 and
/// booleans.
fn sample(dtype: ScalarDType, count: usize) -> Option<Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::new();
    for _ in 0..count {
        // xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let unit = (state >> 40) as f32 / (1 << 24) as f32;
        let small = (state >> 57) as u8;
        match dtype {
            ScalarDType::Float32 => bytes.extend(unit.to_le_bytes()),
            ScalarDType::Float64 => bytes.extend(f64::from(unit).to_le_bytes()),
            ScalarDType::UInt8 | ScalarDType::Int8 => bytes.push(small),
            ScalarDType::Int16 => bytes.extend(i16::from(small).to_le_bytes()),
            ScalarDType::Int32 => bytes.extend(i32::from(small).to_le_bytes()),
            ScalarDType::Int64 => bytes.extend(i64::from(small).to_le_bytes()),
            ScalarDType::Bool => bytes.push(small & 1),
            _ => return None,
        }
    }
    Some(bytes)
}

/// A tensor's buffer, with its name and shape.
struct Held<'a> {
    name: &'a str,
    buffer: svod_device::Buffer,
    shape: Vec<usize>,
}

impl Held<'_> {
    fn named(&self) -> Named<'_> {
        Named {
            name: self.name,
            buffer: &self.buffer,
            shape: &self.shape,
        }
    }
}

fn buffers<'a>(
    tensors: impl Iterator<Item = (&'a str, &'a Tensor)>,
) -> Result<Vec<Held<'a>>, Failure> {
    let held = tensors.map(|(name, tensor)| {
        let buffer = tensor.buffer();
        let buffer = buffer.ok_or_else(|| format!("`{name}` has no memory"))?;
        let shape = tensor.shape()?;
        let dims = shape.iter().map(|d| d.as_const());
        let dims: Option<Vec<usize>> = dims.collect();
        let shape = dims.ok_or_else(|| format!("the shape of `{name}` depends on variables"))?;
        Ok(Held {
            name,
            buffer,
            shape,
        })
    });
    held.collect()
}
