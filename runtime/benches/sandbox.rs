//! What a sandbox costs: candidates in one beside the same launches here, and runs of a plan in a
//! helper beside runs here, in turns. Bundles are named on the command line; without any, it is
//! `examples/digits`. `--threads N` lets runs have so many.

use std::path::Path;
use std::time::Duration;

use svod_runtime::bench::{Budget, Candidate, Race, Replay, race};
use svod_runtime::bundle::{Bundle, Load};
use svod_runtime::confine::Helper;
use svod_runtime::memory::Guard;
use svod_runtime::sandbox::{
    Confined, ConfinedPlan, CrashIsolation, Launch, Limits, Outcome, PlanOptions, Untrusted,
};
use svod_runtime::{Buffer, DType, Error, Runtime, RuntimeBuilder, Signature, Source};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits");

/// Elements of a candidate's argument, and candidates of a list.
const LEN: usize = 4096;
const LIST: usize = 100;

fn completed(outcome: Outcome) -> Result<(), Error> {
    outcome.into_result().map(drop)
}

fn budget(seconds: u64) -> Budget {
    Budget {
        time: Duration::from_secs(seconds),
        runs: 1,
        ..Budget::default()
    }
}

/// How much longer each candidate but the first takes, for each of so many launches.
fn more(race: &Race, candidate: usize, launches: usize) -> String {
    let (here, there) = (race.times(0).median, race.times(candidate).median);
    let more = (there - here) / launches as f64 / 1e3;
    format!("{more:>8.1} µs more a candidate")
}

fn candidates(helper: &Helper) -> Fallible<()> {
    let runtime = Runtime::new()?;
    let text = format!("void bump(float *x) {{ for (int i = 0; i < {LEN}; i++) x[i] += 1; }}");
    let signature = Signature::builder().read_write(DType::F32, LEN).build()?;
    let untrusted = runtime.load_untrusted(&Source::c("bump", text), signature)?;
    // SAFETY: it writes the elements that its signature says.
    let kernel = unsafe { untrusted.clone().vouch() };
    let (forked, confined) = (
        CrashIsolation::new(Limits::default()),
        Confined::new(helper.clone(), Limits::default())?,
    );
    println!("a kernel over {LEN} floats, in a sandbox and without");
    for launches in [1, LIST] {
        let buffers = || -> Result<Vec<Buffer>, Error> {
            let make = |_| Buffer::shared(DType::F32, LEN, 16, Guard::End);
            (0..launches).map(make).collect()
        };
        let (mut a, mut b, mut c) = (buffers()?, buffers()?, buffers()?);
        let mut here = || -> Result<(), Error> {
            for x in &mut a {
                kernel.launch(&mut [x.into()], &[], 1)?;
            }
            Ok(())
        };
        let mut in_fork = || run_all(&untrusted, &mut b, |list| forked.run_all(list));
        let mut in_helper = || run_all(&untrusted, &mut c, |list| confined.run_all(list));
        let race = race(&mut [&mut here, &mut in_fork, &mut in_helper], &budget(3))?;
        println!(
            "  {launches:>3} at a time: here {:>8.1} µs each; forked {}; confined {}",
            race.times(0).median / launches as f64 / 1e3,
            more(&race, 1, launches),
            more(&race, 2, launches),
        );
    }
    Ok(())
}

fn run_all(
    kernel: &Untrusted,
    buffers: &mut [Buffer],
    run: impl FnOnce(&mut [Launch<'_>]) -> Result<Vec<Outcome>, Error>,
) -> Result<(), Error> {
    let launches = buffers.iter_mut();
    let mut launches: Vec<_> = launches
        .map(|x| Launch::new(kernel, vec![x.into()], &[], 1))
        .collect();
    run(&mut launches)?.into_iter().try_for_each(completed)
}

/// A plan in a helper, with the variables of its runs.
struct There<'a> {
    plan: ConfinedPlan<'a>,
    variables: Vec<i64>,
}

impl Candidate for There<'_> {
    fn prepare(&mut self) -> Result<(), Error> {
        self.plan.reset()
    }

    fn run(&mut self) -> Result<(), Error> {
        completed(self.plan.run_with(&self.variables)?)
    }
}

fn plan(path: &str, threads: usize, helper: &Helper) -> Fallible<()> {
    let runtime = RuntimeBuilder::from_env();
    let runtime = runtime.guard(Guard::Off).threads(threads).build()?;
    let bundle = Bundle::open(path)?;
    // SAFETY: whoever names a bundle to this program trusts it as a program.
    let executable = unsafe { bundle.load(&runtime, &|_| {})? };
    let mut here = Replay::new(&executable)?;
    if !bundle.tests().is_empty() {
        here.set_test(&bundle, 0)?;
    }
    here.learn(400)?;
    let confined = Confined::new(helper.clone(), Limits::default())?;
    let options = PlanOptions::default().threads(threads);
    let mut there = confined.load(&bundle, &runtime, &Load::default(), options)?;
    let variables: Vec<_> = here.variables().map(|(_, value)| value).collect();
    match bundle.tests().first() {
        Some(test) => test.give(&mut there)?,
        None => {
            for input in bundle.plan().inputs() {
                let dtype = input.dtype.unwrap_or(DType::U8);
                let zeros = Buffer::zeroed(dtype, input.bytes / dtype.size())?;
                let name = input.name.as_deref().unwrap_or_default();
                there.set_input(name, zeros.as_view())?;
            }
        }
    }
    for _ in 0..400 {
        completed(there.run_with(&variables)?)?;
    }
    let mut there = There {
        plan: there,
        variables,
    };
    let race = race(&mut [&mut here, &mut there], &budget(5))?;
    let ratio = race.ratio_interval(1, 0);
    println!(
        "  {:<12} {threads} threads: here {:>9.1} µs, in a helper {:>9.1} µs, {:.3} times as long{}",
        Path::new(path).file_stem().unwrap_or_default().display(),
        race.times(0).median / 1e3,
        race.times(1).median / 1e3,
        race.ratios(1, 0).median,
        ratio.map_or_else(String::new, |r| format!(" ({:.3} to {:.3})", r.low, r.high)),
    );
    Ok(())
}

fn main() -> Fallible<()> {
    svod_runtime::sandbox::enter();
    let helper = Helper::this_program()?;
    let mut threads = 1;
    let mut paths = Vec::new();
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--threads" => threads = args.next().ok_or("--threads takes a number")?.parse()?,
            path => paths.push(path.to_owned()),
        }
    }
    if paths.is_empty() {
        candidates(&helper)?;
        paths.push(EXAMPLE.to_owned());
    }
    println!("a plan, in a helper and here");
    for path in &paths {
        plan(path, threads, &helper)?;
    }
    Ok(())
}
