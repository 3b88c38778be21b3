//! `svod bench`
//!
//! `--json` prints one object:
//!
//! | key | what |
//! | --- | --- |
//! | `rounds` | how many samples were taken of each candidate |
//! | `runs_in_a_row` | how many runs a sample has; times are of one |
//! | `sets` | how many times all candidates were made anew, each time with other memory |
//! | `confidence` | the share of all intervals that hold the median they are of |
//! | `candidates` | each bundle under each setting |
//! | `candidates[].bundle`, `name` | the folder as it was given, and the plan's name |
//! | `candidates[].compiler` | `path`, `family` and `major`; null where no kernel was compiled |
//! | `candidates[].opt_level` | as compilers take it, such as `-O2`; null where no kernel was compiled |
//! | `candidates[].cpu` | as given by `--cpu`; null without it, and where no kernel was compiled |
//! | `candidates[].schedule` | `learned` or `off` |
//! | `candidates[].threads` | how many a run may have |
//! | `candidates[].test`, `variables` | the recorded test that inputs are of, or null; what the variables were |
//! | `candidates[].kernels`, `compiled`, `ops`, `load_us` | how many, how many of the kernels were compiled, and what it took to compile and link them |
//! | `candidates[].time_us` | `min`, `lower`, `median`, `upper` and `max` of the samples: the quartiles, and what lies around them |
//! | `candidates[].interval_us` | `low` and `high`: between what bounds the median lies; null where there are too few rounds, or sets, to say |
//! | `candidates[].ns_per_op` | the median over the number of ops; null without ops |
//! | `candidates[].ratio` | the same five numbers of the ratios to the first candidate, each round on its own; null for the first |
//! | `candidates[].ratio_interval` | `low` and `high`, of the median of the ratios; null for the first, and where there are too few rounds, or sets |
//! | `candidates[].verdict` | what that allows to be said; null for the first |
//! | `candidates[].verdict.is` | `faster`, `slower`, `alike`, which is not told apart, or `open`: too few rounds |
//! | `candidates[].verdict.low`, `high` | by what share of the first one's time, 0.02 for 2 percent; of `alike`, `high` is what the difference is below; null for `open` |
//! | `candidates[].samples_us` | each sample, in the order of the rounds |

mod report;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use svod_runtime::bench::{Budget, CONFIDENCE, Replay, Spread, race_sets};
use svod_runtime::bundle::Bundle;
use svod_runtime::bundle::npy::Array;
use svod_runtime::compile::CCompiler;
use svod_runtime::compile::cpu::CpuLevel;
use svod_runtime::plan::{Executable, Scheduling};
use svod_runtime::pool::Pool;
use svod_runtime::{Guard, OptLevel, RuntimeBuilder};

pub(crate) use report::four_digits;

use crate::given::Given;
use crate::loading::{self, Loading};
use crate::schedule::LEARNING;
use crate::{Failure, Outcome, json};

#[derive(Args)]
#[command(after_help = "\
Candidates are all bundles, each with every --cc, --cpu, -O, number of threads and
--schedule. They take turns in one process: a round runs each of them, in changing
order, and ratios are those of one round. What several threads share is as the
bundle says, or learned before, in runs that do not count. States are put back to the
start before each sample, which is not timed.
A sample is one run; where the fastest candidate takes less than 20 µs, or less than
a ten thousandth of --time, it is as many in a row as fill that, the same for all,
and each of these finds the states that the one before has left. Buffers are not
guarded.

Where memory happens to lie moves the times of a candidate by a few percent. So all
candidates are given new memory several times (--sets), and the interval of a median
holds what that changes. In the last lines, a candidate is faster or slower than the
first only where the interval of their ratio is on one side of 1. Of candidates that
are the same, one in twenty is told apart all the same; fewer with --confidence.

Examples:
  svod bench model.svod
  svod bench old.svod new.svod                 two bundles, side by side
  svod bench model.svod model.svod             how far apart are two that are the same?
  svod bench model.svod --cc clang-19 --cc gcc -O2 -O3
  svod bench model.svod --threads 1,2,4
  svod bench model.svod --threads 4 --schedule learned,off
  svod bench model.svod --cpu x86-64-v2 --cpu native
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
    /// Compile for this CPU, or level of CPUs, as `svod compile` does; several are
    /// compared
    #[arg(long = "cpu", value_name = "NAME", value_parser = CpuLevel::named)]
    cpus: Vec<CpuLevel>,
    /// Whether threads share runs by a schedule, or runs are on one; both, with a comma
    /// between them, are compared
    #[arg(long, value_name = "WHICH,..", value_delimiter = ',')]
    schedule: Vec<Which>,
    #[command(flatten)]
    given: Given,
    /// Take so many samples of each candidate
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000), conflicts_with = "time")]
    rounds: Option<u32>,
    /// Take samples for so long, for each candidate, but at least 10
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "1")]
    time: Duration,
    /// Run for so long before, for each candidate, and at least once
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "0.2")]
    warm_up: Duration,
    /// Give all candidates new memory so many times; 6 at least, or nothing is said of
    /// them that is sure, or 1, which leaves out what memory does
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), default_value = "9")]
    sets: u32,
    /// The share of intervals that hold the median they are of
    #[arg(long, value_name = "SHARE", value_parser = share, default_value_t = CONFIDENCE)]
    confidence: f64,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Which schedule runs have.
#[derive(Clone, Copy, ValueEnum)]
enum Which {
    Learned,
    Off,
}

impl Which {
    const fn name(self) -> &'static str {
        match self {
            Which::Learned => "learned",
            Which::Off => "off",
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text
        .parse()
        .ok()
        .filter(|share| *share > 0.0 && *share < 1.0);
    share.ok_or_else(|| "a share is between 0 and 1, such as 0.99".into())
}

pub(crate) fn opt_level(text: &str) -> Result<OptLevel, String> {
    let levels = OptLevel::ALL.into_iter();
    let mut levels = levels.filter(|level| level.flag().strip_prefix("-O") == Some(text));
    levels
        .next()
        .ok_or_else(|| "a level is 0, 1, 2 or 3".into())
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
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
    /// As it was given, and where kernels were compiled.
    cpu: Option<&'a CpuLevel>,
    opt_level: OptLevel,
    schedule: Which,
    executable: Executable,
    loading: Loading,
}

pub(crate) fn bench(args: &BenchArgs, out: &mut dyn Write) -> Outcome {
    // What was given is looked at before compilers take their time.
    if let Some(cpu) = args.cpus.iter().find(|cpu| !cpu.runs_here()) {
        return Err(Failure::Usage(format!(
            "this machine does not run what is compiled for {}",
            cpu.name()
        )));
    }
    let mut bundles = Vec::new();
    for path in &args.bundles {
        let bundle = Bundle::open(path)?;
        args.given.check(&bundle)?;
        let inputs = args.given.read(&bundle)?;
        bundles.push((bundle, inputs));
    }
    let mut entrants = Vec::new();
    for (bundle, inputs) in &bundles {
        for setting in settings(args, bundle) {
            let entrant = load(bundle, inputs, setting)?;
            for threads in or_default(&args.threads) {
                let entrant = entrant.on(threads.copied())?;
                for which in or_default(&args.schedule) {
                    entrants.push(entrant.by(which.copied().unwrap_or(Which::Learned)));
                }
            }
        }
    }
    let mut replays = replays(args, &entrants)?;
    if !args.json {
        report::list(args, &entrants, &replays, out)?;
        out.flush()?;
    }
    for replay in &mut replays {
        replay.learn(LEARNING)?;
    }
    let variables: Vec<_> = replays.iter().map(report::variables).collect();
    // Their memory is not wanted any more.
    drop(replays);

    let (sets, budget) = budget(args);
    let race = race_sets(sets, &budget, || self::replays(args, &entrants))?;
    if args.json {
        let value = report::as_json(args, &entrants, &variables, &race);
        writeln!(out, "{}", json::text(&value))?;
    } else {
        report::table(args, &entrants, &race, out)?;
    }
    Ok(true)
}

/// How many sets there are, and what all of them together may take.
fn budget(args: &BenchArgs) -> (usize, Budget) {
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
    budget.confidence = args.confidence;
    // No set is without a round.
    ((args.sets as usize).min(budget.max_rounds), budget)
}

/// Whom a bundle is compiled by, and how: each of what is given with each other.
#[derive(Clone, Copy)]
struct Setting<'a> {
    compiler: Option<&'a PathBuf>,
    cpu: Option<&'a CpuLevel>,
    opt_level: Option<&'a OptLevel>,
}

/// One of nothing, where no kernel is compiled.
fn settings<'a>(args: &'a BenchArgs, bundle: &Bundle) -> Vec<Setting<'a>> {
    let compiled = bundle.kernels_to_compile() > 0;
    let mut settings = Vec::new();
    for compiler in or_default(if compiled { &args.compilers } else { &[] }) {
        for cpu in or_default(if compiled { &args.cpus } else { &[] }) {
            for opt_level in or_default(if compiled { &args.opt_levels } else { &[] }) {
                settings.push(Setting {
                    compiler,
                    cpu,
                    opt_level,
                });
            }
        }
    }
    settings
}

/// An instance of each, in memory of its own.
fn replays<'a>(args: &BenchArgs, entrants: &'a [Entrant<'_>]) -> Result<Vec<Replay<'a>>, Failure> {
    entrants
        .iter()
        .map(|entrant| entrant.replay(args))
        .collect()
}

/// Each of them, or none once.
fn or_default<T>(given: &[T]) -> Vec<Option<&T>> {
    match given {
        [] => vec![None],
        given => given.iter().map(Some).collect(),
    }
}

fn load<'a>(
    bundle: &'a Bundle,
    inputs: &'a [Array],
    setting: Setting<'a>,
) -> Result<Entrant<'a>, Failure> {
    let opt_level = setting.opt_level.copied().unwrap_or_default();
    let mut builder = RuntimeBuilder::from_env()
        .guard(Guard::Off)
        .opt_level(opt_level);
    if let Some(compiler) = setting.compiler {
        builder = builder.cc(compiler);
    }
    if let Some(cpu) = setting.cpu {
        builder = builder.target_cpu(cpu.march());
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
        cpu: setting.cpu,
        opt_level,
        schedule: Which::Learned,
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

    /// The same, by this schedule.
    fn by(&self, schedule: Which) -> Self {
        let mut entrant = self.clone();
        entrant.schedule = schedule;
        if let Which::Off = schedule {
            entrant.executable = entrant.executable.with_scheduling(Scheduling::Off);
        }
        entrant
    }

    fn threads(&self) -> usize {
        self.executable.pool().threads()
    }

    /// An instance with what it is to be run on.
    fn replay(&self, args: &BenchArgs) -> Result<Replay<'_>, Failure> {
        args.given
            .replay(self.bundle, &self.executable, self.inputs)
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
