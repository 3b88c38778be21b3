//! Parameters as the bundle format writes them.

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    Access, Bounds, BufferParam, Convention, DEFAULT_ALIGN, DType, IndexParam, Number, Param,
    Returns, ScalarParam,
};

/// Every key that a parameter may have; which of them it must have depends on
/// what it is.
#[derive(Default, Deserialize, Serialize)]
struct RawParam {
    #[serde(skip_serializing_if = "Option::is_none")]
    buffer: Option<DType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    len: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access: Option<Access>,
    #[serde(skip_serializing_if = "Option::is_none")]
    align: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scalar: Option<DType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    index: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<Number>,
}

impl<'de> Deserialize<'de> for Param {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Param, D::Error> {
        let raw = RawParam::deserialize(deserializer)?;
        let size = |n: u64| {
            usize::try_from(n).map_err(|_| D::Error::custom(format!("{n} is too large a size")))
        };
        match (raw.buffer, raw.scalar) {
            (Some(dtype), None) => Ok(Param::Buffer(BufferParam {
                dtype,
                len: size(raw.len.ok_or_else(|| D::Error::missing_field("len"))?)?,
                access: raw
                    .access
                    .ok_or_else(|| D::Error::missing_field("access"))?,
                align: raw.align.map_or(Ok(DEFAULT_ALIGN), size)?,
            })),
            (None, Some(dtype)) if raw.index => Ok(Param::Index(IndexParam {
                dtype,
                max: match raw.max {
                    Some(Number::Int(max)) => u64::try_from(max)
                        .map_err(|_| D::Error::custom(format!("{max} is no size of a grid")))?,
                    Some(Number::Float(max)) => {
                        return Err(D::Error::custom(format!("{max} is no size of a grid")));
                    }
                    None => return Err(D::Error::missing_field("max")),
                },
            })),
            (None, Some(dtype)) => Ok(Param::Scalar(ScalarParam {
                dtype,
                name: raw.name.ok_or_else(|| D::Error::missing_field("name"))?,
                bounds: bounds(dtype, raw.min, raw.max),
            })),
            _ => Err(D::Error::custom(
                "a parameter has either `buffer` or `scalar`, the type of its elements",
            )),
        }
    }
}

impl Serialize for Param {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw = match self {
            Param::Buffer(p) => RawParam {
                buffer: Some(p.dtype),
                len: Some(p.len as u64),
                access: Some(p.access),
                align: (p.align != DEFAULT_ALIGN).then_some(p.align as u64),
                ..RawParam::default()
            },
            Param::Scalar(p) => {
                let (min, max) = stated(p.dtype, p.bounds);
                RawParam {
                    scalar: Some(p.dtype),
                    name: Some(p.name.clone()),
                    min,
                    max,
                    ..RawParam::default()
                }
            }
            Param::Index(p) => RawParam {
                scalar: Some(p.dtype),
                index: true,
                max: Some(Number::Int(p.max.into())),
                ..RawParam::default()
            },
        };
        raw.serialize(serializer)
    }
}

/// The ends that `bounds` reads back. JSON has no infinity: an infinite end is left
/// out, and where both ends are, nothing is stated, which promises less.
fn stated(dtype: DType, bounds: Bounds) -> (Option<Number>, Option<Number>) {
    let finite = |n: &Number| !matches!(n, Number::Float(v) if v.is_infinite());
    match bounds {
        Bounds::Unstated => (None, None),
        Bounds::Any => {
            let range = dtype.integer_range();
            range.map(|(a, b)| (Number::Int(a), Number::Int(b))).unzip()
        }
        Bounds::Between { min, max } => (Some(min).filter(finite), Some(max).filter(finite)),
    }
}

/// One stated end leaves the other at the end of the type.
fn bounds(dtype: DType, min: Option<Number>, max: Option<Number>) -> Bounds {
    if min.is_none() && max.is_none() {
        return Bounds::Unstated;
    }
    let (lowest, highest) = match dtype.integer_range() {
        Some((lowest, highest)) => (Number::Int(lowest), Number::Int(highest)),
        None => (
            Number::Float(f64::NEG_INFINITY),
            Number::Float(f64::INFINITY),
        ),
    };
    Bounds::Between {
        min: min.unwrap_or(lowest),
        max: max.unwrap_or(highest),
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        number_from_json(&number).ok_or_else(|| D::Error::custom("not a number"))
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Number::Int(v) => serializer.serialize_i128(v),
            Number::Float(v) if v.is_finite() => serializer.serialize_f64(v),
            Number::Float(v) => Err(S::Error::custom(format!("JSON has no number {v}"))),
        }
    }
}

/// An integer where the text is one that 64 bits hold, else a float.
pub(crate) fn number_from_json(number: &serde_json::Number) -> Option<Number> {
    number
        .as_i128()
        .map(Number::Int)
        .or_else(|| number.as_f64().map(Number::Float))
}

macro_rules! names {
    ($ty:ty, $what:literal: $($name:literal => $value:path),*) => {
        impl<'de> Deserialize<'de> for $ty {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$ty, D::Error> {
                let name = String::deserialize(deserializer)?;
                match name.as_str() {
                    $($name => Ok($value),)*
                    other => Err(D::Error::unknown_variant(other, &[$($name),*])),
                }
            }
        }

        impl Serialize for $ty {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(match self {
                    $($value => $name),*
                })
            }
        }
    };
}

names!(Access, "access": "r" => Access::Read, "w" => Access::Write, "rw" => Access::ReadWrite);
names!(Convention, "convention": "c" => Convention::C, "packed" => Convention::Packed);
names!(Returns, "returns": "void" => Returns::Void, "status" => Returns::Status);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Param, String> {
        serde_json::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn each_kind_of_parameter_is_read() {
        assert_eq!(
            read(r#"{"buffer": "bf16", "len": 8, "access": "rw"}"#),
            Ok(Param::Buffer(BufferParam {
                dtype: DType::BF16,
                len: 8,
                access: Access::ReadWrite,
                align: 16,
            }))
        );
        assert_eq!(
            read(r#"{"scalar": "u64", "name": "n", "max": 18446744073709551615}"#),
            Ok(Param::Scalar(ScalarParam {
                dtype: DType::U64,
                name: "n".into(),
                bounds: Bounds::integers(0, i128::from(u64::MAX)),
            }))
        );
        assert_eq!(
            read(r#"{"scalar": "i64", "index": true, "max": 3}"#),
            Ok(Param::Index(IndexParam {
                dtype: DType::I64,
                max: 3,
            }))
        );
    }

    #[test]
    fn a_parameter_that_says_too_little_is_refused() {
        for text in [
            r#"{"buffer": "f32", "access": "r"}"#,
            r#"{"buffer": "f32", "len": 4}"#,
            r#"{"buffer": "f33", "len": 4, "access": "r"}"#,
            r#"{"buffer": "f32", "len": -4, "access": "r"}"#,
            r#"{"buffer": "f32", "len": 1e30, "access": "r"}"#,
            r#"{"scalar": "i32"}"#,
            r#"{"scalar": "i32", "index": true}"#,
            r#"{"scalar": "i32", "index": true, "max": -1}"#,
            r#"{"scalar": "i32", "buffer": "i32", "name": "x"}"#,
            r"{}",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
