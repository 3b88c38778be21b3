//! A callable entry with its signature.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::Arc;

use super::cif::{CifTarget, KernelCif, enter_status, enter_void};
use super::cost::{Cost, Costs};
use super::entry::Entry;
use super::packing::Packing;
use super::serial::SerialTarget;
use super::trampoline::{Enter, MAX_INLINE_ARGS, NOT_INLINE, by_count, may_be_fresh};
use crate::Error;
use crate::link::{Code, Image};
use crate::signature::{Convention, MAX_PARAMS, Param, Returns, Signature};

/// A callable entry with its signature. Clones share it.
#[derive(Clone, Debug)]
pub struct Kernel {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    signature: Signature,
    packing: Packing,
    enter: Enter,
    /// The number of arguments, if `Call` can make the call inline.
    inline_args: u8,
    /// The entry, or a `CifTarget` or `SerialTarget` that leads to it.
    target: *const c_void,
    /// What `target` points to, if it does not point to code: libffi's interface, and
    /// the lock of code that keeps state.
    _cif: Option<Arc<CifTarget>>,
    serial: Option<Arc<SerialTarget>>,
    /// What the code lies in; none for code that is part of the process.
    image: Option<Arc<Image>>,
    costs: Costs,
}

// SAFETY: all of it but its costs, which are `Sync`, is constant once made: code that is never
// written, a libffi interface that is `Sync`, and pointers to these. Code that keeps state is entered
// through a `SerialTarget`, which makes its calls one at a time.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Kernel {
    /// The kernel whose entry is the function `name` of an image.
    ///
    /// # Errors
    ///
    /// [`Error::NoEntry`] where the image has no such function.
    ///
    /// # Safety
    ///
    /// The function must keep the contract of the signature, as the
    /// [`signature`](crate::signature) module states it.
    pub unsafe fn new(
        name: impl Into<String>,
        image: Arc<Image>,
        signature: Signature,
    ) -> Result<Kernel, Error> {
        let name = name.into();
        let Some(entry) = image.function(&name) else {
            let defined: Vec<_> = image.functions().map(|f| format!("`{f}`")).collect();
            return Err(Error::NoEntry {
                kernel: name,
                defined: if defined.is_empty() {
                    "none".into()
                } else {
                    defined.join(", ")
                },
            });
        };
        Ok(Kernel::build(name, entry.as_ptr(), signature, Some(image)))
    }

    /// The kernel whose entry is a function of this process, such as one that
    /// was linked into the program.
    ///
    /// # Safety
    ///
    /// `entry` must be the address of a function of this signature's C
    /// prototype that stays where it is, and keep the contract of the
    /// signature, as the [`signature`](crate::signature) module states it.
    #[must_use]
    pub unsafe fn from_entry(
        name: impl Into<String>,
        entry: *const c_void,
        signature: Signature,
    ) -> Kernel {
        Kernel::build(name.into(), entry, signature, None)
    }

    /// A kernel that returns at once, whatever its signature: what is left of a run with such
    /// kernels is what the runtime takes for itself.
    #[must_use]
    pub fn empty(name: impl Into<String>, signature: Signature) -> Kernel {
        Kernel::build(name.into(), empty as *const c_void, signature, None)
    }

    fn build(
        name: String,
        entry: *const c_void,
        signature: Signature,
        image: Option<Arc<Image>>,
    ) -> Kernel {
        let packing = Packing::new(&signature);
        let status = signature.returns() == Returns::Status;
        let trampoline = if in_float_registers(&signature) {
            None
        } else {
            by_count(packing.args, status)
        };
        let inlines = trampoline.is_some()
            && !status
            && packing.args <= MAX_INLINE_ARGS
            && may_be_fresh(packing.index, packing.args);
        let (enter, target, cif) = match trampoline {
            Some(enter) => (enter, entry, None),
            None => {
                let cif = Arc::new(CifTarget {
                    cif: KernelCif::new(&signature),
                    entry,
                });
                let enter = if status {
                    Enter::Status(enter_status)
                } else {
                    Enter::Void(enter_void)
                };
                (enter, Arc::as_ptr(&cif).cast(), Some(cif))
            }
        };
        let serial = SerialTarget::new(image.as_ref(), enter, target).map(Arc::new);
        let inlines = inlines && serial.is_none();
        let (enter, target) = match &serial {
            None => (enter, target),
            Some(serial) => (serial.enter(), Arc::as_ptr(serial).cast()),
        };
        Kernel {
            inner: Arc::new(Inner {
                name,
                signature,
                inline_args: if inlines {
                    packing.args as u8
                } else {
                    NOT_INLINE
                },
                packing,
                enter,
                target,
                _cif: cif,
                serial,
                image,
                costs: Costs::default(),
            }),
        }
    }

    /// The entry's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its signature.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        &self.inner.signature
    }

    /// Calls the kernel once, for the grid index `index` (ignored without one),
    /// from buffers and scalars as they come, each in the order of the
    /// parameters; scalars are slots, as
    /// [`Scalar::to_slot`](crate::Scalar::to_slot) gives them. Returns its
    /// status, 0 where it returns nothing.
    ///
    /// For a call that is made more than once, [`Call`](super::Call) packs the
    /// arguments only once.
    ///
    /// # Panics
    ///
    /// Where the number of buffers or scalars is not the signature's.
    ///
    /// # Safety
    ///
    /// Each buffer must be valid for what the signature says that the kernel
    /// does with it, each scalar within its bounds, the index below the index
    /// parameter's maximum; buffers that the kernel writes must overlap no
    /// other, and nothing else may use them meanwhile.
    #[inline]
    pub unsafe fn call(&self, buffers: &[*mut u8], scalars: &[u64], index: u64) -> i32 {
        /// Frames up to this many slots take a small array on the stack.
        const FEW: usize = 40;
        // The spare slot, and the two pointers of the packed convention.
        const MOST: usize = MAX_PARAMS + 3;
        // SAFETY: promised by the caller; no frame has more than MOST slots.
        unsafe {
            if self.inner.packing.slots <= FEW {
                self.call_with::<FEW>(buffers, scalars, index)
            } else {
                self.call_with::<MOST>(buffers, scalars, index)
            }
        }
    }

    /// # Safety
    ///
    /// As [`Kernel::call`], and the frame must have at most `N` slots.
    #[inline(always)]
    unsafe fn call_with<const N: usize>(
        &self,
        buffers: &[*mut u8],
        scalars: &[u64],
        index: u64,
    ) -> i32 {
        let packing = &self.inner.packing;
        self.assert_counts(buffers.len(), scalars.len());
        let mut slots = [const { MaybeUninit::<u64>::uninit() }; N];
        let slots = slots.as_mut_ptr().cast::<u64>();
        // SAFETY: every slot number is below `packing.slots`, which is at most N.
        unsafe {
            if packing.in_order {
                for (slot, &buffer) in buffers.iter().enumerate() {
                    slots.add(slot).write(buffer as u64);
                }
                for (i, &scalar) in scalars.iter().enumerate() {
                    slots.add(buffers.len() + i).write(scalar);
                }
            } else {
                packing.bind(slots);
                for (&slot, &buffer) in packing.buffers.iter().zip(buffers) {
                    slots.add(slot.into()).write(buffer as u64);
                }
                for (&slot, &scalar) in packing.scalars.iter().zip(scalars) {
                    slots.add(slot.into()).write(scalar);
                }
            }
            slots.add(packing.index).write(index);
        }
        // SAFETY: the slots are those of this kernel; the rest is promised by
        // the caller.
        unsafe { self.enter_with(slots) }
    }

    /// # Panics
    ///
    /// Where these are not as many as the signature has.
    #[inline]
    pub(crate) fn assert_counts(&self, buffers: usize, scalars: usize) {
        let packing = &self.inner.packing;
        assert!(
            buffers == packing.buffers.len() && scalars == packing.scalars.len(),
            "the signature's number of buffers and scalars"
        );
    }

    /// What a call of it with these scalars takes, where somebody notes it.
    pub(crate) fn cost(&self, scalars: &[u64]) -> Cost<'_> {
        self.inner.costs.of(scalars)
    }

    pub(super) fn packing(&self) -> &Packing {
        &self.inner.packing
    }

    /// # Safety
    ///
    /// `slots` must hold the kernel's arguments, and the contract of
    /// [`Kernel::call`] must hold for them.
    #[inline(always)]
    unsafe fn enter_with(&self, slots: *const u64) -> i32 {
        // SAFETY: the way in and the target were made for each other and for
        // this signature; the rest is promised by the caller.
        unsafe { self.inner.enter.call(self.inner.target, slots) }
    }

    /// Whether its code keeps state, so that its results depend on the order of its calls.
    pub(crate) fn keeps_state(&self) -> bool {
        self.inner.serial.is_some()
    }

    /// How to enter it, for whoever has slots of its own. Valid while the kernel lives.
    pub(crate) fn entry(&self) -> Entry {
        let Inner {
            enter,
            target,
            inline_args,
            ref packing,
            ..
        } = *self.inner;
        Entry {
            enter,
            target,
            // A frame has at most MAX_PARAMS slots and a few.
            index: packing.index as u32,
            inline_args,
        }
    }

    /// As [`entry`](Self::entry), and of code that keeps state the way in that takes no lock: for a
    /// process that has a copy of that state to itself.
    pub(crate) fn unlocked_entry(&self) -> Entry {
        let entry = self.entry();
        match &self.inner.serial {
            None => entry,
            Some(serial) => serial.unlocked(entry),
        }
    }

    /// The function whose code an address lies in, and how many bytes into it; `None` where it
    /// is not this kernel's.
    pub(crate) fn code_before(&self, address: u64) -> Option<(&str, &[u8])> {
        let image = self.inner.image.as_ref()?;
        image.code_before(usize::try_from(address).ok()?)
    }

    /// Where its image's code lies; none of code that is part of the process.
    pub(crate) fn code(&self) -> Option<Code> {
        Some(self.inner.image.as_ref()?.code())
    }

    /// How many slots its frame has.
    pub(crate) fn slots(&self) -> usize {
        self.inner.packing.slots
    }

    /// The slot of each buffer parameter, in order.
    pub(crate) fn buffer_slots(&self) -> impl Iterator<Item = usize> {
        self.inner.packing.buffers.iter().map(|&slot| slot.into())
    }

    /// The slot of each scalar parameter, in order.
    pub(crate) fn scalar_slots(&self) -> impl Iterator<Item = usize> {
        self.inner.packing.scalars.iter().map(|&slot| slot.into())
    }

    /// Writes the slots that depend on where the slots lie; to be done once, before
    /// a call with them.
    ///
    /// # Safety
    ///
    /// `slots` must be writable for as many as [`slots`](Self::slots) says.
    pub(crate) unsafe fn bind(&self, slots: *mut u64) {
        // SAFETY: promised by the caller.
        unsafe { self.inner.packing.bind(slots) };
    }
}

/// Whether the C ABI passes an argument in a floating-point register. The packed
/// convention never does.
fn in_float_registers(signature: &Signature) -> bool {
    signature.convention() == Convention::C
        && signature.params().iter().any(|p| match p {
            Param::Scalar(p) => p.dtype.is_float(),
            Param::Buffer(_) | Param::Index(_) => false,
        })
}

/// Returns 0 to whoever asks, and looks at no argument.
#[unsafe(naked)]
extern "C" fn empty() {
    #[cfg(target_arch = "x86_64")]
    std::arch::naked_asm!("xor eax, eax", "ret");
    #[cfg(target_arch = "aarch64")]
    std::arch::naked_asm!("mov w0, #0", "ret");
}
