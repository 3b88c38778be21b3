//! Source to object: one kernel, one relocatable object.
//!
//! C goes through a C compiler as a process. Its standard input and its standard
//! output are anonymous files in memory that hold the source and take the object,
//! so that nothing is left on disk when the process is interrupted, and a full disk
//! stops nothing.
//!
//! LLVM IR in process, MLIR, which becomes LLVM IR, and the object cache join here, behind the
//! same two types: a [`Source`] goes in, an [`Object`] comes out.

mod batch;
mod c;
pub mod cache;
mod confined;
pub mod cpu;
mod identity;
mod keys;
mod lexer;
mod llvm;
mod many;
mod merge;
mod mlir;
mod probe;
mod process;
mod split;
mod toolchain;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use llvm::Llvm;
pub use many::compile_all;
pub(crate) use many::{cached, compile_until, keys};
pub use mlir::Mlir;
pub use probe::Abilities;
pub(crate) use probe::{Ailment, probe};
pub use toolchain::{CCompiler, Family, Toolchain};

use crate::Error;
use crate::confine::Confinement;

/// What a source is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Language {
    /// Freestanding C.
    C,
    /// LLVM IR with opaque pointers, as text or as bitcode.
    LlvmIr,
    /// MLIR, as text or as bytecode.
    Mlir,
}

/// A kernel's source.
#[derive(Clone, Debug)]
pub struct Source {
    entry: String,
    contents: Vec<u8>,
    language: Language,
    name: String,
    include_dir: Option<PathBuf>,
    readable: Option<PathBuf>,
}

impl Source {
    /// C text that defines the function `entry`.
    #[must_use]
    pub fn c(entry: impl Into<String>, text: impl Into<String>) -> Source {
        let entry = entry.into();
        let name = format!("{entry}.c");
        Source::new(entry, name, text.into().into_bytes(), Language::C)
    }

    /// LLVM IR, as text or as bitcode, that defines the function `entry`.
    #[must_use]
    pub fn llvm_ir(entry: impl Into<String>, contents: impl Into<Vec<u8>>) -> Source {
        let entry = entry.into();
        let name = format!("{entry}.ll");
        Source::new(entry, name, contents.into(), Language::LlvmIr)
    }

    /// MLIR, as text or as bytecode, that defines the function `entry`, as a `func.func` or as
    /// an `llvm.func`.
    ///
    /// The passes take modules of the dialects `func`, `arith`, `math`, `index`, `cf`, `scf`,
    /// `affine`, `memref`, `vector`, `llvm` and `ub`, and `linalg` on memrefs. An argument that
    /// is a memref has a static shape, and is a pointer to its first element, as C has it;
    /// strides are the caller's to keep. Other arguments are pointers, integers, `index`, which
    /// is an `i64`, and floating-point numbers. A function that is not called from outside has
    /// memrefs of static shape as well.
    #[must_use]
    pub fn mlir(entry: impl Into<String>, contents: impl Into<Vec<u8>>) -> Source {
        let entry = entry.into();
        let name = format!("{entry}.mlir");
        Source::new(entry, name, contents.into(), Language::Mlir)
    }

    const fn new(entry: String, name: String, contents: Vec<u8>, language: Language) -> Source {
        Source {
            entry,
            contents,
            language,
            name,
            include_dir: None,
            readable: None,
        }
    }

    /// The file name that diagnostics show; `entry.c`, `entry.ll` or `entry.mlir` where this is
    /// not called.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Source {
        self.name = name.into();
        self
    }

    /// The folder in which `#include "…"` looks first; `/` where this is not
    /// called.
    #[must_use]
    pub fn include_dir(mut self, dir: impl Into<PathBuf>) -> Source {
        self.include_dir = Some(dir.into());
        self
    }

    /// The folder below which a [confined](crate::confine) compiler may read, for this source;
    /// that of `#include "…"` where this is not called.
    #[must_use]
    pub fn readable(mut self, folder: impl Into<PathBuf>) -> Source {
        self.readable = Some(folder.into());
        self
    }

    /// The name of the function to call.
    #[must_use]
    pub fn entry(&self) -> &str {
        &self.entry
    }

    /// The text, or the bitcode, or the bytecode.
    #[must_use]
    pub fn contents(&self) -> &[u8] {
        &self.contents
    }

    /// The folder of `#include "…"`, where one was named.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.include_dir.as_deref()
    }

    /// The folder below which a confined compiler may read, where there is one.
    fn readable_folder(&self) -> Option<&Path> {
        self.readable.as_deref().or_else(|| self.folder())
    }

    /// The language.
    #[must_use]
    pub const fn language(&self) -> Language {
        self.language
    }
}

/// A relocatable object that defines a kernel's entry.
#[derive(Clone, Debug)]
pub struct Object {
    entry: String,
    bytes: Vec<u8>,
}

impl Object {
    /// The bytes of an object file that defines the function `entry`. They are
    /// looked at when the object is linked.
    #[must_use]
    pub fn new(entry: impl Into<String>, bytes: Vec<u8>) -> Object {
        Object {
            entry: entry.into(),
            bytes,
        }
    }

    /// The name of the function to call.
    #[must_use]
    pub fn entry(&self) -> &str {
        &self.entry
    }

    /// The file's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// How hard a compiler tries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OptLevel {
    /// `-O0`
    O0,
    /// `-O1`
    O1,
    /// `-O2`
    #[default]
    O2,
    /// `-O3`
    O3,
}

impl OptLevel {
    /// Every level.
    pub const ALL: [OptLevel; 4] = [OptLevel::O0, OptLevel::O1, OptLevel::O2, OptLevel::O3];

    /// The flag, as compilers take it: `-O0` to `-O3`.
    #[must_use]
    pub const fn flag(self) -> &'static str {
        match self {
            OptLevel::O0 => "-O0",
            OptLevel::O1 => "-O1",
            OptLevel::O2 => "-O2",
            OptLevel::O3 => "-O3",
        }
    }
}

/// What is asked of a compiler, beside the source.
#[derive(Clone, Debug)]
pub struct Options {
    /// The optimisation level.
    pub opt_level: OptLevel,
    /// The CPU to tune for, as `-march` names it; `native` is this one.
    pub target_cpu: String,
    /// The triple of the machine to compile for; this one where there is none. clang and
    /// libLLVM compile for others, gcc for one alone.
    pub target: Option<String>,
    /// Further flags, after all others, so that they win. Compilers run in the folder
    /// of the source: paths in flags are to be absolute.
    pub flags: Vec<String>,
    /// How compilers are confined; not at all where there is none. LLVM IR is compiled by a
    /// clang then, and not in this process, as nobody knows what comes of an error of LLVM's.
    pub confinement: Option<Arc<Confinement>>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            opt_level: OptLevel::default(),
            target_cpu: "native".into(),
            target: None,
            flags: Vec::new(),
            confinement: None,
        }
    }
}

/// Where an object came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// It was compiled now.
    Compiled,
    /// It was compiled before, and the cache had it.
    Cached,
    /// The bundle carried it.
    Carried,
}

/// Compiles one source.
///
/// # Errors
///
/// [`Error::NoCompiler`] and [`Error::BadCompiler`] where there is no compiler
/// to use; [`Error::Compile`], with the compiler's diagnostics, where the
/// source does not compile.
pub fn compile(toolchain: &Toolchain, source: &Source, options: &Options) -> Result<Object, Error> {
    let bytes = compile_alone(toolchain, source, options)?;
    Ok(Object::new(&source.entry, bytes))
}

fn compile_alone(
    toolchain: &Toolchain,
    source: &Source,
    options: &Options,
) -> Result<Vec<u8>, Error> {
    let bytes = match source.language {
        Language::C => c::compile(toolchain.c_compiler(&source.entry)?, source, options)?,
        Language::LlvmIr => compile_ir(toolchain, source, options, None)?,
        Language::Mlir => compile_mlir(toolchain, source, options)?,
    };
    tracing::debug!(kernel = source.entry, bytes = bytes.len(), "compiled");
    Ok(bytes)
}

fn compile_mlir(
    toolchain: &Toolchain,
    source: &Source,
    options: &Options,
) -> Result<Vec<u8>, Error> {
    let mlir = toolchain.mlir().map_err(|why| Error::NoMlir {
        kernel: source.entry.clone(),
        reason: why.to_owned(),
    })?;
    let ir = mlir.lower(source, options.confinement.as_deref())?;
    compile_lowered(toolchain, source, ir, options)
}

/// Compiles the LLVM IR that a source of MLIR was lowered to.
fn compile_lowered(
    toolchain: &Toolchain,
    source: &Source,
    ir: Vec<u8>,
    options: &Options,
) -> Result<Vec<u8>, Error> {
    let name = format!("{}.ll", source.name);
    let ir = Source::llvm_ir(&source.entry, ir).named(name);
    let made_by = toolchain.mlir().ok().map(Mlir::version);
    compile_ir(toolchain, &ir, options, made_by)
}

/// Whether LLVM IR is compiled in this process: not where that cannot be, or is to be confined, and
/// not where it was made by a later version and a clang is there that knows it, unless the library
/// was named.
fn in_process(toolchain: &Toolchain, options: &Options, made_by: Option<u32>) -> bool {
    if options.confinement.is_some() {
        return false;
    }
    let made_by = made_by.unwrap_or(0);
    let is_known = |llvm: &Llvm| {
        let clang = || {
            toolchain
                .c_compiler("")
                .ok()
                .filter(|c| c.family == Family::Clang)
        };
        made_by <= llvm.version()
            || toolchain.names_llvm()
            || clang().is_none_or(|clang| clang.major < made_by)
    };
    Llvm::takes(options) && toolchain.llvm().is_ok_and(is_known)
}

/// In this process where that can be, by clang otherwise. Who made it, of which version of
/// LLVM's, may know more than who compiles it.
fn compile_ir(
    toolchain: &Toolchain,
    source: &Source,
    options: &Options,
    made_by: Option<u32>,
) -> Result<Vec<u8>, Error> {
    let none = match toolchain.llvm() {
        _ if options.confinement.is_some() => CONFINED,
        Ok(llvm) if in_process(toolchain, options, made_by) => {
            match llvm.compile(source, options) {
                Ok(object) => return Ok(object),
                Err(llvm::Failure::Diagnostics(diagnostics)) => {
                    return Err(Error::Compile {
                        kernel: source.entry.clone(),
                        compiler: llvm.path().to_owned(),
                        diagnostics,
                        hint: too_old(llvm.version(), made_by),
                    });
                }
                Err(llvm::Failure::Elsewhere) => ELSEWHERE,
            }
        }
        Ok(_) => ELSEWHERE,
        Err(why) if toolchain.names_llvm() => {
            return Err(Error::NoLlvm {
                kernel: source.entry.clone(),
                reason: why.to_owned(),
            });
        }
        Err(why) => why,
    };
    match toolchain.c_compiler(&source.entry) {
        Ok(compiler) if compiler.family == Family::Clang => {
            let hint = too_old(compiler.major, made_by);
            c::compile_ir(compiler, source, options, hint)
        }
        _ => Err(Error::NoLlvm {
            kernel: source.entry.clone(),
            reason: none.to_owned(),
        }),
    }
}

const CONFINED: &str = "where compilers are confined, clang compiles it";
const ELSEWHERE: &str = "with these flags, or for this CPU, clang compiles it";

/// What to do where the one who compiles is older than who made the IR.
fn too_old(version: u32, made_by: Option<u32>) -> Option<String> {
    let made_by = made_by.filter(|&made_by| version < made_by)?;
    Some(format!(
        "the IR was made by MLIR {made_by}, and LLVM {version} may not know all of it: install \
         libllvm{made_by} or clang-{made_by}, or a later one, or name one in SVOD_LLVM or SVOD_CC"
    ))
}
