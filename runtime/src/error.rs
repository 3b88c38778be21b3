//! What can go wrong, in one enum.
//!
//! Each error says what was being done, to what, and, where the text alone
//! does not make it plain, what to do about it. A compiler's own diagnostics
//! are carried in full. Causes are chained through [`std::error::Error::source`].

use std::fmt;
use std::path::PathBuf;

use crate::memory::Stray;
use crate::signature::Misuse;

/// Every error of this library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A signature that no kernel can have.
    #[error("the signature's parameter {param}: {reason}")]
    Signature {
        /// Which parameter, counted from 0.
        param: usize,
        /// What is wrong with it.
        reason: String,
    },

    /// No C compiler was found.
    #[error(
        "no C compiler was found to compile kernel `{kernel}`: looked for {looked_for} in \
         {searched}; install one (on Debian: apt-get install clang-19, or gcc), or name one in \
         SVOD_CC or with RuntimeBuilder::cc"
    )]
    NoCompiler {
        /// The kernel that was to be compiled.
        kernel: String,
        /// The names that were looked for.
        looked_for: String,
        /// The folders that were searched.
        searched: String,
    },

    /// A compiler was found and could not be used.
    #[error("cannot use the C compiler {}: {reason}", compiler.display())]
    BadCompiler {
        /// Its path, as given or found.
        compiler: PathBuf,
        /// What happened.
        reason: String,
        /// The operating system's error, if that was the reason.
        source: Option<std::io::Error>,
    },

    /// The compiler refused a source.
    #[error("{} could not compile kernel `{kernel}`:\n{diagnostics}{}", compiler.display(), hint.as_ref().map(|h| format!("\n{h}")).unwrap_or_default())]
    Compile {
        /// The kernel.
        kernel: String,
        /// The compiler's path.
        compiler: PathBuf,
        /// All that the compiler printed.
        diagnostics: String,
        /// What to do about it, where we know.
        hint: Option<String>,
    },

    /// LLVM IR, and nothing that compiles it.
    #[error(
        "kernel `{kernel}` is LLVM IR, which neither a libLLVM nor a clang is there for: {reason}; \
         install one (on Debian: apt-get install libllvm19, or clang-19), or name one in SVOD_LLVM \
         or SVOD_CC"
    )]
    NoLlvm {
        /// The kernel.
        kernel: String,
        /// Why no library is used.
        reason: String,
    },

    /// MLIR, and nothing that lowers it to LLVM IR.
    #[error(
        "kernel `{kernel}` is MLIR, which no mlir-opt and mlir-translate are there to lower: \
         {reason}; install them (on Debian: apt-get install mlir-19-tools), or name their folder \
         in SVOD_MLIR or with RuntimeBuilder::mlir"
    )]
    NoMlir {
        /// The kernel.
        kernel: String,
        /// Why none are used.
        reason: String,
    },

    /// What was to be confined, and cannot be.
    #[error("cannot confine {what}: {reason}")]
    Confinement {
        /// What was to be.
        what: String,
        /// What is missing, or went wrong, and what to do about it.
        reason: String,
    },

    /// A folder that objects are not kept in.
    #[error(
        "the cache folder {} is not used: {reason}; make it yours alone (chmod 700), or name \
         another one by SVOD_CACHE_DIR or RuntimeBuilder::cache_dir",
        folder.display()
    )]
    CacheFolder {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A CPU that nothing is known about.
    #[error(
        "there is no CPU level `{name}` to compile for; there are {}",
        crate::compile::cpu::CpuLevel::NAMES.join(", ")
    )]
    UnknownCpu {
        /// The name that was given.
        name: String,
    },

    /// An object file that is damaged, or is none.
    #[error("the object of kernel `{kernel}` is malformed: {reason}")]
    MalformedObject {
        /// The kernel.
        kernel: String,
        /// What is wrong with it.
        reason: String,
    },

    /// An object that is well-formed and uses what this linker does not do.
    #[error("the object of kernel `{kernel}` cannot be linked: {feature}")]
    UnsupportedObject {
        /// The kernel.
        kernel: String,
        /// What it uses, by name, and where.
        feature: String,
    },

    /// A kernel with writable globals.
    #[error(
        "kernel `{kernel}` keeps state: its section `{section}` is writable ({bytes} bytes); a \
         kernel may have constants only, unless RuntimeBuilder::admit_state admits it"
    )]
    WritableSection {
        /// The kernel.
        kernel: String,
        /// The section's name.
        section: String,
        /// Its size.
        bytes: u64,
    },

    /// A symbol that is not on the list.
    #[error(
        "kernel `{kernel}` uses the symbol `{symbol}`, which the runtime does not provide; add \
         it with RuntimeBuilder::symbol, or compile without it"
    )]
    UndefinedSymbol {
        /// The kernel.
        kernel: String,
        /// The symbol.
        symbol: String,
    },

    /// An object without the entry that was asked for.
    #[error(
        "the object of kernel `{kernel}` defines no function of that name; it defines {defined}"
    )]
    NoEntry {
        /// The entry that was asked for.
        kernel: String,
        /// The functions that it does define.
        defined: String,
    },

    /// A relocated value that does not fit its field.
    #[error(
        "kernel `{kernel}`: the relocation {kind} at {place} against `{symbol}` \
         does not fit: its value is {value:#x}; compile the kernel position-independent (-fPIC), \
         or, for a constant of the embedder's, place that near"
    )]
    RelocationOverflow {
        /// The kernel.
        kernel: String,
        /// The relocation's name in the ABI.
        kind: &'static str,
        /// What it patches, as section+offset.
        place: String,
        /// The symbol that it refers to.
        symbol: String,
        /// The value that did not fit.
        value: i128,
    },

    /// A launch that does not fit its kernel's signature.
    #[error("launch of kernel `{kernel}`: {misuse}")]
    Launch {
        /// The kernel.
        kernel: String,
        /// What does not fit.
        misuse: Box<Misuse>,
    },

    /// A kernel returned a status other than 0.
    #[error(
        "kernel `{kernel}` failed with status {status} at grid index {index}{}",
        in_op(*op)
    )]
    KernelStatus {
        /// The kernel.
        kernel: String,
        /// The op of the plan, where it is one.
        op: Option<usize>,
        /// The number that it returned.
        status: i32,
        /// The grid index of the call that did; 0 without an index.
        index: u64,
    },

    /// A kernel has written beside a guarded buffer.
    #[error(
        "kernel `{kernel}` wrote outside of argument {argument}{}{}: {stray}; its signature is \
         wrong, or the kernel is",
        buffer.as_ref().map(|b| format!(" ({b})")).unwrap_or_default(),
        in_op(*op)
    )]
    Overrun {
        /// The kernel.
        kernel: String,
        /// The op of the plan, where it is one.
        op: Option<usize>,
        /// Which argument, counted from 0 among the buffer arguments.
        argument: usize,
        /// The plan's buffer, where it is one.
        buffer: Option<String>,
        /// Which bytes beside the buffer.
        stray: Stray,
    },

    /// Memory could not be had.
    #[error("cannot allocate {bytes} bytes for {what}")]
    OutOfMemory {
        /// What it was for.
        what: String,
        /// How much.
        bytes: usize,
    },

    /// A buffer was used as what it is not.
    #[error("{doing}: {reason}")]
    Buffer {
        /// What was being done.
        doing: &'static str,
        /// What does not fit.
        reason: String,
    },

    /// A plan that cannot be run as written.
    #[error("{place}: {reason}")]
    Plan {
        /// The place in the plan, such as `ops[3].args[1]`.
        place: Place,
        /// What is wrong there.
        reason: String,
    },

    /// An order of a plan's ops that breaks it.
    #[error("the schedule is not the plan's: {reason}")]
    Schedule {
        /// Which op is in the wrong place, and why.
        reason: String,
    },

    /// A learned schedule in JSON that does not say what it should.
    #[error("no learned schedule: {}{reason}", place.prefix())]
    ScheduleText {
        /// The place in the JSON, such as `phases[3][0].ops[1]`; empty for all of it.
        place: Place,
        /// What is wrong there.
        reason: String,
    },

    /// An instance that would take more memory than it may.
    #[error(
        "an instance of the plan `{plan}` takes {needed} bytes, {temps} of them for temps, and \
         may take {cap}; raise the cap, or have the plan keep less"
    )]
    MemoryCap {
        /// The plan's name.
        plan: String,
        /// What it would take.
        needed: usize,
        /// What of that its temps take.
        temps: usize,
        /// What it may.
        cap: usize,
    },

    /// A host function failed, or panicked.
    #[error("host function `{function}` failed in ops[{op}]")]
    Host {
        /// The function's name.
        function: String,
        /// The op that called it.
        op: usize,
        /// What it returned, or said when it panicked.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// A run that was cancelled from another thread.
    #[error("the run was cancelled before ops[{op}], after {done} of {of} ops")]
    Cancelled {
        /// The op that was next.
        op: usize,
        /// How many had run.
        done: usize,
        /// How many there are.
        of: usize,
    },

    /// A run whose deadline passed.
    #[error("the run's deadline passed before ops[{op}], after {done} of {of} ops")]
    DeadlinePassed {
        /// The op that was next.
        op: usize,
        /// How many had run.
        done: usize,
        /// How many there are.
        of: usize,
    },

    /// A run that was asked for wrongly: a variable, an input, a state.
    #[error("cannot run the plan: {reason}")]
    Run {
        /// What is missing or out of bounds.
        reason: String,
    },

    /// A name that nothing of a plan has.
    #[error("there is no {what} `{name}`; there are: {known}")]
    UnknownName {
        /// What was looked for: an input, an output, a variable, ...
        what: &'static str,
        /// The name.
        name: String,
        /// The names that there are.
        known: String,
    },

    /// A run after one that stopped when it had written a state.
    #[error(
        "this instance is torn: an earlier run stopped after it had written a state; reset or \
         restore it, or accept it as it is with accept_torn"
    )]
    Torn,

    /// A run whose threads are in another process.
    #[error(
        "this process was forked in the middle of the run, and threads that worked on it are in \
         the other process; in this one the instance is to be reset or restored"
    )]
    Forked,

    /// A kernel, or a plan, that did not come to its end in a sandbox.
    #[error("in the sandbox: {0}")]
    Sandboxed(Box<crate::sandbox::Outcome>),

    /// An environment variable that says what cannot be.
    #[error("the environment variable {name} is `{value}`; it takes {takes}")]
    Environment {
        /// The variable.
        name: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        takes: &'static str,
    },

    /// A bundle that was refused.
    #[error("cannot load the bundle {}", bundle.display())]
    Bundle {
        /// The bundle's folder.
        bundle: PathBuf,
        /// Why.
        source: Box<Error>,
    },

    /// A bundle that was not written; nothing is left of it.
    #[error("cannot write the bundle {}", bundle.display())]
    WriteBundle {
        /// The folder that it was to be.
        bundle: PathBuf,
        /// Why.
        source: Box<Error>,
    },

    /// A file of a bundle, or of a user, that does not say what it should.
    #[error("{}: {reason}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// The operating system refused something.
    #[error("cannot {doing}")]
    System {
        /// What was being done, to what.
        doing: String,
        /// The system's own error.
        source: std::io::Error,
    },
}

fn in_op(op: Option<usize>) -> String {
    op.map(|op| format!(" in ops[{op}]")).unwrap_or_default()
}

impl Error {
    pub(crate) fn plan(place: impl Into<Place>, reason: impl fmt::Display) -> Error {
        Error::Plan {
            place: place.into(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn run(reason: impl fmt::Display) -> Error {
        Error::Run {
            reason: reason.to_string(),
        }
    }

    pub(crate) fn confinement(what: impl fmt::Display, reason: impl fmt::Display) -> Error {
        Error::Confinement {
            what: what.to_string(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn file(file: impl Into<PathBuf>, reason: impl fmt::Display) -> Error {
        Error::File {
            file: file.into(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn system(doing: impl fmt::Display, source: impl Into<std::io::Error>) -> Error {
        Error::System {
            doing: doing.to_string(),
            source: source.into(),
        }
    }
}

/// A place in a plan, as the bundle format would write the way to it, such as
/// `ops[3].args[1]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(String);

impl Place {
    /// The place `name[index]`.
    pub(crate) fn at(name: &str, index: usize) -> Place {
        Place(format!("{name}[{index}]"))
    }

    /// The place below this one.
    #[must_use]
    pub(crate) fn key(&self, key: &str) -> Place {
        Place(format!("{}.{key}", self.0))
    }

    /// It, to stand before what is wrong there; nothing, where it is empty.
    fn prefix(&self) -> String {
        match self.0.as_str() {
            "" => String::new(),
            place => format!("{place}: "),
        }
    }

    /// The element `index` of the list below this place.
    #[must_use]
    pub(crate) fn item(&self, key: &str, index: usize) -> Place {
        Place(format!("{}.{key}[{index}]", self.0))
    }
}

impl From<&str> for Place {
    fn from(place: &str) -> Place {
        Place(place.to_owned())
    }
}

impl From<String> for Place {
    fn from(place: String) -> Place {
        Place(place)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
