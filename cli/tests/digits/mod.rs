//! The bundle of the examples.

// Each test crate uses a part of this.
#![allow(dead_code)]

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

pub(crate) const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits");

/// A copy of the digits bundle, to be changed.
pub(crate) fn copy() -> tempfile::TempDir {
    fn copy_dir(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy_dir(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    copy_dir(Path::new(DIGITS), dir.path());
    dir
}

/// A copy of the digits bundle that carries no objects, and so has to be compiled.
pub(crate) fn sources() -> &'static str {
    static COPY: OnceLock<tempfile::TempDir> = OnceLock::new();
    COPY.get_or_init(without_objects).path().to_str().unwrap()
}

/// The same, to be changed.
pub(crate) fn without_objects() -> tempfile::TempDir {
    let dir = copy();
    let path = dir.path().join("plan.json");
    let text = fs::read_to_string(&path).unwrap();
    let mut plan: serde_json::Value = serde_json::from_str(&text).unwrap();
    for kernel in plan["kernels"].as_array_mut().unwrap() {
        let objects = kernel.as_object_mut().unwrap().remove("objects");
        assert!(objects.is_some());
    }
    fs::write(path, plan.to_string()).unwrap();
    dir
}
