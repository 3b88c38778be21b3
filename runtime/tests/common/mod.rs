//! What the test crates share: the compilers of this machine, and C sources that
//! define many kernels at once, since starting a compiler is what takes time.

// Each test crate uses some of it.
#![allow(dead_code)]
// A helper of a test says what it expects by failing, as the test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use svod_runtime::compile::{CCompiler, Family, Toolchain};
use svod_runtime::link::{Image, LoadOptions, ObjectFile, Resolver, Symbols};
use svod_runtime::signature::DEFAULT_ALIGN;
use svod_runtime::{
    Buffer, DType, Element, Error, Guard, Kernel, Runtime, RuntimeBuilder, Signature, Source,
};

/// How the tests' memory is guarded: as `SVOD_GUARD` says. `cargo xtask test` runs
/// them all in each way.
pub(crate) fn guard() -> Guard {
    static GUARD: OnceLock<Guard> = OnceLock::new();
    *GUARD.get_or_init(|| RuntimeBuilder::from_env().build().unwrap().guard())
}

/// By what a test that repeats itself is to divide its repetitions: sanitizers make each of them slow,
/// and look at what the first of them do as well as at the last.
pub(crate) fn share() -> usize {
    let said = std::env::var("SVOD_TEST_SHARE").ok();
    said.and_then(|share| share.parse().ok())
        .unwrap_or(1)
        .max(1)
}

/// A buffer of zeros, guarded, and aligned to what a signature asks for that says
/// nothing, so that guards are close.
pub(crate) fn zeroed(dtype: DType, len: usize) -> Buffer {
    aligned(dtype, len, DEFAULT_ALIGN)
}

/// A buffer of zeros, guarded, and aligned to `align` bytes.
pub(crate) fn aligned(dtype: DType, len: usize, align: usize) -> Buffer {
    Buffer::guarded(dtype, len, align, guard()).unwrap()
}

/// A copy of a slice in a guarded buffer.
pub(crate) fn from_slice<T: Element>(elements: &[T]) -> Buffer {
    let mut buffer = zeroed(T::DTYPE, elements.len());
    buffer
        .as_mut_slice::<T>()
        .unwrap()
        .copy_from_slice(elements);
    buffer
}

/// The newest clang and the gcc of this machine, or the one of them that it has.
pub(crate) fn compilers() -> Vec<CCompiler> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<CCompiler> = Vec::new();
    for name in [None, Some("gcc"), Some("cc")] {
        let toolchain = Toolchain::new(name.map(PathBuf::from), path.clone());
        if let Ok(compiler) = toolchain.c_compiler("a test")
            && found.iter().all(|f| f.family != compiler.family)
        {
            found.push(compiler.clone());
        }
    }
    assert!(!found.is_empty(), "these tests need a C compiler in PATH");
    found
}

/// Every `clang-N` of this machine, and its gcc.
pub(crate) fn every_compiler() -> Vec<CCompiler> {
    let mut found = compilers();
    let path = std::env::var_os("PATH").unwrap_or_default();
    for dir in std::env::split_paths(&path) {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name.to_str().and_then(|n| n.strip_prefix("clang-"));
            if let Some(major) = version.and_then(|v| v.parse().ok())
                && found
                    .iter()
                    .all(|f| f.major != major || f.family != Family::Clang)
            {
                found.push(CCompiler {
                    path: entry.path(),
                    family: Family::Clang,
                    major,
                });
            }
        }
    }
    found
}

/// The compiler of one family; `None`, said aloud, where this machine has none.
pub(crate) fn compiler_of(family: Family) -> Option<CCompiler> {
    let found = compilers().into_iter().find(|c| c.family == family);
    if found.is_none() {
        eprintln!("skipped: this machine has no {family:?}");
    }
    found
}

/// A runtime's builder for one compiler.
pub(crate) fn with(compiler: &CCompiler) -> RuntimeBuilder {
    Runtime::builder().cc(&compiler.path).guard(guard())
}

/// The object file of a C source.
pub(crate) fn object(builder: RuntimeBuilder, text: &str) -> Vec<u8> {
    let runtime = builder.build().unwrap();
    match runtime.compile(&Source::c("k", text)) {
        Ok(object) => object.bytes().to_vec(),
        Err(error) => panic!("{error}"),
    }
}

/// An object file, linked into memory with the runtime's own symbols.
pub(crate) fn load(bytes: &[u8]) -> Result<Arc<Image>, Error> {
    load_with(bytes, &Symbols::default())
}

/// An object file, linked into memory.
pub(crate) fn load_with(bytes: &[u8], symbols: &dyn Resolver) -> Result<Arc<Image>, Error> {
    Image::load(&ObjectFile::parse("k", bytes)?, symbols).map(Arc::new)
}

/// The function `name` of an image as a kernel.
///
/// # Safety
///
/// As [`Kernel::new`].
pub(crate) unsafe fn kernel(image: &Arc<Image>, name: &str, signature: Signature) -> Kernel {
    // SAFETY: promised by the caller.
    unsafe { Kernel::new(name, image.clone(), signature) }.unwrap()
}

/// Numbers that look random and are the same each time (SplitMix64).
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// The compilers that are furthest apart among those of this machine: the oldest and the
/// newest clang and gcc; all clangs and gcc where `SVOD_TEST_ALL_COMPILERS` is set.
pub(crate) fn compiler_range() -> Vec<CCompiler> {
    let (mut range, others): (Vec<_>, Vec<_>) = every_compiler()
        .into_iter()
        .partition(|c| c.family == Family::Clang);
    range.sort_by_key(|c| c.major);
    if std::env::var_os("SVOD_TEST_ALL_COMPILERS").is_none() && range.len() > 2 {
        range.drain(1..range.len() - 1);
    }
    range.extend(others);
    range
}

/// Does work in order of `items` on two threads: it is compilers that take the time.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(usize, &T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let i = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(item) = items.get(i)
                {
                    let result = work(i, item);
                    results.lock().unwrap().push((i, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Says aloud that a test was skipped; a failure where `SVOD_TEST_NO_SKIP` is set, as it
/// is where everything that tests need has been installed.
pub(crate) fn skip(why: &str) {
    assert!(
        std::env::var_os("SVOD_TEST_NO_SKIP").is_none(),
        "not to be skipped: {why}"
    );
    eprintln!("skipped: {why}");
}

/// An object file, linked into memory with the runtime's own symbols, its state admitted.
pub(crate) fn load_state(bytes: &[u8]) -> Result<Arc<Image>, Error> {
    let file = ObjectFile::parse("k", bytes)?;
    let options = LoadOptions {
        admit_state: true,
        ..LoadOptions::default()
    };
    Image::load_with(&file, &Symbols::default(), options).map(Arc::new)
}
