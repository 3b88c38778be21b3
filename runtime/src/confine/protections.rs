//! What this system can confine with: tried, since what it has and what it lets a process use
//! are two things.

use std::fmt;
use std::io;
use std::thread;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, LandlockStatus, Ruleset, RulesetAttr,
};
use rustix::process::{Resource, getrlimit, setrlimit};

use super::filter;
use crate::Error;

/// Something by which a process can be confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protection {
    /// What a process starts has no more rights than it has, whatever the file says.
    NoNewPrivileges,
    /// System calls are refused.
    Seccomp,
    /// Files are refused by where they lie.
    Landlock,
    /// Memory, time, and files are limited.
    Limits,
}

impl Protection {
    /// All of them.
    pub const ALL: [Protection; 4] = [
        Protection::NoNewPrivileges,
        Protection::Seccomp,
        Protection::Landlock,
        Protection::Limits,
    ];

    /// What to do where it is missing.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Protection::NoNewPrivileges => "use Linux 3.5 or newer",
            Protection::Seccomp => {
                "use a Linux with seccomp filters (CONFIG_SECCOMP_FILTER); in a container, its own \
                 seccomp profile must allow `seccomp` and `prctl`"
            }
            Protection::Landlock => {
                "use Linux 5.13 or newer with landlock among its security modules (see \
                 /sys/kernel/security/lsm, and the boot parameter lsm=); in a container, its \
                 seccomp profile must allow the calls landlock_*"
            }
            Protection::Limits => "let the process set limits of its own (prlimit)",
        }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protection::NoNewPrivileges => "no-new-privileges",
            Protection::Seccomp => "seccomp",
            Protection::Landlock => "Landlock",
            Protection::Limits => "resource limits",
        })
    }
}

/// What of all [`Protection`]s a system has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protections {
    /// The version of Landlock's interface.
    landlock: Option<u32>,
    /// Those that did not work, and what the system said.
    missing: Vec<(Protection, String)>,
}

impl Protections {
    /// What this system has, and lets this thread use: each is tried, on a thread that ends with
    /// it, which takes a tenth of a millisecond.
    #[must_use]
    pub fn of_this_system() -> Protections {
        // Filters, Landlock's domains and lost privileges are a thread's, and inherited.
        let tried = thread::Builder::new()
            .spawn(try_all)
            .map(thread::JoinHandle::join);
        match tried {
            Ok(Ok(protections)) => protections,
            _ => Protections {
                landlock: None,
                missing: Protection::ALL
                    .map(|p| (p, "it could not be tried".into()))
                    .into(),
            },
        }
    }

    /// Whether it is there.
    #[must_use]
    pub fn has(&self, protection: Protection) -> bool {
        self.missing
            .iter()
            .all(|(missing, _)| *missing != protection)
    }

    /// Those that are not there, and why.
    pub fn missing(&self) -> impl Iterator<Item = (Protection, &str)> {
        self.missing
            .iter()
            .map(|(protection, why)| (*protection, why.as_str()))
    }

    /// The version of Landlock's interface, where it is there.
    #[must_use]
    pub const fn landlock_version(&self) -> Option<u32> {
        self.landlock
    }

    /// That all of these are there.
    ///
    /// # Errors
    ///
    /// [`Error::Confinement`], which names what is missing, and says what to do; `less` is how to
    /// go on without.
    pub fn require(&self, needed: &[Protection], what: &str, less: &str) -> Result<(), Error> {
        let lacks = |(protection, why): (Protection, &str)| {
            let advice = protection.advice();
            let line = || format!("this system lacks {protection} ({why}): {advice}");
            needed.contains(&protection).then(line)
        };
        let lacking: Vec<String> = self.missing().filter_map(lacks).collect();
        if lacking.is_empty() {
            return Ok(());
        }
        let lacking = lacking.join("; ");
        Err(Error::confinement(what, format!("{lacking}; or {less}")))
    }
}

fn try_all() -> Protections {
    let mut missing = Vec::new();
    let mut note = |protection, result: Result<(), String>| {
        if let Err(why) = result {
            missing.push((protection, why));
        }
    };
    note(
        Protection::NoNewPrivileges,
        no_new_privileges().map_err(told),
    );
    note(Protection::Seccomp, try_filter());
    let landlock = try_landlock();
    note(
        Protection::Landlock,
        landlock.as_ref().map(|_| ()).map_err(String::clone),
    );
    note(Protection::Limits, try_limit().map_err(told));
    Protections {
        landlock: landlock.ok(),
        missing,
    }
}

fn told(error: io::Error) -> String {
    error.to_string()
}

/// Gives up for good, for this thread and all that it starts, what a file's rights would add.
pub(super) fn no_new_privileges() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

fn try_filter() -> Result<(), String> {
    let filter = filter::nothing().map_err(|e| e.to_string())?;
    seccompiler::apply_filter(&filter).map_err(|e| with_cause(&e))
}

fn try_landlock() -> Result<u32, String> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1));
    let confined = ruleset
        .and_then(Ruleset::create)
        .and_then(|r| r.restrict_self());
    match confined.map_err(|e| with_cause(&e))?.landlock {
        LandlockStatus::Available {
            effective_abi,
            kernel_abi,
        } => {
            let version = kernel_abi.unwrap_or(effective_abi as i32);
            u32::try_from(version).map_err(|e| e.to_string())
        }
        LandlockStatus::NotEnabled => Err("it is off".into()),
        LandlockStatus::NotImplemented => Err("the system does not know it".into()),
    }
}

/// A limit, set to what it is.
fn try_limit() -> io::Result<()> {
    Ok(setrlimit(Resource::Core, getrlimit(Resource::Core))?)
}

/// An error and its causes, in a line.
pub(super) fn with_cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let protections = Protections {
            landlock: None,
            missing: vec![(Protection::Landlock, "it is off".into())],
        };
        assert!(protections.has(Protection::Seccomp));
        assert!(!protections.has(Protection::Landlock));
        let needed = [Protection::Seccomp, Protection::Limits];
        protections.require(&needed, "kernels", "go").unwrap();
        let error = protections.require(&Protection::ALL, "compilers", "take less");
        let text = error.unwrap_err().to_string();
        for part in [
            "cannot confine compilers: this system lacks Landlock (it is off): use Linux 5.13",
            "or take less",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn who_tries_keeps_its_own_rights() {
        let status = || std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let of = |status: &str| {
            let lines = status.lines();
            let rights = lines.filter(|l| l.starts_with("NoNewPrivs") || l.starts_with("Seccomp"));
            rights.map(str::to_owned).collect::<Vec<_>>()
        };
        let before = of(&status());
        let once = Protections::of_this_system();
        assert_eq!(of(&status()), before);
        assert_eq!(Protections::of_this_system(), once);
    }
}
