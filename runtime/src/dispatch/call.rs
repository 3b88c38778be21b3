//! A call whose arguments are packed.

use super::entry::Entry;
use super::kernel::Kernel;
use super::packing::Slots;
use crate::Error;

/// A call of one kernel with its arguments packed, to be made any number of
/// times.
///
/// Each thread that makes calls has a `Call` of its own: making one writes the
/// grid index into its slot.
#[derive(Debug)]
pub struct Call {
    // What a call reads comes first, and side by side.
    entry: Entry,
    slots: Slots,
    kernel: Kernel,
}

// SAFETY: the slots hold addresses and numbers, which any thread may hold; what
// is done with them is the concern of the `unsafe` methods.
unsafe impl Send for Call {}

impl Call {
    /// A call with every argument 0, to be set before it is made.
    #[must_use]
    pub fn new(kernel: &Kernel) -> Call {
        let packing = kernel.packing();
        let slots = Slots::zeroed(packing.slots);
        // SAFETY: there are as many slots as the packing has.
        unsafe { packing.bind(slots.as_ptr()) };
        Call {
            entry: kernel.entry(),
            slots,
            kernel: kernel.clone(),
        }
    }

    /// The kernel that it calls.
    #[must_use]
    pub const fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Sets the buffer parameter `i`, counted among the buffers.
    ///
    /// # Panics
    ///
    /// Where the signature has no such parameter.
    pub fn set_buffer(&mut self, i: usize, buffer: *mut u8) {
        let slot = self.kernel.packing().buffers[i];
        self.slots.set(slot.into(), buffer as u64);
    }

    /// Sets the scalar parameter `i`, counted among the scalars, to a slot as
    /// [`Scalar::to_slot`](crate::Scalar::to_slot) gives it.
    ///
    /// # Panics
    ///
    /// Where the signature has no such parameter.
    pub fn set_scalar(&mut self, i: usize, slot_value: u64) {
        let slot = self.kernel.packing().scalars[i];
        self.slots.set(slot.into(), slot_value);
    }

    /// Makes the call for the grid index that was set last, 0 at first. Returns
    /// the status, 0 where the kernel returns nothing.
    ///
    /// # Safety
    ///
    /// All arguments must be set, and what [`Kernel::call`] asks of them must
    /// hold.
    #[inline(always)]
    pub unsafe fn call(&self) -> i32 {
        // SAFETY: entry and slots belong to one kernel, which this call keeps alive. The
        // rest is promised by the caller.
        unsafe { self.entry.call(self.slots.as_ptr()) }
    }

    /// Makes the call for one grid index. Returns the status, 0 where the kernel
    /// returns nothing.
    ///
    /// # Safety
    ///
    /// As [`Call::call`], and `index` must be below the index parameter's
    /// maximum.
    #[inline(always)]
    pub unsafe fn call_at(&mut self, index: u64) -> i32 {
        // SAFETY: as in `call`; the slots are this call's own.
        unsafe { self.entry.call_at(self.slots.as_ptr(), index) }
    }

    /// Makes the calls of a whole grid, in order.
    ///
    /// # Errors
    ///
    /// [`Error::KernelStatus`] at the first call that returns a status other
    /// than 0; the calls after it are not made.
    ///
    /// # Safety
    ///
    /// As [`Call::call`], and `grid` must be at most the index parameter's
    /// maximum, or 1 without an index.
    pub unsafe fn run(&mut self, grid: u64) -> Result<(), Error> {
        for index in 0..grid {
            // SAFETY: promised by the caller.
            let status = unsafe { self.call_at(index) };
            if status != 0 {
                return Err(Error::KernelStatus {
                    kernel: self.kernel.name().to_owned(),
                    op: None,
                    status,
                    index,
                });
            }
        }
        Ok(())
    }
}
