//! The command as a process: how many threads runs have, and which schedule.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod svod;

use serde_json::Value;
use svod::{Svod, svod};

const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits");

fn json(svod: Svod) -> Value {
    serde_json::from_str(&svod.succeeds()).unwrap()
}

#[test]
fn the_outputs_are_the_same_on_any_number_of_threads() {
    let outputs = |threads: &str| {
        let args = ["run", DIGITS, "--json", "--repeat", "20"];
        let value = json(svod(&[&args[..], &["--threads", threads]].concat()));
        assert_eq!(value["threads"].to_string(), threads);
        let runs = value["runs"].as_array().unwrap().clone();
        runs.into_iter()
            .map(|mut run| run["outputs"].take())
            .collect::<Vec<_>>()
    };
    let alone = outputs("1");
    assert_eq!(alone.len(), 8);
    for threads in ["2", "16"] {
        assert_eq!(outputs(threads), alone, "{threads} threads");
    }
}

#[test]
fn the_summary_says_how_many_threads_there_are_where_there_are_several() {
    let first = |args: &[&str]| {
        let out = svod(&[&["run", DIGITS], args].concat()).succeeds();
        out.lines().next().unwrap().to_owned()
    };
    let line = first(&["--threads", "3"]);
    assert!(line.ends_with(", runs on up to 3 threads"), "{line}");
    let line = first(&["--threads", "1"]);
    assert!(!line.contains("thread"), "{line}");
    // The order in which a guarded run finds things is the plan's.
    let line = first(&["--threads", "3", "--guard", "end"]);
    assert!(line.ends_with("guarded at their end"), "{line}");
    let guarded = svod(&["run", DIGITS, "--json", "--threads", "3", "--guard=end"]);
    assert_eq!(json(guarded)["threads"], 1);
}

#[test]
fn the_environment_says_it_where_the_option_does_not() {
    let threads = |args: &[&str], value: &str| {
        let args = [&["run", DIGITS, "--json"], args].concat();
        json(svod(&args).env("SVOD_THREADS", value))["threads"].clone()
    };
    assert_eq!(threads(&[], "5"), 5);
    assert_eq!(threads(&["--threads", "2"], "5"), 2);
    assert_eq!(threads(&["--threads", "2"], "many"), 2);
    let (_, err) = svod(&["run", DIGITS])
        .env("SVOD_THREADS", "many")
        .ends_with(1);
    assert!(
        err.contains("SVOD_THREADS") && err.contains("`many`"),
        "{err}"
    );
}

#[test]
fn no_run_has_none_or_a_hundred_thousand() {
    for threads in ["0", "4097", "100000", "-1", "two", ""] {
        let option = format!("--threads={threads}");
        let (_, err) = svod(&["run", DIGITS, &option]).ends_with(2);
        assert!(err.contains("--threads"), "{threads}: {err}");
    }
}
