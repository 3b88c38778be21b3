//! `svod verify`

mod json;
mod table;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use svod_runtime::bundle::Bundle;
use svod_runtime::sandbox::Limits;
use svod_runtime::verify::{Event, Pass, Settings, Verifier, whole};
use svod_runtime::{Guard, RuntimeBuilder};

use crate::watch::{self, Notes};
use crate::{Failure, Outcome, THREADS, loading, show};

#[derive(Args)]
#[command(after_help = "\
Each op is launched many times, in a process of its own and over arguments of its own: at
both ends of memory that nothing may touch, with what it may not read filled in four ways,
again, at addresses that are as aligned as is declared and no more, with the calls of its
grid in other orders, and each of them alone. What is the same every time goes on into the
plan. It goes through the bundle's recorded tests, and then with variables as small and as
large as they may be; inputs of a bundle without tests are pseudo-random.

Where nothing is found, the plan as a whole is run in this process: on one thread and on
several, over planned memory and with memory of its own for each temp, guarded, and compared
with what was recorded.

A clean table says that these runs showed nothing, and not that others cannot.

Exit status: 0 if nothing was found, 1 if something was, or failed, 2 for bad usage.

Examples:
  svod verify model.svod
  svod verify model.svod --quick
  svod verify model.svod --test 0 --all
  svod verify model.svod --json > verified.json")]
pub(crate) struct VerifyArgs {
    /// The bundle's folder
    bundle: PathBuf,
    /// Verify over this recorded test alone; where the bundle has states, over those before it too
    #[arg(long, value_name = "N")]
    test: Option<usize>,
    /// Verify each kernel once, and not in each op that launches it with the same scalars and grid
    #[arg(long)]
    quick: bool,
    /// How long one launch may take
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = crate::seconds)]
    timeout: Duration,
    /// Run the plan as a whole on so many threads
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(THREADS))]
    threads: Option<u16>,
    /// Verify ops alone, and not the plan as a whole
    #[arg(long)]
    ops_only: bool,
    /// Compile every kernel that has a source, also those of which the bundle carries an object
    #[arg(long)]
    recompile: bool,
    /// Show a row for each op, not for each kernel
    #[arg(long)]
    all: bool,
    /// The process that waits for this one
    #[arg(long, hide = true)]
    watched_by: Option<i32>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(crate) fn verify(args: &VerifyArgs, out: &mut dyn Write) -> Outcome {
    // Whole runs are made in the process itself, which these may end.
    if args.watched_by.is_none() {
        return watch::run(&args.bundle, Guard::Off, None);
    }
    let notes = Notes::new(args.watched_by)?;
    let start = Instant::now();
    let bundle = Bundle::open(&args.bundle)?;
    let passes = passes(args, &bundle)?;
    let mut builder = RuntimeBuilder::from_env().guard(Guard::Off);
    if let Some(threads) = args.threads {
        builder = builder.threads(threads.into());
    }
    let runtime = builder.build()?;
    let (code, loading) = loading::load_untrusted(&bundle, &runtime, !args.recompile)?;
    let settings = Settings::default()
        .quick(args.quick)
        .limits(Limits::default().wall(args.timeout));
    if !args.json {
        let name = show::plain(&args.bundle.display().to_string());
        writeln!(out, "{name}  {}", loading.line())?;
        out.flush()?;
    }
    let mut verifier = Verifier::new(bundle.plan().clone(), code.kernels, code.contents, settings)?;
    let bar = bar(passes.len() * bundle.plan().ops().len());
    let mut found = 0;
    for pass in &passes {
        verifier.run(pass, &mut |event| match event {
            Event::Pass(name) => bar.set_message(show::plain(name)),
            Event::Op(_) => bar.inc(1),
            Event::Found(_) => {
                found += 1;
                bar.set_prefix(format!("{found} found, "));
            }
        })?;
    }
    bar.finish_and_clear();
    verifier.find_lines(&runtime, &|kernel| bundle.source(kernel).ok().flatten());
    let mut skipped = args.ops_only.then(|| "only ops were asked for".to_owned());
    if !verifier.report().is_clean() {
        skipped = Some("ops have findings".to_owned());
    }
    let threads = runtime.pool().threads();
    if skipped.is_none() {
        // SAFETY: whoever calls this command on a bundle trusts it as a program, as the help says;
        // and its kernels were seen to keep their contracts.
        let executable = unsafe { verifier.executable() }?;
        let made = whole(&executable, &passes, threads, &mut |instance| {
            notes.observe(instance);
        });
        verifier.add_whole(made?);
        notes.end();
    }
    let seen = Seen {
        args,
        bundle: &bundle,
        report: verifier.report(),
        skipped,
        threads,
        time: start.elapsed(),
    };
    match args.json {
        true => writeln!(out, "{}", crate::json::text(&json::command(&seen)))?,
        false => table::show(&seen, out)?,
    }
    Ok(seen.report.is_clean())
}

/// What came of it, and of what.
struct Seen<'a> {
    args: &'a VerifyArgs,
    bundle: &'a Bundle,
    report: &'a svod_runtime::verify::Report,
    /// Why the plan was not run as a whole, where it was not.
    skipped: Option<String>,
    threads: usize,
    time: Duration,
}

/// The runs that are asked for.
fn passes(args: &VerifyArgs, bundle: &Bundle) -> Result<Vec<Pass>, Failure> {
    let tests = bundle.tests().len();
    let mut passes = Pass::of_bundle(bundle)?;
    let Some(test) = args.test else {
        return Ok(passes);
    };
    if test >= tests {
        let tests = show::count(tests, "recorded test");
        let bundle = bundle.path().display();
        return Err(Failure::Usage(format!(
            "{bundle} has {tests}, counted from 0; there is no test {test}"
        )));
    }
    // What a test leaves out is as those before it have it.
    passes.truncate(test + 1);
    Ok(passes)
}

/// A bar that counts ops, where a person looks.
fn bar(ops: usize) -> ProgressBar {
    if !std::io::stdout().is_terminal() || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(ops as u64);
    let template = "verifying {bar:30} {pos}/{len} ops  {prefix}{msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
