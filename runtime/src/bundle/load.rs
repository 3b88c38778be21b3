//! Kernels compiled and linked, weights mapped.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sha2::{Digest, Sha256};

use super::Bundle;
use super::describe::Code;
use super::files::{read_bytes, read_text};
use super::schema::{RawLanguage, RawObject};
use super::weights::Tensor;
use crate::Error;
use crate::compile::{Object, Source, cpu};
use crate::dispatch::Kernel;
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
}

impl Precompiled {
    /// Checks that the file has the digest that the plan says.
    pub(super) fn open(place: &Place, path: PathBuf, raw: &RawObject) -> Result<Self, Error> {
        let digest = parse_digest(&raw.sha256)
            .ok_or_else(|| Error::plan(place.key("sha256"), "it is not 64 hexadecimal digits"))?;
        let object = Precompiled {
            path,
            stated: raw.clone(),
            digest,
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
        if <[u8; 32]>::from(Sha256::digest(&bytes)) != self.digest {
            return Err(Error::file(
                &self.path,
                "the object's digest is not the one that the plan says",
            ));
        }
        Ok(bytes)
    }

    fn runs_here(&self) -> bool {
        self.stated.arch == std::env::consts::ARCH
            && self.stated.features.iter().all(|f| cpu::has(f))
    }
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

    /// The object that asks most of this CPU among those that it can run.
    pub(super) fn precompiled(&self) -> Option<&Precompiled> {
        let usable = self.objects.iter().filter(|o| o.runs_here());
        usable.max_by_key(|o| o.stated.features.len())
    }

    /// That object, or what the source compiles to.
    fn object(&self, runtime: &Runtime, entry: &str) -> Result<Object, Error> {
        if let Some(best) = self.precompiled() {
            return Ok(Object::new(entry, best.read()?));
        }
        let Some((name, path, language)) = &self.text else {
            return Err(Error::file(
                self.objects.first().map_or(Path::new(""), |o| &o.path),
                format!(
                    "kernel `{entry}` has no source, and this CPU can run none of its {} objects",
                    self.objects.len()
                ),
            ));
        };
        let source = match language {
            RawLanguage::C => {
                let dir = path.parent().unwrap_or(path).canonicalize();
                let dir = dir.map_err(|e| {
                    Error::system(format!("find the folder of {}", path.display()), e)
                })?;
                Source::c(entry, read_text(path)?).include_dir(dir)
            }
            RawLanguage::LlvmIr => Source::llvm_ir(entry, read_bytes(path)?),
            RawLanguage::Mlir => {
                return Err(Error::Language {
                    kernel: entry.to_owned(),
                    language: language.name().to_owned(),
                });
            }
        };
        runtime.compile(&source.named(name))
    }
}

/// # Safety
///
/// As [`Bundle::load`].
pub(super) unsafe fn load(
    bundle: &Bundle,
    runtime: &Runtime,
    progress: &(dyn Fn(Progress<'_>) + Sync),
) -> Result<Executable, Error> {
    // SAFETY: promised by the caller.
    let kernels = unsafe { kernels(bundle, runtime, progress) }?;
    // SAFETY: promised by the caller.
    let contents = unsafe { contents(bundle) }?;
    // SAFETY: promised by the caller, for all that the plan does with them.
    let executable = unsafe { Executable::new_unchecked(bundle.plan.clone(), kernels, contents) }?;
    let pool = runtime.pool().clone();
    let learned = bundle.schedule(pool.threads());
    let executable = executable.with_pool(pool).with_guard(runtime.guard());
    match learned.filter(|_| runtime.guard() == Guard::Off) {
        Some(learned) => executable.with_learned(learned.clone()),
        None => Ok(executable),
    }
}

/// Compiles on as many threads as there are cores: nearly all of the time goes to
/// starting compilers. Then links all at once.
///
/// # Safety
///
/// As [`Bundle::load`].
unsafe fn kernels(
    bundle: &Bundle,
    runtime: &Runtime,
    progress: &(dyn Fn(Progress<'_>) + Sync),
) -> Result<Vec<Kernel>, Error> {
    let plan = bundle.plan.kernels();
    let (next, done, failed) = (
        AtomicUsize::new(0),
        AtomicUsize::new(0),
        AtomicBool::new(false),
    );
    let results: Vec<_> = plan.iter().map(|_| Mutex::new(None)).collect();
    let one = |i: usize| bundle.sources[i].object(runtime, &plan[i].entry);
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(slot) = results.get(i) else { break };
            let result = one(i);
            if result.is_err() {
                failed.store(true, Ordering::Relaxed);
            } else {
                progress(Progress {
                    done: done.fetch_add(1, Ordering::Relaxed) + 1,
                    total: plan.len(),
                    kernel: &plan[i].entry,
                });
            }
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 1..threads.min(plan.len()) {
            // Where the system has no more threads, this one does the work.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    // Kernels are claimed in order, so that before the first error all are done.
    let objects = results
        .into_iter()
        .map_while(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner))
        .collect::<Result<Vec<Object>, Error>>()?;
    let signatures = plan.iter().map(|kernel| &kernel.signature);
    let kernels: Vec<_> = objects.iter().zip(signatures).collect();
    // SAFETY: promised by the caller.
    unsafe { runtime.link_all(&kernels) }
}

/// # Safety
///
/// As [`Bundle::load`].
unsafe fn contents(bundle: &Bundle) -> Result<Vec<(usize, Constant)>, Error> {
    let Some(weights) = &bundle.weights else {
        return Ok(Vec::new());
    };
    // SAFETY: promised by the caller.
    let map = unsafe { weights.map() }?;
    let content = |tensor: &Tensor, buffer: &PlanBuffer| {
        let bytes = &map[tensor.range.clone()];
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
        // A state is copied at each reset, from wherever it lies.
        let aligned = bytes.as_ptr().addr().is_multiple_of(buffer.align);
        if buffer.role == Role::State || aligned {
            let mapped = Constant::mapped(map.clone(), tensor.range.clone(), buffer.dtype);
            return Ok(mapped);
        }
        let mut copy = Buffer::with_align(DType::U8, bytes.len(), buffer.align)?;
        copy.as_mut_slice::<u8>()?.copy_from_slice(bytes);
        Ok(Constant::from(copy).with_dtype(buffer.dtype))
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
    fn a_digest_is_64_hexadecimal_digits() {
        assert_eq!(parse_digest(&"fF".repeat(32)), Some([0xff; 32]));
        assert_eq!(parse_digest(&"ff".repeat(31)), None);
        assert_eq!(parse_digest(&"+f".repeat(32)), None);
        assert_eq!(parse_digest(&"é".repeat(32)), None);
    }
}
