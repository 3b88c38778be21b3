//! A bundle that is written with objects, ahead of time.

use svod_runtime::compile::Origin;
use svod_runtime::compile::cpu::CpuLevel;
use svod_runtime::{Runtime, RuntimeBuilder};

use super::*;

/// A runtime that finds no compiler.
fn without_compiler() -> Runtime {
    RuntimeBuilder::from_env()
        .cc("/nowhere/cc")
        .build()
        .unwrap()
}

fn levels(names: &[&str]) -> Vec<CpuLevel> {
    let levels = names.iter().map(|name| CpuLevel::named(name));
    levels.collect::<Result<_, _>>().unwrap()
}

/// The small bundle, written with objects for these levels.
fn compiled(names: &[&str]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("compiled.svod");
    let files = Files::small();
    let bundle = files.open().unwrap();
    let written = bundle.write_compiled(&path, runtime(), &levels(names), &|_| {});
    written.unwrap_or_else(|e| panic!("{}", chain(&e)));
    (dir, path)
}

/// How each kernel came to be, and whether the recorded test is the same.
fn origins(bundle: &Bundle, runtime: &Runtime) -> (Vec<Origin>, bool) {
    let origins = std::sync::Mutex::new(Vec::new());
    // SAFETY: the small bundle's kernels keep their signatures, and nobody writes its files.
    let executable =
        unsafe { bundle.load(runtime, &|p| origins.lock().unwrap().push(p.origin)) }.unwrap();
    let mut instance = executable.instance().unwrap();
    let report = bundle.run_test(&bundle.tests()[0], &mut instance).unwrap();
    (origins.into_inner().unwrap(), report.is_exact())
}

#[test]
fn a_bundle_with_objects_needs_no_compiler() {
    let (_dir, path) = compiled(&["native"]);
    let bundle = Bundle::open(&path).unwrap();
    assert_eq!(bundle.kernels_to_compile(), 0);
    let (origins, exact) = origins(&bundle, &without_compiler());
    assert_eq!(origins, [Origin::Carried; 2]);
    assert!(exact);
}

#[test]
fn objects_lie_beside_the_sources_for_every_level() {
    if ARCH != "x86_64" {
        return; // Levels are those of x86-64 for now.
    }
    let names = ["x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4"];
    let (_dir, path) = compiled(&names);
    let files = all_files(&path);
    assert!(files.contains_key("kernels/affine.c"));
    for name in names {
        assert!(
            files.contains_key(&format!("kernels/affine.{name}.o")),
            "{name}"
        );
    }
    let plan: Value = serde_json::from_slice(&files["plan.json"]).unwrap();
    let objects = plan["kernels"][0]["objects"].as_array().unwrap();
    let features = |i: usize| objects[i]["features"].to_string();
    assert_eq!(features(0), "[]");
    assert!(features(2).contains("\"avx2\"") && !features(2).contains("avx512f"));
    assert!(features(3).contains("\"avx512f\""));
}

#[test]
fn compiled_again_it_is_the_same_and_other_levels_stay() {
    let (dir, path) = compiled(&["x86-64", "native"]);
    let again = dir.path().join("again.svod");
    let bundle = Bundle::open(&path).unwrap();
    let written = bundle.write_compiled(&again, runtime(), &levels(&["native"]), &|_| {});
    written.unwrap();
    let names = |files: BTreeMap<String, Vec<u8>>| files.into_keys().collect::<Vec<_>>();
    assert_eq!(names(all_files(&path)), names(all_files(&again)));
    assert_eq!(Bundle::open(&again).unwrap().kernels_to_compile(), 0);
}

#[test]
fn an_object_of_a_source_that_has_changed_is_not_used() {
    let (_dir, path) = compiled(&["native"]);
    let source = path.join("kernels/count.c");
    std::fs::write(&source, "void count(long long *runs) { runs[0] += 2; }\n").unwrap();
    let bundle = Bundle::open(&path).unwrap();
    assert_eq!(bundle.kernels_to_compile(), 1);
    let (origins, _) = origins(&bundle, runtime());
    assert_eq!(origins.iter().filter(|o| **o == Origin::Carried).count(), 1);
    // SAFETY: as in `origins`.
    let error = unsafe { bundle.load(&without_compiler(), &|_| {}) }.unwrap_err();
    assert!(chain(&error).contains("/nowhere/cc"), "{}", chain(&error));
}

#[test]
fn a_bundle_for_another_machine_is_compiled_here() {
    let (_dir, path) = compiled(&["native"]);
    let text = std::fs::read_to_string(path.join("plan.json")).unwrap();
    let elsewhere = text.replace(&format!("\"{ARCH}\""), "\"m68k\"");
    std::fs::write(path.join("plan.json"), elsewhere).unwrap();
    let bundle = Bundle::open(&path).unwrap();
    let (origins, exact) = origins(&bundle, runtime());
    assert!(!origins.contains(&Origin::Carried), "{origins:?}");
    assert!(exact);
}

#[test]
fn what_does_not_compile_is_written_nowhere() {
    let files = Files::small();
    files.text(
        "kernels/count.c",
        "void count(long long *runs) { runs[0] += x; }\n",
    );
    let bundle = files.open().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("compiled.svod");
    let levels = levels(&["native"]);
    let error = bundle.write_compiled(&path, runtime(), &levels, &|_| {});
    let text = chain(&error.unwrap_err());
    assert!(
        text.contains("`count`") && text.contains("count.c:1"),
        "{text}"
    );
    assert_eq!(names(dir.path()), <[&str; 0]>::default());
}

#[test]
fn what_keeps_state_is_refused_before_it_is_written() {
    let files = Files::small();
    let counter = "static long n; void count(long long *runs) { runs[0] = ++n; }\n";
    files.text("kernels/count.c", counter);
    let bundle = files.open().unwrap();
    let path = files.path().join("compiled.svod");
    let levels = levels(&["native"]);
    let error = bundle.write_compiled(&path, runtime(), &levels, &|_| {});
    let text = chain(&error.unwrap_err());
    assert!(text.contains("keeps state"), "{text}");
}
