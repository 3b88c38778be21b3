//! Signatures: parameters in JSON, and a launch of a kernel that does nothing.

#![no_main]

#[allow(dead_code)] // each target drives one thing
#[path = "../../runtime/tests/hostile/drive.rs"]
mod drive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drive::signature(bytes));
