//! Bundles written: of a plan that was built in code, or of one that was read.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::describe::{Code, describe};
use super::load::KernelSource;
use super::names::Names;
use super::publish::{Content, Parts};
use super::recording::{Recorded, Recording};
use super::schema::{Named, RawClassifier, RawLanguage, RawObject, RawTest};
use super::weights::{NewWeights, Tensor};
use super::{Bundle, Classifier, Test, Tolerance, npy, schedules};
use crate::Error;
use crate::compile::{Language, Object, Source};
use crate::error::Place;
use crate::memory::Constant;
use crate::plan::{LearnedSchedule, Plan, Role, check_content};
use crate::signature::DType;

/// Writes a [`Plan`] as a bundle: told what the plan's kernels are made from and what
/// its constants hold, it writes a folder that [`Bundle::open`] reads.
///
/// What is read back is the same plan, but for what JSON cannot say: a floating-point
/// scalar whose bounds are [`Any`](crate::Bounds::Any), or infinite at both ends, states
/// none.
///
/// ```
/// use svod_runtime::bundle::{Bundle, BundleWriter};
/// use svod_runtime::memory::Constant;
/// use svod_runtime::plan::PlanBuilder;
/// use svod_runtime::{Buffer, DType, Signature, Source};
///
/// let mut plan = PlanBuilder::new("scale");
/// let signature = Signature::builder()
///     .write(DType::F32, 4)
///     .read(DType::F32, 4)
///     .read(DType::F32, 4)
///     .index(DType::I32, 4)
///     .build()?;
/// let scale = plan.kernel("scale", signature);
/// let x = plan.input("x", DType::F32, &[4])?;
/// let w = plan.constant("w", DType::F32, &[4])?;
/// let y = plan.output("y", DType::F32, &[4])?;
/// plan.launch(scale, &[y, x, w], &[], 4)?;
/// let plan = plan.build()?;
///
/// let source = "void scale(float *restrict y, const float *restrict x,
///                          const float *restrict w, int i) { y[i] = x[i] * w[i]; }";
/// let weights = Buffer::from_slice(&[0.5_f32, 1.0, 1.5, 2.0])?;
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("scale.svod");
/// BundleWriter::new(&plan)
///     .producer("an example")
///     .source(scale, Source::c("scale", source))?
///     .contents(w.buffer, weights)?
///     .write(&path)?;
/// assert_eq!(Bundle::open(&path)?.plan().name(), "scale");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct BundleWriter<'a> {
    plan: &'a Plan,
    producer: String,
    kernels: Vec<Kernel>,
    contents: Vec<Option<Constant>>,
    tests: Vec<Recording>,
    labels: Vec<String>,
    classifier: Option<Classifier>,
    schedules: Vec<LearnedSchedule>,
}

/// What a kernel is made from.
#[derive(Clone, Debug, Default)]
struct Kernel {
    source: Option<Source>,
    objects: Vec<Precompiled>,
}

#[derive(Clone, Debug)]
struct Precompiled {
    object: Object,
    arch: String,
    features: Vec<String>,
}

impl<'a> BundleWriter<'a> {
    /// A writer of a bundle that holds `plan` and nothing else yet.
    #[must_use]
    pub fn new(plan: &'a Plan) -> BundleWriter<'a> {
        BundleWriter {
            plan,
            producer: String::new(),
            kernels: vec![Kernel::default(); plan.kernels().len()],
            contents: vec![None; plan.buffers().len()],
            tests: Vec::new(),
            labels: Vec::new(),
            classifier: None,
            schedules: Vec::new(),
        }
    }

    /// Says what made the bundle; empty where this is not called.
    pub fn producer(&mut self, producer: impl Into<String>) -> &mut Self {
        self.producer = producer.into();
        self
    }

    /// Gives the source of a kernel, in the place of one that was given before. Its
    /// file is called after the entry; kernels with the same text share one.
    ///
    /// # Errors
    ///
    /// [`Error::Plan`] where the plan has no such kernel, or one with another entry; and
    /// where the source names a folder to include from, since the bundle would not hold
    /// that: have the preprocessor write what it includes into the text.
    pub fn source(&mut self, kernel: usize, source: Source) -> Result<&mut Self, Error> {
        let place = self.check_entry(kernel, source.entry())?;
        if let Some(folder) = source.folder() {
            let reason = format!(
                "the source of `{}` includes from the folder {}, which the bundle would not hold; \
                 write what it includes into its text",
                source.entry(),
                folder.display()
            );
            return Err(Error::plan(place.key("source"), reason));
        }
        self.kernels[kernel].source = Some(source);
        Ok(self)
    }

    /// Adds an object of a kernel: code for CPUs of the architecture `arch`, as
    /// [`std::env::consts::ARCH`] names it, that have all of the `features`, as
    /// compilers call them after `-m`.
    ///
    /// # Errors
    ///
    /// [`Error::Plan`] where the plan has no such kernel, or one with another entry.
    pub fn object(
        &mut self,
        kernel: usize,
        object: Object,
        arch: &str,
        features: &[&str],
    ) -> Result<&mut Self, Error> {
        self.check_entry(kernel, object.entry())?;
        self.kernels[kernel].objects.push(Precompiled {
            object,
            arch: arch.to_owned(),
            features: features.iter().map(|f| (*f).to_owned()).collect(),
        });
        Ok(self)
    }

    /// Gives what a constant holds, or a state at the start; a state that is given
    /// nothing begins as zeros. Buffers that are given clones of one [`Constant`] share
    /// a tensor.
    ///
    /// # Errors
    ///
    /// [`Error::Plan`] where the plan has no such buffer, it is one of inputs, temps and
    /// outputs, or the contents do not fit it.
    pub fn contents(
        &mut self,
        buffer: usize,
        contents: impl Into<Constant>,
    ) -> Result<&mut Self, Error> {
        let place = Place::at("buffers", buffer);
        let Some(expected) = self.plan.buffers().get(buffer) else {
            return Err(Error::plan(place, "the plan has no such buffer"));
        };
        let contents = contents.into();
        check_content(expected, &contents).map_err(|reason| Error::plan(place, reason))?;
        self.contents[buffer] = Some(contents);
        Ok(self)
    }

    /// Adds a recorded run. They belong together: they are run in order on one
    /// instance, since a state carries over.
    pub fn test(&mut self, recording: impl Into<Recording>) -> &mut Self {
        self.tests.push(recording.into());
        self
    }

    /// Says the names of classes, in the order of a classifier's scores.
    pub fn labels<T: Into<String>>(&mut self, labels: impl IntoIterator<Item = T>) -> &mut Self {
        self.labels = labels.into_iter().map(Into::into).collect();
        self
    }

    /// Says that the plan classifies pictures.
    pub fn classifier(&mut self, classifier: Classifier) -> &mut Self {
        self.classifier = Some(classifier);
        self
    }

    /// Adds a schedule that was learned, for runs of the bundle to start with, in the place
    /// of one for the same processor and number of threads.
    ///
    /// # Errors
    ///
    /// [`Error::Schedule`] where it is another plan's.
    pub fn schedule(&mut self, learned: LearnedSchedule) -> Result<&mut Self, Error> {
        self.plan.check_learned(&learned)?;
        schedules::merge(&mut self.schedules, learned);
        Ok(self)
    }

    /// Writes the bundle into the folder `path`, which must not exist, or be empty. It
    /// appears there whole or, after an error, not at all.
    ///
    /// # Errors
    ///
    /// [`Error::WriteBundle`], whose source says why: a kernel without a source and
    /// without objects, a constant without contents, a number that JSON does not have, a
    /// recorded array that does not fit, a folder that is not empty, what the system
    /// refused; and whatever [`Bundle::open`] would refuse.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let written = self.parts().and_then(|parts| parts.publish(path));
        written.map_err(|e| not_written(path, e))
    }

    fn check_entry(&self, kernel: usize, entry: &str) -> Result<Place, Error> {
        let place = Place::at("kernels", kernel);
        match self.plan.kernels().get(kernel) {
            None => Err(Error::plan(place, "the plan has no such kernel")),
            Some(kernel) if kernel.entry != entry => {
                let reason = format!("code for `{entry}`, the kernel is `{}`", kernel.entry);
                Err(Error::plan(place, reason))
            }
            Some(_) => Ok(place),
        }
    }

    fn parts(&self) -> Result<Parts<'_>, Error> {
        let mut files = Vec::new();
        let code = self.code(&mut files)?;
        let (tensors, weights) = self.weights()?;
        let mut plan = describe(self.plan, code, tensors)?;
        plan.producer.clone_from(&self.producer);
        plan.classifier = self.classifier.as_ref().map(classifier);
        for (i, recording) in self.tests.iter().enumerate() {
            plan.tests.push(test(i, recording, &mut files)?);
        }
        if !self.labels.is_empty() {
            let broken = self.labels.iter().find(|l| l.contains(['\n', '\r']));
            if let Some(label) = broken {
                let reason = format!("the label {label:?} is more than one line");
                return Err(Error::plan("labels.txt", reason));
            }
            let text: String = self.labels.iter().flat_map(|l| [l, "\n"]).collect();
            files.push((
                "labels.txt".into(),
                Content::Bytes(text.into_bytes().into()),
            ));
        }
        if !self.schedules.is_empty() {
            let text = LearnedSchedule::list_to_json(&self.schedules)?;
            let content = Content::Bytes(text.into_bytes().into());
            files.push((schedules::FILE.into(), content));
        }
        Ok(Parts {
            plan,
            weights: (!weights.is_empty()).then_some(weights),
            files,
        })
    }

    /// Names the files of kernels. Kernels with the same text share one.
    fn code<'s>(&'s self, files: &mut Vec<(PathBuf, Content<'s>)>) -> Result<Vec<Code>, Error> {
        let (mut sources, mut objects) = (Names::default(), Names::default());
        let mut written = HashMap::new();
        let mut code = Vec::new();
        for (i, (kernel, made_from)) in self.plan.kernels().iter().zip(&self.kernels).enumerate() {
            let entry = &kernel.entry;
            if made_from.source.is_none() && made_from.objects.is_empty() {
                let reason = format!(
                    "the kernel `{entry}` has neither a source nor an object; give it one with \
                     BundleWriter::source or BundleWriter::object"
                );
                return Err(Error::plan(Place::at("kernels", i), reason));
            }
            let source_sha256 = made_from.source.as_ref();
            let source_sha256 = source_sha256.map(|s| hex(&Sha256::digest(s.contents())));
            let source = made_from.source.as_ref().map(|source| {
                let language = match source.language() {
                    Language::C => RawLanguage::C,
                    Language::LlvmIr => RawLanguage::LlvmIr,
                    Language::Mlir => RawLanguage::Mlir,
                };
                let contents = source.contents();
                let path = written.entry((language, contents)).or_insert_with(|| {
                    let path = format!("kernels/{}.{}", sources.file(entry), end(language));
                    files.push((path.clone().into(), Content::Bytes(contents.into())));
                    path
                });
                (path.clone(), language)
            });
            let objects = made_from.objects.iter().map(|object| {
                let path = format!("kernels/{}.o", objects.file(entry));
                let bytes = object.object.bytes();
                files.push((path.clone().into(), Content::Bytes(bytes.into())));
                RawObject {
                    path,
                    arch: object.arch.clone(),
                    features: object.features.clone(),
                    sha256: hex(&Sha256::digest(bytes)),
                    source_sha256: source_sha256.clone(),
                }
            });
            let objects = objects.collect();
            code.push(Code { source, objects });
        }
        Ok(code)
    }

    /// Names the tensors: after their buffers, or `buffer_N`.
    fn weights(&self) -> Result<(Vec<Option<String>>, NewWeights<'_>), Error> {
        let mut names = Names::default();
        // The one key of the header that is no tensor.
        names.unique("__metadata__");
        let mut weights = NewWeights::default();
        let mut written = HashMap::new();
        let mut tensors = Vec::new();
        for (i, (buffer, contents)) in self.plan.buffers().iter().zip(&self.contents).enumerate() {
            let Some(contents) = contents else {
                if buffer.role == Role::Constant {
                    let reason = format!(
                        "the constant {} has no contents; give them with BundleWriter::contents",
                        self.plan.buffer_label(i)
                    );
                    return Err(Error::plan(Place::at("buffers", i), reason));
                }
                tensors.push(None);
                continue;
            };
            let bytes = contents.as_bytes();
            let dtype = contents.dtype().unwrap_or(DType::U8);
            let name = written
                .entry((bytes.as_ptr(), bytes.len(), dtype))
                .or_insert_with(|| {
                    let wish = buffer.name.clone().unwrap_or_else(|| format!("buffer_{i}"));
                    let name = names.unique(&wish);
                    let flat = [bytes.len() / dtype.size()];
                    let shape = buffer.dtype.map_or(&flat[..], |_| &buffer.shape);
                    weights.add(name.clone(), dtype, shape, bytes);
                    name
                });
            tensors.push(Some(name.clone()));
        }
        Ok((tensors, weights))
    }
}

impl Bundle {
    /// Writes the bundle anew into the folder `path`, which must not exist, or be
    /// empty. It appears there whole or, after an error, not at all.
    ///
    /// The weights are laid out to be mapped, as the format recommends. Every other
    /// file of the folder is copied under its own name, whether the plan names it or
    /// not, since sources may include files beside them. Keys of the plan that this
    /// reader does not know are left out.
    ///
    /// # Errors
    ///
    /// [`Error::WriteBundle`], whose source says why: a folder that is not empty, a file
    /// that is no longer what it was, a link that leaves the bundle, what the system
    /// refused.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let written = self.parts().and_then(|parts| parts.publish(path));
        written.map_err(|e| not_written(path, e))
    }

    pub(super) fn parts(&self) -> Result<Parts<'_>, Error> {
        let code = self.sources.iter().map(KernelSource::code).collect();
        let tensor = |tensor: &Option<Tensor>| Some(tensor.as_ref()?.name.clone());
        let mut plan = describe(&self.plan, code, self.tensors.iter().map(tensor).collect())?;
        plan.producer.clone_from(&self.producer);
        plan.classifier = self.classifier.as_ref().map(classifier);
        let path = |path: &PathBuf| self.root.relative(path);
        let named = |files: &[(String, PathBuf)]| {
            let file = |(name, file): &(String, PathBuf)| (name.clone(), path(file));
            Named(files.iter().map(file).collect())
        };
        let test = |test: &Test| RawTest {
            variables: Named(test.variables.clone()),
            inputs: named(&test.inputs),
            outputs: named(&test.outputs),
            rtol: test.tolerance.rtol,
            atol: test.tolerance.atol,
            truth: test.truth.as_ref().map(path),
        };
        plan.tests = self.tests.iter().map(test).collect();
        let mut files = self.root.all()?;
        files.retain(|f| f != Path::new("plan.json") && f != Path::new("weights.safetensors"));
        let file = |file: PathBuf| {
            let content = Content::File(self.root.given().join(&file));
            (file, content)
        };
        Ok(Parts {
            plan,
            weights: self.weights.as_ref().map(NewWeights::of),
            files: files.into_iter().map(file).collect(),
        })
    }
}

pub(super) fn not_written(path: &Path, error: Error) -> Error {
    Error::WriteBundle {
        bundle: path.to_owned(),
        source: Box::new(error),
    }
}

fn classifier(classifier: &Classifier) -> RawClassifier {
    RawClassifier {
        images: classifier.images.clone(),
        scores: classifier.scores.clone(),
    }
}

/// Names the files of the recorded run `i`.
fn test<'r>(
    i: usize,
    recording: &'r Recording,
    files: &mut Vec<(PathBuf, Content<'r>)>,
) -> Result<RawTest, Error> {
    let place = Place::at("tests", i);
    let Tolerance { rtol, atol } = recording.tolerance;
    for (key, value) in [("rtol", rtol), ("atol", atol)] {
        if !value.is_finite() {
            let reason = format!("{value} cannot be written: JSON has no such number");
            return Err(Error::plan(place.key(key), reason));
        }
    }
    let mut names = Names::default();
    let mut file = |name: &str, array: &'r Recorded| {
        let path = format!("tests/{i}/{}.npy", names.file(name));
        let content = match array {
            Recorded::Array(array) => Content::Array(array),
            // A reader would say the same of the copy.
            Recorded::File(file) => npy::read_header(file).map(|_| Content::File(file.clone()))?,
        };
        files.push((path.clone().into(), content));
        Ok(path)
    };
    let mut all = |arrays: &'r [(String, Recorded)]| {
        let arrays = arrays.iter();
        let arrays = arrays.map(|(name, array)| Ok((name.clone(), file(name, array)?)));
        Ok::<_, Error>(Named(arrays.collect::<Result<_, Error>>()?))
    };
    Ok(RawTest {
        variables: Named(recording.variables.clone()),
        inputs: all(&recording.inputs)?,
        outputs: all(&recording.outputs)?,
        rtol,
        atol,
        truth: recording
            .truth
            .as_ref()
            .map(|t| file("truth", t))
            .transpose()?,
    })
}

/// The end of a source file's name.
const fn end(language: RawLanguage) -> &'static str {
    match language {
        RawLanguage::C => "c",
        RawLanguage::LlvmIr => "ll",
        RawLanguage::Mlir => "mlir",
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
