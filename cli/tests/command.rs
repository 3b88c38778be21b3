//! The command as a process: what it prints, where, and how it ends.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod digits;
mod svod;

use std::fs;
use std::path::{Path, PathBuf};

use digits::{DIGITS, copy, sources};
use svod::svod;

fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from} is not in {}", file.display());
    fs::write(file, text.replace(from, to)).unwrap();
}

/// Makes the last element of a recorded output a large number.
fn spoil(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] = 0x42;
    fs::write(file, bytes).unwrap();
}

fn images() -> String {
    format!("images={DIGITS}/tests/3/images.npy")
}

#[test]
fn a_newcomer_sees_digits_and_the_accuracy() {
    let out = svod(&["run", DIGITS]).env("LC_ALL", "C.UTF-8").succeeds();
    assert!(out.contains("4 kernels ready"), "{out}");
    assert!(out.contains('█'), "{out}");
    let line = out.lines().find(|l| l.contains("images right")).unwrap();
    let percent = line.rsplit_once(": ").unwrap().1.trim_end_matches(" %");
    assert!(line.contains("of 360"), "{line}");
    assert!(percent.parse::<f64>().unwrap() >= 97.0, "{line}");
}

#[test]
fn pictures_are_ascii_where_the_locale_is() {
    let out = svod(&["run", DIGITS]).env("LC_ALL", "C").succeeds();
    assert!(!out.contains('█') && out.contains('@'), "{out}");
}

#[test]
fn check_prints_a_row_a_test_and_passes() {
    let out = svod(&["run", DIGITS, "--check"]).succeeds();
    let rows = out.lines().filter(|l| l.starts_with("test ")).count();
    assert_eq!(rows, 8, "{out}");
    assert!(
        out.contains("8 of 8 tests the same within tolerance"),
        "{out}"
    );
}

#[test]
fn a_difference_is_shown_and_fails_the_command() {
    let dir = copy();
    spoil(&dir.path().join("tests/5/scores.npy"));
    let bundle = dir.path().to_str().unwrap();
    let (out, _) = svod(&["run", bundle, "--check"]).ends_with(1);
    assert!(out.contains("7 of 8 tests"), "{out}");
    let row = out.lines().find(|l| l.starts_with("test 5")).unwrap();
    assert!(row.contains("DIFFERS") && row.contains("scores"), "{row}");
    // Without being asked to compare, the command says nothing of it.
    svod(&["run", bundle]).succeeds();
}

#[test]
fn exact_finds_what_a_tolerance_forgives() {
    let dir = copy();
    let bundle = dir.path().to_str().unwrap();
    // What this machine computes, recorded on this machine, is the same to the bit.
    let results = tempfile::tempdir().unwrap();
    let results_dir = results.path().to_str().unwrap();
    svod(&["run", bundle, "--output", results_dir]).succeeds();
    for test in 0..8 {
        let recorded = dir.path().join(format!("tests/{test}/scores.npy"));
        fs::copy(results.path().join(format!("{test}/scores.npy")), recorded).unwrap();
    }
    svod(&["run", bundle, "--exact"]).succeeds();
    // The lowest bit of one element.
    let file = dir.path().join("tests/2/scores.npy");
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.len() - 4;
    bytes[at] ^= 1;
    fs::write(&file, bytes).unwrap();
    svod(&["run", bundle, "--check"]).succeeds();
    let (out, _) = svod(&["run", bundle, "--exact"]).ends_with(1);
    assert!(out.contains("1 with other bits"), "{out}");
}

#[test]
fn given_inputs_are_classified_and_outputs_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("new/folder");
    let args = ["run", DIGITS, "--input", &images(), "--repeat", "3"];
    let mut svod = svod(&args);
    svod.0.arg("--output").arg(&output);
    let out = svod.succeeds();
    assert!(out.contains("scores  f32 [45, 10]"), "{out}");
    assert!(out.contains("median of 3 runs"), "{out}");
    let written = fs::read(output.join("scores.npy")).unwrap();
    let recorded = fs::read(format!("{DIGITS}/tests/3/scores.npy")).unwrap();
    assert_eq!(written.len(), recorded.len());
    // The header is the one that NumPy wrote.
    assert_eq!(written[..128], recorded[..128]);
}

#[test]
fn json_is_one_object_that_says_it_all() {
    let out = svod(&["run", DIGITS, "--json", "--check"]).succeeds();
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["ok"], true);
    assert_eq!(json["runs"].as_array().unwrap().len(), 8);
    assert_eq!(json["runs"][0]["compared"][0]["within"], true);
    assert_eq!(json["runs"][0]["outputs"][0]["shape"][1], 10);
    assert_eq!(json["accuracy"]["of"], 360);
    let out = svod(&["inspect", DIGITS, "--json"]).succeeds();
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["kernels"].as_array().unwrap().len(), 4);
    assert_eq!(json["order"]["waves"], serde_json::json!([1, 1, 1, 1]));
    let arena = |key: &str| json["arena"][key].as_u64().unwrap();
    assert!(arena("lower_bound") <= arena("bytes"), "{out}");
    assert!(arena("bytes") <= arena("unplanned"), "{out}");
}

#[test]
fn inspect_shows_what_is_in_it() {
    // It needs no compiler.
    let out = svod(&["inspect", DIGITS]).env("PATH", "").succeeds();
    for word in [
        "conv1", "softmax", "constant", "images", "scores", "[45, 10]", "needed", "arena",
        "4 waves",
    ] {
        assert!(out.contains(word), "{word}: {out}");
    }
    let out = svod(&["inspect", DIGITS, "--explain", "1"]).succeeds();
    assert!(
        out.contains("waits for ops[0] (launch of `conv1`)"),
        "{out}"
    );
    assert!(!out.contains("no op before it writes"), "{out}");
    let (_, err) = svod(&["inspect", DIGITS, "--explain", "9"]).ends_with(2);
    assert!(err.contains("there is no 9"), "{err}");
}

#[test]
fn inspect_names_what_reads_scratch_that_nobody_wrote() {
    let dir = copy();
    // Without the first op, what it writes is never written.
    let plan = dir.path().join("plan.json");
    let mut json: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&plan).unwrap()).unwrap();
    let ops = json["ops"].as_array_mut().unwrap();
    ops.remove(0);
    fs::write(&plan, json.to_string()).unwrap();
    let out = svod(&["inspect", dir.path().to_str().unwrap()]).succeeds();
    assert!(
        out.contains("ops[0] (launch of `conv2_pool`) reads bytes 0 to"),
        "{out}"
    );
    assert!(
        out.contains("temp `maps`, which no op before it writes"),
        "{out}"
    );
}

#[test]
fn timings_are_a_row_for_each_op_the_most_costly_first() {
    let out = svod(&["run", DIGITS, "--timings", "--check"]).succeeds();
    let (_, table) = out.split_once("what each op took, over 8 runs").unwrap();
    let ops = |out: &str| {
        let rows = out.lines().filter(|l| l.contains("launch of"));
        let shares = rows.map(|l| {
            let (rest, _) = l.rsplit_once(" %").unwrap();
            rest.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
        });
        shares.collect::<Vec<_>>()
    };
    let shares = ops(table);
    assert_eq!(shares.len(), 4, "{table}");
    assert!(shares.is_sorted_by(|a, b| a >= b), "{table}");
    let out = svod(&["run", DIGITS, "--timings", "--json"]).succeeds();
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    let first = &json["ops"][0];
    assert_eq!(first["what"], "launch of `conv1`");
    assert_eq!(first["runs"], 8);
    assert!(first["min_us"].as_f64() <= first["mean_us"].as_f64());
}

#[test]
fn a_cap_on_memory_is_kept() {
    svod(&["run", DIGITS, "--memory-cap", "10000000"]).succeeds();
    let (_, err) = svod(&["run", DIGITS, "--memory-cap", "1000"]).ends_with(1);
    assert!(err.contains("may take 1000"), "{err}");
}

#[test]
fn bad_usage_ends_with_2_and_says_what_to_do() {
    let needs = |args: &[&str], words: &[&str]| {
        let (out, err) = svod(args).ends_with(2);
        assert_eq!(out, "");
        for word in words {
            assert!(err.contains(word), "{args:?} lacks {word}: {err}");
        }
    };
    needs(&[], &["Usage", "run", "inspect"]);
    needs(&["fly"], &["fly"]);
    needs(&["run"], &["BUNDLE"]);
    needs(&["run", DIGITS, "--input", "images"], &["NAME=FILE.npy"]);
    needs(&["run", DIGITS, "--var", "n=x"], &["integer"]);
    needs(&["run", DIGITS, "--repeat", "0"], &["repeat"]);
    needs(
        &["run", DIGITS, "--check", "--input", &images()],
        &["--check", "--input"],
    );
    needs(
        &["run", DIGITS, "--input", "pictures=x.npy"],
        &["`pictures`", "images"],
    );
    needs(
        &["run", DIGITS, "--var", "n=1", "--input", &images()],
        &["`n`", "no variables"],
    );
    needs(
        &["run", DIGITS, "--input", &images(), "--input", &images()],
        &["twice"],
    );
}

#[test]
fn a_bundle_without_tests_says_what_to_give() {
    let dir = copy();
    let plan = dir.path().join("plan.json");
    let text = fs::read_to_string(&plan).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["tests"] = serde_json::json!([]);
    fs::write(&plan, json.to_string()).unwrap();
    let bundle = dir.path().to_str().unwrap();
    let (_, err) = svod(&["run", bundle]).ends_with(2);
    assert!(
        err.contains("--input images=FILE.npy   f32 [45, 8, 8]"),
        "{err}"
    );
    let (_, err) = svod(&["run", bundle, "--check"]).ends_with(2);
    assert!(err.contains("no recorded tests"), "{err}");
    svod(&["run", bundle, "--input", &images()]).succeeds();
}

#[test]
fn failures_end_with_1_and_show_their_causes_on_standard_error() {
    let fails = |args: &[&str], words: &[&str]| {
        let (out, err) = svod(args).ends_with(1);
        assert_eq!(out, "");
        for word in ["error:", "caused by:"].iter().chain(words) {
            assert!(err.contains(word), "{args:?} lacks {word}: {err}");
        }
    };
    fails(
        &["run", "no/such/bundle"],
        &["no/such/bundle", "No such file"],
    );
    let file = format!("{DIGITS}/plan.json");
    fails(&["inspect", &file], &["is no folder"]);
    fails(
        &["run", DIGITS, "--input", "images=no/such.npy"],
        &["no/such.npy", "No such file"],
    );

    let scores = format!("{DIGITS}/tests/3/scores.npy");
    let (_, err) = svod(&["run", DIGITS, "--input", &format!("images={scores}")]).ends_with(1);
    for word in [scores.as_str(), "[45, 10]", "[45, 8, 8]"] {
        assert!(err.contains(word), "{word}: {err}");
    }

    let dir = copy();
    let bundle = dir.path().to_str().unwrap();
    edit(&dir.path().join("kernels/dense.c"), "void", "int int");
    fails(&["run", bundle], &["kernel `dense`", "dense.c:", "error:"]);

    let dir = copy();
    let bundle = dir.path().to_str().unwrap();
    fs::remove_file(dir.path().join("weights.safetensors")).unwrap();
    fails(&["run", bundle], &["buffers[", "weights.safetensors"]);
}

#[test]
fn a_missing_compiler_is_an_error_that_says_what_to_install() {
    let empty = tempfile::tempdir().unwrap();
    let (_, err) = svod(&["run", sources()])
        .env("PATH", empty.path())
        .ends_with(1);
    for word in [
        "clang",
        "gcc",
        "cc",
        "apt-get install",
        empty.path().to_str().unwrap(),
    ] {
        assert!(err.contains(word), "{word}: {err}");
    }
    let (_, err) = svod(&["run", sources()])
        .env("SVOD_CC", "/no/such/cc")
        .ends_with(1);
    assert!(err.contains("/no/such/cc"), "{err}");
}

#[test]
fn outputs_that_cannot_be_written_are_an_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path: PathBuf = file.path().join("below");
    let mut svod = svod(&["run", DIGITS, "--input", &images()]);
    svod.0.arg("--output").arg(path);
    let (_, err) = svod.ends_with(1);
    assert!(err.contains("make the folder"), "{err}");
}

#[test]
fn a_full_output_is_an_error_and_a_closed_one_is_not() {
    use std::process::Stdio;
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = svod(&["inspect", DIGITS]).0;
    let output = command
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.contains("cannot write the output"), "{err}");

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = svod(&["inspect", DIGITS]).0;
    let output = command
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");

    // What was asked is done all the same, and the status says how it went.
    let dir = copy();
    spoil(&dir.path().join("tests/7/scores.npy"));
    let results = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = svod(&["run", dir.path().to_str().unwrap(), "--check"]).0;
    command.arg("--output").arg(results.path()).stdout(writer);
    assert_eq!(command.status().unwrap().code(), Some(1));
    assert!(results.path().join("7/scores.npy").exists());

    // Nor is a full standard error a reason to panic.
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = svod(&["run", "no/such/bundle"]).0;
    assert_eq!(command.stderr(full).status().unwrap().code(), Some(1));
}

#[test]
fn what_a_bundle_says_does_nothing_to_the_terminal() {
    let dir = copy();
    edit(
        &dir.path().join("plan.json"),
        r#""name": "digits""#,
        r#""name": "\u001b]0;title\u0007\u009b""#,
    );
    let bundle = dir.path().to_str().unwrap();
    for command in ["inspect", "run"] {
        let out = svod(&[command, bundle]).succeeds();
        assert!(!out.contains('\x1b') && !out.contains('\x07'), "{out:?}");
        assert!(out.contains(r"\u{1b}]0;title\u{7}\u{9b}"), "{out}");
        let out = svod(&[command, bundle, "--json"]).succeeds();
        assert!(!out.contains(['\x1b', '\u{9b}']), "{out:?}");
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(json["name"], "\u{1b}]0;title\u{7}\u{9b}");
    }
}

#[test]
fn there_is_no_colour_and_no_bar_where_there_is_no_terminal() {
    let (out, err) = svod(&["run", DIGITS, "--check"]).ends_with(0);
    assert!(!out.contains('\x1b') && !err.contains('\x1b'));
    let forced = svod(&["run", DIGITS, "--check"]).env("CLICOLOR_FORCE", "1");
    assert!(forced.ends_with(0).0.contains('\x1b'));
    let refused = svod(&["run", DIGITS, "--check"])
        .env("CLICOLOR_FORCE", "1")
        .env("NO_COLOR", "1");
    assert!(!refused.ends_with(0).0.contains('\x1b'));
}

#[test]
fn help_names_every_option() {
    let out = svod(&["run", "--help"]).succeeds();
    for option in [
        "--input", "--var", "--output", "--repeat", "--check", "--exact", "--fill", "--guard",
        "--json",
    ] {
        assert!(out.contains(option), "{option}: {out}");
    }
    let out = svod(&["--help"]).succeeds();
    for word in [
        "SVOD_CC",
        "SVOD_GUARD",
        "SVOD_PERF_MAP",
        "SVOD_GDB",
        "NO_COLOR",
        "Exit status",
        "svod run examples/digits",
    ] {
        assert!(out.contains(word), "{word}: {out}");
    }
}

#[test]
fn perf_and_gdb_are_told_of_kernels_where_a_variable_asks_for_it() {
    let map_of = |value: &str| {
        // With guards, kernels would run in another process.
        let unguarded = svod(&["run", DIGITS]).env("SVOD_GUARD", "off");
        let mut command = unguarded.env("SVOD_PERF_MAP", value).0;
        let mut run = command.stdout(std::process::Stdio::null()).spawn().unwrap();
        assert!(run.wait().unwrap().success());
        let path = format!("/tmp/perf-{}.map", run.id());
        let map = fs::read_to_string(&path);
        let _ = fs::remove_file(path);
        map.ok()
    };
    let map = map_of("1").unwrap();
    for kernel in ["conv1", "conv2_pool", "dense", "softmax"] {
        assert!(map.contains(&format!(" svod:{kernel}\n")), "{map}");
    }
    assert_eq!(map_of("0"), None);
    svod(&["run", DIGITS]).env("SVOD_GDB", "1").succeeds();
    for name in ["SVOD_PERF_MAP", "SVOD_GDB"] {
        let (_, err) = svod(&["run", DIGITS]).env(name, "yes").ends_with(1);
        for word in [name, "`yes`", "1 or 0"] {
            assert!(err.contains(word), "{err}");
        }
    }
}
