//! `svod inspect`

use std::collections::BTreeMap;
use std::io::Write;

use anstyle::Style;
use serde_json::{Value, json as object};
use svod_runtime::bundle::Bundle;
use svod_runtime::plan::{Op, Plan, Role};
use svod_runtime::signature::{Convention, Param, Returns, Signature};

use crate::show;
use crate::{Failure, InspectArgs, Outcome, json};

pub(crate) fn inspect(args: &InspectArgs, out: &mut dyn Write) -> Outcome {
    let bundle = Bundle::open(&args.bundle)?;
    if args.json {
        writeln!(out, "{}", json::text(&as_json(&bundle)))?;
    } else {
        text(&bundle, out)?;
    }
    Ok(true)
}

/// The ops of a plan by kind.
fn op_counts(plan: &Plan) -> (usize, usize, usize) {
    let mut counts = (0, 0, 0);
    for op in plan.ops() {
        match op {
            Op::Launch(_) => counts.0 += 1,
            Op::Copy { .. } => counts.1 += 1,
            Op::Fill { .. } => counts.2 += 1,
            // A bundle holds none.
            Op::Host(_) => {}
        }
    }
    counts
}

/// How many ops launch each kernel.
fn uses(plan: &Plan) -> BTreeMap<usize, usize> {
    let mut uses = BTreeMap::new();
    for op in plan.ops() {
        if let Op::Launch(launch) = op {
            *uses.entry(launch.kernel).or_default() += 1;
        }
    }
    uses
}

/// What an instance allocates, beside the constants, which instances share.
fn instance_bytes(plan: &Plan) -> usize {
    let own = Role::ALL.into_iter().filter(|r| *r != Role::Constant);
    own.map(|role| plan.bytes(role)).sum()
}

fn text(bundle: &Bundle, out: &mut dyn Write) -> Result<(), Failure> {
    let plan = bundle.plan();
    let bold = Style::new().bold();
    let from = match bundle.producer() {
        "" => String::new(),
        producer => format!(", from {}", show::plain(producer)),
    };
    writeln!(out, "{bold}{}{bold:#}{from}", show::plain(plan.name()))?;

    let (launches, copies, fills) = op_counts(plan);
    writeln!(
        out,
        "{}: {}, {}, {}; {}",
        show::count(plan.ops().len(), "op"),
        show::count(launches, "launch"),
        show::count(copies, "copy"),
        show::count(fills, "fill"),
        show::count(bundle.tests().len(), "recorded test"),
    )?;

    writeln!(out, "\n{bold}memory{bold:#}")?;
    for role in Role::ALL {
        let count = plan.buffers().iter().filter(|b| b.role == role).count();
        if count > 0 {
            let buffers = show::count(count, "buffer");
            let bytes = show::bytes(plan.bytes(role));
            writeln!(out, "  {:<9} {buffers:>12}  {bytes:>9}", role.name())?;
        }
    }
    writeln!(
        out,
        "  needed: {} for constants, once, and {} for each instance",
        show::bytes(plan.bytes(Role::Constant)),
        show::bytes(instance_bytes(plan)),
    )?;

    if !plan.variables().is_empty() {
        writeln!(out, "\n{bold}variables{bold:#}")?;
        for variable in plan.variables() {
            writeln!(
                out,
                "  {}  {} to {}",
                show::plain(&variable.name),
                variable.min,
                variable.max
            )?;
        }
    }
    writeln!(out, "\n{bold}inputs{bold:#}")?;
    for input in plan.inputs() {
        let name = show::plain(input.name.as_deref().unwrap_or_default());
        let dtype = input.dtype.map_or("bytes", |d| d.name());
        writeln!(out, "  {name}  {dtype} {}", show::shape(&input.shape))?;
    }
    writeln!(out, "\n{bold}outputs{bold:#}")?;
    for output in plan.outputs() {
        let shape = show::shape(&output.shape);
        writeln!(
            out,
            "  {}  {} {shape}",
            show::plain(&output.name),
            output.dtype
        )?;
    }

    writeln!(out, "\n{bold}kernels{bold:#}")?;
    let uses = uses(plan);
    for (i, kernel) in plan.kernels().iter().enumerate() {
        let times = uses.get(&i).copied().unwrap_or(0);
        let entry = show::plain(&kernel.entry);
        writeln!(
            out,
            "  {entry}({})  × {times}",
            signature(&kernel.signature)
        )?;
    }
    Ok(())
}

/// `w f32[256], r f32[784], i32 n 1..=127, index < 8`
fn signature(signature: &Signature) -> String {
    let params = signature.params().iter().map(|param| match param {
        Param::Buffer(p) => format!("{} {}[{}]", p.access.name(), p.dtype, p.len),
        Param::Scalar(p) => format!("{} {} {}", p.dtype, show::plain(&p.name), p.bounds),
        Param::Index(p) => format!("index < {}", p.max),
    });
    let mut text = params.collect::<Vec<_>>().join(", ");
    if signature.convention() == Convention::Packed {
        text += "; packed";
    }
    if signature.returns() == Returns::Status {
        text += "; status";
    }
    text
}

fn as_json(bundle: &Bundle) -> Value {
    let plan = bundle.plan();
    let (launches, copies, fills) = op_counts(plan);
    let uses = uses(plan);
    let kernels = plan.kernels().iter().enumerate().map(|(i, kernel)| {
        object!({
            "entry": kernel.entry,
            "signature": signature(&kernel.signature),
            "source": bundle.source_file(i),
            "launches": uses.get(&i).copied().unwrap_or(0),
        })
    });
    let roles = Role::ALL.into_iter().map(|role| {
        let count = plan.buffers().iter().filter(|b| b.role == role).count();
        let value = object!({ "buffers": count, "bytes": plan.bytes(role) });
        (role.name().to_owned(), value)
    });
    let variables = plan
        .variables()
        .iter()
        .map(|v| (v.name.clone(), object!({ "min": v.min, "max": v.max })));
    let inputs = plan
        .inputs()
        .map(|b| object!({ "name": b.name, "dtype": b.dtype.map(|d| d.name()), "shape": b.shape }));
    let outputs = plan
        .outputs()
        .iter()
        .map(|o| object!({ "name": o.name, "dtype": o.dtype.name(), "shape": o.shape }));
    object!({
        "name": plan.name(),
        "producer": bundle.producer(),
        "ops": { "launches": launches, "copies": copies, "fills": fills },
        "memory": roles.collect::<serde_json::Map<_, _>>(),
        "constant_bytes": plan.bytes(Role::Constant),
        "instance_bytes": instance_bytes(plan),
        "variables": variables.collect::<serde_json::Map<_, _>>(),
        "inputs": inputs.collect::<Vec<_>>(),
        "outputs": outputs.collect::<Vec<_>>(),
        "kernels": kernels.collect::<Vec<_>>(),
        "tests": bundle.tests().len(),
    })
}
