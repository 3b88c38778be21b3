//! Programs that are started to confine themselves.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::sync::atomic::{AtomicBool, Ordering};

use super::compiler;
use crate::Error;

/// What a helper is called, by whoever starts it.
const NAME: &str = "svod-helper";

/// The exit status of a helper that did not do what it was for. What it printed says why.
pub(super) const FAILED: i32 = 119;

/// What a helper's complaint begins with.
pub(super) const COMPLAINT: &str = "svod-helper: ";

/// Something that a helper is for: a name, its first argument, and what it does with the others,
/// which it does not return from unless it has failed.
pub(crate) type Mode = (&'static str, fn(&[OsString]) -> String);

const MODES: &[Mode] = &[compiler::MODE];

/// Whether [`enter_with`] was called in this process.
static ENTERED: AtomicBool = AtomicBool::new(false);

/// Does what this process was started as a helper for, and returns at once where it was started for
/// none: what [`enter`](crate::sandbox::enter) does, which knows `more` that helpers are for.
pub(crate) fn enter_with(more: &[Mode]) {
    ENTERED.store(true, Ordering::Relaxed);
    let mut arguments = env::args_os();
    if arguments.next().is_none_or(|name| name != NAME) {
        return;
    }
    let asked = arguments.next().unwrap_or_default();
    let rest: Vec<OsString> = arguments.collect();
    let mut modes = MODES.iter().chain(more);
    let why = match modes.find(|(name, _)| asked == *name) {
        Some((_, run)) => run(&rest),
        None => format!(
            "there is nothing to help that is called {}",
            asked.display()
        ),
    };
    eprintln!("{COMPLAINT}{why}");
    exit(FAILED);
}

/// A program that is started to confine itself: one whose `main` begins with
/// [`enter`](crate::sandbox::enter).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper {
    program: PathBuf,
}

impl Helper {
    /// The program that is running, also where its file was replaced by now.
    ///
    /// # Errors
    ///
    /// [`Error::Confinement`] where its `main` has not called [`enter`](crate::sandbox::enter): it
    /// would be started, and do all that it does.
    pub fn this_program() -> Result<Helper, Error> {
        if !ENTERED.load(Ordering::Relaxed) {
            let reason = "the main function of this program has to begin with \
                          svod_runtime::sandbox::enter(), so that the program can be started to \
                          confine itself; or name one that does, by Helper::program";
            return Err(Error::confinement("anything", reason));
        }
        Ok(Helper::program("/proc/self/exe"))
    }

    /// The program at this path, as `svod` is one, of the version that this library has.
    #[must_use]
    pub fn program(path: impl Into<PathBuf>) -> Helper {
        Helper {
            program: path.into(),
        }
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.program
    }

    /// It, about to be started in a mode, with no environment.
    pub(crate) fn command(&self, mode: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg0(NAME).arg(mode).env_clear();
        command
    }
}

/// Has libc keep the memory of all threads in one heap from now on. With a heap for each thread
/// it opens files of the system's, to see how many CPUs there are and whether a heap may shrink,
/// which a confined process cannot: this is to be called before it is confined.
pub fn one_heap() {
    // SAFETY: it sets a number in libc's allocator, under its lock.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Has the system close every descriptor but the first three when this process starts another
/// program.
pub(super) fn pass_on_no_files() -> io::Result<()> {
    // SAFETY: it marks descriptors, and closes none.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3_u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if failed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_has_not_entered_is_no_helper() {
        let error = Helper::this_program().unwrap_err().to_string();
        assert!(error.contains("sandbox::enter()"), "{error}");
    }
}
