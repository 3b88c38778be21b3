//! `svod compile`, and bundles that carry objects.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod digits;
mod svod;

use digits::DIGITS;
use svod::svod;
use svod_runtime::compile::{Family, Toolchain};

#[test]
fn the_bundle_that_it_writes_runs_without_a_compiler() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("digits.svod");
    let path = path.to_str().unwrap();
    let out = svod(&["compile", DIGITS, "-o", path]).succeeds();
    assert!(out.contains("4 kernels for native"), "{out}");
    let out = svod(&["run", path, "--check"])
        .env("SVOD_CC", "/nowhere/cc")
        .succeeds();
    assert!(out.contains("4 from the bundle"), "{out}");
    // Nobody is kept from compiling it all the same.
    let out = svod(&["run", path, "--check", "--recompile"]).succeeds();
    assert!(!out.contains("from the bundle"), "{out}");
    let args = ["run", path, "--recompile"];
    let (_, err) = svod(&args).env("SVOD_CC", "/nowhere/cc").ends_with(1);
    assert!(err.contains("/nowhere/cc"), "{err}");
}

#[test]
fn the_bundle_of_the_examples_runs_without_a_compiler() {
    let out = svod(&["run", DIGITS, "--check"])
        .env("SVOD_CC", "/nowhere/cc")
        .succeeds();
    assert!(out.contains("4 from the bundle"), "{out}");
    assert!(out.contains("8 of 8 tests the same"), "{out}");
}

#[test]
fn several_cpus_have_objects_beside_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("digits.svod");
    let path = path.to_str().unwrap();
    let mut args = vec!["compile", digits::sources(), "-o", path];
    args.extend(["--cpu", "x86-64-v2", "--cpu", "x86-64-v3"]);
    let toolchain = Toolchain::new(None, std::env::var_os("PATH").unwrap());
    let compiler = toolchain.c_compiler("k").unwrap();
    let is_clang = compiler.family == Family::Clang;
    if is_clang {
        args.extend(["--cpu", "aarch64"]);
    }
    svod(&args).succeeds();
    // What it is for, as ELF has it: 62 is x86-64, 183 aarch64.
    let machine = |cpu| {
        let object = std::fs::read(format!("{path}/kernels/conv1.{cpu}.o")).ok()?;
        Some(u16::from_le_bytes([object[18], object[19]]))
    };
    assert_eq!(machine("x86-64-v2"), Some(62));
    assert_eq!(machine("x86-64-v3"), Some(62));
    assert_eq!(machine("x86-64-v4"), None);
    assert_eq!(machine("aarch64"), is_clang.then_some(183));
    let out = svod(&["run", path, "--check"])
        .env("SVOD_CC", "/nowhere/cc")
        .succeeds();
    assert!(out.contains("4 from the bundle"), "{out}");
}

#[test]
fn a_cpu_that_nobody_knows_is_a_slip() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("digits.svod");
    let args = ["compile", DIGITS, "--cpu", "z80", "-o"];
    let mut svod = svod(&args);
    svod.0.arg(&path);
    let (_, err) = svod.ends_with(2);
    assert!(err.contains("z80") && err.contains("x86-64-v3"), "{err}");
    assert!(!path.exists());
}

#[test]
fn a_folder_that_is_taken_is_left_alone() {
    let dir = digits::copy();
    let args = ["compile", DIGITS, "-o", dir.path().to_str().unwrap()];
    // It says so before it takes the time to compile.
    let (_, err) = svod(&args).env("SVOD_CC", "/nowhere/cc").ends_with(1);
    assert!(err.contains("not empty"), "{err}");
}
