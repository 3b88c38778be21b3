//! Rights taken away, for good, from processes that do what nobody vouches for.
//!
//! Whoever runs a bundle runs two kinds of code that its author wrote or steers: its kernels, and
//! compilers at work on its sources. A compiler reads the files that a source names, with `#include`,
//! `#embed` or `.incbin`, and a kernel does what it likes. Neither is stopped by checks, so that
//! each is given a process that cannot do more than it has to:
//!
//! - a kernel computes, and has no file, no socket and no other process ([`Rights::kernel`]);
//! - a compiler reads itself, the system's headers and the folder of its source, writes into one
//!   empty folder of its own, and has no network ([`Confinement`]). It may start programs, as gcc
//!   starts an assembler, which have no more rights than it has.
//!
//! What does it are seccomp, Landlock, no-new-privileges and limits of resources: rights that any
//! user may give up, so that no part of this needs a privilege, and none is left to root. What of
//! these a system has is tried ([`Protections`]), and where one lacks, nothing is run and the
//! error says which, unless less was admitted.
//!
//! **A compiler is started by a helper.** To ask for Landlock's rules takes memory and opens
//! files, which must not be done between `fork` and `exec` in a process with threads. So a
//! program is started that takes its own rights away and then becomes the compiler: this one
//! again, usually, whose `main` begins with [`enter`](crate::sandbox::enter). It is known by its name, `svod-helper`, and
//! its first argument, and never by the environment, which others may set.
//!
//! **What is left open.** That a file is there, and how long it is, can be seen wherever its
//! folder can be searched: Landlock watches what is opened. A compiler can read what lies in the
//! system's own folders for programs and headers, `/usr/lib` for example. It has as much time
//! and memory as its limits say, for each process, and may fill its folder meanwhile. And nothing
//! is said of how many threads a kernel has, nor of its memory: that is for whoever runs it.

mod compiler;
mod filter;
mod helper;
mod protections;
mod rights;
mod system_calls;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use compiler::Confined;
pub use helper::{Helper, one_heap};
pub(crate) use helper::{Mode, enter_with};
pub use protections::{Protection, Protections};
pub use rights::{Refused, Rights};
pub use system_calls::system_call_name;

use crate::Error;

/// How compilers are confined.
///
/// A confined compiler reads itself, the system's headers and libraries, and the folder of the
/// source, or of the bundle that the source is of. It writes into an empty folder that is made
/// for it, and removed after it. Of the environment it has the absolute folders of `PATH` and
/// `LD_LIBRARY_PATH`, by which it finds its own parts, and no more; it inherits no file but its source and the place for its
/// object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    helper: Helper,
    read: Vec<PathBuf>,
    limits: Limits,
    allow_less: bool,
}

/// What one process of a compiler may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long it may take; it is ended then, with all that it started. A minute, where nothing
    /// else is said. Where nobody waits any more it ends itself, two seconds of a processor's time
    /// later.
    pub time: Duration,
    /// How many bytes of addresses it may have; 4 GiB, where nothing else is said.
    pub memory: u64,
    /// How many bytes a file may have that it writes, and so its object; 256 MiB, where nothing
    /// else is said.
    pub file: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            time: Duration::from_secs(60),
            memory: 4 << 30,
            file: 256 << 20,
        }
    }
}

impl Confinement {
    /// Compilers are started by this helper, with the usual [limits](Limits).
    #[must_use]
    pub fn new(helper: Helper) -> Confinement {
        Confinement {
            helper,
            read: Vec::new(),
            limits: Limits::default(),
            allow_less: false,
        }
    }

    /// Lets compilers read what lies below a further folder, as one of headers that the runtime's
    /// own flags name.
    #[must_use]
    pub fn read(mut self, folder: impl Into<PathBuf>) -> Confinement {
        self.read.push(folder.into());
        self
    }

    /// What a compiler may take.
    #[must_use]
    pub const fn limits(mut self, limits: Limits) -> Confinement {
        self.limits = limits;
        self
    }

    /// Whether compilers are started also where the system lacks a protection, with those that it
    /// has; they are not where this is not called.
    #[must_use]
    pub const fn allow_less(mut self, allow: bool) -> Confinement {
        self.allow_less = allow;
        self
    }

    /// That this system can do so.
    ///
    /// # Errors
    ///
    /// [`Error::Confinement`], which names what is missing.
    pub fn check(&self) -> Result<(), Error> {
        if self.allow_less {
            return Ok(());
        }
        let less = "go on with less, which Confinement::allow_less admits";
        Protections::of_this_system().require(&Protection::ALL, "compilers", less)
    }

    /// How long a compiler may take.
    pub(crate) const fn time(&self) -> Duration {
        self.limits.time
    }

    /// The folders that every compiler may read.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &Path> {
        self.read.iter().map(PathBuf::as_path)
    }
}
