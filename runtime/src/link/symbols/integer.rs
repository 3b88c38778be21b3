//! The compilers' helpers for integers, as libgcc and compiler-rt define them.
//!
//! In their names `si`, `di` and `ti` are integers of 32, 64 and 128 bits, `sf` and
//! `df` are `float` and `double`. What C leaves undefined (a division by zero, a shift
//! by more than there is, a float that no integer can hold) has some result here: the
//! nearest, or 0, as a panic would be worse.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss
)] // conversions are what is asked for

use std::ffi::c_int;
use std::mem::MaybeUninit;

use super::memory::give_up;

helpers! {
    // Products and quotients.
    fn __multi3(a: i128, b: i128) -> i128 { a.wrapping_mul(b) }
    fn __negti2(a: i128) -> i128 { a.wrapping_neg() }
    fn __divti3(a: i128, b: i128) -> i128 { divide(a, b).0 }
    fn __modti3(a: i128, b: i128) -> i128 { divide(a, b).1 }
    fn __udivti3(a: u128, b: u128) -> u128 { divide_unsigned(a, b).0 }
    fn __umodti3(a: u128, b: u128) -> u128 { divide_unsigned(a, b).1 }
    fn __divmodti4(a: i128, b: i128, remainder: &mut MaybeUninit<i128>) -> i128 {
        remainder.write(divide(a, b).1);
        divide(a, b).0
    }
    fn __udivmodti4(a: u128, b: u128, remainder: Option<&mut MaybeUninit<u128>>) -> u128 {
        // compiler-rt allows a null pointer.
        if let Some(remainder) = remainder {
            remainder.write(divide_unsigned(a, b).1);
        }
        divide_unsigned(a, b).0
    }

    // Shifts, and comparisons: 0 is less, 1 equal, 2 greater.
    fn __ashlti3(a: i128, by: c_int) -> i128 { a.wrapping_shl(by as u32) }
    fn __ashrti3(a: i128, by: c_int) -> i128 { a.wrapping_shr(by as u32) }
    fn __lshrti3(a: u128, by: c_int) -> u128 { a.wrapping_shr(by as u32) }
    fn __cmpti2(a: i128, b: i128) -> c_int { a.cmp(&b) as c_int + 1 }
    fn __ucmpti2(a: u128, b: u128) -> c_int { a.cmp(&b) as c_int + 1 }

    // Products that say whether they overflowed.
    fn __mulosi4(a: i32, b: i32, over: &mut MaybeUninit<c_int>) -> i32 {
        over.write(a.checked_mul(b).is_none().into());
        a.wrapping_mul(b)
    }
    fn __mulodi4(a: i64, b: i64, over: &mut MaybeUninit<c_int>) -> i64 {
        over.write(a.checked_mul(b).is_none().into());
        a.wrapping_mul(b)
    }
    fn __muloti4(a: i128, b: i128, over: &mut MaybeUninit<c_int>) -> i128 {
        over.write(a.checked_mul(b).is_none().into());
        a.wrapping_mul(b)
    }

    // What gcc's `-ftrapv` makes of arithmetic.
    fn __addvsi3(a: i32, b: i32) -> i32 { exact(a.checked_add(b)) }
    fn __addvdi3(a: i64, b: i64) -> i64 { exact(a.checked_add(b)) }
    fn __addvti3(a: i128, b: i128) -> i128 { exact(a.checked_add(b)) }
    fn __subvsi3(a: i32, b: i32) -> i32 { exact(a.checked_sub(b)) }
    fn __subvdi3(a: i64, b: i64) -> i64 { exact(a.checked_sub(b)) }
    fn __subvti3(a: i128, b: i128) -> i128 { exact(a.checked_sub(b)) }
    fn __mulvsi3(a: i32, b: i32) -> i32 { exact(a.checked_mul(b)) }
    fn __mulvdi3(a: i64, b: i64) -> i64 { exact(a.checked_mul(b)) }
    fn __mulvti3(a: i128, b: i128) -> i128 { exact(a.checked_mul(b)) }
    fn __negvsi2(a: i32) -> i32 { exact(a.checked_neg()) }
    fn __negvdi2(a: i64) -> i64 { exact(a.checked_neg()) }
    fn __negvti2(a: i128) -> i128 { exact(a.checked_neg()) }
    fn __absvsi2(a: i32) -> i32 { exact(a.checked_abs()) }
    fn __absvdi2(a: i64) -> i64 { exact(a.checked_abs()) }
    fn __absvti2(a: i128) -> i128 { exact(a.checked_abs()) }

    // Bits: ones, their parity, zeros before and after them, the place of the lowest
    // from 1 on, copies of the sign, bytes in reverse.
    fn __popcountsi2(a: u32) -> u32 { a.count_ones() }
    fn __popcountdi2(a: u64) -> u32 { a.count_ones() }
    fn __popcountti2(a: u128) -> u32 { a.count_ones() }
    fn __paritysi2(a: u32) -> u32 { a.count_ones() % 2 }
    fn __paritydi2(a: u64) -> u32 { a.count_ones() % 2 }
    fn __parityti2(a: u128) -> u32 { a.count_ones() % 2 }
    fn __clzsi2(a: u32) -> u32 { a.leading_zeros() }
    fn __clzdi2(a: u64) -> u32 { a.leading_zeros() }
    fn __clzti2(a: u128) -> u32 { a.leading_zeros() }
    fn __ctzsi2(a: u32) -> u32 { a.trailing_zeros() }
    fn __ctzdi2(a: u64) -> u32 { a.trailing_zeros() }
    fn __ctzti2(a: u128) -> u32 { a.trailing_zeros() }
    fn __ffssi2(a: u32) -> u32 { if a == 0 { 0 } else { a.trailing_zeros() + 1 } }
    fn __ffsdi2(a: u64) -> u32 { if a == 0 { 0 } else { a.trailing_zeros() + 1 } }
    fn __ffsti2(a: u128) -> u32 { if a == 0 { 0 } else { a.trailing_zeros() + 1 } }
    fn __clrsbsi2(a: i32) -> u32 { (a ^ (a >> 31)).leading_zeros() - 1 }
    fn __clrsbdi2(a: i64) -> u32 { (a ^ (a >> 63)).leading_zeros() - 1 }
    fn __clrsbti2(a: i128) -> u32 { (a ^ (a >> 127)).leading_zeros() - 1 }
    fn __bswapsi2(a: u32) -> u32 { a.swap_bytes() }
    fn __bswapdi2(a: u64) -> u64 { a.swap_bytes() }

    // Conversions. To a float they round to the nearest, to an integer they cut the
    // fraction off, as C's do.
    fn __fixsfti(x: f32) -> i128 { x as i128 }
    fn __fixdfti(x: f64) -> i128 { x as i128 }
    fn __fixunssfti(x: f32) -> u128 { x as u128 }
    fn __fixunsdfti(x: f64) -> u128 { x as u128 }
    fn __floattisf(a: i128) -> f32 { a as f32 }
    fn __floattidf(a: i128) -> f64 { a as f64 }
    fn __floatuntisf(a: u128) -> f32 { a as f32 }
    fn __floatuntidf(a: u128) -> f64 { a as f64 }

    // Whole powers, by the squarings that libgcc and compiler-rt do, for the same bits.
    fn __powisf2(x: f32, n: c_int) -> f32 { power(x, 1.0, n) }
    fn __powidf2(x: f64, n: c_int) -> f64 { power(x, 1.0, n) }
}

fn divide(a: i128, b: i128) -> (i128, i128) {
    match b {
        0 => (0, 0),
        _ => (a.wrapping_div(b), a.wrapping_rem(b)),
    }
}

const fn divide_unsigned(a: u128, b: u128) -> (u128, u128) {
    match b {
        0 => (0, 0),
        _ => (a / b, a % b),
    }
}

/// A result that `-ftrapv` promises not to wrap.
fn exact<T>(result: Option<T>) -> T {
    result.unwrap_or_else(|| give_up("signed integer overflow detected"))
}

fn power<F>(mut x: F, one: F, n: c_int) -> F
where
    F: Copy + std::ops::MulAssign + std::ops::Div<Output = F>,
{
    let mut result = one;
    let mut rest = n.unsigned_abs();
    loop {
        if rest % 2 == 1 {
            result *= x;
        }
        rest /= 2;
        if rest == 0 {
            break;
        }
        x *= x;
    }
    if n < 0 { one / result } else { result }
}
