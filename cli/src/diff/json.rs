//! What a comparison came to, as one JSON object.
//!
//! | key | what |
//! | --- | --- |
//! | `left`, `right` | the sides: `bundle`, `side` as it was given, `setting` in words, `threads`, `load_us` |
//! | `exact`, `rtol`, `atol` | what was stated of what counts as the same; null where nothing was |
//! | `op_by_op` | whether ops could be compared; `unlike` says why not |
//! | `unlike_contents` | the constants and states that hold other numbers on the right |
//! | `arbitrary_inputs` | whether inputs were pseudo-random |
//! | `same` | whether all is the same: exit status 0 |
//! | `first` | `test` and `op` of the first op that differs, its `kernel` and `buffer`; null if none does |
//! | `runs` | one for each recorded test, or one |
//! | `runs[].test`, `variables` | which recorded test, or null; what the variables were |
//! | `runs[].ops`, `within`, `differing` | how many ops were compared, differ in bits alone, and by more or failed |
//! | `runs[].first` | the first op that differs or failed, as below; null if none does |
//! | `runs[].stopped` | the op that failed on the left, after which none was compared, or null |
//! | `runs[].all` | with `--all`, every op, as below |
//! | `runs[].outputs` | of whole runs: `name`, `same`, `recorded` as `[left, right]` or null, and what a difference has; null numbers where one side has no such output |
//! | `runs[].failed` | the errors of the whole runs, `[left, right]`, each null if it did not fail |
//!
//! An op has `op`, `what` it is, `kernel` (its entry, or null), `verdict` (`same`, `within`,
//! `differs` or `failed`), `elements`, `other_bits`, `max_abs`, `max_rel`; where it failed,
//! `failed` as above; and where it differs, `buffer` (its name or `#` and its number), `role`,
//! `dtype`, `offset` and `bytes` in the buffer, and what a difference has: `elements`, `outside`
//! (by more than they may), `other_bits`, `nans` (on one side alone), `max_abs`, `max_rel`,
//! `max_ulps` (null for integers), `rtol`, `atol`, and `first` and `worst` element: `index`,
//! `place` in the shape or null, `left`, `right`. These two are numbers, or `"NaN"`, `"inf"`,
//! `"-inf"`; any other number that is not finite is null.

use std::collections::BTreeMap;

use serde_json::{Value, json as object};
use svod_runtime::bundle::{Bundle, Difference, Tolerance};
use svod_runtime::diff::{Diff, Element, OpReport, OutputDifference, Verdict};
use svod_runtime::plan::{Op, Plan};
use svod_runtime::signature::Number;

use super::{DiffArgs, Loaded, Record};

pub(super) fn command(
    args: &DiffArgs,
    bundles: [&Bundle; 2],
    loaded: &[Loaded; 2],
    diff: &Diff,
    runs: &[Record],
) -> Value {
    let plan = diff.plan();
    let sides = [&args.left, &args.right];
    let side = |i: usize| {
        object!({
            "bundle": bundles[i].path(),
            "side": sides[i].as_ref().map(|side| &side.text),
            "setting": loaded[i].setting,
            "threads": loaded[i].executable.pool().threads(),
            "load_us": crate::json::micros(&loaded[i].loading.time),
        })
    };
    let first = runs.iter().find_map(|run| {
        let op = run.report.first.as_ref()?;
        let buffer = op.difference().map(|d| buffer(plan, d.range.buffer));
        Some(object!({
            "test": run.test,
            "op": op.op,
            "kernel": kernel(plan, op.op),
            "buffer": buffer,
        }))
    });
    let contents = diff.unlike_contents();
    let contents: Vec<_> = contents.iter().map(|i| buffer(plan, *i)).collect();
    let given = !args.inputs.is_empty() || !args.variables.is_empty();
    let untested = runs.iter().all(|run| run.test.is_none());
    object!({
        "left": side(0),
        "right": side(1),
        "exact": args.exact,
        "rtol": args.rtol,
        "atol": args.atol,
        "op_by_op": diff.unlike().is_none(),
        "unlike": diff.unlike().map(ToString::to_string),
        "unlike_contents": contents,
        "arbitrary_inputs": untested && !given && plan.inputs().next().is_some(),
        "same": runs.iter().all(|run| run.report.is_same()),
        "first": first,
        "runs": runs.iter().map(|run| record(args, plan, run)).collect::<Vec<_>>(),
    })
}

fn record(args: &DiffArgs, plan: &Plan, record: &Record) -> Value {
    let report = &record.report;
    let mut value = object!({
        "test": record.test,
        "variables": record.variables.iter().cloned().collect::<BTreeMap<_, _>>(),
        "ops": report.ops,
        "within": report.within,
        "differing": report.differing,
        "first": report.first.as_ref().map(|first| op(plan, first)),
        "stopped": report.stopped,
        "outputs": report.outputs.iter().map(output).collect::<Vec<_>>(),
        "failed": report.failed,
    });
    if args.all {
        value["all"] = record.ops.iter().map(|one| op(plan, one)).collect();
    }
    value
}

fn op(plan: &Plan, report: &OpReport) -> Value {
    let verdict = match &report.verdict {
        Verdict::Same => "same",
        Verdict::Within => "within",
        Verdict::Differs(_) => "differs",
        Verdict::Failed(_) => "failed",
    };
    let mut value = object!({
        "op": report.op,
        "what": plan.op_label(report.op),
        "kernel": kernel(plan, report.op),
        "verdict": verdict,
        "elements": report.elements,
        "other_bits": report.other_bits,
        "max_abs": report.max_abs,
        "max_rel": report.max_rel,
    });
    if let Verdict::Failed(failed) = &report.verdict {
        value["failed"] = object!(failed);
    }
    if let Some(one) = report.difference() {
        let range = &one.range;
        value["buffer"] = buffer(plan, range.buffer).into();
        value["role"] = plan.buffers()[range.buffer].role.name().into();
        value["dtype"] = one.dtype.name().into();
        value["offset"] = range.offset.into();
        value["bytes"] = range.bytes.into();
        let elements = [&one.first, &one.worst];
        difference(&mut value, &one.all, one.tolerance, Some(elements));
    }
    value
}

fn output(output: &OutputDifference) -> Value {
    let mut value = object!({
        "name": output.name,
        "dtype": output.dtype.name(),
        "same": output.is_same(),
        "recorded": output.recorded,
    });
    if let Some(all) = &output.difference {
        let elements = output.beyond.as_ref().map(|both| [&both[0], &both[1]]);
        difference(&mut value, all, output.tolerance, elements);
    }
    value
}

fn difference(
    value: &mut Value,
    all: &Difference,
    tolerance: Tolerance,
    elements: Option<[&Element; 2]>,
) {
    value["elements"] = all.elements.into();
    value["outside"] = all.outside.into();
    value["other_bits"] = all.other_bits.into();
    value["nans"] = all.nans.into();
    value["max_abs"] = all.max_abs.into();
    value["max_rel"] = all.max_rel.into();
    value["max_ulps"] = all.max_ulps.into();
    value["rtol"] = tolerance.rtol.into();
    value["atol"] = tolerance.atol.into();
    value["first"] = elements.map(|[first, _]| element(first)).into();
    value["worst"] = elements.map(|[_, worst]| element(worst)).into();
}

fn element(element: &Element) -> Value {
    object!({
        "index": element.index,
        "place": element.place,
        "left": number(element.left),
        "right": number(element.right),
    })
}

fn number(number: Number) -> Value {
    match number {
        Number::Int(v) => {
            i64::try_from(v).map_or_else(|_| object!(u64::try_from(v).ok()), Value::from)
        }
        Number::Float(v) if v.is_finite() => object!(v),
        Number::Float(v) => object!(v.to_string()),
    }
}

fn kernel(plan: &Plan, op: usize) -> Option<&str> {
    match plan.ops().get(op)? {
        Op::Launch(launch) => Some(&plan.kernels()[launch.kernel].entry),
        _ => None,
    }
}

/// A buffer's name, or its number.
fn buffer(plan: &Plan, buffer: usize) -> String {
    let named = plan.buffers()[buffer].name.clone();
    named.unwrap_or_else(|| format!("#{buffer}"))
}
