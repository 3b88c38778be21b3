//! `svod inspect`
//!
//! `--json` prints one object:
//!
//! | key | what |
//! | --- | --- |
//! | `name`, `producer` | what the plan says of itself |
//! | `ops` | how many `launches`, `copies` and `fills` |
//! | `memory` | for each role, how many `buffers` and `bytes` |
//! | `constant_bytes`, `instance_bytes` | what constants take, once, and what each instance does |
//! | `arena` | its `bytes`; what temps would take alone (`unplanned`), and at least (`lower_bound`) |
//! | `order` | how many ops are in each of the `waves`; `edges`; the ops of a `critical_path`; those whose `unwritten_reads` find what no op before them writes |
//! | `variables` | for each its `min` and `max` |
//! | `inputs`, `outputs` | name, dtype (null for bytes) and shape |
//! | `kernels` | entry, signature, source file, and how many ops launch it |
//! | `tests` | how many there are |
//! | `schedule` | with `--schedule`, what was learned, as in `schedules.json`; whether it was `carried` by the bundle; and an `explanation`, line by line |
//!
//! With a kernel, it is the one that `kernel.rs` describes.

use std::collections::BTreeMap;
use std::io::Write;

use anstyle::Style;
use serde_json::{Value, json as object};
use svod_runtime::bundle::Bundle;
use svod_runtime::plan::{Op, Plan, PlanMemory, Role, UnwrittenRead};
use svod_runtime::signature::{Convention, Param, Returns, Signature};

use crate::show;
use crate::{Failure, InspectArgs, Outcome, json, kernel, schedule};

pub(crate) fn inspect(args: &InspectArgs, out: &mut dyn Write) -> Outcome {
    let bundle = Bundle::open(&args.bundle)?;
    if let Some(name) = &args.kernel {
        return kernel::inspect(&bundle, name, args, out);
    }
    if args.schedule {
        let (learned, carried) = schedule::of(&bundle, args.threads)?;
        let explanation = learned.explain(bundle.plan())?.to_string();
        let lines: Vec<_> = explanation.lines().map(show::plain).collect();
        if args.json {
            let mut value = as_json(&bundle);
            value["schedule"] = schedule::as_json(&learned)?;
            value["schedule"]["carried"] = carried.into();
            value["schedule"]["explanation"] = lines.into();
            writeln!(out, "{}", json::text(&value))?;
            return Ok(true);
        }
        for line in lines {
            writeln!(out, "{line}")?;
        }
    } else if let Some(op) = args.explain {
        let plan = bundle.plan();
        let explanation = plan.explain(op).ok_or_else(|| {
            let ops = show::count(plan.ops().len(), "op");
            Failure::Usage(format!(
                "the plan has {ops}, counted from 0; there is no {op}"
            ))
        })?;
        for line in explanation.to_string().lines() {
            writeln!(out, "{}", show::plain(line))?;
        }
    } else if args.json {
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
pub(crate) fn uses(plan: &Plan) -> BTreeMap<usize, usize> {
    let mut uses = BTreeMap::new();
    for op in plan.ops() {
        if let Op::Launch(launch) = op {
            *uses.entry(launch.kernel).or_default() += 1;
        }
    }
    uses
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
    memory(plan, out)?;
    order(plan, out)?;

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
    let digits = plan.kernels().len().saturating_sub(1).to_string().len();
    for (i, kernel) in plan.kernels().iter().enumerate() {
        let times = uses.get(&i).copied().unwrap_or(0);
        let entry = show::plain(&kernel.entry);
        writeln!(
            out,
            "  {i:digits$}  {entry}({})  × {times}",
            signature(&kernel.signature)
        )?;
    }
    Ok(())
}

/// What an instance takes, and how near to the least it is.
fn memory(plan: &Plan, out: &mut dyn Write) -> Result<(), Failure> {
    let memory = plan.memory();
    if memory.unplanned > 0 {
        writeln!(
            out,
            "  arena: {} for all temps; alone, aligned, they would take {}, and {} live at one time{}",
            show::bytes(memory.arena),
            show::bytes(memory.unplanned),
            show::bytes(memory.lower_bound),
            over(memory),
        )?;
    }
    writeln!(
        out,
        "  needed: {} for constants, once, and {} for each instance",
        show::bytes(plan.bytes(Role::Constant)),
        show::bytes(memory.instance),
    )?;
    Ok(())
}

#[allow(clippy::cast_precision_loss)] // three digits are shown
fn over(memory: &PlanMemory) -> String {
    match memory.arena.saturating_sub(memory.lower_bound) {
        0 => String::new(),
        more => format!(
            " (+{:.1} %)",
            100.0 * more as f64 / memory.lower_bound.max(1) as f64
        ),
    }
}

/// How the ops wait for each other.
fn order(plan: &Plan, out: &mut dyn Write) -> Result<(), Failure> {
    let bold = Style::new().bold();
    writeln!(out, "\n{bold}order{bold:#}")?;
    let waves = show::count(plan.depth(), "wave");
    let (ops, width) = (plan.ops().len(), show::count(plan.width(), "op"));
    writeln!(
        out,
        "  {waves}, the widest of {width}; {} between {}",
        show::count(plan.edges(), "edge"),
        show::count(ops, "op"),
    )?;
    let widths: Vec<_> = plan.waves().map(Iterator::count).collect();
    writeln!(out, "  ops in each wave: {}", runs(&widths))?;
    for read in plan.unwritten_reads() {
        let UnwrittenRead { op, range } = read;
        let (start, end) = (range.offset, range.offset + range.bytes);
        let role = plan.buffers()[range.buffer].role.name();
        writeln!(
            out,
            "  ops[{op}] ({}) reads bytes {start} to {end} of {role} {}, which no op before it writes",
            show::plain(&plan.op_label(op)),
            show::plain(&plan.buffer_label(range.buffer)),
        )?;
    }
    Ok(())
}

/// `1 (5 times), 3, 1 (twice)`: numbers, those that repeat with how often.
fn runs(numbers: &[usize]) -> String {
    /// A plan of thousands of ops would fill the screen.
    const SHOWN: usize = 24;
    let runs = numbers.chunk_by(|a, b| a == b).map(|run| match run {
        [one] => one.to_string(),
        [one, _] => format!("{one} (twice)"),
        run => format!("{} ({} times)", run[0], run.len()),
    });
    let mut runs: Vec<_> = runs.collect();
    if runs.len() > SHOWN {
        runs.truncate(SHOWN);
        runs.push("…".into());
    }
    runs.join(", ")
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
        "instance_bytes": plan.memory().instance,
        "arena": {
            "bytes": plan.memory().arena,
            "unplanned": plan.memory().unplanned,
            "lower_bound": plan.memory().lower_bound,
        },
        "order": {
            "waves": plan.waves().map(Iterator::count).collect::<Vec<_>>(),
            "edges": plan.edges(),
            "critical_path": plan.critical_path(),
            "unwritten_reads": plan.unwritten_reads().iter().map(|r| r.op).collect::<Vec<_>>(),
        },
        "variables": variables.collect::<serde_json::Map<_, _>>(),
        "inputs": inputs.collect::<Vec<_>>(),
        "outputs": outputs.collect::<Vec<_>>(),
        "kernels": kernels.collect::<Vec<_>>(),
        "tests": bundle.tests().len(),
    })
}
