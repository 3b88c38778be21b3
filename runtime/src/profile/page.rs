//! A profile as a page to look at.
//!
//! It is one file that needs nothing else: style, script and data lie in it. A policy in its head
//! lets nothing be fetched, and nothing run but the script whose digest it states, whatever
//! the names and sources of a plan may hold.

use std::io::{self, Write};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::Report;
use crate::plan::{Plan, Role, Trace};

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");

/// Each part may use those before it.
const SCRIPT: &str = concat!(
    "(() => {\n\"use strict\";\n",
    include_str!("page/data.js"),
    include_str!("page/format.js"),
    include_str!("page/dom.js"),
    include_str!("page/select.js"),
    include_str!("page/theme.js"),
    include_str!("page/view.js"),
    include_str!("page/summary.js"),
    include_str!("page/timeline.js"),
    include_str!("page/graph.js"),
    include_str!("page/memory.js"),
    include_str!("page/labels.js"),
    include_str!("page/roofline.js"),
    include_str!("page/kernels.js"),
    include_str!("page/details.js"),
    "})();\n",
);

/// What a page shows.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// The plan that ran.
    pub plan: &'a Plan,
    /// What its runs come to.
    pub report: &'a Report,
    /// One of the runs.
    pub trace: &'a Trace,
    /// The texts of the plan's kernels, in their order; what is missing is not shown.
    pub texts: &'a [KernelText],
    /// Why the processor counted nothing, where the report has no counts.
    pub not_counted: Option<&'a str>,
}

/// What a kernel is, as text.
#[derive(Clone, Debug, Default, Serialize)]
pub struct KernelText {
    /// What it was compiled from.
    pub source: Option<String>,
    /// What it was compiled to.
    pub assembly: Option<String>,
}

/// Writes a page, as HTML: where the time of runs goes, when which op ran in one of them, what
/// waits for what, where temps lie, how near kernels are to what the machine can do, and their
/// texts.
///
/// # Errors
///
/// What writing returns.
pub fn write_page(page: &Page<'_>, mut out: impl Write) -> io::Result<()> {
    let data = embedded(&serde_json::to_string(&Data::new(page))?);
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; \
         base-uri 'none'; form-action 'none'",
        base64(&Sha256::digest(SCRIPT)),
        base64(&Sha256::digest(STYLE)),
    );
    // In pieces, so that what stands in one is not looked for in another.
    let mut rest = TEMPLATE;
    for (mark, text) in [
        ("{policy}", policy.as_str()),
        ("{style}", STYLE),
        ("{data}", &data),
        ("{script}", SCRIPT),
    ] {
        let (before, after) = rest.split_once(mark).unwrap_or((rest, ""));
        out.write_all(before.as_bytes())?;
        out.write_all(text.as_bytes())?;
        rest = after;
    }
    out.write_all(rest.as_bytes())?;
    out.flush()
}

/// JSON that can stand in a script element: `<`, which is only ever part of a string, would
/// otherwise end it, or begin a comment.
fn embedded(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |group: &[u8]| {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[(bits >> shift & 63) as usize]))
    };
    let mut text: String = bytes.chunks(3).flat_map(group).collect();
    let missing = (3 - bytes.len() % 3) % 3;
    text.truncate(text.len() - missing);
    text + &"=".repeat(missing)
}

/// What the script reads.
#[derive(Serialize)]
struct Data<'a> {
    report: &'a Report,
    texts: &'a [KernelText],
    not_counted: Option<&'a str>,
    buffers: Vec<Buffer<'a>>,
    ops: Vec<OpData>,
    /// The ops, in the order in which one thread runs them.
    order: Vec<usize>,
    memory: Memory,
    trace: TraceData,
}

#[derive(Serialize)]
struct Buffer<'a> {
    name: Option<&'a str>,
    role: &'static str,
    /// Its type and shape.
    shape: String,
    bytes: usize,
    /// In the arena.
    offset: Option<usize>,
}

#[derive(Serialize)]
struct OpData {
    /// What it waits for, and why.
    before: Vec<(usize, Vec<String>)>,
    /// Buffer, offset, bytes, and what it does with them.
    touches: Vec<(usize, usize, usize, &'static str)>,
}

#[derive(Serialize)]
struct Memory {
    arena: usize,
    unplanned: usize,
    lower_bound: usize,
    instance: usize,
    /// The number and the bytes of the buffers of each role.
    roles: Vec<(&'static str, usize, usize)>,
}

#[derive(Serialize)]
struct TraceData {
    took: u64,
    threads: usize,
    /// Op, part, of so many, phase, thread, and when it began and ended, in nanoseconds.
    spans: Vec<(usize, u32, u32, u32, usize, u64, u64)>,
}

impl Data<'_> {
    fn new<'a>(page: &Page<'a>) -> Data<'a> {
        let Page {
            plan,
            report,
            trace,
            texts,
            not_counted,
        } = *page;
        let schedule = trace.schedule().map(|schedule| schedule.ops().collect());
        Data {
            report,
            texts,
            not_counted,
            buffers: (0..plan.buffers().len()).map(|i| buffer(plan, i)).collect(),
            ops: (0..plan.ops().len()).map(|op| op_data(plan, op)).collect(),
            order: schedule.unwrap_or_else(|| plan.order()),
            memory: memory(plan),
            trace: trace_data(trace),
        }
    }
}

fn buffer(plan: &Plan, i: usize) -> Buffer<'_> {
    let buffer = &plan.buffers()[i];
    Buffer {
        name: buffer.name.as_deref(),
        role: buffer.role.name(),
        shape: match buffer.dtype {
            Some(dtype) => format!("{dtype} {:?}", buffer.shape),
            None => "untyped".to_owned(),
        },
        bytes: buffer.bytes,
        offset: plan.arena_offset(i),
    }
}

fn op_data(plan: &Plan, op: usize) -> OpData {
    let waits = plan.explain(op).map(|e| e.waits).unwrap_or_default();
    let before = waits.into_iter().map(|wait| {
        let reasons = wait.reasons.iter().map(|reason| plan.describe(reason));
        (wait.op, reasons.collect())
    });
    let touches = plan.touches(op).map(|touch| {
        let range = touch.range;
        let does = match (touch.access.reads(), touch.access.writes()) {
            (true, true) => "reads and writes",
            (false, true) => "writes",
            _ => "reads",
        };
        (range.buffer, range.offset, range.bytes, does)
    });
    OpData {
        before: before.collect(),
        touches: touches.collect(),
    }
}

fn memory(plan: &Plan) -> Memory {
    let memory = plan.memory();
    let role = |role: Role| {
        let buffers = plan.buffers().iter().filter(|b| b.role == role);
        (role.name(), buffers.count(), plan.bytes(role))
    };
    Memory {
        arena: memory.arena,
        unplanned: memory.unplanned,
        lower_bound: memory.lower_bound,
        instance: memory.instance,
        roles: Role::ALL.into_iter().map(role).collect(),
    }
}

fn trace_data(trace: &Trace) -> TraceData {
    let nanos = |time: std::time::Duration| time.as_nanos() as u64;
    let spans = trace.spans().map(|span| {
        let (start, end) = (nanos(span.start), nanos(span.end));
        let (op, part, parts) = (span.op, span.part, span.parts);
        (op, part, parts, span.phase, span.thread, start, end)
    });
    TraceData {
        took: nanos(trace.took()),
        threads: trace.threads(),
        spans: spans.collect(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::plan::{Executable, PlanBuilder, Run};
    use crate::profile::Profile;

    #[test]
    fn base64_is_as_it_is_defined() {
        let texts = ["", "f", "fo", "foo", "foob"].map(|text| base64(text.as_bytes()));
        assert_eq!(texts, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
    }

    /// What HTML would take for markup, in the names of a plan and the texts of its kernels,
    /// leaves the data one element, and comes out of it as it went in.
    #[test]
    fn nothing_breaks_out_of_the_data() {
        const HOSTILE: &str =
            "</script><script>alert(1)</script><!--<script>\u{2028}\u{2029}]]>\"'&\\{script}";
        let mut plan = PlanBuilder::new(HOSTILE);
        let to = plan.output(HOSTILE, DType::F32, &[1]).unwrap();
        plan.host(HOSTILE, &[to.write()], |_| Ok(())).unwrap();
        let executable = Executable::new(plan.build().unwrap(), vec![], []).unwrap();
        let mut trace = Trace::new();
        let run = Run {
            trace: Some(&mut trace),
            ..Run::default()
        };
        executable.instance().unwrap().run_with(run).unwrap();
        let mut profile = Profile::new(&executable);
        profile.add(&trace);
        let texts = [KernelText {
            source: Some(HOSTILE.into()),
            assembly: Some(HOSTILE.into()),
        }];
        let page = Page {
            plan: executable.plan(),
            report: &profile.report(None, None),
            trace: &trace,
            texts: &texts,
            not_counted: Some(HOSTILE),
        };
        let mut out = Vec::new();
        write_page(&page, &mut out).unwrap();

        let out = String::from_utf8(out).unwrap();
        let (_, rest) = out.split_once("id=\"data\">").unwrap();
        let (data, rest) = rest.split_once("</script>").unwrap();
        assert!(!data.contains('<'));
        assert!(!data.contains(['\u{2028}', '\u{2029}']));
        let rest = rest.trim_start().strip_prefix("<script>").unwrap();
        assert!(rest.starts_with(SCRIPT));
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["report"]["plan"], HOSTILE);
        assert_eq!(data["report"]["ops"][0]["name"], HOSTILE);
        assert_eq!(data["buffers"][0]["name"], HOSTILE);
        assert_eq!(data["not_counted"], HOSTILE);
        assert_eq!(data["texts"][0]["source"], HOSTILE);
        assert_eq!(data["texts"][0]["assembly"], HOSTILE);
    }

    /// The template holds what is filled in once each, in the order in which it is, and its own
    /// parts cannot end their elements.
    #[test]
    fn the_template_is_whole_and_small() {
        let marks = ["{policy}", "{style}", "{data}", "{script}"];
        let places = marks.map(|mark| TEMPLATE.find(mark).unwrap());
        assert!(places.is_sorted());
        assert!(!SCRIPT.contains("</script") && !SCRIPT.contains("<!--"));
        assert!(!STYLE.contains("</style"));
        assert!(TEMPLATE.len() + STYLE.len() + SCRIPT.len() < 110_000);
    }
}
