//! What a reader of plan bundles refuses, accepts, and makes of a run: the
//! contract of `docs/bundle-format.md`, item by item.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod accepted;
mod classifier;
mod mlir;
mod refused;
mod schedules;
#[path = "../support/mod.rs"]
mod support;
mod tiers;
mod written;

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use svod_runtime::bundle::Bundle;
use svod_runtime::plan::Instance;
use svod_runtime::{Error, Guard, Source, View};

use support::{
    COUNT, Files, W, X, Y, assert_refused, bytes, cause, chain, output, runtime, safetensors,
};

const ARCH: &str = std::env::consts::ARCH;

/// Each line, `PATH = JSON -> PLACE: WORDS`, sets one thing in the small bundle's
/// plan, which is then refused at that place, or at the path if none is named,
/// with an error that has these words.
#[track_caller]
fn refused(lines: &str) {
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    for line in lines {
        let (path, rest) = line.split_once(" = ").unwrap();
        let (value, expected) = rest.rsplit_once(" -> ").unwrap();
        let (place, words) = expected.split_once(": ").unwrap_or((path, expected));
        let mut files = Files::small();
        let pointer = format!("/{}", path.replace(['.', '['], "/").replace(']', ""));
        files.set(&pointer, serde_json::from_str(value).unwrap());
        let error = files.open().expect_err(line);
        assert_refused(&error, place, words);
    }
}

/// Asserts that an error about a file names it and says why.
#[track_caller]
fn assert_file(error: &Error, file: &str, word: &str) {
    let text = chain(error);
    assert!(text.contains(file) && text.contains(word), "{text}");
}

fn view(buffer: i64, offset: i64, bytes: i64) -> Value {
    json!({"buffer": buffer, "offset": offset, "bytes": bytes})
}

fn var(name: &str) -> Value {
    json!({"var": name})
}

/// Adds to the kernel `count` an object that was compiled from another source.
fn add_object(files: &mut Files, source: &str, features: &[&str]) {
    let objects = files.plan["kernels"][1]["objects"]
        .as_array()
        .map_or(0, Vec::len);
    if objects == 0 {
        files.set("/kernels/1/objects", json!([]));
    }
    let object = runtime().compile(&Source::c("count", source)).unwrap();
    let path = format!("kernels/{objects}.o");
    files.write(&path, object.bytes());
    let digest = Sha256::digest(object.bytes());
    let digest: String = digest.iter().map(|b| format!("{b:02X}")).collect();
    let object = json!({"path": path, "arch": ARCH, "features": features, "sha256": digest});
    files.set(&format!("/kernels/1/objects/{objects}"), object);
}
