//! MLIR, lowered by `mlir-opt` and `mlir-translate` and compiled as LLVM IR.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use svod_runtime::compile::cache::Explanation;
use svod_runtime::compile::cpu::CpuLevel;
use svod_runtime::compile::{Family, Origin};
use svod_runtime::signature::Convention;
use svod_runtime::{
    Arg, Bounds, Buffer, DType, Error, OptLevel, Runtime, RuntimeBuilder, Scalar, Signature, Source,
};

/// `y[i] = x[i] * x[i] + 1`
const SQUARE: &str = r"
func.func @square(%y: memref<4xf32> {llvm.noalias}, %x: memref<4xf32>, %i: i32) {
  %at = arith.index_cast %i : i32 to index
  %one = arith.constant 1.0 : f32
  %v = memref.load %x[%at] : memref<4xf32>
  %w = math.fma %v, %v, %one : f32
  memref.store %w, %y[%at] : memref<4xf32>
  return
}
";

/// The same in the dialect that it is lowered to.
const LOWERED: &str = r"
llvm.func @square(%y: !llvm.ptr {llvm.noalias}, %x: !llvm.ptr, %i: i32) {
  %one = llvm.mlir.constant(1.0 : f32) : f32
  %at = llvm.sext %i : i32 to i64
  %px = llvm.getelementptr inbounds %x[%at] : (!llvm.ptr, i64) -> !llvm.ptr, f32
  %py = llvm.getelementptr inbounds %y[%at] : (!llvm.ptr, i64) -> !llvm.ptr, f32
  %v = llvm.load %px : !llvm.ptr -> f32
  %w = llvm.intr.fma(%v, %v, %one) : (f32, f32, f32) -> f32
  llvm.store %w, %py : f32, !llvm.ptr
  llvm.return
}
";

const SQUARES: [f32; 4] = [2.0, 5.0, 10.0, 1.25];

fn builder() -> RuntimeBuilder {
    RuntimeBuilder::from_env().no_cache()
}

/// A runtime with all that MLIR needs, or nothing, which a machine that has all that tests need
/// has not.
fn runtime() -> Option<Runtime> {
    let runtime = builder().build().unwrap();
    let lacks = match (runtime.toolchain().mlir(), runtime.toolchain().llvm()) {
        (Ok(_), Ok(_)) => return Some(runtime),
        (Err(why), _) | (_, Err(why)) => why,
    };
    assert!(std::env::var_os("SVOD_TEST_NO_SKIP").is_none(), "{lacks}");
    eprintln!("skipped: {lacks}");
    None
}

/// `mlir-opt` and `mlir-translate`.
fn tools(runtime: &Runtime) -> [PathBuf; 2] {
    let opt = runtime.toolchain().mlir().unwrap().path().to_owned();
    let name = opt.file_name().unwrap().to_str().unwrap();
    let translate = opt.with_file_name(name.replace("opt", "translate"));
    [opt, translate]
}

fn square() -> Signature {
    Signature::builder()
        .write(DType::F32, 4)
        .read(DType::F32, 4)
        .index(DType::I32, 4)
        .build()
        .unwrap()
}

/// Runs `square` over four numbers.
#[track_caller]
fn squares(runtime: &Runtime, source: &Source) -> Vec<f32> {
    // SAFETY: for each i in [0, 4) the kernel writes y[i] and reads x[i].
    let kernel = unsafe { runtime.load(source, square()) };
    let kernel = kernel.unwrap_or_else(|e| panic!("{e}"));
    let x = Buffer::from_slice(&[1.0_f32, 2.0, -3.0, 0.5]).unwrap();
    let mut y = Buffer::zeroed(DType::F32, 4).unwrap();
    kernel
        .launch(&mut [Arg::from(&mut y), Arg::from(&x)], &[], 4)
        .unwrap();
    y.as_slice::<f32>().unwrap().to_vec()
}

/// What a kernel `k` with a written and a read buffer of `x`'s size makes of `x`.
#[track_caller]
fn maps(runtime: &Runtime, source: &Source, x: &[f32]) -> Vec<f32> {
    let signature = Signature::builder()
        .write(DType::F32, x.len())
        .read(DType::F32, x.len())
        .build()
        .unwrap();
    // SAFETY: the kernels of these tests stay in their two buffers.
    let kernel = unsafe { runtime.load(source, signature) };
    let kernel = kernel.unwrap_or_else(|e| panic!("{e}"));
    let x = Buffer::from_slice(x).unwrap();
    let mut y = Buffer::zeroed(DType::F32, x.len()).unwrap();
    kernel
        .launch(&mut [Arg::from(&mut y), Arg::from(&x)], &[], 1)
        .unwrap();
    y.as_slice::<f32>().unwrap().to_vec()
}

/// The diagnostics with which a source is refused.
#[track_caller]
fn refused(runtime: &Runtime, text: &str) -> String {
    let source = Source::mlir("square", text).named("kernels/square.mlir");
    let error = runtime.compile(&source).unwrap_err();
    let Error::Compile { diagnostics, .. } = &error else {
        panic!("{error}");
    };
    assert!(error.to_string().contains("`square`"), "{error}");
    diagnostics.clone()
}

/// Writes a script. Another process does, since what this one has open for writing, one that a
/// thread beside starts may have open as well, and then it cannot be executed.
fn script(path: &Path, text: &str) {
    let status = Command::new("/bin/sh")
        .args([
            "-c",
            "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\" && chmod 755 \"$0\"",
        ])
        .arg(path)
        .arg(text)
        .status();
    assert!(status.unwrap().success());
}

/// A folder with these scripts in the place of the two programs.
fn scripts(opt: &str, translate: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    script(&dir.path().join("mlir-opt-19"), opt);
    script(&dir.path().join("mlir-translate-19"), translate);
    dir
}

#[test]
fn a_function_of_memrefs_runs_at_every_level() {
    if runtime().is_none() {
        return;
    }
    for level in OptLevel::ALL {
        let runtime = builder().opt_level(level).build().unwrap();
        assert_eq!(squares(&runtime, &Source::mlir("square", SQUARE)), SQUARES);
    }
}

#[test]
fn what_is_lowered_already_and_bytecode_are_as_good() {
    let Some(runtime) = runtime() else { return };
    assert_eq!(squares(&runtime, &Source::mlir("square", LOWERED)), SQUARES);
    let dir = tempfile::tempdir().unwrap();
    let (text, bytecode) = (dir.path().join("k.mlir"), dir.path().join("k.mlirbc"));
    std::fs::write(&text, SQUARE).unwrap();
    let [opt, _] = tools(&runtime);
    let status = Command::new(opt)
        .args(["--emit-bytecode", "-o"])
        .args([&bytecode, &text])
        .status();
    assert!(status.unwrap().success());
    let bytecode = Source::mlir("square", std::fs::read(&bytecode).unwrap());
    assert!(bytecode.contents().starts_with(b"ML\xefR"));
    assert_eq!(squares(&runtime, &bytecode), SQUARES);
}

#[test]
fn loops_and_vectors_of_all_dialects_are_lowered() {
    let Some(runtime) = runtime() else { return };
    // A stencil, a sum of rows by vectors, a table, scratch, and a reshaped view.
    let text = r#"
memref.global "private" constant @table : memref<4xf32> = dense<[1.0, 2.0, 3.0, 4.0]>
func.func private @twice(%m: memref<4xf32>, %at: index) -> f32 {
  %two = arith.constant 2.0 : f32
  %v = memref.load %m[%at] : memref<4xf32>
  %w = arith.mulf %v, %two : f32
  return %w : f32
}
func.func @k(%y: memref<4x4xf32>, %x: memref<4x4xf32>) {
  %c0 = arith.constant 0 : index
  %c1 = index.constant 1
  %c4 = arith.constant 4 : index
  %zero = arith.constant 0.0 : f32
  %scratch = memref.alloca() : memref<4xf32>
  linalg.fill ins(%zero : f32) outs(%y : memref<4x4xf32>)
  affine.for %i = 0 to 4 {
    %row = vector.transfer_read %x[%i, %c0], %zero : memref<4x4xf32>, vector<4xf32>
    %sum = vector.reduction <add>, %row : vector<4xf32> into f32
    affine.store %sum, %scratch[%i] : memref<4xf32>
  }
  %table = memref.get_global @table : memref<4xf32>
  scf.parallel (%i) = (%c0) to (%c4) step (%c1) {
    %sum = memref.load %scratch[%i] : memref<4xf32>
    %t = func.call @twice(%table, %i) : (memref<4xf32>, index) -> f32
    %row = memref.subview %y[%i, 0] [1, 4] [1, 1]
      : memref<4x4xf32> to memref<4xf32, strided<[1], offset: ?>>
    scf.for %j = %c0 to %c4 step %c1 {
      %first = arith.cmpi eq, %j, %c0 : index
      %v = scf.if %first -> f32 {
        scf.yield %sum : f32
      } else {
        scf.yield %t : f32
      }
      memref.store %v, %row[%j] : memref<4xf32, strided<[1], offset: ?>>
    }
    scf.reduce
  }
  return
}
"#;
    let x: Vec<f32> = (0..16_u8).map(f32::from).collect();
    let expected = |i: usize| {
        let row = i / 4;
        match i % 4 {
            0 => x[4 * row..4 * row + 4].iter().sum::<f32>(),
            _ => [2.0, 4.0, 6.0, 8.0][row],
        }
    };
    let expected: Vec<f32> = (0..16).map(expected).collect();
    assert_eq!(maps(&runtime, &Source::mlir("k", text), &x), expected);
}

/// Functions of the `math` dialect, each beside its name in C.
const MATH: [(&str, &str); 19] = [
    ("sqrt", "sqrtf"),
    ("exp", "expf"),
    ("exp2", "exp2f"),
    ("log", "logf"),
    ("log2", "log2f"),
    ("log1p", "log1pf"),
    ("expm1", "expm1f"),
    ("sin", "sinf"),
    ("cos", "cosf"),
    ("tan", "tanf"),
    ("tanh", "tanhf"),
    ("erf", "erff"),
    ("atan", "atanf"),
    ("cbrt", "cbrtf"),
    ("floor", "floorf"),
    ("ceil", "ceilf"),
    ("trunc", "truncf"),
    ("roundeven", "roundevenf"),
    ("absf", "fabsf"),
];

const POINTS: [f32; 16] = [
    1e-6, 1e-3, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 7.25, 8.5, 12.0, 20.0,
];

#[test]
fn mathematical_functions_give_the_bits_that_they_give_in_c() {
    let Some(runtime) = runtime() else { return };
    for (name, c_name) in MATH {
        let scalar = format!(
            "func.func @k(%y: memref<16xf32>, %x: memref<16xf32>) {{
               affine.for %i = 0 to 16 {{
                 %v = affine.load %x[%i] : memref<16xf32>
                 %w = math.{name} %v : f32
                 affine.store %w, %y[%i] : memref<16xf32>
               }}
               return
             }}"
        );
        let vector = format!(
            "func.func @k(%y: memref<16xf32>, %x: memref<16xf32>) {{
               %c0 = arith.constant 0 : index
               %v = vector.load %x[%c0] : memref<16xf32>, vector<16xf32>
               %w = math.{name} %v : vector<16xf32>
               vector.store %w, %y[%c0] : memref<16xf32>, vector<16xf32>
               return
             }}"
        );
        let c = format!(
            "float {c_name}(float);
             void k(float *restrict y, const float *restrict x) {{
               for (int i = 0; i < 16; i++) y[i] = {c_name}(x[i]);
             }}"
        );
        let bits = |source: Source| {
            let y = maps(&runtime, &source, &POINTS);
            y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let by_c = bits(Source::c("k", c));
        assert_eq!(bits(Source::mlir("k", scalar)), by_c, "{name}");
        assert_eq!(bits(Source::mlir("k", vector)), by_c, "{name} of vectors");
    }
}

#[test]
fn integer_powers_are_made_of_multiplications() {
    let Some(runtime) = runtime() else { return };
    let text = "
func.func @k(%y: memref<4xi64>, %x: memref<4xi64>, %n: i64) {
  affine.for %i = 0 to 4 {
    %v = affine.load %x[%i] : memref<4xi64>
    %w = math.ipowi %v, %n : i64
    affine.store %w, %y[%i] : memref<4xi64>
  }
  return
}";
    let signature = Signature::builder()
        .write(DType::I64, 4)
        .read(DType::I64, 4)
        .scalar(DType::I64, "n", Bounds::Any)
        .build()
        .unwrap();
    // SAFETY: the kernel writes four numbers and reads four.
    let kernel = unsafe { runtime.load(&Source::mlir("k", text), signature) }.unwrap();
    let x = Buffer::from_slice(&[1_i64, 2, -3, 10]).unwrap();
    let mut y = Buffer::zeroed(DType::I64, 4).unwrap();
    let arguments = &mut [Arg::from(&mut y), Arg::from(&x)];
    kernel.launch(arguments, &[Scalar::I64(5)], 1).unwrap();
    assert_eq!(y.as_slice::<i64>().unwrap(), [1, 32, -243, 100_000]);
}

#[test]
fn a_packed_entry_finds_its_buffers_and_values_in_arrays() {
    let Some(runtime) = runtime() else { return };
    let text = "
llvm.func @axpy(%buffers: !llvm.ptr, %values: !llvm.ptr) {
  %py = llvm.load %buffers : !llvm.ptr -> !llvm.ptr
  %second = llvm.getelementptr %buffers[1] : (!llvm.ptr) -> !llvm.ptr, !llvm.ptr
  %px = llvm.load %second : !llvm.ptr -> !llvm.ptr
  %a = llvm.load %values : !llvm.ptr -> f32
  %index = llvm.getelementptr %values[1] : (!llvm.ptr) -> !llvm.ptr, i64
  %i = llvm.load %index : !llvm.ptr -> i64
  %pxi = llvm.getelementptr %px[%i] : (!llvm.ptr, i64) -> !llvm.ptr, f32
  %pyi = llvm.getelementptr %py[%i] : (!llvm.ptr, i64) -> !llvm.ptr, f32
  %x = llvm.load %pxi : !llvm.ptr -> f32
  %y = llvm.load %pyi : !llvm.ptr -> f32
  %ax = arith.mulf %a, %x : f32
  %sum = arith.addf %ax, %y : f32
  llvm.store %sum, %pyi : f32, !llvm.ptr
  llvm.return
}";
    let signature = Signature::builder()
        .read_write(DType::F32, 4)
        .read(DType::F32, 4)
        .scalar(DType::F32, "a", Bounds::Any)
        .index(DType::I64, 4)
        .convention(Convention::Packed)
        .build()
        .unwrap();
    // SAFETY: for each i in [0, 4) the kernel reads and writes y[i], and reads x[i].
    let kernel = unsafe { runtime.load(&Source::mlir("axpy", text), signature) }.unwrap();
    let x = Buffer::from_slice(&[1.0_f32, 2.0, 3.0, 4.0]).unwrap();
    let mut y = Buffer::from_slice(&[10.0_f32, 20.0, 30.0, 40.0]).unwrap();
    let arguments = &mut [Arg::from(&mut y), Arg::from(&x)];
    kernel.launch(arguments, &[Scalar::F32(0.5)], 4).unwrap();
    assert_eq!(y.as_slice::<f32>().unwrap(), [10.5, 21.0, 31.5, 42.0]);
}

#[test]
fn what_is_broken_says_where_in_the_kernel() {
    let Some(runtime) = runtime() else { return };
    // No MLIR; well-formed and no valid module; a dialect that nobody knows.
    let said = refused(&runtime, &SQUARE.replace("math.fma", "math.fmaa"));
    assert!(said.contains("kernels/square.mlir:6:8: error: "), "{said}");
    assert!(said.contains("math.fmaa"), "{said}");
    let said = refused(&runtime, &SQUARE.replace(", %y[", ", %z["));
    assert!(said.contains("kernels/square.mlir:7:"), "{said}");
    let said = refused(&runtime, &SQUARE.replace("  return", "  foo.bar"));
    assert!(said.contains("kernels/square.mlir:8:"), "{said}");
    assert!(said.contains("foo"), "{said}");
    let said = refused(&runtime, &SQUARE.replace("square(", "square(%a: i32) -> ("));
    assert!(said.contains("kernels/square.mlir:"), "{said}");
}

#[test]
fn what_no_pass_takes_further_says_where_it_came_from() {
    let Some(runtime) = runtime() else { return };
    let tensor = SQUARE.replace(
        "  return",
        "  %t = tensor.empty() : tensor<4xf32>\n  \
         %e = tensor.extract %t[%at] : tensor<4xf32>\n  \
         memref.store %e, %y[%at] : memref<4xf32>\n  return",
    );
    let said = refused(&runtime, &tensor);
    for (line, op) in [(8, "tensor.empty"), (9, "tensor.extract")] {
        let place = format!("kernels/square.mlir:{line}:8: error: `{op}`");
        assert!(said.contains(&place), "{said}");
    }
    let dynamic = SQUARE.replace("memref<4xf32>", "memref<?xf32>");
    let said = refused(&runtime, &dynamic);
    assert!(
        said.contains("kernels/square.mlir:2:1: error: `func.func`"),
        "{said}"
    );
    assert!(said.contains("static shape"), "{said}");
}

#[test]
fn an_entry_that_is_not_there_is_found_out_when_it_is_linked() {
    let Some(runtime) = runtime() else { return };
    for source in [
        Source::mlir("cube", SQUARE),
        Source::mlir("square", SQUARE.replace("@square", "@other")),
        // It is seen in its module alone.
        Source::mlir("square", LOWERED.replace("llvm.func", "llvm.func internal")),
        Source::mlir("square", ""),
    ] {
        // SAFETY: nothing is ever called.
        let error = unsafe { runtime.load(&source, square()) }.unwrap_err();
        assert!(matches!(error, Error::NoEntry { .. }), "{error}");
    }
}

#[test]
fn a_module_for_another_target_is_refused_by_name() {
    let Some(runtime) = runtime() else { return };
    let triple = "llvm.target_triple = \"riscv64-unknown-linux-gnu\"";
    let other = format!("module attributes {{{triple}}} {{\n{LOWERED}\n}}");
    let said = refused(&runtime, &other);
    assert!(said.contains("riscv64"), "{said}");
}

#[test]
fn code_is_made_for_other_machines_too() {
    let Some(runtime) = runtime() else { return };
    let level = CpuLevel::named("aarch64").unwrap();
    let sources = [Source::mlir("square", SQUARE)];
    let object = runtime.compile_all_for(&level, &sources, &|_, _| ());
    let object = object.into_iter().next().unwrap().unwrap();
    let file = svod_runtime::link::ObjectFile::parse("square", object.bytes()).unwrap();
    assert_eq!(file.architecture().name(), "aarch64");
}

#[test]
fn many_at_once_are_each_compiled_or_each_refused() {
    let Some(runtime) = runtime() else { return };
    let source = |i: usize| match i % 4 {
        0 => Source::mlir("square", SQUARE.replace("1.0", &format!("{i}.0"))),
        1 => Source::mlir("square", LOWERED.replace("1.0", &format!("{i}.0"))),
        2 => Source::mlir("square", "func.func nonsense").named(format!("{i}.mlir")),
        // What another compiler writes between modules.
        _ => Source::mlir("square", format!("// -----\n{SQUARE}\n// ----- {i}")),
    };
    let sources: Vec<Source> = (0..16).map(source).collect();
    let told = Mutex::new(Vec::new());
    let objects = runtime.compile_all(&sources, &|i, origin| {
        assert_eq!(origin, Origin::Compiled);
        told.lock().unwrap().push(i);
    });
    let mut told = told.into_inner().unwrap();
    told.sort_unstable();
    assert!(
        told.iter().copied().eq((0..16).filter(|i| i % 4 != 2)),
        "{told:?}"
    );
    for (i, object) in objects.into_iter().enumerate() {
        if i % 4 == 2 {
            let error = object.unwrap_err().to_string();
            assert!(error.contains(&format!("{i}.mlir:1:11")), "{error}");
            continue;
        }
        // SAFETY: for each i in [0, 4) the kernel writes y[i] and reads x[i].
        let kernel = unsafe { runtime.link(&object.unwrap(), square()) }.unwrap();
        let x = Buffer::from_slice(&[0.0_f32, 1.0, 2.0, 3.0]).unwrap();
        let mut y = Buffer::zeroed(DType::F32, 4).unwrap();
        let arguments = &mut [Arg::from(&mut y), Arg::from(&x)];
        kernel.launch(arguments, &[], 4).unwrap();
        let plus = if i % 4 == 3 { 1.0 } else { i as f32 };
        let expected = [plus, 1.0 + plus, 4.0 + plus, 9.0 + plus];
        assert_eq!(y.as_slice::<f32>().unwrap(), expected, "{i}");
    }
}

#[test]
fn what_is_lowered_together_gives_the_code_that_it_gives_alone() {
    let Some(runtime) = runtime() else { return };
    let mut sources: Vec<Source> = MATH
        .iter()
        .map(|(name, _)| {
            let text = SQUARE.replace("math.fma %v, %v, %one", &format!("math.{name} %v"));
            Source::mlir("square", text)
        })
        .collect();
    // Comments that do not end, and the same names in each.
    sources.push(Source::mlir("square", format!("{SQUARE}// the end")));
    sources.push(Source::mlir("square", LOWERED));
    let together = runtime.compile_all(&sources, &|_, _| ());
    for (source, together) in sources.iter().zip(together) {
        let alone = runtime.compile(source).unwrap();
        let text = String::from_utf8_lossy(source.contents());
        assert!(together.unwrap().bytes() == alone.bytes(), "{text}");
    }
}

#[test]
fn clang_takes_what_the_library_does_not() {
    let Some(runtime) = runtime() else { return };
    let compiler = runtime.toolchain().c_compiler("square").ok();
    let version = runtime.toolchain().mlir().unwrap().version();
    if compiler.is_none_or(|c| c.family != Family::Clang || c.major < version) {
        eprintln!("skipped: there is no clang of the version of MLIR");
        return;
    }
    // With a flag, it is asked of clang.
    let by_clang = builder().flag("-w").build().unwrap();
    assert_eq!(squares(&by_clang, &Source::mlir("square", SQUARE)), SQUARES);
}

#[test]
fn a_library_that_is_older_than_what_made_the_ir_is_told_of() {
    let Some(runtime) = runtime() else { return };
    let old = builder().llvm("libLLVM-15.so.1").build().unwrap();
    if old.toolchain().llvm().is_err() {
        eprintln!("skipped: there is no libLLVM 15");
        return;
    }
    let version = runtime.toolchain().mlir().unwrap().version();
    // What declares an intrinsic has an attribute that LLVM IR has from version 16 on.
    let error = old.compile(&Source::mlir("square", LOWERED)).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Compile { .. }), "{text}");
    assert!(text.contains(&format!("MLIR {version}")), "{text}");
    assert!(
        text.contains("LLVM 15") && text.contains("SVOD_LLVM"),
        "{text}"
    );
    // What it does know, it compiles.
    let plain = SQUARE.replace(
        "%w = math.fma %v, %v, %one",
        "%q = arith.mulf %v, %v : f32\n  %w = arith.addf %q, %one",
    );
    assert_eq!(squares(&old, &Source::mlir("square", plain)), SQUARES);
}

#[test]
fn tools_may_be_named_by_folder_by_path_and_by_name() {
    let Some(runtime) = runtime() else { return };
    let [opt, translate] = tools(&runtime);
    let dir = tempfile::tempdir().unwrap();
    symlink(&opt, dir.path().join("mlir-opt")).unwrap();
    let lacks = builder().mlir(dir.path()).build().unwrap();
    let error = lacks.compile(&Source::mlir("square", SQUARE)).unwrap_err();
    assert!(error.to_string().contains("mlir-translate"), "{error}");

    symlink(&translate, dir.path().join("mlir-translate")).unwrap();
    let version = runtime.toolchain().mlir().unwrap().version();
    for named in [
        builder().mlir(dir.path()),
        builder().mlir(dir.path().join("mlir-opt")),
        builder().mlir("mlir-opt").search_path(dir.path()),
    ] {
        let runtime = named.build().unwrap();
        let mlir = runtime.toolchain().mlir().unwrap();
        assert_eq!(mlir.path(), dir.path().join("mlir-opt"));
        assert_eq!(mlir.version(), version);
        assert_eq!(squares(&runtime, &Source::mlir("square", SQUARE)), SQUARES);
    }
}

#[test]
fn without_the_tools_it_says_what_to_install() {
    for (named, expected) in [
        (Path::new("/nowhere"), "/nowhere"),
        (Path::new("/bin/true"), "/bin/true"),
        (Path::new("mlir-opt-99"), "mlir-opt-99"),
        (Path::new("/"), "mlir-opt"),
    ] {
        let runtime = builder().mlir(named).build().unwrap();
        let error = runtime
            .compile(&Source::mlir("square", SQUARE))
            .unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::NoMlir { .. }), "{text}");
        for part in [expected, "`square`", "mlir-19-tools", "SVOD_MLIR"] {
            assert!(text.contains(part), "{text}");
        }
        // C does without.
        assert!(runtime.compile(&Source::c("k", "void k(void) {}")).is_ok());
    }
}

#[test]
fn tools_that_are_too_old_or_of_two_versions_are_not_used() {
    let say = |version: u32| format!("echo 'LLVM version {version}.1.0'");
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| script(&dir.path().join(name), &text);
    let error = || {
        let runtime = builder().mlir(dir.path()).build().unwrap();
        let error = runtime.compile(&Source::mlir("square", SQUARE));
        error.unwrap_err().to_string()
    };
    write("mlir-opt", say(16));
    write("mlir-translate", say(16));
    let text = error();
    assert!(
        text.contains("version 16") && text.contains("from version 19"),
        "{text}"
    );
    write("mlir-translate", say(19));
    write("mlir-opt", say(20));
    let text = error();
    assert!(
        text.contains("version 19") && text.contains("version 20"),
        "{text}"
    );
    write("mlir-opt", "echo nothing".into());
    assert!(error().contains("does not say its version"));
}

#[test]
fn a_tool_that_crashes_or_is_killed_is_an_error() {
    let cat = "cat";
    for (opt, translate, expected) in [
        ("kill -9 $$", cat, "mlir-opt-19 could not compile"),
        (
            cat,
            "echo words >&2; kill -9 $$",
            "mlir-translate-19 could not compile",
        ),
        ("cat >/dev/null; exit 3", cat, "exit status: 3"),
    ] {
        let dir = scripts(opt, translate);
        let runtime = builder().mlir(dir.path()).build().unwrap();
        let error = runtime.compile(&Source::mlir("square", SQUARE));
        let text = error.unwrap_err().to_string();
        assert!(
            text.contains(expected) && text.contains("`square`"),
            "{text}"
        );
        if opt.contains("kill") || translate.contains("kill") {
            assert!(text.contains("signal: 9"), "{text}");
        }
        if translate.contains("words") {
            assert!(text.contains("words"), "{text}");
        }
    }
}

/// A runtime that keeps objects.
fn keeping(cache: &Path, tools: Option<&Path>) -> Runtime {
    let builder = RuntimeBuilder::from_env().cache_dir(cache);
    let builder = match tools {
        Some(tools) => builder.mlir(tools),
        None => builder,
    };
    builder.build().unwrap()
}

/// Compiles one source and says where its object came from.
#[track_caller]
fn origin(runtime: &Runtime, source: &Source) -> Origin {
    let told = Mutex::new(Vec::new());
    let sources = std::slice::from_ref(source);
    let object = runtime.compile_all(sources, &|_, origin| told.lock().unwrap().push(origin));
    object.into_iter().next().unwrap().unwrap();
    let told = told.into_inner().unwrap();
    assert_eq!(told.len(), 1);
    told[0]
}

/// Does something on a thread that cannot start programs.
fn starting_nothing<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let execve = if cfg!(target_arch = "aarch64") {
        221
    } else {
        59
    };
    let filter = SeccompFilter::new(
        [(execve, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(1),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let filter: BpfProgram = filter.unwrap().try_into().unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            seccompiler::apply_filter(&filter).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

#[test]
fn what_is_kept_is_used_with_no_process_started() {
    let Some(runtime) = runtime() else { return };
    // Plain names show no version, so that they have to be asked, once.
    let dir = tempfile::tempdir().unwrap();
    for (tool, name) in tools(&runtime).iter().zip(["mlir-opt", "mlir-translate"]) {
        symlink(tool, dir.path().join(name)).unwrap();
    }
    for tools in [None, Some(dir.path())] {
        let cache = tempfile::tempdir().unwrap();
        let source = Source::mlir("square", SQUARE);
        let new = || keeping(cache.path(), tools);
        assert_eq!(origin(&new(), &source), Origin::Compiled);
        assert_eq!(starting_nothing(|| origin(&new(), &source)), Origin::Cached);
        // The thread can indeed start nothing.
        let other = Source::mlir("square", LOWERED);
        let error = starting_nothing(|| new().compile(&other)).unwrap_err();
        assert!(matches!(error, Error::NoMlir { .. }), "{error}");
    }
}

#[test]
fn what_was_compiled_once_is_kept_and_what_decides_it_is_in_its_key() {
    let Some(runtime) = runtime() else { return };
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let source = Source::mlir("square", SQUARE);
    assert_eq!(origin(&keeping(&cache, None), &source), Origin::Compiled);
    let again = keeping(&cache, None);
    assert_eq!(origin(&again, &source), Origin::Cached);
    let explained = again.explain(std::slice::from_ref(&source)).unwrap();
    assert!(matches!(explained[0], Explanation::Hit), "{explained:?}");
    // The source, and the tools.
    let other = Source::mlir("square", SQUARE.replace("1.0", "3.0"));
    assert_eq!(origin(&again, &other), Origin::Compiled);
    let ir = Source::llvm_ir("square", "define void @square() {\n  ret void\n}\n");
    assert_eq!(origin(&again, &ir), Origin::Compiled);
    let copies = dir.path().join("tools");
    std::fs::create_dir(&copies).unwrap();
    for (tool, name) in tools(&runtime).iter().zip(["mlir-opt", "mlir-translate"]) {
        let copy = Command::new("cp").arg(tool).arg(copies.join(name)).status();
        assert!(copy.unwrap().success());
    }
    assert_eq!(
        origin(&keeping(&cache, Some(&copies)), &source),
        Origin::Compiled
    );
    assert_eq!(
        origin(&keeping(&cache, Some(&copies)), &source),
        Origin::Cached
    );
}

#[test]
fn what_scripts_lower_is_not_kept() {
    let Some(runtime) = runtime() else { return };
    let [opt, translate] = tools(&runtime);
    let exec = |tool: &Path| format!("exec {} \"$@\"", tool.display());
    let (dir, cache) = (
        scripts(&exec(&opt), &exec(&translate)),
        tempfile::tempdir().unwrap(),
    );
    let source = Source::mlir("square", SQUARE);
    let keeping = keeping(cache.path(), Some(dir.path()));
    assert_eq!(origin(&keeping, &source), Origin::Compiled);
    assert_eq!(origin(&keeping, &source), Origin::Compiled);
    let explained = keeping.explain(std::slice::from_ref(&source)).unwrap();
    let Explanation::NotKept(why) = &explained[0] else {
        panic!("{explained:?}");
    };
    assert!(why.contains("script"), "{why}");
}
