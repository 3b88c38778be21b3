//! `cargo xtask test`: the tests with memory guarded in each way.

use std::collections::BTreeSet;
use std::fs::DirEntry;
use std::io;
use std::process::Command;
use std::time::Instant;

use crate::{cargo, run};

const WAYS: [(&str, &str); 3] = [
    ("off", "without guards"),
    ("end", "with inaccessible pages past the end of buffers"),
    (
        "start",
        "with inaccessible pages before the start of buffers",
    ),
];

/// The test crates of the runtime in which `SVOD_GUARD` changes nothing, and why.
const UNGUARDED: [(&str, &str); 13] = [
    ("batch", "what is merged is compared in plain buffers"),
    ("cache", "files and processes; no kernel is called"),
    (
        "corpus",
        "buffers are guarded in both ways, whatever is said",
    ),
    (
        "confine",
        "rights of processes; what is called has guards of its own",
    ),
    (
        "confined",
        "arguments have guards of their own, whatever is said",
    ),
    ("disassembly", "code is listed; no kernel is called"),
    ("hostile", "damage is read, and what is whole is not called"),
    ("llvm", "what is compiled is called with plain buffers"),
    ("mlir", "what is compiled is called with plain buffers"),
    (
        "sandbox",
        "arguments have guards of their own, whatever is said",
    ),
    ("soak", "what grows is looked for, in plain buffers"),
    ("team", "threads; host functions alone, on plain buffers"),
    (
        "zoo",
        "arguments have guards of their own, whatever is said",
    ),
];

/// Slow tests of other crates that no buffer is in.
const WITHOUT_BUFFERS: [&str; 2] = ["does_no_harm", "do_no_harm"];

/// Runs the tests that `args` name in each way, until one fails; where they name none, all
/// of the workspace, and with guards those that guards are for. Where all that tests need
/// is there, a test that skips itself fails.
pub(crate) fn test(args: &[String], all_there: bool) -> bool {
    WAYS.into_iter().all(|(guard, what)| {
        println!("xtask: the tests {what} (SVOD_GUARD={guard})");
        let start = Instant::now();
        let runs = if guard == "off" || !args.is_empty() {
            vec![args.to_vec()]
        } else {
            match guarded() {
                Ok(runs) => runs,
                Err(error) => {
                    eprintln!("xtask: cannot list the tests: {error}");
                    return false;
                }
            }
        };
        let ok = runs.iter().all(|args| run_in(guard, args, all_there));
        let seconds = start.elapsed().as_secs_f64();
        let outcome = if ok { "passed" } else { "failed" };
        println!("xtask: the tests {what} {outcome} in {seconds:.1} s");
        ok
    })
}

/// `cargo test` in one way.
fn run_in(guard: &str, args: &[String], all_there: bool) -> bool {
    let mut test = Command::new(cargo());
    test.args(["test", "--workspace"]).args(args);
    test.env("SVOD_GUARD", guard);
    // What one way compiles, the next has.
    let cache = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/svod-cache");
    test.env("SVOD_CACHE_DIR", cache);
    if all_there {
        test.env("SVOD_TEST_NO_SKIP", "1");
    }
    run(&mut test)
}

/// The arguments of `cargo test` for the tests that guards are for. Those beside the code
/// ask for guards themselves where they want them.
fn guarded() -> io::Result<Vec<Vec<String>>> {
    let mut crates = test_crates("runtime/tests")?;
    crates.retain(|name| UNGUARDED.iter().all(|(unguarded, _)| name != unguarded));
    crates.append(&mut test_crates("cli/tests")?);
    let crates = crates.iter().flat_map(|name| ["--test", name]);
    let skipped = WITHOUT_BUFFERS.iter().flat_map(|name| ["--skip", name]);
    let crates = crates.chain(["--"]).chain(skipped);
    let docs = vec!["--doc".to_owned()];
    Ok(vec![crates.map(str::to_owned).collect(), docs])
}

/// The test crates of a folder: its files, and its folders with a `main.rs`.
fn test_crates(folder: &str) -> io::Result<BTreeSet<String>> {
    let name = |entry: DirEntry| {
        let path = entry.path();
        let is_crate = path.extension().is_some_and(|e| e == "rs") || path.join("main.rs").exists();
        let name = path.file_stem()?.to_str()?.to_owned();
        is_crate.then_some(name)
    };
    let entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    Ok(entries.into_iter().filter_map(name).collect())
}
