//! A question that only a system call answers, and nobody wraps.

/// The version of Landlock's interface.
pub(super) fn landlock() -> Option<u32> {
    const VERSION: libc::c_uint = 1;
    let nothing: *const libc::c_void = std::ptr::null();
    // SAFETY: with this flag, and no attributes of no bytes, it says its version, and does
    // nothing.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, VERSION) };
    u32::try_from(version).ok().filter(|&version| version > 0)
}
