//! The allocations behind a plan's buffers.

use std::collections::HashMap;
use std::ptr::NonNull;

use svod_device::{Buffer, BufferId};

use crate::execution_plan::PreparedOp;
use crate::{Error, Result};

/// An allocation that buffers are views of.
pub(super) struct Storage {
    pub(super) id: u64,
    pub(super) start: NonNull<u8>,
    pub(super) bytes: usize,
    pub(super) written: bool,
    /// Of the plan's buffer.
    pub(super) number: usize,
}

/// The storages of all buffers, and which of them some op writes.
pub(super) fn storages(
    ops: &[PreparedOp],
    buffers: &[Buffer],
) -> Result<HashMap<BufferId, Storage>> {
    let mut storages = HashMap::new();
    for buffer in buffers {
        buffer.ensure_allocated()?;
        // SAFETY: it is allocated. The storage begins so many bytes before the view.
        let start = unsafe { buffer.as_raw_ptr().wrapping_byte_sub(buffer.offset()) };
        let start = NonNull::new(start).ok_or_else(|| Error::execution("a buffer at null"))?;
        storages.entry(buffer.storage_id()).or_insert(Storage {
            id: buffer.storage_id().0,
            start,
            bytes: buffer.total_size(),
            written: false,
            number: 0,
        });
    }
    for op in ops {
        let written = op.written();
        for buffer in written.iter().filter_map(|&i| buffers.get(i)) {
            if let Some(storage) = storages.get_mut(&buffer.storage_id()) {
                storage.written = true;
            }
        }
    }
    Ok(storages)
}
