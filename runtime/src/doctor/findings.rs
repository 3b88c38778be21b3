//! What was found, as sentences.

use std::path::Path;

use serde::Serialize;

use super::{Choice, Compiler, Counters, Missing, Report};
use crate::compile::{Abilities, Family};

/// What a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// All is well.
    Ok,
    /// It works, and there is something to know.
    Note,
    /// Something is not there.
    Missing,
}

impl Mark {
    /// Its name: `ok`, `note` or `missing`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mark::Ok => "ok",
            Mark::Note => "note",
            Mark::Missing => "missing",
        }
    }
}

/// A thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it belongs to, such as `compilers`.
    pub topic: &'static str,
    /// What it means.
    pub mark: Mark,
    /// What was found.
    pub what: String,
    /// What to do, where there is something.
    pub advice: Option<String>,
}

/// A limit of memory, in bytes, below which models of some size do not fit.
const LITTLE_MEMORY: u64 = 1 << 30;

struct Findings {
    topic: &'static str,
    all: Vec<Finding>,
}

impl Findings {
    fn add(&mut self, mark: Mark, what: impl Into<String>, advice: Option<&str>) {
        self.all.push(Finding {
            topic: self.topic,
            mark,
            what: what.into(),
            advice: advice.map(str::to_owned),
        });
    }
}

pub(super) fn of(report: &Report) -> Vec<Finding> {
    let mut findings = Findings {
        topic: "",
        all: Vec::new(),
    };
    for (topic, tell) in [
        ("compilers", compilers as fn(&Report, &mut Findings)),
        ("processor", processor),
        ("threads", threads),
        ("memory", memory),
        ("cache", cache),
        ("observers", observers),
        ("confinement", confinement),
    ] {
        findings.topic = topic;
        tell(report, &mut findings);
    }
    findings.all
}

fn compilers(report: &Report, findings: &mut Findings) {
    for compiler in &report.compilers {
        let is_used = report.compiler.path.as_ref() == Some(&compiler.path);
        compiler_found(compiler, is_used, findings);
    }
    let choice = &report.compiler;
    match &choice.path {
        Some(path) => findings.add(
            Mark::Ok,
            format!("C is compiled by {}: {}", path.display(), choice.why),
            None,
        ),
        None => findings.add(
            Mark::Missing,
            format!("C cannot be compiled: {}", choice.why),
            Some(
                "bundles that carry objects run all the same; for others install a compiler (on \
                 Debian: apt-get install clang), or name one in SVOD_CC",
            ),
        ),
    }
    let used = report.llvm.path.as_deref();
    for library in &report.llvms {
        let is_used = used.and_then(|p| p.canonicalize().ok()).as_ref() == Some(&library.path);
        if !is_used {
            let (path, major) = (library.path.display(), library.major);
            findings.add(Mark::Ok, format!("{path}, LLVM {major}, is not used"), None);
        }
    }
    let major = report.llvm.major.unwrap_or_default();
    match used {
        Some(path) => findings.add(
            Mark::Ok,
            format!(
                "LLVM IR is compiled in this process, by {}, LLVM {major}: {}",
                path.display(),
                report.llvm.why
            ),
            None,
        ),
        None => {
            let abilities = report.compilers.iter().filter_map(|c| c.abilities.as_ref());
            let clang = abilities.into_iter().any(|a| a.llvm_ir);
            let (mark, instead) = if clang {
                (
                    Mark::Note,
                    "a clang does it in a process, which takes longer",
                )
            } else {
                (Mark::Missing, "nor is there a clang to do it")
            };
            findings.add(
                mark,
                format!(
                    "LLVM IR is not compiled in this process: {}; {instead}",
                    report.llvm.why
                ),
                Some("install libLLVM 15 or newer (on Debian: apt-get install libllvm19), or name one in SVOD_LLVM"),
            );
        }
    }
    mlir(report, findings);
}

fn mlir(report: &Report, findings: &mut Findings) {
    let Choice { path, major, why } = &report.mlir;
    match path {
        Some(path) => findings.add(
            Mark::Ok,
            format!(
                "MLIR is lowered by {} and its mlir-translate, version {}: {why}",
                path.display(),
                major.unwrap_or_default(),
            ),
            None,
        ),
        // Few compilers emit it.
        None => findings.add(
            Mark::Note,
            format!("MLIR cannot be lowered: {why}"),
            Some("for bundles in MLIR (on Debian: apt-get install mlir-19-tools), or name the programs' folder in SVOD_MLIR"),
        ),
    }
}

fn compiler_found(compiler: &Compiler, is_used: bool, findings: &mut Findings) {
    let path = compiler.path.display();
    let Some(abilities) = &compiler.abilities else {
        let problem = compiler.problem.as_deref().unwrap_or("it says nothing");
        let advice = "repair it, or take it out of PATH";
        return findings.add(Mark::Missing, format!("{path}: {problem}"), Some(advice));
    };
    let Abilities {
        family,
        major,
        c,
        llvm_ir,
        ref targets,
        float16,
        bfloat16,
    } = *abilities;
    let list = |things: &[(bool, &str)], there: bool| {
        let those = things.iter().filter(|(is, _)| *is == there);
        let names: Vec<_> = those.map(|(_, name)| *name).collect();
        names.join(", ")
    };
    let is_clang = family == Family::Clang;
    // No gcc compiles LLVM IR, which is nothing to repair.
    let mut things = vec![(c, "C"), (float16, "_Float16"), (bfloat16, "__bf16")];
    if is_clang {
        things.push((llvm_ir, "LLVM IR"));
    }
    let (can, cannot) = (list(&things, true), list(&things, false));
    let mut what = format!("{path}, {} {major}: {can}", family.name());
    if !targets.is_empty() {
        what += &format!("; for {}", targets.join(", "));
    }
    if !cannot.is_empty() {
        what += &format!("; not {cannot}");
    }
    let (mark, advice) = if !c {
        let advice = "it compiles nothing here: reinstall it with all that it needs";
        (Mark::Missing, Some(advice))
    } else if cannot.is_empty() || !is_used {
        (Mark::Ok, None)
    } else {
        let advice = "kernels that use what it lacks need a newer compiler (on Debian: apt-get \
                      install clang-19)";
        (Mark::Note, Some(advice))
    };
    findings.add(mark, what, advice);
}

fn processor(report: &Report, findings: &mut Findings) {
    let cpu = &report.cpu;
    let level = cpu.level.unwrap_or(cpu.architecture);
    findings.add(Mark::Ok, format!("{}, {level}", cpu.model), None);
    if cpu.architecture != "x86_64" {
        let what = format!("kernels do not run on {} yet", cpu.architecture);
        return findings.add(Mark::Missing, what, Some("use an x86-64 machine"));
    }
    let features = cpu.features.join(" ");
    if cpu.features.contains(&"avx2") {
        findings.add(Mark::Ok, features, None);
    } else {
        let what = format!("no AVX2: vectors are 128 bits wide ({features})");
        findings.add(Mark::Note, what, None);
    }
}

fn threads(report: &Report, findings: &mut Findings) {
    let threads = &report.threads;
    let run = threads.run;
    let mut why = Vec::new();
    if let (Some(cores), Some(cpus)) = (threads.cores, threads.cpus) {
        why.push(format!("{cpus} CPUs on {}", count(cores, "core")));
    }
    if let Some(allowed) = threads.allowed {
        why.push(format!("{allowed} for this process"));
    }
    match threads.quota {
        Some(quota) => why.push(format!("a quota of {quota}")),
        None => why.push("no quota".into()),
    }
    let what = format!(
        "a run has up to {}: {}",
        count(run, "thread"),
        why.join(", ")
    );
    let room = threads.quota.unwrap_or(usize::MAX);
    let room = room.min(threads.allowed.unwrap_or(usize::MAX)).max(1);
    if run > room {
        let advice = "threads wait for each other's CPU: ask for fewer (SVOD_THREADS)";
        findings.add(Mark::Note, what, Some(advice));
    } else {
        findings.add(Mark::Ok, what, None);
    }
}

fn memory(report: &Report, findings: &mut Findings) {
    let memory = &report.memory;
    match &memory.executable_problem {
        None => findings.add(Mark::Ok, "memory can be made executable", None),
        Some(problem) => findings.add(
            Mark::Missing,
            format!("no kernel can run, as memory cannot be made executable: {problem}"),
            Some(
                "allow it to this process: SELinux (execmem), systemd \
                 (MemoryDenyWriteExecute=no), or the container's seccomp profile forbids it",
            ),
        ),
    }
    match &memory.guard_problem {
        None => findings.add(Mark::Ok, "buffers can be guarded (--guard)", None),
        Some(problem) => findings.add(
            Mark::Missing,
            format!("buffers cannot be guarded: {problem}"),
            Some("run without --guard and SVOD_GUARD"),
        ),
    }
    let huge = memory.huge_pages.as_deref().unwrap_or("not there");
    let page = memory.page_size;
    findings.add(
        Mark::Ok,
        format!("pages of {page} bytes; transparent huge pages: {huge}"),
        None,
    );
    let group = memory.group_limit.map(|limit| limit as u64);
    let limits = [
        (group, "the control group's limit of memory", "memory.max"),
        (memory.address_limit, "the limit of addresses", "ulimit -v"),
    ];
    for (limit, what, who) in limits {
        let Some(limit) = limit else { continue };
        let what = format!("{what}: {} MB ({who})", limit / 1_000_000);
        if limit < LITTLE_MEMORY {
            let advice = "a larger model does not fit; `svod inspect` says what one needs";
            findings.add(Mark::Note, what, Some(advice));
        } else {
            findings.add(Mark::Ok, what, None);
        }
    }
    if group.is_none() && memory.address_limit.is_none() {
        findings.add(Mark::Ok, "no limit of memory but the machine's", None);
    }
}

fn cache(report: &Report, findings: &mut Findings) {
    let cache = &report.cache;
    let Some(folder) = &cache.folder else {
        return findings.add(
            Mark::Note,
            "compiled kernels are not kept: SVOD_CACHE is off, or neither SVOD_CACHE_DIR nor HOME \
             says where",
            Some("set SVOD_CACHE_DIR to a folder of your own"),
        );
    };
    let at = shown(folder);
    if let Some(problem) = &cache.problem {
        let advice = "give the folder to yourself alone (chmod 700), or name another one in \
                      SVOD_CACHE_DIR";
        return findings.add(Mark::Missing, format!("{at}: {problem}"), Some(advice));
    }
    if !cache.exists {
        let what = format!("{at} is made when it is first needed");
        return findings.add(Mark::Ok, what, None);
    }
    let entries = match cache.entries {
        1 => "1 entry".to_owned(),
        n => format!("{n} entries"),
    };
    let (bytes, limit) = (cache.bytes / 1_000_000, cache.limit / 1_000_000);
    findings.add(
        Mark::Ok,
        format!("{at}: {entries}, {bytes} MB of at most {limit} MB"),
        None,
    );
}

fn shown(folder: &Path) -> String {
    folder.display().to_string()
}

fn observers(report: &Report, findings: &mut Findings) {
    let observers = &report.observers;
    for (on, who, switch) in [
        (observers.perf_map, "perf", "SVOD_PERF_MAP"),
        (observers.gdb, "gdb", "SVOD_GDB"),
    ] {
        let what = if on {
            format!("{who} is told of kernels ({switch}=1)")
        } else {
            format!("{who} is not told of kernels; {switch}=1 changes that")
        };
        findings.add(Mark::Ok, what, None);
    }
    let paranoid = observers.perf_event_paranoid;
    let paranoid = paranoid.map_or_else(String::new, |p| format!(" (perf_event_paranoid is {p})"));
    let why = match observers.counters {
        Counters::Available => {
            return findings.add(Mark::Ok, format!("cycles can be counted{paranoid}"), None);
        }
        Counters::Absent => "no hardware counters on this machine",
        Counters::Forbidden => "this process is not allowed to",
        Counters::Failing => "the system refused it",
    };
    let advice = (observers.counters == Counters::Forbidden).then_some(
        "allow it: sysctl kernel.perf_event_paranoid=2, and in a container its seccomp profile",
    );
    let what = format!("cycles cannot be counted: {why}{paranoid}");
    findings.add(Mark::Note, what, advice);
}

fn confinement(report: &Report, findings: &mut Findings) {
    let confinement = &report.confinement;
    if let Some(version) = confinement.landlock {
        findings.add(Mark::Ok, format!("Landlock, version {version}"), None);
    }
    if confinement.seccomp {
        let under = if confinement.is_filtered { "a" } else { "no" };
        let seccomp = format!("seccomp; this process is under {under} filter");
        findings.add(Mark::Ok, seccomp, None);
    }
    for Missing {
        protection,
        why,
        advice,
    } in &confinement.missing
    {
        let what = format!(
            "no {protection} ({why}): bundles that nobody vouches for are not confined as they \
             should be"
        );
        findings.add(Mark::Note, what, Some(advice));
    }
    if confinement.missing.is_empty() {
        let what = "all that confines kernels and compilers works";
        findings.add(Mark::Ok, what, None);
    }
    if confinement.user_namespaces {
        findings.add(Mark::Ok, "user namespaces", None);
    } else {
        findings.add(Mark::Note, "no user namespaces for users", None);
    }
}

fn count(n: usize, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}
