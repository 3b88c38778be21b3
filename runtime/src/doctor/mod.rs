//! What of this library works on this machine, and what to do where something does not.
//!
//! [`examine`] tries things rather than deduce them: compilers compile, memory is made
//! executable, a guard page is looked up in the process's own map. What it finds is data, a
//! [`Report`], and the same as sentences, [`Finding`]s, each with a mark and, where there is
//! something to do, with that. It makes nothing that a run would not.

mod compilers;
mod findings;
mod machine;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use findings::{Finding, Mark};
use serde::Serialize;

use crate::compile::Abilities;
use crate::compile::cache::Cache;
use crate::confine::Protections;
use crate::runtime::Runtime;

/// How long a compiler may take for each thing that it is asked.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The C compilers that can be found, the one that was named first.
    pub compilers: Vec<Compiler>,
    /// Which of them is used.
    pub compiler: Choice,
    /// The libLLVMs that lie in the usual folders, the newest first.
    pub llvms: Vec<Llvm>,
    /// Which libLLVM is used.
    pub llvm: Choice,
    /// Which programs lower MLIR: the first of the two.
    pub mlir: Choice,
    /// The processor.
    pub cpu: Cpu,
    /// How many threads there are for a run, and why.
    pub threads: Threads,
    /// What can be done with memory.
    pub memory: Memory,
    /// Who watches kernels, or could.
    pub observers: Observed,
    /// The cache of objects.
    pub cache: CacheState,
    /// By what a process can be confined here, as [`confine`](crate::confine) has it.
    pub confinement: Confinement,
}

/// A C compiler that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Compiler {
    /// Where it was found.
    pub path: PathBuf,
    /// What it can do; `None` where that could not be found out.
    pub abilities: Option<Abilities>,
    /// Why not.
    pub problem: Option<String>,
    /// Whether it did not answer in time, and was ended.
    pub hangs: bool,
}

/// What is used, of several.
#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    /// It; `None` where there is nothing to use.
    pub path: Option<PathBuf>,
    /// Its major version.
    pub major: Option<u32>,
    /// Why it is this one, or none.
    pub why: String,
}

/// A libLLVM that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Llvm {
    /// Its file.
    pub path: PathBuf,
    /// Its major version, by its name.
    pub major: u32,
}

/// The processor.
#[derive(Clone, Debug, Serialize)]
pub struct Cpu {
    /// What it calls itself.
    pub model: String,
    /// Its architecture.
    pub architecture: &'static str,
    /// The highest level of x86-64 that it runs; `None` of another architecture.
    pub level: Option<&'static str>,
    /// What it has of what matters to kernels, as compilers call it.
    pub features: Vec<&'static str>,
}

/// How many threads there are for a run, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Threads {
    /// How many a run may have.
    pub run: usize,
    /// The cores of the machine; two threads of a core count once. `None` where the system does
    /// not say.
    pub cores: Option<usize>,
    /// Its logical CPUs.
    pub cpus: Option<usize>,
    /// How many of those the process may run on.
    pub allowed: Option<usize>,
    /// How many the quota of its control groups pays for, rounded down; `None` without one.
    pub quota: Option<usize>,
}

/// What can be done with memory.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// The bytes of a page.
    pub page_size: usize,
    /// Why memory cannot be made executable, which all kernels need; `None` where it can.
    pub executable_problem: Option<String>,
    /// Why a buffer cannot be guarded; `None` where it can.
    pub guard_problem: Option<String>,
    /// When the system makes huge pages by itself: `always`, `madvise` or `never`.
    pub huge_pages: Option<String>,
    /// The bytes that its control groups let the process have; `None` without a limit.
    pub group_limit: Option<usize>,
    /// The bytes of addresses that it may have; `None` without a limit.
    pub address_limit: Option<u64>,
}

/// Who watches kernels, or could.
#[derive(Clone, Debug, Serialize)]
pub struct Observed {
    /// Whether `perf` is told of kernels.
    pub perf_map: bool,
    /// Whether `gdb` is.
    pub gdb: bool,
    /// Who may count events, as the system has it in `perf_event_paranoid`; the lower, the more.
    pub perf_event_paranoid: Option<i64>,
    /// Whether the processor's cycles can be counted.
    pub counters: Counters,
}

/// Whether the processor's cycles can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Counters {
    /// They can.
    Available,
    /// There is nothing that counts, as on most virtual machines.
    Absent,
    /// The system does not allow it to this process.
    Forbidden,
    /// It was tried in vain, for another reason.
    Failing,
}

/// The cache of objects.
#[derive(Clone, Debug, Serialize)]
pub struct CacheState {
    /// Where it is; `None` where there is to be none.
    pub folder: Option<PathBuf>,
    /// Whether its folder is there; it is made when it is first needed.
    pub exists: bool,
    /// Why it is not used, or only read.
    pub problem: Option<String>,
    /// The objects in it.
    pub entries: usize,
    /// The bytes that they take.
    pub bytes: u64,
    /// The bytes that they may take.
    pub limit: u64,
}

/// By what a process can be confined, tried.
#[derive(Clone, Debug, Serialize)]
pub struct Confinement {
    /// The version of Landlock's interface; `None` where the system has none, or has it off.
    pub landlock: Option<u32>,
    /// Whether system calls can be filtered.
    pub seccomp: bool,
    /// What is missing, of all that confinement takes, and what to do about it.
    pub missing: Vec<Missing>,
    /// Whether this process is under such a filter.
    pub is_filtered: bool,
    /// Whether a user may make a namespace of users.
    pub user_namespaces: bool,
}

/// A protection that is missing.
#[derive(Clone, Debug, Serialize)]
pub struct Missing {
    /// Its name.
    pub protection: String,
    /// What the system said.
    pub why: String,
    /// What to do about it.
    pub advice: &'static str,
}

/// Looks at what this runtime would use, and at what it is on. It starts compilers, which takes
/// a second or two, and up to half a minute where one hangs.
#[must_use]
pub fn examine(runtime: &Runtime) -> Report {
    let system = Path::new("/");
    let compilers = compilers::found(runtime.toolchain(), PATIENCE);
    Report {
        compiler: compilers::used(runtime.toolchain(), &compilers),
        compilers,
        llvms: compilers::llvms(),
        llvm: compilers::used_llvm(runtime.toolchain()),
        mlir: compilers::used_mlir(runtime.toolchain()),
        cpu: machine::cpu(system),
        threads: machine::threads(system, runtime.pool().threads()),
        memory: machine::memory(system),
        observers: machine::observers(system, runtime.observers()),
        cache: cache(runtime),
        confinement: machine::confinement(system, &Protections::of_this_system()),
    }
}

impl Report {
    /// Whether kernels can run here at all.
    #[must_use]
    pub const fn can_run(&self) -> bool {
        self.memory.executable_problem.is_none()
    }

    /// The same as sentences, in the order in which they matter.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        findings::of(self)
    }
}

fn cache(runtime: &Runtime) -> CacheState {
    let mut state = CacheState {
        folder: None,
        exists: false,
        problem: None,
        entries: 0,
        bytes: 0,
        limit: 0,
    };
    let Some((folder, limit)) = runtime.cache_folder() else {
        return state;
    };
    state.folder = Some(folder.to_owned());
    state.limit = limit;
    state.exists = folder.exists();
    if !state.exists {
        return state;
    }
    let stats = Cache::open(folder, limit).and_then(|cache| {
        let may_write = rustix::fs::access(cache.folder(), rustix::fs::Access::WRITE_OK);
        state.problem = may_write.err().map(|e| format!("it is only read: {e}"));
        cache.stats()
    });
    match stats {
        Ok(stats) => (state.entries, state.bytes) = (stats.entries, stats.bytes),
        Err(error) => state.problem = Some(error.to_string()),
    }
    state
}
