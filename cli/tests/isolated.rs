//! `svod run --isolated`: a bundle that nobody vouches for computes what it should, and reaches
//! nothing else.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../runtime/tests/support/mod.rs"]
mod support;
mod svod;

use support::{AFFINE, Files};
use svod::{Svod, svod};
use svod_runtime::confine::Protections;

const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits");

/// A bundle, run isolated with these flags.
fn isolated(files: &Files, flags: &[&str]) -> Svod {
    files.text("plan.json", &files.plan.to_string());
    let args = ["run", files.path().to_str().unwrap(), "--isolated"];
    svod(&[&args[..], flags].concat())
}

/// The small bundle, in which a kernel does something else first.
fn with(planted: &str) -> Files {
    let files = Files::small();
    let text = AFFINE.replace("t[i] =", &format!("{planted}; t[i] ="));
    files.text("kernels/affine.c", &text);
    files
}

/// Whether this system lacks a protection, which is told. It cannot be installed.
fn is_lacking() -> bool {
    let there = Protections::of_this_system();
    let lacks = there.missing().next();
    if let Some((lacks, why)) = lacks {
        eprintln!("skipped: this system lacks {lacks}: {why}");
    }
    lacks.is_some()
}

/// A system call, with a path as its first argument.
fn asks(number: i64) -> String {
    if cfg!(target_arch = "x86_64") {
        format!(
            "static const char path[] = \"/etc/passwd\"; long a = {number};
             __asm__ volatile(\"syscall\" : \"+a\"(a) : \"D\"(path), \"S\"(0), \"d\"(0)
                              : \"rcx\", \"r11\", \"memory\")"
        )
    } else {
        format!(
            "static const char path[] = \"/etc/passwd\";
             register long n __asm__(\"x8\") = {number};
             register long a __asm__(\"x0\") = (long)path;
             __asm__ volatile(\"svc 0\" : \"+r\"(a) : \"r\"(n) : \"memory\")"
        )
    }
}

#[test]
fn a_bundle_computes_what_it_does_otherwise() {
    if is_lacking() {
        return;
    }
    for flags in [
        &["--check"][..],
        &["--check", "--threads", "2"],
        &["--check", "--guard=end"],
    ] {
        let args = ["run", DIGITS, "--isolated"];
        let said = svod(&[&args[..], flags].concat()).succeeds();
        assert!(said.contains("isolated"), "{said}");
        assert!(said.contains("the same"), "{said}");
    }
    let said = isolated(&Files::small(), &["--check"]).succeeds();
    assert!(said.contains("1 of 1 test the same"), "{said}");
}

#[test]
fn sources_cannot_read_other_files() {
    if is_lacking() {
        return;
    }
    for (what, text) in [
        ("/etc/passwd", "#include \"/etc/passwd\"\n"),
        ("/etc/passwd", "__asm__(\".incbin \\\"/etc/passwd\\\"\");\n"),
    ] {
        let files = Files::small();
        files.text("kernels/affine.c", &format!("{text}{AFFINE}"));
        let (_, said) = isolated(&files, &[]).ends_with(1);
        assert!(said.contains(what) && said.contains("confined"), "{said}");
        assert!(!said.contains("root:"), "{said}");
    }
}

#[test]
fn kernels_cannot_reach_the_system() {
    if is_lacking() {
        return;
    }
    let calls = [
        ("openat", libc::SYS_openat),
        ("socket", libc::SYS_socket),
        ("execve", libc::SYS_execve),
        ("ptrace", libc::SYS_ptrace),
        #[cfg(target_arch = "x86_64")]
        ("open", libc::SYS_open),
        #[cfg(target_arch = "x86_64")]
        ("fork", libc::SYS_fork),
    ];
    for (name, number) in calls {
        let (_, said) = isolated(&with(&asks(number)), &[]).ends_with(1);
        let named = format!("asked the system for `{name}`");
        assert!(said.contains(&named) && said.contains("`affine`"), "{said}");
    }
}

#[test]
fn what_goes_wrong_is_named() {
    if is_lacking() {
        return;
    }
    let files = with("if (i == 7) for (;;) __asm__ volatile(\"\")");
    for threads in ["1", "2"] {
        let flags = ["--time-limit", "0.3", "--threads", threads];
        let (_, said) = isolated(&files, &flags).ends_with(1);
        let named = said.contains("300ms") && said.contains("in kernel `affine` of ops[0]");
        assert!(named, "{said}");
    }
    let files = with("if (i == 7) t[2000] = 0");
    let (_, said) = isolated(&files, &["--guard=end"]).ends_with(1);
    assert!(said.contains("kernel `affine` touched memory"), "{said}");
    let (_, said) = isolated(&with("t[13] = 0"), &["--guard=end"]).ends_with(1);
    assert!(said.contains("element 13 of argument 0"), "{said}");
}

#[test]
fn what_trusts_the_bundle_is_refused() {
    for flag in ["--fill", "--quick", "--timings", "--save-schedule"] {
        let args = ["run", DIGITS, "--isolated", flag];
        let (_, said) = svod(&args).ends_with(2);
        assert!(said.contains("cannot be used with"), "{said}");
    }
}
