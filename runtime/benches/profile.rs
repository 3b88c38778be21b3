//! What it costs to profile: runs that are traced and added to a profile beside runs of the same
//! instance that are not, in turns. Bundles are named on the command line; without any, it is
//! `examples/digits`. `--threads N` lets runs have so many.
//!
//! Both use the same memory, since where it lies moves times by more than a trace does.

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use svod_runtime::bench::{Budget, Candidate, Replay, race};
use svod_runtime::bundle::Bundle;
use svod_runtime::plan::Trace;
use svod_runtime::profile::Profile;
use svod_runtime::{Error, Guard, RuntimeBuilder};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits");

/// An instance, with what its runs are taken down in.
struct Taken<'a> {
    replay: Replay<'a>,
    trace: Trace,
    profile: Profile,
}

/// A run of it, taken down or not.
struct Runner<'a, 'b> {
    taken: &'a RefCell<Taken<'b>>,
    traces: bool,
}

impl Candidate for Runner<'_, '_> {
    fn prepare(&mut self) -> Result<(), Error> {
        self.taken.borrow_mut().replay.prepare()
    }

    fn run(&mut self) -> Result<(), Error> {
        let Taken {
            replay,
            trace,
            profile,
        } = &mut *self.taken.borrow_mut();
        if !self.traces {
            return replay.run();
        }
        replay.trace_on(trace)?;
        profile.add(trace);
        Ok(())
    }
}

fn measure(path: &str, threads: usize) -> Fallible<()> {
    let runtime = RuntimeBuilder::from_env();
    let runtime = runtime.guard(Guard::Off).threads(threads).build()?;
    let bundle = Bundle::open(path)?;
    // SAFETY: whoever names a bundle to this program trusts it as a program.
    let executable = unsafe { bundle.load(&runtime, &|_| {})? };
    let mut replay = Replay::new(&executable)?;
    if !bundle.tests().is_empty() {
        replay.set_test(&bundle, 0)?;
    }
    replay.learn(1000)?;
    let taken = RefCell::new(Taken {
        replay,
        trace: Trace::new(),
        profile: Profile::new(&executable),
    });
    let runner = |traces| Runner {
        taken: &taken,
        traces,
    };
    let budget = Budget {
        time: Duration::from_secs(3),
        min_rounds: 30,
        ..Budget::default()
    };
    let race = race(&mut [&mut runner(false), &mut runner(true)], &budget)?;
    let (plain, traced, ratio) = (race.times(0), race.times(1), race.ratios(1, 0));
    let name = Path::new(path).file_stem().unwrap_or_default();
    println!(
        "{:<12} {:>10.1} {:>10.1} {:>8.4} ({:.4} to {:.4}) {:>8.4}",
        name.to_string_lossy(),
        plain.median / 1e3,
        traced.median / 1e3,
        ratio.median,
        ratio.lower,
        ratio.upper,
        traced.lower / plain.lower,
    );
    Ok(())
}

fn main() -> Fallible<()> {
    let mut args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let mut threads = 1;
    if let Some(at) = args.iter().position(|arg| arg == "--threads") {
        threads = args.get(at + 1).ok_or("--threads of how many?")?.parse()?;
        args.drain(at..at + 2);
    }
    if args.is_empty() {
        args.push(EXAMPLE.into());
    }
    println!(
        "{:<12} {:>10} {:>10} {:>8} {:>18} {:>8}",
        "", "plain µs", "traced µs", "ratio", "(quartiles)", "of lower"
    );
    args.iter().try_for_each(|path| measure(path, threads))
}
