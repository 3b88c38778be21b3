//! Scalar arguments: values with a type, and the ranges that a signature states.

use std::fmt;

use half::{bf16, f16};

use super::DType;

/// A scalar argument with its type.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // each variant is the element type of its name
pub enum Scalar {
    Bool(bool),
    I8(i8),
    U8(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    F16(f16),
    BF16(bf16),
    F32(f32),
    F64(f64),
}

impl Scalar {
    /// Its element type.
    #[must_use]
    pub const fn dtype(self) -> DType {
        match self {
            Scalar::Bool(_) => DType::Bool,
            Scalar::I8(_) => DType::I8,
            Scalar::U8(_) => DType::U8,
            Scalar::I16(_) => DType::I16,
            Scalar::U16(_) => DType::U16,
            Scalar::I32(_) => DType::I32,
            Scalar::U32(_) => DType::U32,
            Scalar::I64(_) => DType::I64,
            Scalar::U64(_) => DType::U64,
            Scalar::F16(_) => DType::F16,
            Scalar::BF16(_) => DType::BF16,
            Scalar::F32(_) => DType::F32,
            Scalar::F64(_) => DType::F64,
        }
    }

    /// The 64-bit slot that a call loads: integers extended to 64 bits by
    /// their sign, which covers what the platforms' ABIs ask for (System V and
    /// clang: to 32 bits; AAPCS64 and Windows: nothing), floating point as its
    /// bits in the low bytes.
    #[must_use]
    pub fn to_slot(self) -> u64 {
        match self {
            Scalar::Bool(v) => u64::from(v),
            Scalar::I8(v) => i64::from(v).cast_unsigned(),
            Scalar::U8(v) => u64::from(v),
            Scalar::I16(v) => i64::from(v).cast_unsigned(),
            Scalar::U16(v) => u64::from(v),
            Scalar::I32(v) => i64::from(v).cast_unsigned(),
            Scalar::U32(v) => u64::from(v),
            Scalar::I64(v) => v.cast_unsigned(),
            Scalar::U64(v) => v,
            Scalar::F16(v) => u64::from(v.to_bits()),
            Scalar::BF16(v) => u64::from(v.to_bits()),
            Scalar::F32(v) => u64::from(v.to_bits()),
            Scalar::F64(v) => v.to_bits(),
        }
    }

    /// The value as a number, exactly.
    #[must_use]
    pub fn number(self) -> Number {
        match self {
            Scalar::Bool(v) => Number::Int(i128::from(v)),
            Scalar::I8(v) => Number::Int(v.into()),
            Scalar::U8(v) => Number::Int(v.into()),
            Scalar::I16(v) => Number::Int(v.into()),
            Scalar::U16(v) => Number::Int(v.into()),
            Scalar::I32(v) => Number::Int(v.into()),
            Scalar::U32(v) => Number::Int(v.into()),
            Scalar::I64(v) => Number::Int(v.into()),
            Scalar::U64(v) => Number::Int(v.into()),
            Scalar::F16(v) => Number::Float(v.into()),
            Scalar::BF16(v) => Number::Float(v.into()),
            Scalar::F32(v) => Number::Float(v.into()),
            Scalar::F64(v) => Number::Float(v),
        }
    }

    /// `number` as a scalar of type `dtype`.
    ///
    /// An integer must fit its type exactly; for floating point the nearest
    /// value is taken. `None` where the type cannot hold the number: an
    /// integer out of range, a fraction for an integer type, a finite number
    /// that would become infinite.
    #[must_use]
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // rounding is what is meant
    pub fn from_number(dtype: DType, number: Number) -> Option<Scalar> {
        if let Number::Int(v) = number
            && !dtype.is_float()
        {
            return Some(match dtype {
                DType::Bool => Scalar::Bool(match v {
                    0 => false,
                    1 => true,
                    _ => return None,
                }),
                DType::I8 => Scalar::I8(v.try_into().ok()?),
                DType::U8 => Scalar::U8(v.try_into().ok()?),
                DType::I16 => Scalar::I16(v.try_into().ok()?),
                DType::U16 => Scalar::U16(v.try_into().ok()?),
                DType::I32 => Scalar::I32(v.try_into().ok()?),
                DType::U32 => Scalar::U32(v.try_into().ok()?),
                DType::I64 => Scalar::I64(v.try_into().ok()?),
                _ => Scalar::U64(v.try_into().ok()?),
            });
        }
        let v = match number {
            Number::Int(v) => v as f64,
            Number::Float(v) => v,
        };
        let scalar = match dtype {
            DType::F16 => Scalar::F16(f16::from_f32(round_to_odd(v))),
            DType::BF16 => Scalar::BF16(bf16::from_f32(round_to_odd(v))),
            DType::F32 => Scalar::F32(v as f32),
            DType::F64 => Scalar::F64(v),
            _ => return None,
        };
        let Number::Float(rounded) = scalar.number() else {
            return None;
        };
        (rounded.is_finite() || !v.is_finite()).then_some(scalar)
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

macro_rules! from {
    ($($rust:ty => $variant:ident)*) => {$(
        impl From<$rust> for Scalar {
            fn from(value: $rust) -> Scalar {
                Scalar::$variant(value)
            }
        }
    )*};
}

from! {
    bool => Bool  i8 => I8  u8 => U8  i16 => I16  u16 => U16  i32 => I32  u32 => U32
    i64 => I64  u64 => U64  f16 => F16  bf16 => BF16  f32 => F32  f64 => F64
}

/// A number that has not been given an element type yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Any integer that some element type can hold.
    Int(i128),
    /// A floating-point number.
    Float(f64),
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Int(v) => v.fmt(f),
            Number::Float(v) => v.fmt(f),
        }
    }
}

/// The values for which a kernel keeps inside its buffers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bounds {
    /// Nothing is stated. A safe launch is refused, and so is a plan that was made
    /// in safe code; unsafe launches and bundles, whose loading was unsafe, may use
    /// any value.
    Unstated,
    /// Any value of the type: the scalar takes no part in addressing.
    Any,
    /// From `min` to `max`, both inclusive.
    Between {
        /// The smallest value allowed.
        min: Number,
        /// The largest value allowed.
        max: Number,
    },
}

impl Bounds {
    /// From `min` to `max`, both inclusive.
    #[must_use]
    pub const fn integers(min: i128, max: i128) -> Bounds {
        Bounds::Between {
            min: Number::Int(min),
            max: Number::Int(max),
        }
    }

    /// From `min` to `max`, both inclusive.
    #[must_use]
    pub const fn floats(min: f64, max: f64) -> Bounds {
        Bounds::Between {
            min: Number::Float(min),
            max: Number::Float(max),
        }
    }

    /// The bounds as values of a type, so that a bound is within itself; all values
    /// of an integer type are any.
    pub(super) fn rounded(self, dtype: DType) -> Bounds {
        let round = |n| Scalar::from_number(dtype, n).map_or(n, Scalar::number);
        match self {
            Bounds::Between {
                min: Number::Int(min),
                max: Number::Int(max),
            } if dtype.integer_range() == Some((min, max)) => Bounds::Any,
            Bounds::Between { min, max } => Bounds::Between {
                min: round(min),
                max: round(max),
            },
            other => other,
        }
    }

    /// Whether `value` lies within the bounds. A NaN lies in none that are
    /// stated as numbers.
    #[must_use]
    pub fn contain(&self, value: Number) -> bool {
        match *self {
            Bounds::Unstated | Bounds::Any => true,
            Bounds::Between { min, max } => at_most(min, value) && at_most(value, max),
        }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bounds::Unstated => f.write_str("unstated"),
            Bounds::Any => f.write_str("any"),
            Bounds::Between { min, max } => write!(f, "{min}..={max}"),
        }
    }
}

/// `a <= b`; an integer beside a float is compared as a float.
#[allow(clippy::cast_precision_loss)] // a float bound has no more precision to offer
pub(crate) fn at_most(a: Number, b: Number) -> bool {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => a <= b,
        (Number::Int(a), Number::Float(b)) => a as f64 <= b,
        (Number::Float(a), Number::Int(b)) => a <= b as f64,
        (Number::Float(a), Number::Float(b)) => a <= b,
    }
}

/// `x` as an `f32` from which any narrower float can be rounded as if from `x`
/// itself: where `x` is not an `f32`, of the two around it the one whose last bit
/// is 1. Rounding to the nearest twice would turn what is near a tie into one.
#[allow(clippy::cast_possible_truncation)] // rounding is what is meant
pub(crate) fn round_to_odd(x: f64) -> f32 {
    let near = x as f32;
    let bits = near.to_bits();
    if x.is_nan() || f64::from(near) == x || bits & 1 == 1 {
        return near;
    }
    // The magnitude counts up with the bits, for either sign.
    let odd = if f64::from(near).abs() > x.abs() {
        bits - 1
    } else {
        bits + 1
    };
    f32::from_bits(odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_extend_by_their_sign() {
        assert_eq!(Scalar::I8(-1).to_slot(), u64::MAX);
        assert_eq!(Scalar::U8(255).to_slot(), 255);
        assert_eq!(Scalar::I16(-2).to_slot(), u64::MAX - 1);
        assert_eq!(Scalar::U32(u32::MAX).to_slot(), u64::from(u32::MAX));
        assert_eq!(Scalar::Bool(true).to_slot(), 1);
    }

    #[test]
    fn a_number_that_does_not_fit_is_none() {
        let int = |dtype, v| Scalar::from_number(dtype, Number::Int(v));
        assert_eq!(int(DType::U8, 255), Some(Scalar::U8(255)));
        assert_eq!(int(DType::U8, 256), None);
        assert_eq!(int(DType::I8, -129), None);
        assert_eq!(int(DType::Bool, 2), None);
        assert_eq!(
            int(DType::U64, i128::from(u64::MAX)),
            Some(Scalar::U64(u64::MAX))
        );
        let float = |dtype, v| Scalar::from_number(dtype, Number::Float(v));
        assert_eq!(float(DType::F32, 1e39), None);
        assert_eq!(float(DType::F16, 70000.0), None);
        assert_eq!(float(DType::I32, 1.0), None);
        assert!(float(DType::F32, f64::INFINITY).is_some());
    }

    #[test]
    fn a_double_is_rounded_to_a_half_once() {
        // Just above the tie between 0 and the smallest half.
        let above = 2.0_f64.powi(-25) * (1.0 + f64::EPSILON);
        let half = Scalar::from_number(DType::F16, Number::Float(above));
        assert_eq!(half, Some(Scalar::F16(f16::from_bits(1))));
    }

    #[test]
    fn nan_is_within_no_stated_bounds() {
        assert!(!Bounds::floats(0.0, 1.0).contain(Number::Float(f64::NAN)));
        assert!(Bounds::Any.contain(Number::Float(f64::NAN)));
    }
}
