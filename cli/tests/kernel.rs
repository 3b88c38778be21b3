//! `svod inspect BUNDLE KERNEL`

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod digits;
mod svod;

use digits::{DIGITS, copy, sources};
use serde_json::Value;
use svod::svod;

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&svod(args).succeeds()).unwrap()
}

#[test]
fn a_kernel_is_shown_with_its_signature_source_and_assembly() {
    // The bundle carries its object: no compiler is asked.
    let out = svod(&["inspect", DIGITS, "softmax"])
        .env("PATH", "")
        .succeeds();
    for words in [
        "softmax: kernel 3, launched by 1 op",
        "w  f32[450], aligned to 16 bytes",
        "i32 grid index, below 45",
        "carried by the bundle",
        "calls      expf",
        "source: C, ",
        "float expf(float);",
        "softmax:\n",
        "call expf\n",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
    // By its number, as the list of kernels shows it.
    let list = svod(&["inspect", DIGITS]).succeeds();
    assert!(list.contains("  3  softmax("), "{list}");
    assert_eq!(svod(&["inspect", DIGITS, "3"]).succeeds(), out);
}

#[test]
fn assembly_and_source_can_be_had_alone() {
    let asm = svod(&["inspect", DIGITS, "softmax", "--asm"]).succeeds();
    assert!(asm.starts_with("softmax:\n  "), "{asm}");
    assert!(
        asm.contains("\n  call expf\n") && !asm.contains("float"),
        "{asm}"
    );
    let source = svod(&["inspect", DIGITS, "softmax", "--source"]).succeeds();
    let file = std::fs::read_to_string(format!("{DIGITS}/kernels/softmax.c")).unwrap();
    assert_eq!(source, file);
}

#[test]
fn json_says_it_all() {
    let json = json(&["inspect", DIGITS, "softmax", "--json"]);
    assert_eq!(json["kernel"], 3);
    assert_eq!(json["entry"], "softmax");
    assert_eq!(json["launches"], 1);
    assert_eq!(json["language"], "C");
    assert_eq!(json["signature"]["convention"], "c");
    assert_eq!(json["signature"]["params"][0]["access"], "w");
    assert_eq!(json["signature"]["params"][2]["kind"], "index");
    assert_eq!(json["object"]["origin"], "bundle");
    assert_eq!(json["object"]["sections"][0]["rights"], "code");
    let entry = &json["functions"][0];
    assert_eq!(entry["name"], "softmax");
    assert_eq!(entry["usage"]["calls"][0], "expf");
    assert!(entry["usage"]["stack_bytes"].as_u64() > Some(0), "{entry}");
    let instructions = entry["instructions"].as_array().unwrap();
    let bytes: u64 = instructions
        .iter()
        .filter_map(|i| i["bytes"].as_u64())
        .sum();
    assert_eq!(Some(bytes), entry["bytes"].as_u64());
    assert!(instructions.iter().any(|i| i["target"] == "expf"));
}

#[test]
fn what_the_bundle_does_not_carry_is_compiled_as_it_is_asked_for() {
    let compiled = json(&[
        "inspect",
        DIGITS,
        "dense",
        "--recompile",
        "--json",
        "-O",
        "0",
    ]);
    assert_ne!(compiled["object"]["origin"], "bundle");
    let cache = tempfile::tempdir().unwrap();
    let ask = || {
        let asked = svod(&["inspect", sources(), "dense", "--json"]);
        let asked = asked
            .env("SVOD_CACHE_DIR", cache.path())
            .env("SVOD_CACHE", "on");
        serde_json::from_str::<Value>(&asked.succeeds()).unwrap()
    };
    assert_eq!(ask()["object"]["origin"], "compiled");
    assert_eq!(ask()["object"]["origin"], "cache");
    // Its vectors are as wide as the CPUs have them that it is asked for.
    let width = |level: &str| {
        let args = [
            "inspect",
            DIGITS,
            "dense",
            "--json",
            "--recompile",
            "--cpu",
            level,
        ];
        json(&args)["functions"][0]["usage"]["vector_bits"].clone()
    };
    if cfg!(target_arch = "x86_64") {
        assert_eq!(width("x86-64-v3"), 256);
        assert_eq!(width("x86-64-v2"), 128);
    }
}

#[test]
fn what_is_not_there_is_an_error_that_says_what_is() {
    let fails = |args: &[&str], words: &[&str]| {
        let (out, err) = svod(args).ends_with(2);
        assert_eq!(out, "");
        for word in words {
            assert!(err.contains(word), "{args:?} lacks {word}: {err}");
        }
    };
    fails(
        &["inspect", DIGITS, "sofmax"],
        &["`sofmax`", "near to it: `softmax`"],
    );
    fails(
        &["inspect", DIGITS, "4"],
        &["4 kernels, counted from 0", "some are"],
    );
    fails(&["inspect", DIGITS, "--asm"], &["KERNEL"]);
    fails(
        &["inspect", DIGITS, "softmax", "--schedule"],
        &["--schedule"],
    );
    fails(
        &["inspect", DIGITS, "softmax", "--asm", "--json"],
        &["--json"],
    );

    // Two kernels of one entry are told apart by their numbers.
    let dir = copy();
    let plan = dir.path().join("plan.json");
    let mut json: Value = serde_json::from_str(&std::fs::read_to_string(&plan).unwrap()).unwrap();
    let kernels = json["kernels"].as_array_mut().unwrap();
    kernels.push(kernels[3].clone());
    std::fs::write(&plan, json.to_string()).unwrap();
    let bundle = dir.path().to_str().unwrap();
    fails(&["inspect", bundle, "softmax"], &["2 kernels", "3, 4"]);
    svod(&["inspect", bundle, "4"]).succeeds();
}
