//! What each op took, as a table.

use std::time::Duration;

use anstyle::Style;
use serde_json::{Value, json as object};
use svod_runtime::plan::{OpTime, Plan, Timings};

use crate::{json, show};

/// The rows of a table; what is left is one row more.
const ROWS: usize = 25;

/// The letters of a name; what is longer is cut.
const NAME: usize = 36;

/// A heading, a row for each of the most costly ops, and one for the rest.
pub(crate) fn table(plan: &Plan, timings: &Timings) -> Vec<String> {
    let mut ops: Vec<(usize, OpTime)> = timings.ops().iter().copied().enumerate().collect();
    ops.sort_by_key(|(op, time)| (std::cmp::Reverse(time.total), *op));
    let all: Duration = ops.iter().map(|(_, time)| time.total).sum();
    let runs = ops.iter().map(|(_, time)| time.runs).max().unwrap_or(0);
    let share = |time: Duration| 100.0 * time.as_secs_f64() / all.as_secs_f64().max(1e-12);

    let bold = Style::new().bold();
    let runs_text = show::count(usize::try_from(runs).unwrap_or(usize::MAX), "run");
    let mut lines = vec![
        format!("\n{bold}what each op took{bold:#}, over {runs_text}"),
        format!(
            "{:>9}  {:<NAME$} {:>10} {:>10} {:>7}",
            "op", "what", "mean", "min", "share"
        ),
    ];
    let (shown, rest) = ops.split_at(ops.len().min(ROWS));
    for (op, time) in shown {
        let name = cut(&show::plain(&plan.op_label(*op)));
        lines.push(format!(
            "{op:>9}  {name:<NAME$} {:>10} {:>10} {:>5.1} %",
            show::duration(time.mean()),
            show::duration(time.min),
            share(time.total),
        ));
    }
    let mean = |time: Duration| time / u32::try_from(runs.max(1)).unwrap_or(u32::MAX);
    if !rest.is_empty() {
        let total: Duration = rest.iter().map(|(_, time)| time.total).sum();
        let what = format!("{} more", rest.len());
        lines.push(format!(
            "{:>9}  {what:<NAME$} {:>10} {:>10} {:>5.1} %",
            "",
            show::duration(mean(total)),
            "",
            share(total)
        ));
    }
    lines.push(format!(
        "{:>9}  {:<NAME$} {:>10}",
        "",
        "all ops, a run",
        show::duration(mean(all))
    ));
    lines.push("reading the clock is some 30 ns of each".into());
    lines
}

fn cut(name: &str) -> String {
    match name.char_indices().nth(NAME) {
        None => name.to_owned(),
        Some(_) => name.chars().take(NAME - 1).chain(['…']).collect(),
    }
}

/// An object for each op, in the plan's order.
pub(crate) fn as_json(plan: &Plan, timings: &Timings) -> Value {
    let ops = timings.ops().iter().enumerate();
    let ops = ops.map(|(i, time)| {
        object!({
            "op": i,
            "what": plan.op_label(i),
            "runs": time.runs,
            "mean_us": json::micros(&time.mean()),
            "min_us": json::micros(&time.min),
        })
    });
    ops.collect()
}
