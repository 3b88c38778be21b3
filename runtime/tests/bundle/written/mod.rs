//! What is written is what was built, or read.

mod again;
mod built;
mod compiled;
mod refused;

use std::collections::BTreeMap;
use std::path::PathBuf;

use safetensors::SafeTensors;
use svod_runtime::bundle::npy::{self, Array};
use svod_runtime::bundle::{BundleWriter, Classifier, Recorded, Recording, Tolerance};
use svod_runtime::memory::Constant;
use svod_runtime::plan::{Executable, Operator, Plan, PlanBuilder, Role, Value as Expr};
use svod_runtime::signature::{Convention, Number, Returns};
use svod_runtime::{Bounds, Buffer, DType, Signature};
use tempfile::TempDir;

use super::*;

/// `y[i] = x[i] * w[i] + bias[i] * factor`, for `i` from `start`; `wide`, `tiny` and
/// `flag` show what bounds can be.
const MIX: &str = "
#include <stdint.h>
void mix(float *restrict y, const float *restrict x, const float *restrict w,
         const float *restrict bias, int32_t start, float factor, uint64_t wide, int8_t tiny,
         _Bool flag, double any, int64_t i) {
    y[i + start] = x[i] * w[i] + bias[i] * factor + (float)(wide & 1) + tiny + flag + (float)any;
}
";

/// Adds `step` to a counter; fails where that passes a limit.
const STEP: &str = "
#include <stdint.h>
int32_t step(void **buffers, int64_t *values) {
    int64_t *count = buffers[0];
    *count += values[0];
    return *count > 1000;
}
";

/// The largest number that JSON is read to exactly.
const LARGEST: Number = Number::Int(u64::MAX as i128);

/// A plan that uses every part of the format, but for classifiers and objects.
struct Made {
    plan: Plan,
    weights: Constant,
    counter: Constant,
}

fn made() -> Made {
    let mut plan = PlanBuilder::new("made \"in\" code");
    // Not in the order of their names.
    let n = plan.variable("n", 1, 4).unwrap();
    let m = plan.variable("a variable", -7, i64::MAX).unwrap();
    let mix = Signature::builder()
        .write(DType::F32, 8)
        .read(DType::F32, 4)
        .read(DType::F32, 4)
        .read(DType::F32, 4)
        .align(4)
        .scalar(DType::I32, "start", Bounds::integers(0, 4))
        .scalar(DType::F32, "factor", Bounds::floats(f64::NEG_INFINITY, 0.3))
        .scalar(
            DType::U64,
            "wide",
            Bounds::integers(1, i128::from(u64::MAX)),
        )
        .scalar(DType::I8, "tiny", Bounds::Any)
        .scalar(DType::Bool, "flag", Bounds::integers(0, 1))
        .scalar(DType::F64, "any", Bounds::Unstated)
        .index(DType::I64, 4)
        .build()
        .unwrap();
    let step = Signature::builder()
        .read_write(DType::I64, 1)
        .scalar(DType::I64, "step", Bounds::integers(-10, 10))
        .convention(Convention::Packed)
        .returns(Returns::Status)
        .build()
        .unwrap();
    let (mix, step) = (plan.kernel("mix", mix), plan.kernel("step", step));

    let x = plan.buffer(Some("x"), Role::Input, DType::F32, &[2, 2]);
    let w = plan.buffer(Some("w"), Role::Constant, DType::F32, &[4]);
    let bias = plan.buffer(None, Role::Constant, DType::F32, &[1, 4]);
    let scratch = plan.bytes(None, Role::Temp, 128).unwrap();
    let y = plan.buffer(Some("y"), Role::Output, DType::F32, &[8]);
    let counter = plan.buffer(Some("counter"), Role::State, DType::I64, &[]);
    let history = plan.buffer(Some("history"), Role::State, DType::F32, &[8]);
    let [x, w, bias, y] = [x, w, bias, y].map(Result::unwrap);
    let [counter, history] = [counter, history].map(Result::unwrap);

    let part = |buffer, offset, bytes| svod_runtime::plan::BufferRange {
        buffer,
        offset,
        bytes,
    };
    let clamped = |a: Expr| Expr::op(Operator::Min, Expr::op(Operator::Max, a, 0), 4);
    let start = clamped(Expr::op(
        Operator::FloorDiv,
        Expr::op(Operator::Mod, Expr::op(Operator::Min, m, 1000), 10),
        2,
    ));
    let scalars = [
        ("start", start),
        ("factor", Expr::from(-0.1)),
        ("wide", Expr::Number(LARGEST)),
        ("tiny", Expr::from(-128)),
        ("flag", 1.into()),
        ("any", Expr::from(1e-300)),
    ];
    plan.fill(part(scratch, 0, 128), DType::F32, 0.0).unwrap();
    plan.launch_with_costs(
        mix,
        &[
            part(scratch, 64, 32),
            plan.whole(x).unwrap(),
            plan.whole(w).unwrap(),
            plan.whole(bias).unwrap(),
        ],
        &scalars,
        n,
        Some(u64::MAX),
        Some(0),
    )
    .unwrap();
    plan.copy(part(scratch, 64, 32), plan.whole(y).unwrap())
        .unwrap();
    let counted = Expr::op(Operator::Add, Expr::op(Operator::Mul, n, 2), 1);
    let whole = plan.whole(counter).unwrap();
    plan.launch(step, &[whole], &[("step", counted)], 1)
        .unwrap();
    plan.copy(part(y, 0, 16), part(history, 16, 16)).unwrap();
    plan.fill(part(history, 4, 4), DType::F32, n).unwrap();

    plan.result("y", y, 0, DType::F32, &[2, 4]).unwrap();
    plan.result("last", history, 16, DType::F32, &[4]).unwrap();
    plan.result("runs", counter, 0, DType::I64, &[]).unwrap();
    Made {
        plan: plan.build().unwrap(),
        weights: Buffer::from_slice(&[0.5_f32, -1.5, 2.0, 0.1])
            .unwrap()
            .into(),
        counter: Buffer::from_slice(&[40_i64]).unwrap().into(),
    }
}

impl Made {
    const W: usize = 1;
    const BIAS: usize = 2;
    const COUNTER: usize = 5;

    fn sources() -> [Source; 2] {
        [Source::c("mix", MIX), Source::c("step", STEP)]
    }

    fn writer(&self) -> BundleWriter<'_> {
        let mut writer = BundleWriter::new(&self.plan);
        for (kernel, source) in Made::sources().into_iter().enumerate() {
            writer.source(kernel, source).unwrap();
        }
        for (buffer, contents) in [
            (Made::W, &self.weights),
            (Made::BIAS, &self.weights),
            (Made::COUNTER, &self.counter),
        ] {
            writer.contents(buffer, contents.clone()).unwrap();
        }
        writer
    }

    fn instance(&self) -> Instance {
        let kernels = Made::sources();
        let kernels = kernels.iter().zip(self.plan.kernels());
        let kernels = kernels.map(|(source, kernel)| {
            // SAFETY: the kernels keep the signatures that `made` states for them.
            unsafe { runtime().load(source, kernel.signature.clone()) }.unwrap()
        });
        let contents = [
            (Made::W, self.weights.clone()),
            (Made::BIAS, self.weights.clone()),
            (Made::COUNTER, self.counter.clone()),
        ];
        // SAFETY: the scalar without bounds takes no part in addressing.
        let executable =
            unsafe { Executable::new_unchecked(self.plan.clone(), kernels.collect(), contents) };
        executable.unwrap().instance().unwrap()
    }
}

fn instance(bundle: &Bundle) -> Instance {
    // SAFETY: the tests' kernels keep the signatures that are stated beside them, and
    // nobody writes to the test's own folder while the executable lives.
    let executable = unsafe { bundle.load(runtime(), &|_| {}) };
    let executable = executable.unwrap_or_else(|e| panic!("{}", chain(&e)));
    executable.instance().unwrap()
}

/// What is written, opened, and the folder that it lies in.
#[track_caller]
fn written(writer: &BundleWriter<'_>) -> (TempDir, Bundle) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made.svod");
    writer
        .write(&path)
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    let bundle = Bundle::open(path).unwrap();
    (dir, bundle)
}

/// Asserts that a bundle is not written, at which place and why, and that nothing is
/// left of it.
#[track_caller]
fn assert_not_written(writer: &BundleWriter<'_>, place: &str, word: &str) {
    let dir = tempfile::tempdir().unwrap();
    let error = writer.write(dir.path().join("made.svod")).unwrap_err();
    let Error::WriteBundle { source, .. } = &error else {
        panic!("{error:?}")
    };
    assert_refused(source, place, word);
    assert_eq!(names(dir.path()), [""; 0]);
}

/// The names in a folder, in order.
fn names(dir: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Every file of a folder.
fn all_files(dir: &std::path::Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for name in names(dir) {
        let path = dir.join(&name);
        if path.is_dir() {
            let below = all_files(&path).into_iter();
            files.extend(below.map(|(file, bytes)| (format!("{name}/{file}"), bytes)));
        } else {
            files.insert(name, std::fs::read(path).unwrap());
        }
    }
    files
}

fn shown<T: std::fmt::Debug>(parts: &[T]) -> Vec<String> {
    parts.iter().map(|part| format!("{part:?}")).collect()
}

/// Asserts that two plans are the same in all that is shown of them: every field.
#[track_caller]
fn assert_same_plan(a: &Plan, b: &Plan) {
    assert_eq!(a.name(), b.name());
    assert_eq!(a.variables(), b.variables());
    assert_eq!(shown(a.kernels()), shown(b.kernels()));
    assert_eq!(shown(a.buffers()), shown(b.buffers()));
    assert_eq!(shown(a.ops()), shown(b.ops()));
    assert_eq!(shown(a.outputs()), shown(b.outputs()));
}
