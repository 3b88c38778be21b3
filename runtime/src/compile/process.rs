//! A program that reads one thing and writes another, both as files in memory.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};

/// What would let the environment decide what a source includes and who compiles
/// it.
const NOT_INHERITED: &[&str] = &[
    "CPATH",
    "C_INCLUDE_PATH",
    "COMPILER_PATH",
    "GCC_EXEC_PREFIX",
    "CCC_OVERRIDE_OPTIONS",
    "SOURCE_DATE_EPOCH",
];

/// Why a program made nothing.
pub(super) enum Failure {
    /// It said why, or how it ended.
    Diagnostics(String),
    /// It could not be started.
    Start(io::Error),
    /// The system could not do this for it.
    System(&'static str, io::Error),
}

/// A compiler about to be started.
pub(super) fn command(compiler: &Path) -> Command {
    let mut command = Command::new(compiler);
    // Diagnostics are shown to people who may pipe them anywhere.
    command.env("TERM", "dumb").env("LC_ALL", "C");
    for name in NOT_INHERITED {
        command.env_remove(name);
    }
    command
}

/// Runs a program with the pieces of `input` as its standard input, and returns what it wrote
/// to its standard output. It reads and writes at its own pace.
pub(super) fn run(mut command: Command, input: &[&[u8]]) -> Result<Vec<u8>, Failure> {
    let memory_file = |name: &str| {
        let file = memfd_create(name, MemfdFlags::CLOEXEC).map(File::from);
        file.map_err(|e| Failure::System("create a file in memory", e.into()))
    };
    let mut source = memory_file("svod-source")?;
    input
        .iter()
        .try_for_each(|piece| source.write_all(piece))
        .and_then(|()| source.rewind())
        .map_err(|e| Failure::System("write to a file in memory", e))?;
    let mut made = memory_file("svod-object")?;
    let stdout = made
        .try_clone()
        .map_err(|e| Failure::System("share a file in memory", e))?;
    command.stdin(source).stdout(stdout).stderr(Stdio::piped());
    let program = command.get_program().display();
    let _process = tracing::debug_span!("process", program = %program).entered();
    let output = command.output().map_err(Failure::Start)?;
    if !output.status.success() {
        return Err(Failure::Diagnostics(said(&output.stderr, output.status)));
    }
    let mut bytes = Vec::new();
    made.rewind()
        .and_then(|()| made.read_to_end(&mut bytes))
        .map_err(|e| Failure::System("read back what was written", e))?;
    Ok(bytes)
}

/// All that a program printed, and how it ended where that says more.
fn said(stderr: &[u8], status: ExitStatus) -> String {
    let mut said = String::from_utf8_lossy(stderr).into_owned();
    if said.trim().is_empty() {
        said = format!("it printed nothing and ended with {status}");
    } else if status.signal().is_some() {
        said = format!("{}\nit ended with {status}", said.trim_end());
    }
    said
}
