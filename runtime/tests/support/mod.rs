//! A small valid bundle in a folder of its own, and ways to spoil it.

// Each test crate uses a part of this.
#![allow(dead_code)]

use std::fmt::Write as _;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Value, json};
use svod_runtime::bundle::{Bundle, npy};
use svod_runtime::plan::{Executable, Instance};
use svod_runtime::{Element, Error, Runtime, View};
use tempfile::TempDir;

/// `t[i] = x[i] * w[i] + n`
pub(crate) const AFFINE: &str = "
#include <stdint.h>
void affine(float *restrict t, const float *restrict x, const float *restrict w, int32_t n,
            int32_t i) {
    t[i] = x[i] * w[i] + (float)n;
}
";

/// Counts the runs.
pub(crate) const COUNT: &str = "void count(long long *runs) { runs[0] += 1; }\n";

/// What the small bundle is given, what its constant holds, and what comes out
/// for `n = 8`: the upper half of it zeros, as its last op leaves them.
pub(crate) const X: [f32; 8] = [1.0, -2.0, 3.0, 0.5, 8.0, 9.0, 10.0, 11.0];
pub(crate) const W: [f32; 8] = [0.5, 0.25, 2.0, 4.0, 1.0, 1.0, 2.0, 2.0];
pub(crate) const Y: [f32; 8] = [0.0, 0.0, 0.0, 0.0, 8.5, 7.5, 14.0, 10.0];

/// One runtime for all tests of a crate: the compiler is looked for once.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap())
}

/// A bundle that is being written.
pub(crate) struct Files {
    dir: TempDir,
    pub(crate) plan: Value,
}

impl Files {
    /// A folder with nothing but this plan.
    pub(crate) fn new(mut plan: Value) -> Files {
        let defaults = [
            ("format", json!("svod-plan")),
            ("version", json!(1)),
            ("kernels", json!([])),
            ("buffers", json!([])),
            ("ops", json!([])),
        ];
        for (key, value) in defaults {
            plan.as_object_mut().unwrap().entry(key).or_insert(value);
        }
        let dir = tempfile::tempdir().unwrap();
        Files { dir, plan }
    }

    /// A small bundle that uses every part of the format.
    pub(crate) fn small() -> Files {
        let files = Files::new(json!({
            "requires": [],
            "name": "small",
            "producer": "the tests",
            "variables": {"n": {"min": 1, "max": 8}},
            "kernels": [
                {"entry": "affine", "source": "kernels/affine.c", "language": "c", "params": [
                    {"buffer": "f32", "len": 8, "access": "w"},
                    {"buffer": "f32", "len": 8, "access": "r"},
                    {"buffer": "f32", "len": 8, "access": "r"},
                    {"scalar": "i32", "name": "n", "min": 1, "max": 8},
                    {"scalar": "i32", "index": true, "max": 8},
                ]},
                {"entry": "count", "source": "kernels/count.c", "language": "c", "params": [
                    {"buffer": "i64", "len": 1, "access": "rw"},
                ]},
            ],
            "buffers": [
                {"name": "x", "role": "input", "dtype": "f32", "shape": [2, 4]},
                {"name": "w", "role": "constant", "dtype": "f32", "shape": [8], "tensor": "w"},
                {"role": "temp", "bytes": 64},
                {"name": "y", "role": "output", "dtype": "f32", "shape": [8]},
                {"name": "runs", "role": "state", "dtype": "i64", "shape": [1], "tensor": "runs"},
            ],
            "ops": [
                {"launch": 0, "args": [{"buffer": 2, "offset": 16, "bytes": 32}, 0, 1],
                 "scalars": {"n": {"var": "n"}}, "grid": {"var": "n"}, "flops": 16, "bytes": 96},
                {"fill": {"to": 3, "dtype": "f32", "value": 0}},
                {"copy": {"from": {"buffer": 2, "offset": 16, "bytes": 16},
                          "to": {"buffer": 3, "offset": 16, "bytes": 16}}},
                {"launch": 1, "args": [4]},
            ],
            "outputs": [
                {"name": "y", "buffer": 3, "offset": 0, "dtype": "f32", "shape": [2, 4]},
                {"name": "runs", "buffer": 4, "offset": 0, "dtype": "i64", "shape": [1]},
            ],
            "tests": [
                {"variables": {"n": 8}, "inputs": {"x": "tests/0/x.npy"},
                 "outputs": {"y": "tests/0/y.npy"}, "rtol": 0.0, "atol": 0.0},
            ],
        }));
        files.text("kernels/affine.c", AFFINE);
        files.text("kernels/count.c", COUNT);
        files.weights(&[
            ("w", "F32", &[8], &bytes(&W)),
            ("runs", "I64", &[1], &bytes(&[0_i64])),
        ]);
        files.npy("tests/0/x.npy", &[2, 4], &X);
        files.npy("tests/0/y.npy", &[2, 4], &Y);
        files
    }

    /// Kernels over buffers: each source defines the function that its file is
    /// named for.
    pub(crate) fn with_kernels(plan: Value, sources: &[(&str, &str)]) -> Files {
        let files = Files::new(plan);
        for (name, source) in sources {
            files.text(&format!("kernels/{name}.c"), source);
        }
        files
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, relative: &str, bytes: &[u8]) {
        let path = self.path().join(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub(crate) fn text(&self, relative: &str, text: &str) {
        self.write(relative, text.as_bytes());
    }

    pub(crate) fn remove(&self, relative: &str) {
        std::fs::remove_file(self.path().join(relative)).unwrap();
    }

    pub(crate) fn npy<T: Element>(&self, relative: &str, shape: &[usize], elements: &[T]) {
        let path = self.path().join(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        npy::write(&path, shape, View::from_slice(elements)).unwrap();
    }

    /// A weights file whose data begins at a multiple of 64.
    pub(crate) fn weights(&self, tensors: &[(&str, &str, &[usize], &[u8])]) {
        self.weights_from(0, tensors);
    }

    /// A weights file whose data begins `past` a multiple of 64.
    pub(crate) fn weights_from(&self, past: usize, tensors: &[(&str, &str, &[usize], &[u8])]) {
        self.write("weights.safetensors", &safetensors(past, tensors));
    }

    /// Sets what a JSON pointer leads to; the last step may be a new key, or the
    /// end of a list.
    pub(crate) fn set(&mut self, pointer: &str, value: Value) -> &mut Files {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match self.plan.pointer_mut(parent).unwrap() {
            Value::Array(list) if list.len() == key.parse::<usize>().unwrap() => list.push(value),
            Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
            Value::Object(map) => drop(map.insert(key.to_owned(), value)),
            other => panic!("{pointer} leads into {other}"),
        }
        self
    }

    pub(crate) fn unset(&mut self, pointer: &str) -> &mut Files {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let map = self.plan.pointer_mut(parent).unwrap();
        map.as_object_mut().unwrap().remove(key).unwrap();
        self
    }

    /// Opens what is in the folder, with the plan as it stands. A text `@N` in
    /// the plan becomes the number N, however long.
    pub(crate) fn open(&self) -> Result<Bundle, Error> {
        let mut text = String::new();
        for (i, part) in self.plan.to_string().split("\"@").enumerate() {
            match part.split_once('"') {
                Some((number, rest)) if i > 0 => write!(text, "{number}{rest}").unwrap(),
                _ => text.push_str(part),
            }
        }
        self.text("plan.json", &text);
        Bundle::open(self.path())
    }

    pub(crate) fn load(&self) -> Result<Executable, Error> {
        let bundle = self.open()?;
        // SAFETY: the tests' kernels keep the signatures that are stated beside
        // them, and nobody writes to the folder, which is this test's own,
        // while the executable lives.
        unsafe { bundle.load(runtime(), &|_| {}) }
    }

    pub(crate) fn instance(&self) -> Instance {
        let executable = self.load().unwrap_or_else(|e| panic!("{}", chain(&e)));
        executable.instance().unwrap()
    }
}

/// The bytes of a safetensors file whose data begins `past` a multiple of 64.
pub(crate) fn safetensors(past: usize, tensors: &[(&str, &str, &[usize], &[u8])]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        let info = json!({"dtype": dtype, "shape": shape, "data_offsets": offsets});
        header.insert((*name).to_owned(), info);
        data.extend_from_slice(bytes);
    }
    let mut header = Value::from(header).to_string();
    while (8 + header.len()) % 64 != past {
        header.push(' ');
    }
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&data);
    file
}

/// The bytes of plain numbers.
pub(crate) fn bytes<T: Element>(elements: &[T]) -> Vec<u8> {
    View::from_slice(elements).as_bytes().to_vec()
}

/// The elements of an output.
pub(crate) fn output<T: Element>(instance: &Instance, name: &str) -> Vec<T> {
    let view = instance.output(name).unwrap();
    view.as_slice().unwrap().to_vec()
}

/// An error with all its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(text, ": {error}").unwrap();
        cause = error.source();
    }
    text
}

/// Why a bundle was refused.
pub(crate) fn cause(error: Error) -> Error {
    match error {
        Error::Bundle { source, .. } => *source,
        other => panic!("no refusal of a bundle: {other:?}"),
    }
}

/// Asserts that an error is about this place of the plan and says this word.
#[track_caller]
pub(crate) fn assert_refused(error: &Error, place: &str, word: &str) {
    let all = chain(error);
    let mut error = error;
    while let Error::Bundle { source, .. } = error {
        error = source;
    }
    match error {
        Error::Plan { place: at, reason } => {
            assert_eq!(at.to_string(), place, "{all}");
            assert!(reason.contains(word), "`{word}` is not in: {reason}");
        }
        _ => panic!("expected an error at {place}, got: {all}"),
    }
}
