//! How a sandboxed launch, or run, ended.

use std::fmt;
use std::time::Duration;

use crate::Error;

/// How a sandboxed launch, or run, ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// It did what it was asked to; what it wrote is in its arguments.
    Completed {
        /// How long the kernel, or the plan, took, without the sandbox.
        time: Duration,
    },
    /// It came to its end, and said that it failed, or has written beside an argument:
    /// [`Error::KernelStatus`] or [`Error::Overrun`]; or it never began, for an error of its own.
    Failed(Error),
    /// It ended its process.
    Crashed(Box<Crash>),
    /// It took longer than it may, and was stopped.
    TimedOut {
        /// Which limit it has reached.
        limit: TimeLimit,
        /// The limit.
        after: Duration,
        /// Where it was.
        at: Place,
    },
    /// It took more memory than it may, or than the system has, and was stopped.
    OutOfMemory {
        /// The limit in bytes, where it is what was reached.
        limit: Option<usize>,
        /// Where it was.
        at: Place,
    },
    /// It asked the system for what it has no right to, and was stopped.
    Denied {
        /// The system call.
        system_call: String,
        /// Where it was.
        at: Place,
    },
}

/// Which limit on time was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimeLimit {
    /// That on the clock.
    Wall,
    /// That on the processors' time.
    Cpu,
}

/// Where a child was when it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// The kernel that was running; empty where none was, or where that is not known.
    pub kernel: String,
    /// The op of the plan, where it was one.
    pub op: Option<usize>,
    /// The grid index of the call; 0 without an index.
    pub index: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kernel.as_str() {
            "" => f.write_str("at a place that is not known")?,
            kernel => write!(f, "in kernel `{kernel}`")?,
        }
        if let Some(op) = self.op {
            write!(f, " of ops[{op}]")?;
        }
        match self.index {
            0 => Ok(()),
            index => write!(f, " at grid index {index}"),
        }
    }
}

/// A kernel that ended its process.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Crash {
    /// What it did.
    pub fault: Fault,
    /// The signal that came of it; 0 where it exited by itself.
    pub signal: i32,
    /// Which kernel, and where in the grid.
    pub at: Place,
    /// Where in the code, where that is known.
    pub code: Option<CodePlace>,
    /// What it touched, where it touched something.
    pub access: Option<Access>,
}

/// What a kernel did that ended its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// It touched memory that it may not: none is there, or it may not be written.
    Memory,
    /// It used more stack than it has.
    StackOverflow,
    /// It came to an instruction that this processor does not have, or that stands where no
    /// program should come to.
    IllegalInstruction,
    /// It divided an integer by zero.
    DivisionByZero,
    /// A quotient of integers that does not fit: the least number by -1.
    DivisionOverflow,
    /// It used an address with an instruction that asks for more alignment than it has.
    Misaligned,
    /// It jumped to where no code is.
    Jump,
    /// It called `abort`, or came to a failed assertion.
    Abort,
    /// It came to a breakpoint.
    Breakpoint,
    /// It used the floating-point unit in a way that was forbidden to it.
    FloatingPoint,
    /// It sent itself a signal, or somebody did.
    Killed,
    /// It ended its process with this status, as if it were a program.
    Exited(i32),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Fault::Memory => "touched memory that it may not",
            Fault::StackOverflow => "used more stack than it has",
            Fault::IllegalInstruction => "came to an illegal instruction",
            Fault::DivisionByZero => "divided an integer by zero",
            Fault::DivisionOverflow => "divided integers with a quotient that does not fit",
            Fault::Misaligned => "used an address that is not as aligned as its instruction needs",
            Fault::Jump => "jumped to where no code is",
            Fault::Abort => "aborted",
            Fault::Breakpoint => "came to a breakpoint",
            Fault::FloatingPoint => "raised a floating-point exception",
            Fault::Killed => "was ended by a signal that it sent itself, or somebody sent",
            Fault::Exited(status) => return write!(f, "ended its process with status {status}"),
        };
        f.write_str(text)
    }
}

/// A place in a kernel's code.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CodePlace {
    /// The function.
    pub function: String,
    /// How many bytes into it, as [`svod_runtime::link::disassembly`](crate::link::disassembly)
    /// counts them.
    pub offset: u64,
    /// The instruction, where it could be read.
    pub instruction: Option<String>,
}

impl fmt::Display for CodePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`+{:#x}", self.function, self.offset)?;
        match &self.instruction {
            Some(text) => write!(f, " ({text})"),
            None => Ok(()),
        }
    }
}

/// What an instruction touched.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Access {
    /// The address.
    pub address: u64,
    /// How many bytes, where that is known.
    pub bytes: Option<usize>,
    /// Whether it was a write or else a read, where that is known.
    pub write: Option<bool>,
    /// The argument that it lies in or near.
    pub argument: Option<ArgumentPlace>,
}

/// A place in an argument, or beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArgumentPlace {
    /// Which argument, counted from 0 among the buffer arguments.
    pub argument: usize,
    /// Which element: below 0 before the first, and from `len` on behind the last.
    pub element: i64,
    /// How many elements there are.
    pub len: usize,
    /// How many bytes outside of it the nearest byte is that was touched there: 1 is the byte next
    /// to it; 0 where the access is within, and was forbidden.
    pub outside: u64,
    /// The plan's buffer, where it is one.
    pub buffer: Option<String>,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.write {
            Some(true) => "wrote",
            Some(false) => "read",
            None => "touched",
        };
        let Some(place) = &self.argument else {
            return write!(f, "it {verb} at {:#x}, near no argument", self.address);
        };
        write!(
            f,
            "it {verb} element {} of argument {}",
            place.element, place.argument
        )?;
        if let Some(buffer) = &place.buffer {
            write!(f, " ({buffer})")?;
        }
        let bytes = |n: u64| if n == 1 { "byte" } else { "bytes" };
        match place.outside {
            0 if self.write == Some(true) => {
                f.write_str(", which its signature says that it does not write")
            }
            0 => f.write_str(", which is inside of it"),
            n => {
                let side = if place.element < 0 {
                    "before its start"
                } else {
                    "past its end"
                };
                write!(
                    f,
                    ", which has {} elements: {n} {} {side}",
                    place.len,
                    bytes(n)
                )
            }
        }
    }
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at.kernel.as_str() {
            "" => f.write_str("what ran in the sandbox ")?,
            kernel => write!(f, "kernel `{kernel}` ")?,
        }
        write!(f, "{}", self.fault)?;
        if let Some(op) = self.at.op {
            write!(f, " in ops[{op}]")?;
        }
        if self.at.index > 0 {
            write!(f, " at grid index {}", self.at.index)?;
        }
        if let Some(access) = &self.access {
            write!(f, ": {access}")?;
        }
        if let Some(code) = &self.code {
            write!(f, "; at {code}")?;
        }
        match self.signal {
            0 => Ok(()),
            signal => write!(f, " [{}]", signal_name(signal)),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Completed { time } => write!(f, "completed in {time:?}"),
            Outcome::Failed(error) => write!(f, "{error}"),
            Outcome::Crashed(crash) => write!(f, "{crash}"),
            Outcome::TimedOut { limit, after, at } => {
                let what = match limit {
                    TimeLimit::Wall => "on the clock",
                    TimeLimit::Cpu => "of the processors' time",
                };
                write!(
                    f,
                    "stopped {at}, after {after:?} {what}, which is its limit"
                )
            }
            Outcome::OutOfMemory { limit, at } => match limit {
                Some(limit) => write!(
                    f,
                    "stopped {at}, with more memory taken than the {limit} bytes that are its limit"
                ),
                None => write!(f, "stopped {at}, for want of memory"),
            },
            Outcome::Denied { system_call, at } => write!(
                f,
                "stopped {at}, as it asked the system for `{system_call}`, to which it has no right"
            ),
        }
    }
}

impl Outcome {
    /// Whether it did what it was asked to.
    #[must_use]
    pub const fn is_completed(&self) -> bool {
        matches!(self, Outcome::Completed { .. })
    }

    /// The time of what completed, and of everything else an error that says how it ended.
    ///
    /// # Errors
    ///
    /// [`Error::Sandboxed`], or what it failed with.
    pub fn into_result(self) -> Result<Duration, Error> {
        match self {
            Outcome::Completed { time } => Ok(time),
            Outcome::Failed(error) => Err(error),
            other => Err(Error::Sandboxed(Box::new(other))),
        }
    }
}

/// The outcome of a list of one launch.
pub(super) fn only(mut outcomes: Vec<Outcome>) -> Result<Outcome, Error> {
    let outcome = outcomes.pop();
    outcome.ok_or_else(|| Error::run("a launch that came to nothing"))
}

/// The outcomes of a list, each of which is to be there.
pub(super) fn all(outcomes: Vec<Option<Outcome>>) -> Vec<Outcome> {
    let lost = || Outcome::Failed(Error::run("the sandbox has lost a launch"));
    let outcomes = outcomes.into_iter();
    outcomes
        .map(|outcome| outcome.unwrap_or_else(lost))
        .collect()
}

/// A signal's name, such as `SIGSEGV`.
#[must_use]
pub fn signal_name(signal: i32) -> String {
    let names = [
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGALRM, "SIGALRM"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGINT, "SIGINT"),
        (libc::SIGKILL, "SIGKILL"),
        (libc::SIGPIPE, "SIGPIPE"),
        (libc::SIGPROF, "SIGPROF"),
        (libc::SIGQUIT, "SIGQUIT"),
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGSTOP, "SIGSTOP"),
        (libc::SIGSYS, "SIGSYS"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGTRAP, "SIGTRAP"),
        (libc::SIGUSR1, "SIGUSR1"),
        (libc::SIGUSR2, "SIGUSR2"),
        (libc::SIGXCPU, "SIGXCPU"),
        (libc::SIGXFSZ, "SIGXFSZ"),
    ];
    let found = names.into_iter().find(|(number, _)| *number == signal);
    found.map_or_else(|| format!("signal {signal}"), |(_, name)| name.to_owned())
}
