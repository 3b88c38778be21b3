//! Which parameter lies in which slot.

use std::ptr::NonNull;

use crate::signature::{Convention, Param, Signature};

/// The slots of a kernel's frame.
///
/// ```text
/// C convention        args[0] args[1] … args[n-1]
/// packed convention   &buffers &values │ buffers … │ values …
/// ```
///
/// One spare slot at the end takes the index of a kernel that has none, so that
/// patching it needs no question.
#[derive(Debug)]
pub(super) struct Packing {
    /// The slot of each buffer parameter.
    pub(super) buffers: Box<[u16]>,
    /// The slot of each scalar parameter.
    pub(super) scalars: Box<[u16]>,
    /// The slot of the grid index, or the spare one.
    pub(super) index: usize,
    /// How many arguments the entry takes.
    pub(super) args: usize,
    /// How many slots there are, with the spare one.
    pub(super) slots: usize,
    /// Whether the slots are the buffers, the scalars and the index, in this
    /// order and from the first: how nearly all kernels are declared.
    pub(super) in_order: bool,
    /// For the packed convention, where the buffers and the values begin.
    packed: Option<(usize, usize)>,
}

/// The arguments of the packed convention: two pointers.
const PACKED_ARGS: usize = 2;

impl Packing {
    #[allow(clippy::cast_possible_truncation)] // a signature has at most MAX_PARAMS parameters
    pub(super) fn new(signature: &Signature) -> Packing {
        let params = signature.params();
        let packed = match signature.convention() {
            Convention::C => None,
            Convention::Packed => Some((PACKED_ARGS, PACKED_ARGS + signature.buffers().count())),
        };
        let (args, spare) = match packed {
            None => (params.len(), params.len()),
            Some(_) => (PACKED_ARGS, PACKED_ARGS + params.len()),
        };
        let (mut buffers, mut scalars, mut index) = (Vec::new(), Vec::new(), spare);
        let (mut next_buffer, mut next_value) = packed.unwrap_or_default();
        for (position, param) in params.iter().enumerate() {
            let slot = match (packed, param) {
                (None, _) => position,
                (Some(_), Param::Buffer(_)) => {
                    next_buffer += 1;
                    next_buffer - 1
                }
                (Some(_), _) => {
                    next_value += 1;
                    next_value - 1
                }
            };
            match param {
                Param::Buffer(_) => buffers.push(slot as u16),
                Param::Scalar(_) => scalars.push(slot as u16),
                Param::Index(_) => index = slot,
            }
        }
        let placed = buffers.iter().chain(&scalars);
        let in_order = packed.is_none()
            && placed.enumerate().all(|(i, &slot)| usize::from(slot) == i)
            && index == buffers.len() + scalars.len();
        Packing {
            in_order,
            buffers: buffers.into(),
            scalars: scalars.into(),
            index,
            args,
            slots: spare + 1,
            packed,
        }
    }

    /// Writes the slots that depend on where the slots lie: the pointers of the
    /// packed convention. To be called again when they move.
    ///
    /// # Safety
    ///
    /// `slots` must be writable for [`Packing::slots`] slots.
    #[inline]
    pub(super) unsafe fn bind(&self, slots: *mut u64) {
        if let Some((buffers, values)) = self.packed {
            // SAFETY: promised by the caller; the frame holds the two pointers
            // and all that they point to.
            unsafe {
                slots.write(slots.add(buffers) as u64);
                slots.add(1).write(slots.add(values) as u64);
            }
        }
    }
}

/// The memory of frames. It stays where it is when this moves, and is only
/// touched through one pointer, since a packed frame points into itself.
#[derive(Debug)]
pub(crate) struct Slots {
    start: NonNull<u64>,
    len: usize,
}

// SAFETY: slots are numbers and addresses, owned like a `Box<[u64]>`; what is done with
// an address is the concern of whoever makes a call.
unsafe impl Send for Slots {}
// SAFETY: through a shared reference, no more than their address is to be had.
unsafe impl Sync for Slots {}

impl Slots {
    /// `len` slots, all 0.
    pub(crate) fn zeroed(len: usize) -> Slots {
        let slots: Box<[u64]> = vec![0; len].into();
        let start = NonNull::from(Box::leak(slots)).cast();
        Slots { start, len }
    }

    /// The first of them. Only through what this returns are they touched.
    #[inline(always)]
    pub(crate) const fn as_ptr(&self) -> *mut u64 {
        self.start.as_ptr()
    }

    /// Sets one slot.
    ///
    /// # Panics
    ///
    /// Where there is none of that number.
    pub(crate) fn set(&mut self, slot: usize, value: u64) {
        assert!(slot < self.len, "a slot of the frame");
        // SAFETY: as just checked.
        unsafe { self.start.add(slot).write(value) };
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        let slots = std::ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.len);
        // SAFETY: leaked by `zeroed` as a box of this length, and freed once.
        drop(unsafe { Box::from_raw(slots) });
    }
}
