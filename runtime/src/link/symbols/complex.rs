//! The compilers' helpers for complex numbers, as annex G of C11 defines products and
//! quotients: an infinity in one part makes the number infinite, whatever the other
//! part is.
//!
//! In their names `hc`, `sc` and `dc` are complex numbers of halves, `float`s and
//! `double`s. Quotients of the smaller two are computed in `double`, where neither
//! the products nor the sum of squares overflow or vanish; those of `double`s are scaled
//! by powers of two, so that they do not either unless the quotient does.

use super::half::{Passed, double_to_half, half};
use super::libm::c::{logb, scalbn};

/// How a complex number is returned.
#[repr(C)]
#[derive(Clone, Copy)]
struct Complex<F> {
    re: F,
    im: F,
}

/// How a complex half is returned: on x86-64 both parts in one register, on aarch64 in
/// two.
#[cfg(target_arch = "x86_64")]
type ComplexHalf = f32;
#[cfg(not(target_arch = "x86_64"))]
type ComplexHalf = Complex<f32>;

helpers! {
    fn __mulsc3(a: f32, b: f32, c: f32, d: f32) -> Complex<f32> { multiply_single(a, b, c, d) }
    fn __muldc3(a: f64, b: f64, c: f64, d: f64) -> Complex<f64> { multiply_double(a, b, c, d) }
    fn __mulhc3(a: Passed, b: Passed, c: Passed, d: Passed) -> ComplexHalf {
        let [a, b, c, d] = [a, b, c, d].map(|x| half(x).to_f32());
        let product = multiply_single(a, b, c, d);
        returned(product.re.into(), product.im.into())
    }

    fn __divdc3(a: f64, b: f64, c: f64, d: f64) -> Complex<f64> { divide(a, b, c, d) }
    fn __divsc3(a: f32, b: f32, c: f32, d: f32) -> Complex<f32> {
        let quotient = divide(a.into(), b.into(), c.into(), d.into());
        Complex { re: quotient.re as f32, im: quotient.im as f32 }
    }
    fn __divhc3(a: Passed, b: Passed, c: Passed, d: Passed) -> ComplexHalf {
        let [a, b, c, d] = [a, b, c, d].map(|x| half(x).to_f64());
        let quotient = divide(a, b, c, d);
        returned(quotient.re, quotient.im)
    }
}

fn returned(re: f64, im: f64) -> ComplexHalf {
    let [re, im] = [re, im].map(|x| u32::from(double_to_half(x).to_bits()));
    #[cfg(target_arch = "x86_64")]
    return f32::from_bits(re | im << 16);
    #[cfg(not(target_arch = "x86_64"))]
    Complex {
        re: f32::from_bits(re),
        im: f32::from_bits(im),
    }
}

/// The product of `a + bi` and `c + di`.
macro_rules! multiply {
    ($name:ident, $float:ty) => {
        fn $name(a: $float, b: $float, c: $float, d: $float) -> Complex<$float> {
            let product = |a: $float, b: $float, c: $float, d: $float| Complex {
                re: a * c - b * d,
                im: a * d + b * c,
            };
            let plain = product(a, b, c, d);
            if !(plain.re.is_nan() && plain.im.is_nan()) {
                return plain;
            }
            // Not a number, unless an infinity is among the parts or the products:
            // then the direction of each number is what counts.
            let infinite = |x: $float, y: $float| x.is_infinite() || y.is_infinite();
            let unit = |x: $float| <$float>::from(u8::from(x.is_infinite())).copysign(x);
            let zero = |x: $float| {
                if x.is_nan() {
                    (0.0 as $float).copysign(x)
                } else {
                    x
                }
            };
            let (left, right) = (infinite(a, b), infinite(c, d));
            let overflowed = infinite(a * c, b * d) || infinite(a * d, b * c);
            if !(left || right || overflowed) {
                return plain;
            }
            let [a, b] = if left { [a, b].map(unit) } else { [a, b] };
            let [c, d] = if right { [c, d].map(unit) } else { [c, d] };
            let [a, b, c, d] = [a, b, c, d].map(zero);
            let Complex { re, im } = product(a, b, c, d);
            Complex {
                re: re * <$float>::INFINITY,
                im: im * <$float>::INFINITY,
            }
        }
    };
}

multiply!(multiply_single, f32);
multiply!(multiply_double, f64);

/// The quotient of `a + bi` by `c + di`.
fn divide(a: f64, b: f64, c: f64, d: f64) -> Complex<f64> {
    let (dividend, divisor) = (exponent(a, b), exponent(c, d));
    let [x, y] = [a, b].map(|part| scale(part, -dividend));
    let [u, v] = [c, d].map(|part| scale(part, -divisor));
    let square = u * u + v * v;
    let quotient = Complex {
        re: scale((x * u + y * v) / square, dividend - divisor),
        im: scale((y * u - x * v) / square, dividend - divisor),
    };
    if !(quotient.re.is_nan() && quotient.im.is_nan()) {
        return quotient;
    }
    let infinite = |x: f64, y: f64| x.is_infinite() || y.is_infinite();
    let finite = |x: f64, y: f64| x.is_finite() && y.is_finite();
    let unit = |x: f64| f64::from(u8::from(x.is_infinite())).copysign(x);
    if square == 0.0 && !(a.is_nan() && b.is_nan()) {
        // By zero.
        let infinity = f64::INFINITY.copysign(c);
        Complex {
            re: infinity * a,
            im: infinity * b,
        }
    } else if infinite(a, b) && finite(c, d) {
        let [x, y] = [a, b].map(unit);
        Complex {
            re: f64::INFINITY * (x * u + y * v),
            im: f64::INFINITY * (y * u - x * v),
        }
    } else if infinite(c, d) && finite(a, b) {
        let [u, v] = [c, d].map(unit);
        Complex {
            re: 0.0 * (x * u + y * v),
            im: 0.0 * (y * u - x * v),
        }
    } else {
        quotient
    }
}

/// The exponent of the larger part; 0 where a power of two cannot bring it near one.
fn exponent(x: f64, y: f64) -> i32 {
    let larger = x.abs().max(y.abs());
    // SAFETY: a function of its argument's value.
    let exponent = unsafe { logb(larger) };
    if exponent.is_finite() {
        exponent as i32
    } else {
        0
    }
}

fn scale(x: f64, by: i32) -> f64 {
    // SAFETY: a function of its arguments' values.
    unsafe { scalbn(x, by) }
}
