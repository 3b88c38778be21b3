//! The symbols that a kernel may use and not define.
//!
//! Compilers call memory functions, libm and helpers of their own, for half
//! precision and for 128-bit integers, in freestanding code as well. The runtime owns the list
//! of what they get: nothing is looked up in whatever the process happens to
//! have loaded, so that a kernel links the same everywhere or not at all.
//!
//! The helpers for half precision follow the ABI that gcc 12 and later and clang
//! 15 and later use on x86-64: a half travels in the low 16 bits of a vector
//! register. Stable Rust has no such type; an `f32` travels in the same
//! register, so the helpers take and give an `f32` of which the low 16 bits are
//! the half.

use std::collections::HashMap;
use std::ffi::{c_int, c_long, c_longlong, c_void};

use half::{bf16, f16};

use crate::signature::round_to_odd;

/// What an undefined symbol turns out to be, and where it is.
///
/// The difference matters where code refers to a symbol in 32 bits that do not reach
/// it: a stub can stand for a function, and nothing can for data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Definition {
    /// A function, at this address.
    Function(u64),
    /// A constant, at this address.
    Data(u64),
}

impl Definition {
    /// Where it is.
    #[must_use]
    pub const fn address(self) -> u64 {
        match self {
            Definition::Function(address) | Definition::Data(address) => address,
        }
    }
}

/// Says what undefined symbols are, and where.
pub trait Resolver {
    /// What `name` is, if it is known.
    fn resolve(&self, name: &str) -> Option<Definition>;
}

/// The symbols of one runtime: the built-in list and what an embedder added.
#[derive(Clone, Debug)]
pub struct Symbols {
    definitions: HashMap<String, Definition>,
}

impl Default for Symbols {
    fn default() -> Symbols {
        Symbols {
            definitions: BUILT_IN
                .iter()
                .map(|(name, address)| ((*name).to_owned(), Definition::Function(address.0 as u64)))
                .collect(),
        }
    }
}

impl Symbols {
    /// Adds a function, or replaces one.
    ///
    /// # Safety
    ///
    /// `address` must be that of a function of the type that kernels declare for
    /// `name`, and stay valid for as long as any kernel that uses it.
    pub unsafe fn insert(&mut self, name: impl Into<String>, address: *const c_void) {
        self.definitions
            .insert(name.into(), Definition::Function(address as u64));
    }

    /// Adds a constant, or replaces one.
    ///
    /// # Safety
    ///
    /// `address` must be that of a constant of the type that kernels declare for
    /// `name`, and stay valid, and the same, for as long as any kernel that uses it.
    pub unsafe fn insert_data(&mut self, name: impl Into<String>, address: *const c_void) {
        self.definitions
            .insert(name.into(), Definition::Data(address as u64));
    }

    /// The names, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.definitions.keys().map(String::as_str)
    }
}

impl Resolver for Symbols {
    fn resolve(&self, name: &str) -> Option<Definition> {
        self.definitions.get(name).copied()
    }
}

/// An address in a `static`.
struct Address(*const c_void);

// SAFETY: the address of a function; nothing is read or written through it.
unsafe impl Sync for Address {}

/// Declares C functions and lists them, and lists Rust functions, by name.
macro_rules! built_in {
    (
        c { $($c:ident ( $($arg:ty),* ) -> $ret:ty;)* }
        rust { $($name:literal => $rust:path;)* }
    ) => {
        /// Functions of the C library and of libm, which Rust's standard
        /// library links.
        mod c {
            use super::{c_int, c_long, c_longlong, c_void};
            unsafe extern "C" {
                $(pub(super) fn $c($(_: $arg),*) -> $ret;)*
            }
        }
        static BUILT_IN: &[(&str, Address)] = &[
            $((stringify!($c), Address(c::$c as *const c_void)),)*
            $(($name, Address($rust as *const c_void)),)*
        ];
    };
}

built_in! {
    c {
        memcpy(*mut c_void, *const c_void, usize) -> *mut c_void;
        memmove(*mut c_void, *const c_void, usize) -> *mut c_void;
        memset(*mut c_void, c_int, usize) -> *mut c_void;
        memcmp(*const c_void, *const c_void, usize) -> c_int;

        acos(f64) -> f64;           acosf(f32) -> f32;
        acosh(f64) -> f64;          acoshf(f32) -> f32;
        asin(f64) -> f64;           asinf(f32) -> f32;
        asinh(f64) -> f64;          asinhf(f32) -> f32;
        atan(f64) -> f64;           atanf(f32) -> f32;
        atan2(f64, f64) -> f64;     atan2f(f32, f32) -> f32;
        atanh(f64) -> f64;          atanhf(f32) -> f32;
        cbrt(f64) -> f64;           cbrtf(f32) -> f32;
        ceil(f64) -> f64;           ceilf(f32) -> f32;
        copysign(f64, f64) -> f64;  copysignf(f32, f32) -> f32;
        cos(f64) -> f64;            cosf(f32) -> f32;
        cosh(f64) -> f64;           coshf(f32) -> f32;
        erf(f64) -> f64;            erff(f32) -> f32;
        erfc(f64) -> f64;           erfcf(f32) -> f32;
        exp(f64) -> f64;            expf(f32) -> f32;
        exp2(f64) -> f64;           exp2f(f32) -> f32;
        expm1(f64) -> f64;          expm1f(f32) -> f32;
        fabs(f64) -> f64;           fabsf(f32) -> f32;
        fdim(f64, f64) -> f64;      fdimf(f32, f32) -> f32;
        floor(f64) -> f64;          floorf(f32) -> f32;
        fma(f64, f64, f64) -> f64;  fmaf(f32, f32, f32) -> f32;
        fmax(f64, f64) -> f64;      fmaxf(f32, f32) -> f32;
        fmin(f64, f64) -> f64;      fminf(f32, f32) -> f32;
        fmod(f64, f64) -> f64;      fmodf(f32, f32) -> f32;
        frexp(f64, *mut c_int) -> f64;  frexpf(f32, *mut c_int) -> f32;
        hypot(f64, f64) -> f64;     hypotf(f32, f32) -> f32;
        ldexp(f64, c_int) -> f64;   ldexpf(f32, c_int) -> f32;
        lgamma_r(f64, *mut c_int) -> f64;  lgammaf_r(f32, *mut c_int) -> f32;
        log(f64) -> f64;            logf(f32) -> f32;
        log10(f64) -> f64;          log10f(f32) -> f32;
        log1p(f64) -> f64;          log1pf(f32) -> f32;
        log2(f64) -> f64;           log2f(f32) -> f32;
        logb(f64) -> f64;           logbf(f32) -> f32;
        ilogb(f64) -> c_int;        ilogbf(f32) -> c_int;
        lrint(f64) -> c_long;       lrintf(f32) -> c_long;
        llrint(f64) -> c_longlong;  llrintf(f32) -> c_longlong;
        lround(f64) -> c_long;      lroundf(f32) -> c_long;
        llround(f64) -> c_longlong; llroundf(f32) -> c_longlong;
        nextafter(f64, f64) -> f64; nextafterf(f32, f32) -> f32;
        scalbn(f64, c_int) -> f64;  scalbnf(f32, c_int) -> f32;
        scalbln(f64, c_long) -> f64;  scalblnf(f32, c_long) -> f32;
        remquo(f64, f64, *mut c_int) -> f64;  remquof(f32, f32, *mut c_int) -> f32;
        modf(f64, *mut f64) -> f64; modff(f32, *mut f32) -> f32;
        nearbyint(f64) -> f64;      nearbyintf(f32) -> f32;
        pow(f64, f64) -> f64;       powf(f32, f32) -> f32;
        remainder(f64, f64) -> f64; remainderf(f32, f32) -> f32;
        rint(f64) -> f64;           rintf(f32) -> f32;
        round(f64) -> f64;          roundf(f32) -> f32;
        roundeven(f64) -> f64;      roundevenf(f32) -> f32;
        sin(f64) -> f64;            sinf(f32) -> f32;
        sincos(f64, *mut f64, *mut f64) -> ();  sincosf(f32, *mut f32, *mut f32) -> ();
        sinh(f64) -> f64;           sinhf(f32) -> f32;
        sqrt(f64) -> f64;           sqrtf(f32) -> f32;
        tan(f64) -> f64;            tanf(f32) -> f32;
        tanh(f64) -> f64;           tanhf(f32) -> f32;
        tgamma(f64) -> f64;         tgammaf(f32) -> f32;
        trunc(f64) -> f64;          truncf(f32) -> f32;
    }
    rust {
        "__extendhfsf2" => extend_half_single;
        "__extendhfdf2" => extend_half_double;
        "__truncsfhf2" => truncate_single_half;
        "__truncdfhf2" => truncate_double_half;
        "__truncsfbf2" => truncate_single_bfloat;
        "__truncdfbf2" => truncate_double_bfloat;

        "lgamma" => lgamma;
        "lgammaf" => lgammaf;

        "__divti3" => divide_i128;
        "__modti3" => remainder_i128;
        "__udivti3" => divide_u128;
        "__umodti3" => remainder_u128;
        "__fixdfti" => double_to_i128;
        "__fixsfti" => single_to_i128;
        "__fixunsdfti" => double_to_u128;
        "__fixunssfti" => single_to_u128;
        "__floattidf" => i128_to_double;
        "__floattisf" => i128_to_single;
        "__floatuntidf" => u128_to_double;
        "__floatuntisf" => u128_to_single;
        "__powidf2" => power_double;
        "__powisf2" => power_single;
        "__popcountdi2" => count_ones_64;
    }
}

/// libm's own writes the sign to a global of the process, which launches on several
/// threads would race for.
extern "C" fn lgamma(x: f64) -> f64 {
    let mut sign = 0;
    // SAFETY: it writes the sign where it is told to.
    unsafe { c::lgamma_r(x, &raw mut sign) }
}

extern "C" fn lgammaf(x: f32) -> f32 {
    let mut sign = 0;
    // SAFETY: as above.
    unsafe { c::lgammaf_r(x, &raw mut sign) }
}

// The compiler's helpers, as libgcc and compiler-rt define them. What C leaves
// undefined, division by zero among it, is 0 here, as a panic would be worse.

extern "C" fn divide_i128(a: i128, b: i128) -> i128 {
    if b == 0 { 0 } else { a.wrapping_div(b) }
}

extern "C" fn remainder_i128(a: i128, b: i128) -> i128 {
    if b == 0 { 0 } else { a.wrapping_rem(b) }
}

extern "C" fn divide_u128(a: u128, b: u128) -> u128 {
    a.checked_div(b).unwrap_or(0)
}

extern "C" fn remainder_u128(a: u128, b: u128) -> u128 {
    a.checked_rem(b).unwrap_or(0)
}

/// Conversions, each of which rounds to the nearest or cuts the fraction off, as
/// C's do.
macro_rules! conversions {
    ($($name:ident: $from:ty => $to:ty;)*) => {$(
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
        extern "C" fn $name(x: $from) -> $to {
            x as $to
        }
    )*};
}

conversions! {
    double_to_i128: f64 => i128;
    single_to_i128: f32 => i128;
    double_to_u128: f64 => u128;
    single_to_u128: f32 => u128;
    i128_to_double: i128 => f64;
    i128_to_single: i128 => f32;
    u128_to_double: u128 => f64;
    u128_to_single: u128 => f32;
}

extern "C" fn power_double(x: f64, n: c_int) -> f64 {
    x.powi(n)
}

extern "C" fn power_single(x: f32, n: c_int) -> f32 {
    x.powi(n)
}

extern "C" fn count_ones_64(x: u64) -> u32 {
    x.count_ones()
}

/// The half in the low bits of a vector register.
#[allow(clippy::cast_possible_truncation)] // the other bits are not part of it
const fn low_half(register: f32) -> u16 {
    register.to_bits() as u16
}

extern "C" fn extend_half_single(x: f32) -> f32 {
    f16::from_bits(low_half(x)).to_f32()
}

extern "C" fn extend_half_double(x: f32) -> f64 {
    f16::from_bits(low_half(x)).to_f64()
}

extern "C" fn truncate_single_half(x: f32) -> f32 {
    f32::from_bits(f16::from_f32(x).to_bits().into())
}

extern "C" fn truncate_double_half(x: f64) -> f32 {
    f32::from_bits(f16::from_f32(round_to_odd(x)).to_bits().into())
}

extern "C" fn truncate_single_bfloat(x: f32) -> f32 {
    f32::from_bits(bf16::from_f32(x).to_bits().into())
}

extern "C" fn truncate_double_bfloat(x: f64) -> f32 {
    f32::from_bits(bf16::from_f32(round_to_odd(x)).to_bits().into())
}
