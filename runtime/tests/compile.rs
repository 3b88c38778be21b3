//! Compiling: which compiler is used, what reaches it, and what is said when it
//! refuses or there is none.

// A helper of a test says what it expects by failing, as the test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use common::{compiler_of, compilers, with};
use svod_runtime::compile::{CCompiler, Family, OptLevel, Toolchain};
use svod_runtime::signature::Returns;
use svod_runtime::{Error, Runtime, RuntimeBuilder, Signature, Source};
use tempfile::TempDir;

/// What `int k(void)` returns, compiled as `builder` says.
fn result(builder: RuntimeBuilder, text: &str) -> i32 {
    result_of(builder, &Source::c("k", text))
}

fn result_of(builder: RuntimeBuilder, source: &Source) -> i32 {
    let signature = Signature::builder().returns(Returns::Status).build();
    // SAFETY: the sources of these tests touch no memory.
    let kernel = unsafe { builder.build().unwrap().load(source, signature.unwrap()) };
    match kernel.unwrap().launch(&mut [], &[], 1) {
        Ok(()) => 0,
        Err(Error::KernelStatus { status, .. }) => status,
        Err(error) => panic!("{error}"),
    }
}

fn error(builder: RuntimeBuilder, text: &str) -> Error {
    let runtime = builder.build().unwrap();
    runtime.compile(&Source::c("k", text)).unwrap_err()
}

/// A program that answers like a compiler that predefines `macros`, and otherwise
/// does `then`.
///
/// A process of its own writes it: a file that this one held open for writing
/// could not be started while another thread starts a process.
fn fake(path: &Path, macros: &str, then: &str) {
    let script =
        format!("#!/bin/sh\ncase \"$*\" in *-dM*) printf '{macros}'; exit 0;; esac\n{then}\n");
    let status = Command::new("/bin/sh")
        .args(["-c", "printf %s \"$1\" > \"$0\""])
        .arg(path)
        .arg(script)
        .status()
        .unwrap();
    assert!(status.success());
    std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

fn clang(major: u32) -> String {
    // A clang says that it is a gcc 4 as well.
    format!("#define __GNUC__ 4\\n#define __clang_major__ {major}\\n")
}

const GCC: &str = "#define __GNUC__ 12\\n";

// ---- Which compiler

fn found(folders: &[&Path]) -> Result<CCompiler, Error> {
    let path = std::env::join_paths(folders).unwrap();
    Toolchain::new(None, path).c_compiler("k").cloned()
}

#[test]
fn the_newest_clang_is_preferred_then_gcc_then_cc() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    let is = |name: &str, family, major| {
        let path = at(name);
        assert_eq!(
            found(&[dir.path()]).unwrap(),
            CCompiler {
                path,
                family,
                major
            }
        );
    };
    fake(&at("cc"), GCC, "");
    is("cc", Family::Gcc, 12);
    fake(&at("gcc"), "#define __GNUC__ 14\\n", "");
    is("gcc", Family::Gcc, 14);
    fake(&at("clang"), &clang(15), "");
    is("clang", Family::Clang, 15);
    fake(&at("clang-9"), &clang(9), "");
    is("clang", Family::Clang, 15);
    fake(&at("clang-19"), &clang(19), "");
    is("clang-19", Family::Clang, 19);
    fake(&at("clang-40"), &clang(40), "");
    is("clang-40", Family::Clang, 40);
    // A number is a number, and what only looks like a clang is none.
    fake(&at("clang-format-999"), &clang(999), "");
    fake(&at("clang-cpp-999"), &clang(999), "");
    std::fs::write(at("clang-998"), "not executable").unwrap();
    std::fs::create_dir(at("clang-997")).unwrap();
    is("clang-40", Family::Clang, 40);
    fake(&at("clang"), &clang(101), "");
    is("clang", Family::Clang, 101);
}

#[test]
fn a_clang_is_told_by_what_it_says_and_not_by_its_name() {
    let dir = TempDir::new().unwrap();
    fake(&dir.path().join("gcc"), &clang(17), "");
    let gcc = found(&[dir.path()]).unwrap();
    assert_eq!((gcc.family, gcc.major), (Family::Clang, 17));
}

#[test]
fn folders_are_searched_in_order_and_only_absolute_ones() {
    let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for dir in [&first, &second] {
        fake(&dir.path().join("gcc"), GCC, "");
        fake(&dir.path().join("clang-18"), &clang(18), "");
    }
    let missing = first.path().join("missing");
    let folders = [
        Path::new(""),
        Path::new("."),
        &missing,
        first.path(),
        second.path(),
    ];
    assert_eq!(found(&folders).unwrap().path, first.path().join("clang-18"));
    // The newest wins wherever it lies.
    fake(&second.path().join("clang-20"), &clang(20), "");
    assert_eq!(
        found(&folders).unwrap().path,
        second.path().join("clang-20")
    );
    // A name is looked for in the same order.
    let path = std::env::join_paths(folders).unwrap();
    let named = Toolchain::new(Some("gcc".into()), path);
    assert_eq!(
        named.c_compiler("k").unwrap().path,
        first.path().join("gcc")
    );
}

#[test]
fn a_broken_clang_stands_in_nobodys_way() {
    let dir = TempDir::new().unwrap();
    fake(&dir.path().join("gcc"), GCC, "");
    symlink("/bin/false", dir.path().join("clang")).unwrap();
    assert_eq!(found(&[dir.path()]).unwrap().family, Family::Gcc);
    // But if nothing else is there, it is said what is broken.
    std::fs::remove_file(dir.path().join("gcc")).unwrap();
    symlink("/bin/false", dir.path().join("gcc")).unwrap();
    let message = found(&[dir.path()]).unwrap_err().to_string();
    assert!(message.contains("/gcc"), "{message}");
}

#[test]
fn a_compiler_is_looked_for_only_when_a_source_comes_and_only_once() {
    let dir = TempDir::new().unwrap();
    let runtime = Runtime::builder().search_path(dir.path()).build().unwrap();
    let source = Source::c("k", "int k(void) { return 0; }");
    assert!(matches!(
        runtime.compile(&source),
        Err(Error::NoCompiler { .. })
    ));
    symlink(&compilers()[0].path, dir.path().join("gcc")).unwrap();
    runtime.compile(&source).unwrap();
    fake(&dir.path().join("clang-99"), &clang(99), "exit 1");
    runtime.compile(&source).unwrap();
}

/// What runtimes with the same cache find in a folder, and how many things they remember.
fn found_and_remembered(folder: &Path, cache: &Path) -> (String, usize) {
    let builder = || Runtime::builder().search_path(folder).cache_dir(cache);
    assert_eq!(result(builder(), "int k(void) { return 1; }"), 1);
    let runtime = builder().build().unwrap();
    let found = runtime.toolchain().c_compiler("k").unwrap();
    let memory = std::fs::read_dir(cache.join("compilers")).unwrap();
    let name = found.path.file_name().unwrap().to_str().unwrap();
    (name.to_owned(), memory.count())
}

/// Has a folder look as if nobody had touched it for an hour.
fn age(folder: &Path) {
    let folder = std::fs::File::open(folder).unwrap();
    let hour = std::time::Duration::from_secs(3600);
    folder.set_modified(SystemTime::now() - hour).unwrap();
}

#[test]
fn which_compiler_is_found_is_remembered_until_a_folder_changes() {
    let all = compilers();
    let Some(clang) = all.iter().find(|c| c.family == Family::Clang) else {
        return;
    };
    let clang = clang.path.canonicalize().unwrap();
    let (dir, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let link = |name: &str, to: &Path| symlink(to, dir.path().join(name)).unwrap();
    let look = || found_and_remembered(dir.path(), cache.path());
    // Only who the compiler is, as long as the folder's time says little.
    link("clang-16", &clang);
    assert_eq!(look(), ("clang-16".to_owned(), 1));
    age(dir.path());
    assert_eq!(look(), ("clang-16".to_owned(), 2));
    assert_eq!(look(), ("clang-16".to_owned(), 2));
    link("clang-18", &clang);
    assert_eq!(look(), ("clang-18".to_owned(), 3));
    // A link that may come to lead somewhere, which its folder would not show.
    link("clang-20", &dir.path().join("later"));
    age(dir.path());
    assert_eq!(look(), ("clang-18".to_owned(), 3));
    let folder = std::fs::File::open(dir.path()).unwrap();
    let before = folder.metadata().unwrap().modified().unwrap();
    link("later", &clang);
    folder.set_modified(before).unwrap();
    assert_eq!(look(), ("clang-20".to_owned(), 4));
    // So may a plain name.
    link("clang", &dir.path().join("still later"));
    age(dir.path());
    assert_eq!(look(), ("clang-20".to_owned(), 4));
    // The one that was found goes.
    std::fs::remove_file(dir.path().join("later")).unwrap();
    folder.set_modified(before).unwrap();
    assert_eq!(look().0, "clang-18");
}

#[test]
fn no_compiler_is_an_error_that_says_what_was_looked_for_where_and_what_to_do() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let path = std::env::join_paths([a.path(), b.path()]).unwrap();
    let error = error(Runtime::builder().search_path(path), "int k;");
    assert!(matches!(error, Error::NoCompiler { .. }), "{error:?}");
    let message = error.to_string();
    let folders = [a.path(), b.path()].map(|p| p.display().to_string());
    for part in [
        "`k`",
        "clang",
        "gcc",
        "cc",
        "apt-get install",
        "SVOD_CC",
        &folders[0],
        &folders[1],
    ] {
        assert!(message.contains(part), "{part} in: {message}");
    }
    let nowhere = Runtime::builder().search_path(OsString::new());
    let message = self::error(nowhere, "int k;").to_string();
    assert!(
        message.contains("PATH") && message.contains("empty"),
        "{message}"
    );
}

#[test]
fn a_compiler_that_was_named_and_cannot_be_used_is_an_error_that_says_why() {
    let dir = TempDir::new().unwrap();
    let text_file = dir.path().join("text");
    std::fs::write(&text_file, "text").unwrap();
    let liar = dir.path().join("liar");
    fake(&liar, "#define __GNUC__ many\\n", "");
    for (cc, reason) in [
        (PathBuf::from("/nowhere/clang"), "cannot be started"),
        (text_file, "cannot be started"),
        (dir.path().to_owned(), "cannot be started"),
        (PathBuf::from("/bin/true"), "neither a clang nor a gcc"),
        (PathBuf::from("/bin/false"), "failed"),
        (liar, "neither a clang nor a gcc"),
        (PathBuf::from("no-such-compiler"), "no program of that name"),
    ] {
        let builder = Runtime::builder().cc(&cc).search_path(dir.path());
        let error = error(builder, "int k(void) { return 1; }");
        let Error::BadCompiler {
            compiler, source, ..
        } = &error
        else {
            panic!("{cc:?}: {error:?}");
        };
        assert_eq!(*compiler, cc);
        assert_eq!(source.is_some(), reason == "cannot be started", "{cc:?}");
        let message = error.to_string();
        assert!(message.contains(reason), "{message}");
        assert!(message.contains(&cc.display().to_string()), "{message}");
    }
}

// ---- What reaches it

#[test]
fn the_optimisation_level_reaches_the_compiler() {
    let text = "
        #ifdef __OPTIMIZE__
        int k(void) { return 1; }
        #else
        int k(void) { return 2; }
        #endif";
    for compiler in compilers() {
        for (level, expected) in [(OptLevel::O0, 2), (OptLevel::O1, 1), (OptLevel::O3, 1)] {
            let got = result(with(&compiler).opt_level(level), text);
            assert_eq!(got, expected, "{compiler:?} {level:?}");
        }
        assert_eq!(result(with(&compiler), text), 1, "-O2 if nothing is said");
    }
}

#[test]
fn flags_reach_the_compiler_in_order_and_after_all_others() {
    for compiler in compilers() {
        let text = "int k(void) { return X; }";
        assert_eq!(result(with(&compiler).flag("-DX=3"), text), 3);
        let twice = with(&compiler).flag("-DX=3").flag("-UX").flag("-DX=4");
        assert_eq!(result(twice, text), 4);
        // With a space in it, a flag is still one.
        assert_eq!(result(with(&compiler).flag("-DX=2 + 3"), text), 5);
        let level = "#ifndef __OPTIMIZE__\nint k(void) { return 6; }\n#endif";
        assert_eq!(
            result(with(&compiler).flag("-O0"), level),
            6,
            "the last level wins"
        );
    }
}

#[test]
fn the_target_cpu_reaches_the_compiler() {
    let text = "
        #ifdef __AVX2__
        int k(void) { return 2; }
        #else
        int k(void) { return 1; }
        #endif";
    for compiler in compilers() {
        assert_eq!(result(with(&compiler).target_cpu("x86-64"), text), 1);
        assert_eq!(result(with(&compiler).target_cpu("haswell"), text), 2);
        let native = if svod_runtime::compile::cpu::has("avx2") {
            2
        } else {
            1
        };
        assert_eq!(
            result(with(&compiler), text),
            native,
            "this CPU if nothing is said"
        );
        let error = error(with(&compiler).target_cpu("abacus"), text);
        assert!(error.to_string().contains("abacus"), "{error}");
    }
}

#[test]
fn a_source_includes_what_lies_in_its_folder() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("shared.h"), "#define SHARED 42\n").unwrap();
    let text = "#include \"shared.h\"\nint k(void) { return SHARED; }";
    for compiler in compilers() {
        let source = Source::c("k", text);
        let missing = with(&compiler).build().unwrap().compile(&source);
        let message = missing.unwrap_err().to_string();
        assert!(message.contains("shared.h"), "{message}");
        assert_eq!(
            result_of(with(&compiler), &source.include_dir(dir.path())),
            42
        );
    }
}

#[test]
fn a_name_of_any_characters_is_shown_and_stands_in_nobodys_way() {
    for compiler in compilers() {
        let name = "a \"b\" \\c e\u{301}\u{200b}\n.c";
        let source = |text| Source::c("k", text).named(name);
        assert_eq!(
            result_of(with(&compiler), &source("int k(void) { return 42; }")),
            42
        );
        let runtime = with(&compiler).build().unwrap();
        let message = runtime
            .compile(&source("int k(void) { return x; }"))
            .unwrap_err();
        let message = message.to_string();
        assert!(message.contains("e\u{301}\u{200b}?.c"), "{message}");
        // Nothing is said but what concerns the source.
        assert!(
            !message.contains("remove") && !message.contains("/proc"),
            "{message}"
        );
    }
}

#[test]
fn what_lies_where_the_program_was_started_is_not_included() {
    if !inside() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(here.path().join("shared.h"), "#define X 666").unwrap();
        std::fs::write(there.path().join("shared.h"), "#define X 42").unwrap();
        let test = "what_lies_where_the_program_was_started_is_not_included";
        let output = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact"])
            .env("SVOD_TEST_INSIDE", test)
            .env("SVOD_TEST_THERE", there.path())
            // Nor what the environment names.
            .env("CPATH", here.path())
            .env("C_INCLUDE_PATH", here.path())
            .current_dir(here.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let there = std::env::var_os("SVOD_TEST_THERE").unwrap();
    let text = "#include \"shared.h\"\nint k(void) { return X; }";
    for compiler in compilers() {
        let source = Source::c("k", text).include_dir(&there);
        assert_eq!(result_of(with(&compiler), &source), 42);
        let nowhere = with(&compiler)
            .build()
            .unwrap()
            .compile(&Source::c("k", text));
        assert!(nowhere.is_err());
    }
}

#[test]
fn two_runtimes_live_side_by_side() {
    let text = "int k(void) { return X; }";
    let source = Source::c("k", text);
    let compiler = &compilers()[0];
    let [one, two] = ["-DX=1", "-DX=2"].map(|f| with(compiler).flag(f).build().unwrap());
    let (a, b) = (one.compile(&source).unwrap(), two.compile(&source).unwrap());
    assert_ne!(a.bytes(), b.bytes());
    assert_eq!(
        a.bytes(),
        one.compile(&source).unwrap().bytes(),
        "the same bytes again"
    );
}

#[test]
fn a_source_of_any_size_and_any_text_is_compiled() {
    // More than a pipe holds, with what a shell or a format would trip over.
    let filler = "// $(false) `false` %s \\n \" ' \u{e9}\u{4e2d}\n".repeat(8000);
    let text = format!("{filler}int k(void) {{ return sizeof \"a\\\"b%d\"; }}");
    for compiler in compilers() {
        assert_eq!(result(with(&compiler), &text), 6);
        // The last line needs no end.
        assert_eq!(
            result(with(&compiler), "int k(void) { return 4; } // end"),
            4
        );
    }
}

#[test]
fn many_threads_compile_at_once() {
    let runtime = with(&compilers()[0]).build().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let runtime = &runtime;
            scope.spawn(move || {
                for round in 0..3 {
                    let expected = 10 * thread + round + 1;
                    let text = format!("int k(void) {{ return {expected}; }}");
                    let signature = Signature::builder().returns(Returns::Status).build().unwrap();
                    // SAFETY: it touches no memory.
                    let kernel = unsafe { runtime.load(&Source::c("k", text), signature) };
                    let failed = kernel.unwrap().launch(&mut [], &[], 1);
                    assert!(
                        matches!(failed, Err(Error::KernelStatus { status, .. }) if status == expected)
                    );
                }
            });
        }
    });
}

// ---- What is said when it refuses

#[test]
fn diagnostics_are_shown_in_full_with_the_kernels_name_and_the_place() {
    let text = "int k(void) {\n  int x = first_unknown;\n  return second_unknown;\n}\n";
    for compiler in compilers() {
        let error = error(with(&compiler), text);
        let Error::Compile {
            kernel,
            compiler: path,
            diagnostics,
            ..
        } = &error
        else {
            panic!("{error:?}");
        };
        assert_eq!((kernel.as_str(), path), ("k", &compiler.path));
        let message = error.to_string();
        assert!(message.contains(diagnostics.as_str()), "{message}");
        for part in ["`k`", "first_unknown", "second_unknown", "k.c:2:", "k.c:3:"] {
            assert!(message.contains(part), "{part} in: {message}");
        }
        assert!(
            message.contains(&compiler.path.display().to_string()),
            "{message}"
        );

        let source = Source::c("k", text).named("models/mnist \"k\".c");
        let refused = with(&compiler).build().unwrap().compile(&source);
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("models/mnist "), "{message}");
    }
}

#[test]
fn a_compiler_that_fails_in_silence_is_quoted_by_its_exit_status() {
    let dir = TempDir::new().unwrap();
    let cc = dir.path().join("silent");
    fake(&cc, GCC, "exit 3");
    let message = error(Runtime::builder().cc(&cc), "int k;").to_string();
    assert!(message.contains("exit status: 3"), "{message}");
    fake(&cc, GCC, "kill -9 $$");
    let message = error(Runtime::builder().cc(&cc), "int k;").to_string();
    assert!(message.contains("signal: 9"), "{message}");
}

#[test]
fn a_compiler_that_says_much_before_it_reads_is_heard_to_the_end() {
    let dir = TempDir::new().unwrap();
    // More than a pipe holds, in both directions.
    let text = "/* long */\n".repeat(20_000);
    for (name, first, last) in [("deaf", "exec 0<&-", ":"), ("late", ":", "cat > /dev/null")] {
        let cc = dir.path().join(name);
        let talk = "i=0; while [ $i -lt 4000 ]; do \
            echo \"line $i of the diagnostics, padded to be long\" >&2; i=$((i + 1)); done";
        fake(&cc, GCC, &format!("{first}; {talk}; {last}; exit 1"));
        let message = error(Runtime::builder().cc(&cc), &text).to_string();
        assert!(message.contains("line 0 of") && message.contains("line 3999 of"));
    }
}

#[test]
fn a_compiler_that_writes_nothing_is_found_out_when_its_object_is_linked() {
    let dir = TempDir::new().unwrap();
    let cc = dir.path().join("lazy");
    fake(&cc, GCC, "exit 0");
    let runtime = Runtime::builder().cc(&cc).build().unwrap();
    let source = Source::c("k", "int k(void) { return 1; }");
    let signature = Signature::builder().build().unwrap();
    // SAFETY: there is nothing to call.
    let error = unsafe { runtime.load(&source, signature) }.unwrap_err();
    assert!(matches!(error, Error::MalformedObject { .. }), "{error:?}");
}

const FOR_CLANG: &str = "typedef float f4 __attribute__((ext_vector_type(4)));
    void k(f4 *x) { *x = (*x).wzyx; }";

#[test]
fn what_only_clang_has_is_explained_where_a_gcc_refuses_it() {
    if let Some(gcc) = compiler_of(Family::Gcc) {
        let message = error(with(&gcc), FOR_CLANG).to_string();
        for part in ["ext_vector_type", "clang", "apt-get install"] {
            assert!(message.contains(part), "{part} in: {message}");
        }
        // Nor is it compiled to something else where gcc would go on: without the
        // attribute, this adds numbers.
        let text = "typedef float f4 __attribute__((aligned(16), ext_vector_type(4)));
            void k(float *o, const float *a) { *(f4 *)o = *(f4 *)a + (f4){1, 1, 1, 1}; }";
        let message = error(with(&gcc), text).to_string();
        assert!(
            message.contains("ext_vector_type") && message.contains("clang"),
            "{message}"
        );
        // An error that has nothing to do with it gets no such advice.
        let message = error(with(&gcc), "int k(void) { return unknown; }").to_string();
        assert!(!message.contains("clang"), "{message}");
    }
    if let Some(clang) = compiler_of(Family::Clang) {
        let runtime = with(&clang).build().unwrap();
        runtime.compile(&Source::c("k", FOR_CLANG)).unwrap();
    }
}

// ---- The environment

/// Runs the test `name` of this program again, alone, in a process with another
/// environment; there `inside` is true.
fn again(name: &str, environment: &[(&str, &Path)]) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .envs(environment.iter().copied())
        .env("SVOD_TEST_INSIDE", name)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{output:?}"
    );
}

fn inside() -> bool {
    std::env::var_os("SVOD_TEST_INSIDE").is_some()
}

#[test]
fn nothing_is_left_in_the_folder_for_temporary_files() {
    if inside() {
        for compiler in compilers() {
            let runtime = with(&compiler).build().unwrap();
            for text in [
                "int k(void) { return 1; }",
                "int k(void) { return unknown; }",
                FOR_CLANG,
            ] {
                let _ = runtime.compile(&Source::c("k", text));
            }
        }
        return;
    }
    let dir = TempDir::new().unwrap();
    again(
        "nothing_is_left_in_the_folder_for_temporary_files",
        &[("TMPDIR", dir.path())],
    );
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_environment_names_the_compiler_and_a_builder_does_not_ask_it() {
    if inside() {
        let text = "int k(void) { return 1; }";
        let message = error(RuntimeBuilder::from_env(), text).to_string();
        assert!(message.contains("/nowhere/cc"), "{message}");
        let runtime = Runtime::new().unwrap();
        assert!(runtime.compile(&Source::c("k", text)).is_err());
        // What is said to a builder comes after what the environment says.
        let compiler = &compilers()[0];
        let builder = RuntimeBuilder::from_env().cc(&compiler.path);
        assert_eq!(result(builder, text), 1);
        let path = std::env::var_os("PATH").unwrap();
        assert_eq!(result(Runtime::builder().search_path(path), text), 1);
        return;
    }
    again(
        "the_environment_names_the_compiler_and_a_builder_does_not_ask_it",
        &[("SVOD_CC", Path::new("/nowhere/cc"))],
    );
}

#[test]
fn an_empty_name_in_the_environment_names_nothing() {
    if inside() {
        let runtime = Runtime::new().unwrap();
        runtime
            .compile(&Source::c("k", "int k(void) { return 1; }"))
            .unwrap();
        return;
    }
    again(
        "an_empty_name_in_the_environment_names_nothing",
        &[("SVOD_CC", Path::new(""))],
    );
}

#[test]
fn what_the_user_says_of_the_allocator_comes_last() {
    const NAME: &str = "what_the_user_says_of_the_allocator_comes_last";
    let mine = "glibc.malloc.perturb=1";
    if inside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cc");
        let tell = "echo \"told: $GLIBC_TUNABLES.\" >&2; exit 1";
        fake(&path, &clang(19), tell);
        let said = error(Runtime::builder().cc(&path), "int k(void) { return 1; }").to_string();
        assert!(said.contains("told: glibc.malloc.hugetlb=1:"), "{said}");
        assert!(said.contains(&format!(":{mine}.")), "{said}");
        return;
    }
    again(NAME, &[("GLIBC_TUNABLES", Path::new(mine))]);
}

#[test]
fn diagnostics_are_in_english_and_without_colours() {
    if inside() {
        for compiler in compilers() {
            let message = error(with(&compiler), "int k(void) { return unknown; }").to_string();
            assert!(
                message.contains("error: ") && !message.contains('\u{1b}'),
                "{message}"
            );
        }
        return;
    }
    again(
        "diagnostics_are_in_english_and_without_colours",
        &[
            ("LANG", Path::new("de_DE.UTF-8")),
            ("TERM", Path::new("xterm-256color")),
        ],
    );
}
