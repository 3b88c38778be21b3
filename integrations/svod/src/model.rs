//! What an ONNX model says of its inputs, and where its weights are.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path};

use engine::DType as Held;
use svod_dtype::{DType, ScalarDType};
use svod_onnx::parser::{
    GraphProto, TensorProto, ValueInfoProto, tensor_shape_proto::dimension, type_proto,
};

use crate::Failure;

/// The most bytes that an input may have.
const MAX_BYTES: usize = 1 << 34;

/// The type of an input, and its dimensions as far as the model states them.
#[derive(Debug)]
pub(crate) struct Stated {
    name: String,
    pub(crate) dtype: DType,
    /// `None` where not even their number is stated.
    dims: Option<Vec<Dim>>,
}

#[derive(Debug)]
enum Dim {
    Is(usize),
    /// Open, by what name.
    Open(String),
}

impl Stated {
    pub(crate) fn of(input: &ValueInfoProto) -> Result<Stated, Failure> {
        let name = &input.name;
        let value = input.r#type.as_ref().and_then(|t| t.value.as_ref());
        let Some(type_proto::Value::TensorType(tensor)) = value else {
            return Err(format!("the input `{name}` is no tensor").into());
        };
        let dtype = match tensor.elem_type {
            1 => DType::Float32,
            2 => DType::UInt8,
            3 => DType::Int8,
            5 => DType::Int16,
            6 => DType::Int32,
            7 => DType::Int64,
            9 => DType::Bool,
            10 => DType::Float16,
            11 => DType::Float64,
            other => return Err(format!("the input `{name}` is of ONNX's type {other}").into()),
        };
        let dim = |value: &Option<dimension::Value>| match value {
            Some(dimension::Value::DimValue(n)) if *n > 0 => Dim::Is(*n as usize),
            Some(dimension::Value::DimParam(name)) => Dim::Open(name.clone()),
            _ => Dim::Open("?".to_owned()),
        };
        let shape = tensor.shape.as_ref();
        let dims = shape.map(|shape| shape.dim.iter().map(|d| dim(&d.value)).collect());
        Ok(Stated {
            name: name.clone(),
            dtype,
            dims,
        })
    }

    /// The shape, where the model states all of it.
    pub(crate) fn shape(&self) -> Result<Vec<usize>, Failure> {
        let whole = self.dims.iter().flatten().map(|dim| match dim {
            Dim::Is(n) => Some(*n),
            Dim::Open(_) => None,
        });
        let whole = whole.collect::<Option<Vec<_>>>();
        whole.filter(|_| self.dims.is_some()).ok_or_else(|| {
            let (name, shape) = (&self.name, self.dims());
            let say = format!("say it with --shape {name}=…");
            format!("the model leaves the shape of `{name}` open, {shape}: {say}").into()
        })
    }

    fn dims(&self) -> String {
        let Some(dims) = &self.dims else {
            return "of any number of dimensions".to_owned();
        };
        let dims = dims.iter().map(|dim| match dim {
            Dim::Is(n) => n.to_string(),
            Dim::Open(name) => name.clone(),
        });
        format!("[{}]", dims.collect::<Vec<_>>().join(", "))
    }

    /// Refuses a shape that is not the one that the model states; `from` is who says it.
    pub(crate) fn check_shape(&self, shape: &[usize], from: &str) -> Result<(), Failure> {
        let is = |(dim, given): (&Dim, &usize)| match dim {
            Dim::Is(n) => n == given,
            Dim::Open(_) => true,
        };
        let fits = self
            .dims
            .as_ref()
            .is_none_or(|dims| dims.len() == shape.len() && dims.iter().zip(shape).all(is));
        if fits {
            return Ok(());
        }
        let (name, stated) = (&self.name, self.dims());
        Err(
            format!("{from} gives `{name}` the shape {shape:?}, and the model states {stated}")
                .into(),
        )
    }

    /// Refuses elements of another type.
    pub(crate) fn check_dtype(&self, got: Held, from: &str) -> Result<(), Failure> {
        let expected = held(self.dtype.base());
        if expected == Some(got) {
            return Ok(());
        }
        let (name, dtype) = (&self.name, expected.map_or("another type", Held::name));
        Err(format!("{from} gives `{name}` elements of {got}, and the model states {dtype}").into())
    }

    /// How many elements the shape has.
    pub(crate) fn count(&self, shape: &[usize]) -> Result<usize, Failure> {
        let product = |bytes: usize, dim: &usize| bytes.checked_mul(*dim);
        let bytes = shape.iter().try_fold(self.dtype.base().bytes(), product);
        let bytes = bytes.filter(|bytes| *bytes <= MAX_BYTES).ok_or_else(|| {
            let name = &self.name;
            format!("the shape {shape:?} of `{name}` is of more than {MAX_BYTES} bytes")
        })?;
        Ok(bytes / self.dtype.base().bytes())
    }
}

/// The type of an array's elements.
fn held(dtype: ScalarDType) -> Option<Held> {
    Some(match dtype {
        ScalarDType::Bool => Held::Bool,
        ScalarDType::Int8 => Held::I8,
        ScalarDType::UInt8 => Held::U8,
        ScalarDType::Int16 => Held::I16,
        ScalarDType::Int32 => Held::I32,
        ScalarDType::Int64 => Held::I64,
        ScalarDType::Float16 => Held::F16,
        ScalarDType::Float32 => Held::F32,
        ScalarDType::Float64 => Held::F64,
        _ => return None,
    })
}

/// Reads the weights that the model keeps in files beside it, `folder` being where it is: the
/// importer looks for them only where it reads the model itself, and then gives it no inputs.
pub(crate) fn read_external(graph: &mut GraphProto, folder: &Path) -> Result<(), Failure> {
    for weight in &mut graph.initializer {
        if weight.data_location == 1 {
            let read = external(weight, folder);
            let data = read.map_err(|e| format!("the weight `{}`: {e}", weight.name))?;
            weight.raw_data = data.into();
            weight.data_location = 0;
            weight.external_data.clear();
        }
    }
    let attributes = graph.node.iter_mut().flat_map(|node| &mut node.attribute);
    for attribute in attributes {
        let graphs = attribute.g.iter_mut().chain(&mut attribute.graphs);
        for graph in graphs {
            read_external(graph, folder)?;
        }
        if attribute.t.as_ref().is_some_and(|t| t.data_location == 1) {
            let name = &attribute.name;
            return Err(format!("the attribute `{name}` lies in another file").into());
        }
    }
    Ok(())
}

fn external(weight: &TensorProto, folder: &Path) -> Result<Vec<u8>, Failure> {
    let entries = weight.external_data.iter();
    let entries: HashMap<&str, &str> = entries
        .map(|entry| (entry.key.as_str(), entry.value.as_str()))
        .collect();
    let location = *entries.get("location").ok_or("it lies in no file")?;
    let mut parts = Path::new(location).components();
    if !parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(format!("{location} is no file beside the model").into());
    }
    let path = folder.join(location);
    let system = |e: std::io::Error| format!("read {}: {e}", path.display());
    let number = |key: &str| entries.get(key).map(|n| n.parse::<u64>()).transpose();
    let offset = number("offset")?.unwrap_or(0);
    let file = File::open(&path).map_err(system)?;
    let there = file.metadata().map_err(system)?.len();
    let rest = there.checked_sub(offset);
    let length = number("length")?.or(rest).unwrap_or(0);
    if rest.is_none_or(|rest| length > rest) {
        let path = path.display();
        return Err(format!("{path} has {there} bytes, not {length} from {offset} on").into());
    }
    let mut data = vec![0; usize::try_from(length)?];
    file.read_exact_at(&mut data, offset).map_err(system)?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use svod_onnx::parser::{
        StringStringEntryProto, TensorShapeProto, TypeProto, tensor_shape_proto::Dimension,
    };

    use super::*;

    fn stated(dims: Option<&[i64]>) -> Stated {
        let dim = |&n: &i64| Dimension {
            value: Some(match n {
                0 => dimension::Value::DimParam("batch".into()),
                n => dimension::Value::DimValue(n),
            }),
            ..Dimension::default()
        };
        let shape = dims.map(|dims| TensorShapeProto {
            dim: dims.iter().map(dim).collect(),
        });
        let tensor = type_proto::Tensor {
            elem_type: 1,
            shape,
        };
        Stated::of(&ValueInfoProto {
            name: "x".into(),
            r#type: Some(TypeProto {
                value: Some(type_proto::Value::TensorType(tensor)),
                ..TypeProto::default()
            }),
            ..ValueInfoProto::default()
        })
        .unwrap()
    }

    #[test]
    fn a_shape_is_what_the_model_states_and_open_where_it_states_none() {
        assert_eq!(stated(Some(&[2, 3])).shape().unwrap(), [2, 3]);
        assert!(stated(Some(&[])).shape().unwrap().is_empty());
        let open = stated(Some(&[0, 3])).shape().unwrap_err().to_string();
        assert!(
            open.contains("[batch, 3]") && open.contains("--shape x="),
            "{open}"
        );
        let open = stated(None).shape().unwrap_err().to_string();
        assert!(open.contains("any number of dimensions"), "{open}");
    }

    #[test]
    fn what_is_given_must_be_what_the_model_states() {
        let input = stated(Some(&[0, 3]));
        input.check_shape(&[7, 3], "--shape").unwrap();
        for wrong in [&[7, 4][..], &[3], &[1, 7, 3]] {
            assert!(input.check_shape(wrong, "--shape").is_err(), "{wrong:?}");
        }
        input.check_dtype(Held::F32, "x.npy").unwrap();
        let wrong = input
            .check_dtype(Held::F64, "x.npy")
            .unwrap_err()
            .to_string();
        assert!(wrong.contains("f64") && wrong.contains("f32"), "{wrong}");
        assert_eq!(input.count(&[7, 3]).unwrap(), 21);
        assert!(input.count(&[1 << 40, 3]).is_err());
        assert!(input.count(&[usize::MAX, 3]).is_err());
    }

    #[test]
    fn weights_in_other_files_are_read_from_beside_the_model() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("w"), [1, 2, 3, 4, 5]).unwrap();
        let read = |location: &str, length: &str| {
            let entry = |(key, value): (&str, &str)| StringStringEntryProto {
                key: key.into(),
                value: value.into(),
            };
            let entries = [("location", location), ("offset", "1"), ("length", length)];
            let mut graph = GraphProto {
                initializer: vec![TensorProto {
                    data_location: 1,
                    external_data: entries.into_iter().map(entry).collect(),
                    ..TensorProto::default()
                }],
                ..GraphProto::default()
            };
            read_external(&mut graph, folder.path())?;
            Ok::<_, Failure>(graph.initializer.remove(0))
        };
        let weight = read("w", "3").unwrap();
        assert_eq!(
            (&weight.raw_data[..], weight.data_location),
            (&[2, 3, 4][..], 0)
        );
        for (location, length) in [("w", "5"), ("v", "1"), ("../w", "1"), ("/etc/passwd", "1")] {
            assert!(read(location, length).is_err(), "{location}");
        }
    }
}
