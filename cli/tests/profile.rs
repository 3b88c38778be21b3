//! `svod profile` as a process: what it says of a bundle's runs, and in which form.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod svod;

use std::fs;

use serde_json::Value;
use svod::svod;

const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits");

/// What it prints, where the machine is not measured and little is run.
fn profile(args: &[&str]) -> String {
    let mut all = vec!["profile", DIGITS, "--no-peaks", "--runs", "5"];
    all.extend(args);
    svod(&all).succeeds()
}

#[test]
fn every_kernel_has_a_row_with_its_share() {
    let text = profile(&["--threads", "1"]);
    for kernel in ["conv1", "conv2_pool", "dense", "softmax"] {
        assert!(text.lines().any(|line| line.starts_with(kernel)), "{text}");
    }
    assert!(
        text.contains("a run: ") && text.contains("of 5 runs"),
        "{text}"
    );
    assert!(text.contains("the runtime takes "), "{text}");
    // Counted, or why not.
    assert!(text.contains("counted"), "{text}");
}

#[test]
fn json_has_the_keys_of_its_schema() {
    let json: Value = serde_json::from_str(&profile(&["--json", "--threads", "2"])).unwrap();
    assert_eq!(json["schema"], "svod.profile.1");
    assert_eq!(
        (&json["plan"], &json["runs"]),
        (&"digits".into(), &5.into())
    );
    let keys = |value: &Value| {
        let keys = value.as_object().unwrap().keys();
        keys.cloned().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(keys(&json["run_ns"]), "lower max median min upper");
    assert_eq!(
        keys(&json["totals"]),
        "balance critical_path_ns launches overhead_ns waits_ns work_ns"
    );
    assert_eq!(json["pool_threads"], 2);
    assert_eq!(
        keys(&json["threads"][0]),
        "blank_ns busy_ns runs spans waits_ns"
    );
    assert_eq!(
        keys(&json["kernels"][0]),
        "bound bytes flops kernel name of_peak ops share spread threads work_ns"
    );
    assert_eq!(
        keys(&json["ops"][0]),
        "arithmetic_ns bytes critical flops kernel memory_ns name op runs threads wave work_ns"
    );
    assert_eq!(json["ops"].as_array().unwrap().len(), 4);
    assert!(json["machine"].is_null());
}

#[test]
fn a_trace_is_a_file_of_events() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trace.json");
    let text = profile(&["--threads", "1", "--trace", file.to_str().unwrap()]);
    assert!(text.contains("ui.perfetto.dev"), "{text}");
    let json: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let events = json["traceEvents"].as_array().unwrap();
    let of = |phase: &str| events.iter().filter(|e| e["ph"] == phase).count();
    assert_eq!((of("X"), of("s"), of("f")), (4, 3, 3));
}

#[test]
fn what_cannot_be_is_an_error_that_names_it() {
    let nowhere = [
        "profile",
        DIGITS,
        "--no-peaks",
        "--runs",
        "1",
        "--trace",
        "/nowhere/trace",
    ];
    let (_, stderr) = svod(&nowhere).ends_with(1);
    assert!(stderr.contains("/nowhere/trace"), "{stderr}");
    let (_, stderr) = svod(&["profile", DIGITS, "--test", "99"]).ends_with(2);
    assert!(stderr.contains("there is no test 99"), "{stderr}");
    let (_, stderr) = svod(&["profile", "/nowhere"]).ends_with(1);
    assert!(stderr.contains("/nowhere"), "{stderr}");
    let (_, stderr) = svod(&["profile", DIGITS, "--measure", "--no-peaks"]).ends_with(2);
    assert!(stderr.contains("--no-peaks"), "{stderr}");
}
