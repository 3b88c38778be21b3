//! Names of system calls.

/// The name of a system call, or its number.
pub(super) fn name(number: i32) -> String {
    format!("system call {number}")
}
