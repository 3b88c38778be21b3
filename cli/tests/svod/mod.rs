//! The command as a process.

// Each test crate uses a part of this.
#![allow(dead_code)]

use std::process::{Command, Output};

/// The command with its arguments.
pub(crate) struct Svod(pub(crate) Command);

pub(crate) fn svod(args: &[&str]) -> Svod {
    let mut command = Command::new(env!("CARGO_BIN_EXE_svod"));
    command
        .args(args)
        .env_remove("SVOD_CC")
        .env_remove("SVOD_THREADS")
        .env_remove("SVOD_PERF_MAP")
        .env_remove("SVOD_GDB")
        .env_remove("NO_COLOR");
    Svod(command)
}

impl Svod {
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Svod {
        self.0.env(name, value);
        self
    }

    /// Standard output and standard error, where it ends with `status`.
    #[track_caller]
    pub(crate) fn ends_with(mut self, status: i32) -> (String, String) {
        let Output {
            status: ended,
            stdout,
            stderr,
        } = self.0.output().unwrap();
        let stdout = String::from_utf8(stdout).unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        assert_eq!(ended.code(), Some(status), "{stdout}\n{stderr}");
        (stdout, stderr)
    }

    /// Standard output, where it ends well and says nothing else.
    #[track_caller]
    pub(crate) fn succeeds(self) -> String {
        let (stdout, stderr) = self.ends_with(0);
        assert_eq!(stderr, "");
        stdout
    }
}
