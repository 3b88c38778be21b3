//! What a verification came to, as text.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use svod_runtime::plan::Op;
use svod_runtime::verify::{Checked, Finding};

use super::Seen;
use crate::show;

/// The narrowest and the widest that names are.
const NAMES: (usize, usize) = (12, 60);
/// What the other columns take.
const OTHERS: usize = 50;
/// How many other ops are listed for a finding that they share.
const OPS: usize = 8;

pub(super) fn show(seen: &Seen<'_>, out: &mut dyn Write) -> io::Result<()> {
    let width = terminal_size::terminal_size().map_or(100, |(width, _)| width.0.into());
    let name = usize::saturating_sub(width, OTHERS).clamp(NAMES.0, NAMES.1);
    rows(seen, name, out)?;
    whole(seen, out)?;
    findings(seen, width, out)?;
    end(seen, out)
}

/// A row for each kernel, or each op.
fn rows(seen: &Seen<'_>, name: usize, out: &mut dyn Write) -> io::Result<()> {
    let (plan, report) = (seen.bundle.plan(), seen.report);
    let mut rows: BTreeMap<usize, (String, Vec<usize>)> = BTreeMap::new();
    for (i, op) in plan.ops().iter().enumerate() {
        let Op::Launch(launch) = op else { continue };
        let entry = plan.kernels()[launch.kernel].entry.clone();
        let key = if seen.args.all { i } else { launch.kernel };
        rows.entry(key).or_insert((entry, Vec::new())).1.push(i);
    }
    let first = if seen.args.all { "op" } else { "ops" };
    let bold = Style::new().bold();
    writeln!(
        out,
        "\n{bold}{first:>5}  {:<name$}  {:>5} {:>8} {:>9}  found{bold:#}",
        "kernel", "grid", "launches", "calls"
    )?;
    for (entry, ops) in rows.values() {
        let all = ops.iter().map(|op| &report.ops[*op]);
        let sum = |of: fn(&Checked) -> u64| all.clone().map(of).sum::<u64>();
        let grid = all.clone().map(|checked| checked.grid).max().unwrap_or(0);
        let mut kinds: Vec<_> = report
            .findings
            .iter()
            .filter(|f| f.op.is_some_and(|op| ops.contains(&op)))
            .map(|f| f.kind.name())
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        let (style, found) = match kinds[..] {
            [] if sum(|c| (c.runs - c.skipped) as u64) == 0 => (good(), "verified above".into()),
            [] => (good(), "nothing".to_owned()),
            _ => (bad(), kinds.join(", ")),
        };
        let first = if seen.args.all { ops[0] } else { ops.len() };
        writeln!(
            out,
            "{first:>5}  {:<name$}  {grid:>5} {:>8} {:>9}  {style}{found}{style:#}",
            cut(&show::plain(entry), name),
            sum(|c| c.launches as u64),
            sum(|c| c.calls),
        )?;
    }
    Ok(())
}

/// What was compared of the plan as a whole.
fn whole(seen: &Seen<'_>, out: &mut dyn Write) -> io::Result<()> {
    let bold = Style::new().bold();
    write!(out, "\n{bold}the plan as a whole{bold:#}")?;
    if let Some(why) = &seen.skipped {
        return writeln!(out, ": not run, as {why}");
    }
    writeln!(out, " ({})", show::count(seen.threads, "thread"))?;
    for check in &seen.report.whole {
        let kind = check.kind;
        let found = seen.report.findings.iter().any(|f| f.kind == kind);
        let (style, verdict) = match (found, check.runs) {
            (true, _) => (bad(), "DIFFERS"),
            (false, 0) => (good(), "nothing to compare with"),
            (false, _) => (good(), "the same"),
        };
        let runs = show::count(check.runs, "run");
        writeln!(
            out,
            "  {:<16} {runs:>9}  {style}{verdict}{style:#}",
            kind.name()
        )?;
    }
    Ok(())
}

/// Each thing that is wrong, once for all ops that have it.
fn findings(seen: &Seen<'_>, width: usize, out: &mut dyn Write) -> io::Result<()> {
    let mut shown: Vec<(&Finding, Vec<usize>)> = Vec::new();
    for finding in &seen.report.findings {
        let same = shown.iter_mut().find(|(other, _)| {
            let key = |f: &Finding| (f.kind, f.kernel.clone(), f.argument);
            finding.op.is_some() && key(other) == key(finding)
        });
        match (same, finding.op) {
            (Some((_, ops)), Some(op)) => ops.push(op),
            _ => shown.push((finding, Vec::new())),
        }
    }
    for (finding, others) in &shown {
        one(finding, others, width, out)?;
    }
    Ok(())
}

fn one(finding: &Finding, others: &[usize], width: usize, out: &mut dyn Write) -> io::Result<()> {
    let style = bad();
    let mut place = Vec::new();
    if let Some(op) = finding.op {
        place.push(format!("ops[{op}]"));
    }
    if let Some(kernel) = &finding.kernel {
        place.push(format!("kernel `{}`", show::plain(kernel)));
    }
    if let Some(argument) = finding.argument {
        place.push(format!("argument {argument}"));
    }
    if let Some(buffer) = &finding.buffer {
        place.push(show::plain(buffer));
    }
    if let Some(element) = finding.element {
        place.push(format!("element {element}"));
    }
    if let [call] = finding.calls[..] {
        place.push(format!("call {call} of the grid"));
    }
    let head = format!("{}: {}", finding.kind, place.join(", "));
    write!(out, "\n{style}")?;
    wrapped(&head, "", width, out)?;
    write!(out, "{style:#}")?;
    wrapped(&show::plain(&finding.text), "  ", width, out)?;
    if let Some(line) = &finding.line {
        writeln!(out, "  at {}", show::plain(&line.to_string()))?;
    }
    if let Some(code) = &finding.code {
        wrapped(
            &format!("in {}", show::plain(&code.to_string())),
            "  ",
            width,
            out,
        )?;
    }
    writeln!(out, "  first in {}", show::plain(&finding.pass))?;
    if !others.is_empty() {
        let mut ops: Vec<_> = others
            .iter()
            .take(OPS)
            .map(|op| format!("ops[{op}]"))
            .collect();
        if others.len() > OPS {
            ops.push(format!("{} more", others.len() - OPS));
        }
        wrapped(&format!("and in {}", ops.join(", ")), "  ", width, out)?;
    }
    Ok(())
}

fn end(seen: &Seen<'_>, out: &mut dyn Write) -> io::Result<()> {
    let report = seen.report;
    let launches: usize = report.ops.iter().map(|c| c.launches).sum();
    let runs = show::count(report.passes.len(), "run");
    let launches = show::count(launches, "launch").replace("launchs", "launches");
    let time = show::duration(seen.time);
    let (style, verdict) = match report.findings.len() {
        0 => (good(), "nothing was found".to_owned()),
        n => (
            bad(),
            format!("{} FOUND", show::count(n, "thing").to_uppercase()),
        ),
    };
    writeln!(
        out,
        "\n{style}{verdict}{style:#} in {runs} of the plan, {launches}, {time}"
    )
}

/// Writes words in lines of at most this width, where they allow it.
fn wrapped(text: &str, indent: &str, width: usize, out: &mut dyn Write) -> io::Result<()> {
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty()
            && indent.len() + line.chars().count() + 1 + word.chars().count() > width
        {
            writeln!(out, "{indent}{line}")?;
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    writeln!(out, "{indent}{line}")
}

fn cut(name: &str, width: usize) -> String {
    let mut cut: String = name.chars().take(width).collect();
    if cut.len() < name.len() {
        cut.pop();
        cut.push('…');
    }
    cut
}

const fn good() -> Style {
    Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green)))
}

const fn bad() -> Style {
    let red = anstyle::Color::Ansi(AnsiColor::Red);
    Style::new().bold().fg_color(Some(red))
}
