//! `plan.json` as it is written, before anything refers to anything: one set of types
//! to read it and to write it.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::plan::{Operator, Role};
use crate::signature::{Convention, DType, Number, Param, Returns};

/// What is read first: whether the rest can be.
#[derive(Deserialize, Serialize)]
pub(super) struct RawHeader {
    pub(super) format: String,
    pub(super) version: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) requires: Vec<String>,
}

/// All of `plan.json`, to be written.
#[derive(Serialize)]
pub(super) struct RawFile<'a> {
    #[serde(flatten)]
    pub(super) header: RawHeader,
    #[serde(flatten)]
    pub(super) plan: &'a RawPlan,
}

#[derive(Deserialize, Serialize)]
pub(super) struct RawPlan {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) producer: String,
    #[serde(default)]
    pub(super) variables: Named<RawVariable>,
    pub(super) kernels: Vec<RawKernel>,
    pub(super) buffers: Vec<RawBuffer>,
    pub(super) ops: Vec<RawOp>,
    #[serde(default)]
    pub(super) outputs: Vec<RawOutput>,
    #[serde(default)]
    pub(super) tests: Vec<RawTest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) classifier: Option<RawClassifier>,
}

/// An object by names, in the order in which they stand, of which none stands twice.
pub(super) struct Named<T>(pub(super) Vec<(String, T)>);

impl<T> Default for Named<T> {
    fn default() -> Named<T> {
        Named(Vec::new())
    }
}

impl<T> Named<T> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Named<T>, D::Error> {
        struct Names<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Names<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut named, mut names) = (Vec::new(), HashSet::new());
                while let Some(name) = map.next_key::<String>()? {
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format!("the name `{name}` stands twice")));
                    }
                    named.push((name, map.next_value()?));
                }
                Ok(Named(named))
            }
        }

        deserializer.deserialize_map(Names(PhantomData))
    }
}

impl<T: Serialize> Serialize for Named<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// Whether a key is left out, as what it would say is what is read without it.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[derive(Deserialize, Serialize)]
pub(super) struct RawVariable {
    pub(super) min: i64,
    pub(super) max: i64,
}

#[derive(Deserialize, Serialize)]
pub(super) struct RawKernel {
    pub(super) entry: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) language: Option<RawLanguage>,
    pub(super) params: Vec<Param>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) convention: Convention,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) returns: Returns,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) objects: Vec<RawObject>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub(super) enum RawLanguage {
    #[serde(rename = "c")]
    C,
    #[serde(rename = "llvm-ir")]
    LlvmIr,
    #[serde(rename = "mlir")]
    Mlir,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct RawObject {
    pub(super) path: String,
    pub(super) arch: String,
    #[serde(default)]
    pub(super) features: Vec<String>,
    pub(super) sha256: String,
    /// The digest of the source that it was compiled from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) source_sha256: Option<String>,
}

#[derive(Deserialize, Serialize)]
pub(super) struct RawBuffer {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    pub(super) role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dtype: Option<DType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shape: Option<Vec<usize>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tensor: Option<String>,
}

impl Serialize for Role {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Role, D::Error> {
        const NAMES: &[&str] = &["input", "constant", "state", "temp", "output"];
        let name = String::deserialize(deserializer)?;
        let role = Role::ALL.into_iter().find(|r| r.name() == name);
        role.ok_or_else(|| D::Error::unknown_variant(&name, NAMES))
    }
}

/// One of `launch`, `copy` and `fill`; which, is looked at later.
#[derive(Default, Deserialize, Serialize)]
pub(super) struct RawOp {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) launch: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) args: Option<Vec<RawArg>>,
    #[serde(default, skip_serializing_if = "Named::is_empty")]
    pub(super) scalars: Named<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) grid: Option<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flops: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) copy: Option<RawCopy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fill: Option<RawFill>,
}

#[derive(Deserialize, Serialize)]
pub(super) struct RawCopy {
    pub(super) from: RawArg,
    pub(super) to: RawArg,
}

#[derive(Deserialize, Serialize)]
pub(super) struct RawFill {
    pub(super) to: RawArg,
    pub(super) dtype: DType,
    pub(super) value: RawValue,
}

/// ARG: a buffer's number, or a part of it.
pub(super) enum RawArg {
    Whole(usize),
    Part(RawPart),
}

#[derive(Deserialize, Serialize)]
pub(super) struct RawPart {
    pub(super) buffer: usize,
    pub(super) offset: usize,
    pub(super) bytes: usize,
}

impl Serialize for RawArg {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            RawArg::Whole(buffer) => buffer.serialize(serializer),
            RawArg::Part(part) => part.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for RawArg {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawArg, D::Error> {
        struct ArgVisitor;

        impl<'de> Visitor<'de> for ArgVisitor {
            type Value = RawArg;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a buffer's number, or an object with `buffer`, `offset` and `bytes`")
            }

            fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<RawArg, E> {
                let index = usize::try_from(v);
                index
                    .map(RawArg::Whole)
                    .map_err(|_| E::custom(format!("{v} is no buffer's number")))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawArg, A::Error> {
                RawPart::deserialize(serde::de::value::MapAccessDeserializer::new(map))
                    .map(RawArg::Part)
            }
        }

        deserializer.deserialize_any(ArgVisitor)
    }
}

/// VALUE: a number, a variable by name, or an expression.
pub(super) enum RawValue {
    Number(Number),
    Variable(String),
    Op(Operator, Box<[RawValue; 2]>),
}

const OPERATORS: [Operator; 6] = [
    Operator::Add,
    Operator::Mul,
    Operator::FloorDiv,
    Operator::Mod,
    Operator::Min,
    Operator::Max,
];

/// The key of an expression with this operator.
const fn key(operator: Operator) -> &'static str {
    match operator {
        Operator::Add => "add",
        Operator::Mul => "mul",
        Operator::FloorDiv => "floordiv",
        Operator::Mod => "mod",
        Operator::Min => "min",
        Operator::Max => "max",
    }
}

impl Serialize for RawValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            RawValue::Number(number) => number.serialize(serializer),
            RawValue::Variable(name) => serializer.collect_map([("var", name)]),
            RawValue::Op(operator, operands) => {
                serializer.collect_map([(key(*operator), operands)])
            }
        }
    }
}

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawValue, D::Error> {
        struct ValueVisitor;

        const KEYS: &[&str] = &["var", "add", "mul", "floordiv", "mod", "min", "max"];

        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = RawValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or an object with one key, `var` or an operator")
            }

            fn visit_i64<E>(self, v: i64) -> Result<RawValue, E> {
                Ok(RawValue::Number(Number::Int(v.into())))
            }

            fn visit_u64<E>(self, v: u64) -> Result<RawValue, E> {
                Ok(RawValue::Number(Number::Int(v.into())))
            }

            fn visit_f64<E>(self, v: f64) -> Result<RawValue, E> {
                Ok(RawValue::Number(Number::Float(v)))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawValue, A::Error> {
                let Some(key) = map.next_key::<String>()? else {
                    return Err(A::Error::custom("an object without a key is no value"));
                };
                let operator = OPERATORS.into_iter().find(|o| self::key(*o) == key);
                let value = match operator {
                    Some(operator) => {
                        let operands: [RawValue; 2] = map.next_value()?;
                        RawValue::Op(operator, Box::new(operands))
                    }
                    None if key == "var" => RawValue::Variable(map.next_value()?),
                    None => return Err(A::Error::unknown_field(&key, KEYS)),
                };
                if let Some(second) = map.next_key::<String>()? {
                    let reason = format!("a value has one key, this has `{key}` and `{second}`");
                    return Err(A::Error::custom(reason));
                }
                Ok(value)
            }
        }

        deserializer.deserialize_any(ValueVisitor)
    }
}

#[derive(Deserialize, Serialize)]
pub(super) struct RawOutput {
    pub(super) name: String,
    pub(super) buffer: usize,
    #[serde(default)]
    pub(super) offset: usize,
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
}

#[derive(Deserialize, Serialize)]
pub(super) struct RawTest {
    #[serde(default)]
    pub(super) variables: Named<i64>,
    #[serde(default)]
    pub(super) inputs: Named<String>,
    #[serde(default)]
    pub(super) outputs: Named<String>,
    #[serde(default)]
    pub(super) rtol: f64,
    #[serde(default)]
    pub(super) atol: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) truth: Option<String>,
}

#[derive(Deserialize, Serialize)]
pub(super) struct RawClassifier {
    pub(super) images: String,
    pub(super) scores: String,
}
