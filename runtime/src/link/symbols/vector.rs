//! Vector libm: many elements in one call.
//!
//! gcc `-Ofast`, where a header declares vector variants, and clang
//! `-fveclib=libmvec -ffast-math` turn a loop over `sinf` into calls of
//! `_ZGVdN8v_sinf`: the letter after `_ZGV` is the instruction set, then whether it is
//! masked, the number of elements, and how each argument is passed (*Vector Function
//! ABI*). glibc has them for x86-64 from 2.22 and for aarch64 from 2.38, in a library
//! of its own; other C libraries have none.

use std::sync::{Arc, OnceLock};

use super::Definition;
use super::system::SystemLibrary;

/// The system's vector libm, opened at the first name that asks for it.
#[derive(Clone, Debug, Default)]
pub(super) struct VectorLibm(Arc<OnceLock<SystemLibrary>>);

impl VectorLibm {
    /// The function `name`, if it is a vector function's name and the system has it.
    pub(super) fn resolve(&self, name: &str) -> Option<Definition> {
        // A handle finds what the library depends on as well, which is libm and libc.
        if !name.starts_with("_ZGV") {
            return None;
        }
        let library = self.0.get_or_init(|| SystemLibrary::open("libmvec.so.1"));
        let function = library.function(name)?;
        Some(Definition::Function(function as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_vector_functions_are_looked_up() {
        let libm = VectorLibm::default();
        for name in ["sin", "system", "", "ZGVbN2v_sin"] {
            assert_eq!(libm.resolve(name), None, "{name}");
        }
        assert!(libm.0.get().is_none(), "nothing asked for the library");
        for name in ["_ZGV", "_ZGVbN2v_nothing", "_ZGV\0sin"] {
            assert_eq!(libm.resolve(name), None, "{name:?}");
        }
    }
}
