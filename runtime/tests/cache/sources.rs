//! A runtime with a cache.

use svod_runtime::compile::Origin;
use svod_runtime::{Error, OptLevel, Runtime, RuntimeBuilder, Source};

use super::*;

/// A runtime with a cache in this folder.
fn builder(dir: &TempDir) -> RuntimeBuilder {
    RuntimeBuilder::from_env().cache_dir(dir.path().join("cache"))
}

fn sources() -> Vec<Source> {
    let text = |n: usize| {
        format!(
            "static float f(float x) {{ return x * {n}; }}\nvoid k{n}(float *y) {{ y[0] = f(y[1]); }}\n"
        )
    };
    (0..6)
        .map(|n| Source::c(format!("k{n}"), text(n)))
        .collect()
}

fn origins(runtime: &Runtime, sources: &[Source]) -> Vec<Option<Origin>> {
    let origins = Mutex::new(vec![None; sources.len()]);
    let compiled = runtime.compile_all(sources, &|i, origin| {
        origins.lock().unwrap()[i] = Some(origin);
    });
    for (source, object) in sources.iter().zip(compiled) {
        assert_eq!(object.unwrap().entry(), source.entry());
    }
    origins.into_inner().unwrap()
}

#[test]
fn the_second_start_compiles_nothing_and_needs_no_answer_of_the_compiler() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = builder(&dir).build().unwrap();
    assert_eq!(origins(&runtime, &sources()), [Some(Origin::Compiled); 6]);
    let again = builder(&dir).build().unwrap();
    assert_eq!(origins(&again, &sources()), [Some(Origin::Cached); 6]);
    // The objects are the same, one by one.
    for source in sources() {
        let [a, b] = [&runtime, &again].map(|r| r.compile(&source).unwrap());
        assert_eq!(a.bytes(), b.bytes());
    }
}

#[test]
fn whatever_decides_the_code_decides_whether_it_hits() {
    let dir = tempfile::tempdir().unwrap();
    let source = || vec![Source::c("k", "void k(float *y) { y[0] = 1; }")];
    let origin = |builder: RuntimeBuilder, source: Vec<Source>| {
        origins(&builder.build().unwrap(), &source)[0].unwrap()
    };
    assert_eq!(origin(builder(&dir), source()), Origin::Compiled);
    assert_eq!(origin(builder(&dir), source()), Origin::Cached);
    let other = vec![Source::c("k", "void k(float *y) { y[0] = 2; }")];
    assert_eq!(origin(builder(&dir), other), Origin::Compiled);
    for other in [
        builder(&dir).opt_level(OptLevel::O1),
        builder(&dir).flag("-DX=1"),
        builder(&dir).target_cpu("x86-64"),
    ] {
        assert_eq!(origin(other, source()), Origin::Compiled);
    }
    assert_eq!(origin(builder(&dir).no_cache(), source()), Origin::Compiled);
}

#[test]
fn what_includes_files_is_compiled_each_time() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("value.h"), "#define VALUE 1\n").unwrap();
    let text = "#include \"value.h\"\nvoid k(int *y) { y[0] = VALUE; }\n";
    let source = [Source::c("k", text).include_dir(dir.path())];
    for _ in 0..2 {
        let runtime = builder(&dir).build().unwrap();
        assert_eq!(origins(&runtime, &source), [Some(Origin::Compiled)]);
    }
    let runtime = builder(&dir).build().unwrap();
    let explained = runtime.explain(&source).unwrap();
    assert!(matches!(&explained[0], Explanation::NotKept(why) if why.contains("includes")));
    // Flags that name files likewise.
    let flag = format!("-include{}", dir.path().join("value.h").display());
    for _ in 0..2 {
        let runtime = builder(&dir).flag(&flag).build().unwrap();
        let plain = [Source::c("k", "void k(int *y) { y[0] = VALUE; }")];
        assert_eq!(origins(&runtime, &plain), [Some(Origin::Compiled)]);
    }
    // And those by which a word stands for the time.
    for _ in 0..2 {
        let runtime = builder(&dir).flag("-DVALUE=__TIME__[7]").build().unwrap();
        let plain = [Source::c("k", "void k(int *y) { y[0] = VALUE; }")];
        assert_eq!(origins(&runtime, &plain), [Some(Origin::Compiled)]);
    }
}

#[test]
fn another_compiler_of_the_same_name_is_another_compiler() {
    let dir = tempfile::tempdir().unwrap();
    let real = Runtime::new().unwrap();
    let real = real.toolchain().c_compiler("k").unwrap().path.clone();
    let script = dir.path().join("cc");
    let write = |comment: &str| {
        let text = format!("#!/bin/sh\n# {comment}\nexec {} \"$@\"\n", real.display());
        fs::write(&script, text).unwrap();
        set_mode(&script, 0o755);
    };
    let origin = || {
        let runtime = builder(&dir).cc(&script).build().unwrap();
        origins(&runtime, &[Source::c("k", "void k(void) {}")])[0].unwrap()
    };
    write("the first");
    assert_eq!(origin(), Origin::Compiled);
    assert_eq!(origin(), Origin::Cached);
    write("the second one");
    assert_eq!(origin(), Origin::Compiled);
}

#[test]
fn errors_are_not_kept_and_others_are() {
    let dir = tempfile::tempdir().unwrap();
    let mut sources = sources();
    sources[2] = Source::c("k2", "void k2(float *y) { y[0] = undefined; }");
    for round in 0..2 {
        let runtime = builder(&dir).build().unwrap();
        let compiled = runtime.compile_all(&sources, &|i, origin| {
            assert_eq!(origin == Origin::Cached, round == 1, "{i}");
        });
        for (i, object) in compiled.into_iter().enumerate() {
            match object {
                Ok(_) => assert_ne!(i, 2),
                Err(Error::Compile { diagnostics, .. }) => {
                    assert!(diagnostics.contains("k2.c:1"), "{diagnostics}");
                    assert_eq!(i, 2);
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn a_cache_that_is_not_to_be_used_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("cache")).unwrap();
    set_mode(&dir.path().join("cache"), 0o777);
    let runtime = builder(&dir).build().unwrap();
    assert!(runtime.cache().is_none());
    assert_eq!(origins(&runtime, &sources()), [Some(Origin::Compiled); 6]);
}

#[test]
fn a_script_that_starts_another_compiler_is_another_compiler() {
    let dir = tempfile::tempdir().unwrap();
    let all = crate::common::compilers();
    let [one, .., other] = all.as_slice() else {
        eprintln!("skipped: there is one compiler alone");
        return;
    };
    let (script, behind) = (dir.path().join("cc"), dir.path().join("behind"));
    let text = format!("#!/bin/sh\nexec {} \"$@\"\n", behind.display());
    fs::write(&script, text).unwrap();
    set_mode(&script, 0o755);
    let starts = |compiler: &std::path::Path| {
        let _ = fs::remove_file(&behind);
        std::os::unix::fs::symlink(compiler, &behind).unwrap();
    };
    let origin = || {
        let runtime = builder(&dir).cc(&script).build().unwrap();
        origins(&runtime, &[Source::c("k", "void k(void) {}")])[0].unwrap()
    };
    starts(&one.path);
    assert_eq!(origin(), Origin::Compiled);
    assert_eq!(origin(), Origin::Cached);
    // The script is what it was, and so is the first compiler.
    starts(&other.path);
    assert_eq!(origin(), Origin::Compiled);
    starts(&one.path);
    assert_eq!(origin(), Origin::Cached);
}

#[test]
fn a_source_that_stands_there_twice_is_as_cached_as_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let source = Source::c("k", "void k(float *y) { y[0] = 1; }");
    let twice = [source.clone(), source];
    for origin in [Origin::Compiled, Origin::Cached] {
        let runtime = builder(&dir).build().unwrap();
        assert_eq!(origins(&runtime, &twice), [Some(origin); 2]);
    }
}
