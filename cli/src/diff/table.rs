//! What a comparison came to, as text.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use svod_runtime::DType;
use svod_runtime::bundle::{Difference, Tolerance};
use svod_runtime::diff::{Element, OpDifference, OpReport, OutputDifference, RunReport, Verdict};
use svod_runtime::plan::Plan;
use svod_runtime::signature::Number;

use crate::show;

/// The letters of an op's name in a row; what is longer is cut.
const NAME: usize = 40;

/// Which test, with which variables.
pub(super) fn begin(
    test: Option<usize>,
    variables: &[(String, i64)],
    out: &mut dyn Write,
) -> io::Result<()> {
    let bold = Style::new().bold();
    let what = test.map_or_else(|| "run".to_owned(), |test| format!("test {test}"));
    let words = variables
        .iter()
        .map(|(n, v)| format!("{} = {v}", show::plain(n)));
    let words = words.collect::<Vec<_>>().join(", ");
    let words = if words.is_empty() {
        words
    } else {
        format!(" ({words})")
    };
    writeln!(out, "{bold}{what}{bold:#}{words}")
}

pub(super) fn header(out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "  {:>6}  {:<NAME$} {:>10} {:>11} {:>11}  verdict",
        "op", "what", "elements", "largest", "relative"
    )
}

/// A row for an op.
pub(super) fn row(plan: &Plan, op: &OpReport, out: &mut dyn Write) -> io::Result<()> {
    let name = label(plan, op.op);
    let mut cut: String = name.chars().take(NAME).collect();
    if cut.len() < name.len() {
        cut.pop();
        cut.push('…');
    }
    let (style, verdict) = match &op.verdict {
        Verdict::Same => (good(), "same"),
        Verdict::Within => (good(), "within tolerance"),
        Verdict::Differs(_) => (bad(), "DIFFERS"),
        Verdict::Failed([Some(_), _]) => (bad(), "FAILED on the left"),
        Verdict::Failed(_) => (bad(), "FAILED on the right"),
    };
    let number = |v: f64| {
        if v == 0.0 {
            "0".to_owned()
        } else {
            format!("{v:.2e}")
        }
    };
    writeln!(
        out,
        "  {:>6}  {cut:<NAME$} {:>10} {:>11} {:>11}  {style}{verdict}{style:#}",
        op.op,
        op.elements,
        number(op.max_abs),
        number(op.max_rel),
    )
}

/// What came of a run.
pub(super) fn report(plan: &Plan, report: &RunReport, out: &mut dyn Write) -> io::Result<()> {
    if report.ops > 0 {
        let (style, differing) = match report.differing {
            0 => (good(), "none differs".to_owned()),
            n => (bad(), format!("{n} DIFFER")),
        };
        let same = report.ops - report.within - report.differing;
        writeln!(
            out,
            "  {} from the same bytes: {same} the same bit for bit, {} within tolerance, \
             {style}{differing}{style:#}",
            show::count(report.ops, "op"),
            report.within,
        )?;
    }
    if let Some(first) = &report.first {
        op(plan, first, out)?;
    }
    if let Some(stopped) = report.stopped {
        writeln!(
            out,
            "  no op after ops[{stopped}] was compared: the run ends there on the left"
        )?;
    }
    for (side, failed) in ["left", "right"].iter().zip(&report.failed) {
        if let Some(failed) = failed {
            let style = bad();
            let failed = show::plain(failed);
            writeln!(
                out,
                "  {style}the whole run FAILED on the {side}{style:#}: {failed}"
            )?;
        }
    }
    for one in &report.outputs {
        output(one, out)?;
    }
    Ok(())
}

/// The first op that differs.
fn op(plan: &Plan, report: &OpReport, out: &mut dyn Write) -> io::Result<()> {
    let style = bad();
    let name = label(plan, report.op);
    let op = report.op;
    for (side, failed) in ["left", "right"].iter().zip(report.failed()) {
        if let Some(failed) = failed {
            let failed = show::plain(failed);
            writeln!(
                out,
                "  {style}ops[{op}] FAILED on the {side}{style:#}, {name}: {failed}"
            )?;
        }
    }
    let Some(difference) = report.difference() else {
        return Ok(());
    };
    let buffer = &plan.buffers()[difference.range.buffer];
    writeln!(
        out,
        "  {style}ops[{op}] DIFFERS{style:#}, {name}: {} {}, {} of {}{}",
        buffer.role.name(),
        show::plain(&plan.buffer_label(difference.range.buffer)),
        show::shape(&buffer.shape),
        buffer.dtype.map_or("bytes", |dtype| dtype.name()),
        part(plan, difference),
    )?;
    let OpDifference {
        all,
        dtype,
        tolerance,
        ..
    } = difference;
    writeln!(out, "    {}", amount(all, *dtype, *tolerance))?;
    elements(*dtype, [&difference.first, &difference.worst], out)
}

/// Which part of its buffer an op writes, if it is not all of it.
fn part(plan: &Plan, difference: &OpDifference) -> String {
    let range = &difference.range;
    let whole = range.bytes == plan.buffers()[range.buffer].bytes;
    match whole {
        true => String::new(),
        false => format!(", bytes {} to {}", range.offset, range.offset + range.bytes),
    }
}

/// How many elements differ, and by how much.
fn amount(all: &Difference, dtype: DType, tolerance: Tolerance) -> String {
    let count = match all.outside {
        0 => all.other_bits,
        n => n,
    };
    let mut text = format!("{count} of {}", show::count(all.elements, "element"));
    if all.outside == 0 {
        text += ", in bits alone";
    } else {
        text += &format!(", by up to {}", show::number(all.max_outside));
    }
    if let Some(ulps) = all.max_ulps {
        text += &format!(" (relative {}, {ulps} ULP)", show::number(all.max_rel));
    }
    if all.nans > 0 {
        text += &format!(", {} NaN on one side alone", all.nans);
    }
    if dtype.is_float() && (tolerance.rtol, tolerance.atol) != (0.0, 0.0) {
        text += &format!("; rtol {:e}, atol {:e}", tolerance.rtol, tolerance.atol);
    }
    text
}

/// The first that differs, and the worst, if that is another.
fn elements(dtype: DType, elements: [&Element; 2], out: &mut dyn Write) -> io::Result<()> {
    let [first, worst] = elements;
    let both = [("first", first), ("worst", worst)];
    let shown = if first == worst { 1 } else { 2 };
    for (name, element) in &both[..shown] {
        let place = element
            .place
            .as_ref()
            .map(|place| format!("{} ", show::shape(place)));
        let [left, right] = [element.left, element.right].map(|v| value(dtype, v));
        writeln!(
            out,
            "    {name}: {}element {}: left {left}, right {right}",
            place.unwrap_or_default(),
            element.index,
        )?;
    }
    Ok(())
}

/// An output of the whole runs.
fn output(output: &OutputDifference, out: &mut dyn Write) -> io::Result<()> {
    let name = show::plain(&output.name);
    let Some(difference) = &output.difference else {
        let style = bad();
        return writeln!(
            out,
            "  whole runs: {style}output `{name}` is there on one side alone{style:#}, or of other \
             type or shape on the other"
        );
    };
    let recorded = match output.recorded {
        None => "",
        Some([true, true]) => "; both are as recorded",
        Some([true, false]) => "; the left is as recorded, the right is not",
        Some([false, true]) => "; the right is as recorded, the left is not",
        Some([false, false]) => "; neither is as recorded",
    };
    if let Some(beyond) = &output.beyond {
        let style = bad();
        let amount = amount(difference, output.dtype, output.tolerance);
        writeln!(
            out,
            "  whole runs: output `{name}` {style}DIFFERS{style:#}: {amount}{recorded}"
        )?;
        return elements(output.dtype, [&beyond[0], &beyond[1]], out);
    }
    let style = good();
    let how = match difference.is_exact() {
        true => "the same bit for bit".to_owned(),
        false => format!(
            "the same within tolerance, by up to {}",
            show::number(difference.max_abs)
        ),
    };
    writeln!(
        out,
        "  whole runs: output `{name}` {style}{how}{style:#}{recorded}"
    )
}

/// What came of all runs.
pub(super) fn end(
    plan: &Plan,
    runs: &[(Option<usize>, &RunReport)],
    out: &mut dyn Write,
) -> io::Result<()> {
    let first = runs
        .iter()
        .find_map(|(test, run)| Some((test, run.first.as_ref()?)));
    let whole = runs.iter().all(|(_, run)| run.is_same_as_a_whole());
    let compared = runs.iter().any(|(_, run)| run.ops > 0);
    let (good, bad) = (good(), bad());
    match first {
        Some((test, op)) => {
            let test = test
                .map(|test| format!(" in test {test}"))
                .unwrap_or_default();
            let name = label(plan, op.op);
            writeln!(
                out,
                "\n{bad}the first op that differs{test}: ops[{}], {name}{bad:#}",
                op.op
            )?;
        }
        None if compared => writeln!(out, "\n{good}no op differs{good:#}")?,
        None => writeln!(out)?,
    }
    match whole {
        true => writeln!(out, "{good}the outputs of whole runs are the same{good:#}"),
        false if first.is_none() && compared => writeln!(
            out,
            "{bad}the outputs of whole runs differ{bad:#}, though no op does by itself: small \
             differences may add up, a kernel may write where it may not (svod run --guard), or \
             constants may be others"
        ),
        false => writeln!(out, "{bad}the outputs of whole runs differ{bad:#}"),
    }
}

/// ``launch of `r_16_4` ``
fn label(plan: &Plan, op: usize) -> String {
    show::plain(&plan.op_label(op))
}

/// As many digits as tell a number from the next of its type.
#[allow(clippy::cast_possible_truncation)] // it was no wider
pub(super) fn value(dtype: DType, number: Number) -> String {
    match number {
        Number::Int(v) => v.to_string(),
        Number::Float(v) if dtype == DType::F64 => format!("{v:?}"),
        Number::Float(v) => format!("{:?}", v as f32),
    }
}

const fn good() -> Style {
    Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green)))
}

const fn bad() -> Style {
    let red = anstyle::Color::Ansi(AnsiColor::Red);
    Style::new().bold().fg_color(Some(red))
}
