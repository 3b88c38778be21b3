//! LLVM IR: compiled in process where there is a libLLVM; what comes of it is linked, never called.

#![no_main]

#[allow(dead_code)] // each target drives one thing
#[path = "../../runtime/tests/hostile/drive.rs"]
mod drive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drive::ir(bytes));
