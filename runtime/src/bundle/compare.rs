//! Whether two results are the same, and how far apart they are.

use half::{bf16, f16};

use crate::Error;
use crate::memory::View;
use crate::signature::{DType, Element, Number};

/// How far a result may be from what was recorded: `|got − expected| ≤ atol +
/// rtol · |expected|`, NumPy's rule.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tolerance {
    /// The part that grows with the expected value.
    pub rtol: f64,
    /// The part that does not.
    pub atol: f64,
}

/// How two results differ.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Difference {
    /// How many elements were compared.
    pub elements: usize,
    /// How many differ in any bit.
    pub other_bits: usize,
    /// The first that does.
    pub first: Option<usize>,
    /// How many are further apart than the tolerance allows. A NaN is near to a
    /// NaN and to nothing else.
    pub outside: usize,
    /// The largest distance between two elements; infinite where one of them is
    /// a NaN or infinite and the other is not the same.
    pub max_abs: f64,
    /// Where that distance is, if any is above 0.
    pub worst: Option<usize>,
}

impl Difference {
    /// Whether every element lies within the tolerance.
    #[must_use]
    pub const fn is_within(&self) -> bool {
        self.outside == 0
    }

    /// Whether every bit is the same.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        self.other_bits == 0
    }
}

/// Compares two results element by element.
///
/// # Errors
///
/// [`Error::Buffer`] where their types or lengths differ.
pub fn compare(
    got: View<'_>,
    expected: View<'_>,
    tolerance: Tolerance,
) -> Result<Difference, Error> {
    if (got.dtype(), got.len()) != (expected.dtype(), expected.len()) {
        return Err(Error::Buffer {
            doing: "cannot compare results",
            reason: format!(
                "{} elements of {} with {} of {}",
                got.len(),
                got.dtype(),
                expected.len(),
                expected.dtype()
            ),
        });
    }
    let mut difference = Difference {
        elements: got.len(),
        ..Difference::default()
    };
    let got_values = to_f64(got)?;
    let expected_values = to_f64(expected)?;
    let (size, is_float) = (got.dtype().size(), got.dtype().is_float());
    let bits = got.as_bytes().chunks_exact(size);
    let bits = bits.zip(expected.as_bytes().chunks_exact(size));
    for (i, (got, expected)) in bits.enumerate() {
        if got == expected {
            continue;
        }
        difference.other_bits += 1;
        difference.first.get_or_insert(i);
        let (got, expected) = (got_values[i], expected_values[i]);
        // Equal infinities have no distance, and two NaNs are the same answer.
        let distance = if got == expected || (got.is_nan() && expected.is_nan()) {
            0.0
        } else {
            let distance = (got - expected).abs();
            if distance.is_nan() {
                f64::INFINITY
            } else {
                distance
            }
        };
        // Large integers may differ by less than an f64 can tell.
        let distance = if is_float {
            distance
        } else {
            distance.max(1.0)
        };
        if distance > difference.max_abs {
            difference.max_abs = distance;
            difference.worst = Some(i);
        }
        let allowed = tolerance.atol + tolerance.rtol * expected.abs();
        // An allowance that is no number allows nothing, and even an infinite one
        // no infinite distance.
        let near = distance == 0.0 || (distance.is_finite() && distance <= allowed);
        difference.outside += usize::from(!near);
    }
    Ok(difference)
}

/// Shows each element, of any type, as a number, exactly.
///
/// # Errors
///
/// [`Error::Buffer`] where the memory is not aligned to its elements.
pub fn for_each_number(view: View<'_>, mut visit: impl FnMut(Number)) -> Result<(), Error> {
    let mut integer = |v: i128| visit(Number::Int(v));
    match view.dtype() {
        DType::Bool | DType::U8 => each(view, |v: u8| integer(v.into())),
        DType::I8 => each(view, |v: i8| integer(v.into())),
        DType::I16 => each(view, |v: i16| integer(v.into())),
        DType::U16 => each(view, |v: u16| integer(v.into())),
        DType::I32 => each(view, |v: i32| integer(v.into())),
        DType::U32 => each(view, |v: u32| integer(v.into())),
        DType::I64 => each(view, |v: i64| integer(v.into())),
        DType::U64 => each(view, |v: u64| integer(v.into())),
        DType::F16 => each(view, |v: f16| visit(Number::Float(v.into()))),
        DType::BF16 => each(view, |v: bf16| visit(Number::Float(v.into()))),
        DType::F32 => each(view, |v: f32| visit(Number::Float(v.into()))),
        DType::F64 => each(view, |v: f64| visit(Number::Float(v))),
    }
}

fn each<T: Element>(view: View<'_>, visit: impl FnMut(T)) -> Result<(), Error> {
    view.as_slice::<T>()?.iter().copied().for_each(visit);
    Ok(())
}

/// Elements of any type as `f64`, the nearest where it has no equal.
///
/// # Errors
///
/// [`Error::Buffer`] where the memory is not aligned to its elements.
#[allow(clippy::cast_precision_loss)] // the nearest is what is meant
pub fn to_f64(view: View<'_>) -> Result<Vec<f64>, Error> {
    let mut values = Vec::with_capacity(view.len());
    for_each_number(view, |number| {
        values.push(match number {
            Number::Int(v) => v as f64,
            Number::Float(v) => v,
        });
    })?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(got: &[f32], expected: &[f32], rtol: f64, atol: f64) -> Difference {
        let (got, expected) = (View::from_slice(got), View::from_slice(expected));
        compare(got, expected, Tolerance { rtol, atol }).unwrap()
    }

    #[test]
    fn special_values_are_near_to_themselves_alone() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let other_nan = f32::from_bits(nan.to_bits() | 1);
        let same = of(&[other_nan, inf, -0.0], &[nan, inf, 0.0], 0.0, 0.0);
        assert_eq!((same.outside, same.other_bits), (0, 2));
        for (got, expected) in [(nan, 1.0), (1.0, nan), (inf, 1.0), (1.0, inf), (inf, -inf)] {
            let d = of(&[got], &[expected], 1.0, 1e30);
            assert_eq!(
                (d.outside, d.max_abs),
                (1, f64::INFINITY),
                "{got} {expected}"
            );
        }
    }

    #[test]
    fn the_tolerance_has_two_parts() {
        assert!(of(&[101.0], &[100.0], 0.01, 0.0).is_within());
        assert!(!of(&[101.5], &[100.0], 0.01, 0.0).is_within());
        assert!(of(&[0.5], &[0.0], 0.0, 0.5).is_within());
        let d = of(&[1.0, 3.0, 2.0], &[1.0, 1.0, 1.0], 0.0, 0.0);
        assert_eq!((d.outside, d.max_abs, d.worst), (2, 2.0, Some(1)));
    }

    #[test]
    fn integers_that_no_float_tells_apart_differ() {
        let (a, b) = ([1_i64 << 53], [(1_i64 << 53) + 1]);
        let (a, b) = (View::from_slice(&a), View::from_slice(&b));
        assert!(!compare(a, b, Tolerance::default()).unwrap().is_within());
    }

    #[test]
    fn only_like_is_compared_with_like() {
        let tolerance = Tolerance::default();
        let a = View::from_slice(&[1.0_f32]);
        assert!(compare(a, View::from_slice(&[1.0_f64]), tolerance).is_err());
        assert!(compare(a, View::from_slice(&[1.0_f32, 2.0]), tolerance).is_err());
    }
}
