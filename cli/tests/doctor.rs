//! `svod doctor`

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod svod;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;
use svod::{Svod, svod};

/// The doctor where no compilers are, and no cache.
fn bare(args: &[&str], empty: &Path) -> Svod {
    let args: Vec<&str> = ["doctor"].iter().chain(args).copied().collect();
    let bare = svod(&args).env("PATH", empty).env("SVOD_CACHE", "off");
    bare.env("SVOD_LLVM", "/no/such/libLLVM.so")
}

fn json(svod: Svod) -> Value {
    serde_json::from_str(&svod.succeeds()).unwrap()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

/// What is said of a topic, of things with this mark.
fn said(report: &Value, topic: &str, mark: &str) -> String {
    let findings = report["findings"].as_array().unwrap().iter();
    let those = findings.filter(|f| f["topic"] == topic && f["mark"] == mark);
    let lines = those.map(|f| format!("{} → {}", f["what"], f["advice"]));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn keys_are_those_that_are_documented() {
    let empty = tempfile::tempdir().unwrap();
    let report = json(bare(&["--json"], empty.path()));
    let documented = [
        ("compiler", "path major why"),
        ("llvm", "path major why"),
        ("mlir", "path major why"),
        ("cpu", "model architecture level features"),
        ("threads", "run cores cpus allowed quota"),
        (
            "memory",
            "page_size executable_problem guard_problem huge_pages group_limit address_limit",
        ),
        ("observers", "perf_map gdb perf_event_paranoid counters"),
        ("cache", "folder exists problem entries bytes limit"),
        (
            "confinement",
            "landlock seccomp is_filtered user_namespaces missing",
        ),
    ];
    for (object, expected) in documented {
        let expected: BTreeSet<&str> = expected.split(' ').collect();
        assert_eq!(keys(&report[object]), expected, "{object}");
    }
    let mut all: BTreeSet<&str> = documented.iter().map(|(object, _)| *object).collect();
    all.extend(["can_run", "compilers", "llvms", "findings"]);
    assert_eq!(keys(&report), all);
    assert_eq!(report["can_run"], true);
    let finding: BTreeSet<&str> = ["topic", "mark", "what", "advice"].into();
    for found in report["findings"].as_array().unwrap() {
        assert_eq!(keys(found), finding);
        assert!(["ok", "note", "missing"].contains(&found["mark"].as_str().unwrap()));
    }
    // Where tests run, kernels do.
    assert_eq!(said(&report, "memory", "missing"), "");
}

#[test]
fn every_compiler_is_tried_and_one_is_used() {
    let report = json(svod(&["doctor", "--json"]).env("SVOD_CACHE", "off"));
    let compilers = report["compilers"].as_array().unwrap();
    assert!(
        !compilers.is_empty(),
        "these tests need a C compiler in PATH"
    );
    let used = &report["compiler"]["path"];
    let used = compilers.iter().find(|c| c["path"] == *used).unwrap();
    let abilities = &used["abilities"];
    let expected = "family major c llvm_ir targets float16 bfloat16";
    assert_eq!(
        keys(abilities),
        expected.split(' ').collect::<BTreeSet<_>>()
    );
    assert_eq!(abilities["c"], true);
    let here = std::env::consts::ARCH;
    assert!(
        abilities["targets"]
            .as_array()
            .unwrap()
            .iter()
            .any(|t| t == here)
    );
    assert_eq!(abilities["llvm_ir"], abilities["family"] == "clang");
    // One that is named is used, whatever else there is.
    let path = used["path"].as_str().unwrap();
    let named = svod(&["doctor", "--json"]).env("SVOD_CC", path);
    let named = json(named.env("SVOD_CACHE", "off"));
    assert_eq!(named["compiler"]["path"], path);
    assert_eq!(named["compiler"]["why"], "SVOD_CC names it");
    assert_eq!(named["compilers"][0]["path"], path);
}

#[test]
fn marks_are_words_and_what_is_missing_comes_with_what_to_do() {
    let empty = tempfile::tempdir().unwrap();
    let out = bare(&[], empty.path()).succeeds();
    assert!(!out.contains('\x1b'), "{out}");
    for words in [
        "compilers\n",
        "  missing  C cannot be compiled",
        "apt-get install clang",
        "/no/such/libLLVM.so",
        "SVOD_CACHE is off",
        "  ok       memory can be made executable",
        "kernels can run here; 2 things missing",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
    let coloured = bare(&[], empty.path())
        .env("CLICOLOR_FORCE", "1")
        .succeeds();
    assert!(coloured.contains('\x1b'));
}

#[test]
fn a_compiler_that_is_named_and_not_there_or_no_compiler_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let report = json(bare(&["--json"], dir.path()).env("SVOD_CC", "no-such-cc"));
    assert_eq!(report["compiler"]["path"], Value::Null);
    let why = said(&report, "compilers", "missing");
    assert!(
        why.contains("no-such-cc") && why.contains("SVOD_CC"),
        "{why}"
    );

    let cc = dir.path().join("cc");
    fs::write(&cc, "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(&cc, fs::Permissions::from_mode(0o700)).unwrap();
    let report = json(bare(&["--json"], dir.path()));
    let compiler = &report["compilers"][0];
    assert_eq!(compiler["abilities"], Value::Null);
    assert_eq!(compiler["hangs"], false);
    let why = said(&report, "compilers", "missing");
    assert!(why.contains("neither a clang nor a gcc"), "{why}");
}

#[test]
fn a_cache_folder_that_is_not_to_be_used_is_told_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let cache = |folder: &Path| {
        let bare = bare(&["--json"], dir.path()).env("SVOD_CACHE", "on");
        json(bare.env("SVOD_CACHE_DIR", folder))
    };
    // One that is not there is not made.
    let folder = dir.path().join("cache");
    let report = cache(&folder);
    assert_eq!(report["cache"]["exists"], false);
    assert_eq!(report["cache"]["problem"], Value::Null);
    assert!(!folder.exists());
    assert!(said(&report, "cache", "ok").contains("when it is first needed"));

    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    let report = cache(&folder);
    assert_eq!(report["cache"]["exists"], true);
    assert_eq!(report["cache"]["problem"], Value::Null);
    assert_eq!(report["cache"]["entries"], 0);

    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let why = said(&cache(&folder), "cache", "missing");
    assert!(
        why.contains("may be written by others") && why.contains("700"),
        "{why}"
    );

    fs::set_permissions(&folder, fs::Permissions::from_mode(0o500)).unwrap();
    let report = cache(&folder);
    // The superuser writes anywhere.
    let may_write = fs::write(folder.join("probe"), "").is_ok();
    if !may_write {
        let why = said(&report, "cache", "missing");
        assert!(why.contains("only read"), "{why}");
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();

    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(said(&cache(&file), "cache", "missing").contains("file"));
}

#[test]
fn a_setting_that_cannot_be_is_an_error() {
    let empty = tempfile::tempdir().unwrap();
    let (_, err) = bare(&[], empty.path())
        .env("SVOD_THREADS", "many")
        .ends_with(1);
    assert!(
        err.contains("SVOD_THREADS") && err.contains("many"),
        "{err}"
    );
    let report = json(bare(&["--json"], empty.path()).env("SVOD_THREADS", "3"));
    assert_eq!(report["threads"]["run"], 3);
}
