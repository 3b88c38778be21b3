//! `svod bench`
//!
//! `--json` prints one object:
//!
//! | key | what |
//! | --- | --- |
//! | `rounds` | how many samples were taken of each candidate |
//! | `runs_in_a_row` | how many runs a sample has; times are of one |
//! | `candidates` | each bundle under each setting |
//! | `candidates[].bundle`, `name` | the folder as it was given, and the plan's name |
//! | `candidates[].compiler` | `path`, `family` and `major`; null where no kernel was compiled |
//! | `candidates[].opt_level` | as compilers take it, such as `-O2`; null where no kernel was compiled |
//! | `candidates[].threads` | how many a run may have |
//! | `candidates[].test`, `variables` | the recorded test that inputs are of, or null; what the variables were |
//! | `candidates[].kernels`, `compiled`, `ops`, `load_us` | how many, how many of the kernels were compiled, and what it took to compile and link them |
//! | `candidates[].time_us` | `min`, `lower`, `median`, `upper` and `max` of the samples: the quartiles, and what lies around them |
//! | `candidates[].ns_per_op` | the median over the number of ops; null without ops |
//! | `candidates[].ratio` | the same five numbers of the ratios to the first candidate, each round on its own; null for the first |
//! | `candidates[].samples_us` | each sample, in the order of the rounds |

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anstyle::Style;
use clap::Args;
use serde_json::{Value, json as object};
use svod_runtime::bench::{Budget, Candidate, Race, Replay, Spread, race};
use svod_runtime::bundle::Bundle;
use svod_runtime::bundle::npy::Array;
use svod_runtime::compile::CCompiler;
use svod_runtime::plan::Executable;
use svod_runtime::pool::Pool;
use svod_runtime::{Guard, OptLevel, RuntimeBuilder};

use crate::given::check_known;
use crate::loading::{self, Loading};
use crate::schedule::LEARNING;
use crate::{Failure, Outcome, json, name_and_file, name_and_number, show};

#[derive(Args)]
#[command(after_help = "\
Candidates are all bundles, each with every --cc, every -O and every number of
threads. They take turns in one process: a round runs each of them, in changing
order, and ratios are those of one round. What several threads share is as the
bundle says, or learned before, in runs that do not count. States are put back to the start before each sample, which is not timed.
A sample is one run; where the fastest candidate takes less than 20 µs, or less than
a ten thousandth of --time, it is as many in a row as fill that, the same for all,
and each of these finds the states that the one before has left. Buffers are not
guarded. Where memory happens to lie moves the times of a candidate by a few percent
from one start to the next.

Examples:
  svod bench model.svod
  svod bench old.svod new.svod                 two bundles, side by side
  svod bench model.svod model.svod             how far apart are two that are the same?
  svod bench model.svod --cc clang-19 --cc gcc -O2 -O3
  svod bench model.svod --threads 1,2,4
  svod bench model.svod --rounds 1000 --json")]
pub(crate) struct BenchArgs {
    /// The bundles' folders
    #[arg(required = true, value_name = "BUNDLE")]
    bundles: Vec<PathBuf>,
    /// Compile with this C compiler, a path or a name; several are compared
    #[arg(long = "cc", value_name = "CC")]
    compilers: Vec<PathBuf>,
    /// Compile at this level, 0 to 3; several are compared
    #[arg(short = 'O', long = "opt-level", value_name = "LEVEL", value_parser = opt_level)]
    opt_levels: Vec<OptLevel>,
    /// Let runs have so many threads, with the one that starts them; several numbers,
    /// with commas between them, are compared
    #[arg(long, value_name = "N,..", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(crate::THREADS))]
    threads: Vec<u16>,
    /// Take inputs and variables from this recorded test; from the first, where this is
    /// left out. Without tests, inputs are zeros and variables as small as they may be
    #[arg(long, value_name = "N")]
    test: Option<usize>,
    /// Give an input as a NumPy array file, once for each input, in the place of the
    /// test's
    #[arg(long = "input", value_name = "NAME=FILE.npy", value_parser = name_and_file)]
    inputs: Vec<(String, PathBuf)>,
    /// Choose a variable, once for each variable, in the place of the test's choice
    #[arg(long = "var", value_name = "NAME=N", value_parser = name_and_number)]
    variables: Vec<(String, i64)>,
    /// Take so many samples of each candidate
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000), conflicts_with = "time")]
    rounds: Option<u32>,
    /// Take samples for so long, for each candidate, but at least 10
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "1")]
    time: Duration,
    /// Run for so long before, for each candidate, and at least once
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "0.2")]
    warm_up: Duration,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(crate) fn opt_level(text: &str) -> Result<OptLevel, String> {
    let levels = OptLevel::ALL.into_iter();
    let mut levels = levels.filter(|level| level.flag().strip_prefix("-O") == Some(text));
    levels
        .next()
        .ok_or_else(|| "a level is 0, 1, 2 or 3".into())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok();
    let seconds = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
    seconds.ok_or_else(|| "it is no number of seconds".into())
}

/// A bundle under a setting.
#[derive(Clone)]
struct Entrant<'a> {
    bundle: &'a Bundle,
    inputs: &'a [Array],
    /// None where no kernel was compiled.
    compiler: Option<CCompiler>,
    opt_level: OptLevel,
    executable: Executable,
    loading: Loading,
}

pub(crate) fn bench(args: &BenchArgs, out: &mut dyn Write) -> Outcome {
    // What was given is looked at before compilers take their time.
    let mut bundles = Vec::new();
    for path in &args.bundles {
        let bundle = Bundle::open(path)?;
        check_given(args, &bundle)?;
        let mut inputs = Vec::new();
        for (name, file) in &args.inputs {
            inputs.push(bundle.read_input(name, file)?);
        }
        bundles.push((bundle, inputs));
    }
    let mut entrants = Vec::new();
    for (bundle, inputs) in &bundles {
        let compiled = bundle.kernels_to_compile() > 0;
        let compilers = or_default(if compiled { &args.compilers } else { &[] });
        let opt_levels = or_default(if compiled { &args.opt_levels } else { &[] });
        for compiler in compilers {
            for opt_level in &opt_levels {
                let entrant = load(bundle, inputs, compiler, *opt_level)?;
                for threads in or_default(&args.threads) {
                    entrants.push(entrant.on(threads.copied())?);
                }
            }
        }
    }
    let mut replays = Vec::new();
    for entrant in &entrants {
        replays.push(entrant.replay(args)?);
    }

    let mut budget = Budget {
        time: args.time,
        ..Budget::default()
    };
    // Rounds have an end, so that what is kept of them has: long times make long samples.
    let rounds = u32::try_from(budget.max_rounds).unwrap_or(u32::MAX);
    budget.sample = budget.sample.max(args.time / rounds);
    if let Some(rounds) = args.rounds {
        budget = Budget::rounds(rounds as usize);
    }
    budget.warm_up = args.warm_up;
    if !args.json {
        list(args, &entrants, &replays, out)?;
        out.flush()?;
    }
    let mut candidates: Vec<&mut dyn Candidate> = Vec::new();
    for replay in &mut replays {
        replay.learn(LEARNING)?;
        candidates.push(replay);
    }
    let race = race(&mut candidates, &budget)?;

    if args.json {
        let value = as_json(args, &entrants, &replays, &race);
        writeln!(out, "{}", json::text(&value))?;
    } else {
        table(&entrants, &race, out)?;
    }
    Ok(true)
}

/// Each of them, or none once.
fn or_default<T>(given: &[T]) -> Vec<Option<&T>> {
    match given {
        [] => vec![None],
        given => given.iter().map(Some).collect(),
    }
}

/// Whether the bundle has all that is given, each of it once.
fn check_given(args: &BenchArgs, bundle: &Bundle) -> Result<(), Failure> {
    let path = bundle.path().display();
    let tests = bundle.tests().len();
    if let Some(test) = args.test.filter(|test| *test >= tests) {
        let tests = show::count(tests, "recorded test");
        return Err(Failure::Usage(format!(
            "{path} has {tests}, counted from 0; there is no test {test}"
        )));
    }
    let (plan, path) = (bundle.plan(), path.to_string());
    let inputs: Vec<_> = plan.inputs().filter_map(|b| b.name.as_deref()).collect();
    let given: Vec<_> = args.inputs.iter().map(|(name, _)| name.as_str()).collect();
    check_known(&path, "input", &inputs, &given)?;
    let variables: Vec<_> = plan.variables().iter().map(|v| v.name.as_str()).collect();
    let given: Vec<_> = args.variables.iter().map(|(n, _)| n.as_str()).collect();
    check_known(&path, "variable", &variables, &given)
}

fn load<'a>(
    bundle: &'a Bundle,
    inputs: &'a [Array],
    compiler: Option<&PathBuf>,
    opt_level: Option<&OptLevel>,
) -> Result<Entrant<'a>, Failure> {
    let opt_level = opt_level.copied().unwrap_or_default();
    let mut builder = RuntimeBuilder::from_env()
        .guard(Guard::Off)
        .opt_level(opt_level);
    if let Some(compiler) = compiler {
        builder = builder.cc(compiler);
    }
    let runtime = builder.build()?;
    let (executable, loading) = loading::load(bundle, &runtime, true)?;
    Ok(Entrant {
        bundle,
        inputs,
        compiler: match bundle.kernels_to_compile() {
            0 => None,
            _ => runtime.toolchain().c_compiler("").ok().cloned(),
        },
        opt_level,
        executable,
        loading,
    })
}

impl Entrant<'_> {
    /// The same, whose runs may have so many threads; those of the environment, if none.
    fn on(&self, threads: Option<u16>) -> Result<Self, Failure> {
        let mut entrant = self.clone();
        if let Some(threads) = threads.map(usize::from) {
            let pool = Pool::builder().threads(threads).build();
            entrant.executable = entrant.executable.with_pool(pool);
            if let Some(learned) = self.bundle.schedule(threads) {
                entrant.executable = entrant.executable.with_learned(learned.clone())?;
            }
        }
        Ok(entrant)
    }

    fn threads(&self) -> usize {
        self.executable.pool().threads()
    }

    /// The recorded test that it is given the inputs of.
    fn test(&self, args: &BenchArgs) -> Option<usize> {
        args.test
            .or_else(|| (!self.bundle.tests().is_empty()).then_some(0))
    }

    /// An instance with what it is to be run on.
    fn replay(&self, args: &BenchArgs) -> Result<Replay<'_>, Failure> {
        let mut replay = Replay::new(&self.executable)?;
        if let Some(test) = self.test(args) {
            replay.set_test(self.bundle, test)?;
        }
        for ((name, _), array) in args.inputs.iter().zip(self.inputs) {
            replay.set_input(name, array.elements.as_view())?;
        }
        for (name, value) in &args.variables {
            replay.set_variable(name, *value)?;
        }
        Ok(replay)
    }

    fn ops(&self) -> usize {
        self.bundle.plan().ops().len()
    }

    /// The median over the number of ops, in nanoseconds.
    #[allow(clippy::cast_precision_loss)] // a number of ops
    fn per_op(&self, time: Spread) -> Option<f64> {
        let ops = self.ops();
        (ops > 0).then(|| time.median / ops as f64)
    }
}

/// A line or two for each candidate: what it is, and what it was run on.
fn list(
    args: &BenchArgs,
    entrants: &[Entrant<'_>],
    replays: &[Replay<'_>],
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let bold = Style::new().bold();
    for (i, (entrant, replay)) in entrants.iter().zip(replays).enumerate() {
        let path = entrant.bundle.path().display().to_string();
        let setting = match entrant.compiler.as_ref().map(|c| c.path.as_path()) {
            None => "compiled beforehand".to_owned(),
            Some(compiler) => {
                let name = compiler.file_name().unwrap_or_default().to_string_lossy();
                format!("{} {}", show::plain(&name), entrant.opt_level.flag())
            }
        };
        writeln!(
            out,
            "{bold}[{}]{bold:#} {}  {setting}",
            i + 1,
            show::plain(&path),
        )?;
        let given = match entrant.test(args) {
            Some(test) => format!("test {test}"),
            None if entrant.bundle.plan().inputs().next().is_none() => "no inputs".into(),
            None if args.inputs.is_empty() => "inputs zero".into(),
            None => "given inputs, others zero".into(),
        };
        let variables = replay.variables();
        let variables = variables.map(|(name, value)| format!(", {} = {value}", show::plain(name)));
        let kernels = entrant.executable.kernels().len();
        writeln!(
            out,
            "    {given}{}; {}; {}; {}{} ready in {}",
            variables.collect::<String>(),
            show::count(entrant.threads(), "thread"),
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

/// The times, a row for each candidate.
fn table(entrants: &[Entrant<'_>], race: &Race, out: &mut dyn Write) -> Result<(), Failure> {
    let ratios = if entrants.len() > 1 {
        "   ÷ [1]   (quartiles)"
    } else {
        ""
    };
    writeln!(
        out,
        "\n          median        quartiles         min    ns/op{ratios}"
    )?;
    for (i, entrant) in entrants.iter().enumerate() {
        let time = race.times(i);
        let (unit, of) = unit(time.median);
        let [median, lower, upper, min] =
            [time.median, time.lower, time.upper, time.min].map(|ns| four_digits(ns / of));
        let per_op = entrant.per_op(time).map(four_digits);
        let per_op = per_op.unwrap_or_default();
        let number = format!("[{}]", i + 1);
        let mut row = format!(
            "{number:<5} {median:>7} {unit}  {lower:>7} to {upper:<7}  {min:>7}  {per_op:>7}"
        );
        if i > 0 {
            let ratio = race.ratios(i, 0);
            let [median, lower, upper] = [ratio.median, ratio.lower, ratio.upper].map(four_digits);
            row += &format!("  {median:>6} ({lower} to {upper})");
        }
        writeln!(out, "{row}")?;
    }
    let rounds = show::count(race.samples(0).len(), "round");
    let runs = match race.runs_in_a_sample() {
        1 => "one run".to_owned(),
        n => format!("{n} runs in a row"),
    };
    let ratios = if entrants.len() > 1 {
        "; ratios are those of one round"
    } else {
        ""
    };
    writeln!(out, "\n{rounds} of {runs} each{ratios}")?;
    Ok(())
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
fn four_digits(v: f64) -> String {
    const WITH_POINT: usize = 5;
    let with = |decimals: usize| format!("{v:.decimals$}");
    let mut texts = (0..=3).rev().map(with);
    // Rounding may bring a digit more before the point.
    texts
        .find(|text| text.len() <= WITH_POINT)
        .unwrap_or_else(|| with(0))
}

fn as_json(
    args: &BenchArgs,
    entrants: &[Entrant<'_>],
    replays: &[Replay<'_>],
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
    let compiler = |compiler: &CCompiler| {
        object!({
            "path": compiler.path,
            "family": compiler.family.name(),
            "major": compiler.major,
        })
    };
    let candidate = |(i, (entrant, replay)): (usize, (&Entrant<'_>, &Replay<'_>))| {
        let time = race.times(i);
        let samples = race.samples(i).iter();
        object!({
            "bundle": entrant.bundle.path(),
            "name": entrant.bundle.plan().name(),
            "compiler": entrant.compiler.as_ref().map(compiler),
            "opt_level": entrant.compiler.as_ref().map(|_| entrant.opt_level.flag()),
            "threads": entrant.threads(),
            "test": entrant.test(args),
            "variables": replay.variables().collect::<BTreeMap<_, _>>(),
            "kernels": entrant.executable.kernels().len(),
            "compiled": entrant.bundle.kernels_to_compile(),
            "ops": entrant.ops(),
            "load_us": json::micros(&entrant.loading.time),
            "time_us": spread(time, 1e3),
            "ns_per_op": entrant.per_op(time),
            "ratio": (i > 0).then(|| spread(race.ratios(i, 0), 1.0)),
            "samples_us": samples.map(|ns| ns / 1e3).collect::<Vec<_>>(),
        })
    };
    let candidates = entrants.iter().zip(replays).enumerate().map(candidate);
    object!({
        "rounds": race.samples(0).len(),
        "runs_in_a_row": race.runs_in_a_sample(),
        "candidates": candidates.collect::<Vec<_>>(),
    })
}
