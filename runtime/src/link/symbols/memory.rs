//! Memory functions, and what hardened code calls when it finds itself attacked.

use std::ffi::{c_int, c_void};
use std::io::Write;

use super::Definition;

c_functions! {
    memcpy(*mut c_void, *const c_void, usize) -> *mut c_void;
    memmove(*mut c_void, *const c_void, usize) -> *mut c_void;
    memset(*mut c_void, c_int, usize) -> *mut c_void;
    memcmp(*const c_void, *const c_void, usize) -> c_int;
    // What the above become where less is asked of them: clang makes a `memcmp` whose
    // sign nobody reads a `bcmp`, gcc a `memcpy` whose end is wanted a `mempcpy`.
    bcmp(*const c_void, *const c_void, usize) -> c_int;
    mempcpy(*mut c_void, *const c_void, usize) -> *mut c_void;
    memchr(*const c_void, c_int, usize) -> *mut c_void;
    // gcc and clang 22 recognise loops that look for a zero.
    strlen(*const c_char) -> usize;
    wcslen(*const c_int) -> usize;
    // Says that the stack was smashed, and aborts.
    __stack_chk_fail();
}

helpers! {
    // Calls to memory functions whose destination has a known size, which comes last.
    fn __memcpy_chk(to: *mut c_void, from: *const c_void, n: usize, room: usize) -> *mut c_void {
        fits("memcpy", n, room);
        // SAFETY: the caller's promise for `memcpy`; `n` bytes fit.
        unsafe { c::memcpy(to, from, n) }
    }
    fn __mempcpy_chk(to: *mut c_void, from: *const c_void, n: usize, room: usize) -> *mut c_void {
        fits("mempcpy", n, room);
        // SAFETY: as above.
        unsafe { c::mempcpy(to, from, n) }
    }
    fn __memmove_chk(to: *mut c_void, from: *const c_void, n: usize, room: usize) -> *mut c_void {
        fits("memmove", n, room);
        // SAFETY: as above.
        unsafe { c::memmove(to, from, n) }
    }
    fn __memset_chk(to: *mut c_void, byte: c_int, n: usize, room: usize) -> *mut c_void {
        fits("memset", n, room);
        // SAFETY: as above.
        unsafe { c::memset(to, byte, n) }
    }
}

/// What stack protectors compare with. On aarch64 it is a variable of the C library's,
/// written before a program begins; on x86-64 it lies at a fixed place in the thread's
/// own memory, and no symbol is needed.
pub(super) fn constants() -> Vec<(&'static str, Definition)> {
    #[cfg(target_arch = "aarch64")]
    {
        unsafe extern "C" {
            static __stack_chk_guard: usize;
        }
        let address = (&raw const __stack_chk_guard) as u64;
        vec![("__stack_chk_guard", Definition::Data(address))]
    }
    #[cfg(not(target_arch = "aarch64"))]
    Vec::new()
}

/// Aborts where `n` bytes are more than there is room for.
fn fits(function: &str, n: usize, room: usize) {
    if n > room {
        give_up(&format!(
            "buffer overflow detected: {function} of {n} bytes into {room}"
        ));
    }
}

/// Ends the process, saying why, as the C library does where going on would be worse:
/// a kernel has nobody to return an error to.
pub(super) fn give_up(why: &str) -> ! {
    // A process without a standard error dies all the same.
    let _ = writeln!(std::io::stderr(), "*** {why} ***: terminated");
    std::process::abort()
}
