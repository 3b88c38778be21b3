//! Kernels in MLIR.

use svod_runtime::bundle::BundleWriter;
use svod_runtime::plan::PlanBuilder;
use svod_runtime::signature::Convention;
use svod_runtime::{Bounds, DType, Signature};

use super::*;

/// Whether there is what MLIR needs; a machine that has all that tests need has it.
fn is_there() -> bool {
    let toolchain = runtime().toolchain();
    let lacks = match (toolchain.mlir(), toolchain.llvm()) {
        (Ok(_), Ok(_)) => return true,
        (Err(why), _) | (_, Err(why)) => why,
    };
    assert!(std::env::var_os("SVOD_TEST_NO_SKIP").is_none(), "{lacks}");
    eprintln!("skipped: {lacks}");
    false
}

/// Adds `step` to the number of runs, in C's convention.
fn count(step: i64) -> String {
    format!(
        "func.func @count(%runs: memref<1xi64>) {{\n  %c0 = arith.constant 0 : index\n  \
         %step = arith.constant {step} : i64\n  %n = memref.load %runs[%c0] : memref<1xi64>\n  \
         %m = arith.addi %n, %step : i64\n  memref.store %m, %runs[%c0] : memref<1xi64>\n  \
         return\n}}\n"
    )
}

/// `y[i] = a * x[i]`, in the packed convention.
const SCALE: &str = "
llvm.func @scale(%buffers: !llvm.ptr, %values: !llvm.ptr) {
  %y = llvm.load %buffers : !llvm.ptr -> !llvm.ptr
  %second = llvm.getelementptr %buffers[1] : (!llvm.ptr) -> !llvm.ptr, !llvm.ptr
  %x = llvm.load %second : !llvm.ptr -> !llvm.ptr
  %index = llvm.load %values : !llvm.ptr -> i64
  %factor = llvm.getelementptr %values[1] : (!llvm.ptr) -> !llvm.ptr, i64
  %a = llvm.load %factor : !llvm.ptr -> f32
  %px = llvm.getelementptr %x[%index] : (!llvm.ptr, i64) -> !llvm.ptr, f32
  %py = llvm.getelementptr %y[%index] : (!llvm.ptr, i64) -> !llvm.ptr, f32
  %v = llvm.load %px : !llvm.ptr -> f32
  %w = arith.mulf %a, %v : f32
  llvm.store %w, %py : f32, !llvm.ptr
  llvm.return
}
";

#[test]
fn a_kernel_may_be_written_in_mlir() {
    if !is_there() {
        return;
    }
    let mut files = Files::small();
    files.set("/kernels/1/language", json!("mlir"));
    files.set("/kernels/1/source", json!("kernels/count.mlir"));
    files.text("kernels/count.mlir", &count(9));
    super::accepted::assert_counts_by(&files, 9);
    files.text("kernels/count.mlir", &count(9).replace("addi", "added"));
    let error = cause(files.load().unwrap_err());
    let text = error.to_string();
    assert!(text.contains("kernels/count.mlir:5:8: error"), "{text}");
    // It can be looked at with no tools.
    assert!(files.open().is_ok());
}

#[test]
fn a_packed_kernel_in_mlir_is_written_read_and_run() {
    if !is_there() {
        return;
    }
    let signature = Signature::builder()
        .write(DType::F32, 4)
        .read(DType::F32, 4)
        .index(DType::I64, 4)
        .scalar(DType::F32, "a", Bounds::Any)
        .convention(Convention::Packed)
        .build()
        .unwrap();
    let mut plan = PlanBuilder::new("scale");
    let kernel = plan.kernel("scale", signature);
    let x = plan.input("x", DType::F32, &[4]).unwrap();
    let y = plan.output("y", DType::F32, &[4]).unwrap();
    plan.launch(kernel, &[y, x], &[("a", 2.5.into())], 4)
        .unwrap();
    let plan = plan.build().unwrap();
    let mut writer = BundleWriter::new(&plan);
    writer.source(0, Source::mlir("scale", SCALE)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scale.svod");
    writer.write(&path).unwrap();
    assert_eq!(
        std::fs::read_to_string(path.join("kernels/scale.mlir")).unwrap(),
        SCALE
    );
    let json = std::fs::read_to_string(path.join("plan.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["kernels"][0]["language"], "mlir");
    assert_eq!(json["kernels"][0]["convention"], "packed");

    let bundle = Bundle::open(&path).unwrap();
    // SAFETY: for each index in [0, 4), the kernel writes y[index] and reads x[index].
    let executable = unsafe { bundle.load(runtime(), &|_| {}) }.unwrap();
    let mut instance = executable.instance().unwrap();
    instance
        .set_input("x", View::from_slice(&[1.0_f32, 2.0, -3.0, 4.0]))
        .unwrap();
    instance.run(&[]).unwrap();
    assert_eq!(output::<f32>(&instance, "y"), [2.5, 5.0, -7.5, 10.0]);
}
