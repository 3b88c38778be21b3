//! Chores of this repository: `cargo xtask test`, and tests that need a nightly toolchain.

mod hostile;
mod install;
mod ways;

use std::process::{Command, ExitCode};

const USAGE: &str = "\
Usage: cargo xtask test [ARGUMENTS OF cargo test]
       cargo xtask asan [all|build|ARGUMENTS OF cargo test]
       cargo xtask tsan [build|ARGUMENTS OF cargo test]
       cargo xtask fuzz [SECONDS|RUNSx|build] [TARGET...]
       cargo xtask soak [SECONDS]

  test   installs what the tests need, where it can, says what it did, and runs
         every test of the workspace with buffers as they are, then twice those
         that buffers are in: with each buffer before and behind an inaccessible
         page. Tests that are named run in all three ways
  asan   runs the tests of damaged input and of plans, or those that are named,
         under AddressSanitizer; needs a nightly toolchain. `all` are those of
         the runtime but for two, which limit addresses or count system calls
  tsan   runs the tests of plans on teams of threads, or those that are named,
         under ThreadSanitizer; needs a nightly toolchain
  fuzz   fuzzes each target for so many seconds, 60 if left out; needs a nightly
         toolchain, and installs cargo-fuzz. With an x behind it, a number is one
         of runs (10000000x): without AddressSanitizer, and of shorter inputs, so
         that there are ten times as many a second
  soak   runs all of the runtime at once for so many seconds, 600 if left out, and
         looks whether memory, threads and open files grow

With `build`, asan, tsan and fuzz only build what they would run.";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("test") => {
            let all_there = install::install();
            status(ways::test(&args.collect::<Vec<_>>(), all_there))
        }
        Some("asan") => status(hostile::asan(args.collect())),
        Some("tsan") => status(hostile::tsan(args.collect())),
        Some("soak") => status(hostile::soak(&args.collect::<Vec<_>>())),
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
