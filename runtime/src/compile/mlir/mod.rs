//! MLIR, lowered to LLVM IR by two programs of MLIR's own.
//!
//! `mlir-opt` takes a module of the dialects that compilers make kernels of down to the llvm
//! dialect, `mlir-translate` writes that as LLVM IR, and from there it is LLVM IR as any
//! other. MLIR's own library is not called in this process, as LLVM's is: its C interface
//! changes with each version, and what a pass crashes on would take the process along.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Source;
use super::identity::Identity;
use super::probe::ask_within;
use super::process::{self, Process};
use super::toolchain::executable;
use crate::Error;
use crate::confine::Confinement;

/// Versions, from the oldest that has all passes to the newest that is looked for.
const VERSIONS: std::ops::RangeInclusive<u32> = 19..=40;

/// How long a program may take to say its version.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// The names of the two programs, which a number may follow.
const OPT: &str = "mlir-opt";
const TRANSLATE: &str = "mlir-translate";

/// Where Debian has a folder for each version of LLVM.
const DEBIAN: &str = "/usr/lib";

/// The passes, in their order: what has structure first, then what computes, then what is
/// called. Some make ops that a later one takes.
const STRUCTURE: &str = "func.func(lower-vector-mask,lower-vector-multi-reduction),\
    convert-linalg-to-loops,lower-affine,scf-forall-to-for,convert-vector-to-scf,\
    convert-scf-to-cf,expand-strided-metadata,lower-affine,memref-expand,arith-expand,\
    convert-math-to-funcs";

/// What LLVM has as an intrinsic becomes one, and the rest a call of libm's, as in C. What
/// MLIR would approximate, it does not.
const MATH: &str = "convert-math-to-llvm{approximate-log1p=false},convert-math-to-libm";

/// The same where the module has an `expm1`, which the first of them would make an `exp` and a
/// subtraction, that leave nothing of small numbers. All functions are libm's then.
const MATH_BY_LIBM: &str = "convert-math-to-libm,convert-math-to-llvm{approximate-log1p=false}";

/// A memref is a plain pointer where it is an argument, as C has it.
const REST: &str = "convert-vector-to-llvm,finalize-memref-to-llvm,convert-index-to-llvm,\
    convert-arith-to-llvm,convert-func-to-llvm{use-bare-ptr-memref-call-conv=1},\
    convert-cf-to-llvm,convert-ub-to-llvm,reconcile-unrealized-casts";

/// How many ops an error names that no pass lowers.
const MOST_LEFT: usize = 16;

/// What both programs call their standard input.
const STDIN: &str = "<stdin>";

/// The programs that lower MLIR to LLVM IR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mlir {
    opt: PathBuf,
    translate: PathBuf,
    version: u32,
}

impl Mlir {
    /// Those that were named, by their folder or by the first of them, or the newest that are
    /// found in `folders`, or where Debian puts them.
    ///
    /// # Errors
    ///
    /// Why there are none.
    pub(super) fn find(
        named: Option<&Path>,
        folders: &[PathBuf],
        memory: Option<&Path>,
    ) -> Result<Mlir, String> {
        let Some(named) = named else {
            return Mlir::search(folders, Path::new(DEBIAN), memory);
        };
        let opt = if named.is_dir() {
            let numbers = VERSIONS.rev().map(|version| format!("{OPT}-{version}"));
            let mut opts = numbers.chain([OPT.to_owned()]).map(|name| named.join(name));
            opts.find(|opt| executable(opt))
                .ok_or_else(|| format!("{} has no {OPT}", named.display()))?
        } else if named.components().count() > 1 {
            named.to_owned()
        } else {
            let mut paths = folders.iter().map(|dir| dir.join(named));
            paths.find(|path| executable(path)).ok_or_else(|| {
                let (named, searched) = (named.display(), list(folders));
                format!("no program {named} is in {searched}")
            })?
        };
        // They are started in another folder.
        let opt = std::path::absolute(&opt).map_err(|e| format!("{}: {e}", opt.display()))?;
        Mlir::of(opt, memory)
    }

    fn search(folders: &[PathBuf], debian: &Path, memory: Option<&Path>) -> Result<Mlir, String> {
        let numbered = VERSIONS.rev().find_map(|version| {
            let beside = |folder: &PathBuf| folder.join(format!("{OPT}-{version}"));
            let there = debian.join(format!("llvm-{version}/bin/{OPT}"));
            let mut opts = folders.iter().map(beside).chain([there]);
            opts.find_map(|opt| {
                Some(Mlir {
                    version,
                    ..Mlir::pair(opt).ok()?
                })
            })
        });
        // Plain names show their version only when they are asked.
        let plain = folders.iter().find_map(|folder| {
            let pair = Mlir::pair(folder.join(OPT)).ok()?;
            let real = |opt: &Path| opt.canonicalize().ok();
            let is_known = numbered
                .as_ref()
                .is_some_and(|known| real(&known.opt) == real(&pair.opt));
            (!is_known).then(|| Mlir::of(pair.opt, memory))
        });
        let (plain, why) = match plain {
            Some(Ok(plain)) => (Some(plain), String::new()),
            Some(Err(why)) => (None, format!("; {why}")),
            None => (None, String::new()),
        };
        let newest = [numbered, plain].into_iter().flatten();
        newest.max_by_key(|tools| tools.version).ok_or_else(|| {
            let (oldest, searched) = (VERSIONS.start(), list(folders));
            format!(
                "looked for {OPT}-N and {TRANSLATE}-N, with N from {oldest} on, and for {OPT} and \
                 {TRANSLATE} in {searched} and in {}/llvm-N/bin{why}",
                debian.display()
            )
        })
    }

    /// A program and the one beside it whose name ends the same, of a version that is not known.
    fn pair(opt: PathBuf) -> Result<Mlir, String> {
        let name = opt.file_name().unwrap_or_default().to_string_lossy();
        let end = name.strip_prefix(OPT).ok_or_else(|| {
            let opt = opt.display();
            format!("{opt} is neither a folder nor an {OPT}")
        })?;
        let translate = opt.with_file_name(format!("{TRANSLATE}{end}"));
        for path in [&opt, &translate] {
            if !executable(path) {
                return Err(format!("there is no program {}", path.display()));
            }
        }
        Ok(Mlir {
            opt,
            translate,
            version: 0,
        })
    }

    /// The pair of this program. One that is called `mlir-opt-N` is believed.
    fn of(opt: PathBuf, memory: Option<&Path>) -> Result<Mlir, String> {
        let pair = Mlir::pair(opt)?;
        let name = pair.opt.file_name().unwrap_or_default().to_string_lossy();
        let number = name.rsplit('-').next().and_then(|end| end.parse().ok());
        let version = match number {
            Some(version) => version,
            None => match Identity::recall(&pair.opt, memory) {
                Some(known) => known.major(),
                None => pair.ask()?,
            },
        };
        if version < *VERSIONS.start() {
            return Err(format!(
                "{} is of version {version}, and what lowers MLIR here is there from version {} on",
                pair.opt.display(),
                VERSIONS.start()
            ));
        }
        Ok(Mlir { version, ..pair })
    }

    /// The version that both say of themselves.
    fn ask(&self) -> Result<u32, String> {
        let ask = |path: &Path| {
            let mut command = process::command(path);
            let answer = ask_within(command.arg("--version"), "", PATIENCE);
            let answer = answer.map_err(|e| format!("{}: {e}", path.display()))?;
            let (_, said) =
                answer.ok_or_else(|| format!("{} does not answer to --version", path.display()))?;
            let number = said.split("LLVM version ").nth(1);
            let number = number.and_then(|n| n.split('.').next()?.parse::<u32>().ok());
            number.ok_or_else(|| format!("{} does not say its version", path.display()))
        };
        let (opt, translate) = (ask(&self.opt)?, ask(&self.translate)?);
        if opt != translate {
            return Err(format!(
                "{} is of version {opt}, and {} of version {translate}",
                self.opt.display(),
                self.translate.display()
            ));
        }
        Ok(opt)
    }

    /// The file of `mlir-opt`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.opt
    }

    /// Their major version.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// Who they are, as a part of keys.
    pub(super) fn identity(&self, memory: Option<&Path>) -> Result<String, String> {
        let programs = [self.opt.as_path(), &self.translate];
        let identity = Identity::of_programs(&programs, self.version, memory);
        identity.map(Identity::into_text)
    }

    /// The module as LLVM IR, in text.
    pub(super) fn lower(
        &self,
        source: &Source,
        confinement: Option<&Confinement>,
    ) -> Result<Vec<u8>, Error> {
        let opt = Program::new(&self.opt, source, confinement);
        let translate = Program::new(&self.translate, source, confinement);
        let lowered = opt.lower(&[])?;
        let translated = translate.run(TRANSLATE_FLAGS, &[&lowered]);
        translated.map_err(|error| match (error, opt.left()) {
            (
                Error::Compile {
                    kernel,
                    compiler,
                    diagnostics,
                    hint,
                },
                Some(left),
            ) => {
                let diagnostics = format!("{left}{diagnostics}");
                Error::Compile {
                    kernel,
                    compiler,
                    diagnostics,
                    hint,
                }
            }
            (error, _) => error,
        })
    }

    /// Many modules that may share them, through two processes. `None` where not as many come
    /// out: one of them is at fault, and who lowers it alone hears of it.
    pub(super) fn lower_all(
        &self,
        sources: &[&Source],
        confinement: Option<&Confinement>,
    ) -> Option<Vec<Vec<u8>>> {
        let first = sources.first()?;
        let run = |program, flags: &[&str], input: &[&[u8]]| {
            let program = Program::new(program, first, confinement);
            program.run(flags, input).ok()
        };
        let marker = format!("\n{MARKER}\n");
        let pieces = sources.iter().enumerate().flat_map(|(i, source)| {
            let between = if i == 0 { "" } else { &marker };
            [between.as_bytes(), &source.contents]
        });
        let flags = opt_flags(&first.contents);
        let split = ["--split-input-file", OUTPUT_MARKER];
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(split).collect();
        let pieces: Vec<&[u8]> = pieces.collect();
        let lowered = run(&self.opt, &flags, &pieces)?;
        let flags = [TRANSLATE_FLAGS, &split].concat();
        let translated = run(&self.translate, &flags, &[&lowered])?;
        let translated = String::from_utf8(translated).ok()?;
        let modules = translated.split(&marker).map(|ir| ir.as_bytes().to_vec());
        let modules: Vec<Vec<u8>> = modules.collect();
        (modules.len() == sources.len()).then_some(modules)
    }
}

/// One of the programs, for a source.
struct Program<'a> {
    path: &'a Path,
    source: &'a Source,
    confinement: Option<&'a Confinement>,
}

impl<'a> Program<'a> {
    const fn new(
        path: &'a Path,
        source: &'a Source,
        confinement: Option<&'a Confinement>,
    ) -> Program<'a> {
        Program {
            path,
            source,
            confinement,
        }
    }

    /// `mlir-opt`, at its passes.
    fn lower(&self, more: &[&str]) -> Result<Vec<u8>, Error> {
        let flags = opt_flags(&self.source.contents);
        let flags: Vec<&str> = flags
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect();
        self.run(&flags, &[&self.source.contents])
    }

    fn run(&self, flags: &[&str], input: &[&[u8]]) -> Result<Vec<u8>, Error> {
        let Program { path, source, .. } = *self;
        let made = Process::new(path, self.confinement, None).and_then(|mut process| {
            process.command.current_dir("/").args(flags);
            process.run(input)
        });
        made.map_err(|failure| match failure {
            process::Failure::Diagnostics(said) => Error::Compile {
                kernel: source.entry.clone(),
                compiler: path.to_owned(),
                diagnostics: renamed(&said, &source.name),
                hint: None,
            },
            process::Failure::Start(e) => Error::NoMlir {
                kernel: source.entry.clone(),
                reason: format!("{} cannot be started: {e}", path.display()),
            },
            process::Failure::Confine(why) => Error::confinement(path.display(), why),
            process::Failure::System(doing, e) => Error::system(
                format!("{doing} while lowering kernel `{}`", source.entry),
                e,
            ),
        })
    }

    /// The ops that no pass lowered, each with its place in the source: what is printed of
    /// them otherwise has its place in what the passes made.
    fn left(&self) -> Option<String> {
        let generic = [
            "--mlir-print-op-generic",
            "--mlir-print-debuginfo",
            "--mlir-print-local-scope",
        ];
        let printed = self.lower(&generic).ok()?;
        let mut left = left_ops(&String::from_utf8_lossy(&printed));
        // What casts stand for comes of what else is left.
        let is_cast = |(_, op): &(_, String)| op.starts_with("builtin.");
        if !left.iter().all(is_cast) {
            left.retain(|op| !is_cast(op));
        }
        let line = |(place, op): &(String, String)| {
            let why = match op.as_str() {
                "func.func" => "a function whose memrefs are not all of a static shape",
                "builtin.unrealized_conversion_cast" => "what is cast between types",
                _ => "an op that no pass takes further",
            };
            let place = renamed(place, &self.source.name);
            format!("{place}error: `{op}` is left, {why}\n")
        };
        (!left.is_empty()).then(|| left.iter().take(MOST_LEFT).map(line).collect())
    }
}

/// What stands in a line of its own between modules, to both programs.
const MARKER: &str = "// -----";
const OUTPUT_MARKER: &str = "--output-split-marker=// -----";

/// The numbers of sources that [may share](may_share) processes, in lists of those that do. Of
/// each kind there are about as many lists as `threads`.
pub(super) fn batches(sources: &[(usize, &Source)], threads: usize) -> Vec<Vec<usize>> {
    let mut by_flags: BTreeMap<Vec<String>, Vec<usize>> = BTreeMap::new();
    for (number, source) in sources {
        let flags = opt_flags(&source.contents);
        by_flags.entry(flags).or_default().push(*number);
    }
    let lists = by_flags.values();
    let lists = lists.flat_map(|numbers| numbers.chunks(numbers.len().div_ceil(threads)));
    lists.map(<[usize]>::to_vec).collect()
}

/// Whether a module is text in which nothing looks like the end of it.
pub(super) fn may_share(source: &Source) -> bool {
    std::str::from_utf8(&source.contents).is_ok_and(|text| !text.contains(MARKER))
}

/// What `mlir-translate` is told.
const TRANSLATE_FLAGS: &[&str] = &["--mlir-to-llvmir", "-"];

/// What `mlir-opt` is told for a module. One module is no work for many threads.
fn opt_flags(contents: &[u8]) -> Vec<String> {
    let expm1 = b"expm1";
    let has_expm1 = contents.windows(expm1.len()).any(|word| word == expm1);
    let math = if has_expm1 { MATH_BY_LIBM } else { MATH };
    vec![
        "--mlir-disable-threading".to_owned(),
        format!("--pass-pipeline=builtin.module({STRUCTURE},{math},{REST})"),
        "-".to_owned(),
    ]
}

/// All flags that decide what a module is lowered to, as a part of keys.
pub(super) fn flags(contents: &[u8]) -> Vec<String> {
    let mut flags = opt_flags(contents);
    flags.extend(TRANSLATE_FLAGS.iter().map(|&flag| flag.to_owned()));
    flags
}

/// The ops of other dialects in a module that is printed in the generic form, and the place of
/// each, which ends with a colon.
fn left_ops(printed: &str) -> Vec<(String, String)> {
    let (mut left, mut open) = (Vec::new(), Vec::new());
    for line in printed.lines() {
        let line = line.trim();
        let op = if line.starts_with("})") {
            open.pop().flatten()
        } else {
            let op = op_name(line).map(str::to_owned);
            // Its place stands where its regions end.
            if line.ends_with("({") {
                open.push(op);
                continue;
            }
            op
        };
        let Some(op) = op else { continue };
        if !op.starts_with("llvm.") && op != "builtin.module" {
            left.push((place(line).unwrap_or_default(), op));
        }
    }
    left
}

/// The name of the op in a line, as `%0 = "arith.addi"(…)` has it.
fn op_name(line: &str) -> Option<&str> {
    let op = match line.strip_prefix('%') {
        Some(results) => results.split_once(" = ")?.1,
        None => line,
    };
    let (name, rest) = op.strip_prefix('"')?.split_once('"')?;
    rest.starts_with('(').then_some(name)
}

/// The first place that a line's location names: `FILE:LINE:COLUMN: `.
fn place(line: &str) -> Option<String> {
    let location = &line[line.rfind(" loc(")?..];
    let (_, named) = location.split_once('"')?;
    let (file, rest) = named.split_once("\":")?;
    let is_number = |c: char| c.is_ascii_digit() || c == ':';
    let numbers = rest.split(|c| !is_number(c)).next()?;
    Some(format!("{file}:{numbers}: "))
}

/// What was said of the standard input, said of the file.
fn renamed(said: &str, name: &str) -> String {
    let line = |line: &str| match line.strip_prefix(STDIN) {
        Some(rest) if rest.starts_with(':') => format!("{name}{rest}"),
        _ => line.to_owned(),
    };
    said.split_inclusive('\n').map(line).collect()
}

fn list(folders: &[PathBuf]) -> String {
    let folders: Vec<_> = folders.iter().map(|f| f.display().to_string()).collect();
    if folders.is_empty() {
        "no folder of a search path".to_owned()
    } else {
        folders.join(", ")
    }
}

#[cfg(test)]
mod tests;
