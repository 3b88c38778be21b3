//! What the runtime adds to a model's kernels: each bundle on one thread, beside the
//! same objects called in the same order by a plain C program, in turns. Bundles are
//! named on the command line; without any, it is `examples/digits`.
//!
//! Both give the same bits, or there is nothing to compare. The C program's memory is
//! its own, so that the one does not warm the caches for the other; a sample of a short
//! run has some in a row, so that each warms them for itself.
//!
//! Where memory lies moves times by more than an engine does. So all is measured with
//! several sets of memory for each, and shown is also how far their ratios are apart.
//!
//! With `--threads N` it is what several threads make of a bundle (`threads`).

mod program;
mod threads;

use std::path::Path;
use std::time::Duration;

use svod_runtime::bench::{Budget, Candidate, Replay, Spread, race};
use svod_runtime::bundle::Bundle;
use svod_runtime::{Guard, Runtime, RuntimeBuilder};

use program::{Code, Program};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits");

/// Sets of memory.
const PLACES: usize = 7;

fn measure(path: &str, runtime: &Runtime, budget: &Budget) -> Fallible<()> {
    let bundle = Bundle::open(path)?;
    // SAFETY: whoever names a bundle to this program trusts it as a program.
    let executable = unsafe { bundle.load(runtime, &|_| {})? };
    let code = Code::new(&bundle, runtime, 1)?;
    let (mut c, mut ours) = (Vec::new(), Vec::new());
    let mut of_places = Vec::new();
    // Sets that are kept, so that the next ones lie elsewhere.
    let mut kept = Vec::new();
    for _ in 0..PLACES {
        let mut replay = Replay::new(&executable)?;
        if !bundle.tests().is_empty() {
            replay.set_test(&bundle, 0)?;
        }
        let mut program = Program::new(&code, &bundle)?;
        compare(&mut replay, &mut program)?;
        let race = race(&mut [&mut program, &mut replay], budget)?;
        c.extend_from_slice(race.samples(0));
        ours.extend_from_slice(race.samples(1));
        of_places.push(race.ratios(1, 0).median);
        kept.push((replay, program));
    }

    let of_rounds: Vec<_> = ours.iter().zip(&c).map(|(ours, c)| ours / c).collect();
    let [c, ours, of_rounds, of_places] =
        [c, ours, of_rounds, of_places].map(|numbers| Spread::of(&numbers));
    let name = Path::new(path).file_stem().unwrap_or_default();
    println!(
        "{:<12} {:>9.1} {:>9.1} {:>7.3} {:>8.3} ({:.3} to {:.3}) {:>7.3} to {:.3}",
        name.to_string_lossy(),
        c.median / 1e3,
        ours.median / 1e3,
        ours.median / c.median,
        of_rounds.median,
        of_rounds.lower,
        of_rounds.upper,
        of_places.min,
        of_places.max,
    );
    Ok(())
}

/// Whether both compute the same bits.
fn compare(replay: &mut Replay<'_>, program: &mut Program<'_>) -> Fallible<()> {
    for candidate in [&mut *replay as &mut dyn Candidate, program] {
        candidate.prepare()?;
        candidate.run()?;
    }
    for (name, bytes) in program.outputs()? {
        if replay.instance().output(name)?.as_bytes() != bytes {
            return Err(format!("the C program has other bits in the output `{name}`").into());
        }
    }
    Ok(())
}

fn main() -> Fallible<()> {
    // Cargo says `--bench` to every benchmark.
    let mut bundles: Vec<_> = std::env::args().skip(1).collect();
    bundles.retain(|arg| arg != "--bench");
    let threads = match bundles.iter().position(|arg| arg == "--threads") {
        None => 1,
        Some(at) => {
            let number = bundles.drain(at..(at + 2).min(bundles.len())).nth(1);
            number.ok_or("--threads takes a number")?.parse()?
        }
    };
    if bundles.is_empty() {
        bundles.push(EXAMPLE.to_owned());
    }
    let runtime = RuntimeBuilder::from_env().guard(Guard::Off);
    let runtime = runtime.threads(threads).build()?;
    let budget = Budget {
        time: Duration::from_millis(500),
        sample: Duration::from_micros(500),
        ..Budget::default()
    };
    if threads > 1 {
        // Several runs in a row, so that threads that sleep between turns are awake.
        let budget = Budget {
            sample: Duration::from_millis(10),
            ..budget
        };
        threads::print_head(threads);
        for path in bundles {
            threads::measure(&path, &runtime, &budget)?;
        }
        return Ok(());
    }
    println!(
        "each bundle's first test on one thread, in µs a run; ratios to the C program: of the\n\
         medians, of each round with its quartiles, of {PLACES} sets of memory from least to most\n"
    );
    println!("bundle               C      ours   ratio  of each round (quartiles)  of the sets");
    for path in bundles {
        measure(&path, &runtime, &budget)?;
    }
    Ok(())
}
