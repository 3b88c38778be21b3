//! Confinement, from outside: what a compiler, or a kernel, tries that it has no right to.
//!
//! The tests start this program again, as a helper and as whoever is to be confined. So it has a
//! `main` of its own, which tells these apart, and runs the tests one after another.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attempts;
mod compilers;
mod kernels;
#[path = "../support/mod.rs"]
mod support;
mod systems;

use std::env;
use std::panic::catch_unwind;
use std::path::Path;
use std::process::ExitCode;

use svod_runtime::confine::Protections;

/// A test and its name.
type Test = (&'static str, fn());

fn main() -> ExitCode {
    svod_runtime::sandbox::enter();
    let arguments: Vec<String> = env::args().collect();
    match Path::new(&arguments[0])
        .file_name()
        .and_then(|name| name.to_str())
    {
        Some(attempts::COMPILER) => return attempts::compile(&arguments[1..]),
        Some(kernels::NAME) => return kernels::become_kernel(&arguments[1]),
        _ => {}
    }
    // What a system lacks cannot be installed, and where one lacks something, that is told.
    let there = Protections::of_this_system();
    let tests = match there.missing().next() {
        None => [compilers::TESTS, kernels::TESTS, systems::TESTS].concat(),
        Some((lacks, why)) => {
            println!("most tests are skipped: this system lacks {lacks}: {why}");
            systems::TESTS.to_vec()
        }
    };
    let failed = tests
        .into_iter()
        .filter(|(name, _)| is_chosen(name, &arguments[1..]));
    let failed = failed.filter(|(name, test)| {
        let is_good = catch_unwind(test).is_ok();
        println!("test {name} ... {}", if is_good { "ok" } else { "FAILED" });
        !is_good
    });
    ExitCode::from(u8::from(failed.count() > 0))
}

/// Whether the arguments of `cargo test` mean this test.
fn is_chosen(name: &str, arguments: &[String]) -> bool {
    let mut chosen = None;
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--skip" if arguments.next().is_some_and(|part| name.contains(part)) => return false,
            "--skip" => {}
            "--list" => return false,
            option if option.starts_with('-') => {}
            part => chosen = Some(chosen.unwrap_or(false) || name.contains(part)),
        }
    }
    chosen.unwrap_or(true)
}
