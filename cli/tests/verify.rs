//! `svod verify` as a process: what it names, how it says it, and how it ends.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod digits;
mod svod;

use std::fs;

use digits::{DIGITS, copy};
use serde_json::{Value, json};
use svod::svod;

/// A copy of the digits whose source this replaces `from` in, and whose plan this changes.
fn spoiled(
    kernel: &str,
    edit: Option<(&str, &str)>,
    change: impl FnOnce(&mut Value),
) -> tempfile::TempDir {
    let dir = copy();
    if let Some((from, to)) = edit {
        let file = dir.path().join("kernels").join(kernel);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&file, text.replace(from, to)).unwrap();
    }
    let file = dir.path().join("plan.json");
    let mut plan: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    change(&mut plan);
    fs::write(file, plan.to_string()).unwrap();
    dir
}

/// What `--json` says of the first test.
fn verify(dir: &tempfile::TempDir, status: i32) -> Value {
    let path = dir.path().to_str().unwrap();
    let args = ["verify", path, "--json", "--test", "0", "--threads", "2"];
    let (out, err) = svod(&args).ends_with(status);
    assert_eq!(err, "");
    serde_json::from_str(&out).unwrap()
}

#[track_caller]
fn assert_first(json: &Value, kind: &str, kernel: &str, argument: usize, element: i64) {
    assert_eq!(
        (&json["schema"], &json["clean"]),
        (&json!("svod.verify.1"), &json!(false))
    );
    let first = &json["findings"][0];
    let keys = ["kind", "kernel", "argument", "element"].map(|key| first[key].clone());
    let expected = [json!(kind), json!(kernel), json!(argument), json!(element)];
    assert_eq!(keys, expected, "{json:#}");
    assert_eq!(json["whole_skipped"], "ops have findings");
}

#[test]
fn a_good_bundle_is_clean() {
    let out = svod(&["verify", DIGITS, "--test", "1", "--threads", "2"]).succeeds();
    for words in [
        "conv1",
        "nothing was found in 2 runs",
        "planned-memory",
        "the same",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
    let args = [
        "verify",
        DIGITS,
        "--test",
        "0",
        "--json",
        "--quick",
        "--ops-only",
    ];
    let json: Value = serde_json::from_str(&svod(&args).succeeds()).unwrap();
    assert_eq!(
        (&json["clean"], &json["findings"]),
        (&json!(true), &json!([]))
    );
    assert_eq!(json["passes"], json!(["test 0"]));
    assert_eq!(json["whole_skipped"], "only ops were asked for");
    let ops = json["ops"].as_array().unwrap();
    assert_eq!(ops.len(), 4);
    assert!(
        ops.iter().all(|op| op["launches"].as_u64() >= Some(6)),
        "{json:#}"
    );
}

#[test]
fn planted_faults_are_named() {
    let last = "        scores[image][d] = power[d] / total;";
    let edit = |to: &str| spoiled("softmax.c", Some((last, to)), |_| ());
    let write = "        scores[image][d] = power[d] / total;\n    if (image == 44)\n        scores[45][2] = 1;";
    let json = verify(&edit(write), 1);
    assert_first(&json, "out-of-bounds", "softmax", 0, 452);
    let first = &json["findings"][0];
    assert_eq!(
        (&first["op"], &first["function"]),
        (&json!(3), &json!("softmax"))
    );
    assert_eq!(first["buffer"], "output `scores`");
    // Where the compiler makes the same code with a table of lines, it says which.
    if !first["line"].is_null() {
        assert_eq!(
            (&first["file"], &first["line"]),
            (&json!("kernels/softmax.c"), &json!(28))
        );
    }

    let read = "        scores[image][d] += power[d] / total;";
    let json = verify(&edit(read), 1);
    let first = &json["findings"][0];
    assert_eq!(
        (&first["kind"], &first["argument"]),
        (&json!("reads-write-only"), &json!(0))
    );
    // The first whose share is not lost in rounding.
    assert!(
        (0..450).contains(&first["element"].as_i64().unwrap()),
        "{first}"
    );

    let neighbour = format!("{last}\n    if (image == 7)\n        scores[8][3] = 1;");
    let json = verify(&edit(&neighbour), 1);
    assert_first(&json, "overlap", "softmax", 0, 83);
    assert_eq!(json["findings"][0]["calls"], json!([7, 8]));

    let access = |plan: &mut Value| plan["kernels"][3]["params"][0]["access"] = json!("r");
    let json = verify(&spoiled("", None, access), 1);
    assert_first(&json, "writes-read-only", "softmax", 0, 0);

    let swapped = |plan: &mut Value| plan["ops"].as_array_mut().unwrap().swap(2, 3);
    let json = verify(&spoiled("", None, swapped), 1);
    let first = &json["findings"][0];
    assert_eq!(
        (&first["kind"], &first["op"]),
        (&json!("reads-unwritten"), &json!(2))
    );
    assert_eq!(
        (&first["kernel"], &first["argument"]),
        (&json!("softmax"), &json!(1))
    );
    assert_eq!(first["buffer"], "temp `logits`");
}

#[test]
fn the_table_says_what_and_where() {
    let last = "scores[image][d] = power[d] / total;";
    let to = "scores[image][d] = power[d] / total; if (image == 7) scores[8][3] = 1;";
    let dir = spoiled("softmax.c", Some((last, to)), |_| ());
    let path = dir.path().to_str().unwrap();
    let (out, _) = svod(&["verify", path, "--test", "0", "--all"]).ends_with(1);
    for words in [
        "overlap: ops[3], kernel `softmax`, argument 0, output `scores`, element 83",
        "calls 7 and 8 of its grid both write it",
        "first in test 0",
        "not run, as ops have findings",
        "1 THING FOUND",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
    assert!(out.lines().all(|line| line.chars().count() <= 101), "{out}");
}

#[test]
fn whole_runs_are_compared_with_what_was_recorded() {
    let last = "scores[image][d] = power[d] / total;";
    let to = "scores[image][d] = power[d] / total / 2;";
    let dir = spoiled("softmax.c", Some((last, to)), |_| ());
    let json = verify(&dir, 1);
    let kinds: Vec<_> = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| &f["kind"])
        .collect();
    assert_eq!(kinds, ["recorded"]);
    assert_eq!(json["findings"][0]["buffer"], "output `scores`");
    assert_eq!(json["findings"][0]["op"], Value::Null);
}

#[test]
fn bad_usage_is_said() {
    let (_, err) = svod(&["verify", DIGITS, "--test", "99"]).ends_with(2);
    assert!(err.contains("there is no test 99"), "{err}");
    let (_, err) = svod(&["verify", DIGITS, "--timeout", "0"]).ends_with(2);
    assert!(err.contains("no time above 0"), "{err}");
}
