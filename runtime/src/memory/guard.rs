//! Memory between pages that nothing may touch.
//!
//! ```text
//! End     ╳╳╳╳╳╳│ slack │ the buffer's bytes │s│╳╳╳╳╳╳
//! Start   ╳╳╳╳╳╳│ the buffer's bytes │ slack   │╳╳╳╳╳╳
//! ```
//!
//! An access to an inaccessible page (╳) ends the process with `SIGSEGV`, in the
//! instruction that made it. What alignment and whole pages leave between them and
//! the buffer is slack, which holds a pattern: a write there is found when it is
//! looked at, and a read gives numbers that show in the results.

use std::ffi::c_void;
use std::fmt;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mmap_anonymous, mprotect, munmap};

use super::Filling;
use crate::Error;

/// The inaccessible bytes on each side, at least: addresses that cost no memory.
/// Whoever misses a buffer by a row of it mostly hits them still.
const GUARD_BYTES: usize = 64 << 10;

/// Whether buffers lie between inaccessible pages, and at which of them.
///
/// ```
/// use svod_runtime::memory::{Buffer, Guard};
/// use svod_runtime::DType;
///
/// // Whatever reads a 13th element ends the process.
/// let buffer = Buffer::guarded(DType::F32, 12, 16, Guard::End)?;
/// assert_eq!(buffer.as_slice::<f32>()?, [0.0; 12]);
/// # Ok::<(), svod_runtime::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Guard {
    /// Buffers lie anywhere.
    #[default]
    Off,
    /// A buffer ends before an inaccessible page, as closely as its alignment
    /// allows.
    End,
    /// A buffer begins right behind an inaccessible page.
    Start,
}

impl Guard {
    /// Every choice.
    pub const ALL: [Guard; 3] = [Guard::Off, Guard::End, Guard::Start];

    /// Its name: `off`, `end` or `start`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Guard::Off => "off",
            Guard::End => "end",
            Guard::Start => "start",
        }
    }

    /// The choice of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Guard> {
        Guard::ALL.into_iter().find(|g| g.name() == name)
    }
}

/// Which bytes beside a guarded buffer were written, counted from the buffer: 1 is
/// the byte next to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Whether they lie past the buffer's end, or else before its start.
    pub past_end: bool,
    /// The one nearest to the buffer.
    pub nearest: usize,
    /// The one farthest from it.
    pub farthest: usize,
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stray {
            nearest, farthest, ..
        } = *self;
        match farthest - nearest {
            0 => write!(f, "byte {nearest}")?,
            _ => write!(f, "bytes {nearest} to {farthest}")?,
        }
        f.write_str(if self.past_end {
            " past its end"
        } else {
            " before its start"
        })
    }
}

/// A guarded buffer's memory: pages that can be used between pages that cannot.
#[derive(Debug)]
pub(crate) struct Pages {
    base: NonNull<c_void>,
    size: usize,
    // Both count from `base`.
    usable: Range<usize>,
    buffer: Range<usize>,
    /// What the slack holds, repeated from `base` on.
    pattern: [u8; 8],
    read_only: bool,
    /// Whether processes that are forked from this one share it.
    shared: bool,
}

impl Pages {
    /// `bytes` zeros, at least one, aligned to `align`, a power of two up to
    /// [`MAX_ALIGN`](crate::signature::MAX_ALIGN), between slack that is filled with
    /// ones.
    pub(crate) fn new(bytes: usize, align: usize, guard: Guard) -> Result<Pages, Error> {
        Pages::mapped(bytes, align, guard, false)
    }

    /// As [`new`](Self::new), of memory that processes which are forked from this one share:
    /// what a child writes there is seen here.
    pub(crate) fn shared(bytes: usize, align: usize, guard: Guard) -> Result<Pages, Error> {
        Pages::mapped(bytes, align, guard, true)
    }

    /// As [`shared`](Self::shared), of memory that other processes see as `file`, from `offset` on,
    /// a multiple of a page. It holds what the file does, which must be as long.
    ///
    /// # Safety
    ///
    /// Nobody may write these pages of the file while somebody here has borrowed them.
    pub(crate) unsafe fn of_file(
        file: BorrowedFd<'_>,
        offset: u64,
        bytes: usize,
        align: usize,
        guard: Guard,
    ) -> Result<Pages, Error> {
        let pages = Pages::mapped(bytes, align, guard, true)?;
        let (start, size) = pages.usable();
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: whole pages of a mapping that these pages own, which nobody has seen yet.
        unsafe { mmap(start.as_ptr().cast(), size, rights, flags, file, offset) }
            .map_err(|e| Error::system("map a sandbox's buffer", e))?;
        let mut pages = pages;
        pages.fill_slack(Filling::Ones.slack(None))?;
        Ok(pages)
    }

    /// As [`shared`](Self::shared), as near to the end as it goes at an address that is a multiple
    /// of `align` and of no larger power of two.
    pub(crate) fn barely_aligned(bytes: usize, align: usize) -> Result<Pages, Error> {
        let more = bytes.saturating_add(2 * align);
        let mut pages = Pages::mapped(more, 1, Guard::Start, true)?;
        let base = pages.base.addr().get();
        let last = base + pages.usable.end - bytes;
        let start = (last - align) / (2 * align) * (2 * align) + align - base;
        pages.buffer = start..start + bytes;
        pages.fill_slack(Filling::Ones.slack(None))?;
        Ok(pages)
    }

    /// Where the first byte of a buffer lies in whole pages, and how many bytes these have.
    pub(crate) fn placed(bytes: usize, align: usize, guard: Guard) -> Option<(usize, usize)> {
        let inside = bytes.checked_next_multiple_of(rustix::param::page_size())?;
        let start = match guard {
            Guard::Start | Guard::Off => 0,
            Guard::End => (inside - bytes) / align * align,
        };
        Some((start, inside))
    }

    fn mapped(bytes: usize, align: usize, guard: Guard, shared: bool) -> Result<Pages, Error> {
        let nothing = || Error::OutOfMemory {
            what: "a guarded buffer".into(),
            bytes,
        };
        let page = rustix::param::page_size();
        let outside = GUARD_BYTES.next_multiple_of(page);
        let (first, inside) = Pages::placed(bytes, align, guard).ok_or_else(nothing)?;
        let size = inside.checked_add(2 * outside).ok_or_else(nothing)?;
        let flags = match shared {
            true => MapFlags::SHARED | MapFlags::NORESERVE,
            false => MapFlags::PRIVATE,
        };
        // SAFETY: a new private mapping, at an address that the kernel chooses
        // among those that nothing uses, replaces nothing.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), size, ProtFlags::empty(), flags) };
        let base = base.ok().and_then(NonNull::new).ok_or_else(nothing)?;
        let usable = outside..outside + inside;
        // A page is a multiple of every alignment, so that neither leaves them.
        let start = usable.start + first;
        let mut pages = Pages {
            base,
            size,
            usable,
            buffer: start..start + bytes,
            pattern: [0; 8],
            read_only: false,
            shared,
        };
        pages.set_rights(true).map_err(|_| nothing())?;
        pages.fill_slack(Filling::Ones.slack(None))?;
        Ok(pages)
    }

    /// The buffer's first byte.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.at(self.buffer.start).cast()
    }

    /// Whether a child's writes are seen here.
    pub(crate) const fn is_shared(&self) -> bool {
        self.shared
    }

    /// The pages that can be used: their first byte, and how many bytes they have.
    pub(crate) fn usable(&self) -> (NonNull<u8>, usize) {
        (self.at(self.usable.start).cast(), self.usable.len())
    }

    /// Writes a new pattern into the slack.
    pub(crate) fn fill_slack(&mut self, pattern: [u8; 8]) -> Result<(), Error> {
        if self.read_only {
            self.set_rights(true)?;
        }
        self.pattern = pattern;
        for offset in self.slack().into_iter().flatten() {
            self.byte(offset).store(self.expected(offset), RELAXED);
        }
        if self.read_only {
            self.set_rights(false)?;
        }
        Ok(())
    }

    /// Makes a write to the buffer or its slack what an access outside is.
    pub(crate) fn make_read_only(&mut self) -> Result<(), Error> {
        self.set_rights(false)?;
        self.read_only = true;
        Ok(())
    }

    /// Which bytes of the slack have been written since it was filled. They are
    /// restored, so that the next one is not found instead of who comes after.
    pub(crate) fn stray(&self) -> Option<Stray> {
        let [before, after] = self.slack();
        let past_end = self.restore(after).map(|(first, last)| Stray {
            past_end: true,
            nearest: first - self.buffer.end + 1,
            farthest: last - self.buffer.end + 1,
        });
        let before = self.restore(before).map(|(first, last)| Stray {
            past_end: false,
            nearest: self.buffer.start - last,
            farthest: self.buffer.start - first,
        });
        past_end.or(before)
    }

    /// The first and the last byte that is not what it should be, made so again.
    fn restore(&self, range: Range<usize>) -> Option<(usize, usize)> {
        let mut found = None;
        for offset in range {
            let (byte, expected) = (self.byte(offset), self.expected(offset));
            if byte.load(RELAXED) != expected {
                byte.store(expected, RELAXED);
                found = Some((found.map_or(offset, |(first, _)| first), offset));
            }
        }
        found
    }

    /// What lies before and behind the buffer in pages that can be used.
    fn slack(&self) -> [Range<usize>; 2] {
        [
            self.usable.start..self.buffer.start,
            self.buffer.end..self.usable.end,
        ]
    }

    const fn expected(&self, offset: usize) -> u8 {
        self.pattern[offset % self.pattern.len()]
    }

    /// A byte of the slack. Two threads that launch kernels over parts of one buffer
    /// may look at it at the same time, hence atomic.
    fn byte(&self, offset: usize) -> &AtomicU8 {
        // SAFETY: the offset is of the slack, which is readable as long as these
        // pages live and which only this module touches, atomically: no view
        // contains it, and no kernel that keeps its contract reaches it. (One that
        // does not has broken it by then.) Read-only slack differs from its
        // pattern nowhere, so that `restore` does not write there.
        unsafe { AtomicU8::from_ptr(self.at(offset).as_ptr().cast()) }
    }

    fn at(&self, offset: usize) -> NonNull<c_void> {
        // SAFETY: offsets are within the mapping.
        unsafe { self.base.byte_add(offset) }
    }

    fn set_rights(&mut self, write: bool) -> Result<(), Error> {
        let rights = if write {
            MprotectFlags::READ | MprotectFlags::WRITE
        } else {
            MprotectFlags::READ
        };
        let start = self.at(self.usable.start).as_ptr();
        // SAFETY: whole pages of this mapping, which these pages own. Rights are
        // taken away only from memory that is not written any more.
        unsafe { mprotect(start, self.usable.len(), rights) }
            .map_err(|e| Error::system("set the rights of a guarded buffer's memory", e))
    }
}

const RELAXED: Ordering = Ordering::Relaxed;

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: this mapping was made by `new` and belongs to these pages alone;
        // every view of them borrows the buffer that owns them.
        let result = unsafe { munmap(self.base.as_ptr(), self.size) };
        if let Err(error) = result {
            tracing::error!(%error, "cannot unmap a guarded buffer");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUARDS: [Guard; 2] = [Guard::End, Guard::Start];

    /// What `/proc/self/maps` says of an address: the rights of its mapping.
    fn rights(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let found = maps.lines().find_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (start, end) = range.split_once('-')?;
            let [start, end] = [start, end].map(|hex| usize::from_str_radix(hex, 16).unwrap());
            (start..end)
                .contains(&address)
                .then(|| rest[..3].to_owned())
        });
        found.unwrap_or_default()
    }

    #[test]
    fn a_buffer_is_flush_with_the_side_that_is_guarded() {
        let page = rustix::param::page_size();
        for guard in GUARDS {
            for bytes in [1, 3, 4, 40, page - 1, page, page + 1, 3 * page + 8] {
                for align in [1, 2, 16, 64, 4096] {
                    let pages = Pages::new(bytes, align, guard).unwrap();
                    let start = pages.start().addr().get();
                    let end = start + bytes;
                    assert!(start.is_multiple_of(align));
                    let slack = match guard {
                        Guard::Start => start % page,
                        _ => end.next_multiple_of(page) - end,
                    };
                    let least = match guard {
                        Guard::Start => 0,
                        _ => bytes.next_multiple_of(align) - bytes,
                    };
                    assert_eq!(slack, least, "{guard:?} {bytes} {align}");
                    let first = start / page * page;
                    let last = end.next_multiple_of(page);
                    assert_eq!(rights(first), "rw-");
                    assert_eq!(rights(last - 1), "rw-");
                    for outside in [first - 1, first - GUARD_BYTES, last, last + GUARD_BYTES - 1] {
                        assert_eq!(rights(outside), "---", "{guard:?} {bytes} {align}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_write_to_the_slack_is_found_once_and_counted_from_the_buffer() {
        let write = |pages: &Pages, offset: isize| {
            let address = pages.start().as_ptr().wrapping_offset(offset);
            // SAFETY: the tests below write to the slack, which is mapped.
            unsafe { address.write_volatile(7) };
        };
        let stray = |past_end, nearest, farthest| {
            Some(Stray {
                past_end,
                nearest,
                farthest,
            })
        };
        for filling in Filling::BOTH {
            let mut pages = Pages::new(40, 16, Guard::End).unwrap();
            pages.fill_slack(filling.slack(None)).unwrap();
            assert_eq!(pages.stray(), None);
            write(&pages, 0);
            write(&pages, 39);
            assert_eq!(pages.stray(), None);
            write(&pages, 40);
            assert_eq!(pages.stray(), stray(true, 1, 1));
            assert_eq!(pages.stray(), None);
            write(&pages, 41);
            write(&pages, 47);
            assert_eq!(pages.stray(), stray(true, 2, 8));
            write(&pages, -1);
            write(&pages, -4);
            assert_eq!(pages.stray(), stray(false, 1, 4));
            let pages = Pages::new(40, 16, Guard::Start).unwrap();
            write(&pages, rustix::param::page_size() as isize - 1);
            let last = rustix::param::page_size() - 40;
            assert_eq!(pages.stray(), stray(true, last, last));
        }
    }

    #[test]
    fn read_only_memory_can_be_read_and_its_slack_filled_anew() {
        let mut pages = Pages::new(10, 1, Guard::End).unwrap();
        pages.make_read_only().unwrap();
        let start = pages.start().addr().get();
        assert_eq!(rights(start), "r--");
        pages.fill_slack(Filling::Hundreds.slack(None)).unwrap();
        assert_eq!(rights(start), "r--");
        assert_eq!(pages.stray(), None);
        // SAFETY: the last byte of the slack, which is mapped and was written.
        let slack = unsafe { pages.start().byte_sub(1).read() };
        assert_eq!(slack, Filling::Hundreds.slack(None)[0]);
    }

    #[test]
    fn more_than_there_is_is_an_error() {
        for bytes in [usize::MAX, isize::MAX as usize, 1 << 60] {
            let result = Pages::new(bytes, 64, Guard::End);
            assert!(matches!(result, Err(Error::OutOfMemory { .. })));
        }
    }

    #[test]
    fn strays_say_where_they_are() {
        let text = |past_end, nearest, farthest| {
            let stray = Stray {
                past_end,
                nearest,
                farthest,
            };
            stray.to_string()
        };
        assert_eq!(text(true, 1, 4), "bytes 1 to 4 past its end");
        assert_eq!(text(false, 8, 8), "byte 8 before its start");
    }
}
