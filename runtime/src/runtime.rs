//! The runtime: a toolchain, its options, and the symbol list, in one handle.

mod builder;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use crate::Error;
use crate::compile::cache::{Cache, Explanation};
use crate::compile::cpu::CpuLevel;
use crate::compile::{self, Object, OptLevel, Options, Origin, Source, Toolchain};
use crate::dispatch::Kernel;
use crate::link::{Image, LoadOptions, ObjectFile, Observers, Resolver as _, Symbols};
use crate::memory::{BUFFER_ALIGN, Buffer, Guard};
use crate::pool::Pool;
use crate::signature::{DType, Signature};
pub use builder::RuntimeBuilder;

/// What kernels are compiled and linked with, how their memory lies, and the threads that
/// run them. There is no global state: two runtimes live side by side and share nothing. A
/// clone is the same runtime.
#[derive(Clone, Debug)]
pub struct Runtime {
    toolchain: Arc<Toolchain>,
    cache: Option<Arc<CacheFolder>>,
    options: Options,
    symbols: Arc<Symbols>,
    load: LoadOptions,
    guard: Guard,
    pool: Pool,
}

/// Where objects are kept: looked at when it is first needed.
#[derive(Debug)]
struct CacheFolder {
    folder: PathBuf,
    limit: u64,
    opened: OnceLock<Option<Cache>>,
}

impl CacheFolder {
    /// The cache; none, after one warning, where the folder is not to be used.
    fn get(&self) -> Option<&Cache> {
        let open = || match Cache::open(&self.folder, self.limit) {
            Ok(cache) => Some(cache),
            Err(error) => {
                tracing::warn!("nothing is kept for the next start: {error}");
                None
            }
        };
        self.opened.get_or_init(open).as_ref()
    }
}

impl Runtime {
    /// A runtime as the environment asks for it.
    ///
    /// # Errors
    ///
    /// As [`RuntimeBuilder::build`].
    pub fn new() -> Result<Runtime, Error> {
        RuntimeBuilder::from_env().build()
    }

    /// A builder that the environment has no say in.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::default()
    }

    /// The compilers that it uses.
    #[must_use]
    pub fn toolchain(&self) -> &Toolchain {
        &self.toolchain
    }

    /// How buffers are guarded: those of [`buffer`](Self::buffer), and those of
    /// the instances of every bundle that is loaded with this runtime.
    #[must_use]
    pub const fn guard(&self) -> Guard {
        self.guard
    }

    /// The threads that the runs of every bundle may have that is loaded with this runtime.
    /// They start with the first run that can use them, and end with the last
    /// handle to them: the runtime, executables and instances hold one each.
    #[must_use]
    pub const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// A buffer of `len` elements, all zero, guarded as the runtime is told.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`] where the system has not that much.
    pub fn buffer(&self, dtype: DType, len: usize) -> Result<Buffer, Error> {
        Buffer::guarded(dtype, len, BUFFER_ALIGN, self.guard)
    }

    /// The cache of objects; none where there is to be none, or its folder is not to be used.
    #[must_use]
    pub fn cache(&self) -> Option<&Cache> {
        self.cache.as_ref()?.get()
    }

    /// The folder of the cache, whether it can be used or not, and the bytes that it may take.
    pub(crate) fn cache_folder(&self) -> Option<(&Path, u64)> {
        let cache = self.cache.as_ref()?;
        Some((&cache.folder, cache.limit))
    }

    /// Opens what symbols are looked for in when they are first asked for: to be called where
    /// no file can be opened any more afterwards.
    pub(crate) fn open_symbols(&self) {
        let _ = self.symbols.resolve("_ZGVbN2v_sin");
    }

    /// Who is told of kernels.
    pub(crate) const fn observers(&self) -> Observers {
        self.load.observers
    }

    /// Compiles a source, unless the cache has its object.
    ///
    /// # Errors
    ///
    /// As [`compile::compile`](crate::compile::compile).
    pub fn compile(&self, source: &Source) -> Result<Object, Error> {
        let sources = std::slice::from_ref(source);
        let mut compiled = self.compile_all(sources, &|_, _| ());
        compiled
            .pop()
            .unwrap_or_else(|| compile::compile(&self.toolchain, source, &self.options))
    }

    /// Compiles many sources, in few processes and several at a time, unless the cache has
    /// their objects, and tells `done` of each, by its number, as it is ready, from any thread.
    ///
    /// # Errors
    ///
    /// For each source as [`compile`](Self::compile).
    pub fn compile_all(
        &self,
        sources: &[Source],
        done: &(dyn Fn(usize, Origin) + Sync),
    ) -> Vec<Result<Object, Error>> {
        self.compile_at(None, sources, done)
    }

    /// As [`compile_all`](Self::compile_all), at another level than the runtime's.
    pub(crate) fn compile_at(
        &self,
        level: Option<OptLevel>,
        sources: &[Source],
        done: &(dyn Fn(usize, Origin) + Sync),
    ) -> Vec<Result<Object, Error>> {
        let opt_level = level.unwrap_or(self.options.opt_level);
        let options = Options {
            opt_level,
            ..self.options.clone()
        };
        self.compile_with(&options, sources, done)
    }

    /// As [`compile_all`](Self::compile_all), for a level of CPUs instead of the one that the
    /// runtime compiles for. Not all levels run here.
    ///
    /// # Errors
    ///
    /// For each source as [`compile`](Self::compile).
    pub fn compile_all_for(
        &self,
        level: &CpuLevel,
        sources: &[Source],
        done: &(dyn Fn(usize, Origin) + Sync),
    ) -> Vec<Result<Object, Error>> {
        self.compile_with(&level.apply(&self.options), sources, done)
    }

    fn compile_with(
        &self,
        options: &Options,
        sources: &[Source],
        done: &(dyn Fn(usize, Origin) + Sync),
    ) -> Vec<Result<Object, Error>> {
        if sources.is_empty() {
            return Vec::new();
        }
        compile::compile_all(&self.toolchain, self.cache(), sources, options, done)
    }

    /// Compiles a source of C as this runtime does, with a table of the lines that code is of.
    /// Nothing of it is kept.
    pub(crate) fn compile_with_lines(&self, source: &Source) -> Result<Object, Error> {
        let mut options = self.options.clone();
        options.flags.push("-g1".to_owned());
        compile::compile(&self.toolchain, source, &options)
    }

    /// As [`compile_all`](Self::compile_all), until it is told to give up: what has not begun by
    /// then is an error.
    pub(crate) fn compile_until(
        &self,
        sources: &[Source],
        given_up: &AtomicBool,
    ) -> Vec<Result<Object, Error>> {
        let (toolchain, options) = (&self.toolchain, &self.options);
        compile::compile_until(
            toolchain,
            self.cache(),
            sources,
            options,
            given_up,
            &|_, _| (),
        )
    }

    /// Of each source, what the cache has of it.
    pub(crate) fn cached(&self, sources: &[Source]) -> Vec<Option<Object>> {
        match self.cache() {
            Some(cache) => compile::cached(&self.toolchain, cache, sources, &self.options),
            None => sources.iter().map(|_| None).collect(),
        }
    }

    /// Of each source, whether the cache has its object and, if not, why; or why it is not kept
    /// in a cache at all.
    ///
    /// # Errors
    ///
    /// [`Error::System`] where the cache cannot be read.
    pub fn explain(&self, sources: &[Source]) -> Result<Vec<Explanation>, Error> {
        let Some(cache) = self.cache() else {
            let none = || Explanation::NotKept("there is no cache".to_owned());
            return Ok(sources.iter().map(|_| none()).collect());
        };
        let (mut keys, mut whys) = (Vec::new(), Vec::new());
        for key in compile::keys(&self.toolchain, sources, &self.options) {
            whys.push(key.map(|key| keys.push(key)).err());
        }
        let mut explained = cache.explain(&keys)?.into_iter();
        let explain = |why: Option<String>| match why {
            Some(why) => Some(Explanation::NotKept(why)),
            None => explained.next(),
        };
        Ok(whys.into_iter().filter_map(explain).collect())
    }

    /// Links an object into a callable kernel.
    ///
    /// # Errors
    ///
    /// As [`ObjectFile::parse`], [`Image::load_with`] and [`Kernel::new`].
    ///
    /// # Safety
    ///
    /// The object's code must keep the contract of the signature, as the
    /// [`signature`](crate::signature) module states it; but for its own state, where
    /// [`RuntimeBuilder::admit_state`] admits it.
    pub unsafe fn link(&self, object: &Object, signature: Signature) -> Result<Kernel, Error> {
        let file = ObjectFile::parse(object.entry(), object.bytes())?;
        let image = Arc::new(Image::load_with(&file, &*self.symbols, self.load)?);
        // SAFETY: promised by the caller.
        unsafe { Kernel::new(object.entry(), image, signature) }
    }

    /// Links many objects into callable kernels at once, in their order. Their code shares
    /// memory, as [`Image::load_all`] says, which goes with the last of the kernels.
    ///
    /// # Errors
    ///
    /// As [`link`](Self::link) for each, of one that is at fault.
    ///
    /// # Safety
    ///
    /// As [`link`](Self::link), for each object and the signature beside it.
    pub unsafe fn link_all(&self, kernels: &[(&Object, &Signature)]) -> Result<Vec<Kernel>, Error> {
        let files = kernels
            .iter()
            .map(|(object, _)| ObjectFile::parse(object.entry(), object.bytes()));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        let images = Image::load_all(&files, &*self.symbols, self.load)?;
        let linked = kernels.iter().zip(images);
        linked
            .map(|(&(object, signature), image)| {
                // SAFETY: promised by the caller.
                unsafe { Kernel::new(object.entry(), Arc::new(image), signature.clone()) }
            })
            .collect()
    }

    /// Compiles a source and links it into a callable kernel.
    ///
    /// # Errors
    ///
    /// As [`compile`](Self::compile) and [`link`](Self::link).
    ///
    /// # Safety
    ///
    /// The source must keep the contract of the signature, as the
    /// [`signature`](crate::signature) module states it.
    pub unsafe fn load(&self, source: &Source, signature: Signature) -> Result<Kernel, Error> {
        let object = self.compile(source)?;
        // SAFETY: promised by the caller.
        unsafe { self.link(&object, signature) }
    }
}
