//! How many threads find a CPU of their own.
//!
//! Two things bound it: the CPUs that the calling thread may run on, and the quota of
//! the control groups that the process is in, by which containers are kept to a part of
//! a machine. A team that is larger than either spins on CPUs that it does not get: the
//! thread that everybody waits for is the one that is not running.
//!
//! [`std::thread::available_parallelism`] answers the same question, and the same way in
//! most places: the affinity mask, and the quotas of both versions of control groups,
//! rounded down. It looks for version 2 at `/sys/fs/cgroup` alone, and there by the whole
//! name of the group, so that it misses the quota on a hybrid system that has `cpu` in
//! version 2 elsewhere, and in a container that shares the host's names and sees only its
//! own group; it does not undo the escapes of `mountinfo`; and above 1024 CPUs it ignores
//! the mask. None of it can be tried but in such a container, whereas here the files are
//! read below a folder that is given, and the tests have recorded trees of them.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::num::NonZero;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

#[cfg(test)]
mod tests;

/// How many threads can run at the same time, at least 1: as many as the calling thread
/// has CPUs that it may run on, or as the quotas of its control groups pay for, whichever
/// is less.
///
/// A quota is rounded down: 2.5 CPUs are 2 threads. What cannot be read is no limit. The
/// answer is the moment's; either may be changed from outside at any time.
#[must_use]
pub fn available_threads() -> usize {
    let system = Path::new("/");
    threads(allowed(system), quota(system))
}

/// How many CPUs the calling thread may run on.
pub(crate) fn allowed(root: &Path) -> Option<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(cpus) => usize::try_from(cpus.count()).ok(),
        // The mask has room for 1024 CPUs, and a kernel that was started for more
        // refuses to fill it. As text it has any length.
        Err(_) => allowed_cpus(root),
    }
}

fn threads(allowed: Option<usize>, quota: Option<usize>) -> usize {
    let allowed = allowed.unwrap_or(1);
    quota.unwrap_or(allowed).min(allowed).max(1)
}

/// How many CPUs the calling thread may run on, by the text that the kernel gives.
fn allowed_cpus(root: &Path) -> Option<usize> {
    let status = fs::read_to_string(root.join("proc/thread-self/status")).ok()?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let mut count = 0_usize;
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        let more = last.checked_sub(first)?.checked_add(1)?;
        count = count.checked_add(usize::try_from(more).ok()?)?;
    }
    Some(count)
}

/// How many whole CPUs the quotas of the process's control groups pay for, which may be
/// 0; `None` without a quota. The system's files are looked for below `root`.
pub(crate) fn quota(root: &Path) -> Option<usize> {
    least(root, Controller::Cpu)
}

/// How many bytes the process's control groups let it have; `None` without a limit.
pub(crate) fn memory_limit(root: &Path) -> Option<usize> {
    // Version 1 says that there is none by a number that no machine has.
    const NONE: usize = 1 << 60;
    least(root, Controller::Memory).filter(|&limit| limit < NONE)
}

/// The least that a group of the process, or one above it, has of something.
fn least(root: &Path, controller: Controller) -> Option<usize> {
    let groups = fs::read(root.join("proc/self/cgroup")).ok()?;
    let mounts = fs::read(root.join("proc/self/mountinfo")).ok()?;
    let groups: Vec<Group> = lines(&groups)
        .filter_map(|line| Group::parse(line, controller))
        .collect();
    // On a hybrid system both versions are mounted, and at most one has quotas. Where a
    // hierarchy is mounted twice, all that can be read of the group is true of it.
    lines(&mounts)
        .filter_map(|line| Mount::parse(line, controller))
        .flat_map(|mount| groups.iter().filter_map(move |g| mount.least(root, g)))
        .min()
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
}

/// What groups limit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Controller {
    Cpu,
    Memory,
}

impl Controller {
    const fn name(self) -> &'static [u8] {
        match self {
            Controller::Cpu => b"cpu",
            Controller::Memory => b"memory",
        }
    }

    /// What the group whose folder this is has of it, without those above it.
    fn limit(self, version: Version, folder: &Path) -> Option<usize> {
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        match self {
            Controller::Cpu => version.quota(folder),
            Controller::Memory => {
                let name = match version {
                    Version::V1 => "memory.limit_in_bytes",
                    Version::V2 => "memory.max",
                };
                read(name)?.trim().parse().ok()
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    /// A hierarchy for each controller, or for some together.
    V1,
    /// One hierarchy for all.
    V2,
}

impl Version {
    /// The quota of the group whose folder this is, without those above it.
    fn quota(self, folder: &Path) -> Option<usize> {
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        match self {
            Version::V1 => whole_cpus(&read("cpu.cfs_quota_us")?, &read("cpu.cfs_period_us")?),
            Version::V2 => {
                let both = read("cpu.max")?;
                let (quota, period) = both.trim().split_once(' ')?;
                whole_cpus(quota, period)
            }
        }
    }
}

/// A quota of so many microseconds in each period of so many. Without one, the quota is
/// `max` or -1, which is no number here.
///
/// It is rounded down. A thread that waits for others by spinning uses its CPU as fully
/// as one that works, so that a team of two with a quota of 1.5 has used it up after
/// three quarters of each period, and then all of the process stands still for the last
/// quarter, 25 ms as a rule, in the middle of whatever it does. One thread never waits
/// for its quota, and half a CPU is left for the rest of the process. Whoever prefers
/// throughput to that can ask for more threads.
fn whole_cpus(quota: &str, period: &str) -> Option<usize> {
    let quota: NonZero<u64> = quota.trim().parse().ok()?;
    let period: NonZero<u64> = period.trim().parse().ok()?;
    usize::try_from(quota.get() / period.get()).ok()
}

/// A group of the process, in the hierarchy of a controller.
struct Group {
    version: Version,
    path: PathBuf,
}

impl Group {
    /// Of a line of `/proc/self/cgroup`: `4:cpu,cpuacct:/path`, or `0::/path` for
    /// version 2.
    fn parse(line: &[u8], controller: Controller) -> Option<Group> {
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let version = match controllers {
            b"" if number == b"0" => Version::V2,
            _ if has(controllers, controller) => Version::V1,
            _ => return None,
        };
        let path = PathBuf::from(OsStr::from_bytes(path));
        Some(Group { version, path })
    }
}

/// A folder that shows a hierarchy, or a part of one.
struct Mount {
    version: Version,
    controller: Controller,
    /// The group that the folder itself stands for.
    group: PathBuf,
    /// The folder, without the slash that it begins with.
    folder: PathBuf,
}

impl Mount {
    /// Of a line of `/proc/self/mountinfo`: an id, the parent's, a device, what of the
    /// file system is mounted, where, with which options, any number of tags, a `-`, the
    /// type of the file system, a name, and its own options.
    fn parse(line: &[u8], controller: Controller) -> Option<Mount> {
        let mut fields = line.split(|byte| *byte == b' ');
        let (group, folder) = (fields.nth(3)?, fields.next()?);
        fields.find(|field| *field == b"-")?;
        let (kind, options) = (fields.next()?, fields.nth(1)?);
        let version = match kind {
            b"cgroup2" => Version::V2,
            b"cgroup" if has(options, controller) => Version::V1,
            _ => return None,
        };
        Some(Mount {
            version,
            controller,
            group: unescape(group),
            folder: unescape(folder).strip_prefix("/").ok()?.to_owned(),
        })
    }

    /// The least that a group has, and all those above it that can be seen here.
    fn least(&self, root: &Path, group: &Group) -> Option<usize> {
        let below = group.path.strip_prefix(&self.group).ok()?;
        // A group outside of the process's namespace has a name that leads up first.
        let leads_up = below.components().any(|c| c == Component::ParentDir);
        if self.version != group.version || leads_up {
            return None;
        }
        let folder = root.join(&self.folder);
        below
            .ancestors()
            .filter_map(|part| self.controller.limit(self.version, &folder.join(part)))
            .min()
    }
}

fn has(list: &[u8], controller: Controller) -> bool {
    let mut names = list.split(|byte| *byte == b',');
    names.any(|name| name == controller.name())
}

/// A name of `mountinfo`, where a space is written `\040`, and other bytes likewise.
fn unescape(name: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    loop {
        rest = match rest {
            [
                b'\\',
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                after @ ..,
            ] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                after
            }
            [byte, after @ ..] => {
                bytes.push(*byte);
                after
            }
            [] => return PathBuf::from(OsString::from_vec(bytes)),
        };
    }
}
