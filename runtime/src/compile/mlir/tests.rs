use std::process::Command;

use std::fs;

use super::*;

/// A program that says a version. Another process writes it, since what this one has open for
/// writing, one that a thread beside starts may have open as well.
fn program(path: &Path, version: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let status = Command::new("/bin/sh")
        .args([
            "-c",
            "printf '%s\\n' \"$1\" \"$2\" > \"$0\" && chmod 755 \"$0\"",
        ])
        .arg(path)
        .args(["#!/bin/sh", &format!("echo LLVM version {version}.1.0")])
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn the_newest_pair_is_found_and_where_there_is_none_it_says_what_was_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    let folders = [dir.path().join("a"), dir.path().join("b")];
    let search = || Mlir::search(&folders, dir.path(), None);
    let why = search().unwrap_err();
    for part in [
        "mlir-opt-N",
        "mlir-translate-N",
        "from 19",
        "/a, ",
        "/llvm-N/bin",
    ] {
        assert!(why.contains(part), "{part} is not in: {why}");
    }
    program(&folders[0].join("mlir-opt"), 16);
    program(&folders[0].join("mlir-translate"), 16);
    assert!(search().unwrap_err().contains("is of version 16"));

    let expect = |opt: &Path, version| {
        let found = search().unwrap();
        assert_eq!((found.path(), found.version()), (opt, version));
    };
    let debian = dir.path().join("llvm-20/bin");
    program(&debian.join("mlir-opt"), 20);
    program(&debian.join("mlir-translate"), 20);
    expect(&debian.join("mlir-opt"), 20);
    // Half a pair is none.
    program(&folders[0].join("mlir-opt-22"), 22);
    expect(&debian.join("mlir-opt"), 20);
    program(&folders[0].join("mlir-translate-22"), 22);
    expect(&folders[0].join("mlir-opt-22"), 22);
    program(&folders[0].join("mlir-opt"), 23);
    program(&folders[0].join("mlir-translate"), 23);
    expect(&folders[0].join("mlir-opt"), 23);
}

#[test]
fn what_is_left_is_found_with_its_place() {
    let printed = r#"
"builtin.module"() ({
  "func.func"() <{sym_name = "k"}> ({
  ^bb0(%arg0: memref<?xf32> loc("<stdin>":1:14)):
    %0:2 = "tensor.empty"() : () -> (i32, i32) loc(callsite("<stdin>":3:8 at "x":1:1))
    %1 = "llvm.add"(%0, %0) : (i32, i32) -> i32 loc("<stdin>":4:1)
    "llvm.return"() : () -> () loc("<stdin>":5:3)
  }) : () -> () loc("<stdin>":1:1)
}) : () -> () loc("<stdin>":0:0)
"#;
    let left = left_ops(printed);
    let left: Vec<_> = left
        .iter()
        .map(|(p, op)| (p.as_str(), op.as_str()))
        .collect();
    let expected = [
        ("<stdin>:3:8: ", "tensor.empty"),
        ("<stdin>:1:1: ", "func.func"),
    ];
    assert_eq!(left, expected);
}

#[test]
fn files_are_named_where_lines_begin() {
    let said = "<stdin>:1:2: error: <stdin>: x\n  <stdin>:\n<stdin>:3:4: note";
    let renamed = renamed(said, "k.mlir");
    assert_eq!(
        renamed,
        "k.mlir:1:2: error: <stdin>: x\n  <stdin>:\nk.mlir:3:4: note"
    );
}
