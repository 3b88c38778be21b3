//! A library of the system's, by its name.

use std::ffi::c_void;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

/// Do not unmap the library when its last handle is closed. The value is Linux's, for
/// every architecture and C library.
const RTLD_NODELETE: i32 = 0x1000;

/// A part of the C library, if this system has it.
///
/// It stays mapped for as long as the process lives: kernels that call it may outlive
/// the list of symbols.
#[derive(Debug)]
pub(super) struct SystemLibrary(Option<Library>);

impl SystemLibrary {
    /// `name` is that of a part of the C library.
    pub(super) fn open(name: &str) -> SystemLibrary {
        // SAFETY: opening runs the initialisers of the library and of what it depends
        // on. Parts of the C library have none that this process, which has the C library,
        // has not run or could not run.
        let library = unsafe { Library::open(Some(name), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) };
        let said = |error: &_| tracing::debug!(name, %error, "a library is not used");
        SystemLibrary(library.inspect_err(said).ok())
    }

    /// The address of the function `name`.
    pub(super) fn function(&self, name: &str) -> Option<*const c_void> {
        let library = self.0.as_ref()?;
        // SAFETY: the symbol is not called here, only its address is taken, so that its
        // type does not matter.
        let function = unsafe { library.get::<unsafe extern "C" fn()>(name) }.ok()?;
        Some(*function as *const c_void)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_has_no_functions() {
        let none = SystemLibrary::open("libm-that-is-not-there.so.6");
        assert_eq!(none.function("sin"), None);
    }
}
