//! Input from anyone, and threads that meet at any moment: `cargo xtask asan`, `cargo xtask
//! tsan` and `cargo xtask fuzz`. All need a nightly toolchain, for the sanitizer.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{cargo, run, succeeds};

/// The fuzz targets, as `fuzz/Cargo.toml` names them, and how long inputs are in many runs, in
/// bytes: what there is to be found of the rest has been found by then by longer ones.
const TARGETS: [(&str, u32); 7] = [
    ("object", 4096),
    ("bundle", 8000),
    ("signature", 4096),
    ("weights", 4096),
    ("cache", 4096),
    ("ir", 700),
    // The shape, the seed and 7 ops.
    ("plan", 65),
];

/// Says that nothing is to be run yet.
const BUILD: &str = "build";

/// How long the runtime is soaked for where nothing is said, in seconds.
const SOAK_SECONDS: &str = "600";

/// By what tests that repeat themselves divide their repetitions under a sanitizer.
const SHARE: &str = "4";

/// How long each target is fuzzed for where nothing is said, in seconds.
const SECONDS: &str = "60";

/// Where targets are built for many runs.
const MANY: &str = "fuzz/target/many";

/// Into how many parts a crate of a fuzz target is compiled. cargo-fuzz says one, which
/// leaves a core idle for most of the build (4:35 instead of 7 minutes on two cores).
const UNITS: &str = "--codegen-units=16";

/// What the workspace has optimised for some of its tests, which are not among those chosen here.
const UNOPTIMISED: [&str; 4] = ["loom", "generator", "iced-x86", "yaxpeax-arm"];

/// The host's triple, which the sanitizer must be told.
fn host() -> Option<String> {
    let output = Command::new("rustc").arg("-vV").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("host: "));
    line.map(str::to_owned)
}

fn has_nightly() -> bool {
    let has = succeeds(Command::new("cargo").args(["+nightly", "--version"]));
    if !has {
        eprintln!("xtask: this needs a nightly toolchain: rustup toolchain install nightly");
    }
    has
}

/// Has all of the runtime's tests run.
const ALL: &str = "all";

/// What AddressSanitizer cannot have a part in: it has terabytes of addresses, where tests limit them,
/// and calls the system, where they count calls.
const NOT_SANITIZED: [&str; 2] = ["confine", "silent"];

/// The tests in `runtime/tests`, but for [`NOT_SANITIZED`].
fn all_tests() -> Vec<String> {
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/../runtime/tests");
    let entries = std::fs::read_dir(tests).into_iter().flatten();
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join("main.rs").is_file() || entry.path().is_file())
        .filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()))
        .filter(|name| !NOT_SANITIZED.contains(&name.as_str()))
        .collect();
    names.sort();
    let chosen = ["-p", "svod-runtime", "--no-fail-fast"].map(str::to_owned);
    let tests = names.into_iter().flat_map(|name| ["--test".into(), name]);
    chosen.into_iter().chain(tests).collect()
}

/// The tests that `args` name, all, or those of damaged input and of plans, under
/// AddressSanitizer.
pub(crate) fn asan(args: Vec<String>) -> bool {
    if args == [ALL] {
        let unit = ["-p", "svod-runtime", "--lib"].into_iter();
        // Loom's models have no memory of their own, and take long.
        let unit = unit.chain(["--", "--skip", "pool::model"]);
        let unit = asan(unit.map(str::to_owned).collect());
        return asan(all_tests()) & unit;
    }
    let chosen = or_tests(
        args,
        &[
            "diff",
            "hostile",
            "random_plans",
            "instance",
            "order",
            "plan",
            "sandbox",
        ],
    );
    // More memory than there is must be an error to the library here as elsewhere. What is
    // leaked is looked for when a test's process ends.
    let options = ("ASAN_OPTIONS", "allocator_may_return_null=1:detect_leaks=1");
    sanitized("target/asan", "-Zsanitizer=address", options, &chosen)
}

/// The tests that `args` name, or those of plans on teams of threads, under
/// ThreadSanitizer. It sees what is compiled here: of ops, kernels and host functions that
/// are Rust's.
pub(crate) fn tsan(args: Vec<String>) -> bool {
    let mut chosen = or_tests(args.clone(), &["random_plans"]);
    if args.is_empty() {
        // The standard library is not instrumented, so that its locks, channels and joined threads
        // order nothing: these are the tests in which threads meet through the team alone.
        let tests = ["--", "--test-threads=1", "threads::any", "threads::while"];
        chosen.extend(tests.map(str::to_owned));
    }
    let flags = "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer";
    let known = concat!("suppressions=", env!("CARGO_MANIFEST_DIR"), "/tsan.txt");
    sanitized("target/tsan", flags, ("TSAN_OPTIONS", known), &chosen)
}

/// The arguments, or, where there are none or only `build`, those for some tests of the
/// runtime.
fn or_tests(args: Vec<String>, tests: &[&str]) -> Vec<String> {
    let builds_only = args == [BUILD];
    if !args.is_empty() && !builds_only {
        return args;
    }
    let unoptimised = |name| format!("--config=profile.dev.package.{name}.opt-level=0");
    let mut all: Vec<String> = UNOPTIMISED.iter().map(unoptimised).collect();
    let tests = tests.iter().flat_map(|test| ["--test", test]);
    let tests = ["-p", "svod-runtime"].into_iter().chain(tests);
    all.extend(tests.map(str::to_owned));
    if builds_only {
        all.push("--no-run".to_owned());
    }
    all
}

/// Tests with a sanitizer.
fn sanitized(folder: &str, flags: &str, (options, value): (&str, &str), args: &[String]) -> bool {
    let Some(host) = host().filter(|_| has_nightly()) else {
        return false;
    };
    let mut test = Command::new("cargo");
    test.args(["+nightly", "test", "--target", &host])
        .args(args);
    // Code for the machine that builds it is of no use to the sanitizer's target folder.
    test.env("CARGO_TARGET_DIR", folder)
        .env("RUSTFLAGS", flags)
        .env("SVOD_TEST_SHARE", SHARE)
        .env(options, value);
    run(&mut test)
}

/// How much of a target is fuzzed.
#[derive(Clone, Copy)]
enum Amount<'a> {
    /// Seconds, under AddressSanitizer.
    Time(&'a str),
    /// Runs, without it and with less accounting by the fuzzer: ten times as many a second.
    Runs(&'a str),
}

impl<'a> Amount<'a> {
    fn of(text: &'a str) -> Option<Amount<'a>> {
        let (number, amount) = match text.strip_suffix('x') {
            Some(runs) => (runs, Amount::Runs(runs)),
            None => (text, Amount::Time(text)),
        };
        let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        is_number.then_some(amount)
    }

    /// What cargo-fuzz is told for its builds.
    fn build(self) -> &'static [&'static str] {
        match self {
            Amount::Time(_) => &[UNITS],
            Amount::Runs(_) => &[
                UNITS,
                "--sanitizer=none",
                "--no-trace-compares",
                "--target-dir",
                MANY,
            ],
        }
    }
}

/// Each fuzz target, or those that are named, for some time or so many runs, as many at once as
/// there are cores, from seeds of real objects and bundles.
pub(crate) fn fuzz(args: &[String]) -> bool {
    if !has_nightly() {
        return false;
    }
    let amount = args.first().map_or(SECONDS, String::as_str);
    let builds_only = amount == BUILD;
    let Some(amount) = Amount::of(if builds_only { SECONDS } else { amount }) else {
        eprintln!("xtask: `{amount}` is no number of seconds, nor of runs, as 1000x is");
        return false;
    };
    let named = args.get(1..).unwrap_or_default();
    let is_target = |name: &String| TARGETS.iter().any(|(target, _)| target == name);
    if let Some(name) = named.iter().find(|name| !is_target(name)) {
        eprintln!("xtask: there is no fuzz target `{name}`");
        return false;
    }
    if !succeeds(Command::new("cargo").args(["fuzz", "--version"])) {
        println!("xtask: installing cargo-fuzz");
        // It starts others; what it does itself takes no time.
        if !run(Command::new("cargo").args(["install", "--locked", "--debug", "cargo-fuzz"])) {
            return false;
        }
    }
    if builds_only {
        return build_targets(amount);
    }
    let Ok(seeds) = std::path::absolute("fuzz/seeds") else {
        return false;
    };
    // The whole workspace, so that the build of `cargo xtask test` serves.
    let mut write = Command::new(cargo());
    write.args([
        "test",
        "--workspace",
        "--test",
        "hostile",
        "seeds_are_written",
    ]);
    if !run(write.env("SVOD_TEST_WRITE_SEEDS", &seeds)) {
        return false;
    }
    if !build_targets(amount) {
        return false;
    }
    let is_wanted = |target: &str| named.is_empty() || named.iter().any(|name| name == target);
    let mut wanted = TARGETS.to_vec();
    wanted.retain(|(target, _)| is_wanted(target));
    // One on each core.
    let next = AtomicUsize::new(0);
    let work = || {
        let mut ok = true;
        while let Some((target, len)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            ok &= fuzz_target(target, *len, amount, &seeds);
        }
        ok
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let each = threads.into_iter().map(|t| t.join().unwrap_or(false));
        // Each is waited for, whatever another found.
        each.fold(true, |all, ok| all & ok)
    })
}

fn build_targets(amount: Amount<'_>) -> bool {
    let mut build = Command::new("cargo");
    build.args(["+nightly", "fuzz", "build"]);
    run(build.args(amount.build()))
}

fn fuzz_target(target: &str, len: u32, amount: Amount<'_>, seeds: &Path) -> bool {
    match amount {
        Amount::Time(seconds) => println!("xtask: fuzzing {target} for {seconds} s"),
        Amount::Runs(runs) => println!("xtask: fuzzing {target}, {runs} runs"),
    }
    let corpus = Path::new("fuzz/corpus").join(target);
    if let Err(error) = std::fs::create_dir_all(&corpus) {
        eprintln!("xtask: cannot make {}: {error}", corpus.display());
        return false;
    }
    let mut fuzz = Command::new("cargo");
    fuzz.args(["+nightly", "fuzz", "run"]);
    fuzz.args(amount.build()).arg(target);
    fuzz.arg(corpus).arg(seeds.join(target)).arg("--");
    match amount {
        Amount::Time(seconds) => fuzz.arg(format!("-max_total_time={seconds}")),
        Amount::Runs(runs) => {
            fuzz.args([format!("-runs={runs}"), format!("-max_len={len}")]);
            // Which input is rare, and how often each edge was passed, takes as long to know as to
            // run one.
            fuzz.args(["-entropic=0", "-use_counters=0"])
        }
    };
    // An input that takes ten seconds, or two GiB, is a finding.
    fuzz.args([
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        "-print_funcs=0",
    ]);
    fuzz.env("ASAN_OPTIONS", "allocator_may_return_null=1");
    let output = match fuzz.output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("xtask: cannot start cargo fuzz: {error}");
            return false;
        }
    };
    // What a fuzzer says on its way fills pages; only a finding makes them worth reading.
    let said = String::from_utf8_lossy(&output.stderr);
    let ok = output.status.success();
    let outcome = if ok { "nothing found" } else { "failed" };
    let lines = said.lines().filter(|l| !ok || l.starts_with("stat::"));
    // At once, since another target may have something to say.
    let lines: String = lines.map(|line| format!("  {line}\n")).collect();
    print!("xtask: {target}: {outcome}\n{lines}");
    ok
}

/// All of the runtime at once, for so many seconds.
pub(crate) fn soak(args: &[String]) -> bool {
    let seconds = args.first().map_or(SOAK_SECONDS, String::as_str);
    if !seconds.bytes().all(|b| b.is_ascii_digit()) {
        eprintln!("xtask: `{seconds}` is no number of seconds");
        return false;
    }
    let mut soak = Command::new(cargo());
    soak.args([
        "test",
        "-p",
        "svod-runtime",
        "--test",
        "soak",
        "--",
        seconds,
    ]);
    run(&mut soak)
}
