//! What a verification finds in plans with planted faults, and that it finds nothing in others.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use support::{Files, runtime};
use svod_runtime::bundle::{Bundle, Load};
use svod_runtime::memory::Constant;
use svod_runtime::plan::{BufferRange, Plan, PlanBuilder};
use svod_runtime::sandbox::Limits;
use svod_runtime::signature::Returns;
use svod_runtime::verify::{Finding, Kind, Pass, Report, Settings, Verifier, whole};
use svod_runtime::{Bounds, Buffer, DType, Signature, Source};

const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits");

/// Verifies a plan over pseudo-random inputs, with a C kernel for each of its kernels.
fn verify_with(plan: &Plan, sources: &[&str], settings: Settings) -> Report {
    let kernels = plan.kernels().iter().zip(sources);
    let kernels = kernels.map(|(kernel, text)| {
        let source = Source::c(&kernel.entry, *text);
        let loaded = runtime().load_untrusted(&source, kernel.signature.clone());
        loaded.unwrap()
    });
    let mut verifier = Verifier::new(plan.clone(), kernels.collect(), [], settings).unwrap();
    let variables: Vec<_> = plan
        .variables()
        .iter()
        .map(|v| (v.name.as_str(), v.max))
        .collect();
    let pass = Pass::arbitrary(plan, "arbitrary", &variables).unwrap();
    let mut ops = 0;
    verifier
        .run(&pass, &mut |event| {
            ops += usize::from(matches!(event, svod_runtime::verify::Event::Op(_)))
        })
        .unwrap();
    assert_eq!(ops, plan.ops().len());
    verifier.into_report()
}

fn verify(plan: &Plan, sources: &[&str]) -> Report {
    verify_with(plan, sources, Settings::default())
}

/// One kernel `k` over an output of eight and an input of eight floats, with this grid.
fn one(signature: Signature, grid: u64) -> Plan {
    let mut plan = PlanBuilder::new("one");
    let mut args: Vec<BufferRange> = Vec::new();
    for (i, param) in signature.buffers().enumerate() {
        let name = format!("b{i}");
        let range = match param.access.writes() {
            true => plan.output(&name, param.dtype, &[param.len]),
            false => plan.input(&name, param.dtype, &[param.len]),
        };
        args.push(range.unwrap());
    }
    let kernel = plan.kernel("k", signature);
    plan.launch(kernel, &args, &[], i64::try_from(grid).unwrap())
        .unwrap();
    plan.build().unwrap()
}

fn copying(len: usize) -> Signature {
    let signature = Signature::builder()
        .write(DType::F32, len)
        .read(DType::F32, len);
    signature.align(4).build().unwrap()
}

fn indexed() -> Signature {
    let signature = Signature::builder()
        .write(DType::F32, 8)
        .read(DType::F32, 8);
    signature.index(DType::I32, 100).build().unwrap()
}

/// The one thing that was found.
#[track_caller]
fn only(report: &Report) -> &Finding {
    let [finding] = &report.findings[..] else {
        panic!("{:#?}", report.findings);
    };
    finding
}

#[track_caller]
fn assert_found(report: &Report, kind: Kind, argument: usize, element: i64) {
    let found = only(report);
    let is = (found.kind, found.argument, found.element);
    assert_eq!(is, (kind, Some(argument), Some(element)), "{found:#?}");
    assert_eq!((found.op, found.kernel.as_deref()), (Some(0), Some("k")));
}

#[test]
fn what_leaves_an_argument_is_named_at_both_ends() {
    let plan = one(copying(8), 1);
    for (text, argument, element) in [
        ("for (int i = 0; i <= 8; i++) y[i] = 1;", 0, 8),
        ("for (int i = -1; i < 8; i++) y[i] = 1;", 0, -1),
        ("for (int i = 0; i < 8; i++) y[i] = x[i + 1];", 1, 8),
        ("for (int i = 0; i < 8; i++) y[i] = x[i - 1];", 1, -1),
    ] {
        let source = format!("void k(float *y, const float *x) {{ {text} }}");
        assert_found(
            &verify(&plan, &[&source]),
            Kind::OutOfBounds,
            argument,
            element,
        );
    }
}

#[test]
fn what_lies_between_an_argument_and_its_guard_counts_too() {
    // Six floats, aligned to 16 bytes: two more lie before the guard.
    let signature = Signature::builder()
        .write(DType::F32, 6)
        .read(DType::F32, 6);
    let plan = one(signature.build().unwrap(), 1);
    let source =
        "void k(float *y, const float *x) { for (int i = 0; i < 7; i++) y[i] = x[i % 6]; }";
    assert_found(&verify(&plan, &[source]), Kind::OutOfBounds, 0, 6);
    let source =
        "void k(float *y, const float *x) { for (int i = 0; i < 6; i++) y[i] = x[i + 1]; }";
    let report = verify(&plan, &[source]);
    assert_found(&report, Kind::OutOfBounds, 1, 6);
    assert!(
        only(&report).text.contains("read past the end"),
        "{report:?}"
    );
    // A whole vector is read, and what is beyond does not matter.
    let source = "typedef float v __attribute__((vector_size(16)));
        void k(float *y, const float *x) {
            v a = *(v *)x, b = *(v *)(x + 4);
            for (int i = 0; i < 6; i++) y[i] = i < 4 ? a[i] : b[i - 4];
        }";
    assert_eq!(verify(&plan, &[source]).findings, []);
}

#[test]
fn swapped_accesses_are_found() {
    let read = Signature::builder().read(DType::F32, 8).read(DType::F32, 8);
    let source = "void k(float *y, const float *x) { for (int i = 0; i < 8; i++) y[i] = x[i]; }";
    let report = verify(&one(read.build().unwrap(), 1), &[source]);
    assert_found(&report, Kind::WritesReadOnly, 0, 0);
    // It adds to what is there in one element, and copies one in another.
    let plan = one(copying(8), 1);
    for text in [
        "y[5] += 1;",
        "y[2] = y[5];",
        "y[0] = y[5] > 0 ? 1 : 2;",
        "if (y[5] > 50) y[5] = 1;",
    ] {
        let source = format!(
            "void k(float *y, const float *x) {{ {text} for (int i = 6; i < 8; i++) y[i] = x[i]; }}"
        );
        let report = verify(&plan, &[&source]);
        let reads: Vec<_> = report.findings.iter().filter(|f| f.op.is_some()).collect();
        assert_eq!(reads.len(), 1, "{text}: {report:#?}");
        assert_eq!(
            (reads[0].kind, reads[0].element),
            (Kind::ReadsWriteOnly, Some(5)),
            "{text}"
        );
    }
}

/// Two kernels over a temp: `make` writes `t` from `x`, `use` writes `y` from `t`.
fn chained(make: Signature) -> Plan {
    let mut plan = PlanBuilder::new("chained");
    let x = plan.input("x", DType::F32, &[8]).unwrap();
    let t = plan.temp(DType::F32, &[8]).unwrap();
    let y = plan.output("y", DType::F32, &[8]).unwrap();
    let make = plan.kernel("make", make);
    let take = plan.kernel("take", copying(8));
    plan.launch(make, &[t, x], &[], 1).unwrap();
    plan.launch(take, &[y, t], &[], 1).unwrap();
    plan.build().unwrap()
}

const TAKE: &str =
    "void take(float *y, const float *x) { for (int i = 0; i < 8; i++) y[i] = x[i]; }";

#[test]
fn a_temp_that_is_read_before_it_is_written_is_named_with_its_element() {
    let plan = chained(copying(8));
    let make = "void make(float *t, const float *x) { for (int i = 0; i < 6; i++) t[i] = x[i]; }";
    let report = verify(&plan, &[make, TAKE]);
    let found = only(&report);
    assert_eq!((found.kind, found.op), (Kind::ReadsUnwritten, Some(1)));
    assert_eq!(found.kernel.as_deref(), Some("take"));
    assert_eq!(found.buffer.as_deref(), Some("temp #1"));
    assert_eq!(found.argument, Some(1));
    assert!([Some(6), Some(7)].contains(&found.element), "{found:?}");
    // What is written with what the filling happens to be was written.
    let make = "void make(float *t, const float *x) {
        for (int i = 0; i < 8; i++) ((unsigned *)t)[i] = 0xffffffff;
    }";
    assert_eq!(verify(&plan, &[make, TAKE]).findings, []);
}

#[test]
fn an_output_that_no_op_writes_is_found() {
    let source = "void k(float *y, const float *x) { for (int i = 0; i < 7; i++) y[i] = x[i]; }";
    let report = verify(&one(copying(8), 1), &[source]);
    let found = only(&report);
    assert_eq!(
        (found.kind, found.op, found.element),
        (Kind::UnwrittenOutput, None, Some(7))
    );
}

#[test]
fn calls_of_a_grid_that_depend_on_each_other_are_found() {
    let plan = one(indexed(), 8);
    let good = "void k(float *y, const float *x, int i) { y[i] = x[i] * x[(i + 1) % 8]; }";
    let report = verify(&plan, &[good]);
    assert_eq!(report.findings, []);
    assert!(
        report.ops[0].alone && report.ops[0].grid == 8,
        "{:?}",
        report.ops
    );
    for (text, kind, element, calls) in [
        (
            "y[i] = x[i]; if (i == 5) y[6] = x[6];",
            Kind::Overlap,
            6,
            vec![5, 6],
        ),
        (
            "y[i] = x[i]; if (i < 7) y[i + 1] = 0;",
            Kind::Overlap,
            1,
            vec![0, 1],
        ),
        (
            "if (i == 0) y[0] = x[0]; else if (i == 3) y[3] = y[0] == x[0]; else y[i] = 0;",
            Kind::Dependent,
            3,
            vec![3],
        ),
    ] {
        let source = format!("void k(float *y, const float *x, int i) {{ {text} }}");
        let report = verify(&plan, &[&source]);
        let found = report.findings.iter().find(|f| f.kind == kind);
        let found = found.unwrap_or_else(|| panic!("{text}: {report:#?}"));
        assert_eq!(
            (found.argument, found.element),
            (Some(0), Some(element)),
            "{text}"
        );
        assert_eq!(found.calls, calls, "{text}");
    }
    // Through an argument that may be read: each call adds to the one before.
    let signature = Signature::builder().read_write(DType::F32, 9);
    let signature = signature.index(DType::I32, 8).build().unwrap();
    let mut plan = PlanBuilder::new("sums");
    let y = plan.state("y", DType::F32, &[9]).unwrap();
    let kernel = plan.kernel("k", signature);
    plan.launch(kernel, &[y], &[], 8).unwrap();
    let plan = plan.build().unwrap();
    let source = "void k(float *y, int i) { y[i + 1] = y[i] + 1; }";
    let report = verify(&plan, &[source]);
    assert_eq!(only(&report).kind, Kind::Dependent);
    assert_eq!(only(&report).argument, Some(0));
}

#[test]
fn any_two_calls_of_a_large_grid_are_taken_apart() {
    let signature = Signature::builder()
        .write(DType::I32, 1000)
        .read(DType::I32, 1);
    let signature = signature.index(DType::I32, 1000).build().unwrap();
    let plan = one(signature, 1000);
    let good = "void k(int *y, const int *x, int i) { y[i] = i; }";
    let report = verify(&plan, &[good]);
    assert_eq!(report.findings, []);
    assert!(
        !report.ops[0].alone && report.ops[0].calls < 60_000,
        "{:?}",
        report.ops
    );
    let bad = "void k(int *y, const int *x, int i) { y[i] = i; if (i == 321) y[876] = 876; }";
    let report = verify(&plan, &[bad]);
    assert_found(&report, Kind::Overlap, 0, 876);
    assert_eq!(only(&report).calls, [321, 876]);
}

#[test]
fn what_is_not_the_same_twice_is_found() {
    let plan = one(copying(8), 1);
    let source = "static inline unsigned long long now(void) {
        unsigned a, d; __asm__ volatile(\"rdtsc\" : \"=a\"(a), \"=d\"(d));
        return (unsigned long long)d << 32 | a;
    }
    void k(float *y, const float *x) {
        for (int i = 0; i < 8; i++) y[i] = x[i];
        ((unsigned *)y)[4] = (unsigned)now();
    }";
    if cfg!(target_arch = "x86_64") {
        let report = verify(&plan, &[source]);
        assert!(
            report
                .findings
                .iter()
                .any(|f| (f.kind, f.element) == (Kind::Unsteady, Some(4))),
            "{report:#?}"
        );
    }
    let source = "void k(float *y, const float *x) {
        for (int i = 0; i < 8; i++) y[i] = x[i];
        y[3] = (unsigned long)x & 16 ? 1 : 2;
    }";
    assert_found(&verify(&plan, &[source]), Kind::Placement, 0, 3);
}

#[test]
fn who_needs_more_alignment_than_is_declared_is_found() {
    let signature = Signature::builder()
        .write(DType::F32, 32)
        .align(16)
        .read(DType::F32, 32);
    let plan = one(signature.align(16).build().unwrap(), 1);
    let source = |align| {
        format!(
            "typedef float v __attribute__((vector_size({align})));
            void k(float *y, const float *x) {{
                for (int i = 0; i < 32 * 4 / {align}; i++) ((v *)y)[i] = ((const v *)x)[i];
            }}"
        )
    };
    assert_eq!(verify(&plan, &[&source(16)]).findings, []);
    if cfg!(target_arch = "x86_64") && cfg!(target_feature = "avx") {
        assert_eq!(only(&verify(&plan, &[&source(32)])).kind, Kind::Misaligned);
    }
    // The same of a vector that every x86-64 has.
    let signature = Signature::builder()
        .write(DType::F32, 32)
        .align(4)
        .read(DType::F32, 32);
    let plan = one(signature.align(4).build().unwrap(), 1);
    let report = verify(&plan, &[&source(16)]);
    if cfg!(target_arch = "x86_64") && !report.is_clean() {
        assert!(
            report.findings.iter().all(|f| f.kind == Kind::Misaligned),
            "{report:#?}"
        );
    }
}

#[test]
fn other_ends_are_findings_too() {
    let signature = Signature::builder()
        .write(DType::Bool, 4)
        .read(DType::F32, 4);
    let plan = one(signature.build().unwrap(), 1);
    let source =
        "void k(unsigned char *y, const float *x) { y[0] = y[1] = 1; y[2] = 2; y[3] = 0; }";
    assert_found(&verify(&plan, &[source]), Kind::NotBool, 0, 2);

    let plan = one(copying(8), 1);
    let report = verify(
        &plan,
        &["void k(float *y, const float *x) { __builtin_trap(); }"],
    );
    let found = only(&report);
    assert_eq!(found.kind, Kind::Crash);
    assert_eq!(found.code.as_ref().unwrap().function, "k");

    let settings = Settings::default().limits(Limits::default().wall(Duration::from_millis(50)));
    let hang = "void k(float *y, const float *x) { for (volatile int i = 0;; i++) y[0] = i; }";
    let report = verify_with(&plan, &[hang], settings);
    assert_eq!(only(&report).kind, Kind::Hang);

    let signature = Signature::builder()
        .write(DType::F32, 1)
        .returns(Returns::Status);
    let plan = one(signature.build().unwrap(), 1);
    let report = verify(&plan, &["int k(float *y) { y[0] = 1; return 7; }"]);
    assert_eq!(only(&report).kind, Kind::Status);
    assert!(only(&report).text.contains('7'));
}

#[test]
fn an_op_that_is_wrong_is_no_reason_to_blame_those_after_it() {
    let read = Signature::builder()
        .read(DType::F32, 8)
        .align(4)
        .read(DType::F32, 8);
    for (make, signature, kind) in [
        (
            "for (int i = 0; i < 9; i++) t[i] = 1;",
            copying(8),
            Kind::OutOfBounds,
        ),
        (
            "for (int i = 0; i < 8; i++) t[i] = 1;",
            read.build().unwrap(),
            Kind::WritesReadOnly,
        ),
        ("__builtin_trap();", copying(8), Kind::Crash),
    ] {
        let make = format!("void make(float *t, const float *x) {{ {make} }}");
        let report = verify(&chained(signature), &[&make, TAKE]);
        assert_eq!((only(&report).kind, only(&report).op), (kind, Some(0)));
    }
}

#[test]
fn scalars_are_tried_at_their_ends() {
    let mut plan = PlanBuilder::new("scalars");
    let n = plan.variable("n", 1, 8).unwrap();
    let y = plan.output("y", DType::F32, &[8]).unwrap();
    let signature = Signature::builder().write(DType::F32, 8);
    let signature = signature
        .scalar(DType::I32, "n", Bounds::integers(1, 8))
        .build()
        .unwrap();
    let kernel = plan.kernel("k", signature);
    plan.launch(kernel, &[y], &[("n", n.into())], 1).unwrap();
    let plan = plan.build().unwrap();
    let source = "void k(float *y, int n) { for (int i = 0; i < 8; i++) y[i] = 1; y[n] = 1; }";
    assert_found(&verify(&plan, &[source]), Kind::OutOfBounds, 0, 8);
}

#[test]
fn what_a_verification_goes_on_with_is_what_a_run_computes() {
    let files = Files::small();
    let bundle = files.open().unwrap();
    let code = bundle.load_untrusted(runtime(), &Load::default()).unwrap();
    let plan = bundle.plan().clone();
    let mut verifier =
        Verifier::new(plan, code.kernels, code.contents, Settings::default()).unwrap();
    let mut instance = files.instance();
    for pass in Pass::of_bundle(&bundle).unwrap() {
        verifier.run(&pass, &mut |_| ()).unwrap();
        if pass.fresh {
            instance.reset();
        }
        for (name, elements) in &pass.inputs {
            instance.set_input(name, elements.as_view()).unwrap();
        }
        let variables: Vec<_> = pass
            .variables
            .iter()
            .map(|(n, v)| (n.as_str(), *v))
            .collect();
        instance.run(&variables).unwrap();
        for output in bundle.plan().outputs() {
            let expected = instance.output(&output.name).unwrap().as_bytes();
            let got = verifier.output(&output.name).unwrap();
            if verifier.report().is_clean() {
                assert_eq!(got, expected, "{} in {}", output.name, pass.name);
            }
        }
    }
}

#[test]
fn the_digits_are_clean_and_so_is_their_plan() {
    let bundle = Bundle::open(DIGITS).unwrap();
    let code = bundle.load_untrusted(runtime(), &Load::default()).unwrap();
    let plan = bundle.plan().clone();
    let settings = Settings::default().quick(true);
    let mut verifier = Verifier::new(plan, code.kernels, code.contents, settings).unwrap();
    let mut passes = Pass::of_bundle(&bundle).unwrap();
    passes.truncate(2);
    for pass in &passes {
        verifier.run(pass, &mut |_| ()).unwrap();
    }
    assert_eq!(verifier.report().findings, []);
    assert!(
        verifier.report().ops.iter().all(|op| op.skipped == 1),
        "{:?}",
        verifier.report().ops
    );
    for (name, expected) in &passes[1].recorded {
        let got = verifier.output(name).unwrap();
        assert_eq!(got.len(), expected.as_view().as_bytes().len());
    }
    // SAFETY: they keep their contracts.
    let executable = unsafe { verifier.executable() }.unwrap();
    let whole = whole(&executable, &passes, 2, &mut |_| ()).unwrap();
    assert_eq!(whole.findings, []);
    let checks: Vec<_> = whole.checks.iter().map(|c| (c.kind, c.runs)).collect();
    let expected = [
        (Kind::Recorded, 2),
        (Kind::PlannedMemory, 2),
        (Kind::Guarded, 4),
        (Kind::Threads, 4),
    ];
    assert_eq!(checks, expected);
}

#[test]
fn what_only_whole_runs_show_is_found() {
    // Its result depends on where its argument lies.
    let plan = chained(copying(8));
    let make = "void make(float *t, const float *x) {
        for (int i = 0; i < 8; i++) t[i] = (unsigned long)t >> 6 & 0xffffff;
    }";
    let kernels = plan.kernels().iter().zip([make, TAKE]);
    let kernels = kernels.map(|(kernel, text)| {
        let source = Source::c(&kernel.entry, text);
        // SAFETY: it stays inside its arguments.
        unsafe { runtime().load(&source, kernel.signature.clone()) }.unwrap()
    });
    let kernels = kernels.collect();
    let executable = svod_runtime::plan::Executable::new(plan.clone(), kernels, []).unwrap();
    let mut pass = Pass::arbitrary(&plan, "arbitrary", &[]).unwrap();
    pass.recorded = vec![("y".into(), Buffer::zeroed(DType::F32, 8).unwrap())];
    let whole = whole(&executable, &[pass], 2, &mut |_| ()).unwrap();
    let kinds: Vec<_> = whole.findings.iter().map(|f| f.kind).collect();
    assert!(
        kinds.contains(&Kind::Recorded) && kinds.contains(&Kind::Guarded),
        "{whole:#?}"
    );
}

#[test]
fn what_is_not_the_plans_is_refused() {
    let plan = one(copying(8), 1);
    let new = |kernels, contents: Vec<(usize, Constant)>| {
        Verifier::new(plan.clone(), kernels, contents, Settings::default()).map(|_| ())
    };
    assert!(new(vec![], vec![]).is_err());
    let source = Source::c("k", "void k(float *y, const float *x) {}");
    let kernel = || runtime().load_untrusted(&source, copying(8)).unwrap();
    assert!(new(vec![kernel()], vec![]).is_ok());
    let content = Constant::from(Buffer::zeroed(DType::F32, 8).unwrap());
    assert!(new(vec![kernel()], vec![(0, content.clone())]).is_err());
    assert!(new(vec![kernel()], vec![(9, content)]).is_err());
    let mut host = PlanBuilder::new("host");
    let y = host.output("y", DType::F32, &[8]).unwrap();
    host.host("none", &[y.write()], |_| Ok(())).unwrap();
    let host = host.build().unwrap();
    let error = Verifier::new(host, vec![], [], Settings::default()).unwrap_err();
    assert!(error.to_string().contains("host function"), "{error}");
}
