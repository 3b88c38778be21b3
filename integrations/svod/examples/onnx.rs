//! An ONNX model through Svod on this runtime: compiled once, and run again and again.
//!
//! `cargo run --release --example onnx -- MODEL.onnx INPUT 1,3,48,192`, for a model of one input of
//! 32-bit floats, which is given zeros.

use std::collections::HashMap;
use std::error::Error;
use std::time::Instant;

use prost::Message;
use svod_onnx::OnnxImporter;
use svod_onnx::parser::ModelProto;
use svod_tensor::Tensor;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, name, shape] = &args[..] else {
        return Err("what to run: MODEL.onnx INPUT 1,3,48,192".into());
    };
    let shape = shape
        .split(',')
        .map(str::parse)
        .collect::<Result<Vec<usize>, _>>()?;
    let zeros = vec![0; 4 * shape.iter().product::<usize>()];
    let input = Tensor::from_raw_bytes(&zeros, &shape, svod_dtype::DType::Float32)?;

    let model = ModelProto::decode(&*std::fs::read(model)?)?;
    let inputs = HashMap::from([(name.clone(), input)]);
    let mut outputs = OnnxImporter::new()
        .import_model_with_inputs(model, inputs, &[])?
        .outputs;
    let plan = Tensor::prepare_batch(outputs.values_mut())?;
    for run in 0..3 {
        let start = Instant::now();
        plan.execute()?;
        println!(
            "run {run}: {} kernels in {:?}",
            plan.kernels().count(),
            start.elapsed()
        );
    }
    for (name, output) in &outputs {
        println!(
            "{name}: {:?}",
            output.as_vec::<f32>()?.iter().take(8).collect::<Vec<_>>()
        );
    }
    Ok(())
}
