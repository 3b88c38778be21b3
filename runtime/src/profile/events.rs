//! A trace as events that Perfetto and chrome://tracing show.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::json;

use crate::plan::{Plan, Span, Trace};

/// Writes a trace in the [Trace Event Format], as JSON: a track for each thread, on it what ran
/// when, and an arrow from each op to those that wait for it.
///
/// [Trace Event Format]: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
///
/// # Errors
///
/// What writing returns.
pub fn write_events(plan: &Plan, trace: &Trace, mut out: impl Write) -> io::Result<()> {
    let mut events = Vec::new();
    let mut event = |event: serde_json::Value| events.push(event);
    event(json!({"ph": "M", "pid": 1, "name": "process_name", "args": {"name": plan.name()}}));
    for thread in 0..trace.threads() {
        let name = match thread {
            0 => "caller".to_owned(),
            helper => format!("helper {helper}"),
        };
        event(
            json!({"ph": "M", "pid": 1, "tid": thread, "name": "thread_name", "args": {"name": name}}),
        );
        event(json!({
            "ph": "M", "pid": 1, "tid": thread, "name": "thread_sort_index",
            "args": {"sort_index": thread},
        }));
    }
    // Where arrows begin and end: the last part of an op to end, and the first to begin.
    let mut first: Vec<Option<Span>> = vec![None; plan.ops().len()];
    let mut last = first.clone();
    // One of another plan may have others.
    for span in trace.spans().filter(|span| span.op < plan.ops().len()) {
        if first[span.op].is_none_or(|other| span.start < other.start) {
            first[span.op] = Some(span);
        }
        if last[span.op].is_none_or(|other| span.end > other.end) {
            last[span.op] = Some(span);
        }
        let mut args = json!({"op": span.op, "phase": span.phase});
        if span.parts > 1 {
            args["part"] = json!(format!("{} of {}", span.part + 1, span.parts));
        }
        event(json!({
            "ph": "X", "pid": 1, "tid": span.thread, "cat": "op", "name": plan.op_label(span.op),
            "ts": micros(span.start), "dur": micros(span.time()), "args": args,
        }));
    }
    let mut arrow = 0;
    for (op, to) in first.iter().enumerate() {
        for before in plan.predecessors(op) {
            let (Some(from), Some(to)) = (last[before], to) else {
                continue;
            };
            // An arrow begins within the one span and ends within the other.
            let within = from.end.saturating_sub(NANOSECOND);
            let ends = [("s", from.thread, within), ("f", to.thread, to.start)];
            for (ph, thread, at) in ends {
                event(json!({
                    "ph": ph, "bp": "e", "pid": 1, "tid": thread, "cat": "waits",
                    "name": "waits", "id": arrow, "ts": micros(at),
                }));
            }
            arrow += 1;
        }
    }
    let all = json!({"displayTimeUnit": "ns", "traceEvents": events});
    serde_json::to_writer(&mut out, &all)?;
    out.flush()
}

const NANOSECOND: Duration = Duration::from_nanos(1);

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}
