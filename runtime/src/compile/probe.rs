//! What a compiler can do, found out by having it do it.
//!
//! Nothing that compiles kernels asks this: it takes several processes. Each has a time limit,
//! since what stands in a search path may be anything.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};

use super::c::output_name;
use super::process::{command, end_group, has_ended};
use super::toolchain::{ASK_MACROS, Family, family_of};

/// What a C compiler can do, beside being one.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Abilities {
    /// Whose it is.
    pub family: Family,
    /// Its major version.
    pub major: u32,
    /// Whether it compiles a line of C, to an object.
    pub c: bool,
    /// Whether it compiles LLVM IR.
    pub llvm_ir: bool,
    /// The architectures that it compiles for, of those that are linked here.
    pub targets: Vec<&'static str>,
    /// Whether it computes with `_Float16`, here.
    pub float16: bool,
    /// Whether it computes with `__bf16`, here.
    pub bfloat16: bool,
}

/// Why a compiler does not say what it can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ailment {
    /// It did not answer in time.
    Silent,
    /// It cannot be started, or is no C compiler.
    Broken(String),
}

/// What is compiled to find out about each.
const C: &str = "void k(float *x) { x[0] = 1; }\n";
const IR: &str = "define void @k(ptr %x) { store float 1.0, ptr %x ret void }\n";
const FLOAT16: &str = "_Float16 k(_Float16 x) { return x + x; }\n";
const BFLOAT16: &str = "__bf16 k(__bf16 x) { return x + x; }\n";

/// Finds out what the C compiler at this path can do; each thing that it is asked may take so
/// long.
///
/// # Errors
///
/// What is wrong with it. One that is silent once is asked no more.
pub(crate) fn probe(compiler: &Path, limit: Duration) -> Result<Abilities, Ailment> {
    let ask = |command: &mut Command, input: &str| {
        let answer = ask_within(command, input, limit);
        let answer = answer.map_err(|e| Ailment::Broken(format!("it cannot be started: {e}")))?;
        answer.ok_or(Ailment::Silent)
    };
    let (status, macros) = ask(command(compiler).args(ASK_MACROS), "")?;
    let known = family_of(&macros).filter(|_| status.success());
    let Some((family, major)) = known else {
        return Err(Ailment::Broken("it is neither a clang nor a gcc".into()));
    };
    let compiles = |language: &str, target: Option<&str>, text: &str| {
        let mut command = command(compiler);
        command.args(["-c", "-O1", "-ffreestanding", "-x", language, "-"]);
        command.args(["-o", output_name(family)]);
        command.args(target.map(|target| format!("--target={target}-linux-gnu")));
        Ok(ask(&mut command, text)?.0.success())
    };
    let c = compiles("c", None, C)?;
    let is_clang = family == Family::Clang;
    let mut targets = Vec::new();
    for target in ["x86_64", "aarch64"] {
        let is_own = macros.contains(&format!("#define __{target}__ 1"));
        // A gcc is for one machine.
        if is_clang && compiles("c", Some(target), C)? || !is_clang && is_own && c {
            targets.push(target);
        }
    }
    Ok(Abilities {
        family,
        major,
        c,
        llvm_ir: is_clang && compiles("ir", None, IR)?,
        targets,
        float16: compiles("c", None, FLOAT16)?,
        bfloat16: compiles("c", None, BFLOAT16)?,
    })
}

/// Runs a command that reads this; `None` where it takes too long. What it prints goes to
/// memory, so that nobody waits for those whom it leaves behind.
pub(super) fn ask_within(
    command: &mut Command,
    input: &str,
    limit: Duration,
) -> io::Result<Option<(ExitStatus, String)>> {
    let memory_file = |name| memfd_create(name, MemfdFlags::CLOEXEC).map(File::from);
    let (mut stdin, mut stdout) = (memory_file("svod-source")?, memory_file("svod-object")?);
    stdin.write_all(input.as_bytes())?;
    stdin.rewind()?;
    command.stdin(stdin).stdout(stdout.try_clone()?);
    command.stderr(memory_file("svod-said")?);
    // With those that it starts, so that all can be ended.
    let mut child = command.process_group(0).spawn()?;
    if !has_ended(&child, limit)? {
        end_group(&child);
        child.wait()?;
        return Ok(None);
    }
    let status = child.wait()?;
    let mut said = Vec::new();
    stdout.rewind()?;
    stdout.read_to_end(&mut said)?;
    Ok(Some((status, String::from_utf8_lossy(&said).into_owned())))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::thread;
    use std::time::Instant;

    use rustix::process::Pid;

    use super::*;

    fn script(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cc");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        (dir, path)
    }

    #[test]
    fn what_hangs_is_ended_with_all_that_it_started() {
        let (dir, path) = script("echo $$ > $0.pid; sleep 1000; true");
        let limit = Duration::from_millis(500);
        assert_eq!(probe(&path, limit), Err(Ailment::Silent));
        // Its group has nobody in it any more.
        let pid = fs::read_to_string(dir.path().join("cc.pid")).unwrap();
        let group = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        let is_gone = || rustix::process::test_kill_process_group(group).is_err();
        // Whoever adopted the sleeper takes note of its end when it likes.
        let end = Instant::now() + Duration::from_secs(20);
        while !is_gone() && Instant::now() < end {
            thread::yield_now();
        }
        assert!(is_gone());
    }

    #[test]
    fn what_is_no_compiler_is_told() {
        let broken = |path: &Path| match probe(path, Duration::from_secs(20)) {
            Err(Ailment::Broken(why)) => why,
            other => panic!("{other:?}"),
        };
        let (_dir, path) = script("exit 0");
        assert!(broken(&path).contains("neither a clang nor a gcc"));
        let (_dir, path) = script("echo '#define __clang_major__ 19'; exit 1");
        assert!(broken(&path).contains("neither a clang nor a gcc"));
        assert!(broken(Path::new("/no/such/cc")).contains("cannot be started"));
        // One that says who it is and does nothing.
        let (_dir, path) = script("case $1 in -dM) echo '#define __GNUC__ 99';; *) exit 1;; esac");
        let abilities = probe(&path, Duration::from_secs(20)).unwrap();
        assert_eq!((abilities.family, abilities.major), (Family::Gcc, 99));
        assert!(!abilities.c && !abilities.float16 && abilities.targets.is_empty());
    }
}
