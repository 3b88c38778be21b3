//! Chores of this repository: `cargo xtask test`, and tests that need a nightly toolchain.

mod hostile;
mod install;

use std::process::{Command, ExitCode};
use std::time::Instant;

const USAGE: &str = "\
Usage: cargo xtask test [ARGUMENTS OF cargo test]
       cargo xtask asan [ARGUMENTS OF cargo test]
       cargo xtask tsan [ARGUMENTS OF cargo test]
       cargo xtask fuzz [SECONDS]

  test   installs what the tests need, where it can, says what it did, and runs
         every test of the workspace three times: with buffers as they are, and
         with each before and behind an inaccessible page
  asan   runs the tests of damaged input and of plans, or those that are named,
         under AddressSanitizer; needs a nightly toolchain
  tsan   runs the tests of plans on teams of threads, or those that are named,
         under ThreadSanitizer; needs a nightly toolchain
  fuzz   fuzzes each target for so many seconds, 60 if left out; needs a nightly
         toolchain, and installs cargo-fuzz";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("test") => {
            let all_there = install::install();
            status(test_each_way(&args.collect::<Vec<_>>(), all_there))
        }
        Some("asan") => status(hostile::asan(args.collect())),
        Some("tsan") => status(hostile::tsan(args.collect())),
        Some("fuzz") => status(hostile::fuzz(&args.collect::<Vec<_>>())),
        Some("help" | "--help" | "-h") => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

const fn status(ok: bool) -> ExitCode {
    if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs the tests with memory guarded in each way, until one fails. Where all that they
/// need is there, a test that skips itself fails.
fn test_each_way(args: &[String], all_there: bool) -> bool {
    let ways = [
        ("off", "without guards"),
        ("end", "with inaccessible pages past the end of buffers"),
        (
            "start",
            "with inaccessible pages before the start of buffers",
        ),
    ];
    ways.into_iter().all(|(guard, what)| {
        println!("xtask: the tests {what} (SVOD_GUARD={guard})");
        let start = Instant::now();
        let mut test = Command::new(cargo());
        test.args(["test", "--workspace"]).args(args);
        if guard != "off" {
            // Millions of interleavings, in which no buffer is.
            let is_split = args.iter().any(|arg| arg == "--");
            test.args((!is_split).then_some("--"));
            test.args(["--skip", "pool::model"]);
        }
        test.env("SVOD_GUARD", guard);
        // What one way compiles, the next has.
        let cache = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/svod-cache");
        test.env("SVOD_CACHE_DIR", cache);
        if all_there {
            test.env("SVOD_TEST_NO_SKIP", "1");
        }
        let ok = run(&mut test);
        let seconds = start.elapsed().as_secs_f64();
        let outcome = if ok { "passed" } else { "failed" };
        println!("xtask: the tests {what} {outcome} in {seconds:.1} s");
        ok
    })
}

fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

/// Whether a command can be run and ends well; what it says is not shown.
fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|o| o.status.success())
}

fn run(command: &mut Command) -> bool {
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            let program = command.get_program().to_string_lossy();
            eprintln!("xtask: cannot start {program}: {error}");
            false
        }
    }
}
