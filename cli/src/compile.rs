//! `svod compile`

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use svod_runtime::RuntimeBuilder;
use svod_runtime::bundle::Bundle;
use svod_runtime::compile::cpu::CpuLevel;

use crate::loading::Watch;
use crate::{Outcome, json, show};

#[derive(Args)]
pub(crate) struct CompileArgs {
    /// The bundle's folder
    bundle: PathBuf,
    /// The folder to write, which must not exist, or be empty
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Compile for this CPU, or level of CPUs, once for each: native, which is this
    /// machine's, x86-64, x86-64-v2, x86-64-v3, x86-64-v4 or aarch64; native without any. A
    /// run uses the object that asks most of the CPU among those that it can run, and
    /// compiles where it can run none
    #[arg(long = "cpu", value_name = "NAME", value_parser = CpuLevel::named)]
    cpus: Vec<CpuLevel>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(crate) fn compile(args: &CompileArgs, out: &mut dyn Write) -> Outcome {
    let mut levels = args.cpus.clone();
    if levels.is_empty() {
        levels.push(CpuLevel::named("native")?);
    }
    let names: Vec<&str> = levels.iter().map(CpuLevel::name).collect();
    let runtime = RuntimeBuilder::from_env().build()?;
    let bundle = Bundle::open(&args.bundle)?;
    let kernels = bundle.plan().kernels().len();
    let watch = Watch::new(kernels * levels.len());
    let written = bundle.write_compiled(&args.output, &runtime, &levels, &|progress| {
        watch.count(progress);
    });
    let loading = watch.finish();
    written?;
    if args.json {
        let value = json!({
            "bundle": args.output.to_string_lossy(),
            "kernels": kernels,
            "cpus": names,
            "compiled": loading.compiled,
            "cached": loading.cached,
            "compile_us": json::micros(&loading.time),
        });
        writeln!(out, "{value:#}")?;
        return Ok(true);
    }
    writeln!(
        out,
        "{}: {} for {} in {} ({})",
        args.output.display(),
        show::count(kernels, "kernel"),
        names.join(", "),
        show::duration(loading.time),
        loading.origins()
    )?;
    Ok(true)
}
