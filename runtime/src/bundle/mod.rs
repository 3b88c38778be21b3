//! Plan bundles: a folder that holds everything to run one compiled model.
//!
//! The format is the contract of `docs/bundle-format.md`. [`Bundle::open`] reads
//! a folder and refuses all that the format says must be refused, naming the
//! place; nothing of it has been compiled then, and no code has run.
//! [`Bundle::load`] compiles and links, and is `unsafe`: **a bundle holds native
//! code, and loading one is as trusting as running a program.**
//!
//! A plan that was built in code is written with a [`BundleWriter`], a bundle that was
//! read with [`Bundle::write`].

mod ahead;
mod compare;
mod describe;
mod files;
mod lines;
mod load;
mod names;
pub mod npy;
mod publish;
mod read;
mod recording;
mod schedules;
mod schema;
mod test;
mod tiers;
mod weights;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use compare::{Difference, Tolerance, compare, for_each_number, to_f64};
pub use load::{Load, Progress, Wanted};
pub use recording::{Recorded, Recording};
pub use schedules::read_schedules;
pub use test::{Classified, OutputReport, Runner, Test, TestReport};
pub use tiers::Upgrade;
pub use write::BundleWriter;

use crate::Error;
use crate::compile::cache::Explanation;
use crate::compile::{Object, Origin, Source};
use crate::memory::Constant;
use crate::plan::{Executable, LearnedSchedule, Plan};
use crate::runtime::Runtime;

/// A bundle that was read and checked.
#[derive(Debug)]
pub struct Bundle {
    root: files::Root,
    plan: Arc<Plan>,
    producer: String,
    sources: Vec<load::KernelSource>,
    weights: Option<weights::Weights>,
    /// For each buffer of the plan, the tensor that it is loaded from.
    tensors: Vec<Option<weights::Tensor>>,
    tests: Vec<Test>,
    labels: Vec<String>,
    classifier: Option<Classifier>,
    schedules: Vec<LearnedSchedule>,
}

/// What a bundle says of itself if it classifies pictures: an addition of this
/// project's to the format, as a key that other readers ignore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classifier {
    /// The input that holds the pictures, of shape `[pictures, height, width]`.
    pub images: String,
    /// The output that holds a row of scores for each picture.
    pub scores: String,
}

impl Bundle {
    /// Reads the bundle in the folder `path` and checks it.
    ///
    /// # Errors
    ///
    /// [`Error::Bundle`], whose source says what was refused, and where.
    pub fn open(path: impl AsRef<Path>) -> Result<Bundle, Error> {
        let path = path.as_ref();
        let _open = tracing::info_span!("open", bundle = %path.display()).entered();
        read::open(path).map_err(|e| in_bundle(path, e))
    }

    /// Compiles and links the kernels, several at a time, and maps the weights.
    /// `progress` is told of each kernel as it is ready, from any thread.
    ///
    /// Runs may have the threads of the runtime's pool. Where the bundle carries a
    /// [schedule](Self::schedule) for so many threads of this processor, runs start with it;
    /// otherwise they learn one. Guarded runs keep the plan's order.
    ///
    /// # Errors
    ///
    /// [`Error::Bundle`], whose source is the error of the first kernel, in the
    /// plan's order, that does not compile or link, or of a weights file that
    /// has changed since it was checked.
    ///
    /// # Safety
    ///
    /// The bundle's kernels must keep the contracts of their signatures, as the
    /// [`signature`](crate::signature) module states them, for all that the plan
    /// does with them: also for the values that it gives to scalars without stated
    /// bounds. Untyped bytes that it takes for `bool` must be 0 or 1, those of inputs
    /// that are given later among them. And the bundle's files must not be written
    /// while the executable lives, as its constants may be mapped from them.
    pub unsafe fn load(
        &self,
        runtime: &Runtime,
        progress: &(dyn Fn(Progress<'_>) + Sync),
    ) -> Result<Executable, Error> {
        let load = Load {
            progress,
            ..Load::default()
        };
        // SAFETY: promised by the caller.
        unsafe { self.load_with(runtime, &load) }
    }

    /// As [`load`](Self::load), with all that can be said about it.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    ///
    /// # Safety
    ///
    /// As [`load`](Self::load).
    pub unsafe fn load_with(
        &self,
        runtime: &Runtime,
        load: &Load<'_>,
    ) -> Result<Executable, Error> {
        let (plan, kernels) = (self.plan.name(), self.plan.kernels().len());
        let _load = tracing::info_span!("load", plan, kernels).entered();
        // SAFETY: promised by the caller.
        unsafe { load::load(self, runtime, load) }.map_err(|e| in_bundle(self.path(), e))
    }

    /// Compiles the kernels, and links nothing: the object of each, in the plan's order, that
    /// [`load`](Self::load) would link.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), as far as compiling goes.
    pub fn compile(&self, runtime: &Runtime, load: &Load<'_>) -> Result<Vec<Object>, Error> {
        let tiers = load::tiers(self, runtime, load, None);
        let tiers = tiers.map_err(|e| in_bundle(self.path(), e))?;
        Ok(tiers.objects)
    }

    /// As [`load`](Self::load), with these objects, one for each kernel in the plan's order.
    /// `before` is called when all files have been read and none is opened any more, before
    /// anything is done with the objects.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), as far as linking goes; that of `before`.
    ///
    /// # Safety
    ///
    /// As [`load`](Self::load).
    pub(crate) unsafe fn link(
        &self,
        runtime: &Runtime,
        objects: &[Object],
        before: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Executable, Error> {
        let here = |e| in_bundle(self.path(), e);
        // SAFETY: promised by the caller.
        let contents = unsafe { load::contents(self) }.map_err(here)?;
        before()?;
        // SAFETY: promised by the caller.
        unsafe { load::link(self, runtime, objects, contents, false) }.map_err(here)
    }

    /// What its constants hold, and its states at the start, by the buffer's number: copied.
    pub(crate) fn contents(&self) -> Result<Vec<(usize, Constant)>, Error> {
        load::copied_contents(self).map_err(|e| in_bundle(self.path(), e))
    }

    /// The folder, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.root.given()
    }

    /// The folder, from the root on: compilers run elsewhere.
    fn folder(&self) -> Result<PathBuf, Error> {
        let path = self.path();
        std::path::absolute(path)
            .map_err(|e| Error::system(format!("find the folder {}", path.display()), e))
    }

    /// Its plan, which the executables share.
    #[must_use]
    pub const fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Reads an array file for the input `name`.
    ///
    /// # Errors
    ///
    /// [`Error::Run`] where the plan has no input of that name, what
    /// [`npy::read`] returns, and [`Error::File`] where the array is of another
    /// type or shape.
    pub fn read_input(&self, name: &str, file: &Path) -> Result<npy::Array, Error> {
        let input = self.plan.input(name);
        let input = input.ok_or_else(|| Error::run(format!("there is no input `{name}`")))?;
        let array = npy::read(file)?;
        read::check_input(input, array.elements.dtype(), &array.shape)
            .map_err(|reason| Error::file(file, reason))?;
        Ok(array)
    }

    /// What made it, in its own words.
    #[must_use]
    pub fn producer(&self) -> &str {
        &self.producer
    }

    /// Its recorded runs. They run in order on one instance.
    #[must_use]
    pub fn tests(&self) -> &[Test] {
        &self.tests
    }

    /// The lines of its `labels.txt`, the names of classes; empty without one.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// What it says of itself if it classifies pictures.
    #[must_use]
    pub const fn classifier(&self) -> Option<&Classifier> {
        self.classifier.as_ref()
    }

    /// How many of its kernels are compiled when it is loaded here: those of which it has no
    /// object that this CPU can run.
    #[must_use]
    pub fn kernels_to_compile(&self) -> usize {
        let sources = self.sources.iter();
        sources.filter(|s| s.precompiled().is_none()).count()
    }

    /// The object of kernel `kernel` of the plan, and where it came from: the one that
    /// [`load`](Self::load) would link, or another one that is asked for. It is compiled where
    /// neither the bundle nor the cache has it. No code of it runs.
    ///
    /// # Errors
    ///
    /// [`Error::Bundle`], whose source says why: there is no such kernel, it does not compile,
    /// or it has no source and no object that will do.
    pub fn object(
        &self,
        runtime: &Runtime,
        kernel: usize,
        wanted: &Wanted<'_>,
    ) -> Result<(Object, Origin), Error> {
        load::object(self, runtime, kernel, wanted).map_err(|e| in_bundle(self.path(), e))
    }

    /// The source of kernel `kernel` of the plan, if it has one.
    ///
    /// # Errors
    ///
    /// [`Error::Bundle`] where it cannot be read, or is in a language that cannot be compiled.
    pub fn source(&self, kernel: usize) -> Result<Option<Source>, Error> {
        let mut kernels = self.sources.iter().zip(self.plan.kernels());
        let Some((code, of_plan)) = kernels.nth(kernel) else {
            return Ok(None);
        };
        let source = self.folder().and_then(|f| code.source(&f, &of_plan.entry));
        source.map_err(|e| in_bundle(self.path(), e))
    }

    /// Of each kernel, whether the runtime's cache has its object and, if not, why.
    ///
    /// # Errors
    ///
    /// [`Error::Bundle`] where a source or the cache cannot be read.
    pub fn explain_cache(&self, runtime: &Runtime) -> Result<Vec<Explanation>, Error> {
        load::explain(self, runtime).map_err(|e| in_bundle(self.path(), e))
    }

    /// The file that kernel `kernel` of the plan is compiled from, if it has a
    /// source.
    #[must_use]
    pub fn source_file(&self, kernel: usize) -> Option<PathBuf> {
        self.sources.get(kernel)?.file()
    }
}

fn in_bundle(path: &Path, error: Error) -> Error {
    Error::Bundle {
        bundle: path.to_owned(),
        source: Box::new(error),
    }
}
