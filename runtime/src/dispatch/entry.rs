//! What a call jumps to, without its arguments.

use std::ffi::c_void;

use super::trampoline::{Enter, NOT_INLINE, call_inline};

/// How a kernel is entered, for arguments that lie in slots of the caller's. It is
/// valid while the kernel lives that it is of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(super) enter: Enter,
    /// The code, or what leads to it.
    pub(super) target: *const c_void,
    /// The slot of the grid index, or the spare one.
    pub(super) index: u32,
    /// The number of arguments, if the call can be made inline.
    pub(super) inline_args: u8,
}

impl Entry {
    /// Makes the call. Returns the status, 0 where the kernel returns nothing.
    ///
    /// # Safety
    ///
    /// The kernel must live, `slots` must hold its arguments as its packing lays them
    /// out, and what [`Kernel::call`](super::Kernel::call) asks of them must hold.
    #[inline(always)]
    pub(crate) unsafe fn call(self, slots: *const u64) -> i32 {
        // SAFETY: way in, target and number of inline arguments are of one kernel, which
        // lives, and whose slots these are. The rest is promised by the caller.
        unsafe { call_inline(self.inline_args, self.enter, self.target, slots) }
    }

    /// The number of arguments, where the call can be made inline: see
    /// [`call_inline`](Self::call_inline).
    pub(crate) fn inline_args(self) -> Option<u8> {
        (self.inline_args != NOT_INLINE).then_some(self.inline_args)
    }

    /// Makes the call of an entry that has `ARGS` arguments, for the grid index that
    /// lies in its slot.
    ///
    /// # Safety
    ///
    /// As [`Entry::call`], and [`inline_args`](Self::inline_args) must be `ARGS`.
    #[inline(always)]
    pub(crate) unsafe fn call_inline<const ARGS: u8>(self, slots: *const u64) {
        // SAFETY: promised by the caller.
        unsafe { call_inline(ARGS, self.enter, self.target, slots) };
    }

    /// Makes the call for one grid index. Returns the status, 0 where the kernel
    /// returns nothing.
    ///
    /// # Safety
    ///
    /// As [`Entry::call`]; the slots must be writable, and the index below the index
    /// parameter's maximum.
    #[inline(always)]
    pub(crate) unsafe fn call_at(self, slots: *mut u64, index: u64) -> i32 {
        // SAFETY: the packing has this slot, whether the kernel has an index or not.
        unsafe { slots.add(self.index as usize).write(index) };
        // SAFETY: promised by the caller.
        unsafe { self.call(slots) }
    }
}
