//! `svod doctor`
//!
//! `--json` prints one object:
//!
//! | key | what |
//! | --- | --- |
//! | `can_run` | whether kernels can run here at all |
//! | `compilers[]` | each C compiler: its `path`, its `abilities`, or the `problem` with it, and whether it `hangs` |
//! | `compilers[].abilities` | `family` and `major`; whether it compiles `c`, `llvm_ir`, `float16`, `bfloat16`; for which `targets` |
//! | `compiler`, `llvm`, `mlir` | what is used for C, for LLVM IR in process, and to lower MLIR: its `path` and `major` version, null where there is none, and `why` |
//! | `llvms[]` | each libLLVM: `path`, `major` |
//! | `cpu` | `model`, `architecture`, `level` (null off x86-64), `features` |
//! | `threads` | `run`, how many a run may have; `cores`, `cpus`, `allowed`, `quota` (null where there is none, or the system does not say) |
//! | `memory` | `page_size`; `executable_problem`, `guard_problem` (null where all is well); `huge_pages`; `group_limit`, `address_limit` in bytes (null without one) |
//! | `observers` | `perf_map`, `gdb`, `perf_event_paranoid`, `counters` (`available`, `absent`, `forbidden`, `failing`) |
//! | `cache` | `folder` (null where there is to be none), `exists`, `problem` (null where all is well), `entries`, `bytes`, `limit` |
//! | `confinement` | `landlock`, the version of its interface or null; `seccomp`, `is_filtered`, `user_namespaces`; `missing[]`: each `protection` that lacks, `why`, and `advice` |
//! | `findings[]` | the same as sentences: `topic`, `mark` (`ok`, `note` or `missing`), `what`, `advice` (null where there is nothing to do) |

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use clap::Args;
use svod_runtime::RuntimeBuilder;
use svod_runtime::doctor::{Finding, Mark, examine};

use crate::{Outcome, json, show};

#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(crate) fn doctor(args: &DoctorArgs, out: &mut dyn Write) -> Outcome {
    let report = examine(&RuntimeBuilder::from_env().build()?);
    let findings = report.findings();
    if args.json {
        let mut value = serde_json::to_value(&report).map_err(io::Error::from)?;
        value["can_run"] = report.can_run().into();
        value["findings"] = serde_json::to_value(&findings).map_err(io::Error::from)?;
        writeln!(out, "{}", json::text(&value))?;
        return Ok(report.can_run());
    }
    let bold = Style::new().bold();
    let columns = terminal_size::terminal_size().map_or(100, |(w, _)| w.0.into());
    let mut topic = "";
    for finding in &findings {
        if finding.topic != topic {
            let between = if topic.is_empty() { "" } else { "\n" };
            topic = finding.topic;
            writeln!(out, "{between}{bold}{topic}{bold:#}")?;
        }
        tell(finding, columns, out)?;
    }
    let missing = findings.iter().filter(|f| f.mark == Mark::Missing).count();
    let verdict = match (report.can_run(), missing) {
        (false, _) => "no kernel can run here".to_owned(),
        (true, 0) => "all is well".to_owned(),
        (true, n) => format!("kernels can run here; {} missing", show::count(n, "thing")),
    };
    writeln!(out, "\n{verdict}")?;
    Ok(report.can_run())
}

/// A mark, and what it stands before.
fn tell(finding: &Finding, columns: usize, out: &mut dyn Write) -> io::Result<()> {
    const INDENT: usize = 11;
    let colour = match finding.mark {
        Mark::Ok => AnsiColor::Green,
        Mark::Note => AnsiColor::Yellow,
        Mark::Missing => AnsiColor::Red,
    };
    let style = Style::new().fg_color(Some(colour.into()));
    let width = columns.saturating_sub(INDENT).max(20);
    let mut lines = wrapped(&show::plain(&finding.what), width).into_iter();
    let first = lines.next().unwrap_or_default();
    writeln!(out, "  {style}{:<7}{style:#}  {first}", finding.mark.name())?;
    let advice = finding.advice.iter();
    let advice = advice.flat_map(|a| wrapped(&format!("→ {}", show::plain(a)), width));
    for line in lines.chain(advice) {
        writeln!(out, "{:INDENT$}{line}", "")?;
    }
    Ok(())
}

/// Lines of so many columns, or of one word.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
