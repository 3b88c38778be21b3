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
    /// The first of these.
    pub first_outside: Option<usize>,
    /// The largest distance of these.
    pub max_outside: f64,
    /// Where that is.
    pub worst_outside: Option<usize>,
    /// How many are a NaN on one side alone.
    pub nans: usize,
    /// The largest distance between two elements; infinite where one of them is
    /// a NaN or infinite and the other is not the same.
    pub max_abs: f64,
    /// Where that distance is, if any is above 0.
    pub worst: Option<usize>,
    /// The largest distance between two elements over the larger of their magnitudes: 0 to 2
    /// between numbers, infinite where the distance is.
    pub max_rel: f64,
    /// How many steps from one number of the type to the next lie between two elements at most;
    /// 0 and -0 are one number. `None` where the type is an integer's; NaNs are left out.
    pub max_ulps: Option<u64>,
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

/// How many elements are looked at as numbers at a time.
const CHUNK: usize = 4096;

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
    let dtype = got.dtype();
    if (dtype, got.len()) != (expected.dtype(), expected.len()) {
        return Err(Error::Buffer {
            doing: "cannot compare results",
            reason: format!(
                "{} elements of {dtype} with {} of {}",
                got.len(),
                expected.len(),
                expected.dtype()
            ),
        });
    }
    let mut difference = Difference {
        elements: got.len(),
        max_ulps: dtype.is_float().then_some(0),
        ..Difference::default()
    };
    for start in (0..got.len()).step_by(CHUNK) {
        let end = got.len().min(start + CHUNK);
        let (got, expected) = (got.slice(start..end)?, expected.slice(start..end)?);
        if got.as_bytes() == expected.as_bytes() {
            continue;
        }
        let values = [to_f64(got)?, to_f64(expected)?];
        let bits = got.as_bytes().chunks_exact(dtype.size());
        let bits = bits.zip(expected.as_bytes().chunks_exact(dtype.size()));
        for (i, bits) in bits.enumerate().filter(|(_, (a, b))| a != b) {
            let values = [values[0][i], values[1][i]];
            difference.add(start + i, dtype, values, bits, tolerance);
        }
    }
    Ok(difference)
}

impl Difference {
    /// Adds an element whose bits differ.
    fn add(
        &mut self,
        i: usize,
        dtype: DType,
        [got, expected]: [f64; 2],
        bits: (&[u8], &[u8]),
        tolerance: Tolerance,
    ) {
        self.other_bits += 1;
        self.first.get_or_insert(i);
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
        let distance = if dtype.is_float() {
            distance
        } else {
            distance.max(1.0)
        };
        if distance > self.max_abs {
            self.max_abs = distance;
            self.worst = Some(i);
        }
        if distance > 0.0 {
            let relative = distance / got.abs().max(expected.abs());
            let relative = if distance.is_finite() {
                relative
            } else {
                f64::INFINITY
            };
            self.max_rel = self.max_rel.max(relative);
        }
        self.nans += usize::from(got.is_nan() != expected.is_nan());
        if let Some(most) = &mut self.max_ulps
            && !got.is_nan()
            && !expected.is_nan()
        {
            let [a, b] = [bits.0, bits.1].map(rank);
            *most = (*most).max(a.abs_diff(b));
        }
        let allowed = tolerance.atol + tolerance.rtol * expected.abs();
        // An allowance that is no number allows nothing, and even an infinite one
        // no infinite distance.
        if distance == 0.0 || (distance.is_finite() && distance <= allowed) {
            return;
        }
        self.outside += 1;
        self.first_outside.get_or_insert(i);
        if distance > self.max_outside {
            self.max_outside = distance;
            self.worst_outside = Some(i);
        }
    }
}

/// Where a floating-point number stands among all of its type: one more than the next smaller.
fn rank(bytes: &[u8]) -> i64 {
    let bits = bytes
        .iter()
        .rev()
        .fold(0_u64, |bits, b| bits << 8 | u64::from(*b));
    let sign = 1 << (8 * bytes.len() - 1);
    let magnitude = (bits & (sign - 1)).cast_signed();
    if bits & sign == 0 {
        magnitude
    } else {
        -magnitude
    }
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
    fn what_is_outside_is_told_from_what_is_not() {
        // The largest distance is allowed, as it is of a large number.
        let d = of(&[1010.0, 1.5, 2.5], &[1000.0, 1.0, 1.0], 0.1, 0.0);
        assert_eq!((d.worst, d.max_abs), (Some(0), 10.0));
        assert_eq!(
            (d.outside, d.first_outside, d.worst_outside),
            (2, Some(1), Some(2))
        );
        assert_eq!((d.max_outside, d.max_rel), (1.5, 0.6));
    }

    #[test]
    fn steps_between_numbers_are_counted_across_zero() {
        let next = |v: f32, n: u32| f32::from_bits(v.to_bits() + n);
        let ulps = |a: f32, b: f32| of(&[a], &[b], 0.0, 0.0).max_ulps;
        assert_eq!(ulps(1.0, next(1.0, 3)), Some(3));
        assert_eq!(ulps(-1.0, -next(1.0, 3)), Some(3));
        assert_eq!(ulps(0.0, -0.0), Some(0));
        assert_eq!(ulps(f32::from_bits(2), -f32::from_bits(1)), Some(3));
        assert_eq!(ulps(f32::MAX, f32::INFINITY), Some(1));
        let d = of(&[f32::NAN, 1.0], &[1.0, 1.0], 0.0, 0.0);
        assert_eq!((d.max_ulps, d.nans, d.max_rel), (Some(0), 1, f64::INFINITY));
        let (a, b) = ([f64::MIN], [f64::MAX]);
        let d = compare(
            View::from_slice(&a),
            View::from_slice(&b),
            Tolerance::default(),
        );
        assert!(d.unwrap().max_ulps > Some(u64::MAX / 2));
        let (a, b) = ([3_u8], [4_u8]);
        let d = compare(
            View::from_slice(&a),
            View::from_slice(&b),
            Tolerance::default(),
        );
        assert_eq!(d.unwrap().max_ulps, None);
    }

    #[test]
    fn results_longer_than_a_chunk_are_compared_to_their_end() {
        let a = vec![1.0_f32; 2 * CHUNK + 3];
        let mut b = a.clone();
        b[2 * CHUNK + 2] = 2.0;
        b[CHUNK] = 1.5;
        let d = of(&a, &b, 0.0, 0.0);
        assert_eq!((d.elements, d.other_bits), (2 * CHUNK + 3, 2));
        assert_eq!((d.first, d.worst), (Some(CHUNK), Some(2 * CHUNK + 2)));
    }

    #[test]
    fn only_like_is_compared_with_like() {
        let tolerance = Tolerance::default();
        let a = View::from_slice(&[1.0_f32]);
        assert!(compare(a, View::from_slice(&[1.0_f64]), tolerance).is_err());
        assert!(compare(a, View::from_slice(&[1.0_f32, 2.0]), tolerance).is_err());
    }
}
