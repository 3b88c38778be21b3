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

/// Functions `@f` that LLVM's verifier has nothing against, and that its code generator crashes
/// on. The third is one that it never gets done with.
const WITHOUT_CODE: [&str; 19] = [
    "define void @f(label) { ret void }",
    "define void @f(ptr %g) {
     a: br label %b
     b: call void %g(label %b)
        ret void }",
    "define void @f() personality ptr @f {
     a: br label %b
     b: resume label %b }",
    "declare void @g(ptr, label)
     define void @f(ptr %p) {
     a: br label %b
     b: call void @g(ptr %p, label %b)
        ret void }",
    "declare void @g(label)
     declare i32 @handler(...)
     define void @f() personality ptr @handler {
     a: invoke void @g(label %b) to label %b unwind label %c
     b: ret void
     c: %x = landingpad i32 cleanup
        ret void }",
    r#"declare void @g()
     define void @f() {
     a: br label %b
     b: call void @g() ["deopt"(label %b)]
        ret void }"#,
    r#"declare void @g()
     define void @f() {
     a: br label %b
     b: call void @g() ["cfguardtarget"(label %b)]
        ret void }"#,
    r#"%opaque = type opaque
     declare void @g()
     define void @f() {
        call void @g() ["deopt"({%opaque} undef)]
        ret void }"#,
    "define void @f(i1 %c) {
     a: %x = select i1 %c, label %a, label %b
        br label %b
     b: ret void }",
    "define void @f(ptr %all) {
     a: br label %b
     b: %x = va_arg ptr %all, label
        ret void }",
    "define void @f(ptr %all) {
        %x = va_arg ptr %all, token
        ret void }",
    "define void @f(ptr %all) {
        %x = va_arg ptr %all, {i32, i32}
        ret void }",
    "define void @f(ptr %all) {
        %x = va_arg ptr %all, [2 x i64]
        ret void }",
    "%unknown = type opaque
     define void @f(ptr %all) {
        %x = va_arg ptr %all, %unknown
        ret void }",
    "%itself = type { %itself }
     define void @f(%itself) { ret void }",
    "%a = type { [2 x %b] }
     %b = type { %a }
     define void @f(ptr %x) {
        %v = load %a, ptr %x
        ret void }",
    r#"define target("unknown") @f() { unreachable }"#,
    r#"define void @f(target("unknown")) { ret void }"#,
    r#"define void @f(target("spirv.Unknown")) { ret void }"#,
];

#[test]
fn what_no_code_can_be_made_of_is_refused_and_named() {
    if in_process().is_none() {
        return;
    }
    let all = LIBRARIES.map(|library| builder().llvm(library).build().unwrap());
    for runtime in all.iter().filter(|r| r.toolchain().llvm().is_ok()) {
        let mut named = 0;
        for text in WITHOUT_CODE {
            let said = refused(runtime, text);
            // Some versions know no such text, or verify more.
            named += usize::from(said.contains("the function `f`"));
            assert!(said.starts_with("kernels/square.ll:"), "{said}");
            assert!(said.contains("error:"), "{said}");
        }
        assert!(named > WITHOUT_CODE.len() / 3, "{named}");
    }
}

#[test]
fn what_code_can_be_made_of_is_not_refused() {
    let Some(runtime) = in_process() else { return };
    let text = r#"
        declare void @g()
        declare i32 @handler(...)
        declare void @llvm.assume(i1)
        define i32 @square(i32 %way, ptr %place) personality ptr @handler {
        entry:
          switch i32 %way, label %a [ i32 1, label %b
                                      i32 2, label %c ]
        a:
          indirectbr ptr blockaddress(@square, %b), [label %b, label %c]
        b:
          invoke void @g() to label %c unwind label %d
        c:
          callbr void asm sideeffect "", "!i"() to label %e [label %f]
        d:
          %caught = landingpad { ptr, i32 } cleanup
          resume { ptr, i32 } %caught
        e:
          %next = va_arg ptr %place, i32
          call void @llvm.assume(i1 true) [ "align"(ptr %place, i64 16) ]
          br i1 true, label %f, label %a
        f:
          ret i32 %way
        }
    "#;
    let source = Source::llvm_ir("square", text).named("kernels/square.ll");
    runtime.compile(&source).unwrap();

    // Vectors as long as the processor's, whose size is not known, alone and in structures.
    let text = r#"
        declare { <vscale x 16 x i8>, <vscale x 16 x i8> }
          @llvm.aarch64.sve.ld2.sret.nxv16i8(<vscale x 16 x i1>, ptr)
        define <vscale x 16 x i8> @square(<vscale x 16 x i1> %some, ptr %x) "target-features"="+sve" {
          %both = call { <vscale x 16 x i8>, <vscale x 16 x i8> }
            @llvm.aarch64.sve.ld2.sret.nxv16i8(<vscale x 16 x i1> %some, ptr %x)
          %first = extractvalue { <vscale x 16 x i8>, <vscale x 16 x i8> } %both, 0
          ret <vscale x 16 x i8> %first
        }
    "#;
    let source = Source::llvm_ir("square", text).named("kernels/square.ll");
    let level = CpuLevel::named("aarch64").unwrap();
    let made = runtime.compile_all_for(&level, &[source], &|_, _| ());
    made.into_iter().next().unwrap().unwrap();
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
