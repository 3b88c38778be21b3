//! The symbols that a kernel may use and not define.
//!
//! Compilers call memory functions, libm and helpers of their own, for half
//! precision, complex numbers and 128-bit integers, in freestanding code as well.
//! The runtime owns the list of what they get: nothing is looked up in whatever the
//! process happens to have loaded, so that a kernel links the same everywhere or not
//! at all. libm and vector libm are asked for what is on the list, or begins as vector
//! functions do, by the names of their libraries: `libm.rs` and `vector.rs` say why.
//!
//! What is on the list:
//!
//! | file | what | where it comes from |
//! | --- | --- | --- |
//! | `memory.rs` | `memcpy` and its kin, what hardening flags call | C library; checks in Rust |
//! | `libm.rs` | C11's real functions in both precisions, and some of GNU's | libm |
//! | `integer.rs` | 128-bit integers, checked arithmetic, bit counts, powers | Rust |
//! | `half.rs` | half precision and bfloat16 | Rust |
//! | `complex.rs` | products and quotients of complex numbers | Rust |
//! | `vector.rs` | `_ZGV…` | `libmvec.so.1`, where there is one |
//!
//! On the list is what clang 14, 15, 16, 19 and 22, gcc 12 and rustc 1.95 were seen to
//! call when they compiled probes of each operation for x86-64 and aarch64, and what
//! libgcc's and compiler-rt's manuals put beside it. Not on the list are helpers for
//! `long double`, in which Rust cannot compute; for CPUs without floating point; and
//! C23's `fmaximum` and its kin: compilers have instructions for those on both
//! architectures, and glibc has them from 2.35 only. What is taken from the C library has
//! been in glibc since 2.4 at the latest; `roundeven`, of 2.25, is Rust's.
//!
//! # Calling conventions
//!
//! From the *System V ABI, AMD64 supplement*, and the *Procedure Call Standard for
//! the Arm 64-bit Architecture*:
//!
//! - `__int128` is Rust's `i128`, in two integer registers.
//! - A half, or a bfloat16, travels in the low 16 bits of a vector register. Stable
//!   Rust has no such type; an `f32` travels in the same register, so the helpers take
//!   an `f32` of which the low 16 bits count.
//! - clang before 15 has no such convention on x86-64: it passes a half as an integer,
//!   and looks for one in `ax`. Where a name has both conventions, the function returns
//!   its result in both registers: a struct of an integer and a `double` is returned in
//!   `rax` and `xmm0`, each half of it in the register of its class.
//! - A complex number is two arguments. It is returned as a struct of two
//!   numbers is: two `double`s in two registers; two `float`s in one register on
//!   x86-64 and in two on aarch64; two halves likewise.

/// Defines functions under the names by which compilers call them, and lists them.
macro_rules! helpers {
    ($(
        $(#[$attribute:meta])*
        fn $name:ident($($arg:ident: $type:ty),*) $(-> $ret:ty)? $body:block
    )*) => {
        $(
            $(#[$attribute])*
            extern "C" fn $name($($arg: $type),*) $(-> $ret)? $body
        )*

        /// The functions of this file, by their names.
        pub(super) fn helpers() -> Vec<(&'static str, *const std::ffi::c_void)> {
            vec![$((stringify!($name), $name as *const std::ffi::c_void)),*]
        }
    };
}

/// Declares functions of the C library and of libm, which Rust's standard library
/// links, and lists them.
macro_rules! c_functions {
    ($($name:ident($($arg:ty),*) $(-> $ret:ty)?;)*) => {
        /// As C declares them.
        pub(super) mod c {
            #[allow(unused_imports)] // some lists use one of them, some the other
            use std::ffi::{c_char, c_int, c_long, c_longlong, c_void};
            unsafe extern "C" {
                $(pub(in crate::link::symbols) fn $name($(_: $arg),*) $(-> $ret)?;)*
            }
        }

        /// The C functions of this file, by their names.
        pub(super) fn c_functions() -> Vec<(&'static str, *const std::ffi::c_void)> {
            vec![$((stringify!($name), c::$name as *const std::ffi::c_void)),*]
        }
    };
}

mod complex;
mod half;
mod integer;
mod libm;
mod memory;
mod system;
mod vector;

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::c_void;

use vector::VectorLibm;

/// What an undefined symbol turns out to be, and where it is.
///
/// The difference matters where code refers to a symbol in 32 bits that do not reach
/// it: a stub can stand for a function, and nothing can for data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Definition {
    /// A function, at this address.
    Function(u64),
    /// A constant, at this address.
    Data(u64),
}

impl Definition {
    /// Where it is.
    #[must_use]
    pub const fn address(self) -> u64 {
        match self {
            Definition::Function(address) | Definition::Data(address) => address,
        }
    }
}

/// Says what undefined symbols are, and where.
pub trait Resolver {
    /// What `name` is, if it is known.
    fn resolve(&self, name: &str) -> Option<Definition>;
}

/// The symbols of one runtime: the built-in list and what an embedder added.
///
/// A copy shares the vector libm that the original has opened.
#[derive(Clone, Debug)]
pub struct Symbols {
    definitions: HashMap<Cow<'static, str>, Definition>,
    vector: VectorLibm,
}

impl Default for Symbols {
    fn default() -> Symbols {
        let functions = [
            memory::c_functions(),
            memory::helpers(),
            libm::functions(),
            integer::helpers(),
            half::helpers(),
            complex::helpers(),
        ]
        .into_iter()
        .flatten()
        .map(|(name, address)| (name, Definition::Function(address as u64)));
        Symbols {
            definitions: functions
                .chain(memory::constants())
                .map(|(name, definition)| (name.into(), definition))
                .collect(),
            vector: VectorLibm::default(),
        }
    }
}

impl Symbols {
    /// Adds a function, or replaces one.
    ///
    /// # Safety
    ///
    /// `address` must be that of a function of the type that kernels declare for
    /// `name`, and stay valid for as long as any kernel that uses it.
    pub unsafe fn insert(&mut self, name: impl Into<String>, address: *const c_void) {
        self.define(name.into(), Definition::Function(address as u64));
    }

    /// Adds a constant, or replaces one.
    ///
    /// # Safety
    ///
    /// `address` must be that of a constant of the type that kernels declare for
    /// `name`, and stay valid, and the same, for as long as any kernel that uses it.
    pub unsafe fn insert_data(&mut self, name: impl Into<String>, address: *const c_void) {
        self.define(name.into(), Definition::Data(address as u64));
    }

    fn define(&mut self, name: String, definition: Definition) {
        self.definitions.insert(name.into(), definition);
    }

    /// The names, in no order; without those of vector libm, which are known once a
    /// kernel asks for them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.definitions.keys().map(AsRef::as_ref)
    }
}

impl Resolver for Symbols {
    fn resolve(&self, name: &str) -> Option<Definition> {
        let listed = self.definitions.get(name).copied();
        listed.or_else(|| self.vector.resolve(name))
    }
}
