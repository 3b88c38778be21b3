//! One C source through one compiler process.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};

use super::{CCompiler, Family, Options, Source};
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

/// What would let the environment decide what a source includes and who compiles
/// it.
const NOT_INHERITED: &[&str] = &[
    "CPATH",
    "C_INCLUDE_PATH",
    "COMPILER_PATH",
    "GCC_EXEC_PREFIX",
    "CCC_OVERRIDE_OPTIONS",
];

pub(super) fn compile(
    compiler: &CCompiler,
    source: &Source,
    options: &Options,
) -> Result<Vec<u8>, Error> {
    let system = |doing: &str| {
        let doing = format!("{doing} while compiling kernel `{}`", source.entry);
        move |e: std::io::Error| Error::system(doing, e)
    };
    // Files in memory, so that a compiler reads and writes at its own pace.
    let memory_file = |name: &str| {
        let file = memfd_create(name, MemfdFlags::CLOEXEC);
        file.map(File::from)
            .map_err(|e| system("create a file in memory")(e.into()))
    };
    let mut text = memory_file("svod-source")?;
    writeln!(text, "# 1 \"{}\"", quoted(&source.name))
        .and_then(|()| text.write_all(&source.contents))
        .and_then(|()| text.write_all(b"\n"))
        .and_then(|()| text.rewind())
        .map_err(system("write to a file in memory"))?;
    let mut object = memory_file("svod-object")?;
    let stdout = object
        .try_clone()
        .map_err(system("share a file in memory"))?;

    let mut command = Command::new(&compiler.path);
    command
        .args(FLAGS)
        .arg(options.opt_level.flag())
        .arg(format!("-march={}", options.target_cpu));
    if compiler.family == Family::Gcc {
        command.args(GCC_FLAGS);
    }
    // A source that comes by standard input lies, to a compiler, in the current
    // folder, and that is where it looks for what is included.
    let dir = source.include_dir.as_deref().unwrap_or(Path::new("/"));
    command.current_dir(dir);
    command
        .args(&options.flags)
        .args(["-x", "c", "-", "-o", output_name(compiler.family)])
        // Diagnostics are shown to people who may pipe them anywhere.
        .env("TERM", "dumb")
        .env("LC_ALL", "C");
    for name in NOT_INHERITED {
        command.env_remove(name);
    }
    command.stdin(text).stdout(stdout).stderr(Stdio::piped());
    let output = command.output().map_err(|e| Error::BadCompiler {
        compiler: compiler.path.clone(),
        reason: format!("it cannot be started in {}", dir.display()),
        source: Some(e),
    })?;
    if !output.status.success() {
        let mut diagnostics = String::from_utf8_lossy(&output.stderr).into_owned();
        if diagnostics.trim().is_empty() {
            diagnostics = format!("it printed nothing and ended with {}", output.status);
        }
        return Err(Error::Compile {
            kernel: source.entry.clone(),
            compiler: compiler.path.clone(),
            hint: hint(compiler, source, &diagnostics),
            diagnostics,
        });
    }
    let mut bytes = Vec::new();
    object.rewind().map_err(system("rewind the object"))?;
    object
        .read_to_end(&mut bytes)
        .map_err(system("read the object"))?;
    Ok(bytes)
}

/// The standard output, as a compiler takes it for its object. clang knows it by a
/// dash, and would try to remove a file that it is given by name when it fails; gcc's
/// assembler takes names alone.
const fn output_name(family: Family) -> &'static str {
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
