//! What a child and its host share beside buffers: where the child is, and how it ended.
//!
//! All of it is atomic, and the host believes none of it: a kernel that went wrong may have
//! written anything here. What it says is a number that is looked at, not an address that is
//! followed.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mmap_anonymous, mprotect, munmap};

use super::{Limits, fault};
use crate::Error;
use crate::memory::Stray;

/// How many registers are recorded.
pub(super) const REGISTERS: usize = 32;
/// How many bytes of code are recorded, from the instruction on.
pub(super) const CODE: usize = 16;
/// How many words of the stack are recorded, from its pointer on.
pub(super) const WORDS: usize = 64;

/// Addresses below a stack that nothing may touch. A function whose variables are larger than
/// this and that begins with the farthest of them is told by where its stack pointer is.
const STACK_GUARD: usize = 256 << 20;
/// The stack that handlers of signals run on.
const HANDLER_STACK: usize = 64 << 10;

/// What is shared.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Control {
    /// Which launch, or op, is under way: one more than its number, or 0 for none.
    pub(super) at: AtomicU32,
    /// Whether all was done that was asked for.
    pub(super) done: AtomicU32,
    /// The grid index of the call that is under way.
    pub(super) index: AtomicU64,
    /// When it began, in nanoseconds of the monotonic clock.
    pub(super) began: AtomicU64,
    /// Of a helper: how many requests there were, what the last one asks for and where the rest of
    /// it is said, and how many were answered.
    pub(super) requests: AtomicU32,
    pub(super) answers: AtomicU32,
    pub(super) task: AtomicU32,
    /// Whether the last answer is an error, whose text stands where the scene does.
    pub(super) failed: AtomicU32,
    /// How long the file is.
    pub(super) file_bytes: AtomicU64,
    pub(super) text: AtomicU64,
    pub(super) text_bytes: AtomicU64,
    /// Where what is mapped where is written, how much room there is, and how much was written.
    pub(super) scene: AtomicU64,
    pub(super) scene_room: AtomicU64,
    pub(super) scene_bytes: AtomicU64,
    pub(super) fault: Record,
}

/// What a handler of signals wrote down.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Record {
    /// 0 where there is nothing, 1 without and 2 with the code.
    pub(super) stage: AtomicU32,
    pub(super) signal: AtomicI32,
    /// `si_code`.
    pub(super) code: AtomicI32,
    /// The number of the system call that was refused.
    pub(super) system_call: AtomicI32,
    /// `si_addr`.
    pub(super) address: AtomicU64,
    /// Where the instruction is.
    pub(super) instruction: AtomicU64,
    pub(super) stack: AtomicU64,
    /// What the processor says of the access: x86-64's page fault error, aarch64's syndrome.
    pub(super) syndrome: AtomicU64,
    /// x86-64's number of the exception.
    pub(super) trap: AtomicU64,
    /// In the order in which instructions number them.
    pub(super) registers: [AtomicU64; REGISTERS],
    pub(super) bytes: [AtomicU8; CODE],
    /// How many words of the stack could be read.
    pub(super) read: AtomicU32,
    pub(super) words: [AtomicU64; WORDS],
}

/// How a launch ended that did not end its process.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Slot {
    /// One of `Slot`'s constants.
    pub(super) state: AtomicU32,
    /// The status that it returned.
    pub(super) status: AtomicI32,
    /// The index at which it did.
    pub(super) index: AtomicU64,
    pub(super) nanos: AtomicU64,
    /// The argument beside which it has written, and which bytes.
    pub(super) argument: AtomicU32,
    pub(super) past_end: AtomicU32,
    pub(super) nearest: AtomicU64,
    pub(super) farthest: AtomicU64,
}

impl Slot {
    /// It did not run, or not to its end.
    pub(super) const NOT_RUN: u32 = 0;
    pub(super) const DONE: u32 = 1;
    /// It returned a status.
    pub(super) const STATUS: u32 = 2;
    /// It wrote beside an argument.
    pub(super) const STRAY: u32 = 3;

    /// Notes what was written beside an argument.
    pub(super) fn note(&self, argument: usize, stray: &Stray) {
        self.argument.store(argument as u32, Ordering::Relaxed);
        self.past_end
            .store(stray.past_end.into(), Ordering::Relaxed);
        self.nearest.store(stray.nearest as u64, Ordering::Relaxed);
        self.farthest
            .store(stray.farthest as u64, Ordering::Relaxed);
    }

    /// What was noted, of a launch with so many arguments; none of what cannot be, whatever a
    /// kernel has made of it.
    pub(super) fn stray(&self, args: usize) -> Option<(usize, Stray)> {
        let argument = self.argument.load(Ordering::Relaxed) as usize;
        let stray = Stray {
            past_end: self.past_end.load(Ordering::Relaxed) != 0,
            nearest: self.nearest.load(Ordering::Relaxed) as usize,
            farthest: self.farthest.load(Ordering::Relaxed) as usize,
        };
        let is_one = 0 < stray.nearest && stray.nearest <= stray.farthest;
        (is_one && argument < args).then_some((argument, stray))
    }
}

/// Memory that a child needs beside buffers, made before it is: control, slots, and stacks.
#[derive(Debug)]
pub(super) struct Region {
    control: Mapping,
    slots: usize,
    stack: Mapping,
    handler: Mapping,
}

impl Region {
    /// For up to `slots` launches.
    pub(super) fn new(slots: usize, limits: &Limits) -> Result<Region, Error> {
        let control = size_of::<Control>() + slots * size_of::<Slot>();
        Ok(Region {
            control: Mapping::new(control, 0, MapFlags::SHARED)?,
            slots,
            stack: Mapping::new(limits.stack, STACK_GUARD, MapFlags::PRIVATE)?,
            handler: Mapping::new(HANDLER_STACK, 0, MapFlags::PRIVATE)?,
        })
    }

    /// With what is shared at the beginning of a file, which has room for so many slots.
    ///
    /// # Safety
    ///
    /// The file must be as long as [`in_file`](Self::in_file) says, and stay so.
    pub(super) unsafe fn over(
        file: BorrowedFd<'_>,
        slots: usize,
        limits: &Limits,
    ) -> Result<Region, Error> {
        Ok(Region {
            // SAFETY: promised by the caller.
            control: unsafe { Mapping::of_file(file, Region::in_file(slots)) }?,
            slots,
            stack: Mapping::new(limits.stack, STACK_GUARD, MapFlags::PRIVATE)?,
            handler: Mapping::new(HANDLER_STACK, 0, MapFlags::PRIVATE)?,
        })
    }

    /// The bytes at the beginning of a file that are shared: whole pages.
    pub(super) fn in_file(slots: usize) -> usize {
        let bytes = size_of::<Control>() + slots * size_of::<Slot>();
        bytes.next_multiple_of(rustix::param::page_size())
    }

    pub(super) const fn capacity(&self) -> usize {
        self.slots
    }

    /// The bytes of its stack.
    pub(super) const fn stack_bytes(&self) -> usize {
        self.stack.usable
    }

    pub(super) const fn control(&self) -> &Control {
        // SAFETY: the mapping begins with one, zeroed at birth, of which all is atomic and every
        // bit pattern a value; it is aligned to a page, and lives as long as the region.
        unsafe { self.control.start.cast().as_ref() }
    }

    pub(super) fn note(&self) -> Note {
        Note(self.control.start.cast())
    }

    pub(super) const fn slots(&self) -> &[Slot] {
        // SAFETY: as above, for those that follow; a `Control` is a multiple of 8 bytes long, which
        // is the alignment of a `Slot`.
        unsafe {
            let first = self.control.start.byte_add(size_of::<Control>()).cast();
            std::slice::from_raw_parts(first.as_ptr(), self.slots)
        }
    }

    /// Notes, in a child, that number `i` of what it has to do begins now, with so much of the
    /// processors' time.
    pub(super) fn begin(&self, i: usize, cpu: Option<Duration>) {
        let control = self.control();
        control.index.store(0, Ordering::Relaxed);
        control.began.store(fault::now(), Ordering::Relaxed);
        control.at.store(i as u32 + 1, Ordering::Release);
        if let Some(cpu) = cpu {
            fault::set_cpu_timer(cpu);
        }
    }

    /// As new.
    pub(super) fn clear(&self) {
        let control = self.control();
        control.at.store(0, Ordering::Relaxed);
        control.done.store(0, Ordering::Relaxed);
        control.began.store(0, Ordering::Relaxed);
        control.index.store(0, Ordering::Relaxed);
        control.fault.stage.store(0, Ordering::Relaxed);
        control.fault.read.store(0, Ordering::Relaxed);
        for slot in self.slots() {
            slot.state.store(Slot::NOT_RUN, Ordering::Relaxed);
        }
    }

    /// The addresses of the kernel's stack, from the lowest.
    pub(super) fn stack(&self) -> std::ops::Range<usize> {
        let low = self.stack.start.addr().get();
        low..low + self.stack.usable
    }

    /// The end of the kernel's stack, where it begins.
    pub(super) fn stack_top(&self) -> *mut u8 {
        // SAFETY: one past the mapping's last byte.
        unsafe { self.stack.start.byte_add(self.stack.usable).as_ptr() }
    }

    /// The addresses below the stack that a stack which overflows reaches.
    pub(super) fn below_stack(&self) -> std::ops::Range<usize> {
        let low = self.stack.start.addr().get();
        low - STACK_GUARD..low
    }

    pub(super) fn handler_stack(&self) -> (*mut u8, usize) {
        (self.handler.start.as_ptr(), self.handler.usable)
    }
}

/// Where a child notes which op it is at, for whoever must not borrow the region.
#[derive(Clone, Copy, Debug)]
pub(super) struct Note(NonNull<Control>);

// SAFETY: what it points to is atomic.
unsafe impl Send for Note {}
// SAFETY: as above.
unsafe impl Sync for Note {}

impl Note {
    pub(super) fn op(self, op: usize) {
        // SAFETY: it is used by a run in a child, while the host has borrowed the region.
        let control = unsafe { self.0.as_ref() };
        control.at.store(op as u32 + 1, Ordering::Release);
    }
}

/// Bytes that processes share: one writes them, and another reads them once that one has ended.
#[derive(Debug)]
pub(super) struct Bytes {
    memory: Mapping,
    count: usize,
}

impl Bytes {
    pub(super) fn new(count: usize) -> Result<Bytes, Error> {
        Ok(Bytes {
            memory: Mapping::new(count.max(1), 0, MapFlags::SHARED)?,
            count,
        })
    }

    /// Copies bytes to `at`, as far as there is room.
    pub(super) fn write(&self, at: usize, bytes: &[u8]) {
        let room = self.count.saturating_sub(at);
        let count = bytes.len().min(room);
        // SAFETY: as many bytes lie in the mapping from there on, which no reference points to in
        // this process: the host reads them when this process has ended.
        unsafe {
            let to = self.memory.start.byte_add(at.min(self.count));
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), count);
        }
    }

    /// Bytes from `at` on, once the child has ended.
    pub(super) fn read(&self, at: usize, count: usize) -> &[u8] {
        let at = at.min(self.count);
        let count = count.min(self.count - at);
        // SAFETY: as many bytes lie in the mapping, initialised at birth; no child is there any
        // more that writes them.
        unsafe { std::slice::from_raw_parts(self.memory.start.byte_add(at).as_ptr(), count) }
    }
}

/// A file that processes share, mapped whole. What is in it is copied, and never borrowed: another
/// process may write it at any time. That is outside of what Rust's memory model speaks of; it rests
/// on a copy from memory that others map being a copy of whatever stands there.
#[derive(Debug)]
pub(super) struct SharedFile(Mapping);

impl SharedFile {
    /// A file.
    ///
    /// # Safety
    ///
    /// It must be at least as long, and not become shorter.
    pub(super) unsafe fn map(file: BorrowedFd<'_>, bytes: u64) -> Result<SharedFile, Error> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        // SAFETY: promised by the caller.
        Ok(SharedFile(unsafe { Mapping::of_file(file, bytes) }?))
    }

    /// The bytes that are mapped.
    pub(super) const fn len(&self) -> usize {
        self.0.usable
    }

    /// Copies bytes to `at`.
    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        let to = self.at(at, bytes.len())?;
        // SAFETY: as many bytes from there on are mapped, and no reference points to them.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    /// Writes zeros from `start` to `end`.
    pub(super) fn clear(&self, start: u64, end: u64) -> Result<(), Error> {
        let bytes = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
        let to = self.at(start, bytes)?;
        // SAFETY: as many bytes from there on are mapped, and no reference points to them.
        unsafe { to.write_bytes(0, bytes) };
        Ok(())
    }

    /// Copies bytes from `at` on.
    pub(super) fn read(&self, at: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let from = self.at(at, bytes.len())?;
        // SAFETY: as above. Who writes meanwhile makes what is read anything, which it may be
        // anyway.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn at(&self, at: u64, bytes: usize) -> Result<*mut u8, Error> {
        let start = usize::try_from(at).ok();
        let end = start.and_then(|start| start.checked_add(bytes));
        match (start, end) {
            (Some(start), Some(end)) if end <= self.len() => {
                // SAFETY: within the mapping.
                Ok(unsafe { self.0.start.byte_add(start) }.as_ptr())
            }
            _ => Err(Error::run("a place that is not in what a sandbox shares")),
        }
    }
}

/// Numbers that processes share.
#[derive(Debug)]
pub(crate) struct Numbers {
    memory: Mapping,
    count: usize,
}

impl Numbers {
    /// So many, all 0. They take no memory until they are written.
    pub(crate) fn new(count: usize) -> Result<Numbers, Error> {
        let bytes = count.saturating_mul(size_of::<AtomicU64>()).max(1);
        Ok(Numbers {
            memory: Mapping::new(bytes, 0, MapFlags::SHARED)?,
            count,
        })
    }

    pub(crate) const fn all(&self) -> &[AtomicU64] {
        // SAFETY: as many lie in the mapping, which is aligned to a page; all of it is atomic, and
        // lives as long as they are borrowed.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr().cast(), self.count) }
    }
}

/// Memory behind some that nothing may touch.
#[derive(Debug)]
struct Mapping {
    /// The first byte that can be used.
    start: NonNull<u8>,
    usable: usize,
    guard: usize,
}

// SAFETY: a mapping owns its memory, like a `Box<[u8]>`; what is shared of it is atomic, or
// used by one child at a time.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(bytes: usize, guard: usize, flags: MapFlags) -> Result<Mapping, Error> {
        let nothing = || Error::OutOfMemory {
            what: "a sandbox".into(),
            bytes,
        };
        let page = rustix::param::page_size();
        let usable = bytes.checked_next_multiple_of(page).ok_or_else(nothing)?;
        let size = usable.checked_add(guard).ok_or_else(nothing)?;
        let flags = flags | MapFlags::NORESERVE;
        // SAFETY: a new mapping, at an address that the kernel chooses among those that nothing
        // uses, replaces nothing.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), size, ProtFlags::empty(), flags) };
        let base = base.ok().and_then(NonNull::new).ok_or_else(nothing)?;
        let mapping = Mapping {
            // SAFETY: within the mapping.
            start: unsafe { base.byte_add(guard) }.cast(),
            usable,
            guard,
        };
        let rights = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: whole pages of this mapping, of which nobody else knows yet.
        unsafe { mprotect(mapping.start.as_ptr().cast(), usable, rights) }
            .map_err(|e| Error::system("set the rights of a sandbox's memory", e))?;
        Ok(mapping)
    }
}

impl Mapping {
    /// The beginning of a file.
    ///
    /// # Safety
    ///
    /// The file must be as long, and stay so.
    unsafe fn of_file(file: BorrowedFd<'_>, bytes: usize) -> Result<Mapping, Error> {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at an address that the kernel chooses among those that nothing
        // uses, replaces nothing.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                bytes,
                rights,
                MapFlags::SHARED,
                file,
                0,
            )
        };
        let base = base.map_err(|e| Error::system("map what a sandbox shares", e))?;
        let start = NonNull::new(base).ok_or_else(|| Error::OutOfMemory {
            what: "a sandbox".into(),
            bytes,
        })?;
        Ok(Mapping {
            start: start.cast(),
            usable: bytes,
            guard: 0,
        })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: all of what `new` mapped, which belongs to this mapping alone.
        let result = unsafe {
            let base = self.start.byte_sub(self.guard).as_ptr().cast();
            munmap(base, self.usable + self.guard)
        };
        if let Err(error) = result {
            tracing::error!(%error, "cannot unmap a sandbox's memory");
        }
    }
}
