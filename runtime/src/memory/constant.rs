//! Memory that is never written: a file's, or a buffer that was filled.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::Mmap;

use super::Buffer;
use crate::signature::DType;

/// Elements, or untyped bytes, that are never written, in memory of their own or
/// of a mapped file. Clones share it.
#[derive(Clone, Debug)]
pub struct Constant {
    memory: Memory,
    dtype: Option<DType>,
}

#[derive(Clone, Debug)]
enum Memory {
    Buffer(Arc<Buffer>),
    File(Arc<Mmap>, Range<usize>),
}

impl From<Buffer> for Constant {
    /// The elements of a buffer, as they are.
    fn from(buffer: Buffer) -> Constant {
        Constant {
            dtype: Some(buffer.dtype()),
            memory: Memory::Buffer(Arc::new(buffer)),
        }
    }
}

impl Constant {
    /// Elements in a part of a mapped file, which must lie within it.
    pub(crate) fn mapped(map: Arc<Mmap>, range: Range<usize>, dtype: Option<DType>) -> Constant {
        debug_assert!(range.end <= map.len());
        Constant {
            memory: Memory::File(map, range),
            dtype,
        }
    }

    /// The same memory, seen as elements of this type, or as bytes. What they are
    /// is for the caller to vouch for, as whoever loads a bundle does.
    pub(crate) fn with_dtype(mut self, dtype: Option<DType>) -> Constant {
        self.dtype = dtype;
        self
    }

    /// The type of its elements; `None` for untyped bytes.
    #[must_use]
    pub const fn dtype(&self) -> Option<DType> {
        self.dtype
    }

    /// Its size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.as_bytes().len()
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Buffer(buffer) => buffer.as_view().as_bytes(),
            Memory::File(map, range) => map.get(range.clone()).unwrap_or_default(),
        }
    }

    /// Where it lies in memory; for reading only.
    pub(crate) fn start(&self) -> NonNull<u8> {
        match &self.memory {
            // A slice of no bytes would lose the alignment of an empty buffer.
            Memory::Buffer(buffer) => buffer.as_view().start(),
            Memory::File(..) => NonNull::from_ref(self.as_bytes()).cast(),
        }
    }

    /// Whether it lies in a mapped file.
    #[must_use]
    pub const fn is_mapped(&self) -> bool {
        matches!(self.memory, Memory::File(..))
    }
}
