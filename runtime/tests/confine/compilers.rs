//! Compilers that are confined: what they refuse, and that they compile all the same.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, test_kill_process};
use svod_runtime::bundle::Bundle;
use svod_runtime::compile::cache::Explanation;
use svod_runtime::compile::{Abilities, Origin};
use svod_runtime::confine::{Confinement, Helper, Limits};
use svod_runtime::doctor::examine;
use svod_runtime::{Error, Runtime, RuntimeBuilder, Source};
use tempfile::TempDir;

use crate::attempts::posing;
use crate::support::Files;
use crate::{Test, systems};

pub(crate) const TESTS: &[Test] = &[
    (
        "what_lies_elsewhere_is_not_included",
        what_lies_elsewhere_is_not_included,
    ),
    ("what_lies_in_the_bundle_is", what_lies_in_the_bundle_is),
    (
        "a_confined_compiler_makes_the_same_objects",
        a_confined_compiler_makes_the_same_objects,
    ),
    ("llvm_ir_and_mlir_compile", llvm_ir_and_mlir_compile),
    (
        "what_was_compiled_confined_is_kept_apart",
        what_was_compiled_confined_is_kept_apart,
    ),
    (
        "a_compiler_that_is_taken_over_is_stopped",
        a_compiler_that_is_taken_over_is_stopped,
    ),
    ("it_inherits_nothing", it_inherits_nothing),
    (
        "it_has_so_much_time_memory_and_room",
        it_has_so_much_time_memory_and_room,
    ),
    ("nothing_is_left_of_it", nothing_is_left_of_it),
    (
        "a_helper_that_is_none_is_named",
        a_helper_that_is_none_is_named,
    ),
    (
        "folders_that_are_named_are_read",
        folders_that_are_named_are_read,
    ),
];

pub(crate) fn confinement() -> Confinement {
    Confinement::new(Helper::this_program().unwrap())
}

fn builder() -> RuntimeBuilder {
    RuntimeBuilder::from_env().no_cache()
}

fn confined() -> RuntimeBuilder {
    builder().confine_compilers(confinement())
}

/// The C compilers of this machine that compile C, by name.
fn compilers() -> Vec<(String, Abilities)> {
    let found = examine(&Runtime::new().unwrap()).compilers.into_iter();
    let able = found.filter_map(|c| Some((c.path.to_string_lossy().into_owned(), c.abilities?)));
    let able: Vec<_> = able.filter(|(_, abilities)| abilities.c).collect();
    assert!(!able.is_empty(), "these tests need a C compiler in PATH");
    able
}

/// A bundle's folder, with a secret beside it and a link that leads there.
fn bundle() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("secret.h"), "int the_secret;\n").unwrap();
    let kernels = dir.path().join("bundle/kernels");
    fs::create_dir_all(&kernels).unwrap();
    fs::write(dir.path().join("bundle/common.h"), "#define FACTOR 2.0f\n").unwrap();
    std::os::unix::fs::symlink(dir.path().join("secret.h"), kernels.join("link.h")).unwrap();
    dir
}

/// A source in the bundle's folder.
fn source(dir: &Path, text: &str) -> Source {
    let bundle = dir.join("bundle");
    Source::c("k", text)
        .include_dir(bundle.join("kernels"))
        .readable(bundle)
}

#[track_caller]
fn assert_refused(runtime: &Runtime, source: &Source, file: &str) {
    let error = runtime.compile(source).unwrap_err();
    let Error::Compile {
        diagnostics, hint, ..
    } = &error
    else {
        panic!("{error}");
    };
    let hint = hint.as_deref().unwrap_or_default();
    assert!(hint.contains("the compiler was confined"), "{error}");
    let is_named = [file, &format!("./{file}")]
        .iter()
        .any(|f| hint.contains(&format!("`{f}`")));
    assert!(is_named, "{file}: {error}");
    // Not a word of what stands in it.
    for words in ["root:", "the_secret"] {
        assert!(!diagnostics.contains(words), "{error}");
    }
}

fn what_lies_elsewhere_is_not_included() {
    let dir = bundle();
    let secret = dir.path().join("secret.h");
    let secret = secret.to_str().unwrap();
    for (compiler, abilities) in compilers() {
        let runtime = confined().cc(&compiler).build().unwrap();
        for file in ["/etc/passwd", "../../secret.h", secret, "link.h"] {
            let text = format!("#include \"{file}\"\nvoid k(void) {{}}\n");
            assert_refused(&runtime, &source(dir.path(), &text), file);
        }
        for file in ["/etc/passwd", secret] {
            let text = format!("asm(\".incbin \\\"{file}\\\"\");\nvoid k(void) {{}}\n");
            assert_refused(&runtime, &source(dir.path(), &text), file);
        }
        if abilities.family.name() == "clang" && abilities.major >= 19 {
            let text = "const char x[] = {\n#embed \"/etc/passwd\"\n};\nvoid k(void) {}\n";
            assert_refused(&runtime, &source(dir.path(), text), "/etc/passwd");
        }
        // Without confinement it would have been there.
        let plain = builder().cc(&compiler).build().unwrap();
        let text = format!("#include \"{secret}\"\nvoid k(void) {{}}\n");
        plain.compile(&source(dir.path(), &text)).unwrap();
    }
    let text = "module asm \".incbin \\22/etc/passwd\\22\"\ndefine void @k() {\n  ret void\n}\n";
    let runtime = confined().build().unwrap();
    assert_refused(&runtime, &Source::llvm_ir("k", text), "/etc/passwd");
}

fn what_lies_in_the_bundle_is() {
    let text = "#include \"../common.h\"\n#include <stdint.h>\n#include <stddef.h>\n\
                void k(float *x, int32_t i) { x[i] *= FACTOR; }\n";
    let dir = bundle();
    for (compiler, _) in compilers() {
        let runtime = confined().cc(&compiler).build().unwrap();
        runtime.compile(&source(dir.path(), text)).unwrap();
    }
    // A bundle says by itself where it lies, which may be below the current folder.
    let files = Files::small();
    files.text("common.h", "#define ONE 1\n");
    let count = "#include \"../common.h\"\nvoid count(long long *runs) { runs[0] += ONE; }\n";
    files.text("kernels/count.c", count);
    let path = files.path();
    fs::write(path.join("plan.json"), files.plan.to_string()).unwrap();
    let bundle = Bundle::open(path).unwrap();
    let runtime = confined().build().unwrap();
    // SAFETY: the kernels keep their signatures.
    unsafe { bundle.load(&runtime, &|_| ()) }.unwrap();
    files.text(
        "kernels/count.c",
        &count.replace("../common.h", "/etc/passwd"),
    );
    let bundle = Bundle::open(path).unwrap();
    // SAFETY: likewise.
    let error = unsafe { bundle.load(&runtime, &|_| ()) }.unwrap_err();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text += &error.to_string();
        cause = error.source();
    }
    let shown = path.display().to_string();
    for words in ["`count`", "confined", "`/etc/passwd`", shown.as_str()] {
        assert!(text.contains(words), "{text}");
    }
}

fn a_confined_compiler_makes_the_same_objects() {
    let text = "void k(float *restrict y, const float *restrict x, int n) {\n    \
                for (int i = 0; i < n; i++) y[i] = x[i] * x[i] + __builtin_sqrtf(x[i]);\n}\n";
    for (compiler, _) in compilers() {
        let [plain, confined] = [builder(), confined()].map(|b| b.cc(&compiler).build().unwrap());
        let source = Source::c("k", text);
        let bytes = |runtime: &Runtime| runtime.compile(&source).unwrap().bytes().to_vec();
        assert_eq!(bytes(&plain), bytes(&confined), "{compiler}");
        // Many at once are merged, and what fails is told alone.
        let sources = ["a", "b", "c", "d"]
            .map(|name| Source::c(name, text.replace("void k(", &format!("void {name}("))));
        let mut sources = sources.to_vec();
        sources.push(Source::c(
            "bad",
            "#include \"/etc/passwd\"\nvoid bad(void) {}\n",
        ));
        let results = confined.compile_all(&sources, &|_, _| ());
        let good: Vec<bool> = results.iter().map(Result::is_ok).collect();
        assert_eq!(good, [true, true, true, true, false], "{compiler}");
    }
}

fn llvm_ir_and_mlir_compile() {
    let runtime = confined().build().unwrap();
    let toolchain = runtime.toolchain();
    let compiler = toolchain.c_compiler("k").unwrap();
    let ir = Source::llvm_ir(
        "k",
        "define void @k(ptr %x) {\n  store i8 1, ptr %x\n  ret void\n}\n",
    );
    let mlir = "func.func @k(%x: memref<1xf32>) {\n  %i = arith.constant 0 : index\n  \
                %v = arith.constant 1.0 : f32\n  memref.store %v, %x[%i] : memref<1xf32>\n  \
                return\n}\n";
    let mlir = Source::mlir("k", mlir);
    if compiler.family.name() == "clang" {
        runtime.compile(&ir).unwrap();
        match toolchain.mlir() {
            Ok(_) => {
                runtime.compile(&mlir).unwrap();
                // Several are lowered together.
                let both = [mlir.clone(), mlir];
                let results = runtime.compile_all(&both, &|_, _| ());
                results.into_iter().for_each(|result| drop(result.unwrap()));
            }
            Err(why) => assert!(std::env::var_os("SVOD_TEST_NO_SKIP").is_none(), "{why}"),
        }
    }
    // A gcc does not compile LLVM IR, and what does in this process is not asked.
    if let Some((gcc, _)) = compilers().iter().find(|(_, a)| a.family.name() == "gcc") {
        let runtime = confined().cc(gcc).build().unwrap();
        let error = runtime.compile(&ir).unwrap_err();
        assert!(matches!(error, Error::NoLlvm { .. }), "{error}");
        assert!(error.to_string().contains("confined"), "{error}");
    }
}

fn what_was_compiled_confined_is_kept_apart() {
    let folder = tempfile::tempdir().unwrap();
    let builder = || RuntimeBuilder::from_env().cache_dir(folder.path().join("cache"));
    let source = [Source::c("k", "void k(void) {}\n")];
    let origin = |runtime: &Runtime| {
        let origins = std::sync::Mutex::new(Vec::new());
        let results = runtime.compile_all(&source, &|_, from| origins.lock().unwrap().push(from));
        results.into_iter().for_each(|result| drop(result.unwrap()));
        origins.into_inner().unwrap()[0]
    };
    let confined = || builder().confine_compilers(confinement()).build().unwrap();
    assert_eq!(origin(&confined()), Origin::Compiled);
    assert_eq!(origin(&confined()), Origin::Cached);
    let plain = builder().build().unwrap();
    let explained = plain.explain(&source).unwrap();
    assert!(!matches!(explained[0], Explanation::Hit), "{explained:?}");
    assert_eq!(origin(&plain), Origin::Compiled);
    assert_eq!(origin(&confined()), Origin::Cached);
}

/// What a compiler that is taken over says of what it was told to try.
fn tried(runtime: &Runtime, lines: &str) -> String {
    match runtime.compile(&Source::c("k", lines)).unwrap_err() {
        Error::Compile { diagnostics, .. } => diagnostics,
        error => panic!("{error}"),
    }
}

/// A runtime whose compiler does what it is told, and its folder.
fn taken_over(confinement: Confinement) -> (TempDir, Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let runtime = builder()
        .cc(posing(dir.path()))
        .confine_compilers(confinement);
    (dir, runtime.build().unwrap())
}

#[track_caller]
fn assert_done(said: &str, attempt: &str, is_done: bool) {
    let line = said
        .lines()
        .find(|line| line.starts_with(&format!("try {attempt} -> ")));
    let line = line.unwrap_or_else(|| panic!("{attempt}: {said}"));
    assert_eq!(line.ends_with("-> done"), is_done, "{line}");
}

fn a_compiler_that_is_taken_over_is_stopped() {
    let (dir, runtime) = taken_over(confinement());
    let file = dir.path().join("mine");
    fs::write(&file, "x").unwrap();
    let file = file.display();
    let refused = [
        "read /etc/passwd".to_owned(),
        "read /etc/hostname".to_owned(),
        "read /proc/self/environ".to_owned(),
        "read /proc/1/environ".to_owned(),
        "list /".to_owned(),
        "list /tmp".to_owned(),
        "list /home".to_owned(),
        "list /root".to_owned(),
        "list /usr/local".to_owned(),
        format!("read {file}"),
        format!("write {file}"),
        format!("remove {file}"),
        format!("mode {file}"),
        "write /tmp/svod-was-here".to_owned(),
        "write /usr/lib/svod-was-here".to_owned(),
        "udp".to_owned(),
        "tcp".to_owned(),
        "unix".to_owned(),
        "pair".to_owned(),
        "trace".to_owned(),
        "session".to_owned(),
        "ring".to_owned(),
        "parent".to_owned(),
    ];
    let done = [
        "own-folder",
        "read /usr/include/stdint.h",
        "list /usr/lib",
        "run /bin/true",
    ];
    let attempts = refused.iter().map(String::as_str).chain(done);
    let lines: String = attempts.map(|attempt| format!("try {attempt}\n")).collect();
    let said = tried(&runtime, &lines);
    refused
        .iter()
        .for_each(|attempt| assert_done(&said, attempt, false));
    done.iter()
        .for_each(|attempt| assert_done(&said, attempt, true));
    assert_eq!(fs::read_to_string(file.to_string()).unwrap(), "x");
    // All of it works where nothing is confined, so that it is confinement that stops it.
    let plain = builder()
        .cc(dir.path().join(crate::attempts::COMPILER))
        .build()
        .unwrap();
    let said = tried(
        &plain,
        "try read /etc/passwd\ntry udp\ntry pair\ntry parent\n",
    );
    for attempt in ["read /etc/passwd", "udp", "pair", "parent"] {
        assert_done(&said, attempt, true);
    }
}

fn it_inherits_nothing() {
    let (_dir, runtime) = taken_over(confinement());
    // As a program may have it that starts others itself.
    let open = File::open("/etc/passwd").unwrap();
    fcntl_setfd(&open, FdFlags::empty()).unwrap();
    let said = tried(&runtime, "try inherited\ntry environment\n");
    assert_done(&said, "inherited", false);
    let known = [
        "PATH",
        "LD_LIBRARY_PATH",
        "TMPDIR",
        "TERM",
        "LC_ALL",
        "GLIBC_TUNABLES",
    ];
    let has: Vec<&str> = said
        .lines()
        .filter_map(|l| l.strip_prefix("has "))
        .collect();
    for name in &has {
        assert!(known.contains(name), "{name}");
    }
    // How compilers take memory.
    assert!(has.contains(&"GLIBC_TUNABLES"), "{has:?}");
    // While this process has more.
    assert!(std::env::vars().any(|(name, _)| !known.contains(&name.as_str())));
}

fn it_has_so_much_time_memory_and_room() {
    let (_dir, runtime) = taken_over(confinement().limits(Limits {
        time: Duration::from_millis(200),
        ..Limits::default()
    }));
    let said = tried(&runtime, "try forever\n");
    assert!(said.contains("took longer than 0.2 s"), "{said}");
    let (_dir, runtime) = taken_over(confinement().limits(Limits {
        memory: 1 << 30,
        file: 1 << 20,
        ..Limits::default()
    }));
    let said = tried(&runtime, "try allocate 2000000000\ntry allocate 1000000\n");
    assert_done(&said, "allocate 2000000000", false);
    assert_done(&said, "allocate 1000000", true);
    // Whether by an error or by a signal.
    let said = tried(&runtime, "try fill\n");
    assert!(
        said.contains("refused") || said.contains("SIGXFSZ"),
        "{said}"
    );
}

fn nothing_is_left_of_it() {
    let (_dir, runtime) = taken_over(confinement());
    let said = tried(&runtime, "try leave\n");
    let left = said.lines().find_map(|line| line.strip_prefix("left "));
    let left = Pid::from_raw(left.unwrap().parse().unwrap()).unwrap();
    // It is ended; whoever adopted it takes note of that when it likes.
    let state = || {
        let status = fs::read_to_string(format!("/proc/{}/status", left.as_raw_nonzero()));
        status.unwrap_or_default()
    };
    let is_there = || test_kill_process(left).is_ok() && !state().contains("State:\tZ");
    for _ in 0..1_000_000 {
        if !is_there() {
            return;
        }
        std::thread::yield_now();
    }
    panic!("{}", state());
}

fn a_helper_that_is_none_is_named() {
    let nowhere = Confinement::new(Helper::program("/nowhere/helper"));
    let runtime = builder().confine_compilers(nowhere).build().unwrap();
    let error = runtime
        .compile(&Source::c("k", "void k(void) {}\n"))
        .unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Confinement { .. }), "{text}");
    assert!(text.contains("cannot confine the compiler"), "{text}");
    assert!(text.contains("/nowhere/helper"), "{text}");
    // What the helper itself complains of.
    let gone = confinement().read("/nowhere/headers");
    let runtime = builder().confine_compilers(gone).build().unwrap();
    let error = runtime
        .compile(&Source::c("k", "void k(void) {}\n"))
        .unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Confinement { .. }), "{text}");
    assert!(text.contains("/nowhere/headers"), "{text}");
}

fn folders_that_are_named_are_read() {
    let dir = bundle();
    let headers = tempfile::tempdir().unwrap();
    fs::write(headers.path().join("more.h"), "#define MORE 1\n").unwrap();
    let flag = format!("-I{}", headers.path().display());
    let text = "#include <more.h>\nvoid k(int *x) { *x = MORE; }\n";
    let runtime = |confinement| {
        let builder = builder().flag(flag.as_str());
        builder.confine_compilers(confinement).build().unwrap()
    };
    let source = source(dir.path(), text);
    runtime(confinement().read(headers.path()))
        .compile(&source)
        .unwrap();
    systems::assert_confined(&runtime(confinement()).compile(&source).unwrap_err());
}
