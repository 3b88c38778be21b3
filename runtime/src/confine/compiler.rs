//! A confined compiler: how a host asks for one, and what the helper does about it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, id};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::process::Resource;
use tempfile::TempDir;

use super::helper::{COMPLAINT, FAILED, Mode, pass_on_no_files};
use super::protections::{Protection, no_new_privileges, with_cause};
use super::rights::{add_filter, limit};
use super::{Confinement, filter};

/// What the helper is asked for.
pub(super) const MODE: Mode = ("compiler", become_compiler);

/// What programs, their libraries and headers lie in, as systems have it. `/usr/local` is not
/// among them, nor is anything with settings, users or data.
const SYSTEM: &[&str] = &[
    "/bin",
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/aarch64-linux-gnu",
    "/usr/bin",
    "/usr/include",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/x86_64-linux-gnu",
];

/// What else a compiler reads: what the dynamic linker finds libraries with, what the processor
/// is, for `native`, and whether there are huge pages.
const FILES: &[&str] = &[
    "/etc/ld.so.cache",
    "/dev/urandom",
    "/proc/cpuinfo",
    "/sys/devices/system/cpu",
    "/sys/kernel/mm/transparent_hugepage",
];

/// The folders that make up an installation, beside each other.
const INSTALLED: &[&str] = &["bin", "include", "lib", "lib32", "lib64", "libexec"];

/// What it may inherit: by these it finds its parts, and by no other is it known.
const INHERITED: [&str; 2] = ["PATH", "LD_LIBRARY_PATH"];

/// How many files a compiler may have open.
const OPEN_FILES: u64 = 512;

/// A confined compiler that is about to be started.
#[derive(Debug)]
pub(crate) struct Confined {
    /// To which the compiler's arguments are added.
    pub(crate) command: Command,
    /// The folder that it may write into, which goes with this.
    pub(crate) folder: TempDir,
}

impl Confinement {
    /// The compiler `program`, for a source that may read what lies below these folders.
    pub(crate) fn compiler<'a>(
        &'a self,
        program: &Path,
        read: impl IntoIterator<Item = &'a Path>,
    ) -> io::Result<Confined> {
        let folder = tempfile::Builder::new().prefix("svod-").tempdir()?;
        let mut command = self.helper.command(MODE.0);
        if self.allow_less {
            command.arg("--less");
        }
        for readable in self.folders().chain(read) {
            command.arg("--read").arg(readable);
        }
        command.arg("--write").arg(folder.path());
        // Who waits ends it, and says so; this is for when nobody does any more.
        let seconds = self.limits.time.as_secs().saturating_add(2);
        for (name, most) in [
            ("--seconds", seconds),
            ("--memory", self.limits.memory),
            ("--file", self.limits.file),
        ] {
            command.arg(name).arg(most.to_string());
        }
        command.arg("--").arg(program);
        for name in INHERITED {
            let folders = env::var_os(name).and_then(|value| absolute(&value));
            command.envs(folders.map(|value| (name, value)));
        }
        command.env("TMPDIR", folder.path());
        Ok(Confined { command, folder })
    }
}

/// The folders of a list that do not depend on where one stands, which may be in the bundle: the
/// helper itself would load a library from there.
fn absolute(folders: &OsStr) -> Option<OsString> {
    let folders = env::split_paths(folders).filter(|folder| folder.is_absolute());
    let folders = env::join_paths(folders).ok();
    folders.filter(|folders| !folders.is_empty())
}

impl Confined {
    /// What the helper complained of, where it is not the compiler that ended so.
    pub(crate) fn complaint(status: Option<i32>, said: &str) -> Option<&str> {
        let complaint = said.trim().strip_prefix(COMPLAINT);
        complaint.filter(|_| status == Some(FAILED))
    }
}

/// What the helper is told.
#[derive(Default)]
struct Told {
    less: bool,
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    seconds: u64,
    memory: u64,
    file: u64,
    /// The compiler and its arguments.
    program: Vec<OsString>,
}

impl Told {
    fn by(arguments: &[OsString]) -> Option<Told> {
        let mut told = Told::default();
        let mut arguments = arguments.iter();
        loop {
            let option = arguments.next()?.to_str()?;
            match option {
                "--less" => told.less = true,
                "--read" => told.read.push(arguments.next()?.into()),
                "--write" => told.write.push(arguments.next()?.into()),
                "--seconds" => told.seconds = number(arguments.next()?)?,
                "--memory" => told.memory = number(arguments.next()?)?,
                "--file" => told.file = number(arguments.next()?)?,
                "--" => break,
                _ => return None,
            }
        }
        told.program = arguments.cloned().collect();
        (!told.program.is_empty()).then_some(told)
    }
}

fn number(text: &OsStr) -> Option<u64> {
    text.to_str()?.parse().ok()
}

/// Takes rights away and becomes the compiler; returns why it did not.
fn become_compiler(arguments: &[OsString]) -> String {
    let Some(told) = Told::by(arguments) else {
        return "it does not understand what it is told; it is of another version".into();
    };
    let Some((program, arguments)) = told.program.split_first() else {
        return "no compiler is named".into();
    };
    if let Err(why) = confine(&told, Path::new(program)) {
        return why;
    }
    let error = Command::new(program).args(arguments).exec();
    format!("{} cannot be started: {error}", program.display())
}

/// Takes from this process all rights but those of a compiler.
fn confine(told: &Told, program: &Path) -> Result<(), String> {
    let need = |protection: Protection, done: Result<(), String>| match done {
        Err(why) if !told.less => Err(format!("{protection}: {why}")),
        _ => Ok(()),
    };
    let system = |done: io::Result<()>| done.map_err(|e| e.to_string());
    need(Protection::NoNewPrivileges, system(no_new_privileges()))?;
    need(Protection::Limits, system(pass_on_no_files()))?;
    need(Protection::Landlock, restrict_files(told, program))?;
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::Nofile, OPEN_FILES),
        (Resource::Cpu, told.seconds),
        (Resource::As, told.memory),
        (Resource::Fsize, told.file),
    ] {
        need(Protection::Limits, system(limit(resource, most)))?;
    }
    need(Protection::Seccomp, refuse_calls())
}

fn refuse_calls() -> Result<(), String> {
    let failed = |e: seccompiler::Error| with_cause(&e);
    let refused = filter::compiler(id().into()).map_err(failed)?;
    let absent = filter::absent().map_err(failed)?;
    for filter in [&filter::NO_X32, absent.as_slice(), refused.as_slice()] {
        add_filter(filter).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Has Landlock refuse all files but those that a compiler needs.
fn restrict_files(told: &Told, program: &Path) -> Result<(), String> {
    let landlock = |e: landlock::RulesetError| with_cause(&e);
    // All that the first version knows is required; what later ones add is taken where it is
    // there: to cut a file, to move it between folders, to control a device, to reach the network
    // and to signal other processes, of which seccomp refuses the worst.
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .map_err(landlock)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(ABI::V4)))
        .and_then(|rules| rules.scope(Scope::from_all(ABI::V6)))
        .and_then(Ruleset::create)
        .map_err(landlock)?;
    let program = program
        .canonicalize()
        .map_err(|e| format!("{} cannot be found: {e}", program.display()))?;
    let run = AccessFs::Execute | AccessFs::ReadFile | AccessFs::ReadDir;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let system = SYSTEM.iter().map(PathBuf::from);
    for folder in system.chain(installation(&program)) {
        rules = allow_if_there(rules, &folder, run)?;
    }
    for file in FILES {
        rules = allow_if_there(rules, Path::new(file), read)?;
    }
    let null = AccessFs::ReadFile | AccessFs::WriteFile;
    rules = allow_if_there(rules, Path::new("/dev/null"), null)?;
    for folder in &told.read {
        rules = allow(rules, folder, read)?;
    }
    let write = read | AccessFs::from_write(ABI::V3) & !special_files();
    for folder in &told.write {
        rules = allow(rules, folder, write)?;
    }
    match rules.restrict_self().map_err(landlock)?.ruleset {
        RulesetStatus::NotEnforced => Err("it is not enforced".into()),
        _ => Ok(()),
    }
}

/// To make what is no file: a device, a socket, a pipe with a name.
fn special_files() -> BitFlags<AccessFs> {
    AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeSock | AccessFs::MakeFifo
}

/// What a compiler is installed in, where that is not among the system's folders: the program
/// itself and, where it lies in a folder of programs, what lies beside that.
fn installation(program: &Path) -> Vec<PathBuf> {
    let mut all = vec![program.to_owned()];
    let folder = program.parent().filter(|folder| folder.ends_with("bin"));
    if let Some(beside) = folder.and_then(Path::parent) {
        all.extend(INSTALLED.iter().map(|name| beside.join(name)));
    }
    all
}

fn allow_if_there(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, String> {
    if path.exists() {
        allow(rules, path, access)
    } else {
        Ok(rules)
    }
}

/// Allows what can be done with a file, or with all that lies below a folder.
fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, String> {
    let opened = PathFd::new(path).map_err(|e| format!("{}: {}", path.display(), with_cause(&e)));
    let is_folder = fs::metadata(path).is_ok_and(|meta| meta.is_dir());
    let access = if is_folder {
        access
    } else {
        access & AccessFs::from_file(ABI::V3)
    };
    let rule = PathBeneath::new(opened?, access);
    let added = rules.add_rule(rule);
    added.map_err(|e| format!("{}: {}", path.display(), with_cause(&e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_looked_for_where_one_stands() {
        let absolute = |list: &str| absolute(OsStr::new(list));
        assert_eq!(
            absolute(":/usr/lib::lib:./x:/opt"),
            Some("/usr/lib:/opt".into())
        );
        assert_eq!(absolute(":."), None);
        assert_eq!(absolute(""), None);
    }

    #[test]
    fn what_a_helper_is_told_is_understood_as_a_whole_or_not() {
        let told = |text: &str| {
            let words: Vec<OsString> = text.split(' ').map(OsString::from).collect();
            Told::by(&words)
        };
        let all = told(
            "--less --read /a --read /b --write /c --seconds 2 --memory 3 --file 4 -- cc --read x",
        );
        let all = all.unwrap();
        assert!(all.less);
        assert_eq!(all.read, [PathBuf::from("/a"), "/b".into()]);
        assert_eq!((all.seconds, all.memory, all.file), (2, 3, 4));
        assert_eq!(all.program, ["cc", "--read", "x"]);
        for bad in [
            "",
            "--",
            "cc",
            "--read",
            "--seconds x -- cc",
            "--more -- cc",
            "--read /a",
        ] {
            assert!(told(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn an_installation_is_what_lies_beside_its_programs() {
        let all = installation(Path::new("/opt/llvm/bin/clang"));
        assert!(all.contains(&"/opt/llvm/lib".into()) && all.contains(&"/opt/llvm/bin".into()));
        assert!(!all.contains(&"/opt/llvm".into()));
        assert_eq!(
            installation(Path::new("/home/me/cc")),
            [PathBuf::from("/home/me/cc")]
        );
    }
}
