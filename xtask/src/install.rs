//! What the tests need beside Rust and a C compiler, installed where that can be.

use std::path::Path;
use std::process::Command;

use crate::run;

/// Something that tests need.
struct Need {
    what: &'static str,
    is_there: fn() -> bool,
    /// Debian's packages that bring it, in sets of which one is enough.
    packages: &'static [&'static [&'static str]],
    /// What becomes of the tests without it.
    without: &'static str,
}

const NEEDS: [Need; 6] = [
    Need {
        what: "clang",
        is_there: || clangs() > 0,
        packages: &[&["clang-19"], &["clang"]],
        without: "what only clang compiles is skipped",
    },
    Need {
        what: "another clang, years older or younger",
        is_there: || clangs() > 1,
        packages: &[&["clang-14"], &["clang-16"]],
        without: "objects of fewer compilers are linked",
    },
    Need {
        what: "mlir-opt and mlir-translate",
        is_there: || ["mlir-opt", "mlir-translate"].iter().all(|p| has_mlir(p)),
        packages: &[&["mlir-19-tools"]],
        without: "kernels in MLIR are not compiled",
    },
    Need {
        what: "an emulator of aarch64",
        is_there: || {
            ["qemu-aarch64", "qemu-aarch64-static"]
                .iter()
                .any(|p| is_in_path(p))
        },
        packages: &[&["qemu-user"], &["qemu-user-static"]],
        without: "objects of aarch64 are not executed",
    },
    Need {
        what: "a C compiler and library for aarch64",
        is_there: || is_in_path("aarch64-linux-gnu-gcc"),
        packages: &[&["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"]],
        without: "objects of aarch64 are not executed",
    },
    Need {
        what: "Chromium",
        is_there: || {
            ["chromium", "chromium-browser", "google-chrome"]
                .iter()
                .any(|p| is_in_path(p))
        },
        packages: &[&["chromium"]],
        without: "the page of a profile is not opened",
    },
];

/// Installs what is missing, says what it did, and whether everything is there.
pub(crate) fn install() -> bool {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !(need.is_there)()).collect();
    if missing.is_empty() {
        println!("xtask: all that the tests need is there; nothing to install");
        return true;
    }
    let may = if is_root() {
        Some(false)
    } else {
        crate::succeeds(Command::new("sudo").args(["-n", "true"])).then_some(true)
    };
    let may = may.filter(|_| Path::new("/usr/bin/apt-get").exists());
    let Some(sudo) = may else {
        for Need {
            what,
            packages,
            without,
            ..
        } in missing
        {
            println!("xtask: there is no {what}, and no apt-get or no right to use it; {without}");
            println!(
                "xtask: on Debian: sudo apt-get install {}",
                packages[0].join(" ")
            );
        }
        return false;
    };
    // The lists of a new machine may be missing or old.
    apt(sudo, &["update", "-qq"]);
    let mut all = true;
    for Need {
        what,
        is_there,
        packages,
        without,
    } in missing
    {
        let mut sets = packages.iter();
        let installed = sets.any(|packages| {
            println!("xtask: installing {what}: {}", packages.join(" "));
            let options = ["install", "-y", "-qq", "--no-install-recommends"];
            apt(sudo, &[&options[..], packages].concat()) && is_there()
        });
        if !installed {
            println!("xtask: {what} could not be installed; {without}");
        }
        all &= installed;
    }
    all
}

fn apt(sudo: bool, args: &[&str]) -> bool {
    let mut command = if sudo {
        let mut command = Command::new("sudo");
        command.args(["-n", "apt-get"]);
        command
    } else {
        Command::new("apt-get")
    };
    run(command.args(args).env("DEBIAN_FRONTEND", "noninteractive"))
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|id| id.stdout.trim_ascii() == b"0")
}

/// The names of all programs in `PATH`.
fn programs() -> impl Iterator<Item = String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<_> = std::env::split_paths(&path).collect();
    let entries = dirs
        .into_iter()
        .flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten());
    entries
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
}

fn is_in_path(program: &str) -> bool {
    programs().any(|name| name == program)
}

/// Whether there is a program of this name, or of it and a version from 19 on.
fn has_mlir(program: &str) -> bool {
    let version = |name: &str| name.strip_prefix(program)?.strip_prefix('-')?.parse().ok();
    programs().any(|name| name == program || version(&name).is_some_and(|v: u32| v >= 19))
}

/// How many versions of clang there are; a plain `clang` alone counts as one.
fn clangs() -> usize {
    let version = |name: &str| name.strip_prefix("clang-")?.parse::<u32>().ok();
    let versions: std::collections::BTreeSet<_> = programs().filter_map(|n| version(&n)).collect();
    versions.len().max(usize::from(is_in_path("clang")))
}
