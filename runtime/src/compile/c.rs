//! One translation unit of C through one compiler process.

use std::path::Path;

use super::process::{self, Process};
use super::{CCompiler, Family, Options, Source, confined};
use crate::Error;

/// What every kernel is compiled with.
///
/// No libc may be assumed (`-ffreestanding`), code may land anywhere
/// (`-fPIC`) and is never seen from outside its object (`-fvisibility`), libm
/// does not set `errno`. Unwind tables, stack protectors and note sections
/// have no reader here.
const FLAGS: &[&str] = &[
    "-c",
    "-pipe",
    "-ffreestanding",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-asynchronous-unwind-tables",
    "-fno-stack-protector",
    "-fno-ident",
];

/// What only gcc needs. It contracts `a * b + c` at some levels and not at others;
/// without contraction all its levels give the same bits. And it passes over an
/// attribute that it does not know with a warning: clang's `ext_vector_type` would
/// be lost, and a vector become a number.
const GCC_FLAGS: &[&str] = &["-ffp-contract=off", "-Werror=attributes"];

/// What only clang needs, from the version on that has such files: it would read flags from
/// files of the system's or the user's.
const CLANG_FLAGS: &[&str] = &["--no-default-config"];
const CLANG_READS_FILES: u32 = 16;

/// What a compiler process is given.
pub(super) struct Unit<'a> {
    /// What errors of the system say that was being compiled.
    pub(super) what: &'a str,
    /// The text, in pieces.
    pub(super) text: &'a [&'a [u8]],
    /// The folder in which the compiler runs. A source that comes by standard input lies,
    /// to a compiler, in the current folder, and that is where it looks for what is
    /// included.
    pub(super) dir: &'a Path,
    /// The folder below which a confined compiler may read.
    pub(super) readable: Option<&'a Path>,
    /// What it is written in, as `-x` takes it.
    pub(super) language: &'a str,
    /// Flags of this unit, before those of the options.
    pub(super) flags: &'a [&'a str],
}

/// Why there is no object.
pub(super) enum Failure {
    /// The compiler said so.
    Diagnostics(String),
    /// It was not asked, or did not answer.
    Error(Error),
}

/// The flags that follow from the compiler and the options, as the compiler takes them.
pub(super) fn flags(compiler: &CCompiler, options: &Options) -> Vec<String> {
    let mut flags: Vec<String> = FLAGS.iter().map(|&f| f.to_owned()).collect();
    if let Some(target) = &options.target {
        flags.push(format!("--target={target}"));
    }
    flags.push(options.opt_level.flag().to_owned());
    flags.push(format!("-march={}", options.target_cpu));
    let of_family = match compiler.family {
        Family::Gcc => GCC_FLAGS,
        Family::Clang if compiler.major >= CLANG_READS_FILES => CLANG_FLAGS,
        Family::Clang => &[],
    };
    flags.extend(of_family.iter().map(|&f| f.to_owned()));
    flags.extend(options.flags.iter().cloned());
    flags
}

/// Compiles one source as a unit of its own.
pub(super) fn compile(
    compiler: &CCompiler,
    source: &Source,
    options: &Options,
) -> Result<Vec<u8>, Error> {
    let line = format!("# 1 \"{}\"\n", quoted(&source.name));
    let unit = Unit {
        what: &format!("kernel `{}`", source.entry),
        text: &[line.as_bytes(), &source.contents, b"\n"],
        dir: source.include_dir.as_deref().unwrap_or(Path::new("/")),
        readable: source.readable_folder(),
        language: "c",
        flags: &[],
    };
    let compiled = compile_unit(compiler, &unit, options);
    let hint =
        |said: &str| confined::hint(options, source, said).or_else(|| hint(compiler, source, said));
    compiled.map_err(|failure| failure.of(compiler, source, hint))
}

/// Compiles LLVM IR, which clang does. Where it does not, `hint` says what to do.
pub(super) fn compile_ir(
    compiler: &CCompiler,
    source: &Source,
    options: &Options,
    hint: Option<String>,
) -> Result<Vec<u8>, Error> {
    let unit = Unit {
        what: &format!("kernel `{}`", source.entry),
        text: &[&source.contents],
        dir: Path::new("/"),
        readable: source.readable_folder(),
        language: "ir",
        flags: &["-Wno-override-module", "-Wno-unused-command-line-argument"],
    };
    let compiled = compile_unit(compiler, &unit, options);
    let hint = |said: &str| hint.or_else(|| confined::hint(options, source, said));
    compiled.map_err(|failure| failure.of(compiler, source, hint))
}

impl Failure {
    /// As an error of the source that was compiled.
    fn of(
        self,
        compiler: &CCompiler,
        source: &Source,
        hint: impl FnOnce(&str) -> Option<String>,
    ) -> Error {
        match self {
            Failure::Error(error) => error,
            Failure::Diagnostics(diagnostics) => Error::Compile {
                kernel: source.entry.clone(),
                compiler: compiler.path.clone(),
                hint: hint(&diagnostics),
                diagnostics,
            },
        }
    }
}

/// Compiles a translation unit.
pub(super) fn compile_unit(
    compiler: &CCompiler,
    unit: &Unit<'_>,
    options: &Options,
) -> Result<Vec<u8>, Failure> {
    if let (Family::Gcc, Some(target)) = (compiler.family, &options.target) {
        return Err(Failure::Error(Error::BadCompiler {
            compiler: compiler.path.clone(),
            reason: format!(
                "a gcc compiles for one machine, and {target} was asked for: name a clang in \
                 SVOD_CC"
            ),
            source: None,
        }));
    }
    let confinement = options.confinement.as_deref();
    let compiled =
        Process::new(&compiler.path, confinement, unit.readable).and_then(|mut process| {
            process
                .command
                .current_dir(unit.dir)
                .args(unit.flags)
                .args(flags(compiler, options))
                .args(["-x", unit.language, "-", "-o", output_name(compiler.family)]);
            process.run(unit.text)
        });
    compiled.map_err(|failure| match failure {
        process::Failure::Diagnostics(said) => Failure::Diagnostics(said),
        process::Failure::Start(e) => Failure::Error(Error::BadCompiler {
            compiler: compiler.path.clone(),
            reason: format!("it cannot be started in {}", unit.dir.display()),
            source: Some(e),
        }),
        process::Failure::Confine(why) => Failure::Error(Error::confinement(
            format!("the compiler {}", compiler.path.display()),
            why,
        )),
        process::Failure::System(doing, e) => Failure::Error(Error::system(
            format!("{doing} while compiling {}", unit.what),
            e,
        )),
    })
}

/// The standard output, as a compiler takes it for its object. clang knows it by a
/// dash, and would try to remove a file that it is given by name when it fails; gcc's
/// assembler takes names alone.
pub(super) const fn output_name(family: Family) -> &'static str {
    match family {
        Family::Clang => "-",
        Family::Gcc => "/proc/self/fd/1",
    }
}

/// A file's name in a C string.
fn quoted(name: &str) -> String {
    let mut quoted = String::new();
    for c in name.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push('?'),
            c => quoted.push(c),
        }
    }
    quoted
}

/// Sources captured from compilers that target clang use what gcc lacks.
fn hint(compiler: &CCompiler, source: &Source, diagnostics: &str) -> Option<String> {
    if compiler.family == Family::Clang {
        return None;
    }
    const CLANG_ONLY: [&str; 4] = ["ext_vector_type", "__builtin_bit_cast", "__fp16", "__bf16"];
    let text = String::from_utf8_lossy(&source.contents);
    let is_at_fault = |word: &&&str| text.contains(**word) && diagnostics.contains(**word);
    let used = CLANG_ONLY.iter().find(is_at_fault)?;
    Some(format!(
        "the source uses `{used}`, which clang has and gcc lacks: install clang (on Debian: \
         apt-get install clang-19) or name one in SVOD_CC"
    ))
}
