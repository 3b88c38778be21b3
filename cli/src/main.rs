//! `svod`: runs, inspects and measures plan bundles.
//!
//! The command holds no logic of its own: what it can do, the library can do. It
//! reads arguments, calls the library, and shows what came of it.

mod bench;
mod cache;
mod compile;
mod diff;
mod doctor;
mod gallery;
mod given;
mod inspect;
mod isolated;
mod json;
mod kernel;
mod loading;
mod pictures;
mod profile;
mod run;
mod schedule;
mod show;
mod timings;
mod typical;
mod verify;
mod watch;

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use clap::{Args, Parser, Subcommand};
use svod_runtime::compile::cpu::CpuLevel;
use svod_runtime::{Guard, OptLevel};

/// Runs, inspects and measures plan bundles: compiled models as folders of kernels, a
/// plan and weights.
#[derive(Parser)]
#[command(name = "svod", version, arg_required_else_help = true)]
#[command(after_help = "\
A bundle holds native code: running one is as trusting as running a program, unless it is run
with --isolated.

Environment:
  SVOD_CC     the C compiler, a path or a name; without it the newest clang, then
              gcc, then cc, found in PATH
  SVOD_LLVM   libLLVM, a path or a name, which compiles LLVM IR; without it the newest that
              is found, and without any clang
  SVOD_MLIR   the folder of mlir-opt and mlir-translate, or the former, a path or a name, which
              lower MLIR; without it the newest that are found
  SVOD_CACHE_DIR
              where compiled kernels are kept; without it svod in XDG_CACHE_HOME, and
              without that .cache/svod in the home folder
  SVOD_CACHE  off: none are kept, and none that were are used
  SVOD_GUARD  off, end or start: what --guard says where it is not given
  SVOD_THREADS
              how many threads a run may have, where --threads is not given; without
              it as many as there are CPUs for this process
  SVOD_PERF_MAP
              1: perf is told of the kernels, in /tmp/perf-PID.map
  SVOD_GDB    1: gdb is told of the kernels
  NO_COLOR    if set, no colours

Exit status: 0 if all is well, 1 if something failed or differs, 2 for bad usage.

Examples:
  svod run examples/digits
  svod run model.svod --check
  svod run model.svod --guard --fill
  svod run model.svod --timings --repeat 20
  svod run model.svod --threads 2 --save-schedule
  svod run model.svod --input image=photo.npy --output results
  svod inspect model.svod
  svod inspect model.svod --explain 7
  svod inspect model.svod softmax --cpu x86-64-v3
  svod inspect model.svod --schedule --threads 2
  svod bench model.svod --cc clang-19 --cc gcc
  svod profile model.svod --html model.html
  svod diff model.svod --left clang:-O3 --right gcc:-O1
  svod verify model.svod
  svod run model.svod --quick
  svod run stranger.svod --isolated
  svod cache explain model.svod
  svod doctor
  svod compile model.svod -o fast.svod --cpu x86-64-v3 --cpu x86-64-v2")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// How many threads a run can be given: more are a slip.
const THREADS: RangeInclusive<i64> = 1..=4096;

#[derive(Subcommand)]
enum Command {
    /// Compile a bundle's kernels and run it, on its recorded tests or on given
    /// inputs
    Run(RunArgs),
    /// Show what is in a bundle, or what one of its kernels is, down to its instructions;
    /// only --schedule runs anything
    Inspect(InspectArgs),
    /// Measure how long a run takes, of one or more bundles and settings side by side
    Bench(bench::BenchArgs),
    /// Show where the time of runs goes, and how far each kernel is from what this machine can do
    Profile(profile::ProfileArgs),
    /// Find the op that does not compute the same with another compiler, level or bundle
    Diff(Box<diff::DiffArgs>),
    /// Try whether each kernel keeps what its signature promises: its bounds, what it reads and
    /// writes, the independence of its calls; and whether the plan gives the same however it runs
    Verify(verify::VerifyArgs),
    /// Compile a bundle ahead of time: write one that carries objects, and starts without
    /// a compiler
    Compile(compile::CompileArgs),
    /// Look after the cache of compiled kernels
    #[command(subcommand)]
    Cache(cache::CacheCommand),
    /// Say what works on this machine, which compilers are used and why, and what to do where
    /// something is missing; exit status 1 if no kernel can run here
    Doctor(doctor::DoctorArgs),
}

#[derive(Args)]
struct RunArgs {
    /// The bundle's folder
    bundle: PathBuf,
    /// Give an input as a NumPy array file, once for each input; without any,
    /// the bundle's recorded tests are run
    #[arg(long = "input", value_name = "NAME=FILE.npy", value_parser = name_and_file)]
    inputs: Vec<(String, PathBuf)>,
    /// Choose a variable, once for each variable, beside --input
    #[arg(long = "var", value_name = "NAME=N", value_parser = name_and_number)]
    variables: Vec<(String, i64)>,
    /// Write each output as a NumPy array file into this folder; of recorded
    /// tests, into a folder a test
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Run this many times, each from the initial states, and show the median
    /// time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Compare the recorded tests with what was recorded, within their
    /// tolerances: a row a test, exit status 1 on a difference
    #[arg(long, conflicts_with_all = ["inputs", "variables"])]
    check: bool,
    /// As --check, bit for bit
    #[arg(long, conflicts_with_all = ["inputs", "variables"])]
    exact: bool,
    /// As --check, and run each test twice, with temps, outputs and what lies beside
    /// guarded buffers filled differently before: results that differ depend on
    /// memory that was never written
    #[arg(long, conflicts_with_all = ["inputs", "variables"])]
    fill: bool,
    /// Lay every buffer before an inaccessible page (end) or behind one (start), so
    /// that a kernel that leaves its buffers is stopped and named; end where the side
    /// is left out
    #[arg(long, value_name = "SIDE", num_args = 0..=1, default_missing_value = "end", value_parser = guard)]
    guard: Option<Guard>,
    /// Let a run have so many threads, with the one that starts it; results are the
    /// same with any number. With --guard or --fill it has one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(THREADS))]
    threads: Option<u16>,
    /// Which schedule runs have: the bundle's, or one that is learned in the first of them
    /// (learned); the plan's own order, on one thread (off); or that of this file, which is
    /// one of a learned schedule, or of several, one of them for as many threads
    #[arg(long, value_name = "learned|off|FILE", default_value = "learned", value_parser = schedule)]
    schedule: ScheduleArg,
    /// Compile every kernel that has a source, also those of which the bundle carries an
    /// object
    #[arg(long)]
    recompile: bool,
    /// Run a bundle that nobody vouches for: compilers read nothing but the bundle and the
    /// system's headers, and kernels run in a process that can do nothing but compute
    #[arg(long, conflicts_with_all = ["fill", "quick", "timings", "save_schedule", "schedule", "memory_cap"])]
    isolated: bool,
    /// With --isolated, go on where the system lacks a protection, with those that it has
    #[arg(long, requires = "isolated")]
    allow_less: bool,
    /// With --isolated, stop a run that takes longer than this, in seconds
    #[arg(long, value_name = "SECONDS", requires = "isolated", default_value = "60", value_parser = seconds)]
    time_limit: std::time::Duration,
    /// With --isolated, stop a run that takes more bytes of memory than this beyond what it
    /// begins with
    #[arg(long, value_name = "BYTES", requires = "isolated", default_value_t = 4 << 30)]
    memory_limit: usize,
    /// Begin at once, on quickly compiled code (-O0); optimised code is made meanwhile, and
    /// takes over between two runs
    #[arg(long)]
    quick: bool,
    /// Run on until a schedule is learned, and keep it in the bundle, for this processor
    /// and this number of threads
    #[arg(long, conflicts_with = "fill")]
    save_schedule: bool,
    /// Show what each op took, the most costly first
    #[arg(long, conflicts_with = "fill")]
    timings: bool,
    /// Refuse to run if the inputs, states, temps and outputs of an instance take more
    /// bytes than this; constants count where --guard has each instance copy them
    #[arg(long, value_name = "BYTES")]
    memory_cap: Option<usize>,
    /// The process that waits for this one
    #[arg(long, hide = true)]
    watched_by: Option<i32>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl RunArgs {
    /// Whether results are compared with what was recorded.
    const fn checks(&self) -> bool {
        self.check || self.exact || self.fill
    }

    /// The variables as the library takes them.
    fn variables(&self) -> Vec<(&str, i64)> {
        self.variables
            .iter()
            .map(|(n, v)| (n.as_str(), *v))
            .collect()
    }
}

#[derive(Args)]
struct InspectArgs {
    /// The bundle's folder
    bundle: PathBuf,
    /// Show this kernel instead: its signature, source, object and assembly. A kernel is the
    /// name of an entry, or its number as `svod inspect BUNDLE` shows it. It is compiled where
    /// neither the bundle nor the cache has its object
    #[arg(conflicts_with_all = ["explain", "schedule"])]
    kernel: Option<String>,
    /// Show the kernel's assembly and nothing else
    #[arg(long, requires = "kernel", conflicts_with_all = ["source", "json"])]
    asm: bool,
    /// Show the kernel's source and nothing else
    #[arg(long, requires = "kernel", conflicts_with = "json")]
    source: bool,
    /// Compile the kernel with this C compiler, a path or a name
    #[arg(long, requires = "kernel", value_name = "CC")]
    cc: Option<PathBuf>,
    /// Compile the kernel at this level, 0 to 3
    #[arg(short = 'O', long = "opt-level", requires = "kernel", value_name = "LEVEL", value_parser = bench::opt_level)]
    opt_level: Option<OptLevel>,
    /// Show the object for this CPU, or level of CPUs: native, x86-64, x86-64-v2, x86-64-v3,
    /// x86-64-v4 or aarch64
    #[arg(long, requires = "kernel", value_name = "NAME", value_parser = CpuLevel::named)]
    cpu: Option<CpuLevel>,
    /// Compile the kernel if it has a source, also if the bundle carries its object
    #[arg(long, requires = "kernel")]
    recompile: bool,
    /// Show what one op waits for, and why, instead; ops are counted from 0
    #[arg(long, value_name = "OP", conflicts_with = "json")]
    explain: Option<usize>,
    /// Show instead how several threads share a run, and why. Unless the bundle carries
    /// what was learned on a processor like this one, it is compiled, and run on its first
    /// recorded test until that is learned
    #[arg(long, conflicts_with = "explain")]
    schedule: bool,
    /// With --schedule, for so many threads
    #[arg(long, value_name = "N", requires = "schedule", value_parser = clap::value_parser!(u16).range(THREADS))]
    threads: Option<u16>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

fn name_and_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => {
            Ok((name.to_owned(), file.into()))
        }
        _ => Err("it is not of the form NAME=FILE.npy".into()),
    }
}

fn name_and_number(text: &str) -> Result<(String, i64), String> {
    let (name, number) = text.split_once('=').ok_or("it is not of the form NAME=N")?;
    let number = number
        .parse()
        .map_err(|_| format!("`{number}` is no integer of 64 bits"))?;
    Ok((name.to_owned(), number))
}

pub(crate) fn seconds(text: &str) -> Result<std::time::Duration, String> {
    let number: f64 = text.parse().map_err(|_| "it is no number".to_owned())?;
    let seconds = std::time::Duration::try_from_secs_f64(number);
    seconds
        .ok()
        .filter(|seconds| !seconds.is_zero())
        .ok_or_else(|| "it is no time above 0".into())
}

/// What `--schedule` says.
#[derive(Clone, Debug)]
enum ScheduleArg {
    Learned,
    Off,
    File(PathBuf),
}

fn schedule(text: &str) -> Result<ScheduleArg, String> {
    match text {
        "" => Err("it is `learned`, `off` or a file".into()),
        "learned" => Ok(ScheduleArg::Learned),
        "off" => Ok(ScheduleArg::Off),
        file => Ok(ScheduleArg::File(file.into())),
    }
}

fn guard(text: &str) -> Result<Guard, String> {
    Guard::from_name(text).ok_or_else(|| {
        "a side is `end` or `start`, or `off`; write the bundle's folder before --guard, or write \
         --guard=end"
            .into()
    })
}

/// Why the command ends without having done what was asked.
enum Failure {
    /// What was asked cannot be: exit status 2.
    Usage(String),
    /// The library refused, or the run failed.
    Library(svod_runtime::Error),
    /// Likewise, in this part of what was asked.
    Part(String, Box<svod_runtime::Error>),
    /// The output could not be written.
    Output(io::Error),
    /// The process in which the bundle ran was ended by a signal.
    Crash(String),
    /// It ended with this status, and has said why.
    Ended(i32),
}

impl From<svod_runtime::Error> for Failure {
    fn from(error: svod_runtime::Error) -> Failure {
        Failure::Library(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Output(error)
    }
}

/// Whether all is well: what was compared is the same.
type Outcome = Result<bool, Failure>;

fn main() -> ExitCode {
    // Where it was started to confine itself, it does that and nothing else.
    svod_runtime::sandbox::enter();
    let cli = Cli::parse();
    // What the library warns of is for whoever called this command.
    let warnings = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(io::stderr)
        .without_time()
        .with_target(false)
        .with_ansi(false);
    warnings.init();
    let mut out = Output {
        stream: anstream::AutoStream::auto(io::stdout()).lock(),
        closed: false,
    };
    let outcome = match &cli.command {
        Command::Run(args) => run::run(args, &mut out),
        Command::Inspect(args) => inspect::inspect(args, &mut out),
        Command::Bench(args) => bench::bench(args, &mut out),
        Command::Profile(args) => profile::profile(args, &mut out),
        Command::Diff(args) => diff::diff(args, &mut out),
        Command::Verify(args) => verify::verify(args, &mut out),
        Command::Compile(args) => compile::compile(args, &mut out),
        Command::Cache(command) => cache::cache(command, &mut out),
        Command::Doctor(args) => doctor::doctor(args, &mut out),
    };
    let outcome = outcome.and_then(|ok| {
        out.flush()?;
        Ok(ok)
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(Failure::Usage(message)) => {
            report(&message, None);
            let command = match cli.command {
                Command::Run(_) => "run",
                Command::Inspect(_) => "inspect",
                Command::Bench(_) => "bench",
                Command::Profile(_) => "profile",
                Command::Diff(_) => "diff",
                Command::Verify(_) => "verify",
                Command::Compile(_) => "compile",
                Command::Cache(_) => "cache",
                Command::Doctor(_) => "doctor",
            };
            say(&format!(
                "\nFor more information, try 'svod {command} --help'."
            ));
            ExitCode::from(2)
        }
        Err(Failure::Output(error)) => {
            report("cannot write the output", Some(&error));
            ExitCode::from(1)
        }
        Err(Failure::Crash(message)) => {
            report(&message, None);
            ExitCode::from(1)
        }
        Err(Failure::Ended(status)) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Err(Failure::Part(part, error)) => {
            report(&format!("{part}: {error}"), error.source());
            ExitCode::from(1)
        }
        Err(Failure::Library(error)) => {
            report(&error.to_string(), error.source());
            ExitCode::from(1)
        }
    }
}

/// Standard output. Where whoever reads it has had enough, as `head` has, the rest is
/// not printed, and what was asked is done all the same.
struct Output<W> {
    stream: W,
    closed: bool,
}

impl<W: Write> Output<W> {
    fn unless_closed<T>(&mut self, result: io::Result<T>, instead: T) -> io::Result<T> {
        match result {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(instead)
            }
            other => other,
        }
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.closed {
            return Ok(bytes.len());
        }
        let result = self.stream.write(bytes);
        self.unless_closed(result, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let result = self.stream.flush();
        self.unless_closed(result, ())
    }
}

/// Shows an error with its causes on standard error.
fn report(message: &str, cause: Option<&dyn Error>) {
    let style = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    let lines = |text: &str, indent: &str| {
        let lines = text.trim_end().lines().map(show::plain);
        lines.collect::<Vec<_>>().join(&format!("\n{indent}"))
    };
    say(&format!("{style}error:{style:#} {}", lines(message, "  ")));
    let mut cause = cause;
    while let Some(error) = cause {
        say(&format!(
            "  caused by: {}",
            lines(&error.to_string(), "    ")
        ));
        cause = error.source();
    }
}

/// A line on standard error; if that cannot be written, there is nobody to tell.
fn say(line: &str) {
    let _ = writeln!(anstream::stderr(), "{line}");
}
