//! Entries of the cache: found, looked at, and put anew.

#![no_main]

use std::sync::OnceLock;

use svod_runtime::compile::cache::Cache;

#[allow(dead_code)] // each target drives one thing
#[path = "../../runtime/tests/hostile/drive.rs"]
mod drive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static OPEN: OnceLock<(tempfile::TempDir, Cache)> = OnceLock::new();
    let (dir, cache) = OPEN.get_or_init(|| {
        let dir = drive::folder();
        let cache = Cache::open(dir.path(), 1 << 20).unwrap();
        (dir, cache)
    });
    drive::cache(cache, dir.path(), bytes);
});
