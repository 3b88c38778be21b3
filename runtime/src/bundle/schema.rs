//! `plan.json` as it is written, before anything refers to anything.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::plan::{Operator, Role};
use crate::signature::{Convention, DType, Number, Param, Returns};

/// What is read first: whether the rest can be.
#[derive(Deserialize)]
pub(super) struct RawHeader {
    pub(super) format: String,
    pub(super) version: u64,
    #[serde(default)]
    pub(super) requires: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct RawPlan {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) producer: String,
    #[serde(default, deserialize_with = "names")]
    pub(super) variables: BTreeMap<String, RawVariable>,
    pub(super) kernels: Vec<RawKernel>,
    pub(super) buffers: Vec<RawBuffer>,
    pub(super) ops: Vec<RawOp>,
    #[serde(default)]
    pub(super) outputs: Vec<RawOutput>,
    #[serde(default)]
    pub(super) tests: Vec<RawTest>,
    pub(super) classifier: Option<RawClassifier>,
}

/// An object by names, of which none stands twice.
fn names<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, T>, D::Error> {
    struct Names<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Names<T> {
        type Value = BTreeMap<String, T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = BTreeMap::new();
            while let Some(name) = map.next_key::<String>()? {
                if found.contains_key(&name) {
                    return Err(A::Error::custom(format!("the name `{name}` stands twice")));
                }
                found.insert(name, map.next_value()?);
            }
            Ok(found)
        }
    }

    deserializer.deserialize_map(Names(PhantomData))
}

#[derive(Deserialize)]
pub(super) struct RawVariable {
    pub(super) min: i64,
    pub(super) max: i64,
}

#[derive(Deserialize)]
pub(super) struct RawKernel {
    pub(super) entry: String,
    pub(super) source: Option<String>,
    pub(super) language: Option<RawLanguage>,
    pub(super) params: Vec<Param>,
    #[serde(default)]
    pub(super) convention: Convention,
    #[serde(default)]
    pub(super) returns: Returns,
    #[serde(default)]
    pub(super) objects: Vec<RawObject>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) enum RawLanguage {
    #[serde(rename = "c")]
    C,
    #[serde(rename = "llvm-ir")]
    LlvmIr,
    #[serde(rename = "mlir")]
    Mlir,
}

impl RawLanguage {
    pub(super) const fn name(self) -> &'static str {
        match self {
            RawLanguage::C => "c",
            RawLanguage::LlvmIr => "llvm-ir",
            RawLanguage::Mlir => "mlir",
        }
    }
}

#[derive(Deserialize)]
pub(super) struct RawObject {
    pub(super) path: String,
    pub(super) arch: String,
    #[serde(default)]
    pub(super) features: Vec<String>,
    pub(super) sha256: String,
}

#[derive(Deserialize)]
pub(super) struct RawBuffer {
    pub(super) name: Option<String>,
    pub(super) role: Role,
    pub(super) dtype: Option<DType>,
    pub(super) shape: Option<Vec<usize>>,
    pub(super) bytes: Option<usize>,
    pub(super) tensor: Option<String>,
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
#[derive(Deserialize)]
pub(super) struct RawOp {
    pub(super) launch: Option<usize>,
    #[serde(default)]
    pub(super) args: Vec<RawArg>,
    #[serde(default, deserialize_with = "names")]
    pub(super) scalars: BTreeMap<String, RawValue>,
    pub(super) grid: Option<RawValue>,
    pub(super) flops: Option<Number>,
    pub(super) bytes: Option<Number>,
    pub(super) copy: Option<RawCopy>,
    pub(super) fill: Option<RawFill>,
}

#[derive(Deserialize)]
pub(super) struct RawCopy {
    pub(super) from: RawArg,
    pub(super) to: RawArg,
}

#[derive(Deserialize)]
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

#[derive(Deserialize)]
pub(super) struct RawPart {
    pub(super) buffer: usize,
    pub(super) offset: usize,
    pub(super) bytes: usize,
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
                let operator = match key.as_str() {
                    "var" => None,
                    "add" => Some(Operator::Add),
                    "mul" => Some(Operator::Mul),
                    "floordiv" => Some(Operator::FloorDiv),
                    "mod" => Some(Operator::Mod),
                    "min" => Some(Operator::Min),
                    "max" => Some(Operator::Max),
                    other => return Err(A::Error::unknown_field(other, KEYS)),
                };
                let value = match operator {
                    None => RawValue::Variable(map.next_value()?),
                    Some(operator) => {
                        let operands: [RawValue; 2] = map.next_value()?;
                        RawValue::Op(operator, Box::new(operands))
                    }
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

#[derive(Deserialize)]
pub(super) struct RawOutput {
    pub(super) name: String,
    pub(super) buffer: usize,
    #[serde(default)]
    pub(super) offset: usize,
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
}

#[derive(Deserialize)]
pub(super) struct RawTest {
    #[serde(default, deserialize_with = "names")]
    pub(super) variables: BTreeMap<String, i64>,
    #[serde(default, deserialize_with = "names")]
    pub(super) inputs: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "names")]
    pub(super) outputs: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) rtol: f64,
    #[serde(default)]
    pub(super) atol: f64,
    pub(super) truth: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct RawClassifier {
    pub(super) images: String,
    pub(super) scores: String,
}
