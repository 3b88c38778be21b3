//! Which op does not compute the same: what is planted in a kernel is named, and nothing else.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use serde_json::json;
use svod_runtime::bundle::Bundle;
use svod_runtime::diff::{Closeness, Diff, Event, OpReport, RunReport, Verdict};
use svod_runtime::plan::{Executable, PlanBuilder, Side};
use svod_runtime::pool::Pool;
use svod_runtime::signature::Number;
use svod_runtime::{Arg, DType, Error, Guard, View};

use support::{Files, Y, bytes, chain, runtime};

/// The kernels of a chain, of which each may have something planted in it.
const KERNELS: [(&str, &str); 6] = [
    (
        "square",
        "void square(float *h, const float *x) {
            for (int i = 0; i < 8; i++) h[i] = x[i] * x[i];
            PLANTED
        }",
    ),
    (
        "amplify",
        "void amplify(float *y, const float *h) {
            float sum = 0;
            for (int i = 0; i < 8; i++) sum += h[i];
            for (int i = 0; i < 8; i++) y[i] = 1000 * sum * h[i];
            PLANTED
        }",
    ),
    (
        "total",
        "void total(float *t, const float *h) {
            for (int i = 0; i < 8; i++) t[i] += h[i];
            PLANTED
        }",
    ),
    (
        "bucket",
        "void bucket(int *b, const float *h) {
            for (int i = 0; i < 8; i++) b[i] = (int)(2 * h[i]);
            PLANTED
        }",
    ),
    (
        "nudge",
        "int nudge(float *z, const float *y) {
            for (int i = 0; i < 8; i++) z[i] = y[i] * FACTOR;
            PLANTED
            return 0;
        }",
    ),
    (
        "in_place",
        "void in_place(float *z) {
            for (int i = 0; i < 8; i++) z[i] = z[i] * 2 + 1;
            PLANTED
        }",
    ),
];

const X: [f32; 8] = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0];

/// The chain as a bundle, with a line planted in one of its kernels.
fn chain_of(kernel: &str, planted: &str) -> Files {
    let float = |access: &str| json!({"buffer": "f32", "len": 8, "access": access});
    let int = json!({"buffer": "i32", "len": 8, "access": "w"});
    let kernel_of = |entry: &str, params| {
        let source = format!("kernels/{entry}.c");
        let mut kernel =
            json!({"entry": entry, "source": source, "language": "c", "params": params});
        if entry == "nudge" {
            kernel["returns"] = json!("status");
        }
        kernel
    };
    let buffer = |name: &str, role: &str, dtype: &str| json!({"name": name, "role": role, "dtype": dtype, "shape": [2, 4]});
    let files = Files::new(json!({
        "name": "chain",
        "kernels": [
            kernel_of("square", json!([float("w"), float("r")])),
            kernel_of("amplify", json!([float("w"), float("r")])),
            kernel_of("total", json!([float("rw"), float("r")])),
            kernel_of("bucket", json!([int, float("r")])),
            kernel_of("nudge", json!([float("w"), float("r")])),
            kernel_of("in_place", json!([float("rw")])),
        ],
        "buffers": [
            buffer("x", "input", "f32"),
            buffer("h", "temp", "f32"),
            buffer("y", "temp", "f32"),
            buffer("t", "state", "f32"),
            buffer("b", "output", "i32"),
            buffer("z", "output", "f32"),
        ],
        "ops": [
            {"launch": 0, "args": [1, 0]},
            {"launch": 1, "args": [2, 1]},
            {"launch": 2, "args": [3, 1]},
            {"launch": 3, "args": [4, 1]},
            {"launch": 4, "args": [5, 2]},
            {"launch": 5, "args": [5]},
            {"launch": 0, "args": [1, 5]},
            {"copy": {"from": 1, "to": 5}},
        ],
        "outputs": [
            {"name": "b", "buffer": 4, "dtype": "i32", "shape": [8]},
            {"name": "z", "buffer": 5, "dtype": "f32", "shape": [2, 4]},
            {"name": "t", "buffer": 3, "dtype": "f32", "shape": [2, 4]},
        ],
    }));
    for (name, text) in KERNELS {
        let line = if name == kernel { planted } else { "" };
        let factor = match (name == kernel, planted.strip_prefix("FACTOR ")) {
            (true, Some(factor)) => factor,
            _ => "1.0f",
        };
        let line = if line.starts_with("FACTOR") { "" } else { line };
        let text = text.replace("PLANTED", line).replace("FACTOR", factor);
        files.text(&format!("kernels/{name}.c"), &text);
    }
    files
}

/// An executable, whose files are read by then.
fn loaded(files: &Files) -> Executable {
    files.load().unwrap_or_else(|e| panic!("{}", chain(&e)))
}

/// The chain beside itself with something planted, run once on `X`.
fn planted(kernel: &str, line: &str, closeness: Closeness) -> (Diff, RunReport) {
    let (good, bad) = (chain_of("", ""), chain_of(kernel, line));
    let mut diff = Diff::new(&loaded(&good), &loaded(&bad), closeness).unwrap();
    diff.set_input("x", View::from_slice(&X)).unwrap();
    let report = run(&mut diff).unwrap();
    (diff, report)
}

fn run(diff: &mut Diff) -> Result<RunReport, Error> {
    diff.run(&[], &mut |_| ())
}

fn float(v: f64) -> Number {
    Number::Float(v)
}

#[test]
fn the_same_code_is_the_same_bit_for_bit() {
    let (_, report) = planted("", "", Closeness::EXACT);
    assert!(report.is_same());
    assert_eq!((report.ops, report.within, report.differing), (8, 0, 0));
    assert!(
        report
            .outputs
            .iter()
            .all(|o| o.difference.unwrap().is_exact())
    );
}

#[test]
fn one_wrong_element_is_named_and_not_what_it_leads_to() {
    // The last but one op launches the same kernel, and is wrong too.
    let (diff, report) = planted("amplify", "y[6] += 0.5f * y[6];", Closeness::default());
    assert_eq!(report.differing, 1);
    let first = report.first.as_ref().unwrap();
    assert_eq!(first.op, 1);
    let difference = first.difference().unwrap();
    assert_eq!(
        diff.plan().kernels()[difference.kernel.unwrap()].entry,
        "amplify"
    );
    assert_eq!(diff.plan().buffer_label(difference.range.buffer), "`y`");
    assert_eq!((difference.all.outside, difference.all.elements), (1, 8));
    // 1000 times the sum of the squares of 0.5 to 4, which is 51, times 3.5².
    let element = &difference.first;
    assert_eq!(
        (element.index, element.place.clone()),
        (6, Some(vec![1, 2]))
    );
    assert_eq!(
        (element.left, element.right),
        (float(624_750.0), float(937_125.0))
    );
    assert_eq!(difference.worst, *element);
    assert_eq!(difference.all.max_abs, 312_375.0);
    // What each side gives as a whole differs, where it depends on it.
    let same = report
        .outputs
        .iter()
        .map(|o| (o.name.as_str(), o.is_same()));
    let expected = [("b", true), ("z", false), ("t", true)];
    assert_eq!(same.collect::<Vec<_>>(), expected);
    assert!(!report.is_same());
}

#[test]
fn each_launch_of_a_wrong_kernel_differs_by_itself() {
    let mut ops = Vec::new();
    let (good, bad) = (chain_of("", ""), chain_of("square", "h[3] += 1;"));
    let mut diff = Diff::new(&loaded(&good), &loaded(&bad), Closeness::default()).unwrap();
    diff.set_input("x", View::from_slice(&[0.0_f32; 8]))
        .unwrap();
    let report = diff.run(&[], &mut |event| {
        if let Event::Compared(op) = event {
            ops.push(op.clone());
        }
    });
    let wrong = ops
        .iter()
        .filter(|op| !op.is_same())
        .map(|op| (op.op, op.max_abs));
    assert_eq!(wrong.collect::<Vec<_>>(), [(0, 1.0), (6, 1.0)]);
    let report = report.unwrap();
    assert_eq!((report.differing, report.first.unwrap().op), (2, 0));
    assert_eq!(
        ops.iter().map(|op| op.op).collect::<Vec<_>>(),
        diff.plan().order()
    );
}

#[test]
fn a_nan_on_one_side_is_a_difference() {
    let (_, report) = planted(
        "amplify",
        "y[2] = 0.0f / (y[2] - y[2]);",
        Closeness::default(),
    );
    let difference = report.first.as_ref().unwrap().difference().unwrap();
    assert_eq!(
        (difference.op, difference.all.nans, difference.all.outside),
        (1, 1, 1)
    );
    assert_eq!(difference.first.index, 2);
    assert!(matches!(difference.first.right, Number::Float(v) if v.is_nan()));
    assert_eq!(difference.all.max_abs, f64::INFINITY);
}

#[test]
fn an_integer_has_no_room() {
    let wide = Closeness {
        rtol: Some(1.0),
        atol: Some(1e9),
        ..Closeness::default()
    };
    let (_, report) = planted("bucket", "b[7] += 1;", wide);
    let difference = report.first.as_ref().unwrap().difference().unwrap();
    assert_eq!((difference.op, difference.dtype), (3, DType::I32));
    let element = &difference.first;
    assert_eq!(
        (element.left, element.right),
        (Number::Int(32), Number::Int(33))
    );
    assert_eq!(difference.all.max_ulps, None);
    assert_eq!(report.differing, 1);
}

#[test]
fn an_op_in_place_begins_from_the_same_bytes_on_both_sides() {
    let (_, report) = planted("in_place", "z[0] += 3;", Closeness::default());
    let difference = report.first.as_ref().unwrap().difference().unwrap();
    assert_eq!((difference.op, difference.all.outside), (5, 1));
    assert_eq!(difference.all.max_abs, 3.0);
    assert_eq!(report.differing, 1);
}

#[test]
fn a_state_goes_on_as_the_left_side_left_it() {
    let (mut diff, first) = planted("total", "t[1] += 1;", Closeness::default());
    for report in [first, run(&mut diff).unwrap()] {
        let difference = report.first.as_ref().unwrap().difference().unwrap();
        assert_eq!((difference.op, difference.all.outside), (2, 1));
        // Not 2 the second time.
        assert_eq!(difference.all.max_abs, 1.0);
        assert_eq!(report.differing, 1);
    }
    // In runs of their own each has its own.
    let report = run(&mut diff).unwrap();
    let total = &report.outputs[2];
    assert_eq!(total.difference.unwrap().max_abs, 3.0);
}

#[test]
fn roundings_have_room_unless_it_is_taken() {
    let line = "FACTOR 1.00001f";
    let (_, report) = planted("nudge", line, Closeness::default());
    assert!(report.is_same());
    assert_eq!((report.within, report.differing), (1, 0));
    let narrow = Closeness {
        rtol: Some(1e-6),
        ..Closeness::default()
    };
    for closeness in [Closeness::EXACT, narrow] {
        let (_, report) = planted("nudge", line, closeness);
        let first = report.first.unwrap();
        assert_eq!(first.op, 4);
        let ulps = first.difference().unwrap().all.max_ulps.unwrap();
        assert!((80..200).contains(&ulps), "{ulps}");
    }
}

#[test]
fn a_zero_of_the_other_sign_is_another_number_bit_for_bit_alone() {
    let line = "y[4] = -0.0f * y[4]; y[5] *= 0;";
    let files = [
        chain_of("amplify", "y[4] *= 0; y[5] *= 0;"),
        chain_of("amplify", line),
    ];
    for (closeness, same) in [(Closeness::default(), true), (Closeness::EXACT, false)] {
        let [left, right] = files.each_ref().map(loaded);
        let mut diff = Diff::new(&left, &right, closeness).unwrap();
        diff.set_input("x", View::from_slice(&X)).unwrap();
        let report = run(&mut diff).unwrap();
        assert_eq!(report.first.is_none(), same);
        if let Some(first) = report.first {
            assert_eq!(first.difference().unwrap().first.index, 4);
        }
    }
}

#[test]
fn a_status_of_one_side_alone_is_a_difference() {
    let (_, report) = planted("nudge", "return 7;", Closeness::default());
    let first = report.first.as_ref().unwrap();
    let [left, right] = first.failed();
    assert_eq!((first.op, left), (4, &None));
    assert!(right.as_ref().unwrap().contains('7'), "{right:?}");
    // The left side goes on.
    assert_eq!((report.ops, report.stopped), (8, None));
    assert!(report.failed[0].is_none() && report.failed[1].is_some());
    assert!(report.ended() && !report.is_same());

    let (good, bad) = (chain_of("", ""), chain_of("nudge", "return 7;"));
    let mut diff = Diff::new(&loaded(&bad), &loaded(&good), Closeness::default()).unwrap();
    diff.set_input("x", View::from_slice(&X)).unwrap();
    let report = run(&mut diff).unwrap();
    assert_eq!((report.ops, report.stopped), (5, Some(4)));
    assert!(report.ended() && report.failed[0].is_some());

    let mut diff = Diff::new(&loaded(&bad), &loaded(&bad), Closeness::default()).unwrap();
    diff.set_input("x", View::from_slice(&X)).unwrap();
    let error = run(&mut diff).unwrap_err();
    assert!(
        matches!(error, Error::KernelStatus { status: 7, .. }),
        "{error}"
    );
}

#[test]
fn a_recorded_run_is_compared_with_its_states_and_variables() {
    let files = Files::small();
    let bundle = files.open().unwrap();
    let executable = loaded(&files);
    let mut diff = Diff::new(&executable, &executable, Closeness::EXACT).unwrap();
    for runs in 1..3_i64 {
        let test = &bundle.tests()[0];
        let report = diff.run_test(test, &mut |_| ()).unwrap();
        assert!(report.is_same());
        assert_eq!(report.ops, 4);
        assert_eq!(report.outputs[0].recorded, Some([true, true]));
        assert_eq!(report.outputs[1].recorded, None, "{runs}");
    }
    let error = diff.run(&[("n", 9)], &mut |_| ()).unwrap_err();
    assert!(chain(&error).contains("takes 1 to 8"), "{error}");
}

#[test]
fn which_side_is_as_recorded_is_said() {
    let (good, bad) = (Files::small(), Files::small());
    bad.text(
        "kernels/affine.c",
        &support::AFFINE.replace("+ (float)n", "- (float)n"),
    );
    let bundle = good.open().unwrap();
    let mut diff = Diff::new(&loaded(&bad), &loaded(&good), Closeness::default()).unwrap();
    let report = diff.run_test(&bundle.tests()[0], &mut |_| ()).unwrap();
    assert_eq!(report.outputs[0].recorded, Some([false, true]));
    let difference = report.first.as_ref().unwrap().difference().unwrap();
    // The kernel has a part of an untyped buffer: the elements are its own, and have no place.
    assert_eq!(
        (difference.dtype, difference.range.offset),
        (DType::F32, 16)
    );
    assert_eq!(difference.first.place, None);
    assert_eq!(difference.first.right, float(Y[4].into()));
}

#[test]
fn plans_that_are_not_alike_are_compared_by_their_outputs() {
    let mut other = Files::small();
    other.set("/ops/4", json!({"launch": 1, "args": [4]}));
    let small = Files::small();
    let bundle = small.open().unwrap();
    let mut diff = Diff::new(&loaded(&small), &loaded(&other), Closeness::default()).unwrap();
    let why = diff.unlike().unwrap().to_string();
    assert!(why.contains("one plan has 4, the other 5"), "{why}");
    let report = diff.run_test(&bundle.tests()[0], &mut |_| ()).unwrap();
    assert_eq!((report.ops, report.first.as_ref()), (0, None));
    let same = report
        .outputs
        .iter()
        .map(|o| (o.name.as_str(), o.is_same()));
    assert_eq!(same.collect::<Vec<_>>(), [("y", true), ("runs", false)]);

    let mut renamed = Files::small();
    renamed.set("/outputs/0/name", json!("yy"));
    renamed.set("/tests/0/outputs", json!({}));
    let mut diff = Diff::new(&loaded(&small), &loaded(&renamed), Closeness::default()).unwrap();
    assert!(diff.unlike().is_none());
    let report = diff.run_test(&bundle.tests()[0], &mut |_| ()).unwrap();
    let sides = report
        .outputs
        .iter()
        .map(|o| (o.name.as_str(), o.is_same()));
    let expected = [("y", false), ("runs", true), ("yy", false)];
    assert_eq!(sides.collect::<Vec<_>>(), expected);
}

#[test]
fn how_plans_are_not_alike_is_said() {
    let small = Files::small().open().unwrap();
    for (pointer, value, words) in [
        (
            "/variables/n/min",
            json!(2),
            "variables[0]: one is `n` in 1..=8, the other `n` in 2..=8",
        ),
        (
            "/kernels/1/params/0/access",
            json!("w"),
            "kernels[1]: `count` and `count` expect",
        ),
        ("/buffers/2/bytes", json!(128), "buffers[2]"),
        ("/ops/1/fill/value", json!(1), "ops[1]: each is a fill"),
        (
            "/ops/0/scalars/n",
            json!(3),
            "ops[0]: each is a launch of `affine`",
        ),
        (
            "/ops/3",
            json!({"fill": {"to": 4, "dtype": "i64", "value": 0}}),
            "the other a fill",
        ),
    ] {
        let mut files = Files::small();
        files.set(pointer, value);
        let other: Bundle = files
            .open()
            .unwrap_or_else(|e| panic!("{pointer}: {}", chain(&e)));
        let error = small.plan().check_alike(other.plan()).expect_err(pointer);
        assert!(chain(&error).contains(words), "{words}: {}", chain(&error));
    }
    assert!(
        small
            .plan()
            .check_alike(Files::small().open().unwrap().plan())
            .is_ok()
    );
}

#[test]
fn other_constants_are_said_and_do_not_count_op_by_op() {
    let (small, other) = (Files::small(), Files::small());
    let mut w = support::W;
    w[0] = 3.0;
    other.weights(&[
        ("w", "F32", &[8], &bytes(&w)),
        ("runs", "I64", &[1], &bytes(&[0_i64])),
    ]);
    let bundle = small.open().unwrap();
    let mut diff = Diff::new(&loaded(&small), &loaded(&other), Closeness::default()).unwrap();
    assert_eq!(diff.unlike_contents(), [1]);
    let report = diff.run_test(&bundle.tests()[0], &mut |_| ()).unwrap();
    assert_eq!((report.ops, report.differing), (4, 0));
    assert!(!report.outputs[0].is_same());
}

#[test]
fn threads_share_launches_and_change_nothing() {
    let files = Files::small();
    let bundle = files.open().unwrap();
    let executable = loaded(&files);
    let pool = Pool::builder().threads(3).build();
    let threads = executable.clone().with_pool(pool);
    for (left, right) in [(&executable, &threads), (&threads, &executable)] {
        let mut diff = Diff::new(left, right, Closeness::EXACT).unwrap();
        for _ in 0..20 {
            let report = diff.run_test(&bundle.tests()[0], &mut |_| ()).unwrap();
            assert!(report.is_same(), "{report:?}");
        }
    }
}

#[test]
fn a_wrong_index_is_named_on_threads_too() {
    let plan = |body: &str| {
        let files = Files::with_kernels(
            json!({
                "kernels": [{"entry": "scan", "source": "kernels/scan.c", "language": "c", "params": [
                    {"buffer": "i64", "len": 64, "access": "w"},
                    {"scalar": "i32", "index": true, "max": 64},
                ]}],
                "buffers": [{"name": "y", "role": "output", "dtype": "i64", "shape": [64]}],
                "ops": [{"launch": 0, "args": [0], "grid": 64}],
                "outputs": [{"name": "y", "buffer": 0, "dtype": "i64", "shape": [64]}],
            }),
            &[("scan", body)],
        );
        loaded(&files)
    };
    let good = plan("void scan(long *y, int i) { y[i] = i; }");
    let bad = plan("void scan(long *y, int i) { y[i] = i == 41 ? 0 : i; }");
    let pool = Pool::builder().threads(2).build();
    let mut diff = Diff::new(&good, &bad.with_pool(pool), Closeness::EXACT).unwrap();
    let report = run(&mut diff).unwrap();
    let first = report.first.unwrap();
    assert_eq!(first.difference().unwrap().first.index, 41);
    assert_eq!(report.differing, 1);
}

#[test]
fn host_functions_take_part_each_side_its_own() {
    let executable = |add: f32| {
        let mut plan = PlanBuilder::new("host");
        let x = plan.input("x", DType::F32, &[4]).unwrap();
        let y = plan.output("y", DType::F32, &[4]).unwrap();
        plan.copy(x, y).unwrap();
        plan.host("add", &[y.read_write()], move |args| {
            let [Arg::Write(y)] = args else {
                return Err("other arguments".into());
            };
            let y = y.reborrow().into_slice::<f32>()?;
            y.iter_mut().for_each(|y| *y += add);
            Ok(())
        })
        .unwrap();
        plan.fill(plan.view(y, 0..1).unwrap(), DType::F32, 0)
            .unwrap();
        Executable::new(plan.build().unwrap(), vec![], []).unwrap()
    };
    let mut diff = Diff::new(&executable(1.0), &executable(2.0), Closeness::default()).unwrap();
    diff.give_arbitrary().unwrap();
    let report = run(&mut diff).unwrap();
    let first = report.first.unwrap();
    assert_eq!((first.op, first.difference().unwrap().kernel), (1, None));
    assert_eq!(first.difference().unwrap().all.outside, 4);
    assert_eq!((report.ops, report.differing), (3, 1));
}

#[test]
fn each_op_is_announced_before_it_runs() {
    let (good, bad) = (chain_of("", ""), chain_of("amplify", "y[0] += 1;"));
    let mut diff = Diff::new(&loaded(&good), &loaded(&bad), Closeness::default()).unwrap();
    diff.give_arbitrary().unwrap();
    let mut told = Vec::new();
    let report = diff.run(&[], &mut |event| {
        told.push(match event {
            Event::Op { op, side } => format!("{} {op}", side.name()),
            Event::Run { side } => format!("{} whole", side.name()),
            Event::Compared(OpReport { op, verdict, .. }) => match verdict {
                Verdict::Same => format!("same {op}"),
                _ => format!("other {op}"),
            },
        });
    });
    assert_eq!(report.unwrap().differing, 1);
    let expected = [
        "left 0", "right 0", "same 0", "left 1", "right 1", "other 1", "left 2",
    ];
    assert_eq!(told[..7], expected);
    assert_eq!(told[told.len() - 2..], ["left whole", "right whole"]);
    assert_eq!(Side::Left.name(), "left");
}

#[test]
fn what_is_written_beside_an_argument_ends_the_comparison() {
    if runtime().guard() == Guard::Off {
        return;
    }
    // Five floats end 12 bytes before the page.
    let plan = |line: &str| {
        let text = format!("void k(float *y) {{ for (int i = 0; i < 5; i++) y[i] = i; {line} }}");
        let files = Files::with_kernels(
            json!({
                "kernels": [{"entry": "k", "source": "kernels/k.c", "language": "c", "params": [
                    {"buffer": "f32", "len": 5, "access": "w"},
                ]}],
                "buffers": [{"name": "y", "role": "output", "dtype": "f32", "shape": [5]}],
                "ops": [{"launch": 0, "args": [0]}],
                "outputs": [{"name": "y", "buffer": 0, "dtype": "f32", "shape": [5]}],
            }),
            &[("k", &text)],
        );
        loaded(&files)
    };
    let (good, bad) = (plan(""), plan("*(volatile float *)(y + 5) = 1;"));
    for (left, right) in [(&good, &bad), (&bad, &good)] {
        let mut diff = Diff::new(left, right, Closeness::default()).unwrap();
        let outcome = run(&mut diff);
        let named = match &outcome {
            Err(Error::Overrun { kernel, .. }) => kernel == "k",
            Ok(report) => report.first.as_ref().is_some_and(|op| op.op == 0),
            Err(_) => false,
        };
        assert!(named, "{outcome:?}");
    }
}
