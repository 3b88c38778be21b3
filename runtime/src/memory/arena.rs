//! Memory for the temps of a plan, of which nobody reads what an earlier run left.

use std::ffi::c_void;
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::Error;

/// Arenas of so many bytes and more ask for huge pages, of 2 MiB on x86-64, and lie at
/// a multiple of as much. `usize::MAX` turns it off.
///
/// Where the system gives them when asked (`madvise`), the first run over an arena of 2,
/// 16 and 256 MiB took 0.12, 1.7 and 63 ms, and 0.75, 12 and 224 ms with small pages; later
/// runs that jump from page to page took 0.6 of the time at 16 MiB and more, and the same
/// below. An instance may so take up to 2 MiB more than it says.
const HUGE_FROM: usize = 2 << 20;

/// The size of a huge page in bytes.
const HUGE_PAGE: usize = 2 << 20;

/// Zeroed pages that take no memory until they are touched, and can be given back in
/// between.
#[derive(Debug)]
pub(crate) struct Arena {
    base: NonNull<c_void>,
    size: usize,
    /// The first byte that is used.
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: an arena owns its memory, like a `Box<[u8]>`, and writes it through `&mut`
// alone.
unsafe impl Send for Arena {}
// SAFETY: as above; through a shared reference, no more than its address is to be had.
unsafe impl Sync for Arena {}

impl Arena {
    /// `bytes` zeros, aligned to a page at least.
    pub(crate) fn new(bytes: usize) -> Result<Arena, Error> {
        let nothing = || Error::OutOfMemory {
            what: "the temps of a plan".into(),
            bytes,
        };
        if bytes == 0 {
            let align = std::num::NonZero::new(rustix::param::page_size()).ok_or_else(nothing)?;
            let start = NonNull::without_provenance(align);
            return Ok(Arena {
                base: start.cast(),
                size: 0,
                start,
                bytes,
            });
        }
        let huge = bytes >= HUGE_FROM;
        let pad = if huge { HUGE_PAGE } else { 0 };
        let size = bytes
            .checked_next_multiple_of(rustix::param::page_size())
            .and_then(|whole| whole.checked_add(pad))
            .filter(|size| isize::try_from(*size).is_ok())
            .ok_or_else(nothing)?;
        // SAFETY: a new private mapping, at an address that the kernel chooses
        // among those that nothing uses, replaces nothing.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                size,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        let base = base.ok().and_then(NonNull::new).ok_or_else(nothing)?;
        let address = base.addr().get();
        let offset = match huge {
            true => address.next_multiple_of(HUGE_PAGE) - address,
            false => 0,
        };
        // SAFETY: the mapping is longer than `bytes` by a huge page, or the offset is 0.
        let start = unsafe { base.byte_add(offset) };
        let arena = Arena {
            base,
            size,
            start: start.cast(),
            bytes,
        };
        if huge {
            arena.advise(Advice::LinuxHugepage);
        }
        Ok(arena)
    }

    /// The first byte.
    pub(crate) const fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Gives its memory back to the system; it holds zeros then.
    pub(crate) fn trim(&mut self) {
        self.advise(Advice::LinuxDontNeed);
    }

    /// Fills the part of it that begins at `offset`, as far as it has that many bytes,
    /// with elements, given as eight bytes of them.
    pub(crate) fn fill_temp(&mut self, offset: usize, bytes: usize, elements: [u8; 8]) {
        let start = offset.min(self.bytes);
        let len = bytes.min(self.bytes - start);
        // SAFETY: the bytes lie within the arena, which is borrowed exclusively, and were
        // zeroed at birth.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.start.add(start).as_ptr(), len) };
        for chunk in bytes.chunks_mut(elements.len()) {
            chunk.copy_from_slice(&elements[..chunk.len()]);
        }
    }

    /// What the system makes of it is its own affair: it may lack huge pages.
    fn advise(&self, advice: Advice) {
        if self.bytes == 0 {
            return;
        }
        // SAFETY: whole pages of this mapping, since it starts at one; neither advice
        // takes away what somebody still needs, as of temps nobody reads what an earlier
        // run left.
        let result = unsafe { madvise(self.start.as_ptr().cast(), self.bytes, advice) };
        if let Err(error) = result {
            tracing::debug!(%error, ?advice, "advice on a plan's memory was not taken");
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if self.size == 0 {
            return;
        }
        // SAFETY: this mapping was made by `new` and belongs to this arena alone.
        let result = unsafe { munmap(self.base.as_ptr(), self.size) };
        if let Err(error) = result {
            tracing::error!(%error, "cannot unmap a plan's memory");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arena: &Arena, at: usize) -> u8 {
        assert!(at < arena.bytes);
        // SAFETY: within the arena.
        unsafe { arena.start().add(at).read() }
    }

    #[test]
    fn an_arena_is_zeroed_and_can_be_given_back() {
        for bytes in [1, 4096, 10_000, HUGE_FROM - 1, HUGE_FROM, HUGE_FROM + 1] {
            let mut arena = Arena::new(bytes).unwrap();
            let align = if bytes < HUGE_FROM { 4096 } else { HUGE_PAGE };
            assert!(arena.start().addr().get().is_multiple_of(align));
            assert_eq!((read(&arena, 0), read(&arena, bytes - 1)), (0, 0));
            arena.fill_temp(0, bytes, [7; 8]);
            assert_eq!((read(&arena, 0), read(&arena, bytes - 1)), (7, 7));
            arena.trim();
            assert_eq!((read(&arena, 0), read(&arena, bytes - 1)), (0, 0));
        }
        Arena::new(0).unwrap().trim();
    }

    #[test]
    fn more_than_there_is_is_an_error() {
        for bytes in [usize::MAX, isize::MAX as usize, 1 << 60] {
            let result = Arena::new(bytes);
            assert!(matches!(result, Err(Error::OutOfMemory { .. })));
        }
    }
}
