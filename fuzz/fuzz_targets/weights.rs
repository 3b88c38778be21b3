//! Weights: safetensors files for a fixed plan, loaded and looked at.

#![no_main]

use std::sync::OnceLock;

#[allow(dead_code)] // each target drives one thing
#[path = "../../runtime/tests/hostile/drive.rs"]
mod drive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = DIR.get_or_init(drive::folder);
    drive::weights(dir.path(), bytes);
});
