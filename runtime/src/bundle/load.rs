//! Kernels compiled and linked, weights mapped.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::Bundle;
use super::describe::Code;
use super::files::{read_bytes, read_text};
use super::schema::{RawLanguage, RawObject};
use super::tiers::Tiers;
use super::weights::{Tensor, Weights};
use crate::Error;
use crate::compile::cache::Explanation;
use crate::compile::cpu::CpuLevel;
use crate::compile::{Object, OptLevel, Origin, Source, cpu};
use crate::error::Place;
use crate::memory::{Buffer, Constant, Guard};
use crate::plan::{Executable, PlanBuffer, Role};
use crate::runtime::Runtime;
use crate::signature::DType;

/// A kernel that is ready.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// How many are, this one included.
    pub done: usize,
    /// How many there are.
    pub total: usize,
    /// Its entry.
    pub kernel: &'a str,
    /// Where its object came from.
    pub origin: Origin,
}

/// How a bundle is [loaded](Bundle::load_with).
#[derive(Clone, Copy)]
pub struct Load<'a> {
    /// Told of each kernel whose object is ready, from any thread.
    pub progress: &'a (dyn Fn(Progress<'_>) + Sync),
    /// Whether objects that the bundle carries are used, where this CPU can run one; kernels
    /// that have a source are compiled otherwise.
    pub carried: bool,
}

impl Default for Load<'_> {
    fn default() -> Self {
        Load {
            progress: &|_| (),
            carried: true,
        }
    }
}

impl fmt::Debug for Load<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load")
            .field("carried", &self.carried)
            .finish_non_exhaustive()
    }
}

/// Which object of a kernel is [asked for](Bundle::object).
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Whether one that the bundle carries will do; a kernel that has a source is compiled
    /// otherwise.
    pub carried: bool,
    /// The CPUs that it is for; without a level, this one, as the runtime compiles for it.
    pub level: Option<&'a CpuLevel>,
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        Wanted {
            carried: true,
            level: None,
        }
    }
}

/// What a kernel is made from.
#[derive(Debug)]
pub(super) struct KernelSource {
    /// The name in the plan, the file, and its language.
    text: Option<(String, PathBuf, RawLanguage)>,
    objects: Vec<Precompiled>,
}

/// An object that was compiled beforehand.
#[derive(Debug)]
pub(super) struct Precompiled {
    path: PathBuf,
    stated: RawObject,
    digest: [u8; 32],
    /// Whether its source has changed since.
    stale: bool,
}

impl Precompiled {
    /// Checks that the file has the digest that the plan says; `source` is that of the
    /// kernel's source, where there is one.
    pub(super) fn open(
        place: &Place,
        path: PathBuf,
        raw: &RawObject,
        source: Option<[u8; 32]>,
    ) -> Result<Self, Error> {
        let parse = |key, hex: &str| {
            parse_digest(hex)
                .ok_or_else(|| Error::plan(place.key(key), "it is not 64 hexadecimal digits"))
        };
        let made_from = raw.source_sha256.as_deref();
        let made_from = made_from
            .map(|hex| parse("source_sha256", hex))
            .transpose()?;
        let object = Precompiled {
            path,
            stated: raw.clone(),
            digest: parse("sha256", &raw.sha256)?,
            stale: source.is_some() && made_from.is_some() && source != made_from,
        };
        object
            .read()
            .map_err(|e| match e {
                Error::File { reason, .. } => Error::plan(place.key("sha256"), reason),
                other => other,
            })
            .map(|_| object)
    }

    fn read(&self) -> Result<Vec<u8>, Error> {
        let bytes = read_bytes(&self.path)?;
        if digest(&bytes) != self.digest {
            return Err(Error::file(
                &self.path,
                "the object's digest is not the one that the plan says",
            ));
        }
        Ok(bytes)
    }

    fn is_usable(&self) -> bool {
        !self.stale && cpu::runs_here(&self.stated.arch, &self.stated.features)
    }
}

/// Whether an object was compiled for just the CPUs of a level.
pub(super) fn is_for(stated: &RawObject, level: &CpuLevel) -> bool {
    let features: BTreeSet<_> = stated.features.iter().map(String::as_str).collect();
    let of_level: BTreeSet<_> = level.features().iter().copied().collect();
    stated.arch == level.arch() && features == of_level
}

pub(super) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn parse_digest(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if hex.len() != 2 * digest.len() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (i, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(digest)
}

impl KernelSource {
    pub(super) const fn new(
        text: Option<(String, PathBuf, RawLanguage)>,
        objects: Vec<Precompiled>,
    ) -> KernelSource {
        KernelSource { text, objects }
    }

    pub(super) fn file(&self) -> Option<PathBuf> {
        self.text.as_ref().map(|(_, path, _)| path.clone())
    }

    /// The same, as the plan states it.
    pub(super) fn code(&self) -> Code {
        let text = self.text.as_ref();
        Code {
            source: text.map(|(name, _, language)| (name.clone(), *language)),
            objects: self.objects.iter().map(|o| o.stated.clone()).collect(),
        }
    }

    /// The object that asks most of this CPU among those that it can run, and whose source
    /// has not changed since.
    pub(super) fn precompiled(&self) -> Option<&Precompiled> {
        let usable = self.objects.iter().filter(|o| o.is_usable());
        usable.max_by_key(|o| o.stated.features.len())
    }

    /// The object for a level of CPUs, whose source has not changed since.
    fn precompiled_for(&self, level: &CpuLevel) -> Option<&Precompiled> {
        let fresh = |o: &&Precompiled| !o.stale && is_for(&o.stated, level);
        self.objects.iter().find(fresh)
    }

    /// The source, where there is one. All files that it may include lie below the bundle's
    /// `folder`, which is absolute.
    pub(super) fn source(&self, folder: &Path, entry: &str) -> Result<Option<Source>, Error> {
        let Some((name, path, language)) = &self.text else {
            return Ok(None);
        };
        let source = match language {
            RawLanguage::C => {
                let below = Path::new(name).parent();
                let below = below.filter(|dir| *dir != Path::new(""));
                let dir = below.map_or_else(|| folder.to_owned(), |dir| folder.join(dir));
                let source = Source::c(entry, read_text(path)?).readable(folder);
                source.include_dir(dir)
            }
            RawLanguage::LlvmIr => Source::llvm_ir(entry, read_bytes(path)?),
            RawLanguage::Mlir => Source::mlir(entry, read_bytes(path)?),
        };
        Ok(Some(source.named(name)))
    }

    /// What is compiled where no object will do.
    fn to_compile(&self, folder: &Path, entry: &str) -> Result<Source, Error> {
        self.source(folder, entry)?.ok_or_else(|| {
            Error::file(
                self.objects.first().map_or(Path::new(""), |o| &o.path),
                format!(
                    "kernel `{entry}` has no source, and this CPU can run none of its {} objects",
                    self.objects.len()
                ),
            )
        })
    }
}

/// # Safety
///
/// As [`Bundle::load`].
pub(super) unsafe fn load(
    bundle: &Bundle,
    runtime: &Runtime,
    load: &Load<'_>,
) -> Result<Executable, Error> {
    let Tiers { objects, .. } = tiers(bundle, runtime, load, None)?;
    // SAFETY: promised by the caller.
    unsafe { link(bundle, runtime, &objects, contents(bundle)?, false) }
}

/// The object of each kernel: one that the bundle carries, or the cache has, or what its source
/// compiles to; at the level `quick`, where there is one, as long as there is nothing better.
pub(super) fn tiers(
    bundle: &Bundle,
    runtime: &Runtime,
    load: &Load<'_>,
    quick: Option<OptLevel>,
) -> Result<Tiers, Error> {
    let plan = bundle.plan.kernels();
    let done = AtomicUsize::new(0);
    let tell = |kernel: usize, origin| {
        (load.progress)(Progress {
            done: done.fetch_add(1, Ordering::Relaxed) + 1,
            total: plan.len(),
            kernel: &plan[kernel].entry,
            origin,
        });
    };
    let folder = bundle.folder()?;
    let mut objects = vec![None; plan.len()];
    let (mut kernels, mut sources) = (Vec::new(), Vec::new());
    for (i, (kernel, code)) in plan.iter().zip(&bundle.sources).enumerate() {
        let carried = code
            .precompiled()
            .filter(|_| load.carried || code.text.is_none());
        if let Some(carried) = carried {
            objects[i] = Some(Object::new(&kernel.entry, carried.read()?));
            tell(i, Origin::Carried);
        } else {
            sources.push(code.to_compile(&folder, &kernel.entry)?);
            kernels.push(i);
        }
    }
    let mut quickly = Vec::new();
    if quick.is_some() {
        let found = runtime.cached(&sources);
        let all = kernels.into_iter().zip(sources).zip(found);
        for ((kernel, source), found) in all {
            match found {
                Some(object) => {
                    objects[kernel] = Some(object);
                    tell(kernel, Origin::Cached);
                }
                None => quickly.push((kernel, source)),
            }
        }
        (kernels, sources) = quickly.iter().cloned().unzip();
    }
    let compiled = runtime.compile_at(quick, &sources, &|i, origin| tell(kernels[i], origin));
    for (&kernel, object) in kernels.iter().zip(compiled) {
        objects[kernel] = Some(object?);
    }
    Ok(Tiers {
        objects: objects.into_iter().flatten().collect(),
        quick: quickly,
    })
}

/// The object of one kernel, as [`Bundle::object`] says.
pub(super) fn object(
    bundle: &Bundle,
    runtime: &Runtime,
    kernel: usize,
    wanted: &Wanted<'_>,
) -> Result<(Object, Origin), Error> {
    let plan = bundle.plan.kernels();
    let (Some(of_plan), Some(code)) = (plan.get(kernel), bundle.sources.get(kernel)) else {
        let kernels = plan.len();
        return Err(Error::run(format!(
            "there is no kernel {kernel}; the plan has {kernels}, counted from 0"
        )));
    };
    let entry = &of_plan.entry;
    let carried = match wanted.level {
        None => code.precompiled(),
        Some(level) => code.precompiled_for(level),
    };
    if let Some(carried) = carried.filter(|_| wanted.carried || code.text.is_none()) {
        return Ok((Object::new(entry, carried.read()?), Origin::Carried));
    }
    let source = [code.to_compile(&bundle.folder()?, entry)?];
    let origin = Mutex::new(Origin::Compiled);
    let tell = |_, from| *origin.lock().unwrap_or_else(PoisonError::into_inner) = from;
    let mut compiled = match wanted.level {
        None => runtime.compile_all(&source, &tell),
        Some(level) => runtime.compile_all_for(level, &source, &tell),
    };
    let [source] = source;
    let object = compiled.pop().unwrap_or_else(|| runtime.compile(&source))?;
    let origin = origin.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((object, origin))
}

pub(super) fn explain(bundle: &Bundle, runtime: &Runtime) -> Result<Vec<Explanation>, Error> {
    let folder = bundle.folder()?;
    let kernels = bundle.plan.kernels().iter().zip(&bundle.sources);
    let sources = kernels.map(|(kernel, code)| match code.precompiled() {
        Some(_) => Ok(None),
        None => code.to_compile(&folder, &kernel.entry).map(Some),
    });
    let sources = sources.collect::<Result<Vec<_>, _>>()?;
    let compiled: Vec<Source> = sources.iter().flatten().cloned().collect();
    let mut explained = runtime.explain(&compiled)?.into_iter();
    let carried = "the bundle carries its object, so that it is not compiled";
    let explain = |source: &Option<Source>| match source {
        Some(_) => explained.next(),
        None => Some(Explanation::NotKept(carried.to_owned())),
    };
    Ok(sources.iter().filter_map(explain).collect())
}

/// The executable with these objects, and what [`contents`](fn@contents) says; `provisional` says
/// that better objects will come. No file is opened but those of observers that were asked for.
///
/// # Safety
///
/// As [`Bundle::load`].
pub(super) unsafe fn link(
    bundle: &Bundle,
    runtime: &Runtime,
    objects: &[Object],
    contents: Vec<(usize, Constant)>,
    provisional: bool,
) -> Result<Executable, Error> {
    let signatures = bundle.plan.kernels().iter().map(|k| &k.signature);
    let kernels: Vec<_> = objects.iter().zip(signatures).collect();
    // SAFETY: promised by the caller.
    let kernels = unsafe { runtime.link_all(&kernels) }?;
    // SAFETY: promised by the caller, for all that the plan does with them.
    let executable = unsafe { Executable::new_unchecked(bundle.plan.clone(), kernels, contents) }?;
    let executable = if provisional {
        executable.with_provisional_code()
    } else {
        executable
    };
    let pool = runtime.pool().clone();
    let learned = bundle.schedule(pool.threads());
    let executable = executable.with_pool(pool).with_guard(runtime.guard());
    match learned.filter(|_| runtime.guard() == Guard::Off) {
        Some(learned) => executable.with_learned(learned.clone()),
        None => Ok(executable),
    }
}

/// A copy of the contents, so that no file has to stay as it is.
pub(super) fn copied_contents(bundle: &Bundle) -> Result<Vec<(usize, Constant)>, Error> {
    let Some(weights) = &bundle.weights else {
        return Ok(Vec::new());
    };
    let bytes = read_bytes(weights.path())?;
    let buffers = bundle.tensors.iter().zip(bundle.plan.buffers());
    let copied = buffers.enumerate().filter_map(|(i, (tensor, buffer))| {
        let tensor = tensor.as_ref()?;
        let part = bytes.get(tensor.range.clone());
        let part = part.ok_or_else(|| {
            Error::file(weights.path(), "it has become shorter since it was checked")
        });
        let content = part.and_then(|part| {
            check_bools(weights, tensor, buffer, part)?;
            copy_of(part, buffer)
        });
        Some(content.map(|content| (i, content)))
    });
    copied.collect()
}

fn copy_of(bytes: &[u8], buffer: &PlanBuffer) -> Result<Constant, Error> {
    let mut copy = Buffer::with_align(DType::U8, bytes.len(), buffer.align)?;
    copy.as_mut_slice::<u8>()?.copy_from_slice(bytes);
    Ok(Constant::from(copy).with_dtype(buffer.dtype))
}

/// Whether a tensor that is taken for `bool` holds such.
fn check_bools(
    weights: &Weights,
    tensor: &Tensor,
    buffer: &PlanBuffer,
    bytes: &[u8],
) -> Result<(), Error> {
    if buffer.dtype == Some(DType::Bool)
        && let Some(at) = bytes.iter().position(|&b| b > 1)
    {
        return Err(Error::file(
            weights.path(),
            format!(
                "element {at} of the tensor `{}` is no bool, 0 or 1",
                tensor.name
            ),
        ));
    }
    Ok(())
}

/// What constants hold, and states at the start, by the buffer's number: of the file where it can
/// be used in place.
///
/// # Safety
///
/// As [`Bundle::load`].
pub(super) unsafe fn contents(bundle: &Bundle) -> Result<Vec<(usize, Constant)>, Error> {
    let Some(weights) = &bundle.weights else {
        return Ok(Vec::new());
    };
    // SAFETY: promised by the caller.
    let map = unsafe { weights.map() }?;
    let content = |tensor: &Tensor, buffer: &PlanBuffer| {
        let bytes = &map[tensor.range.clone()];
        check_bools(weights, tensor, buffer, bytes)?;
        // A state is copied at each reset, from wherever it lies.
        let aligned = bytes.as_ptr().addr().is_multiple_of(buffer.align);
        if buffer.role == Role::State || aligned {
            let mapped = Constant::mapped(map.clone(), tensor.range.clone(), buffer.dtype);
            return Ok(mapped);
        }
        copy_of(bytes, buffer)
    };
    let buffers = bundle.tensors.iter().zip(bundle.plan.buffers());
    let loaded = buffers.enumerate().filter_map(|(i, (tensor, buffer))| {
        let content = content(tensor.as_ref()?, buffer);
        Some(content.map(|content| (i, content)))
    });
    loaded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_done_with_objects_before_rights_are_gone() {
        let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits");
        let bundle = Bundle::open(digits).unwrap();
        let runtime = Runtime::new().unwrap();
        let kernels = bundle.plan.kernels();
        let no_objects: Vec<Object> = kernels
            .iter()
            .map(|kernel| Object::new(&kernel.entry, b"no object".to_vec()))
            .collect();
        let link = |before: Result<(), Error>| {
            // SAFETY: there is no code to run.
            unsafe { bundle.link(&runtime, &no_objects, || before) }.unwrap_err()
        };
        let text = |error: Error| format!("{error:?}");
        assert!(text(link(Err(Error::run("not yet")))).contains("not yet"));
        assert!(!text(link(Ok(()))).contains("not yet"));
    }

    #[test]
    fn a_digest_is_64_hexadecimal_digits() {
        assert_eq!(parse_digest(&"fF".repeat(32)), Some([0xff; 32]));
        assert_eq!(parse_digest(&"ff".repeat(31)), None);
        assert_eq!(parse_digest(&"+f".repeat(32)), None);
        assert_eq!(parse_digest(&"é".repeat(32)), None);
    }
}
