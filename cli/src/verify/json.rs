//! What a verification came to, as one JSON object.
//!
//! | key | what |
//! | --- | --- |
//! | `schema` | `svod.verify.1` |
//! | `bundle` | the folder, as it was given |
//! | `clean` | whether nothing was found: exit status 0 |
//! | `quick` | whether kernels were verified once |
//! | `seconds` | how long it took, with loading |
//! | `passes` | the names of the runs, in order |
//! | `findings` | all that was found, as below |
//! | `ops` | for each op `op`, `what` it is, `kernel` (its entry, or null), `runs` of the plan, in how many of these it was `skipped` as its kernel was verified before, `launches` that were made for it and the `calls` of the grid that these had, its `grid`, and whether each call was made `alone` |
//! | `whole` | what was compared of the plan as a whole: `check`, one of the last four kinds, and how many `runs` |
//! | `whole_skipped` | why it was not, or null |
//! | `threads` | on how many threads |
//!
//! A finding has `kind`, `pass` (the run in which it was found first), `op`, `kernel`, `argument`,
//! `buffer` (its role and name), `element` (of the argument; of the output, where there is no op),
//! `calls` of the grid, `function`, `offset` and `instruction` in the kernel's code, `file` and
//! `line` of its source, and `text`. What does not apply, or is not known, is null.
//!
//! Kinds: `out-of-bounds`, `writes-read-only`, `reads-write-only`, `reads-unwritten`, `overlap`,
//! `dependent`, `unsteady`, `placement`, `misaligned`, `not-bool`, `status`, `hang`, `crash`,
//! `unwritten-output`, `threads`, `planned-memory`, `guarded`, `recorded`.

use serde_json::{Value, json as object};
use svod_runtime::plan::Op;
use svod_runtime::verify::Finding;

use super::Seen;

pub(super) fn command(seen: &Seen<'_>) -> Value {
    let (report, plan) = (seen.report, seen.bundle.plan());
    let ops = report.ops.iter().zip(plan.ops()).enumerate();
    let ops = ops.map(|(i, (checked, op))| {
        let kernel = match op {
            Op::Launch(launch) => Some(&plan.kernels()[launch.kernel].entry),
            _ => None,
        };
        object!({
            "op": i,
            "what": plan.op_label(i),
            "kernel": kernel,
            "runs": checked.runs,
            "skipped": checked.skipped,
            "launches": checked.launches,
            "calls": checked.calls,
            "grid": checked.grid,
            "alone": checked.alone,
        })
    });
    let whole = report.whole.iter();
    let whole = whole.map(|check| object!({"check": check.kind.name(), "runs": check.runs}));
    object!({
        "schema": "svod.verify.1",
        "bundle": seen.bundle.path(),
        "clean": report.is_clean(),
        "quick": seen.args.quick,
        "seconds": seen.time.as_secs_f64(),
        "passes": report.passes,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "ops": ops.collect::<Vec<_>>(),
        "whole": whole.collect::<Vec<_>>(),
        "whole_skipped": seen.skipped,
        "threads": seen.threads,
    })
}

fn finding(finding: &Finding) -> Value {
    let code = finding.code.as_ref();
    object!({
        "kind": finding.kind.name(),
        "pass": finding.pass,
        "op": finding.op,
        "kernel": finding.kernel,
        "argument": finding.argument,
        "buffer": finding.buffer,
        "element": finding.element,
        "calls": finding.calls,
        "function": code.map(|code| &code.function),
        "offset": code.map(|code| code.offset),
        "instruction": code.and_then(|code| code.instruction.as_ref()),
        "file": finding.line.as_ref().map(|line| &line.file),
        "line": finding.line.as_ref().map(|line| line.line),
        "text": finding.text,
    })
}
