//! Objects: laid out and linked, for both architectures, never called.

#![no_main]

#[allow(dead_code)] // each target drives one thing
#[path = "../../runtime/tests/hostile/drive.rs"]
mod drive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drive::object(bytes));
