//! Bundles that run at once, and faster soon.

use svod_runtime::OptLevel;
use svod_runtime::bundle::{Load, Upgrade};
use svod_runtime::compile::Origin;
use svod_runtime::plan::Executable;

use super::*;

fn tiered(bundle: &Bundle) -> (Executable, Upgrade) {
    // SAFETY: the small bundle's kernels keep their signatures, and nobody writes its files.
    let tiered = unsafe { bundle.load_tiered(runtime(), &Load::default(), OptLevel::O0) };
    tiered.unwrap_or_else(|e| panic!("{}", chain(&e)))
}

#[track_caller]
fn assert_test_passes(bundle: &Bundle, instance: &mut Instance) {
    let report = bundle.run_test(&bundle.tests()[0], instance).unwrap();
    assert!(report.is_exact());
}

#[test]
fn optimised_code_takes_over_between_two_runs_and_states_stay() {
    let files = Files::small();
    let bundle = files.open().unwrap();
    let (executable, upgrade) = tiered(&bundle);
    let mut instance = executable.instance().unwrap();
    assert_test_passes(&bundle, &mut instance);
    upgrade.wait().unwrap();
    assert_eq!(executable.code_generation(), 1);
    assert_test_passes(&bundle, &mut instance);
    assert_eq!(instance.code_generation(), 1);
    // What the quick code counted is there still.
    assert_eq!(output::<i64>(&instance, "runs"), [2]);
}

#[test]
fn runs_in_the_meantime_have_the_one_or_the_other() {
    let files = Files::small();
    let bundle = files.open().unwrap();
    let (executable, upgrade) = tiered(&bundle);
    let mut instance = executable.instance().unwrap();
    let mut runs = 0;
    while !upgrade.is_done() {
        assert_test_passes(&bundle, &mut instance);
        runs += 1;
    }
    assert_test_passes(&bundle, &mut instance);
    assert_eq!(instance.code_generation(), 1);
    assert_eq!(output::<i64>(&instance, "runs"), [runs + 1]);
    upgrade.wait().unwrap();
}

#[test]
fn what_the_bundle_carries_is_final() {
    let mut files = Files::small();
    for (kernel, entry, source) in [(0, "affine", support::AFFINE), (1, "count", support::COUNT)] {
        let object = runtime().compile(&Source::c(entry, source)).unwrap();
        let path = format!("kernels/{entry}.o");
        files.write(&path, object.bytes());
        let digest = Sha256::digest(object.bytes());
        let digest: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        let object = json!([{"path": path, "arch": ARCH, "sha256": digest}]);
        files.set(&format!("/kernels/{kernel}/objects"), object);
    }
    let bundle = files.open().unwrap();
    let (executable, upgrade) = tiered(&bundle);
    assert!(upgrade.is_done());
    upgrade.wait().unwrap();
    assert_eq!(executable.code_generation(), 0);
}

#[test]
fn a_kernel_that_does_not_compile_is_an_error_at_once() {
    let files = Files::small();
    files.text(
        "kernels/count.c",
        "void count(long long *runs) { runs[0] += x; }\n",
    );
    let bundle = files.open().unwrap();
    // SAFETY: as in `tiered`.
    let tiered = unsafe { bundle.load_tiered(runtime(), &Load::default(), OptLevel::O0) };
    let text = chain(&tiered.unwrap_err());
    assert!(text.contains("count.c:1"), "{text}");
}

#[test]
fn what_fails_in_the_background_leaves_the_quick_code() {
    // A compiler that refuses to optimise.
    let dir = tempfile::tempdir().unwrap();
    let compiler = runtime().toolchain().c_compiler("count").unwrap();
    let script = dir.path().join("cc");
    let text = format!(
        "#!/bin/sh\nfor a; do [ \"$a\" = -O2 ] && {{ echo no >&2; exit 1; }}; done\nexec {} \"$@\"\n",
        compiler.path.display()
    );
    std::fs::write(&script, text).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    let runtime = svod_runtime::Runtime::builder().cc(script).build().unwrap();

    let files = Files::small();
    let bundle = files.open().unwrap();
    // SAFETY: as in `tiered`.
    let tiered = unsafe { bundle.load_tiered(&runtime, &Load::default(), OptLevel::O0) };
    let (executable, upgrade) = tiered.unwrap();
    let text = chain(&upgrade.wait().unwrap_err());
    assert!(text.contains("no"), "{text}");
    assert_eq!(executable.code_generation(), 0);
    assert_test_passes(&bundle, &mut executable.instance().unwrap());
}

#[test]
fn progress_counts_what_is_needed_to_begin() {
    let files = Files::small();
    let bundle = files.open().unwrap();
    let origins = std::sync::Mutex::new(Vec::new());
    let load = Load {
        progress: &|p| origins.lock().unwrap().push((p.done, p.total, p.origin)),
        ..Load::default()
    };
    // SAFETY: as in `tiered`.
    let tiered = unsafe { bundle.load_tiered(runtime(), &load, OptLevel::O1) };
    let (_executable, upgrade) = tiered.unwrap();
    upgrade.wait().unwrap();
    let mut origins = origins.into_inner().unwrap();
    origins.sort_by_key(|(done, ..)| *done);
    let counts: Vec<_> = origins
        .iter()
        .map(|(done, total, _)| (*done, *total))
        .collect();
    assert_eq!(counts, [(1, 2), (2, 2)]);
    assert!(origins.iter().all(|(.., o)| *o != Origin::Carried));
}
