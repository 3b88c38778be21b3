//! The rights of native code that nobody vouches for.

use std::fmt;
use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::BpfProgram;

use super::filter;
use super::protections::{Protection, Protections, no_new_privileges, with_cause};
use crate::Error;

/// The rights that are left to a process before it runs code: prepared where there is time to,
/// [applied](Rights::apply) where there is none.
#[derive(Clone, Debug)]
pub struct Rights {
    no_new_privileges: bool,
    limits: bool,
    /// Filters of system calls, in the order in which they are added.
    filters: Vec<BpfProgram>,
}

/// What the system refused of [`Rights::apply`].
#[derive(Debug)]
pub struct Refused {
    /// Which protection.
    pub protection: Protection,
    /// What the system said.
    pub source: io::Error,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the system refused {}: {}", self.protection, self.source)
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl Rights {
    /// The rights of a kernel: to compute.
    ///
    /// Such a process has its memory, which it may ask the system to add to, its threads, to which
    /// it may add, clocks, random numbers, and the descriptors that it has: it reads and writes
    /// them, sends and receives, and closes all but the first three. It gets no other, so that
    /// there is no file and no socket for it; it starts no process, signals none, itself among
    /// them (so `abort` is named as `tgkill`), and leaves no core. The handlers of signals below
    /// 32 stay as they are. Each call that is refused is a `SIGSYS`, whose handler finds its
    /// number in `si_syscall`, and its name by [`system_call_name`](super::system_call_name);
    /// `clone3` alone is said not to be there, as libc goes on with `clone` then. What would poll
    /// has to read instead.
    ///
    /// A file that it has open it reads, and does not write: its standard error is to be a pipe, or
    /// nothing, as a byte written to a file is a `SIGXFSZ`.
    ///
    /// What the descriptors are is the caller's matter. A socket without a connection sends to
    /// whatever is bound in the system: let it be a pair, and one of streams or of packets in
    /// sequence.
    ///
    /// libc has reasons of its own to open files: to find how many CPUs there are, to shrink the
    /// heap of a thread, to look for a library or a message. What can be asked before is to be
    /// asked before; [`one_heap`](super::one_heap) sees to the heaps. So has a [`Pool`], which is
    /// to be told with [`PoolBuilder::spin`] how long its threads spin, or it looks for CPUs with
    /// its first run.
    ///
    /// [`Pool`]: crate::pool::Pool
    /// [`PoolBuilder::spin`]: crate::pool::PoolBuilder::spin
    ///
    /// # Errors
    ///
    /// [`Error::Confinement`] on an architecture that no filter is written for.
    pub fn kernel() -> Result<Rights, Error> {
        let failed = |e: seccompiler::Error| Error::confinement("kernels", with_cause(&e));
        Ok(Rights {
            no_new_privileges: true,
            limits: true,
            // The second would refuse to add the first.
            filters: vec![
                filter::absent().map_err(failed)?,
                filter::kernel().map_err(failed)?,
            ],
        })
    }

    /// The same rights, as far as a system takes others away that has only these protections.
    #[must_use]
    pub fn as_far_as(mut self, there: &Protections) -> Rights {
        self.no_new_privileges &= there.has(Protection::NoNewPrivileges);
        self.limits &= there.has(Protection::Limits);
        if !there.has(Protection::Seccomp) {
            self.filters.clear();
        }
        self
    }

    /// Takes all other rights from this process, for good. It is to have one thread, as filters
    /// are a thread's, and those are inherited that are there before a thread is.
    ///
    /// It makes system calls and nothing else: no memory is allocated and no lock taken, so that
    /// a forked child of a process with threads may call it.
    ///
    /// # Errors
    ///
    /// What the system refused. The process has less rights than before all the same.
    pub fn apply(&self) -> Result<(), Refused> {
        let refused = |protection| move |source| Refused { protection, source };
        if self.no_new_privileges {
            no_new_privileges().map_err(refused(Protection::NoNewPrivileges))?;
        }
        if self.limits {
            // No descriptor more than there are, also where calls are not filtered.
            for limited in [Resource::Core, Resource::Fsize, Resource::Nofile] {
                limit(limited, 0).map_err(refused(Protection::Limits))?;
            }
        }
        for filter in &self.filters {
            add_filter(filter).map_err(refused(Protection::Seccomp))?;
        }
        Ok(())
    }
}

/// Limits a resource of this process, for good.
pub(super) fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let most = Some(most);
    let limit = Rlimit {
        current: most,
        maximum: most,
    };
    Ok(setrlimit(resource, limit)?)
}

/// Adds a filter to this thread's.
pub(super) fn add_filter(filter: &[seccompiler::sock_filter]) -> io::Result<()> {
    seccompiler::apply_filter(filter).map_err(|error| match error {
        seccompiler::Error::Prctl(source) | seccompiler::Error::Seccomp(source) => source,
        _ => io::ErrorKind::InvalidInput.into(),
    })
}
