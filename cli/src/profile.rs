//! `svod profile`

use std::fs::{self, File};
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anstyle::Style;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use svod_runtime::bench::Replay;
use svod_runtime::bundle::Bundle;
use svod_runtime::plan::Trace;
use svod_runtime::profile::{
    Counters, Counts, KernelReport, KernelText, Machine, NoCounters, Page, Profile, Report,
    overhead, write_events, write_page,
};
use svod_runtime::{Error, Guard, OptLevel, Runtime, RuntimeBuilder};

use crate::bench::{opt_level, seconds};
use crate::given::Given;
use crate::schedule::LEARNING;
use crate::typical::Typical;
use crate::{Outcome, json, kernel, loading, show};

#[derive(Args)]
#[command(after_help = "\
The first runs, in which a schedule is learned, do not count. Each run starts from
the initial states. What the machine can do, of arithmetic and of moving bytes, is
measured once, in a second or two, and kept in the cache of kernels; --no-peaks
goes without. A kernel's `of peak` is the time that its arithmetic or its bytes take
at least, from where they lie, over the time that it took. To look at the clock costs
some 70 ns an op.

--json prints one object, whose keys docs/profiling.md lists.

Examples:
  svod profile model.svod
  svod profile model.svod --html model.html      a page to look at
  svod profile model.svod --trace model.json     for ui.perfetto.dev
  svod profile model.svod --threads 1 --ops")]
pub(crate) struct ProfileArgs {
    /// The bundle's folder
    bundle: PathBuf,
    #[command(flatten)]
    given: Given,
    /// Compile with this C compiler, a path or a name
    #[arg(long, value_name = "CC")]
    cc: Option<PathBuf>,
    /// Compile at this level, 0 to 3
    #[arg(short = 'O', long = "opt-level", value_name = "LEVEL", value_parser = opt_level)]
    opt_level: Option<OptLevel>,
    /// Let a run have so many threads, with the one that starts it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(crate::THREADS))]
    threads: Option<u16>,
    /// Run so many times
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000), conflicts_with = "time")]
    runs: Option<u32>,
    /// Run for so long, but at least 10 times
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "1")]
    time: Duration,
    /// Show ops instead of kernels
    #[arg(long)]
    ops: bool,
    /// Do not measure the machine, and say nothing of its limits
    #[arg(long)]
    no_peaks: bool,
    /// Measure the machine anew, as where it had other work when it was measured before
    #[arg(long, conflicts_with = "no_peaks")]
    measure: bool,
    /// Write what one run did, of about the median time, as events for
    /// ui.perfetto.dev and chrome://tracing
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Write a page that shows all of it: one file, for any browser
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(crate) fn profile(args: &ProfileArgs, out: &mut dyn Write) -> Outcome {
    let bundle = Bundle::open(&args.bundle)?;
    args.given.check(&bundle)?;
    let arrays = args.given.read(&bundle)?;
    let mut builder = RuntimeBuilder::from_env().guard(Guard::Off);
    if let Some(cc) = &args.cc {
        builder = builder.cc(cc);
    }
    if let Some(level) = args.opt_level {
        builder = builder.opt_level(level);
    }
    if let Some(threads) = args.threads {
        builder = builder.threads(threads.into());
    }
    let runtime = builder.build()?;
    // Before there are other threads: those that come are counted too.
    let counters = Counters::open();
    let (executable, loading) = loading::load(&bundle, &runtime, true)?;
    let machine = match (args.no_peaks, args.measure) {
        (true, _) => None,
        (false, true) => Some(Machine::measured(&runtime)),
        (false, false) => Some(Machine::of(&runtime)),
    };
    let mut replay = args.given.replay(&bundle, &executable, &arrays)?;
    let given = args.given.line(&bundle, &replay);

    replay.learn(LEARNING)?;
    let (mut profile, mut typical) = (Profile::new(&executable), Typical::default());
    let counts = counted(counters, || {
        record(args, &mut replay, &mut profile, &mut typical)
    })?;
    let trace = typical.nearest(profile.run_ns().median).unwrap_or_default();
    // A host function may not find what it needs where kernels do nothing.
    let overhead = overhead(&replay).unwrap_or_default();
    let mut report = profile.report(machine.as_ref(), overhead);
    report.counts = counts
        .as_ref()
        .ok()
        .map(|counts| counts.per_run(report.runs));
    if let Some(file) = &args.trace {
        write_file(file, |out| write_events(bundle.plan(), &trace, out))?;
    }
    if let Some(file) = &args.html {
        let why = counts.as_ref().err().map(NoCounters::to_string);
        let page = Page {
            plan: bundle.plan(),
            report: &report,
            trace: &trace,
            texts: &texts(&bundle, &runtime),
            not_counted: why.as_deref(),
        };
        write_file(file, |out| write_page(&page, out))?;
    }
    if args.json {
        let value = serde_json::to_value(&report).unwrap_or_default();
        writeln!(out, "{}", json::text(&value))?;
        return Ok(true);
    }
    let bold = Style::new().bold();
    writeln!(
        out,
        "{bold}{}{bold:#}: {}; {given}; {}",
        show::plain(bundle.plan().name()),
        loading.line(),
        show::count(executable.pool().threads(), "thread"),
    )?;
    table(&report, args.ops, out)?;
    totals(&report, out)?;
    match &counts {
        Ok(_) => count_line(&report, out)?,
        Err(why) => writeln!(out, "not counted: {why}")?,
    }
    if let Some(file) = &args.trace {
        writeln!(
            out,
            "one run is in {}; open it in ui.perfetto.dev",
            file.display()
        )?;
    }
    if let Some(file) = &args.html {
        writeln!(out, "the page is {}; open it in a browser", file.display())?;
    }
    Ok(true)
}

/// Does this, and says what the processor counted meanwhile, or why it did not.
fn counted(
    counters: Result<Counters, NoCounters>,
    act: impl FnOnce() -> Result<(), Error>,
) -> Result<Result<Counts, NoCounters>, Error> {
    let counters = counters.and_then(|counters| Ok(counters.start().map(|()| counters)?));
    act()?;
    Ok(counters.and_then(|counters| {
        counters.stop()?;
        Ok(counters.counts()?)
    }))
}

/// The kernels' texts: of those that have no source, or cannot be listed, none.
fn texts(bundle: &Bundle, runtime: &Runtime) -> Vec<KernelText> {
    let text = |number| {
        let source = bundle
            .source_file(number)
            .and_then(|file| fs::read(file).ok());
        KernelText {
            source: source.map(|source| String::from_utf8_lossy(&source).into_owned()),
            assembly: kernel::assembly_text(bundle, runtime, number).ok(),
        }
    };
    (0..bundle.plan().kernels().len()).map(text).collect()
}

/// Runs, and takes down what that takes.
fn record(
    args: &ProfileArgs,
    replay: &mut Replay<'_>,
    profile: &mut Profile,
    typical: &mut Typical<Trace>,
) -> Result<(), Error> {
    let bar = bar(args);
    let mut trace = Trace::new();
    let start = Instant::now();
    let mut median = 0.0;
    for run in 0_u32.. {
        let done = match args.runs {
            Some(runs) => run >= runs,
            None => run >= 10 && start.elapsed() >= args.time,
        };
        if done {
            break;
        }
        replay.trace(&mut trace)?;
        profile.add(&trace);
        let took = trace.took().as_nanos() as f64;
        // It takes longer than a small plan, and changes little after the first runs.
        if run < 64 || run % 64 == 0 {
            median = profile.run_ns().median;
        }
        typical.offer(&mut trace, took, median);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

fn bar(args: &ProfileArgs) -> ProgressBar {
    let visible = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
    let bar = match (visible, args.runs) {
        (false, _) => ProgressBar::hidden(),
        (true, Some(runs)) => ProgressBar::new(runs.into()),
        (true, None) => ProgressBar::new_spinner(),
    };
    if let Ok(style) = ProgressStyle::with_template("profiling: {pos} runs {msg}") {
        bar.set_style(style);
    }
    bar
}

/// Writes a file whole, or says which one could not be.
fn write_file(
    file: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<(), Error> {
    let whole = File::create(file).and_then(|file| {
        let mut out = BufWriter::new(file);
        write(&mut out)?;
        out.flush()
    });
    whole.map_err(|e| Error::File {
        file: file.to_owned(),
        reason: format!("it cannot be written: {e}"),
    })
}

/// How wide the output may be: that of the terminal, or without end.
fn width() -> usize {
    let terminal = std::io::stdout().is_terminal();
    let size = terminal.then(terminal_size::terminal_size).flatten();
    size.map_or(usize::MAX, |(width, _)| width.0.into())
}

/// The rows of a table; what is left is one row more.
const ROWS: usize = 25;

/// A column: its heading, how wide it is, and what stands in it.
type Column = (&'static str, usize, fn(&KernelReport) -> String);

/// The columns, those first that are worth more: in a narrow terminal, the last are left out.
const COLUMNS: [Column; 7] = [
    ("time", 9, |k| time(k.work_ns)),
    ("share", 7, |k| percent(k.share)),
    ("of peak", 8, |k| k.of_peak.map(percent).unwrap_or_default()),
    ("bound by", 11, |k| {
        k.bound.map(|b| b.name().to_owned()).unwrap_or_default()
    }),
    ("GFLOP/s", 9, |k| {
        k.flops
            .map(|f| crate::bench::four_digits(f / 1e9))
            .unwrap_or_default()
    }),
    ("GB/s", 8, |k| crate::bench::four_digits(k.bytes / 1e9)),
    ("spread", 8, |k| format!("±{}", percent(k.spread / 2.0))),
];

/// The least and the most letters of a name.
const NAME: (usize, usize) = (12, 40);

fn table(report: &Report, by_op: bool, out: &mut dyn Write) -> std::io::Result<()> {
    let rows = match by_op {
        true => report.by_op(),
        false => report.kernels.clone(),
    };
    let mut columns = COLUMNS.to_vec();
    let calls = 7;
    let wide = |columns: &[Column]| calls + columns.iter().map(|c| c.1).sum::<usize>();
    while columns.len() > 2 && wide(&columns) + NAME.0 > width() {
        columns.pop();
    }
    let longest = rows
        .iter()
        .map(|row| show::plain(&row.name).chars().count());
    let longest = longest.max().unwrap_or(0).clamp(NAME.0, NAME.1);
    let name = longest.min(width().saturating_sub(wide(&columns)).max(NAME.0));
    let bold = Style::new().bold();

    let (first, count) = if by_op {
        ("op", "#")
    } else {
        ("kernel", "calls")
    };
    let mut head = format!("{first:<name$}{count:>calls$}");
    for (heading, wide, _) in &columns {
        head += &format!("{heading:>wide$}");
    }
    writeln!(out, "\n{bold}{head}{bold:#}")?;
    for row in rows.iter().take(ROWS) {
        let shown = cut(&show::plain(&row.name), name);
        let number = if by_op { row.ops[0] } else { row.ops.len() };
        let mut line = format!("{shown:<name$}{number:>calls$}");
        for (_, wide, text) in &columns {
            let text = text(row);
            line += &format!("{text:>wide$}");
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    if let Some(rest) = rows.get(ROWS..).filter(|rest| !rest.is_empty()) {
        let work = rest.iter().map(|row| row.work_ns).sum();
        let share = rest.iter().map(|row| row.share).sum();
        let what = format!("{} more", rest.len());
        let (time, share) = (time(work), percent(share));
        writeln!(out, "{what:<name$}{:>calls$}{time:>9}{share:>7}", "")?;
    }
    Ok(())
}

fn totals(report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
    let totals = &report.totals;
    writeln!(
        out,
        "\na run: {} median, {} to {} in half of {}",
        time(report.run_ns.median),
        time(report.run_ns.lower),
        time(report.run_ns.upper),
        show::count(usize::try_from(report.runs).unwrap_or(usize::MAX), "run"),
    )?;
    let launches = show::count(totals.launches, "launch");
    write!(
        out,
        "in ops: {} of all threads, {launches}",
        time(totals.work_ns)
    )?;
    if let Some(overhead) = totals.overhead_ns {
        let each = crate::bench::four_digits(overhead);
        write!(out, "; the runtime takes {each} ns for each")?;
    }
    writeln!(out)?;
    if report.threads.len() > 1 {
        let busy = report.threads.iter().map(|t| time(t.busy_ns));
        let busy: Vec<_> = busy.collect();
        writeln!(
            out,
            "threads: busy for {}, balance {}; waiting for each other {}",
            busy.join(" and "),
            percent(totals.balance),
            time(totals.waits_ns),
        )?;
    }
    writeln!(
        out,
        "critical path: {}, what a run takes at least with ops that are not split",
        time(totals.critical_path_ns)
    )?;
    let Some(machine) = &report.machine else {
        return Ok(());
    };
    let threads = report.threads.len().max(1);
    if let Some(rates) = machine.rates(threads) {
        let giga = |rate: f64| crate::bench::four_digits(rate / 1e9);
        let levels = rates.plateaus();
        let levels = levels.map(|l| format!("{} ({})", giga(l.read), show::bytes(l.size)));
        writeln!(
            out,
            "{}, {}: {} GFLOP/s of f32, {} of f64; reads {} GB/s",
            show::plain(&machine.cpu),
            show::count(rates.threads, "thread"),
            giga(rates.f32_flops),
            giga(rates.f64_flops),
            levels.collect::<Vec<_>>().join(", "),
        )?;
    }
    Ok(())
}

/// What the processor counted in a run.
fn count_line(report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
    let Some(counts) = &report.counts else {
        return Ok(());
    };
    let number = crate::bench::four_digits;
    write!(
        out,
        "counted, a run: {} million instructions, {} a cycle",
        number(counts.instructions / 1e6),
        number(counts.instructions / counts.cycles.max(1.0)),
    )?;
    if let Some(misses) = counts.cache_misses {
        write!(out, "; {} thousand cache misses", number(misses / 1e3))?;
    }
    if let Some(misses) = counts.branch_misses {
        write!(out, "; {} thousand branch misses", number(misses / 1e3))?;
    }
    writeln!(out)
}

fn time(nanos: f64) -> String {
    show::duration(Duration::from_secs_f64(nanos.max(0.0) / 1e9))
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn cut(name: &str, at: usize) -> String {
    match name.char_indices().nth(at) {
        None => name.to_owned(),
        Some(_) => name.chars().take(at - 1).chain(['…']).collect(),
    }
}
