//! Bundles that carry objects, compiled ahead of time.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};

use super::Bundle;
use super::load::{Progress, is_for};
use super::names::Names;
use super::publish::{Content, Parts, check_free};
use super::schema::{RawKernel, RawObject};
use super::write::{hex, not_written};
use crate::Error;
use crate::compile::cpu::CpuLevel;
use crate::compile::{Object, Source};
use crate::link::ObjectFile;
use crate::runtime::Runtime;

/// The objects of one level, by kernel, with the digest of what each was compiled from.
struct Level<'a> {
    level: &'a CpuLevel,
    objects: Vec<(usize, Object, String)>,
}

impl Bundle {
    /// Writes the bundle anew, as [`write`](Self::write) does, with an object of each kernel
    /// for each of the levels beside its source. It starts without a compiler wherever the
    /// CPU can run one of them, and is compiled elsewhere. Objects that it carries for the
    /// same features are replaced, others are kept; so are all of kernels without a source.
    ///
    /// `progress` is told of each object as it is ready, from any thread.
    ///
    /// # Errors
    ///
    /// [`Error::WriteBundle`], whose source says why: a kernel that does not compile for one
    /// of the levels, or keeps state; and as [`write`](Self::write).
    pub fn write_compiled(
        &self,
        path: impl AsRef<Path>,
        runtime: &Runtime,
        levels: &[CpuLevel],
        progress: &(dyn Fn(Progress<'_>) + Sync),
    ) -> Result<(), Error> {
        let path = path.as_ref();
        let written = || {
            check_free(path)?;
            let compiled = self.compile_ahead(runtime, levels, progress)?;
            let mut parts = self.parts()?;
            add_objects(&mut parts, &compiled);
            parts.publish(path)
        };
        written().map_err(|e| not_written(path, e))
    }

    fn compile_ahead<'l>(
        &self,
        runtime: &Runtime,
        levels: &'l [CpuLevel],
        progress: &(dyn Fn(Progress<'_>) + Sync),
    ) -> Result<Vec<Level<'l>>, Error> {
        let folder = self.folder()?;
        let mut kernels = Vec::new();
        let mut sources: Vec<Source> = Vec::new();
        for (i, (kernel, code)) in self.plan.kernels().iter().zip(&self.sources).enumerate() {
            if let Some(source) = code.source(&folder, &kernel.entry)? {
                kernels.push(i);
                sources.push(source);
            }
        }
        let (done, total) = (AtomicUsize::new(0), sources.len() * levels.len());
        let level = |level| {
            let tell = |i: usize, origin| {
                progress(Progress {
                    done: done.fetch_add(1, Ordering::Relaxed) + 1,
                    total,
                    kernel: sources[i].entry(),
                    origin,
                });
            };
            let mut objects = Vec::new();
            let compiled = runtime.compile_all_for(level, &sources, &tell);
            for ((&kernel, source), object) in kernels.iter().zip(&sources).zip(compiled) {
                let object = object?;
                // Sooner an error here than where it is loaded.
                ObjectFile::parse(object.entry(), object.bytes())?.check_stateless()?;
                objects.push((kernel, object, hex(&Sha256::digest(source.contents()))));
            }
            Ok(Level { level, objects })
        };
        levels.iter().map(level).collect()
    }
}

/// Puts the objects into a bundle that is to be written, in the place of those that are for
/// the same CPUs.
fn add_objects<'a>(parts: &mut Parts<'a>, levels: &'a [Level<'_>]) {
    let kernels = &mut parts.plan.kernels;
    let before = files_named(kernels);
    for kernel in kernels.iter_mut().filter(|k| k.source.is_some()) {
        let replaced = |old: &RawObject| levels.iter().any(|l| is_for(old, l.level));
        kernel.objects.retain(|old| !replaced(old));
    }
    let still = files_named(kernels);
    let mut taken = Names::default();
    parts.files.retain(|(path, _)| {
        let name = path.to_string_lossy();
        let kept = !before.contains(&*name) || still.contains(&*name);
        if kept {
            taken.unique(name.strip_suffix(".o").unwrap_or(&name));
        }
        kept
    });
    for Level { level, objects } in levels {
        for (kernel, object, source) in objects {
            let kernel = &mut kernels[*kernel];
            // Two levels may be the same.
            if kernel.objects.iter().any(|old| is_for(old, level)) {
                continue;
            }
            let file = Names::default().file(&format!("{}.{}", kernel.entry, level.name()));
            let path = format!("{}.o", taken.unique(&format!("kernels/{file}")));
            let bytes = object.bytes();
            kernel.objects.push(RawObject {
                path: path.clone(),
                arch: level.arch().to_owned(),
                features: level.features().iter().map(|&f| f.to_owned()).collect(),
                sha256: hex(&Sha256::digest(bytes)),
                source_sha256: Some(source.clone()),
            });
            parts
                .files
                .push((path.into(), Content::Bytes(bytes.into())));
        }
    }
}

fn files_named(kernels: &[RawKernel]) -> HashSet<String> {
    let objects = kernels.iter().flat_map(|k| &k.objects);
    objects.map(|o| o.path.clone()).collect()
}
