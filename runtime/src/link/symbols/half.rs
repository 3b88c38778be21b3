//! The compilers' helpers for half precision and bfloat16.
//!
//! In their names `hf` is a half, `bf` a bfloat16; `sf`, `df` and `ti` are as for
//! integers. Arguments and results travel as the module above this one says.

use std::ffi::c_int;

use half::{bf16, f16};

use crate::signature::round_to_odd;

/// The register in which 16 bits are passed, of which the others do not count.
pub(super) type Passed = f32;

/// What returns 16 bits in the place where the compiler's convention has them.
///
/// On x86-64 in both places: clang 14 takes what `__truncdfhf2` returns from `ax`,
/// later ones and gcc from `xmm0`. A struct of these two is returned in these two.
#[cfg(target_arch = "x86_64")]
#[repr(C)]
pub(super) struct Returned {
    rax: u64,
    xmm0: f64,
}

/// What returns 16 bits in the place where the compiler's convention has them.
#[cfg(not(target_arch = "x86_64"))]
#[repr(transparent)]
pub(super) struct Returned(f32);

impl Returned {
    fn bits(bits: u16) -> Returned {
        #[cfg(target_arch = "x86_64")]
        return Returned {
            rax: bits.into(),
            xmm0: f64::from_bits(bits.into()),
        };
        #[cfg(not(target_arch = "x86_64"))]
        Returned(f32::from_bits(bits.into()))
    }
}

helpers! {
    fn __extendhfsf2(x: Passed) -> f32 { half(x).to_f32() }
    fn __extendhfdf2(x: Passed) -> f64 { half(x).to_f64() }
    fn __truncsfhf2(x: f32) -> Returned { Returned::bits(f16::from_f32(x).to_bits()) }
    fn __truncdfhf2(x: f64) -> Returned { Returned::bits(double_to_half(x).to_bits()) }
    fn __extendbfsf2(x: Passed) -> f32 { bf16::from_bits(low_bits(x)).to_f32() }
    fn __truncsfbf2(x: f32) -> Returned { Returned::bits(bf16::from_f32(x).to_bits()) }
    fn __truncdfbf2(x: f64) -> Returned {
        Returned::bits(bf16::from_f32(round_to_odd(x)).to_bits())
    }

    /// The names by which clang 14 widens and narrows, and its convention: integers, the
    /// upper bits of which it leaves as they are.
    fn __gnu_h2f_ieee(x: u32) -> f32 { f16::from_bits(x as u16).to_f32() }
    fn __gnu_f2h_ieee(x: f32) -> u32 { f16::from_f32(x).to_bits().into() }

    /// 0 where both are equal.
    fn __eqhf2(a: Passed, b: Passed) -> c_int { (half(a) != half(b)).into() }
    fn __nehf2(a: Passed, b: Passed) -> c_int { (half(a) != half(b)).into() }

    fn __fixhfti(x: Passed) -> i128 { half(x).to_f32() as i128 }
    fn __fixunshfti(x: Passed) -> u128 { half(x).to_f32() as u128 }
    fn __floattihf(a: i128) -> Returned {
        let a = a.clamp(-BEYOND_HALVES, BEYOND_HALVES) as f32;
        Returned::bits(f16::from_f32(a).to_bits())
    }
    fn __floatuntihf(a: u128) -> Returned {
        let a = a.min(BEYOND_HALVES.unsigned_abs()) as f32;
        Returned::bits(f16::from_f32(a).to_bits())
    }
}

/// An integer that rounds to infinity as a half, as all larger ones do, and is a `f32`,
/// as all smaller ones are: nothing is rounded twice.
const BEYOND_HALVES: i128 = 1 << 20;

pub(super) const fn low_bits(x: Passed) -> u16 {
    x.to_bits() as u16
}

pub(super) const fn half(x: Passed) -> f16 {
    f16::from_bits(low_bits(x))
}

/// The nearest half, rounded once.
pub(super) fn double_to_half(x: f64) -> f16 {
    f16::from_f32(round_to_odd(x))
}
