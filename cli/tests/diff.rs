//! `svod diff` as a process: what it names, how it says it, and how it ends.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod digits;
#[path = "../../runtime/tests/support/mod.rs"]
mod support;
mod svod;

use std::fs;
use std::path::Path;

use digits::{copy, sources};
use serde_json::{Value, json};
use support::Files;
use svod::svod;

/// A bundle whose kernels are wrong where a flag says so: `half`, `twice` and `count`, of which
/// each reads what the one before has written.
fn switched() -> Files {
    let files = Files::with_kernels(
        json!({
            "name": "switched",
            "variables": {"n": {"min": 1, "max": 4}},
            "kernels": [
                {"entry": "half", "source": "kernels/half.c", "language": "c", "params": [
                    {"buffer": "f32", "len": 8, "access": "w"},
                    {"buffer": "f32", "len": 8, "access": "r"}]},
                {"entry": "twice", "source": "kernels/twice.c", "language": "c", "params": [
                    {"buffer": "f32", "len": 8, "access": "rw"}]},
                {"entry": "count", "source": "kernels/count.c", "language": "c", "returns": "status",
                 "params": [
                    {"buffer": "i32", "len": 1, "access": "rw"},
                    {"buffer": "f32", "len": 8, "access": "r"},
                    {"scalar": "i32", "name": "n", "min": 1, "max": 4}]},
            ],
            "buffers": [
                {"name": "x", "role": "input", "dtype": "f32", "shape": [2, 4]},
                {"name": "y", "role": "output", "dtype": "f32", "shape": [2, 4]},
                {"name": "c", "role": "state", "dtype": "i32", "shape": [1]},
            ],
            "ops": [
                {"launch": 0, "args": [1, 0]},
                {"launch": 1, "args": [1]},
                {"launch": 2, "args": [2, 1], "scalars": {"n": {"var": "n"}}},
            ],
            "outputs": [
                {"name": "y", "buffer": 1, "dtype": "f32", "shape": [2, 4]},
                {"name": "c", "buffer": 2, "dtype": "i32", "shape": [1]},
            ],
            "tests": [
                {"variables": {"n": 1}, "inputs": {"x": "x.npy"}, "outputs": {"y": "x.npy"}},
                {"variables": {"n": 2}, "inputs": {"x": "x.npy"}, "outputs": {}},
            ],
        }),
        &[
            (
                "half",
                "void half(float *y, const float *x) {
                    for (int i = 0; i < 8; i++) y[i] = x[i] / 2;
                #ifdef HALF
                    HALF;
                #endif
                }",
            ),
            (
                "twice",
                "void twice(float *y) {
                    for (int i = 0; i < 8; i++) y[i] *= 2;
                #ifdef TWICE
                    TWICE;
                #endif
                }",
            ),
            (
                "count",
                "int count(int *c, const float *y, int n) {
                    for (int i = 0; i < 8; i++) *c += n * (int)y[i];
                #ifdef COUNT
                    COUNT;
                #endif
                    return 0;
                }",
            ),
        ],
    );
    files.npy(
        "x.npy",
        &[2, 4],
        &[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
    );
    files.text("plan.json", &files.plan.to_string());
    files
}

fn path(files: &Files) -> &str {
    files.path().to_str().unwrap()
}

/// What `--json` says, and how it ends.
fn diff(args: &[&str], status: i32) -> Value {
    let (out, err) = svod(&[&["diff", "--json"][..], args].concat()).ends_with(status);
    assert_eq!(err, "");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn what_is_the_same_ends_well() {
    let out = svod(&["diff", sources(), "--left", "-O3", "--right", "tier=quick"]).succeeds();
    assert!(out.contains(" -O3  4 kernels ready"), "{out}");
    assert!(out.contains("4 ops from the same bytes"), "{out}");
    assert!(
        out.contains("no op differs\nthe outputs of whole runs are the same"),
        "{out}"
    );

    let json = diff(&[sources(), "--right", "-O0", "--test", "2", "--all"], 0);
    assert_eq!(json["same"], true);
    assert_eq!(json["first"], Value::Null);
    assert_eq!(json["op_by_op"], true);
    assert_eq!(json["right"]["side"], "-O0");
    assert_eq!(json["left"]["side"], Value::Null);
    let runs = json["runs"].as_array().unwrap();
    assert_eq!((runs.len(), &runs[0]["test"]), (1, &json!(2)));
    let all = runs[0]["all"].as_array().unwrap();
    let kernels: Vec<_> = all
        .iter()
        .map(|op| op["kernel"].as_str().unwrap())
        .collect();
    assert_eq!(kernels, ["conv1", "conv2_pool", "dense", "softmax"]);
    assert!(
        all.iter()
            .all(|op| ["same", "within"].contains(&op["verdict"].as_str().unwrap()))
    );
}

#[test]
fn the_wrong_op_is_named_with_where_and_by_how_much() {
    let files = switched();
    let args = ["diff", path(&files), "--right", "-DHALF=y[5]+=1"];
    let (out, err) = svod(&args).ends_with(1);
    assert_eq!(err, "");
    for words in [
        "test 0 (n = 1)",
        "3 ops from the same bytes: 2 the same bit for bit, 0 within tolerance, 1 DIFFER",
        "ops[0] DIFFERS, launch of `half`: output `y`, [2, 4] of f32",
        "1 of 8 elements, by up to 1.0000 (relative 0.2500, ",
        "rtol 1e-4, atol 1e-5",
        "first: [1, 1] element 5: left 3.0, right 4.0",
        "output `y` DIFFERS",
        "; the left is as recorded, the right is not",
        "output `c` DIFFERS",
        "the first op that differs in test 0: ops[0], launch of `half`",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
    assert!(!out.contains("ops[1]") && !out.contains("ops[2]"), "{out}");
}

#[test]
fn json_says_the_same() {
    let files = switched();
    let json = diff(&[path(&files), "--right", "-DCOUNT=*c+=100"], 1);
    assert_eq!(json["same"], false);
    let first = json!({"test": 0, "op": 2, "kernel": "count", "buffer": "c"});
    assert_eq!(json["first"], first);
    for (i, before) in [36, 108].into_iter().enumerate() {
        let run = &json["runs"][i];
        assert_eq!((&run["ops"], &run["differing"]), (&json!(3), &json!(1)));
        let op = &run["first"];
        assert_eq!(
            (&op["verdict"], &op["dtype"], &op["role"]),
            (&json!("differs"), &json!("i32"), &json!("state"))
        );
        assert_eq!(
            (&op["outside"], &op["max_abs"], &op["max_ulps"]),
            (&json!(1), &json!(100.0), &Value::Null)
        );
        // The state goes on with what the left side has.
        let element = json!({"index": 0, "place": [0], "left": before, "right": before + 100});
        assert_eq!(op["first"], element);
        assert_eq!(run["outputs"][0]["same"], true);
        assert_eq!(run["outputs"][1]["same"], false);
    }
    let json = diff(
        &[
            path(&files),
            "--right",
            "-DTWICE=y[0]=0.0f/0.0f",
            "--test",
            "1",
        ],
        1,
    );
    let op = &json["runs"][0]["first"];
    assert_eq!((&op["nans"], &op["max_abs"]), (&json!(1), &Value::Null));
    assert_eq!(
        (&op["first"]["left"], &op["first"]["right"]),
        (&json!(1.0), &json!("NaN"))
    );
}

#[test]
fn a_small_difference_counts_where_that_is_asked_for() {
    let files = switched();
    let side = "-DTWICE=y[3]+=0.00001f";
    let args = [path(&files), "--right", side];
    let json = diff(&args, 0);
    assert_eq!(json["runs"][0]["within"], 1);
    for more in [&["--exact"][..], &["--rtol", "0", "--atol", "1e-7"]] {
        let json = diff(&[&args[..], more].concat(), 1);
        assert_eq!(json["first"]["kernel"], "twice", "{more:?}");
    }
    let wide = ["--right", "-DTWICE=y[3]+=0.5f", "--rtol", "0.2"];
    diff(&[&[path(&files)][..], &wide].concat(), 0);
}

#[test]
fn given_inputs_take_the_place_of_recorded_ones() {
    let files = switched();
    let input = format!("x={}/x.npy", path(&files));
    let side = "-DCOUNT=*c+=n==4";
    let args = [path(&files), "--right", side, "--input", &input, "--var"];
    let json = diff(&[&args[..], &["n=4"]].concat(), 1);
    assert_eq!(json["runs"][0]["test"], Value::Null);
    assert_eq!(json["runs"][0]["variables"]["n"], 4);
    diff(&[&args[..], &["n=3"]].concat(), 0);
    let args = ["diff", path(&files), "--right", side, "--input", &input];
    let (_, err) = svod(&args).ends_with(2);
    assert!(err.contains("the variable `n` is not given"), "{err}");
}

#[test]
fn without_tests_inputs_are_pseudo_random() {
    let mut files = switched();
    files.set("/tests", json!([]));
    files.text("plan.json", &files.plan.to_string());
    let args = ["diff", path(&files), "--right", "-DTWICE=y[2]+=1"];
    let (out, _) = svod(&args).ends_with(1);
    assert!(
        out.contains("there are no recorded tests: inputs are pseudo-random"),
        "{out}"
    );
    assert!(out.contains("run (n = 4)"), "{out}");
    let [a, b] = [0; 2].map(|_| diff(&args[1..], 1));
    assert_eq!(a["arbitrary_inputs"], true);
    assert_eq!(a["runs"], b["runs"]);
    assert_eq!(a["first"]["kernel"], "twice");
}

#[test]
fn a_crash_is_named_with_its_side() {
    let files = switched();
    let crash = "-DTWICE=__builtin_trap()";
    for (flag, name) in [("--left", "left"), ("--right", "right")] {
        let (_, err) = svod(&["diff", path(&files), flag, crash]).ends_with(1);
        let words = format!("in test 0, ops[1] on the {name} side (`{crash}`): kernel `twice`");
        assert!(err.contains(&words), "{words}: {err}");
        assert!(err.contains("SIGILL") || err.contains("SIGTRAP"), "{err}");
    }
}

#[test]
fn an_op_that_does_not_return_is_named_with_its_side() {
    let files = switched();
    let hangs = "-DTWICE=for (;;) __asm__ volatile(\"\")";
    let args = ["diff", path(&files), "--right", hangs];
    let (_, err) = svod(&[&args[..], &["--time-limit", "0.5"]].concat()).ends_with(1);
    let words = format!("in test 0, ops[1] on the right side (`{hangs}`): kernel `twice` did not");
    assert!(err.contains(&words), "{words}: {err}");
    assert!(err.contains("no end after 500ms (--time-limit)"), "{err}");
}

#[test]
fn a_failure_of_one_side_is_a_difference() {
    let files = switched();
    let json = diff(&[path(&files), "--right", "-DCOUNT=return 5"], 1);
    let op = &json["runs"][0]["first"];
    assert_eq!(
        (&op["op"], &op["verdict"], &op["failed"][0]),
        (&json!(2), &json!("failed"), &Value::Null)
    );
    assert!(op["failed"][1].as_str().unwrap().contains('5'), "{op}");
    // There is no next run.
    assert_eq!(json["runs"].as_array().unwrap().len(), 1);
    let (out, _) = svod(&["diff", path(&files), "--left", "-DCOUNT=return 5"]).ends_with(1);
    assert!(
        out.contains("ops[2] FAILED on the left, launch of `count`"),
        "{out}"
    );
    assert!(out.contains("no op after ops[2] was compared"), "{out}");
}

/// A copy of the digits, whose source this replaces `from` in.
fn edited(kernel: &str, from: &str, to: &str) -> tempfile::TempDir {
    let dir = copy();
    let file = dir.path().join("kernels").join(kernel);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&file, text.replace(from, to)).unwrap();
    dir
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn two_bundles_are_compared() {
    // Its object no longer has this source, so that it is compiled.
    let wrong = edited(
        "softmax.c",
        "power[d] / total",
        "power[d] / total * (d == 3 ? 1.5f : 1)",
    );
    let args = [digits::DIGITS, text(wrong.path())];
    let json = diff(&[&args[..], &["--test", "0"]].concat(), 1);
    assert_eq!(json["first"]["kernel"], "softmax");
    assert_eq!(json["first"]["op"], 3);
    let left = format!("{}:threads=2", args[0]);
    let right = format!("{}:-O1", args[1]);
    let json = diff(&["--left", &left, "--right", &right, "--test", "0"], 1);
    assert_eq!(json["left"]["threads"], 2);
    assert_eq!(json["right"]["bundle"], args[1]);
    assert_eq!(json["first"]["kernel"], "softmax");
}

#[test]
fn two_bundles_that_are_not_alike_are_compared_by_their_outputs() {
    let files = switched();
    let mut other = switched();
    other.set("/ops/3", json!({"launch": 1, "args": [1]}));
    other.text("plan.json", &other.plan.to_string());
    let (out, _) = svod(&["diff", path(&files), path(&other)]).ends_with(1);
    assert!(
        out.contains("cannot be compared op by op, only by their outputs"),
        "{out}"
    );
    assert!(out.contains("ops: one plan has 3, the other 4"), "{out}");
    assert!(
        out.contains("output `y` DIFFERS") && !out.contains("no op differs"),
        "{out}"
    );
    let json = diff(&[path(&files), path(&other)], 1);
    assert_eq!(
        (&json["op_by_op"], &json["runs"][0]["ops"]),
        (&json!(false), &json!(0))
    );
    assert!(json["unlike"].as_str().unwrap().contains("one plan has 3"));
}

#[test]
fn a_side_on_threads_is_the_same() {
    let json = diff(
        &[
            sources(),
            "--left",
            "threads=1",
            "--right",
            "threads=3",
            "--exact",
        ],
        0,
    );
    assert_eq!(json["right"]["threads"], 3);
    let json = diff(
        &[
            digits::DIGITS,
            "--left",
            "carried",
            "--right",
            "-O2",
            "--test",
            "0",
        ],
        0,
    );
    assert_eq!(json["left"]["setting"], "objects of the bundle");
}

#[test]
fn bad_usage_is_said() {
    let digits = sources();
    for (args, words) in [
        (&[digits][..], "both sides would be the same"),
        (&["--left", "gcc:-O1"], "a side has no bundle"),
        (&[digits, "--left", "gcc:-O7"], "`-O7` is no level"),
        (
            &[digits, "--right", "carried"],
            "has no object that this CPU runs",
        ),
        (
            &[digits, "--right", "-O1", "--test", "99"],
            "there is no test 99",
        ),
        (
            &[digits, "--right", "-O1", "--rtol=-1"],
            "no number from 0 on",
        ),
        (&[digits, digits, digits], "unexpected value"),
    ] {
        let (_, err) = svod(&[&["diff"][..], args].concat()).ends_with(2);
        assert!(err.contains(words), "{words}: {err}");
    }
    let twice = format!("{digits}:-O1");
    let (_, err) = svod(&["diff", digits, digits, "--left", &twice]).ends_with(2);
    assert!(err.contains("a side has two bundles"), "{err}");
    let (_, err) = svod(&["diff", digits, "--right", "no-such-compiler:-O1"]).ends_with(1);
    assert!(
        err.contains("the right side: ") && err.contains("no-such-compiler"),
        "{err}"
    );
}
