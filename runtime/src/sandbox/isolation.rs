//! Crash isolation: launches in a forked child.

use std::ffi::c_void;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::child::{self, Ended};
use super::control::{Region, Slot};
use super::explain::{Scene, Seen, Site, explain};
use super::fault;
use super::launch::{Launch, site};
use super::outcome::{Crash, Fault, Outcome, Place, TimeLimit};
use super::{Limits, Untrusted};
use crate::Error;
use crate::dispatch::Entry;
use crate::launch::Arg;
use crate::memory::{Buffer, Stray};
use crate::pool::DefaultFloatEnv;

/// Beyond so many times what a child may have of memory, and so many bytes, it is refused
/// addresses: a kernel that asks for memory and does not touch it.
const ADDRESSES: (usize, usize) = (2, 64 << 20);

/// Runs launches in a child that is forked from this process: whatever they do, this process's
/// memory, threads, locks and handlers of signals are as before. What lies in its memory they can
/// read; who must not is [confined](super#which-of-the-two).
///
/// A child runs one launch after another, on one thread, so that a list of them costs little more
/// than the launches. When one ends it, another child goes on behind that one.
///
/// ```
/// use svod_runtime::sandbox::{CrashIsolation, Launch, Limits, Outcome};
/// use svod_runtime::{Buffer, DType, Runtime, Signature, Source};
///
/// let runtime = Runtime::new()?;
/// let source = Source::c(
///     "bump",
///     "void bump(int *x) { for (int i = 0; i <= 4; i++) x[i] += 1; }",
/// );
/// let signature = Signature::builder().read_write(DType::I32, 4).build()?;
/// let bump = runtime.load_untrusted(&source, signature)?;
///
/// let sandbox = CrashIsolation::new(Limits::default());
/// let mut x = Buffer::zeroed(DType::I32, 4)?;
/// let outcome = sandbox.run(Launch::new(&bump, vec![(&mut x).into()], &[], 1))?;
/// let Outcome::Crashed(crash) = outcome else { panic!("{outcome}") };
/// let place = crash.access.and_then(|access| access.argument).expect("it is beside x");
/// assert_eq!((place.argument, place.element, place.outside), (0, 4, 1));
/// assert_eq!(x.as_slice::<i32>()?, [0; 4]);
/// # Ok::<(), svod_runtime::Error>(())
/// ```
#[derive(Debug)]
pub struct CrashIsolation {
    limits: Limits,
    /// Memory for children, of earlier runs.
    spare: Mutex<Vec<Region>>,
}

impl CrashIsolation {
    /// With these limits for each launch.
    #[must_use]
    pub const fn new(limits: Limits) -> CrashIsolation {
        CrashIsolation {
            limits,
            spare: Mutex::new(Vec::new()),
        }
    }

    /// What each launch may take.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Runs one launch.
    ///
    /// # Errors
    ///
    /// [`Error::System`] and [`Error::OutOfMemory`] where there can be no child. What becomes of
    /// the launch is the [`Outcome`].
    pub fn run(&self, launch: Launch<'_>) -> Result<Outcome, Error> {
        let mut outcomes = self.run_all(&mut [launch])?;
        outcomes
            .pop()
            .ok_or_else(|| Error::run("a launch that came to nothing"))
    }

    /// Runs launches one after another, and says of each how it ended. One that works on what an
    /// earlier one has written, in shared memory, finds it.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_all(&self, launches: &mut [Launch<'_>]) -> Result<Vec<Outcome>, Error> {
        let mut outcomes: Vec<Option<Outcome>> = Vec::new();
        let mut prepared = Vec::new();
        for (i, launch) in launches.iter().enumerate() {
            match Prepared::new(i, launch) {
                Ok(one) => {
                    prepared.push(one);
                    outcomes.push(None);
                }
                Err(error) => outcomes.push(Some(Outcome::Failed(error))),
            }
        }
        let region = self.region(prepared.len())?;
        let mut first = 0;
        while first < prepared.len() {
            region.clear(prepared.len());
            let ended = self.child(&region, &mut prepared[first..])?;
            let (mut next, mut fatal) = (prepared.len(), None);
            if region.control().done.load(Ordering::Acquire) == 0 {
                let at = region.control().at.load(Ordering::Acquire) as usize;
                // Before the first, it is the first's.
                next = first + at.clamp(1, prepared.len() - first);
                fatal = Some(self.ending(&region, ended, &prepared[next - 1]));
            }
            for (slot, one) in region.slots().iter().zip(&prepared[first..next]) {
                outcomes[one.number] = one.outcome(slot);
            }
            if let Some(outcome) = fatal {
                outcomes[prepared[next - 1].number] = Some(outcome);
            }
            first = next;
        }
        let staged: Vec<_> = prepared.into_iter().map(|p| (p.number, p.staged)).collect();
        for (number, staged) in staged {
            if outcomes[number].as_ref().is_some_and(Outcome::is_completed)
                && let Err(error) = launches[number].take(&staged)
            {
                outcomes[number] = Some(Outcome::Failed(error));
            }
        }
        self.give_back(region);
        let lost = || Outcome::Failed(Error::run("the sandbox has lost a launch"));
        Ok(outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(lost))
            .collect())
    }

    fn region(&self, slots: usize) -> Result<Region, Error> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let found = spare.iter().position(|region| {
            region.capacity() >= slots && region.stack_bytes() >= self.limits.stack
        });
        match found {
            Some(found) => Ok(spare.swap_remove(found)),
            None => Region::new(slots.max(16), &self.limits),
        }
    }

    fn give_back(&self, region: Region) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        // More are not likely to run at once again.
        if spare.len() < 16 {
            spare.push(region);
        }
    }

    /// Has a child run these, and waits for its end.
    fn child(&self, region: &Region, prepared: &mut [Prepared<'_, '_>]) -> Result<Ended, Error> {
        let limits = &self.limits;
        let addresses = match (limits.memory, child::addresses()) {
            (Some(limit), Some(now)) => {
                let more = limit.saturating_mul(ADDRESSES.0);
                Some(now.saturating_add(more).saturating_add(ADDRESSES.1))
            }
            _ => None,
        };
        let parent = std::process::id();
        // SAFETY: the child sets itself up, calls kernels, and ends, by nothing but system calls,
        // loads and stores.
        let mut child = unsafe {
            child::fork(|| {
                let mut work = Work {
                    region,
                    prepared,
                    cpu: limits.cpu,
                };
                set_up(region, parent, addresses);
                let top = region.stack_top();
                fault::on_stack(run_all, (&raw mut work).cast(), top);
            })
        }?;
        child.wait(region.control(), limits)
    }

    /// What became of the launch in which a child ended.
    fn ending(&self, region: &Region, ended: Ended, of: &Prepared<'_, '_>) -> Outcome {
        let at = Place {
            kernel: of.kernel.name().to_owned(),
            op: None,
            index: region.control().index.load(Ordering::Relaxed),
        };
        let crashed = |fault, signal| {
            Outcome::Crashed(Box::new(Crash {
                fault,
                signal,
                at: at.clone(),
                code: None,
                access: None,
            }))
        };
        match (ended, Seen::read(&region.control().fault)) {
            (Ended::OverTime, _) => Outcome::TimedOut {
                limit: TimeLimit::Wall,
                after: self.limits.wall,
                at,
            },
            (Ended::OverMemory, _) => Outcome::OutOfMemory {
                limit: self.limits.memory,
                at,
            },
            (Ended::Exited(fault::FAULTED) | Ended::Signalled(_), Some(seen)) => {
                let locate = |address| {
                    let (function, offset) = of.kernel.kernel().locate(address)?;
                    Some((function.to_owned(), offset))
                };
                let scene = Scene {
                    at,
                    sites: &of.sites,
                    locate: &locate,
                    stack: region.stack(),
                    below: region.below_stack(),
                    limits: self.limits,
                };
                explain(&seen, scene)
            }
            (Ended::Exited(status), _) => crashed(Fault::Exited(status), 0),
            (Ended::Signalled(signal), None) => crashed(Fault::Killed, signal),
        }
    }
}

/// A launch that needs nothing but to be made.
struct Prepared<'l, 'b> {
    number: usize,
    kernel: &'l Untrusted,
    entry: Entry,
    slots: Vec<u64>,
    /// Calls of the grid.
    first: u64,
    count: u64,
    reversed: bool,
    /// What lies in memory of the child's, and the arguments as they were given.
    staged: Vec<Option<Buffer>>,
    args: &'l [Arg<'b>],
    sites: Vec<Site>,
    /// Pages that may not be written: their first byte, and how many bytes.
    constant: Vec<(*mut c_void, usize)>,
}

impl<'l, 'b> Prepared<'l, 'b> {
    fn new(number: usize, launch: &'l Launch<'b>) -> Result<Prepared<'l, 'b>, Error> {
        launch.check()?;
        let kernel = launch.kernel.kernel();
        let staged = launch.stage()?;
        let mut slots = vec![0; kernel.slots()];
        // SAFETY: as many as the kernel has.
        unsafe { kernel.bind(slots.as_mut_ptr()) };
        let params = kernel.signature().buffers();
        let (mut sites, mut constant, mut written) = (Vec::new(), Vec::new(), Vec::new());
        for (i, ((param, slot), (arg, staged))) in params
            .zip(kernel.buffer_slots())
            .zip(launch.args.iter().zip(&staged))
            .enumerate()
        {
            let (address, pages) = match staged {
                Some(copy) => {
                    let view = copy.as_view();
                    (view.start().as_ptr(), view.pages())
                }
                None => (arg.address(), arg.pages()),
            };
            slots[slot] = address.addr() as u64;
            sites.push(site(i, param, address));
            if let Some(pages) = pages {
                let (start, bytes) = pages.usable();
                let range = (start.as_ptr().cast::<c_void>(), bytes);
                match param.access.writes() {
                    true => written.push(range),
                    false => constant.push(range),
                }
            }
        }
        constant.retain(|range| !written.contains(range));
        for (slot, scalar) in kernel.scalar_slots().zip(&launch.scalars) {
            slots[slot] = scalar.to_slot();
        }
        let indices = &launch.indices;
        Ok(Prepared {
            number,
            kernel: launch.kernel,
            entry: kernel.unlocked_entry(),
            slots,
            first: indices.start,
            count: indices.end.saturating_sub(indices.start),
            reversed: launch.reversed,
            staged,
            args: &launch.args,
            sites,
            constant,
        })
    }

    /// The first argument beside which something was written.
    fn stray(&self) -> Option<(usize, Stray)> {
        let args = self.args.iter().zip(&self.staged).enumerate();
        let mut strays = args.map(|(i, (arg, staged))| {
            let stray = match staged {
                Some(copy) => copy.as_view().stray(),
                None => arg.stray(),
            };
            Some((i, stray?))
        });
        strays.find_map(|stray| stray)
    }

    /// What a child has noted of it.
    fn outcome(&self, slot: &Slot) -> Option<Outcome> {
        let kernel = || self.kernel.name().to_owned();
        match slot.state.load(Ordering::Acquire) {
            Slot::DONE => Some(Outcome::Completed {
                time: Duration::from_nanos(slot.nanos.load(Ordering::Relaxed)),
            }),
            Slot::STATUS => Some(Outcome::Failed(Error::KernelStatus {
                kernel: kernel(),
                op: None,
                status: slot.status.load(Ordering::Relaxed),
                index: slot.index.load(Ordering::Relaxed),
            })),
            Slot::STRAY => Some(Outcome::Failed(Error::Overrun {
                kernel: kernel(),
                op: None,
                argument: slot.argument.load(Ordering::Relaxed) as usize,
                buffer: None,
                stray: Stray {
                    past_end: slot.past_end.load(Ordering::Relaxed) != 0,
                    nearest: slot.nearest.load(Ordering::Relaxed) as usize,
                    farthest: slot.farthest.load(Ordering::Relaxed) as usize,
                },
            })),
            _ => None,
        }
    }
}

/// What a child does.
struct Work<'w, 'l, 'b> {
    region: &'w Region,
    prepared: &'w mut [Prepared<'l, 'b>],
    cpu: Option<Duration>,
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
        if libc::getppid().unsigned_abs() != parent {
            fault::exit(fault::REFUSED);
        }
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
        if let Some(bytes) = addresses {
            limit(libc::RLIMIT_AS, bytes as libc::rlim_t);
        }
        fault::watch(region);
    }
    fault::unblock();
}

/// Runs what there is to run, on a stack of its own.
///
/// # Safety
///
/// `work` must be a [`Work`] that nothing else uses, in a process that was forked for it.
unsafe extern "C" fn run_all(work: *mut c_void) {
    // SAFETY: promised by the caller.
    let work = unsafe { &mut *work.cast::<Work<'_, '_, '_>>() };
    let control = work.region.control();
    let _default = DefaultFloatEnv::enter();
    for (i, one) in work.prepared.iter_mut().enumerate() {
        let Some(slot) = work.region.slots().get(i) else {
            break;
        };
        control.index.store(0, Ordering::Relaxed);
        control.began.store(fault::now(), Ordering::Relaxed);
        control.at.store(i as u32 + 1, Ordering::Release);
        if let Some(cpu) = work.cpu {
            fault::set_cpu_timer(cpu);
        }
        let protect = |rights| {
            for &(start, bytes) in &one.constant {
                // SAFETY: whole pages that can be read, of a buffer that the launch has borrowed;
                // in this process nobody writes them.
                unsafe { libc::mprotect(start, bytes, rights) };
            }
        };
        protect(libc::PROT_READ);
        let start = fault::now();
        let mut status = 0;
        for call in 0..one.count {
            let call = if one.reversed {
                one.count - 1 - call
            } else {
                call
            };
            let index = one.first + call;
            control.index.store(index, Ordering::Relaxed);
            // SAFETY: the arguments fit the signature. That the kernel keeps it is what this process
            // is there to find out: nobody depends on its memory.
            status = unsafe { one.entry.call_at(one.slots.as_mut_ptr(), index) };
            if status != 0 {
                slot.index.store(index, Ordering::Relaxed);
                break;
            }
        }
        let nanos = fault::now().saturating_sub(start);
        protect(libc::PROT_READ | libc::PROT_WRITE);
        slot.nanos.store(nanos, Ordering::Relaxed);
        slot.status.store(status, Ordering::Relaxed);
        let state = match one.stray() {
            Some((argument, stray)) => {
                slot.argument.store(argument as u32, Ordering::Relaxed);
                slot.past_end
                    .store(stray.past_end.into(), Ordering::Relaxed);
                slot.nearest.store(stray.nearest as u64, Ordering::Relaxed);
                slot.farthest
                    .store(stray.farthest as u64, Ordering::Relaxed);
                Slot::STRAY
            }
            None if status != 0 => Slot::STATUS,
            None => Slot::DONE,
        };
        slot.state.store(state, Ordering::Release);
    }
    control.done.store(1, Ordering::Release);
}
