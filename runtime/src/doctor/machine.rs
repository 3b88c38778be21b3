//! The machine and its system. Their files are looked for below a folder that is given.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::{Confinement, Counters, Cpu, Memory, Missing, Observed, Threads};
use crate::compile::cpu::{CpuLevel, features};
use crate::confine::{Protection, Protections};
use crate::link::{Observers, try_executable_memory};
use crate::memory::{Buffer, Guard};
use crate::pool::cpus;
use crate::profile::{self, NoCounters};
use crate::signature::DType;

/// What kernels are compiled to use, where the processor has it.
const RELEVANT: [&str; 16] = [
    "sse4.2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "bmi2",
    "avx512f",
    "avx512bw",
    "avx512cd",
    "avx512dq",
    "avx512vl",
    "avx512vnni",
    "avx512bf16",
    "avx512fp16",
    "gfni",
    "vaes",
];

const LEVELS: [&str; 4] = ["x86-64-v4", "x86-64-v3", "x86-64-v2", "x86-64"];

fn text(root: &Path, file: &str) -> Option<String> {
    let text = fs::read_to_string(root.join(file)).ok()?;
    Some(text.trim().to_owned())
}

fn number<T: std::str::FromStr>(root: &Path, file: &str) -> Option<T> {
    text(root, file)?.parse().ok()
}

pub(super) fn cpu(root: &Path) -> Cpu {
    let info = text(root, "proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    });
    let has = features();
    let runs = |name: &&str| CpuLevel::named(name).is_ok_and(|level| level.runs_here());
    Cpu {
        model: model.unwrap_or_else(|| "unknown".into()),
        architecture: std::env::consts::ARCH,
        level: LEVELS.into_iter().find(runs),
        features: RELEVANT.into_iter().filter(|f| has.contains(f)).collect(),
    }
}

pub(super) fn threads(root: &Path, run: usize) -> Threads {
    // Threads of one core name the same list of siblings.
    let mut cores = BTreeSet::new();
    let mut count = 0;
    let folders = fs::read_dir(root.join("sys/devices/system/cpu"));
    for folder in folders.into_iter().flatten().flatten() {
        let name = folder.file_name();
        let number = name.to_str().and_then(|n| n.strip_prefix("cpu"));
        if number.is_some_and(|n| n.parse::<u32>().is_ok())
            && let Some(siblings) = text(&folder.path(), "topology/thread_siblings_list")
        {
            count += 1;
            cores.insert(siblings);
        }
    }
    Threads {
        run,
        cores: (count > 0).then_some(cores.len()),
        cpus: (count > 0).then_some(count),
        allowed: cpus::allowed(root),
        quota: cpus::quota(root),
    }
}

pub(super) fn memory(root: &Path) -> Memory {
    let huge = text(root, "sys/kernel/mm/transparent_hugepage/enabled");
    // The one in brackets is the one that holds.
    let huge = huge.and_then(|text| {
        let (_, rest) = text.split_once('[')?;
        Some(rest.split_once(']')?.0.to_owned())
    });
    Memory {
        page_size: rustix::param::page_size(),
        executable_problem: try_executable_memory().err().map(told),
        guard_problem: guard_problem(root),
        huge_pages: huge,
        group_limit: cpus::memory_limit(root),
        address_limit: getrlimit(Resource::As).current,
    }
}

/// An error with what the system says.
fn told(error: crate::Error) -> String {
    match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Why a guarded buffer does not end before a page that nothing may touch.
fn guard_problem(root: &Path) -> Option<String> {
    let buffer = match Buffer::guarded(DType::U8, 64, 64, Guard::End) {
        Ok(buffer) => buffer,
        Err(error) => return Some(told(error)),
    };
    let bytes = match buffer.as_slice::<u8>() {
        Ok(bytes) => bytes,
        Err(error) => return Some(told(error)),
    };
    let end = bytes.as_ptr_range().end.addr();
    let map = text(root, "proc/self/maps")?;
    let is_guard = |line: &str| {
        let mut fields = line.split_whitespace();
        let (first, last) = fields.next()?.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        let holds = (address(first)?..address(last)?).contains(&end);
        holds.then(|| {
            fields
                .next()
                .is_some_and(|rights| rights.starts_with("---"))
        })
    };
    match map.lines().find_map(is_guard) {
        Some(true) => None,
        _ => Some("the page behind a guarded buffer can be touched".to_owned()),
    }
}

pub(super) fn observers(root: &Path, observers: Observers) -> Observed {
    let counters = match profile::Counters::open() {
        Ok(_) => Counters::Available,
        Err(NoCounters::Absent) => Counters::Absent,
        Err(NoCounters::Forbidden) => Counters::Forbidden,
        Err(NoCounters::Failing(_)) => Counters::Failing,
    };
    Observed {
        perf_map: observers.perf_map,
        gdb: observers.gdb,
        perf_event_paranoid: number(root, "proc/sys/kernel/perf_event_paranoid"),
        counters,
    }
}

pub(super) fn confinement(root: &Path, protections: &Protections) -> Confinement {
    let status = text(root, "proc/self/status").unwrap_or_default();
    let filter = status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp:"));
    let filter = filter.map(str::trim);
    let allows = |file: &str| number::<u64>(root, file).is_none_or(|n| n > 0);
    let users = number::<u64>(root, "proc/sys/user/max_user_namespaces");
    let restricted = number(
        root,
        "proc/sys/kernel/apparmor_restrict_unprivileged_userns",
    );
    Confinement {
        landlock: protections.landlock_version(),
        seccomp: protections.has(Protection::Seccomp),
        missing: protections.missing().map(missing).collect(),
        is_filtered: filter.is_some_and(|mode| mode != "0"),
        user_namespaces: users.is_some_and(|n| n > 0)
            && allows("proc/sys/kernel/unprivileged_userns_clone")
            && restricted != Some(1),
    }
}

fn missing((protection, why): (Protection, &str)) -> Missing {
    Missing {
        protection: protection.to_string(),
        why: why.to_owned(),
        advice: protection.advice(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(tree: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in tree {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    #[test]
    fn cores_and_their_threads_are_told_apart_and_quotas_are_of_both_versions() {
        let siblings = ["0,2", "1,3", "0,2", "1,3"];
        let files: Vec<_> = (0..4)
            .map(|n| format!("sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list"))
            .collect();
        let mut tree: Vec<(&str, &str)> = files.iter().map(String::as_str).zip(siblings).collect();
        tree.push(("sys/devices/system/cpu/cpufreq/x", "1"));
        tree.push(("proc/self/cgroup", "0::/\n"));
        tree.push((
            "proc/self/mountinfo",
            "28 22 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        ));
        tree.push(("sys/fs/cgroup/cpu.max", "300000 100000\n"));
        tree.push(("sys/fs/cgroup/memory.max", "1048576\n"));
        let root = write(&tree);
        let found = threads(root.path(), 3);
        assert_eq!((found.cores, found.cpus), (Some(2), Some(4)));
        assert_eq!(found.quota, Some(3));
        assert_eq!(memory(root.path()).group_limit, Some(1 << 20));

        let root = write(&[
            ("proc/self/cgroup", "4:cpu,cpuacct:/a\n9:memory:/a\n"),
            (
                "proc/self/mountinfo",
                "30 25 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                 31 25 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
            ),
            ("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "200000\n"),
            ("sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "4096\n"),
        ]);
        let found = threads(root.path(), 2);
        assert_eq!((found.cores, found.quota), (None, Some(2)));
        assert_eq!(memory(root.path()).group_limit, Some(4096));
    }

    #[test]
    fn what_the_system_says_is_read_as_it_says_it() {
        let root = write(&[
            ("proc/cpuinfo", "processor\t: 0\nmodel name\t: A CPU 3000\n"),
            (
                "sys/kernel/mm/transparent_hugepage/enabled",
                "always [madvise] never\n",
            ),
            ("proc/sys/kernel/perf_event_paranoid", "-1\n"),
            ("proc/self/status", "Name:\tx\nSeccomp:\t2\n"),
            ("proc/sys/user/max_user_namespaces", "100\n"),
            ("proc/sys/kernel/unprivileged_userns_clone", "0\n"),
        ]);
        let root = root.path();
        assert_eq!(cpu(root).model, "A CPU 3000");
        assert_eq!(memory(root).huge_pages.as_deref(), Some("madvise"));
        let observed = observers(root, Observers::default());
        assert_eq!(observed.perf_event_paranoid, Some(-1));
        let protections = Protections::of_this_system();
        let confinement = confinement(root, &protections);
        assert!(confinement.is_filtered);
        assert_eq!(confinement.landlock, protections.landlock_version());
        assert!(!confinement.user_namespaces);

        let empty = write(&[]);
        assert_eq!(cpu(empty.path()).model, "unknown");
        assert_eq!(memory(empty.path()).huge_pages, None);
        assert!(!super::confinement(empty.path(), &protections).is_filtered);
    }

    #[test]
    fn memory_can_be_made_executable_and_guarded_where_tests_run() {
        let memory = memory(Path::new("/"));
        assert_eq!(memory.executable_problem, None);
        assert_eq!(memory.guard_problem, None);
    }
}
