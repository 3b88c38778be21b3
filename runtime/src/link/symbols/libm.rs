//! libm in both precisions: the real functions of C11's section 7.12, and what
//! compilers make of them (`sincos` of `sin` and `cos`, `exp10` of a builtin of that
//! name).
//!
//! Rust's `compiler_builtins` has functions of these names, among them `cbrt`, `floor`,
//! `fma` and `sqrt`: portable ones, where libm's use the CPU's instructions, and not all
//! round as libm's do. A linker finds those first. So libm itself is asked, by name, and
//! what this program was linked with is the answer only where libm is no library of its
//! own, as with musl.

use std::ffi::{c_int, c_void};

use super::system::SystemLibrary;

/// The functions of this file, by their names.
pub(super) fn functions() -> Vec<(&'static str, *const c_void)> {
    let libm = SystemLibrary::open("libm.so.6");
    let own = |(name, linked)| (name, libm.function(name).unwrap_or(linked));
    c_functions()
        .into_iter()
        .map(own)
        .chain(helpers())
        .collect()
}

c_functions! {
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
    exp10(f64) -> f64;          exp10f(f32) -> f32;
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
    ilogb(f64) -> c_int;        ilogbf(f32) -> c_int;
    ldexp(f64, c_int) -> f64;   ldexpf(f32, c_int) -> f32;
    lgamma_r(f64, *mut c_int) -> f64;  lgammaf_r(f32, *mut c_int) -> f32;
    llrint(f64) -> c_longlong;  llrintf(f32) -> c_longlong;
    llround(f64) -> c_longlong; llroundf(f32) -> c_longlong;
    log(f64) -> f64;            logf(f32) -> f32;
    log10(f64) -> f64;          log10f(f32) -> f32;
    log1p(f64) -> f64;          log1pf(f32) -> f32;
    log2(f64) -> f64;           log2f(f32) -> f32;
    logb(f64) -> f64;           logbf(f32) -> f32;
    lrint(f64) -> c_long;       lrintf(f32) -> c_long;
    lround(f64) -> c_long;      lroundf(f32) -> c_long;
    modf(f64, *mut f64) -> f64; modff(f32, *mut f32) -> f32;
    nan(*const c_char) -> f64;  nanf(*const c_char) -> f32;
    nearbyint(f64) -> f64;      nearbyintf(f32) -> f32;
    nextafter(f64, f64) -> f64; nextafterf(f32, f32) -> f32;
    // Their second argument is a `long double`, which Rust cannot say; kernels can,
    // and here their addresses are all that is wanted.
    nexttoward();               nexttowardf();
    pow(f64, f64) -> f64;       powf(f32, f32) -> f32;
    remainder(f64, f64) -> f64; remainderf(f32, f32) -> f32;
    remquo(f64, f64, *mut c_int) -> f64;  remquof(f32, f32, *mut c_int) -> f32;
    rint(f64) -> f64;           rintf(f32) -> f32;
    round(f64) -> f64;          roundf(f32) -> f32;
    scalbln(f64, c_long) -> f64;  scalblnf(f32, c_long) -> f32;
    scalbn(f64, c_int) -> f64;  scalbnf(f32, c_int) -> f32;
    sin(f64) -> f64;            sinf(f32) -> f32;
    sincos(f64, *mut f64, *mut f64);  sincosf(f32, *mut f32, *mut f32);
    sinh(f64) -> f64;           sinhf(f32) -> f32;
    sqrt(f64) -> f64;           sqrtf(f32) -> f32;
    tan(f64) -> f64;            tanf(f32) -> f32;
    tanh(f64) -> f64;           tanhf(f32) -> f32;
    tgamma(f64) -> f64;         tgammaf(f32) -> f32;
    trunc(f64) -> f64;          truncf(f32) -> f32;
}

helpers! {
    /// libm's own writes the sign to a global of the process, which launches on several
    /// threads would race for.
    fn lgamma(x: f64) -> f64 {
        let mut sign: c_int = 0;
        // SAFETY: it writes the sign where it is told to.
        unsafe { c::lgamma_r(x, &raw mut sign) }
    }

    fn lgammaf(x: f32) -> f32 {
        let mut sign: c_int = 0;
        // SAFETY: as above.
        unsafe { c::lgammaf_r(x, &raw mut sign) }
    }

    // glibc has these from 2.25; musl has none.
    fn roundeven(x: f64) -> f64 {
        x.round_ties_even()
    }

    fn roundevenf(x: f32) -> f32 {
        x.round_ties_even()
    }
}
