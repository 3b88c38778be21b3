//! A run that may end by a signal, in a process of its own.
//!
//! A kernel that touches an inaccessible page takes its process with it. So the
//! command starts itself again, with the same arguments and an option that no help
//! mentions, and waits. The second process has everything of the first one's but
//! standard input, which is a file in memory: there it notes what it is about to do,
//! for the first one to read if the second ends by a signal, or does one thing for too long.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, getppid, pidfd_open, set_parent_process_death_signal,
};
use svod_runtime::bundle::Bundle;
use svod_runtime::plan::{Instance, Launch, Op, Plan, Side};
use svod_runtime::{Error, Guard};

use crate::{Failure, Outcome, show};

/// Where in the notes the op is; the recorded test is before it, and the side of a comparison
/// behind it. Each is a number of 8 bytes, one more than what it counts, so that 0 is none.
const OP: u64 = 8;
const SIDE: u64 = 16;

/// How many bytes that is.
const NOTES: usize = 24;

/// A comparison that is watched.
pub(crate) struct Sides {
    /// What was said of each side.
    pub(crate) said: [String; 2],
    /// How long an op, or a whole run, may take.
    pub(crate) limit: Duration,
}

/// How the second process ended.
#[derive(Clone, Copy)]
enum End {
    Signal(i32),
    /// It was ended, as it did one thing for so long.
    Limit(Duration),
}

/// Does in a second process what the command was asked to do, with the bundle in this folder.
pub(crate) fn run(bundle: &Path, guard: Guard, sides: Option<Sides>) -> Outcome {
    let notes = memfd_create("svod-notes", MemfdFlags::CLOEXEC).map_err(io::Error::from);
    let notes = File::from(notes.map_err(system("create a file in memory"))?);
    let mut words = std::env::args_os().skip(1);
    let program = std::env::current_exe().map_err(system("find this program's file"))?;
    let mut child = Command::new(program)
        .args(words.next()) // `run`, `diff` or `verify`, whose option comes next
        .arg(format!("--watched-by={}", std::process::id()))
        .args(words)
        .stdin(
            notes
                .try_clone()
                .map_err(system("share a file in memory"))?,
        )
        .spawn()
        .map_err(system("start this program a second time"))?;
    let doing = "wait for what this program started";
    let limit = sides.as_ref().map(|sides| sides.limit);
    let too_long = match limit {
        Some(limit) => !moves_on(&child, &notes, limit).map_err(system(doing))?,
        None => false,
    };
    if too_long {
        child.kill().map_err(system("end what takes too long"))?;
    }
    let status = child.wait().map_err(system(doing))?;
    let end = match (status.code(), limit.filter(|_| too_long)) {
        (Some(code), _) => return Err(Failure::Ended(code)),
        (None, Some(limit)) => End::Limit(limit),
        (None, None) => End::Signal(status.signal().unwrap_or_default()),
    };
    let bundle = Bundle::open(bundle)?;
    let said = sides.map(|sides| sides.said);
    let text = message(end, &notes, bundle.plan(), guard, said);
    Err(Failure::Crash(text))
}

/// Waits for a process, as long as no side has one op, or one run, for longer than the limit. Returns
/// whether it has ended. What it does in between, such as compiling and writing, takes its time.
fn moves_on(child: &Child, notes: &File, limit: Duration) -> io::Result<bool> {
    /// How often the notes are looked at: a look takes a microsecond.
    const LOOK: Duration = Duration::from_millis(50);
    let Ok(process) = pidfd_open(Pid::from_child(child), PidfdFlags::empty()) else {
        // The system lacks it: there is no limit.
        return Ok(true);
    };
    let each = LOOK.min(limit);
    let look = Timespec::try_from(each).map_err(io::Error::other)?;
    // Not by the clock, which goes on while this program is stopped.
    let (mut noted, mut waited) = ([0; NOTES], Duration::ZERO);
    loop {
        let mut ended = [PollFd::new(&process, PollFlags::IN)];
        match poll(&mut ended, Some(&look)) {
            Ok(0) | Err(Errno::INTR) => {}
            done => return done.map(|_| true).map_err(io::Error::from),
        }
        let mut now = [0; NOTES];
        // It is written by then, or not even begun.
        let _ = notes.read_exact_at(&mut now, 0);
        waited += each;
        if now != noted || now[SIDE as usize..] == [0; 8] {
            (noted, waited) = (now, Duration::ZERO);
        } else if waited >= limit {
            return Ok(false);
        }
    }
}

fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::System {
        doing: doing.into(),
        source,
    }
}

/// What is known of a run that did not end by itself.
fn message(
    end: End,
    notes: &File,
    plan: &Plan,
    guard: Guard,
    sides: Option<[String; 2]>,
) -> String {
    let noted = |at| {
        let mut bytes = [0; 8];
        // What was never noted cannot be read.
        notes.read_exact_at(&mut bytes, at).ok()?;
        let number = usize::try_from(u64::from_le_bytes(bytes)).ok()?;
        number.checked_sub(1)
    };
    let memory = [Signal::SEGV, Signal::BUS].map(Signal::as_raw);
    let memory = matches!(end, End::Signal(signal) if memory.contains(&signal));
    let ended = match end {
        End::Signal(signal) => name(signal),
        End::Limit(limit) => format!("no end after {limit:?} (--time-limit)"),
    };
    let test = noted(0)
        .map(|test| format!("test {test}, "))
        .unwrap_or_default();
    let side = noted(SIDE).map(|side| {
        let said = sides.and_then(|sides| sides.into_iter().nth(side));
        let said = said.filter(|said| !said.is_empty());
        let said = said.map(|said| format!(" (`{said}`)")).unwrap_or_default();
        let name = if side == 0 { "left" } else { "right" };
        format!("the {name} side{said}")
    });
    let Some(op) = noted(OP) else {
        return match side {
            Some(side) => format!("{ended} in {test}a whole run of {side}"),
            None => format!("the run was ended by {ended} outside of all ops"),
        };
    };
    let side = side.map(|side| format!(" on {side}")).unwrap_or_default();
    let mut text = format!("{ended} in {test}ops[{op}]{side}: ");
    match plan.ops().get(op) {
        Some(Op::Launch(launch)) => {
            let kernel = &plan.kernels()[launch.kernel];
            text += &format!("kernel `{}` ", kernel.entry);
            text += match end {
                End::Limit(_) => "did not return",
                End::Signal(_) if memory => "touched memory that it may not",
                End::Signal(_) => "ended the process",
            };
            text += &arguments(plan, launch);
            text += match guard {
                Guard::Off => "",
                Guard::End => {
                    "\neach ends before memory that cannot be touched, as closely as its alignment \
                     allows; constants cannot be written"
                }
                Guard::Start => {
                    "\neach begins behind memory that cannot be touched; constants cannot be written"
                }
            };
        }
        Some(Op::Copy { .. }) => text += "a copy",
        Some(Op::Fill { .. }) => text += "a fill",
        Some(Op::Host(_)) => text += "a host function",
        None => text += "an op that the plan no longer has",
    }
    text
}

/// A line for each argument of a launch.
fn arguments(plan: &Plan, launch: &Launch) -> String {
    let params = plan.kernels()[launch.kernel].signature.buffers();
    let lines = params
        .zip(&launch.args)
        .enumerate()
        .map(|(i, (param, arg))| {
            let buffer = &plan.buffers()[arg.buffer];
            let part = if arg.bytes == buffer.bytes {
                String::new()
            } else {
                format!(", bytes {} to {}", arg.offset, arg.offset + arg.bytes)
            };
            format!(
                "\nargument {i}: {} {}, {} of {}{part}, access {}",
                buffer.role.name(),
                plan.buffer_label(arg.buffer),
                show::count(param.len, "element"),
                param.dtype,
                param.access.name(),
            )
        });
    lines.collect()
}

fn name(signal: i32) -> String {
    let names = [
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::ILL, "SIGILL"),
        (Signal::INT, "SIGINT"),
        (Signal::KILL, "SIGKILL"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::TERM, "SIGTERM"),
        (Signal::TRAP, "SIGTRAP"),
    ];
    let found = names
        .into_iter()
        .find(|(known, _)| known.as_raw() == signal);
    found.map_or_else(|| format!("signal {signal}"), |(_, name)| name.to_owned())
}

/// The second process's side: it notes where it is, if anyone watches.
#[derive(Default)]
pub(crate) struct Notes {
    file: Option<Arc<File>>,
}

impl Notes {
    /// Of a process that is watched by the process `parent`: it ends with that one.
    pub(crate) fn new(watched_by: Option<i32>) -> Result<Notes, Failure> {
        let Some(parent) = watched_by else {
            return Ok(Notes::default());
        };
        set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|e| system("end with the process that watches")(e.into()))?;
        if getppid().map(Pid::as_raw_pid) != Some(parent) {
            let message = "--watched-by is for this program alone, which is not what started it";
            return Err(Failure::Usage(message.into()));
        }
        let file = io::stdin().as_fd().try_clone_to_owned();
        let file = File::from(file.map_err(system("find the file of notes"))?);
        file.write_all_at(&[0; NOTES], 0)
            .map_err(system("write to the file of notes"))?;
        Ok(Notes {
            file: Some(Arc::new(file)),
        })
    }

    /// An instance's ops are noted from now on.
    pub(crate) fn observe(&self, instance: &mut Instance) {
        if let Some(file) = self.file.clone() {
            instance.set_observer(move |op| note(&file, OP, Some(op)));
        }
    }

    /// This side of a comparison is at this op.
    pub(crate) fn at(&self, op: Option<usize>, side: Option<Side>) {
        if let Some(file) = &self.file {
            note(file, OP, op);
            note(
                file,
                SIDE,
                side.map(|side| usize::from(side == Side::Right)),
            );
        }
    }

    /// A recorded test begins, or none.
    pub(crate) fn begin(&self, test: Option<usize>) {
        if let Some(file) = &self.file {
            note(file, 0, test);
        }
    }

    /// No op is under way any more.
    pub(crate) fn end(&self) {
        if let Some(file) = &self.file {
            note(file, OP, None);
        }
    }
}

fn note(file: &File, at: u64, number: Option<usize>) {
    let number = number.map_or(0, |n| n as u64 + 1);
    // It could be written before; now there is nobody to tell that it cannot.
    let _ = file.write_all_at(&number.to_le_bytes(), at);
}
