//! Entries of the cache: found, looked at, and put anew.

#![no_main]

use std::sync::OnceLock;

#[allow(dead_code)] // each target drives one thing
#[path = "../../runtime/tests/hostile/drive.rs"]
mod drive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = DIR.get_or_init(drive::folder);
    drive::cache(dir.path(), bytes);
});
