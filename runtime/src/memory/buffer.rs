//! Owned memory.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use super::guard::{Guard, Pages};
use super::view::{View, ViewMut};
use crate::Error;
use crate::signature::{DType, Element, MAX_ALIGN};

/// The alignment of a buffer, in bytes: a cache line, and the widest vector register
/// there is. Only a [guarded](Buffer::guarded) one may have less.
pub const BUFFER_ALIGN: usize = 64;

/// Owned memory for elements of one type, zeroed at birth.
///
/// ```
/// use svod_runtime::{Buffer, DType};
///
/// let mut buffer = Buffer::zeroed(DType::F32, 4)?;
/// buffer.as_mut_slice::<f32>()?[1] = 2.0;
/// assert_eq!(buffer.as_slice::<f32>()?, [0.0, 2.0, 0.0, 0.0]);
/// assert_eq!(buffer.view(1..3)?.as_slice::<f32>()?, [2.0, 0.0]);
/// # Ok::<(), svod_runtime::Error>(())
/// ```
#[derive(Debug)]
pub struct Buffer {
    block: Block,
    dtype: DType,
    len: usize,
}

impl Buffer {
    /// `len` elements, all zero.
    ///
    /// Large buffers take no memory until they are touched.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`] where the system has not that much.
    pub fn zeroed(dtype: DType, len: usize) -> Result<Buffer, Error> {
        Buffer::with_align(dtype, len, BUFFER_ALIGN)
    }

    /// `len` elements, all zero, aligned to `align` bytes, a power of two up to
    /// [`MAX_ALIGN`]; to [`BUFFER_ALIGN`] where that is more.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`] where the system has not that much;
    /// [`Error::Buffer`] for another alignment.
    pub fn with_align(dtype: DType, len: usize, align: usize) -> Result<Buffer, Error> {
        Buffer::guarded(dtype, len, align, Guard::Off)
    }

    /// `len` elements, all zero, between inaccessible pages as `guard` says, aligned
    /// to `align` bytes, a power of two up to [`MAX_ALIGN`], and to its elements. The
    /// less is asked for, the closer lies the page past the end. With [`Guard::Off`]
    /// it is [`with_align`](Self::with_align).
    ///
    /// An access to an inaccessible page ends the process. A write to what lies
    /// between it and the buffer is found when the launch that made it returns:
    /// [`Error::Overrun`].
    ///
    /// # Errors
    ///
    /// As [`with_align`](Self::with_align).
    pub fn guarded(dtype: DType, len: usize, align: usize, guard: Guard) -> Result<Buffer, Error> {
        check_align(align)?;
        let bytes = len.saturating_mul(dtype.size());
        let block = match guard {
            Guard::Off => Block::zeroed(bytes, align.max(BUFFER_ALIGN)),
            _ => Block::guarded(bytes, align.max(dtype.size()), guard),
        }?;
        Ok(Buffer { block, dtype, len })
    }

    /// As [`guarded`](Self::guarded), in memory that processes which are forked from this one
    /// share, such as a [sandbox](crate::sandbox)'s: a kernel that runs there works on it where
    /// it lies. Without a guard it has one all the same, at its end.
    ///
    /// # Errors
    ///
    /// As [`with_align`](Self::with_align).
    pub fn shared(dtype: DType, len: usize, align: usize, guard: Guard) -> Result<Buffer, Error> {
        check_align(align)?;
        let bytes = len.saturating_mul(dtype.size());
        let guard = if guard == Guard::Off {
            Guard::End
        } else {
            guard
        };
        let block = Block::shared(bytes, align.max(dtype.size()), guard)?;
        Ok(Buffer { block, dtype, len })
    }

    /// As [`shared`](Self::shared), of whole pages of a file from `offset` on, as
    /// [`Pages::placed`] says.
    ///
    /// # Safety
    ///
    /// As [`Pages::of_file`]; of `bool` each byte must be 0 or 1.
    pub(crate) unsafe fn of_file(
        file: BorrowedFd<'_>,
        offset: u64,
        (dtype, len, align): (DType, usize, usize),
        guard: Guard,
    ) -> Result<Buffer, Error> {
        check_align(align)?;
        let bytes = len.saturating_mul(dtype.size());
        let align = align.max(dtype.size());
        let block = Block::of_pages(bytes, align, |align| {
            // SAFETY: promised by the caller.
            unsafe { Pages::of_file(file, offset, bytes, align, guard) }
        })?;
        Ok(Buffer { block, dtype, len })
    }

    /// As [`shared`](Self::shared), at an address that is a multiple of `align` and of no larger
    /// power of two, near the end of its pages: who assumes more is wrong there.
    pub(crate) fn barely_aligned(dtype: DType, len: usize, align: usize) -> Result<Buffer, Error> {
        check_align(align)?;
        let bytes = len.saturating_mul(dtype.size());
        let block = Block::of_pages(bytes, align, |align| Pages::barely_aligned(bytes, align))?;
        Ok(Buffer { block, dtype, len })
    }

    /// A copy of a slice.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`] where the system has not that much.
    pub fn from_slice<T: Element>(elements: &[T]) -> Result<Buffer, Error> {
        let mut buffer = Buffer::zeroed(T::DTYPE, elements.len())?;
        buffer.as_mut_slice::<T>()?.copy_from_slice(elements);
        Ok(buffer)
    }

    /// The same bytes as elements of another type, as many as fill them. Bytes
    /// that become `bool` must have been checked to be 0 or 1.
    pub(crate) fn with_dtype(mut self, dtype: DType) -> Buffer {
        self.len = self.len * self.dtype.size() / dtype.size();
        self.dtype = dtype;
        self
    }

    /// Fills it with elements, given as eight bytes of them; those of type `bool`
    /// must be 0 or 1.
    pub(crate) fn fill(&mut self, elements: [u8; 8]) {
        let bytes = self.len * self.dtype.size();
        // SAFETY: the block has as many bytes, initialised at birth, and is borrowed
        // exclusively.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.block.start.as_ptr(), bytes) };
        for chunk in bytes.chunks_mut(elements.len()) {
            chunk.copy_from_slice(&elements[..chunk.len()]);
        }
    }

    /// Copies bytes over its own, as many as there are of both; those that become `bool`
    /// must be 0 or 1.
    pub(crate) fn overwrite(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(self.len * self.dtype.size());
        // SAFETY: the block has as many bytes and is borrowed exclusively, so that they
        // lie nowhere else.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.block.start.as_ptr(), len);
        }
    }

    /// As [`overwrite`](Self::overwrite), of one that is all zero yet: pages that begin as zeros stay
    /// as they are, which is without memory where they have not been touched.
    pub(crate) fn begin_with(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(self.len * self.dtype.size());
        // Of the size of a page on most systems, elsewhere of a part of one.
        for (start, page) in (0..len).step_by(4096).zip(bytes[..len].chunks(4096)) {
            // A line at a time: most pages say no with their first.
            let is_zero = |line: &[u8]| line.iter().fold(0, |all, byte| all | byte) == 0;
            if !page.chunks(64).all(is_zero) {
                // SAFETY: as in `overwrite`; these are bytes of both from `start` on.
                unsafe {
                    let own = self.block.start.as_ptr().add(start);
                    std::ptr::copy_nonoverlapping(page.as_ptr(), own, page.len());
                }
            }
        }
    }

    /// Fills the slack beside a guarded buffer, if it is one.
    pub(crate) fn fill_slack(&mut self, pattern: [u8; 8]) -> Result<(), Error> {
        match &mut self.block.memory {
            Memory::Pages(pages) => pages.fill_slack(pattern),
            _ => Ok(()),
        }
    }

    /// Makes a write to it end the process, if it is guarded. Whoever has it must
    /// write it no more.
    pub(crate) fn make_read_only(&mut self) -> Result<(), Error> {
        match &mut self.block.memory {
            Memory::Pages(pages) => pages.make_read_only(),
            _ => Ok(()),
        }
    }

    /// The type of its elements.
    #[must_use]
    pub const fn dtype(&self) -> DType {
        self.dtype
    }

    /// How many elements it has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no elements.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of it, for reading.
    #[must_use]
    pub const fn as_view(&self) -> View<'_> {
        // SAFETY: the block holds `len` elements and is borrowed for as long.
        unsafe { View::from_parts(self.block.start, self.dtype, self.len, self.block.pages()) }
    }

    /// All of it, for writing.
    #[must_use]
    pub const fn as_view_mut(&mut self) -> ViewMut<'_> {
        // SAFETY: as above; the borrow is exclusive.
        unsafe { ViewMut::from_parts(self.block.start, self.dtype, self.len, self.block.pages()) }
    }

    /// The elements of `range`, for reading.
    ///
    /// # Errors
    ///
    /// [`Error::Buffer`] where the range leaves the buffer.
    pub fn view(&self, range: Range<usize>) -> Result<View<'_>, Error> {
        self.as_view().slice(range)
    }

    /// The elements of `range`, for writing.
    ///
    /// # Errors
    ///
    /// [`Error::Buffer`] where the range leaves the buffer.
    pub fn view_mut(&mut self, range: Range<usize>) -> Result<ViewMut<'_>, Error> {
        self.as_view_mut().slice(range)
    }

    /// Its elements as a slice of numbers; a `bool` is a `u8`.
    ///
    /// # Errors
    ///
    /// [`Error::Buffer`] where `T` is not the type of its elements.
    pub fn as_slice<T: Element>(&self) -> Result<&[T], Error> {
        self.as_view().as_slice()
    }

    /// Its elements as a slice of numbers that can be written.
    ///
    /// # Errors
    ///
    /// [`Error::Buffer`] where `T` is not the type of its elements, or these are
    /// `bool`, of which [`ViewMut::copy_from`] writes checked values.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T], Error> {
        self.as_view_mut().into_slice()
    }
}

fn check_align(align: usize) -> Result<(), Error> {
    if align.is_power_of_two() && align <= MAX_ALIGN {
        return Ok(());
    }
    Err(Error::Buffer {
        doing: "cannot allocate a buffer",
        reason: format!("an alignment of {align} bytes is no power of two up to {MAX_ALIGN}"),
    })
}

/// Bytes, zeroed at birth.
#[derive(Debug)]
struct Block {
    /// The first byte, aligned as asked.
    start: NonNull<u8>,
    memory: Memory,
}

/// What a block owns, to give back.
#[derive(Debug)]
enum Memory {
    /// Of a block of no bytes.
    Nothing,
    Heap(NonNull<u8>, Layout),
    Pages(Box<Pages>),
}

// SAFETY: a block owns its memory, like a `Box<[u8]>`. Of guarded memory, shared
// references touch the slack alone, and atomically.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    fn zeroed(bytes: usize, align: usize) -> Result<Block, Error> {
        let nothing = || Error::OutOfMemory {
            what: "a buffer".into(),
            bytes,
        };
        if bytes == 0 {
            return Block::empty(align).ok_or_else(nothing);
        }
        // The system's allocator gets fresh zeroed pages for the alignments that
        // it serves by itself, and writes every page for larger ones. So more is
        // asked for, and the start moved.
        let layout = bytes
            .checked_add(align)
            .and_then(|padded| Layout::from_size_align(padded, 1).ok())
            .ok_or_else(nothing)?;
        // SAFETY: the size is not zero.
        let allocated = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(nothing)?;
        let address = allocated.addr().get();
        let pad = address.next_multiple_of(align) - address;
        Ok(Block {
            // SAFETY: `pad` is below `align`, by which the allocation is longer.
            start: unsafe { allocated.byte_add(pad) },
            memory: Memory::Heap(allocated, layout),
        })
    }

    fn guarded(bytes: usize, align: usize, guard: Guard) -> Result<Block, Error> {
        Block::of_pages(bytes, align, |align| Pages::new(bytes, align, guard))
    }

    fn shared(bytes: usize, align: usize, guard: Guard) -> Result<Block, Error> {
        Block::of_pages(bytes, align, |align| Pages::shared(bytes, align, guard))
    }

    fn of_pages(
        bytes: usize,
        align: usize,
        map: impl FnOnce(usize) -> Result<Pages, Error>,
    ) -> Result<Block, Error> {
        if bytes == 0 {
            return Block::empty(align).ok_or_else(|| Error::OutOfMemory {
                what: "a buffer".into(),
                bytes,
            });
        }
        let pages = Box::new(map(align)?);
        Ok(Block {
            start: pages.start(),
            memory: Memory::Pages(pages),
        })
    }

    /// No byte is ever touched, so an address that is aligned will do. It is among
    /// the lowest, where nothing is ever mapped: as good as any guard.
    fn empty(align: usize) -> Option<Block> {
        Some(Block {
            start: NonNull::without_provenance(std::num::NonZero::new(align)?),
            memory: Memory::Nothing,
        })
    }

    const fn pages(&self) -> Option<&Pages> {
        match &self.memory {
            Memory::Pages(pages) => Some(pages),
            _ => None,
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Memory::Heap(allocated, layout) = self.memory {
            // SAFETY: allocated by `zeroed` with this layout, and given back once.
            unsafe { dealloc(allocated.as_ptr(), layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_buffer_is_zeroed_and_aligned() {
        for len in [0, 1, 3, 64, 1000, 1 << 20] {
            for align in [1, 64, 128, 4096] {
                let buffer = Buffer::with_align(DType::U8, len, align).unwrap();
                let slice = buffer.as_slice::<u8>().unwrap();
                assert_eq!(slice.len(), len);
                assert_eq!(slice.as_ptr() as usize % align.max(64), 0);
                assert!(slice.iter().all(|&b| b == 0));
            }
        }
        for guard in Guard::ALL {
            let buffer = Buffer::guarded(DType::I32, 3, 1, guard).unwrap();
            assert_eq!(buffer.as_slice::<i32>().unwrap(), [0; 3]);
            let empty = Buffer::guarded(DType::I32, 0, 1024, guard).unwrap();
            let slice = empty.as_slice::<i32>().unwrap();
            assert_eq!((slice.len(), slice.as_ptr() as usize % 1024), (0, 0));
            assert!(Buffer::guarded(DType::U8, 1, 8192, guard).is_err());
        }
        assert!(Buffer::with_align(DType::U8, 1, 8192).is_err());
        assert!(Buffer::with_align(DType::U8, 1, 3).is_err());
    }

    #[test]
    fn what_it_begins_with_is_all_there_zeros_or_not() {
        for guard in Guard::ALL {
            for len in [0, 1, 4095, 4096, 4097, 50_000] {
                let mut content = vec![0; len];
                // The first and last byte of some lines and pages, others are zero.
                for at in [0, 63, 64, 4095, 8192 + 4095, 12_288, len.wrapping_sub(1)] {
                    if let Some(byte) = content.get_mut(at) {
                        *byte = 1 + (at % 200) as u8;
                    }
                }
                let mut buffer = Buffer::guarded(DType::U8, len, 1, guard).unwrap();
                buffer.begin_with(&content);
                assert_eq!(
                    buffer.as_slice::<u8>().unwrap(),
                    content,
                    "{len}, {guard:?}"
                );
            }
        }
    }

    #[test]
    fn more_than_there_is_is_an_error() {
        for len in [usize::MAX, isize::MAX as usize, 1 << 55] {
            for guard in Guard::ALL {
                let result = Buffer::guarded(DType::F64, len, 64, guard);
                assert!(matches!(result, Err(Error::OutOfMemory { .. })), "{len}");
            }
        }
    }
}
