//! A folder in, a checked bundle out.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::files::read_bytes;
use super::files::{Root, read_text};
use super::load::{KernelSource, Precompiled, digest};
use super::schema::{RawArg, RawBuffer, RawHeader, RawKernel, RawOp, RawPlan, RawTest, RawValue};
use super::test::Test;
use super::weights::{Tensor, Weights};
use super::{Bundle, Classifier, Tolerance, npy, schedules};
use crate::Error;
use crate::error::Place;
use crate::plan::{BufferRange, Plan, PlanBuffer, PlanBuilder, Role, Value, Variable, VariableId};
use crate::signature::{DType, Number, Signature};

/// What every plan calls its format.
pub(super) const FORMAT: &str = "svod-plan";

/// The version of the format that is read. Older ones always load.
pub(super) const VERSION: u64 = 1;

/// The names of extensions that are known. There is none yet.
const KNOWN_EXTENSIONS: &[&str] = &[];

pub(super) fn open(path: &Path) -> Result<Bundle, Error> {
    let root = Root::new(path)?;
    let text = read_text(&root.file(&"plan.json".into(), "plan.json")?)?;
    check_header(&parse(&text)?)?;
    let raw: RawPlan = parse(&text)?;

    let weights = root.given().join("weights.safetensors");
    let weights = weights
        .try_exists()
        .unwrap_or(false)
        .then(|| root.file(&"weights.safetensors".into(), "weights.safetensors"))
        .transpose()?
        .map(Weights::open)
        .transpose()?;

    let mut builder = Builder {
        plan: PlanBuilder::new(&raw.name),
        variables: HashMap::new(),
    };
    for (name, variable) in &raw.variables.0 {
        let id = builder.plan.variable(name, variable.min, variable.max)?;
        builder.variables.insert(name, id);
    }
    let mut sources = Vec::new();
    for (i, kernel) in raw.kernels.iter().enumerate() {
        let place = Place::at("kernels", i);
        sources.push(source(&root, &place, kernel)?);
        let signature = Signature::new(kernel.params.clone(), kernel.convention, kernel.returns);
        let signature = signature.map_err(|e| match e {
            Error::Signature { param, reason } => Error::plan(place.item("params", param), reason),
            other => other,
        })?;
        builder.plan.kernel(&kernel.entry, signature);
    }
    let mut tensors = Vec::new();
    for (i, buffer) in raw.buffers.iter().enumerate() {
        tensors.push(builder.buffer(&Place::at("buffers", i), buffer, weights.as_ref())?);
    }
    for (i, op) in raw.ops.iter().enumerate() {
        builder.op(&|| Place::at("ops", i), op)?;
    }
    for output in &raw.outputs {
        builder.plan.result(
            &output.name,
            output.buffer,
            output.offset,
            output.dtype,
            &output.shape,
        )?;
    }
    let plan = builder.plan.build()?;

    let classifier = raw.classifier.map(|c| Classifier {
        images: c.images,
        scores: c.scores,
    });
    if let Some(classifier) = &classifier {
        check_classifier(&plan, classifier)?;
    }
    let mut tests = Vec::new();
    for (i, test) in raw.tests.iter().enumerate() {
        let place = Place::at("tests", i);
        tests.push(read_test(&root, &plan, classifier.as_ref(), &place, test)?);
    }
    let schedules = schedules::read(&root, &plan)?;
    let labels = root.optional_text("labels.txt")?;
    let labels = labels.iter().flat_map(|text| text.lines());
    Ok(Bundle {
        producer: raw.producer,
        sources,
        tensors,
        tests,
        labels: labels.map(str::to_owned).collect(),
        classifier,
        schedules,
        weights,
        plan: Arc::new(plan),
        root: root.closed(),
    })
}

/// Reads JSON; an error says the way to where it stands.
fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    // Where nothing is wrong, nobody asks where: to know it all the time takes as long again.
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let result = serde_path_to_error::deserialize(&mut reader);
    let value = result.map_err(|e| {
        let path = e.path().to_string();
        let place = if path == "." {
            "plan.json".into()
        } else {
            path
        };
        Error::plan(place, e.into_inner())
    })?;
    reader.end().map_err(|e| Error::plan("plan.json", e))?;
    Ok(value)
}

fn check_header(header: &RawHeader) -> Result<(), Error> {
    if header.format != FORMAT {
        let reason = format!("it is `{}`, this reads `{FORMAT}`", header.format);
        return Err(Error::plan("format", reason));
    }
    if header.version != VERSION {
        let hint = if header.version > VERSION {
            "; a newer svod-runtime may read it"
        } else {
            ""
        };
        let reason = format!(
            "it is {}, this reads version {VERSION}{hint}",
            header.version
        );
        return Err(Error::plan("version", reason));
    }
    for (i, name) in header.requires.iter().enumerate() {
        if !KNOWN_EXTENSIONS.contains(&name.as_str()) {
            let reason = format!("the extension `{name}` is not known to this reader");
            return Err(Error::plan(Place::at("requires", i), reason));
        }
    }
    Ok(())
}

fn source(root: &Root, place: &Place, kernel: &RawKernel) -> Result<KernelSource, Error> {
    let text = match (&kernel.source, kernel.language) {
        (Some(source), Some(language)) => {
            let path = root.file(&place.key("source"), source)?;
            Some((source.clone(), path, language))
        }
        (Some(_), None) => return Err(Error::plan(place.clone(), "a source without a language")),
        (None, _) if kernel.objects.is_empty() => {
            return Err(Error::plan(place.clone(), "neither a source nor an object"));
        }
        (None, _) => None,
    };
    let says_source = kernel.objects.iter().any(|o| o.source_sha256.is_some());
    let source_digest = match &text {
        Some((_, path, _)) if says_source => Some(digest(&read_bytes(path)?)),
        _ => None,
    };
    let mut objects = Vec::new();
    for (i, object) in kernel.objects.iter().enumerate() {
        let place = place.item("objects", i);
        let path = root.file(&place.key("path"), &object.path)?;
        objects.push(Precompiled::open(&place, path, object, source_digest)?);
    }
    Ok(KernelSource::new(text, objects))
}

/// Where something stands, for an error: most have none, and a plan has thousands of places.
type At<'a> = &'a dyn Fn() -> Place;

/// A plan's builder and the names of its variables.
struct Builder<'raw> {
    plan: PlanBuilder,
    variables: HashMap<&'raw str, VariableId>,
}

impl<'raw> Builder<'raw> {
    fn buffer(
        &mut self,
        place: &Place,
        raw: &'raw RawBuffer,
        weights: Option<&Weights>,
    ) -> Result<Option<Tensor>, Error> {
        let name = raw.name.as_deref();
        let index = match (raw.dtype, &raw.shape, raw.bytes) {
            (Some(dtype), Some(shape), _) => self.plan.buffer(name, raw.role, dtype, shape)?,
            (None, _, Some(bytes)) => self.plan.bytes(name, raw.role, bytes)?,
            (Some(_), None, _) => {
                return Err(Error::plan(place.clone(), "a dtype without a shape"));
            }
            (None, _, None) => {
                return Err(Error::plan(
                    place.clone(),
                    "neither dtype and shape nor bytes",
                ));
            }
        };
        let bytes = self.plan.whole(index)?.bytes;
        if raw.bytes.is_some_and(|stated| stated != bytes) {
            let reason = format!("its shape has {bytes} bytes");
            return Err(Error::plan(place.key("bytes"), reason));
        }
        let tensor = match (&raw.tensor, raw.role) {
            (Some(tensor), Role::Constant | Role::State) => tensor,
            (None, Role::Constant) => {
                return Err(Error::plan(place.clone(), "a constant names its tensor"));
            }
            // A state without a tensor begins as zeros; others have none.
            _ => return Ok(None),
        };
        let place = place.key("tensor");
        let found = weights.and_then(|w| w.tensor(tensor));
        let Some(found) = found else {
            let reason = match weights {
                Some(_) => format!("weights.safetensors has no tensor `{tensor}`"),
                None => {
                    format!("the tensor `{tensor}` has no file: weights.safetensors is missing")
                }
            };
            return Err(Error::plan(place, reason));
        };
        if found.range.len() != bytes {
            let reason = format!(
                "the tensor `{tensor}` has {} bytes, the buffer {bytes}",
                found.range.len()
            );
            return Err(Error::plan(place, reason));
        }
        if raw.dtype.is_some() && raw.dtype != found.dtype {
            let reason = format!("the tensor `{tensor}` has elements of another type");
            return Err(Error::plan(place, reason));
        }
        Ok(Some(found.clone()))
    }

    fn op(&mut self, place: At<'_>, raw: &'raw RawOp) -> Result<(), Error> {
        match (raw.launch, &raw.copy, &raw.fill) {
            (Some(kernel), None, None) => {
                let args = raw.args.iter().flatten().enumerate();
                let args: Vec<_> = args
                    .map(|(i, arg)| self.range(&|| place().item("args", i), arg))
                    .collect::<Result<_, _>>()?;
                let scalars: Vec<_> = raw
                    .scalars
                    .0
                    .iter()
                    .map(|(name, value)| {
                        let value = self.value(&|| place().key("scalars").key(name), value)?;
                        Ok((name.as_str(), value))
                    })
                    .collect::<Result<_, Error>>()?;
                let grid = match &raw.grid {
                    Some(grid) => self.value(&|| place().key("grid"), grid)?,
                    None => 1.into(),
                };
                let (flops, bytes) = (estimate(raw.flops), estimate(raw.bytes));
                self.plan
                    .launch_with_costs(kernel, &args, &scalars, grid, flops, bytes)?;
            }
            (None, Some(copy), None) => {
                let place = || place().key("copy");
                let from = self.range(&|| place().key("from"), &copy.from)?;
                let to = self.range(&|| place().key("to"), &copy.to)?;
                self.plan.copy(from, to)?;
            }
            (None, None, Some(fill)) => {
                let place = || place().key("fill");
                let to = self.range(&|| place().key("to"), &fill.to)?;
                let value = self.value(&|| place().key("value"), &fill.value)?;
                self.plan.fill(to, fill.dtype, value)?;
            }
            _ => {
                return Err(Error::plan(
                    place(),
                    "an op has exactly one of `launch`, `copy` and `fill`",
                ));
            }
        }
        Ok(())
    }

    fn range(&self, place: At<'_>, arg: &RawArg) -> Result<BufferRange, Error> {
        match arg {
            RawArg::Whole(buffer) => self
                .plan
                .whole(*buffer)
                .map_err(|_| Error::plan(place(), format!("there is no buffer {buffer}"))),
            RawArg::Part(part) => Ok(BufferRange {
                buffer: part.buffer,
                offset: part.offset,
                bytes: part.bytes,
            }),
        }
    }

    fn value(&self, place: At<'_>, raw: &RawValue) -> Result<Value, Error> {
        Ok(match raw {
            RawValue::Number(number) => Value::Number(*number),
            RawValue::Variable(name) => {
                let found = self.variables.get(name.as_str());
                let id = found.ok_or_else(|| {
                    Error::plan(place(), format!("there is no variable `{name}`"))
                })?;
                (*id).into()
            }
            RawValue::Op(operator, operands) => {
                let [a, b] = &**operands;
                Value::op(*operator, self.value(place, a)?, self.value(place, b)?)
            }
        })
    }
}

/// Estimates are for profiles alone; one that is no count is none.
fn estimate(number: Option<Number>) -> Option<u64> {
    match number? {
        Number::Int(v) => u64::try_from(v).ok(),
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it saturates
        Number::Float(v) => Some(v as u64),
    }
}

fn read_test(
    root: &Root,
    plan: &Plan,
    classifier: Option<&Classifier>,
    place: &Place,
    raw: &RawTest,
) -> Result<Test, Error> {
    let mut inputs = Vec::new();
    for (name, file) in &raw.inputs.0 {
        let place = place.key("inputs").key(name);
        let Some(input) = plan.input(name) else {
            return Err(Error::plan(place, "there is no such input"));
        };
        let path = root.file(&place, file)?;
        let header = npy::read_header(&path)?;
        check_input(input, header.dtype, &header.shape)
            .map_err(|reason| Error::plan(place, format!("`{file}` {reason}")))?;
        inputs.push((name.clone(), path));
    }
    let mut outputs = Vec::new();
    for (name, file) in &raw.outputs.0 {
        let place = place.key("outputs").key(name);
        let Some(output) = plan.outputs().iter().find(|o| o.name == *name) else {
            return Err(Error::plan(place, "there is no such output"));
        };
        let path = root.file(&place, file)?;
        let header = npy::read_header(&path)?;
        if header.dtype != output.dtype || header.shape != output.shape {
            let reason = format!(
                "`{file}` holds {} of shape {:?}, the output is {} of shape {:?}",
                header.dtype, header.shape, output.dtype, output.shape
            );
            return Err(Error::plan(place, reason));
        }
        outputs.push((name.clone(), path));
    }
    let mut given = HashMap::new();
    for (name, value) in &raw.variables.0 {
        if plan.find_variable(name).is_err() {
            let place = place.key("variables").key(name);
            return Err(Error::plan(place, "there is no such variable"));
        }
        given.insert(name.as_str(), *value);
    }
    for Variable { name, min, max } in plan.variables() {
        let place = || place.key("variables").key(name);
        match given.get(name.as_str()) {
            None => return Err(Error::plan(place(), "it has no value")),
            Some(value) if !(min..=max).contains(&value) => {
                let reason = format!("{value} is outside {min}..={max}");
                return Err(Error::plan(place(), reason));
            }
            Some(_) => {}
        }
    }
    let truth = raw.truth.as_ref().map(|file| {
        let place = place.key("truth");
        let path = root.file(&place, file)?;
        let header = npy::read_header(&path)?;
        let pictures = classifier
            .and_then(|c| plan.input(&c.images))
            .map(|i| i.shape[0]);
        let right = match header.shape[..] {
            [n] => pictures.is_none_or(|pictures| n == pictures),
            _ => false,
        };
        if header.dtype.is_float() || !right {
            let reason = format!("`{file}` holds no row of whole numbers, one for each picture");
            return Err(Error::plan(place, reason));
        }
        Ok(path)
    });
    let truth = truth.transpose()?;
    Ok(Test {
        variables: raw.variables.0.clone(),
        inputs,
        outputs,
        tolerance: Tolerance {
            rtol: raw.rtol,
            atol: raw.atol,
        },
        truth,
    })
}

/// Whether an array of that type and shape is what an input takes.
pub(super) fn check_input(input: &PlanBuffer, dtype: DType, shape: &[usize]) -> Result<(), String> {
    // Untyped bytes are given as what they are.
    let expected = input.dtype.unwrap_or(DType::U8);
    if dtype == expected && shape == input.shape {
        return Ok(());
    }
    Err(format!(
        "holds {dtype} of shape {shape:?}, the input `{}` is {expected} of shape {:?}",
        input.name.as_deref().unwrap_or_default(),
        input.shape
    ))
}

fn check_classifier(plan: &Plan, classifier: &Classifier) -> Result<(), Error> {
    let place = Place::from("classifier");
    let Some(images) = plan.input(&classifier.images) else {
        return Err(Error::plan(place.key("images"), "there is no such input"));
    };
    let scores = plan.outputs().iter().find(|o| o.name == classifier.scores);
    let Some(scores) = scores else {
        return Err(Error::plan(place.key("scores"), "there is no such output"));
    };
    match (&images.shape[..], &scores.shape[..]) {
        ([n, _, _], [m, classes]) if n == m && *classes > 0 => Ok(()),
        _ => Err(Error::plan(
            place,
            "images have the shape [pictures, height, width], scores [pictures, classes]",
        )),
    }
}
