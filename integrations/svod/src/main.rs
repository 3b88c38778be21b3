//! `svod-capture capture MODEL.onnx -o MODEL.svod`: an ONNX model through the Svod compiler, on
//! this repository's runtime, into a plan bundle.

use std::collections::HashMap;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};
use engine::bundle::npy;
use indicatif::ProgressBar;
use prost::Message;
use svod_dtype::{DType, ScalarDType};
use svod_onnx::OnnxImporter;
use svod_onnx::parser::{ModelProto, ValueInfoProto, tensor_shape_proto, type_proto};
use svod_runtime::CpuBackend;
use svod_runtime::capture::{Named, Names};
use svod_tensor::{PrepareConfig, Tensor};

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
    /// made of it.
    Capture(Capture),
}

#[derive(clap::Args)]
struct Capture {
    /// The ONNX file.
    model: PathBuf,
    /// Where the bundle goes. What is there already is replaced.
    #[arg(short, long, value_name = "BUNDLE")]
    output: PathBuf,
    /// The shape of an input, NAME=1,3,48,192, where the model leaves it open.
    #[arg(long, value_name = "NAME=SHAPE", value_parser = shape)]
    shape: Vec<(String, Vec<usize>)>,
    /// What an input is given for the recorded test, as an array file, NAME=FILE.npy; it says the
    /// input's shape too. Others are given numbers that are the same in each capture.
    #[arg(long, value_name = "NAME=FILE", value_parser = file)]
    input: Vec<(String, PathBuf)>,
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
        let progress = ProgressBar::new_spinner();
        progress.enable_steady_tick(Duration::from_millis(100));
        let model_path = self.model.display();
        let bytes = std::fs::read(&self.model).map_err(|e| format!("read {model_path}: {e}"))?;
        let model = ModelProto::decode(&*bytes)
            .map_err(|e| format!("{model_path} is no ONNX model: {e}"))?;

        progress.set_message("reading the model");
        let given = self.given(&model)?;
        let inputs: Vec<(String, Tensor, Vec<usize>)> = given;
        let tensors: HashMap<_, _> = inputs
            .iter()
            .map(|(n, t, _)| (n.clone(), t.clone()))
            .collect();
        let names = model
            .graph
            .as_ref()
            .map(|g| g.output.iter().map(|o| o.name.clone()));
        let names: Vec<String> = names.into_iter().flatten().collect();
        let imported = OnnxImporter::new().import_model_with_inputs(model, tensors, &[])?;
        let mut outputs: Vec<(String, Tensor)> = Vec::new();
        for name in names {
            if let Some(tensor) = imported.outputs.get(&name) {
                outputs.push((name, tensor.clone()));
            }
        }

        progress.set_message("scheduling and compiling");
        let backend = match self.backend {
            Backend::Clang => CpuBackend::Clang,
            Backend::Llvm => CpuBackend::Llvm,
        };
        let config = PrepareConfig::for_cpu_backend(backend);
        let plan = Tensor::prepare_batch_with(outputs.iter_mut().map(|(_, t)| t), &config)?;

        progress.set_message("writing the bundle");
        let input_buffers = buffers(inputs.iter().map(|(n, t, _)| (n.as_str(), t)))?;
        let output_buffers = buffers(outputs.iter().map(|(n, t)| (n.as_str(), t)))?;
        let named_inputs: Vec<_> = input_buffers.iter().map(Held::named).collect();
        let named_outputs: Vec<_> = output_buffers.iter().map(Held::named).collect();
        let stem = self.model.file_stem().unwrap_or_default().to_string_lossy();
        let names = Names {
            model: &stem,
            inputs: &named_inputs,
            outputs: &named_outputs,
        };
        plan.capture(&names, &self.output)?;
        progress.finish_and_clear();
        Ok(format!(
            "{}: {} launches of {model_path} in {:.1} s; next: svod run {}",
            self.output.display(),
            plan.prepared_kernels().len(),
            start.elapsed().as_secs_f64(),
            self.output.display()
        ))
    }

    /// The model's inputs, each with what it is given, and its shape.
    fn given(&self, model: &ModelProto) -> Result<Vec<(String, Tensor, Vec<usize>)>, Failure> {
        let graph = model.graph.as_ref().ok_or("the model has no graph")?;
        let weights = graph.initializer.iter().map(|i| i.name.as_str());
        let weights: Vec<&str> = weights.collect();
        let open = graph.input.iter();
        let open: Vec<_> = open
            .filter(|i| !weights.contains(&i.name.as_str()))
            .collect();
        let known = |name: &str| open.iter().any(|input| input.name == name);
        let named = self.shape.iter().map(|(name, _)| name);
        for name in named.chain(self.input.iter().map(|(name, _)| name)) {
            if !known(name) {
                let known: Vec<_> = open.iter().map(|i| i.name.as_str()).collect();
                return Err(format!("no input `{name}`; it has {}", known.join(", ")).into());
            }
        }
        open.into_iter().map(|input| self.give(input)).collect()
    }

    fn give(&self, input: &ValueInfoProto) -> Result<(String, Tensor, Vec<usize>), Failure> {
        let name = &input.name;
        let (dtype, stated) = stated(input)?;
        if let Some((_, file)) = self.input.iter().find(|(n, _)| n == name) {
            let array = npy::read(file)?;
            let bytes = array.elements.as_view().as_bytes();
            let tensor = Tensor::from_raw_bytes(bytes, &array.shape, dtype)
                .map_err(|e| format!("{} for the input `{name}`: {e}", file.display()))?;
            return Ok((name.clone(), tensor, array.shape));
        }
        let shape = self.shape.iter().find(|(n, _)| n == name);
        let shape = match (shape, stated) {
            (Some((_, shape)), _) => shape.clone(),
            (None, Ok(stated)) => stated,
            (None, Err(open)) => {
                return Err(format!(
                    "the model leaves the shape of `{name}` open ({open}): say it with \
                     --shape {name}=…"
                )
                .into());
            }
        };
        let count = shape.iter().product();
        let bytes = sample(dtype.base(), count)
            .ok_or_else(|| format!("nothing to give `{name}`, a {dtype:?}: use --input"))?;
        let tensor = Tensor::from_raw_bytes(&bytes, &shape, dtype)?;
        Ok((name.clone(), tensor, shape))
    }
}

/// The type of an input, and its shape, or which dimension of it the model leaves open.
fn stated(input: &ValueInfoProto) -> Result<(DType, Result<Vec<usize>, String>), Failure> {
    let name = &input.name;
    let value = input.r#type.as_ref().and_then(|t| t.value.as_ref());
    let Some(type_proto::Value::TensorType(tensor)) = value else {
        return Err(format!("the input `{name}` is no tensor").into());
    };
    let dtype = match tensor.elem_type {
        1 => DType::Float32,
        2 => DType::UInt8,
        3 => DType::Int8,
        5 => DType::Int16,
        6 => DType::Int32,
        7 => DType::Int64,
        9 => DType::Bool,
        10 => DType::Float16,
        11 => DType::Float64,
        other => return Err(format!("the input `{name}` is of ONNX's type {other}").into()),
    };
    let dims = tensor.shape.iter().flat_map(|shape| &shape.dim);
    let dims = dims.map(|dim| match &dim.value {
        Some(tensor_shape_proto::dimension::Value::DimValue(n)) if *n > 0 => Ok(*n as usize),
        Some(tensor_shape_proto::dimension::Value::DimParam(name)) => Err(name.clone()),
        _ => Err("a dimension without a size".to_owned()),
    });
    Ok((dtype, dims.collect()))
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
