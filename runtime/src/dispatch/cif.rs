//! Calls through libffi, for signatures that no trampoline covers.

use std::ffi::c_void;
use std::mem::MaybeUninit;

use libffi::low::{CodePtr, call_return_into};
use libffi::middle::{Cif, Type};

use crate::signature::{Convention, DType, Param, Returns, Signature};

/// libffi's call interface of one signature.
///
/// It is made once, shared by all threads, and only read by a call: a call keeps
/// what it needs on its own stack, so that it allocates nothing and may happen
/// inside another.
#[derive(Debug)]
pub struct KernelCif {
    cif: Cif,
    args: usize,
    index: Option<usize>,
    packed: bool,
    returns: Returns,
}

// SAFETY: the interface consists of a description that libffi writes when it is
// made and only reads in a call, and of types that belong to it alone; no thread
// has a claim on it.
unsafe impl Send for KernelCif {}
// SAFETY: as above. `ffi_call` takes it as mutable, and in the libffi that libffi-sys
// 4.2.2 builds (`x86/ffi64.c`, `aarch64/ffi.c`) assigns to none of its fields; only
// the functions that prepare it do.
unsafe impl Sync for KernelCif {}

impl KernelCif {
    /// The call interface of kernels with this signature.
    #[must_use]
    pub fn new(signature: &Signature) -> KernelCif {
        let (types, index) = match signature.convention() {
            Convention::C => (
                signature.params().iter().map(ffi_type).collect(),
                signature
                    .params()
                    .iter()
                    .position(|p| matches!(p, Param::Index(_))),
            ),
            Convention::Packed => (vec![Type::pointer(), Type::pointer()], None),
        };
        let returns = signature.returns();
        KernelCif {
            args: types.len(),
            cif: Cif::new(
                types,
                match returns {
                    Returns::Void => Type::void(),
                    Returns::Status => Type::i32(),
                },
            ),
            index,
            packed: signature.convention() == Convention::Packed,
            returns,
        }
    }

    /// Calls `entry` with one slot for each argument, in order: integers
    /// extended to 64 bits, floating point as its bits in the low bytes, as
    /// [`Scalar::to_slot`](crate::Scalar::to_slot) gives them. An `index` takes
    /// the place of what the grid index's slot holds; the slots themselves are
    /// only read, so that threads can share them; without an index parameter it is
    /// ignored. Returns the status, 0 where the kernel returns nothing.
    ///
    /// # Panics
    ///
    /// Where there are fewer slots than arguments; where an index is given for the
    /// packed convention, whose index lies in memory that threads may share, and is
    /// the caller's to write.
    ///
    /// # Safety
    ///
    /// `entry` must be a function of this signature, and its safety contract
    /// must hold for the arguments.
    #[inline]
    pub unsafe fn call(&self, entry: *const c_void, slots: &[u64], index: Option<u64>) -> i32 {
        assert!(slots.len() >= self.args, "a slot for each argument");
        assert!(
            !self.packed || index.is_none(),
            "no index for a packed call"
        );
        // SAFETY: promised by the caller; the slots are there, as just checked.
        unsafe { self.call_slots(entry, slots.as_ptr(), index) }
    }

    /// # Safety
    ///
    /// As [`KernelCif::call`], and `slots` must be readable for as many slots as
    /// there are arguments.
    unsafe fn call_slots(
        &self,
        entry: *const c_void,
        slots: *const u64,
        index: Option<u64>,
    ) -> i32 {
        // libffi wants a pointer to each argument. They live on the stack, in
        // the smallest of three arrays, so that nothing is allocated.
        // SAFETY: promised by the caller.
        unsafe {
            match self.args {
                0..=16 => self.call_with::<16>(entry, slots, index),
                17..=128 => self.call_with::<128>(entry, slots, index),
                _ => self.call_with::<{ crate::signature::MAX_PARAMS }>(entry, slots, index),
            }
        }
    }

    /// # Safety
    ///
    /// As `call_slots`; there are at most `N` arguments.
    unsafe fn call_with<const N: usize>(
        &self,
        entry: *const c_void,
        slots: *const u64,
        index: Option<u64>,
    ) -> i32 {
        let mut pointers = [const { MaybeUninit::<*mut c_void>::uninit() }; N];
        for (i, pointer) in pointers[..self.args].iter_mut().enumerate() {
            // SAFETY: there is a slot for each argument.
            pointer.write(unsafe { slots.add(i) }.cast_mut().cast());
        }
        if let (Some(position), Some(index)) = (self.index, &index) {
            pointers[position].write(std::ptr::from_ref(index).cast_mut().cast());
        }
        // Wide enough for any result; an int32_t fills its low bytes.
        let mut result = 0_u64;
        // SAFETY: the interface describes the entry, as the caller promised; each
        // pointer is to a slot, or to the index, that is as wide as any argument
        // and holds it in its low bytes, and libffi reads the width of the type;
        // the result is as wide as libffi may write.
        unsafe {
            call_return_into(
                self.cif.as_raw_ptr(),
                CodePtr::from_ptr(entry),
                pointers.as_mut_ptr().cast(),
                (&raw mut result).cast(),
            );
        }
        match self.returns {
            Returns::Void => 0,
            #[allow(clippy::cast_possible_truncation)] // the low bytes are the result
            Returns::Status => result as i32,
        }
    }
}

fn ffi_type(param: &Param) -> Type {
    let dtype = match param {
        Param::Buffer(_) => return Type::pointer(),
        Param::Scalar(p) => p.dtype,
        Param::Index(p) => p.dtype,
    };
    match dtype {
        DType::Bool | DType::U8 => Type::u8(),
        DType::I8 => Type::i8(),
        DType::I16 => Type::i16(),
        DType::U16 => Type::u16(),
        DType::I32 => Type::i32(),
        DType::U32 => Type::u32(),
        DType::I64 => Type::i64(),
        DType::U64 => Type::u64(),
        // libffi has no half types. A half travels in the low 16 bits of the
        // register that an f32 travels in, on x86-64 and on aarch64 alike.
        DType::F16 | DType::BF16 | DType::F32 => Type::f32(),
        DType::F64 => Type::f64(),
    }
}

/// An entry that is called through its interface: the target of the ways in
/// below.
#[derive(Debug)]
pub(super) struct CifTarget {
    pub(super) cif: KernelCif,
    pub(super) entry: *const c_void,
}

// SAFETY: the interface is `Sync`, and the entry is the address of code, which is
// only called.
unsafe impl Send for CifTarget {}
// SAFETY: as above.
unsafe impl Sync for CifTarget {}

/// # Safety
///
/// `target` must be a [`CifTarget`] that lives, and what `call_slots` asks.
pub(super) unsafe extern "C" fn enter_void(target: *const c_void, slots: *const u64) {
    // SAFETY: promised by the caller.
    unsafe {
        let target = &*target.cast::<CifTarget>();
        target.cif.call_slots(target.entry, slots, None);
    }
}

/// # Safety
///
/// As [`enter_void`].
pub(super) unsafe extern "C" fn enter_status(target: *const c_void, slots: *const u64) -> i32 {
    // SAFETY: promised by the caller.
    unsafe {
        let target = &*target.cast::<CifTarget>();
        target.cif.call_slots(target.entry, slots, None)
    }
}
