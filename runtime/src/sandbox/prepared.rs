//! A launch that needs nothing but to be made.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Untrusted;
use super::attempt::Suspect;
use super::control::{Region, Slot};
use super::explain::Site;
use super::fault;
use super::launch::{Launch, site};
use super::outcome::Outcome;
use crate::Error;
use crate::dispatch::Entry;
use crate::launch::Arg;
use crate::memory::{Buffer, Pages, Stray, View};

/// A launch that needs nothing but to be made.
pub(super) struct Prepared<'l, 'b> {
    pub(super) number: usize,
    kernel: &'l Untrusted,
    entry: Entry,
    slots: Vec<u64>,
    /// Calls of the grid.
    first: u64,
    count: u64,
    reversed: bool,
    order: Option<&'l [u64]>,
    /// What lies in memory of the child's, and the arguments as they were given.
    pub(super) staged: Vec<Option<Buffer>>,
    args: &'l [Arg<'b>],
    sites: Vec<Site>,
    /// Pages that may not be written: their first byte, and how many bytes.
    constant: Vec<(*mut c_void, usize)>,
}

impl<'l, 'b> Prepared<'l, 'b> {
    pub(super) fn new(number: usize, launch: &'l Launch<'b>) -> Result<Prepared<'l, 'b>, Error> {
        launch.check()?;
        Ok(Prepared::of(number, launch, launch.stage()?))
    }

    /// Over the arguments where they lie, which the child has a copy of where it does not share
    /// them.
    pub(super) fn bare(number: usize, launch: &'l Launch<'b>) -> Result<Prepared<'l, 'b>, Error> {
        launch.check()?;
        let none = launch.args.iter().map(|_| None);
        Ok(Prepared::of(number, launch, none.collect()))
    }

    fn of(number: usize, launch: &'l Launch<'b>, staged: Vec<Option<Buffer>>) -> Prepared<'l, 'b> {
        let scalars = launch.scalars.iter().map(|scalar| scalar.to_slot());
        let prepared = Prepared::over(number, launch.kernel, &launch.args, scalars, staged);
        prepared
            .calls(
                launch.indices.start,
                launch.indices.end.saturating_sub(launch.indices.start),
                launch.reversed,
            )
            .in_order(launch.order.as_deref())
    }

    /// Over arguments that were checked, or copies of them, with the slots of scalars.
    pub(super) fn over(
        number: usize,
        untrusted: &'l Untrusted,
        args: &'l [Arg<'b>],
        scalars: impl Iterator<Item = u64>,
        staged: Vec<Option<Buffer>>,
    ) -> Prepared<'l, 'b> {
        let kernel = untrusted.kernel();
        let mut slots = vec![0; kernel.slots()];
        // SAFETY: as many as the kernel has.
        unsafe { kernel.bind(slots.as_mut_ptr()) };
        let params = kernel.signature().buffers();
        let (mut sites, mut constant, mut written) = (Vec::new(), Vec::new(), Vec::new());
        for (i, ((param, slot), (arg, staged))) in params
            .zip(kernel.buffer_slots())
            .zip(args.iter().zip(&staged))
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
            sites.push(site(i, param, address.addr() as u64));
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
        for (slot, scalar) in kernel.scalar_slots().zip(scalars) {
            slots[slot] = scalar;
        }
        Prepared {
            number,
            kernel: untrusted,
            entry: kernel.unlocked_entry(),
            slots,
            first: 0,
            count: 1,
            reversed: false,
            order: None,
            staged,
            args,
            sites,
            constant,
        }
    }

    /// With so many calls, from that index on.
    pub(super) const fn calls(mut self, first: u64, count: u64, reversed: bool) -> Self {
        self.first = first;
        self.count = count;
        self.reversed = reversed;
        self
    }

    /// With the calls that these are, in their order, where there are any.
    pub(super) fn in_order(mut self, order: Option<&'l [u64]>) -> Self {
        self.order = order;
        self.count = order.map_or(self.count, |order| order.len() as u64);
        self
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

    /// It, in case that it ends its child.
    pub(super) fn suspect(&self) -> Suspect<'_> {
        Suspect {
            kernel: self.kernel.name().to_owned(),
            op: None,
            sites: &self.sites,
            code: vec![self.kernel.kernel()],
            shared: self.shared(),
        }
    }

    /// Of its arguments, those that this process sees as the child has left them.
    fn shared(&self) -> Vec<View<'_>> {
        let all = self.args.iter().zip(&self.staged);
        let shared = all.filter_map(|(arg, staged)| match staged {
            Some(copy) => Some(copy.as_view()),
            None => Some(arg.view()).filter(|view| view.pages().is_some_and(Pages::is_shared)),
        });
        shared.collect()
    }

    /// What a child has noted of it.
    pub(super) fn outcome(&self, slot: &Slot) -> Option<Outcome> {
        noted(slot, self.kernel.name(), self.args.len())
    }

    /// The address of each argument.
    pub(super) fn places(&self) -> Vec<u64> {
        self.sites.iter().map(|site| site.start).collect()
    }

    /// Runs it, and notes how it ended. It does what a handler of signals may, and what the kernel
    /// does.
    fn run(&mut self, region: &Region, slot: &Slot) {
        let control = region.control();
        self.protect(libc::PROT_READ);
        let start = fault::now();
        let (status, index) = self.call(&control.index);
        let nanos = fault::now().saturating_sub(start);
        fault::restore_processor();
        self.protect(libc::PROT_READ | libc::PROT_WRITE);
        slot.nanos.store(nanos, Ordering::Relaxed);
        slot.status.store(status, Ordering::Relaxed);
        slot.index.store(index, Ordering::Relaxed);
        let state = match self.stray() {
            Some((argument, stray)) => {
                slot.note(argument, &stray);
                Slot::STRAY
            }
            None if status != 0 => Slot::STATUS,
            None => Slot::DONE,
        };
        slot.state.store(state, Ordering::Release);
    }

    /// Sets the rights of what it only reads.
    fn protect(&self, rights: libc::c_int) {
        for &(start, bytes) in &self.constant {
            // SAFETY: whole pages that can be read, of a buffer that the launch has borrowed; in
            // this process nobody writes them while they may not be.
            unsafe { libc::mprotect(start, bytes, rights) };
        }
    }

    /// Makes its calls, and returns the status of the last, and its index.
    pub(super) fn call(&mut self, noted: &AtomicU64) -> (i32, u64) {
        for call in 0..self.count {
            let call = if self.reversed {
                self.count - 1 - call
            } else {
                call
            };
            let index = match self.order {
                Some(order) => order.get(call as usize).copied().unwrap_or(0),
                None => self.first + call,
            };
            noted.store(index, Ordering::Relaxed);
            // SAFETY: the arguments fit the signature. That the kernel keeps it is what this process
            // is there to find out: nobody depends on its memory.
            let status = unsafe { self.entry.call_at(self.slots.as_mut_ptr(), index) };
            if status != 0 {
                return (status, index);
            }
        }
        (0, 0)
    }
}

/// Runs launches one after another, each with so much of the processors' time: what a child does.
pub(super) fn run_in_turn(
    region: &Region,
    launches: &mut [Prepared<'_, '_>],
    cpu: Option<Duration>,
) {
    for (i, (one, slot)) in launches.iter_mut().zip(region.slots()).enumerate() {
        region.begin(i, cpu);
        one.run(region, slot);
    }
}

/// What a child has noted of a launch of this kernel, over so many arguments.
pub(super) fn noted(slot: &Slot, kernel: &str, args: usize) -> Option<Outcome> {
    let kernel = || kernel.to_owned();
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
        Slot::STRAY => {
            let (argument, stray) = slot.stray(args)?;
            Some(Outcome::Failed(Error::Overrun {
                kernel: kernel(),
                op: None,
                argument,
                buffer: None,
                stray,
            }))
        }
        _ => None,
    }
}
