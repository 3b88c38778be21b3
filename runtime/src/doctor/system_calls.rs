//! Two questions that only system calls answer, and nobody wraps.

use std::io;

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

/// Whether cycles of this thread, in its own code, can be counted.
pub(super) fn count_cycles() -> io::Result<()> {
    // `struct perf_event_attr`, of its first size: the type 0 is the processor's events, the
    // event 0 is its cycles.
    const SIZE: u64 = 64;
    const NOT_IN_THE_KERNEL: u64 = 1 << 5;
    const NOT_IN_A_HYPERVISOR: u64 = 1 << 6;
    const DISABLED: u64 = 1;
    let attributes: [u64; 8] = [
        SIZE << 32,
        0,
        0,
        0,
        0,
        DISABLED | NOT_IN_THE_KERNEL | NOT_IN_A_HYPERVISOR,
        0,
        0,
    ];
    let (this_thread, any_cpu, no_group) = (0, -1, -1);
    // PERF_FLAG_FD_CLOEXEC
    let flags: libc::c_ulong = 1 << 3;
    // SAFETY: the attributes are as many bytes as they say, and are read in the call alone.
    let counter = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attributes.as_ptr(),
            this_thread,
            any_cpu,
            no_group,
            flags,
        )
    };
    if counter < 0 {
        return Err(io::Error::last_os_error());
    }
    let counter = libc::c_int::try_from(counter).unwrap_or(-1);
    // SAFETY: it was opened above, and is nobody else's.
    unsafe { libc::close(counter) };
    Ok(())
}
