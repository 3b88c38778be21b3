//! LLVM IR, compiled in this process or by clang.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use svod_runtime::compile::cpu::CpuLevel;
use svod_runtime::{
    Arg, Buffer, DType, Error, OptLevel, Runtime, RuntimeBuilder, Signature, Source,
};

/// `y[i] = x[i] * x[i] + 1`
const SQUARE: &str = r#"
define void @square(ptr noalias %y, ptr noalias %x, i32 %i) {
  %at = sext i32 %i to i64
  %px = getelementptr inbounds float, ptr %x, i64 %at
  %py = getelementptr inbounds float, ptr %y, i64 %at
  %v = load float, ptr %px
  %w = call float @llvm.fmuladd.f32(float %v, float %v, float 1.0)
  store float %w, ptr %py
  ret void
}
declare float @llvm.fmuladd.f32(float, float, float)
"#;

/// Of every version that may be there, how the system finds it.
const LIBRARIES: [&str; 4] = [
    "libLLVM-15.so.1",
    "libLLVM-16.so.1",
    "libLLVM.so.19.1",
    "libLLVM.so.22.1",
];

fn builder() -> RuntimeBuilder {
    RuntimeBuilder::from_env().no_cache()
}

/// A runtime with a libLLVM, or nothing, which a machine that has all that tests need has not.
fn in_process() -> Option<Runtime> {
    let runtime = builder().build().unwrap();
    if let Err(why) = runtime.toolchain().llvm() {
        assert!(std::env::var_os("SVOD_TEST_NO_SKIP").is_none(), "{why}");
        eprintln!("skipped: {why}");
        return None;
    }
    Some(runtime)
}

/// Runs `square` over four numbers.
#[track_caller]
fn squares(runtime: &Runtime, source: &Source) -> Vec<f32> {
    let signature = Signature::builder()
        .write(DType::F32, 4)
        .read(DType::F32, 4)
        .index(DType::I32, 4)
        .build()
        .unwrap();
    // SAFETY: for each i in [0, 4) the kernel writes y[i] and reads x[i].
    let kernel = unsafe { runtime.load(source, signature) };
    let kernel = kernel.unwrap_or_else(|e| panic!("{e}"));
    let x = Buffer::from_slice(&[1.0_f32, 2.0, -3.0, 0.5]).unwrap();
    let mut y = Buffer::zeroed(DType::F32, 4).unwrap();
    kernel
        .launch(&mut [Arg::from(&mut y), Arg::from(&x)], &[], 4)
        .unwrap();
    y.as_slice::<f32>().unwrap().to_vec()
}

const SQUARES: [f32; 4] = [2.0, 5.0, 10.0, 1.25];

#[track_caller]
fn refused(runtime: &Runtime, text: &str) -> String {
    let source = Source::llvm_ir("square", text).named("kernels/square.ll");
    let error = runtime.compile(&source).unwrap_err();
    let Error::Compile { diagnostics, .. } = &error else {
        panic!("{error}");
    };
    assert!(error.to_string().contains("`square`"), "{error}");
    diagnostics.clone()
}

#[test]
fn text_runs_at_every_level() {
    if in_process().is_none() {
        return;
    }
    for level in OptLevel::ALL {
        let runtime = builder().opt_level(level).build().unwrap();
        assert_eq!(
            squares(&runtime, &Source::llvm_ir("square", SQUARE)),
            SQUARES
        );
    }
}

#[test]
fn every_version_that_is_there_compiles_beside_the_others() {
    if in_process().is_none() {
        return;
    }
    let all = LIBRARIES.map(|library| builder().llvm(library).build().unwrap());
    let there = all.iter().filter(|r| r.toolchain().llvm().is_ok());
    let there: Vec<&Runtime> = there.collect();
    for runtime in &there {
        assert_eq!(
            squares(runtime, &Source::llvm_ir("square", SQUARE)),
            SQUARES
        );
    }
    let versions: Vec<u32> = there
        .iter()
        .map(|r| r.toolchain().llvm().unwrap().version())
        .collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
}

#[test]
fn what_is_broken_says_where() {
    let Some(runtime) = in_process() else { return };
    let said = refused(&runtime, &SQUARE.replace("load float", "load flot"));
    assert!(said.starts_with("kernels/square.ll:6:"), "{said}");
    assert!(said.contains("error:"), "{said}");
    // Well-formed text that is no valid module.
    let said = refused(&runtime, &SQUARE.replace("ptr %py\n", "ptr %undefined\n"));
    assert!(said.contains("undefined"), "{said}");
    let twice = SQUARE.replace(
        "  ret void\n",
        "  br label %self\nself:\n  %q = add i32 %r, 1\n  %r = add i32 %q, 1\n  br label %self\n",
    );
    let said = refused(&runtime, &twice);
    assert!(said.contains("dominate"), "{said}");
}

/// Modules that LLVM's verifier has nothing against, and that its code generator crashes on.
const WITHOUT_CODE: [(&str, &str); 7] = [
    ("define void @taken(label) { ret void }", "taken"),
    (
        "define void @given(ptr %f) {\na:\n br label %b\nb:\n call void %f(label %b)\n ret void\n}",
        "given",
    ),
    (
        "declare void @g(ptr, label)\ndefine void @direct(ptr %p) {\na:\n br label %b\nb:\n \
         call void @g(ptr %p, label %b)\n ret void\n}",
        "direct",
    ),
    (
        "declare void @g(label)\ndeclare i32 @__gxx_personality_v0(...)\n\
         define void @thrown() personality ptr @__gxx_personality_v0 {\na:\n \
         invoke void @g(label %b) to label %b unwind label %c\nb:\n ret void\nc:\n \
         %x = landingpad i32 cleanup\n ret void\n}",
        "thrown",
    ),
    (
        "define void @chosen(i1 %c) {\na:\n %x = select i1 %c, label %a, label %b\n br label %b\nb:\n \
         ret void\n}",
        "chosen",
    ),
    (
        "define void @next(ptr %all) {\na:\n br label %b\nb:\n %x = va_arg ptr %all, label\n ret void\n}",
        "next",
    ),
    (
        "%unknown = type opaque\ndefine void @opaque(ptr %all) {\n %x = va_arg ptr %all, %unknown\n ret void\n}",
        "opaque",
    ),
];

#[test]
fn what_no_code_can_be_made_of_is_refused_and_named() {
    let Some(runtime) = in_process() else { return };
    for (text, function) in WITHOUT_CODE {
        let said = refused(&runtime, text);
        assert!(said.starts_with("kernels/square.ll: error:"), "{said}");
        assert!(said.contains(&format!("`{function}`")), "{said}");
    }
}

#[test]
fn a_module_for_another_target_is_refused_by_name() {
    let Some(runtime) = in_process() else { return };
    let other = format!("target triple = \"riscv64-unknown-linux-gnu\"\n{SQUARE}");
    let said = refused(&runtime, &other);
    assert!(said.contains("riscv64"), "{said}");
}

#[test]
fn an_entry_that_is_not_there_is_found_out_when_it_is_linked() {
    let Some(runtime) = in_process() else { return };
    let signature = Signature::builder().write(DType::F32, 4).build().unwrap();
    let source = Source::llvm_ir("cube", SQUARE);
    // SAFETY: nothing is ever called.
    let error = unsafe { runtime.load(&source, signature) }.unwrap_err();
    assert!(matches!(error, Error::NoEntry { .. }), "{error}");
}

#[test]
fn what_llvm_gives_up_on_is_an_error_and_the_process_lives_on() {
    let Some(runtime) = in_process() else { return };
    // No x86 and no aarch64 has this register.
    let text = "
define void @square(ptr %y, ptr %x, i32 %i) {
  %v = call i64 @llvm.read_register.i64(metadata !0)
  store i64 %v, ptr %y
  ret void
}
declare i64 @llvm.read_register.i64(metadata)
!0 = !{!\"nonesuch\"}
";
    let said = refused(&runtime, text);
    assert!(said.to_lowercase().contains("register"), "{said}");
    assert_eq!(
        squares(&runtime, &Source::llvm_ir("square", SQUARE)),
        SQUARES
    );
}

#[test]
fn several_threads_compile_at_once() {
    let Some(runtime) = in_process() else { return };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let source = Source::llvm_ir("square", SQUARE);
                    assert_eq!(squares(&runtime, &source), SQUARES);
                    refused(&runtime, "define nonsense");
                }
            });
        }
    });
}

#[test]
fn code_is_made_for_other_machines_too() {
    let Some(runtime) = in_process() else { return };
    let level = CpuLevel::named("aarch64").unwrap();
    let sources = [Source::llvm_ir("square", SQUARE)];
    let object = runtime.compile_all_for(&level, &sources, &|_, _| ());
    let object = object.into_iter().next().unwrap().unwrap();
    let file = svod_runtime::link::ObjectFile::parse("square", object.bytes()).unwrap();
    assert_eq!(file.architecture().name(), "aarch64");
}

#[test]
fn a_cpu_that_nobody_knows_is_an_error() {
    if in_process().is_none() || clang().is_none() {
        return;
    }
    let runtime = builder().target_cpu("x86-64-v9").build().unwrap();
    let said = refused(&runtime, SQUARE);
    assert!(said.contains("x86-64-v9"), "{said}");
}

/// clang, where there is one.
fn clang() -> Option<std::path::PathBuf> {
    let runtime = builder().build().unwrap();
    let compiler = runtime.toolchain().c_compiler("square").ok()?;
    let is_clang = compiler.family == svod_runtime::compile::Family::Clang;
    is_clang.then(|| compiler.path.clone())
}

#[test]
fn bitcode_is_as_good_as_text_and_clang_as_good_as_the_library() {
    let (Some(runtime), Some(clang)) = (in_process(), clang()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (ll, bc) = (dir.path().join("k.ll"), dir.path().join("k.bc"));
    std::fs::write(&ll, SQUARE).unwrap();
    let status = Command::new(&clang)
        .args(["-c", "-emit-llvm", "-Wno-override-module"])
        .arg(&ll)
        .arg("-o")
        .arg(&bc)
        .status();
    assert!(status.unwrap().success());
    let bitcode = Source::llvm_ir("square", std::fs::read(&bc).unwrap());
    assert_eq!(squares(&runtime, &bitcode), SQUARES);

    // With a flag, it is asked of clang.
    let by_clang = builder().cc(&clang).flag("-w").build().unwrap();
    assert_eq!(
        squares(&by_clang, &Source::llvm_ir("square", SQUARE)),
        SQUARES
    );
    let broken = Source::llvm_ir("square", "define nonsense");
    assert!(matches!(
        by_clang.compile(&broken),
        Err(Error::Compile { .. })
    ));
}

#[test]
fn the_same_module_gives_the_same_bits_by_clang_and_in_process() {
    let (Some(runtime), Some(clang)) = (in_process(), clang()) else {
        return;
    };
    let text = "
void square(float *restrict y, const float *restrict x, int i) {
  float sum = 0.1f;
  for (int k = 0; k < 4; k++) sum = sum * x[k] + x[(k + i) % 4] / 3.0f;
  y[i] = sum + x[i] * 0.7f;
}
";
    let dir = tempfile::tempdir().unwrap();
    let (c, ll) = (dir.path().join("k.c"), dir.path().join("k.ll"));
    std::fs::write(&c, text).unwrap();
    let status = Command::new(&clang)
        .args(["-S", "-emit-llvm", "-O1", "-Xclang", "-disable-llvm-passes"])
        .args(["-march=native", "-ffreestanding"])
        .arg(&c)
        .arg("-o")
        .arg(&ll)
        .status();
    assert!(status.unwrap().success());
    let module = Source::llvm_ir("square", std::fs::read(&ll).unwrap());
    // With a flag, it is asked of clang.
    let by_clang = builder().cc(&clang).flag("-w").build().unwrap();
    let bits = |runtime| squares(runtime, &module).into_iter().map(f32::to_bits);
    assert!(bits(&runtime).eq(bits(&by_clang)));
}

#[test]
fn without_a_library_and_without_clang_it_says_what_to_install() {
    let runtime = Runtime::builder()
        .llvm("/nowhere/libLLVM.so")
        .build()
        .unwrap();
    let error = runtime
        .compile(&Source::llvm_ir("square", SQUARE))
        .unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::NoLlvm { .. }), "{text}");
    assert!(
        text.contains("/nowhere/libLLVM.so") && text.contains("libllvm19"),
        "{text}"
    );
    // C does without.
    assert!(
        builder()
            .llvm("/nowhere/libLLVM.so")
            .build()
            .unwrap()
            .compile(&Source::c("k", "void k(void) {}"))
            .is_ok()
    );
}
