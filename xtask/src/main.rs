//! Chores of this repository: `cargo xtask test`.

mod hostile;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

const USAGE: &str = "\
Usage: cargo xtask test [ARGUMENTS OF cargo test]
       cargo xtask asan [ARGUMENTS OF cargo test]
       cargo xtask fuzz [SECONDS]

  test   installs what the tests need, where it can, says what it did, and runs
         every test of the workspace three times: with buffers as they are, and
         with each before and behind an inaccessible page
  asan   runs the tests of damaged input, or those that are named, under
         AddressSanitizer; needs a nightly toolchain
  fuzz   fuzzes each target for so many seconds, 60 if left out; needs a nightly
         toolchain, and installs cargo-fuzz";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("test") => {
            install_clang();
            status(test_each_way(&args.collect::<Vec<_>>()))
        }
        Some("asan") => status(hostile::asan(args.collect())),
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

/// Runs the tests with memory guarded in each way, until one fails.
fn test_each_way(args: &[String]) -> bool {
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
        let ok = run(Command::new(cargo())
            .args(["test", "--workspace"])
            .args(args)
            .env("SVOD_GUARD", guard));
        let seconds = start.elapsed().as_secs_f64();
        let outcome = if ok { "passed" } else { "failed" };
        println!("xtask: the tests {what} {outcome} in {seconds:.1} s");
        ok
    })
}

fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

/// Tests compile kernels with every C compiler that they find. A C compiler is
/// there, or nothing of this would have been built; clang is what most captured
/// kernels need, and Debian has it by name.
fn install_clang() {
    if let Some(found) = find_clang() {
        println!("xtask: {found} is there; nothing to install");
        return;
    }
    let without = "the tests run without it, and skip what only clang compiles";
    if !Path::new("/usr/bin/apt-get").exists() {
        println!("xtask: there is no clang, and no apt-get to install it with; {without}");
        return;
    }
    let root = output("id", &["-u"]).is_some_and(|id| id.trim() == "0");
    let sudo = !root && output("sudo", &["-n", "true"]).is_some();
    if !root && !sudo {
        println!("xtask: there is no clang, and no right to install it; {without}");
        println!("xtask: to install it: sudo apt-get install clang-19");
        return;
    }
    for package in ["clang-19", "clang"] {
        println!("xtask: installing {package} with apt-get");
        let apt = |args: &[&str]| {
            let mut command = if sudo {
                let mut command = Command::new("sudo");
                command.args(["-n", "apt-get"]);
                command
            } else {
                Command::new("apt-get")
            };
            run(command.args(args).env("DEBIAN_FRONTEND", "noninteractive"))
        };
        let install = ["install", "-y", "-qq", "--no-install-recommends", package];
        // The lists of a new machine may be missing or old.
        if apt(&["update", "-qq"]) && apt(&install) {
            println!("xtask: installed {package}");
            return;
        }
    }
    println!("xtask: clang could not be installed; {without}");
}

/// The name of a clang in `PATH`, numbered or plain.
fn find_clang() -> Option<String> {
    let path = std::env::var_os("PATH")?;
    for dir in std::env::split_paths(&path) {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            let version = name.strip_prefix("clang-");
            if name == "clang" || version.is_some_and(|v| v.parse::<u32>().is_ok()) {
                return Some(name);
            }
        }
    }
    None
}

fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
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
