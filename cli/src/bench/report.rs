//! What is said of a race.

use std::collections::BTreeMap;
use std::io::Write;

use anstyle::Style;
use serde_json::{Value, json as object};
use svod_runtime::bench::{Interval, Race, Replay, Spread, Verdict};
use svod_runtime::compile::CCompiler;

use super::{BenchArgs, Entrant, Which};
use crate::{Failure, json, show};

/// A line or two for each candidate: what it is, and what it was run on.
pub(super) fn list(
    args: &BenchArgs,
    entrants: &[Entrant<'_>],
    replays: &[Replay<'_>],
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let bold = Style::new().bold();
    for (i, (entrant, replay)) in entrants.iter().zip(replays).enumerate() {
        let path = entrant.bundle.path().display().to_string();
        let setting = setting(entrant);
        writeln!(
            out,
            "{bold}[{}]{bold:#} {}  {setting}",
            i + 1,
            show::plain(&path),
        )?;
        let given = args.given.line(entrant.bundle, replay);
        let kernels = entrant.executable.kernels().len();
        writeln!(
            out,
            "    {given}; {}{}; {}; {}{} ready in {}",
            show::count(entrant.threads(), "thread"),
            match entrant.schedule {
                Which::Learned => "",
                Which::Off => ", no schedule",
            },
            show::count(entrant.ops(), "op"),
            show::count(kernels, "kernel"),
            match kernels - entrant.bundle.kernels_to_compile() {
                0 => String::new(),
                objects => format!(", {objects} of them compiled beforehand,"),
            },
            show::duration(entrant.loading.time),
        )?;
    }
    Ok(())
}

/// How its kernels were compiled.
fn setting(entrant: &Entrant<'_>) -> String {
    let Some(compiler) = &entrant.compiler else {
        return "compiled beforehand".into();
    };
    let name = compiler.path.file_name().unwrap_or_default();
    let (name, level) = (name.to_string_lossy(), entrant.opt_level.flag());
    let cpu = entrant.cpu.map(|cpu| format!(" {}", cpu.name()));
    format!("{} {level}{}", show::plain(&name), cpu.unwrap_or_default())
}

/// The times, a row for each candidate, and what may be said of each beside the first.
pub(super) fn table(
    args: &BenchArgs,
    entrants: &[Entrant<'_>],
    race: &Race,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let sure = format!(
        "{}% interval",
        four_digits(args.confidence * 100.0)
            .trim_end_matches('0')
            .trim_end_matches('.')
    );
    let ratios = match entrants.len() {
        1 => String::new(),
        _ => "   ÷ [1]   (interval)".to_owned(),
    };
    writeln!(
        out,
        "\n          median     {sure:^16}      min    ns/op{ratios}"
    )?;
    for (i, entrant) in entrants.iter().enumerate() {
        let time = race.times(i);
        let (unit, of) = unit(time.median);
        let [median, min] = [time.median, time.min].map(|ns| four_digits(ns / of));
        let interval = ends(race.interval(i), of);
        let per_op = entrant.per_op(time).map(four_digits).unwrap_or_default();
        let number = format!("[{}]", i + 1);
        let mut row =
            format!("{number:<5} {median:>7} {unit}  {interval:^18}  {min:>7}  {per_op:>7}");
        if i > 0 {
            let median = four_digits(race.ratios(i, 0).median);
            row += &format!("  {median:>6} ({})", ends(race.ratio_interval(i, 0), 1.0));
        }
        writeln!(out, "{}", row.trim_end())?;
    }
    let rounds = show::count(race.rounds(), "round");
    let runs = match race.runs_in_a_sample() {
        1 => "one run".to_owned(),
        n => format!("{n} runs in a row"),
    };
    let sets = match race.sets() {
        1 => String::new(),
        n => format!(", in {n} sets of memory"),
    };
    writeln!(out, "\n{rounds} of {runs} each{sets}")?;
    if entrants.len() > 1 {
        writeln!(out, "ratios are those of one round\n")?;
    }
    for i in 1..entrants.len() {
        let sentence = race.verdict(i, 0).sentence(&format!("[{}]", i + 1), "[1]");
        writeln!(out, "{sentence}")?;
    }
    Ok(())
}

/// From where to where, in this unit.
fn ends(interval: Option<Interval>, of: f64) -> String {
    interval.map_or_else(
        || "unknown".into(),
        |i| {
            format!(
                "{} to {}",
                four_digits(i.low / of),
                four_digits(i.high / of)
            )
        },
    )
}

pub(super) fn variables(replay: &Replay<'_>) -> BTreeMap<String, i64> {
    let variables = replay.variables();
    variables
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// The unit for times about as long, and how many nanoseconds it has.
fn unit(ns: f64) -> (&'static str, f64) {
    match ns {
        ..1e3 => ("ns", 1.0),
        ..1e6 => ("µs", 1e3),
        ..1e9 => ("ms", 1e6),
        _ => ("s ", 1e9),
    }
}

/// Four digits, where it has no more before the point.
pub(crate) fn four_digits(v: f64) -> String {
    const WITH_POINT: usize = 5;
    let with = |decimals: usize| format!("{v:.decimals$}");
    let mut texts = (0..=3).rev().map(with);
    // Rounding may bring a digit more before the point.
    texts
        .find(|text| text.len() <= WITH_POINT)
        .unwrap_or_else(|| with(0))
}

pub(super) fn as_json(
    args: &BenchArgs,
    entrants: &[Entrant<'_>],
    variables: &[BTreeMap<String, i64>],
    race: &Race,
) -> Value {
    let spread = |spread: Spread, of: f64| {
        object!({
            "min": spread.min / of,
            "lower": spread.lower / of,
            "median": spread.median / of,
            "upper": spread.upper / of,
            "max": spread.max / of,
        })
    };
    let ends = |interval: Interval, of: f64| object!({ "low": interval.low / of, "high": interval.high / of });
    let compiler = |compiler: &CCompiler| {
        object!({
            "path": compiler.path,
            "family": compiler.family.name(),
            "major": compiler.major,
        })
    };
    let candidate = |(i, (entrant, variables)): (usize, (&Entrant<'_>, &BTreeMap<String, i64>))| {
        let time = race.times(i);
        let samples = race.samples(i).iter();
        object!({
            "bundle": entrant.bundle.path(),
            "name": entrant.bundle.plan().name(),
            "compiler": entrant.compiler.as_ref().map(compiler),
            "opt_level": entrant.compiler.as_ref().map(|_| entrant.opt_level.flag()),
            "cpu": entrant.cpu.map(|cpu| cpu.name()),
            "schedule": entrant.schedule.name(),
            "threads": entrant.threads(),
            "test": args.given.test(entrant.bundle),
            "variables": variables,
            "kernels": entrant.executable.kernels().len(),
            "compiled": entrant.bundle.kernels_to_compile(),
            "ops": entrant.ops(),
            "load_us": json::micros(&entrant.loading.time),
            "time_us": spread(time, 1e3),
            "interval_us": race.interval(i).map(|interval| ends(interval, 1e3)),
            "ns_per_op": entrant.per_op(time),
            "ratio": (i > 0).then(|| spread(race.ratios(i, 0), 1.0)),
            "ratio_interval": (i > 0).then(|| race.ratio_interval(i, 0).map(|r| ends(r, 1.0))),
            "verdict": (i > 0).then(|| verdict(race.verdict(i, 0))),
            "samples_us": samples.map(|ns| ns / 1e3).collect::<Vec<_>>(),
        })
    };
    let candidates = entrants.iter().zip(variables).enumerate().map(candidate);
    object!({
        "rounds": race.rounds(),
        "runs_in_a_row": race.runs_in_a_sample(),
        "sets": race.sets(),
        "confidence": args.confidence,
        "candidates": candidates.collect::<Vec<_>>(),
    })
}

fn verdict(verdict: Verdict) -> Value {
    let (is, low, high) = match verdict {
        Verdict::Faster { by } => ("faster", Some(by.low), Some(by.high)),
        Verdict::Slower { by } => ("slower", Some(by.low), Some(by.high)),
        Verdict::Alike { within } => ("alike", Some(0.0), Some(within)),
        _ => ("open", None, None),
    };
    object!({ "is": is, "low": low, "high": high })
}
