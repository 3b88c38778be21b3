//! Compilers as processes, and libraries as the system loads them.

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles a C source into an object.
#[track_caller]
pub(crate) fn compile(compiler: &Path, flags: &str, source: &Path, object: &Path) {
    let mut command = Command::new(compiler);
    command.args(flags.split_whitespace());
    command.arg("-c").arg(source).arg("-o").arg(object);
    succeed(&mut command);
}

/// Runs a command, which must succeed.
#[track_caller]
pub(crate) fn succeed(command: &mut Command) -> Vec<u8> {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Makes a shared library of an object and loads it.
pub(crate) fn link_shared(compiler: &Path, object: &Path, flags: &[&str]) -> Library {
    let library = object.with_extension("so");
    let mut command = Command::new(compiler);
    command.arg("-shared").arg("-o").arg(&library).arg(object);
    succeed(command.args(flags).arg("-lm"));
    Library::open(&library)
}

unsafe extern "C" {
    fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlclose(library: *mut c_void) -> c_int;
}

/// A shared library, loaded by the system.
pub(crate) struct Library {
    handle: *mut c_void,
    path: PathBuf,
}

impl Library {
    pub(crate) fn open(path: &Path) -> Library {
        const RTLD_NOW: c_int = 2;
        let name = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: a path that ends in zero; the library was just made of sources that
        // have no constructors.
        let handle = unsafe { dlopen(name.as_ptr(), RTLD_NOW) };
        assert!(!handle.is_null(), "cannot load {}", path.display());
        Library {
            handle,
            path: path.to_owned(),
        }
    }

    /// The function `name`. It is valid while the library lives.
    pub(crate) fn function(&self, name: &str) -> *const c_void {
        let symbol = CString::new(name).unwrap();
        // SAFETY: the library is open, and the name ends in zero.
        let found = unsafe { dlsym(self.handle, symbol.as_ptr()) };
        assert!(!found.is_null(), "no {name} in {}", self.path.display());
        found
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once; its functions are called while it lives.
        unsafe { dlclose(self.handle) };
    }
}
