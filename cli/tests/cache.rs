//! The object cache, as a person meets it: what a start says of it, and `svod cache`.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod digits;
mod svod;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use svod::{Svod, svod};
use svod_runtime::compile::Toolchain;
use tempfile::TempDir;

/// The command with a cache in this folder.
fn with(folder: &Path, args: &[&str]) -> Svod {
    svod(args)
        .env("SVOD_CACHE", "on")
        .env("SVOD_CACHE_DIR", folder)
}

/// A cache that has all kernels of the digits bundle.
fn filled() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    with(folder.path(), &["run", digits::sources()]).succeeds();
    folder
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("objects")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_start_says_what_it_compiled_and_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let start = || with(folder.path(), &["run", digits::sources(), "--check"]).succeeds();
    let first = start();
    assert!(first.contains("4 kernels ready in "), "{first}");
    assert!(first.contains("(4 compiled)"), "{first}");
    let second = start();
    assert!(second.contains("(4 from the cache)"), "{second}");
    // One of them is gone.
    fs::remove_file(&entries(folder.path())[0]).unwrap();
    let third = start();
    assert!(third.contains("(1 compiled, 3 from the cache)"), "{third}");
}

#[test]
fn stats_say_what_is_in_it_and_clear_removes_that() {
    let folder = filled();
    let stats = || with(folder.path(), &["cache", "stats"]).succeeds();
    let filled = stats();
    assert!(filled.contains(folder.path().to_str().unwrap()), "{filled}");
    assert!(filled.contains("4 entries: 4 of c"), "{filled}");
    assert!(filled.contains("of at most 1"), "{filled}");
    assert!(filled.contains("within the last hour"), "{filled}");
    let cleared = with(folder.path(), &["cache", "clear"]).succeeds();
    assert!(cleared.contains("removed 4 entries"), "{cleared}");
    assert!(stats().contains("0 entries"), "{}", stats());
    assert!(entries(folder.path()).is_empty());
}

#[test]
fn verify_finds_what_is_damaged_and_removes_it() {
    let folder = filled();
    let verify = || with(folder.path(), &["cache", "verify"]);
    let whole = verify().succeeds();
    assert!(whole.contains("4 entries good, 0 removed"), "{whole}");
    let damaged = &entries(folder.path())[1];
    let mut bytes = fs::read(damaged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(damaged, bytes).unwrap();
    let (found, _) = verify().ends_with(1);
    assert!(found.contains("3 entries good, 1 removed"), "{found}");
    assert!(found.contains(damaged.to_str().unwrap()), "{found}");
    verify().succeeds();
}

#[test]
fn explain_says_what_hits_and_in_what_the_others_differ() {
    let folder = filled();
    let explain = |bundle: &str| {
        let explained = with(folder.path(), &["cache", "explain", bundle]);
        explained.succeeds()
    };
    let same = explain(digits::sources());
    assert_eq!(same.matches(": hit").count(), 4, "{same}");
    assert!(same.contains("4 of 4 kernels hit"), "{same}");

    let changed = digits::without_objects();
    let mut kernels: Vec<PathBuf> = fs::read_dir(changed.path().join("kernels"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "c"))
        .collect();
    kernels.sort();
    let text = fs::read_to_string(&kernels[0]).unwrap();
    fs::write(&kernels[0], format!("{text}/* of another day */\n")).unwrap();
    let other = explain(changed.path().to_str().unwrap());
    assert!(other.contains("3 of 4 kernels hit"), "{other}");
    assert!(
        other.contains("miss; the nearest entry differs in: source"),
        "{other}"
    );
    assert!(other.contains("    source, entry: "), "{other}");
    // It explains, and compiles nothing.
    assert_eq!(entries(folder.path()).len(), 4);

    let empty = tempfile::tempdir().unwrap();
    let empty = with(empty.path(), &["cache", "explain", digits::sources()]).succeeds();
    assert!(empty.contains("miss, the cache is empty"), "{empty}");
}

#[test]
fn another_library_of_the_compilers_is_another_compiler() {
    let folder = filled();
    let toolchain = Toolchain::new(None, std::env::var_os("PATH").unwrap());
    let compiler = &toolchain.c_compiler("k").unwrap().path;
    // As the dynamic linker says: `libz.so.1 => /lib/libz.so.1 (0x...)`.
    let loaded = Command::new(compiler)
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .output()
        .unwrap();
    let loaded = String::from_utf8(loaded.stdout).unwrap();
    let paths = loaded.lines().filter_map(|line| {
        let (_, path) = line.split_once(" => ")?;
        Some(PathBuf::from(path.split(" (").next()?.trim()))
    });
    let smallest = paths.min_by_key(|path| fs::metadata(path).map_or(u64::MAX, |m| m.len()));
    let smallest = smallest.unwrap();
    // The same bytes, and yet nobody knows what else is in that folder.
    let other = tempfile::tempdir().unwrap();
    fs::copy(&smallest, other.path().join(smallest.file_name().unwrap())).unwrap();
    let args = ["cache", "explain", digits::sources()];
    let explained = with(folder.path(), &args)
        .env("LD_LIBRARY_PATH", other.path())
        .succeeds();
    assert!(explained.contains("0 of 4 kernels hit"), "{explained}");
    assert!(explained.contains("differs in: compiler"), "{explained}");
    let place = other.path().to_str().unwrap();
    assert!(explained.contains(place), "{explained}");
}

#[test]
fn it_lies_where_the_user_keeps_caches() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let stats = || {
        let mut stats = svod(&["cache", "stats"])
            .env("SVOD_CACHE", "on")
            .env("HOME", home);
        stats.0.env_remove("SVOD_CACHE_DIR");
        stats.0.env_remove("XDG_CACHE_HOME");
        stats
    };
    let says = |said: &str, folder: PathBuf| {
        let folder = folder.display().to_string();
        assert!(said.lines().any(|l| l.ends_with(&folder)), "{said}");
    };
    says(&stats().succeeds(), home.join(".cache/svod"));
    let elsewhere = stats().env("XDG_CACHE_HOME", home.join("xdg"));
    says(&elsewhere.succeeds(), home.join("xdg/svod"));
    let named = stats()
        .env("XDG_CACHE_HOME", home.join("xdg"))
        .env("SVOD_CACHE_DIR", home.join("named"));
    says(&named.succeeds(), home.join("named"));
    let (_, none) = stats().env("SVOD_CACHE", "off").ends_with(2);
    assert!(none.contains("SVOD_CACHE is off"), "{none}");
}

#[test]
fn quickly_compiled_code_gives_the_same_answers() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["run", digits::sources(), "--quick", "--check"];
    let quick = with(folder.path(), &args).succeeds();
    assert!(quick.contains("optimised code follows"), "{quick}");
    assert!(quick.contains("8 of 8 tests the same"), "{quick}");
}
