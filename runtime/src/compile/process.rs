//! A program that reads one thing and writes another, both as files in memory.
//!
//! A confined one leads a group of processes, which ends with it, or when its time is up: nothing
//! of what a source made a compiler do goes on after it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};
use tempfile::TempDir;

use crate::confine::{Confined, Confinement};

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

/// How glibc is told what its allocator is to do. Other C libraries do not look at it, and older
/// glibcs pass over what they do not know.
const TUNABLES: &str = "GLIBC_TUNABLES";

/// A compiler takes some tens of megabytes in small pieces, and ends soon. From huge pages, fetched
/// eight megabytes at a time, a kernel of `gpt` that compiles for 160 ms takes a third fewer page
/// faults. All kernels of `gpt`, from an empty cache, take 0.97 of the time in quiet (least of 31, in
/// turn) and 0.9 beside other work (medians of 21 and 25), those of `ocr_cls` 0.9 (median of 5), and
/// those of `mlp_train`, which are small, the same (clang 19; Linux 6.18, which gives huge pages to
/// who asks for them). Empty turns it off. Where pages are larger, huge ones may be of half a gigabyte.
const ALLOCATOR: &str = if cfg!(target_arch = "x86_64") {
    "glibc.malloc.hugetlb=1:glibc.malloc.top_pad=8388608:glibc.malloc.mmap_max=0"
} else {
    ""
};

/// How long it takes at most to see that a program has ended, where the system does not say so.
const NAP: Duration = Duration::from_millis(5);

/// How many bytes are kept of what a confined program prints.
const MOST_SAID: u64 = 1 << 20;

/// Why a program made nothing.
pub(super) enum Failure {
    /// It said why, or how it ended.
    Diagnostics(String),
    /// It could not be started.
    Start(io::Error),
    /// It could not be confined.
    Confine(String),
    /// The system could not do this for it.
    System(&'static str, io::Error),
}

/// A compiler about to be started, as it is.
pub(super) fn command(compiler: &Path) -> Command {
    let mut command = Command::new(compiler);
    for name in NOT_INHERITED {
        command.env_remove(name);
    }
    plain(&mut command, std::env::var_os(TUNABLES));
    command
}

/// Diagnostics are shown to people who may pipe them anywhere. Of the allocator, what was `said` comes
/// last, and wins.
fn plain(command: &mut Command, said: Option<OsString>) {
    command.env("TERM", "dumb").env("LC_ALL", "C");
    let mut tunables = OsString::from(ALLOCATOR);
    if let Some(said) = said {
        tunables.push(":");
        tunables.push(said);
    }
    command.env(TUNABLES, tunables);
}

/// A compiler about to be started, confined or not.
pub(super) struct Process {
    /// To which arguments are added.
    pub(super) command: Command,
    confined: Option<Limited>,
}

/// What a confined program has of its own.
struct Limited {
    /// What it may write into: there until it has ended.
    _folder: TempDir,
    time: Duration,
}

impl Process {
    /// The compiler; a confined one may read what lies below this folder.
    pub(super) fn new(
        compiler: &Path,
        confinement: Option<&Confinement>,
        read: Option<&Path>,
    ) -> Result<Process, Failure> {
        let Some(confinement) = confinement else {
            return Ok(Process {
                command: command(compiler),
                confined: None,
            });
        };
        let confined = confinement.compiler(compiler, read);
        let Confined {
            mut command,
            folder,
        } = confined.map_err(|e| Failure::System("make a folder for a compiler", e))?;
        // It inherits nothing, and so not this.
        plain(&mut command, None);
        command.process_group(0);
        Ok(Process {
            command,
            confined: Some(Limited {
                _folder: folder,
                time: confinement.time(),
            }),
        })
    }

    /// Runs it with the pieces of `input` as its standard input, and returns what it wrote to
    /// its standard output. It reads and writes at its own pace.
    pub(super) fn run(mut self, input: &[&[u8]]) -> Result<Vec<u8>, Failure> {
        let mut source = memory_file("svod-source")?;
        input
            .iter()
            .try_for_each(|piece| source.write_all(piece))
            .and_then(|()| source.rewind())
            .map_err(|e| Failure::System("write to a file in memory", e))?;
        let mut made = memory_file("svod-object")?;
        self.command.stdin(source).stdout(shared(&made)?);
        let program = self.command.get_program().display();
        let _process = tracing::debug_span!("process", program = %program).entered();
        match &self.confined {
            Some(limited) => run_within(&mut self.command, limited.time)?,
            None => run_out(&mut self.command)?,
        }
        let mut bytes = Vec::new();
        made.rewind()
            .and_then(|()| made.read_to_end(&mut bytes))
            .map_err(|e| Failure::System("read back what was written", e))?;
        Ok(bytes)
    }
}

fn memory_file(name: &str) -> Result<File, Failure> {
    let file = memfd_create(name, MemfdFlags::CLOEXEC).map(File::from);
    file.map_err(|e| Failure::System("create a file in memory", e.into()))
}

fn shared(file: &File) -> Result<File, Failure> {
    let shared = file.try_clone();
    shared.map_err(|e| Failure::System("share a file in memory", e))
}

/// Runs a program to its end, however long that takes.
fn run_out(command: &mut Command) -> Result<(), Failure> {
    let output = command.stderr(Stdio::piped()).output();
    let output = output.map_err(Failure::Start)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::Diagnostics(said(&output.stderr, output.status)))
}

/// Runs a confined program, which leads a group, to its end or for so long. What it prints goes
/// to memory, so that nobody waits for those whom it leaves behind.
fn run_within(command: &mut Command, time: Duration) -> Result<(), Failure> {
    let mut stderr = memory_file("svod-said")?;
    command.stderr(shared(&stderr)?);
    let helper = command.get_program().display().to_string();
    let mut child = command
        .spawn()
        .map_err(|e| Failure::Confine(format!("{helper} cannot be started: {e}")))?;
    let ended = has_ended(&child, time);
    // Before it is waited for, as long as its number is no other's: it, and those whom it left.
    end_group(&child);
    let status = child.wait();
    let (ended, status) = ended
        .and_then(|ended| Ok((ended, status?)))
        .map_err(|e| Failure::System("wait for a program", e))?;
    if ended && status.success() {
        return Ok(());
    }
    let mut printed = Vec::new();
    stderr
        .rewind()
        .and_then(|()| stderr.take(MOST_SAID).read_to_end(&mut printed))
        .map_err(|e| Failure::System("read what a program printed", e))?;
    if !ended {
        let time = time.as_secs_f64();
        let printed = String::from_utf8_lossy(&printed);
        return Err(Failure::Diagnostics(format!(
            "{printed}it was ended, as it took longer than {time} s"
        )));
    }
    let said = said(&printed, status);
    Err(match Confined::complaint(status.code(), &said) {
        Some(complaint) => Failure::Confine(complaint.to_owned()),
        None => Failure::Diagnostics(said),
    })
}

/// Ends the processes of the group that a child leads.
pub(super) fn end_group(leader: &Child) {
    let group = i32::try_from(leader.id()).ok().and_then(Pid::from_raw);
    // That there is none left is what was wanted.
    let _ = group.map(|group| kill_process_group(group, Signal::KILL));
}

/// Waits for a child to end, for so long; whether it has. It is still to be waited for.
pub(super) fn has_ended(child: &Child, limit: Duration) -> io::Result<bool> {
    let start = Instant::now();
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::NotFound)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).ok();
    loop {
        let left = limit.saturating_sub(start.elapsed());
        let has_ended = match &process {
            Some(process) => becomes_readable(process, left)?,
            // Before Linux 5.3 there is nothing to wait for that can also be given up.
            None => {
                thread::sleep(left.min(NAP));
                let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
                waitid(WaitId::Pid(pid), look)?.is_some()
            }
        };
        if has_ended || left.is_zero() {
            return Ok(has_ended);
        }
    }
}

fn becomes_readable(file: &OwnedFd, within: Duration) -> io::Result<bool> {
    let within = Timespec::try_from(within).ok();
    let mut events = [PollFd::new(file, PollFlags::IN)];
    match poll(&mut events, within.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
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
