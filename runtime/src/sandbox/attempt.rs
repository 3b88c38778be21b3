//! A forked child that does something, and what became of it.

use std::ffi::c_void;
use std::sync::atomic::Ordering;

use super::child::{self, Ended};
use super::control::Region;
use super::explain::{Scene, Seen, Site, Spot, explain, unrecorded};
use super::outcome::{Crash, Fault, Outcome, Place, TimeLimit};
use super::{CrashIsolation, fault};
use crate::Error;
use crate::dispatch::Kernel;
use crate::memory::View;
use crate::pool::DefaultFloatEnv;

/// Beyond so many times what a child may have of memory, and so many bytes, it is refused
/// addresses: a kernel that asks for memory and does not touch it.
const ADDRESSES: (usize, usize) = (2, 64 << 20);

/// What was running when a child ended.
pub(super) struct Suspect<'a> {
    pub(super) kernel: String,
    pub(super) op: Option<usize>,
    pub(super) sites: &'a [Site],
    /// The kernels in whose code it may have ended.
    pub(super) code: Vec<&'a Kernel>,
    /// What it worked on, where this process sees what it has left there.
    pub(super) shared: Vec<View<'a>>,
}

impl Suspect<'_> {
    /// So many bytes, up to 8, at an address in what is shared, as a number.
    fn peek(&self, address: u64, bytes: usize) -> Option<u64> {
        self.shared.iter().find_map(|view| {
            let at = address.checked_sub(view.start().addr().get() as u64)?;
            let at = usize::try_from(at).ok()?;
            let found = view.as_bytes().get(at..at.checked_add(bytes)?)?;
            let mut word = [0; 8];
            word.get_mut(..bytes)?.copy_from_slice(found);
            Some(u64::from_le_bytes(word))
        })
    }
}

impl CrashIsolation {
    /// Has a child do `body`, on a stack of its own, and waits for its end. If it did not come to
    /// the end of it: how it ended, and [at](super::control::Control::at) which of what it had to
    /// do; at the first, where it had not begun. It begins at most `most` times with something that
    /// has its own limits.
    ///
    /// `body` runs in the child, and must do only what a handler of signals may: load, store, ask
    /// the system, and run what nobody vouches for.
    pub(super) fn attempt(
        &self,
        region: &Region,
        most: usize,
        body: &mut dyn FnMut(),
    ) -> Result<Option<(Ended, usize)>, Error> {
        region.clear();
        let limits = self.limits();
        let addresses = match (limits.memory, child::addresses()) {
            (Some(limit), Some(now)) => {
                let more = limit.saturating_mul(ADDRESSES.0);
                Some(now.saturating_add(more).saturating_add(ADDRESSES.1))
            }
            _ => None,
        };
        let parent = std::process::id();
        // SAFETY: the child sets itself up, does what the caller vouches for, and ends, by nothing
        // but system calls, loads and stores. It has the region, and with it the stack, to itself.
        let mut child = unsafe {
            child::fork(|| {
                set_up(region, parent, addresses);
                do_on_own_stack(region, body);
            })
        }?;
        let ended = child.wait(region.control(), limits, most)?;
        let control = region.control();
        let done = control.done.load(Ordering::Acquire) != 0 && ended == Ended::Exited(0);
        let at = control.at.load(Ordering::Acquire) as usize;
        Ok((!done).then_some((ended, at.saturating_sub(1))))
    }

    /// What became of what was running when a child ended.
    pub(super) fn explain(&self, region: &Region, ended: Ended, suspect: &Suspect<'_>) -> Outcome {
        let locate = |address| {
            let mut kernels = suspect.code.iter();
            let (function, before) = kernels.find_map(|kernel| kernel.code_before(address))?;
            Some(Spot {
                function,
                offset: before.len() as u64,
                before: Some(before),
            })
        };
        let scene = Scene {
            at: Place {
                kernel: suspect.kernel.clone(),
                op: suspect.op,
                index: region.control().index.load(Ordering::Relaxed),
            },
            sites: suspect.sites,
            locate: &locate,
            peek: &|address, bytes| suspect.peek(address, bytes),
            stack: region.stack(),
            below: region.below_stack(),
            limits: *self.limits(),
        };
        ending(Seen::read(&region.control().fault).as_ref(), ended, scene)
    }
}

/// What became of what was running when a child ended, with what its handler had written down.
pub(super) fn ending(seen: Option<&Seen>, ended: Ended, scene: Scene<'_>) -> Outcome {
    let limits = scene.limits;
    let crashed = |fault, signal, at| {
        Outcome::Crashed(Box::new(Crash {
            fault,
            signal,
            at,
            code: None,
            access: None,
        }))
    };
    match (ended, seen) {
        (Ended::OverTime, _) => Outcome::TimedOut {
            limit: TimeLimit::Wall,
            after: limits.wall,
            at: scene.at,
        },
        (Ended::OverCpu, _) => Outcome::TimedOut {
            limit: TimeLimit::Cpu,
            after: limits.cpu.unwrap_or(limits.wall),
            at: scene.at,
        },
        (Ended::OverMemory, _) => Outcome::OutOfMemory {
            limit: limits.memory,
            at: scene.at,
        },
        (Ended::Exited(fault::FAULTED) | Ended::Signalled(_) | Ended::Unknown, Some(seen)) => {
            explain(seen, scene)
        }
        (Ended::Exited(status), _) => crashed(Fault::Exited(status), 0, scene.at),
        (Ended::Signalled(libc::SIGPROF | libc::SIGXCPU), None) if let Some(after) = limits.cpu => {
            Outcome::TimedOut {
                limit: TimeLimit::Cpu,
                after,
                at: scene.at,
            }
        }
        (Ended::Signalled(signal), None) => crashed(unrecorded(signal), signal, scene.at),
        (Ended::Unknown, None) => crashed(Fault::Killed, 0, scene.at),
    }
}

/// Does `body` on the region's stack, and notes that it is done.
///
/// # Safety
///
/// No other body may be on that stack.
pub(super) unsafe fn do_on_own_stack(region: &Region, body: &mut dyn FnMut()) {
    let mut work = Work { region, body };
    // SAFETY: the stack is the region's, which nothing uses but this body, as the caller promises;
    // it is large enough for what is here.
    unsafe { fault::on_stack(on_own_stack, (&raw mut work).cast(), region.stack_top()) };
}

/// What a child does, and where it says how far it is.
struct Work<'w> {
    region: &'w Region,
    body: &'w mut dyn FnMut(),
}

/// # Safety
///
/// `work` must be a [`Work`] that nothing else uses, in a process that was forked for it.
unsafe extern "C" fn on_own_stack(work: *mut c_void) {
    // SAFETY: promised by the caller.
    let work = unsafe { &mut *work.cast::<Work<'_>>() };
    let _default = DefaultFloatEnv::enter();
    (work.body)();
    work.region.control().done.store(1, Ordering::Release);
}

/// Makes a process that was just forked one that ends with its parent, and takes no more than it
/// may.
///
/// # Safety
///
/// As [`fault::watch`].
unsafe fn set_up(region: &Region, parent: u32, addresses: Option<usize>) {
    // SAFETY: numbers alone. What is refused by a system that lacks it is done without.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // In another namespace of processes, it has none that it could see.
        let now = libc::getppid().unsigned_abs();
        if now != parent && now != 0 {
            fault::exit(fault::REFUSED);
        }
        // What is sent to its group, by it or to end it, is not sent to the host's.
        libc::setpgid(0, 0);
        // All but what programs print to.
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
        let limit = |resource, value| {
            let limit = libc::rlimit {
                rlim_cur: value,
                rlim_max: value,
            };
            libc::setrlimit(resource, &raw const limit);
        };
        limit(libc::RLIMIT_CORE, 0);
        // No processes or threads, for all but the superuser.
        limit(libc::RLIMIT_NPROC, 0);
        if let Some(bytes) = addresses {
            limit(libc::RLIMIT_AS, bytes as libc::rlim_t);
        }
        fault::watch(region);
    }
    fault::unblock();
}
