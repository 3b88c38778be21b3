//! What is damaged: real objects, bundles and signatures.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::common::{Rng, compiler_range, in_parallel};
use crate::drive::{BETWEEN, DIGEST};
use crate::support;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/kernels.c");
const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits");

/// Small sources that make compilers emit what a linker has to do.
const SMALL: [&str; 2] = [
    "extern double sin(double); extern double weak(double) __attribute__((weak));
     static const char a[] = \"a\", b[] = \"bb\"; static const char *const table[] = {a, b};
     static double (*const f[])(double) = {sin};
     double k(double x, int i) { return f[i](x) * 1.5 + sin(x) + table[i & 1][0] + (weak ? weak(x) : 0); }",
    "static volatile long zeroed; static volatile long begun = 7; long common[9];
     int s(int x) { switch (x) { case 0: return 5; case 1: return 9; case 2: return 11; case 3: return 2;
                                 case 4: return 1; case 5: return 44; default: return (int)common[x & 7]; } }
     __attribute__((weak)) long k(long x) { zeroed++; return begun += x + s((int)x); }
     long alias(long) __attribute__((alias(\"k\")));",
];

const FLAGS: [&str; 5] = [
    "-O0 -fPIC -g -fasynchronous-unwind-tables",
    "-O2 -fPIC -fcommon -ffunction-sections -fdata-sections",
    "-O1 -fno-pic -fcommon",
    "-O2 -mcmodel=large -fPIC",
    "-O2 -mcmodel=large -fno-pic -fno-pie",
];

/// Objects of both architectures, as far as there are compilers for them.
pub(crate) fn objects() -> Vec<Vec<u8>> {
    let mut ways = Vec::new();
    for compiler in compiler_range() {
        for flags in FLAGS {
            for small in SMALL {
                ways.push((
                    compiler.path.clone(),
                    format!("{flags} -ffreestanding"),
                    Some(small),
                ));
                if compiler.path.to_string_lossy().contains("clang")
                    && !flags.ends_with("large -fPIC")
                {
                    let flags = format!("{flags} -ffreestanding --target=aarch64-linux-gnu");
                    ways.push((compiler.path.clone(), flags, Some(small)));
                }
            }
        }
        ways.push((compiler.path, "-O2 -fPIC -ffreestanding".to_owned(), None));
    }
    let dir = tempfile::tempdir().unwrap();
    in_parallel(&ways, |i, (compiler, flags, text)| {
        let source = match text {
            None => PathBuf::from(CORPUS),
            Some(text) => {
                let source = dir.path().join(format!("{i}.c"));
                std::fs::write(&source, text).unwrap();
                source
            }
        };
        compile(compiler, flags, &source, &dir.path().join(format!("{i}.o")))
    })
}

fn compile(compiler: &Path, flags: &str, source: &Path, object: &Path) -> Vec<u8> {
    let mut command = Command::new(compiler);
    command
        .args(flags.split_whitespace())
        .arg("-c")
        .arg(source)
        .arg("-o")
        .arg(object);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    std::fs::read(object).unwrap()
}

/// A bundle as the driver packs it.
pub(crate) struct Packed {
    pub(crate) plan: Value,
    /// The other files.
    pub(crate) files: Vec<Vec<u8>>,
}

impl Packed {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        pack(&self.plan, &self.files)
    }

    /// A bundle in a folder, its kernels compiled into one object.
    fn of(dir: &Path, mut plan: Value) -> Packed {
        let mut text = String::new();
        for kernel in plan["kernels"].as_array_mut().unwrap() {
            let source = kernel["source"].as_str().unwrap();
            text += &std::fs::read_to_string(dir.join(source)).unwrap();
            let map = kernel.as_object_mut().unwrap();
            map.remove("source");
            map.remove("language");
            let object = json!({"path": "kernels/k.o", "arch": "x86_64", "features": ["sse2"], "sha256": DIGEST});
            map.insert("objects".into(), json!([object]));
        }
        let temp = tempfile::tempdir().unwrap();
        let source = temp.path().join("k.c");
        std::fs::write(&source, text).unwrap();
        let compiler = &compiler_range()[0].path;
        let object = compile(
            compiler,
            "-O1 -fPIC -ffreestanding",
            &source,
            &temp.path().join("k.o"),
        );

        let tests = plan["tests"].as_array_mut().unwrap();
        tests.truncate(1);
        let mut arrays = Vec::new();
        for (key, file) in [("inputs", "tests/0/x.npy"), ("outputs", "tests/0/y.npy")] {
            let (_, path) = tests[0][key]
                .as_object_mut()
                .unwrap()
                .iter_mut()
                .next()
                .unwrap();
            arrays.push(std::fs::read(dir.join(path.as_str().unwrap())).unwrap());
            *path = json!(file);
        }
        tests[0].as_object_mut().unwrap().remove("truth");
        let [x, y] = arrays.try_into().unwrap();
        let weights = std::fs::read(dir.join("weights.safetensors")).unwrap();
        Packed {
            plan,
            files: vec![weights, x, y, object],
        }
    }
}

pub(crate) fn pack(plan: &Value, files: &[Vec<u8>]) -> Vec<u8> {
    let mut packed = plan.to_string().into_bytes();
    for file in files {
        packed.extend(BETWEEN);
        packed.extend(file);
    }
    packed
}

pub(crate) fn bundles() -> Vec<Packed> {
    let small = support::Files::small();
    let digits = Path::new(DIGITS);
    let plan = std::fs::read_to_string(digits.join("plan.json")).unwrap();
    vec![
        Packed::of(small.path(), small.plan.clone()),
        Packed::of(digits, serde_json::from_str(&plan).unwrap()),
    ]
}

/// How a kernel is called, and its parameters, as the driver takes them.
pub(crate) fn signatures() -> Vec<(u8, Value)> {
    let dtypes = [
        "bool", "i8", "u16", "i32", "u32", "i64", "u64", "f16", "bf16", "f32", "f64",
    ];
    let mut rng = Rng(11);
    let mut seeds = vec![];
    for how in 0..4 {
        for count in [0, 1, 6, 7, 16, 17, 33] {
            let mut params: Vec<Value> = (0..count)
                .map(|i| match rng.below(4) {
                    0 => json!({"scalar": rng.pick(&dtypes), "name": format!("s{i}"), "min": 0, "max": 1}),
                    1 => json!({"scalar": rng.pick(&dtypes), "name": format!("s{i}")}),
                    _ => json!({"buffer": rng.pick(&dtypes), "len": rng.below(40), "access": rng.pick(&["r", "w", "rw"]), "align": 16}),
                })
                .collect();
            if rng.below(2) == 0 {
                params.push(json!({"scalar": "i32", "index": true, "max": 8}));
            }
            seeds.push((how, Value::from(params)));
        }
    }
    seeds
}

/// Weights as the plan of their target has them.
pub(crate) fn weights() -> Vec<u8> {
    let (floats, bools, halves) = ([1.5_f32; 8], [0_u8, 1, 1, 0], [0x3c00_u16; 6]);
    support::safetensors(
        0,
        &[
            ("w", "F32", &[8], &support::bytes(&floats)),
            ("b", "BOOL", &[4], &bools),
            ("h", "F16", &[2, 3], &halves.map(u16::to_le_bytes).concat()),
            ("s", "I64", &[1], &support::bytes(&[7_i64])),
        ],
    )
}

/// LLVM IR, from nothing to loops over vectors.
pub(crate) fn ir() -> [&'static str; 3] {
    [
        "define void @k(ptr %x) { ret void }",
        "define void @k(ptr noalias align 16 %x, ptr noalias align 16 %y, i32 %i) {
entry:
  %p = getelementptr inbounds float, ptr %y, i32 %i
  %v = load float, ptr %p, align 4
  %w = call float @llvm.sqrt.f32(float %v)
  %q = getelementptr inbounds float, ptr %x, i32 %i
  store float %w, ptr %q, align 4
  ret void
}
declare float @llvm.sqrt.f32(float)",
        "@t = private unnamed_addr constant [4 x i32] [i32 1, i32 2, i32 3, i32 4]
define void @k(ptr %x, i64 %n) {
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %p = getelementptr <4 x i32>, ptr %x, i64 %i
  %v = load <4 x i32>, ptr %p, align 16
  %c = load <4 x i32>, ptr @t, align 16
  %w = add <4 x i32> %v, %c
  store <4 x i32> %w, ptr %p, align 16
  %next = add nuw i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %end
end:
  %d = tail call double @sin(double 1.0)
  ret void
}
declare double @sin(double)",
    ]
}
