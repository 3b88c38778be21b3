//! What is accepted, and what it does.

use super::*;

/// Adds `"x-note"` to every object but those whose keys are names, and VALUEs.
fn annotate(value: &mut Value, names: bool) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(|v| annotate(v, false)),
        Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                match key.as_str() {
                    "grid" | "scalars" | "value" => {}
                    key => annotate(inner, ["variables", "inputs", "outputs"].contains(&key)),
                }
            }
            if !names {
                map.insert("x-note".into(), json!({"by": ["another", 1, null]}));
            }
        }
        _ => {}
    }
}

#[test]
fn unknown_keys_are_ignored_wherever_they_stand() {
    let mut files = Files::small();
    annotate(&mut files.plan, false);
    assert!(files.plan.to_string().matches("x-note").count() > 20);
    let bundle = files.open().unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(bundle.plan().ops().len(), 4);
}

#[test]
fn only_kernels_buffers_and_ops_must_be_there() {
    let files = Files::new(json!({}));
    let mut instance = files.instance();
    instance.run(&[]).unwrap();
}

#[test]
fn every_dtype_is_accepted_in_buffers_parameters_and_fills() {
    let dtypes = [
        "bool", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "f16", "bf16", "f32", "f64",
    ];
    let param = |dtype: &str| json!({"buffer": dtype, "len": 2, "access": "rw"});
    let buffer = |dtype: &str| json!({"role": "output", "dtype": dtype, "shape": [2]});
    let output = |(i, dtype): (usize, &&str)| json!({"name": dtype, "buffer": i, "offset": 0, "dtype": dtype, "shape": [2]});
    let fill = |(i, dtype): (usize, &&str)| json!({"fill": {"to": i, "dtype": dtype, "value": 1}});
    let mut ops: Vec<Value> = dtypes.iter().enumerate().map(fill).collect();
    let args: Vec<usize> = (0..dtypes.len()).collect();
    ops.push(json!({"launch": 0, "args": args}));
    // The kernel copies the first byte of each first element into the second.
    let params: Vec<_> = (0..dtypes.len())
        .map(|i| format!("unsigned char *p{i}"))
        .collect();
    let sizes = [1, 1, 1, 2, 2, 4, 4, 8, 8, 2, 2, 4, 8];
    let body: String = (0..dtypes.len())
        .map(|i| format!("p{i}[{}] = 0;", sizes[i]))
        .collect();
    let source = format!("void touch({}) {{ {body} }}", params.join(", "));
    let files = Files::with_kernels(
        json!({
            "kernels": [{"entry": "touch", "source": "kernels/touch.c", "language": "c",
                         "params": dtypes.iter().map(|d| param(d)).collect::<Vec<_>>()}],
            "buffers": dtypes.iter().map(|d| buffer(d)).collect::<Vec<_>>(),
            "outputs": dtypes.iter().enumerate().map(output).collect::<Vec<_>>(),
            "ops": ops,
        }),
        &[("touch", &source)],
    );
    let mut instance = files.instance();
    instance.run(&[]).unwrap();
    let one: [&[u8]; 13] = [
        &[1],
        &[1],
        &[1],
        &[1, 0],
        &[1, 0],
        &[1, 0, 0, 0],
        &[1, 0, 0, 0],
        &[1, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 0, 0, 0, 0],
        &[0, 0x3c],
        &[0x80, 0x3f],
        &[0, 0, 0x80, 0x3f],
        &[0, 0, 0, 0, 0, 0, 0xf0, 0x3f],
    ];
    for (dtype, one) in dtypes.iter().zip(one) {
        let mut expected = [one, one].concat();
        expected[one.len()] = 0;
        assert_eq!(
            instance.output(dtype).unwrap().as_bytes(),
            expected,
            "{dtype}"
        );
    }
}

#[test]
fn untyped_bytes_hold_elements_of_any_type_side_by_side() {
    let files = Files::with_kernels(
        json!({
            "kernels": [{"entry": "split", "source": "kernels/split.c", "language": "c", "params": [
                {"buffer": "f64", "len": 2, "access": "w"},
                {"buffer": "i16", "len": 2, "access": "w", "align": 2},
                {"buffer": "f64", "len": 2, "access": "r"},
            ]}],
            "buffers": [
                {"name": "in", "role": "input", "bytes": 16},
                {"role": "temp", "bytes": 64},
                {"role": "output", "bytes": 64},
            ],
            "ops": [
                {"launch": 0, "args": [view(1, 16, 16), view(1, 6, 4), 0]},
                {"copy": {"from": 1, "to": 2}},
            ],
            "outputs": [
                {"name": "halves", "buffer": 2, "offset": 16, "dtype": "f64", "shape": [2]},
                {"name": "whole", "buffer": 2, "offset": 6, "dtype": "i16", "shape": [1, 2]},
            ],
        }),
        &[(
            "split",
            "void split(double *h, short *w, const double *x) {
                 for (int i = 0; i < 2; i++) { h[i] = x[i] / 2; w[i] = (short)x[i]; }
             }",
        )],
    );
    let mut instance = files.instance();
    // Untyped, an input is given as bytes.
    instance
        .set_input("in", View::from_slice(&bytes(&[3.0_f64, -7.0])))
        .unwrap();
    instance.run(&[]).unwrap();
    assert_eq!(output::<f64>(&instance, "halves"), [1.5, -3.5]);
    assert_eq!(output::<i16>(&instance, "whole"), [3, -7]);
}

#[test]
fn copies_and_fills_touch_their_range_and_no_more() {
    let fill = |at: i64, dtype: &str, value: Value| json!({"fill": {"to": view(0, at, 8), "dtype": dtype, "value": value}});
    let files = Files::new(json!({
        "variables": {"n": {"min": -5, "max": 5}},
        "buffers": [{"role": "output", "bytes": 48}],
        "ops": [
            {"fill": {"to": 0, "dtype": "u8", "value": 255}},
            fill(0, "i16", json!(-2)),
            fill(8, "f32", json!(0.25)),
            fill(16, "i64", var("n")),
            fill(24, "f64", var("n")),
            {"copy": {"from": view(0, 0, 8), "to": view(0, 33, 8)}},
        ],
        "outputs": [{"name": "out", "buffer": 0, "offset": 0, "dtype": "u8", "shape": [48]}],
    }));
    let mut instance = files.instance();
    instance.run(&[("n", -3)]).unwrap();
    let expected = [
        bytes(&[-2_i16; 4]),
        bytes(&[0.25_f32; 2]),
        bytes(&[-3_i64]),
        bytes(&[-3.0_f64]),
        vec![255],
        bytes(&[-2_i16; 4]),
        vec![255; 7],
    ];
    assert_eq!(output::<u8>(&instance, "out"), expected.concat());
}

#[test]
fn expressions_compute_in_64_bits_with_every_operator() {
    let (a, b) = (|| var("a"), || var("b"));
    let operators = ["add", "mul", "floordiv", "mod", "min", "max"];
    let mut values: Vec<Value> = operators
        .iter()
        .map(|op| json!({*op: [a(), b()]}))
        .collect();
    // Nested, and beyond 32 bits.
    values.push(json!({"add": [{"mul": [a(), 1_i64 << 40]}, {"max": [{"min": [b(), 2]}, -1]}]}));
    let fills = values.iter().enumerate().map(|(i, value)| {
        let at = view(0, 8 * i64::try_from(i).unwrap(), 8);
        json!({"fill": {"to": at, "dtype": "i64", "value": value}})
    });
    let files = Files::new(json!({
        "variables": {"a": {"min": -100, "max": 100}, "b": {"min": 1, "max": 9}},
        "buffers": [{"role": "output", "dtype": "i64", "shape": [7]}],
        "ops": fills.collect::<Vec<_>>(),
        "outputs": [{"name": "out", "buffer": 0, "offset": 0, "dtype": "i64", "shape": [7]}],
    }));
    let mut instance = files.instance();
    for (a, b) in [(-100, 9), (-7, 2), (-1, 1), (0, 5), (7, 2), (100, 9)] {
        instance.run(&[("a", a), ("b", b)]).unwrap();
        let (quotient, remainder) = (a.div_euclid(b), a.rem_euclid(b));
        let nested = (a << 40) + b.clamp(-1, 2);
        let expected = [
            a + b,
            a * b,
            quotient,
            remainder,
            a.min(b),
            a.max(b),
            nested,
        ];
        assert_eq!(output::<i64>(&instance, "out"), expected, "{a} {b}");
    }
}

#[test]
fn scalars_of_every_type_arrive_with_their_sign_and_bits() {
    let types = [
        ("bool", "_Bool"),
        ("i8", "signed char"),
        ("u8", "unsigned char"),
        ("i16", "short"),
        ("u16", "unsigned short"),
        ("i32", "int"),
        ("u32", "unsigned"),
        ("i64", "long long"),
        ("u64", "unsigned long long"),
        ("f16", "_Float16"),
        ("f32", "float"),
        ("f64", "double"),
    ];
    let values = [
        json!(1),
        json!(-128),
        json!(255),
        json!(-32768),
        json!(65535),
        json!(i32::MIN),
        json!(u32::MAX),
        json!(-(1_i64 << 52)),
        json!(1_u64 << 63),
        json!(-1.5),
        json!(-0.375),
        json!(1e300),
    ];
    let mut params = vec![json!({"buffer": "f64", "len": 12, "access": "w"})];
    params.extend(
        types
            .iter()
            .map(|(dtype, _)| json!({"scalar": dtype, "name": dtype})),
    );
    let arguments: Vec<_> = types.iter().map(|(d, c)| format!("{c} {d}_")).collect();
    let body: String = types
        .iter()
        .enumerate()
        .map(|(i, (d, _))| format!("out[{i}] = (double){d}_;"))
        .collect();
    let source = format!(
        "void show(double *out, {}) {{ {body} }}",
        arguments.join(", ")
    );
    let scalars: serde_json::Map<_, _> = types
        .iter()
        .map(|(d, _)| (*d).to_owned())
        .zip(values.clone())
        .collect();
    let files = Files::with_kernels(
        json!({
            "kernels": [{"entry": "show", "source": "kernels/show.c", "language": "c",
                         "params": params}],
            "buffers": [{"role": "output", "dtype": "f64", "shape": [12]}],
            "ops": [{"launch": 0, "args": [0], "scalars": scalars}],
            "outputs": [{"name": "out", "buffer": 0, "offset": 0, "dtype": "f64", "shape": [12]}],
        }),
        &[("show", &source)],
    );
    let mut instance = files.instance();
    instance.run(&[]).unwrap();
    let expected: Vec<_> = values.iter().map(|v| v.as_f64().unwrap()).collect();
    assert_eq!(output::<f64>(&instance, "out"), expected);
}

#[test]
fn a_bound_that_is_not_stated_is_the_type_s_own() {
    let bounded = |bounds: Value, value: i64| {
        let mut files = Files::small();
        let mut param = json!({"scalar": "i32", "name": "n"});
        param
            .as_object_mut()
            .unwrap()
            .extend(bounds.as_object().unwrap().clone());
        files.set("/kernels/0/params/3", param);
        files.set("/ops/0/scalars/n", json!(value));
        files.open().map(drop)
    };
    assert!(bounded(json!({"min": 3}), i64::from(i32::MAX)).is_ok());
    assert!(bounded(json!({"max": 3}), i64::from(i32::MIN)).is_ok());
    assert!(bounded(json!({}), i64::from(i32::MIN)).is_ok());
    for (bounds, value) in [
        (json!({"min": 3}), 2),
        (json!({"max": 3}), 4),
        (json!({}), i64::from(i32::MAX) + 1),
    ] {
        let error = bounded(bounds, value).unwrap_err();
        assert_refused(&error, "ops[0].scalars.n", &value.to_string());
    }
}

#[test]
fn the_packed_convention_passes_buffers_and_values_each_in_order() {
    let files = Files::with_kernels(
        json!({
            "variables": {"n": {"min": 0, "max": 4}},
            "kernels": [{"entry": "pack", "source": "kernels/pack.c", "language": "c",
                "convention": "packed", "returns": "status", "params": [
                {"scalar": "i16", "name": "bias", "min": -9, "max": 9},
                {"buffer": "i64", "len": 4, "access": "w"},
                {"scalar": "i64", "index": true, "max": 4},
                {"buffer": "i64", "len": 4, "access": "r"},
                {"scalar": "f32", "name": "factor"},
            ]}],
            "buffers": [
                {"name": "x", "role": "input", "dtype": "i64", "shape": [4]},
                {"role": "output", "dtype": "i64", "shape": [4]},
            ],
            "ops": [{"launch": 0, "args": [1, 0], "grid": var("n"),
                     "scalars": {"bias": -9, "factor": 0.5}}],
            "outputs": [{"name": "y", "buffer": 1, "offset": 0, "dtype": "i64", "shape": [4]}],
        }),
        &[(
            "pack",
            "#include <stdint.h>
             int32_t pack(void **buffers, int64_t *values) {
                 int64_t *y = buffers[0];
                 const int64_t *x = buffers[1];
                 union { int32_t bits; float value; } factor = {(int32_t)values[2]};
                 y[values[1]] = (int64_t)(x[values[1]] * factor.value) + values[0];
                 return 0;
             }",
        )],
    );
    let mut instance = files.instance();
    instance
        .set_input("x", View::from_slice(&[2_i64, 4, 6, 8]))
        .unwrap();
    instance.run(&[("n", 3)]).unwrap();
    assert_eq!(output::<i64>(&instance, "y"), [-8, -7, -6, 0]);
}

/// `check` returns what the plan's variable says, and state and output are
/// written before or after it.
fn failing(state_before: bool) -> Instance {
    let check = json!({"launch": 0, "scalars": {"code": var("code")}});
    let count = json!({"launch": 1, "args": [0]});
    let note = json!({"fill": {"to": 1, "dtype": "i32", "value": var("code")}});
    let ops = if state_before {
        [note, count, check]
    } else {
        [note, check, count]
    };
    Files::with_kernels(
        json!({
            "variables": {"code": {"min": -2_147_483_648_i64, "max": 2_147_483_647_i64}},
            "kernels": [
                {"entry": "check", "source": "kernels/check.c", "language": "c",
                 "returns": "status", "params": [{"scalar": "i32", "name": "code"}]},
                {"entry": "count", "source": "kernels/count.c", "language": "c",
                 "params": [{"buffer": "i64", "len": 1, "access": "rw"}]},
            ],
            "buffers": [
                {"role": "state", "dtype": "i64", "shape": [1]},
                {"role": "output", "dtype": "i32", "shape": [1]},
            ],
            "ops": ops,
            "outputs": [
                {"name": "runs", "buffer": 0, "offset": 0, "dtype": "i64", "shape": [1]},
                {"name": "note", "buffer": 1, "offset": 0, "dtype": "i32", "shape": [1]},
            ],
        }),
        &[
            ("check", "int check(int code) { return code; }"),
            ("count", COUNT),
        ],
    )
    .instance()
}

#[test]
fn a_status_other_than_0_fails_the_run_with_that_number() {
    let mut instance = failing(false);
    instance.run(&[("code", 0)]).unwrap();
    for code in [1, -1, 42, i64::from(i32::MIN), i64::from(i32::MAX)] {
        match instance.run(&[("code", code)]).unwrap_err() {
            Error::KernelStatus {
                kernel,
                op,
                status,
                index,
            } => {
                assert_eq!(
                    (kernel.as_str(), op, i64::from(status), index),
                    ("check", Some(1), code, 0)
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_status_names_the_grid_index_that_failed() {
    let files = Files::with_kernels(
        json!({
            "kernels": [{"entry": "third", "source": "kernels/third.c", "language": "c",
                "returns": "status", "params": [{"scalar": "i32", "index": true, "max": 8}]}],
            "ops": [{"launch": 0, "grid": 8}],
        }),
        &[("third", "int third(int i) { return i == 3 ? 7 : 0; }")],
    );
    let error = files.instance().run(&[]).unwrap_err();
    assert!(
        matches!(
            error,
            Error::KernelStatus {
                status: 7,
                index: 3,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn a_run_that_fails_before_it_wrote_a_state_can_be_run_again() {
    let mut instance = failing(false);
    instance.run(&[("code", 5)]).unwrap_err();
    assert!(!instance.is_torn());
    assert_eq!(
        output::<i32>(&instance, "note"),
        [5],
        "ops before the failure ran"
    );
    assert_eq!(
        output::<i64>(&instance, "runs"),
        [0],
        "ops after it did not"
    );
    instance.run(&[("code", 0)]).unwrap();
    assert_eq!(output::<i64>(&instance, "runs"), [1]);
}

#[test]
fn a_run_that_fails_after_it_wrote_a_state_tears_the_instance_until_it_is_reset() {
    let mut instance = failing(true);
    instance.run(&[("code", 0)]).unwrap();
    let failed = instance.run(&[("code", 5)]).unwrap_err();
    assert!(
        matches!(failed, Error::KernelStatus { status: 5, .. }),
        "{failed:?}"
    );
    assert!(instance.is_torn());
    for _ in 0..2 {
        let torn = instance.run(&[("code", 0)]).unwrap_err();
        assert!(matches!(torn, Error::Torn), "{torn:?}");
        assert!(torn.to_string().contains("accept_torn"), "{torn}");
    }
    assert_eq!(
        output::<i64>(&instance, "runs"),
        [2],
        "a torn instance runs nothing"
    );
    instance.reset();
    assert!(!instance.is_torn());
    instance.run(&[("code", 0)]).unwrap();
    assert_eq!(output::<i64>(&instance, "runs"), [1]);
}

#[test]
fn a_kernel_that_fails_after_it_may_have_written_a_state_tears_the_instance() {
    let files = Files::with_kernels(
        json!({
            "kernels": [{"entry": "half", "source": "kernels/half.c", "language": "c",
                "returns": "status", "params": [
                {"buffer": "i32", "len": 4, "access": "w"},
                {"scalar": "i32", "index": true, "max": 4},
            ]}],
            "buffers": [{"role": "state", "dtype": "i32", "shape": [4]}],
            "ops": [{"launch": 0, "args": [0], "grid": 4}],
        }),
        &[(
            "half",
            "int half(int *s, int i) { s[i] = 1; return i == 2; }",
        )],
    );
    let mut instance = files.instance();
    instance.run(&[]).unwrap_err();
    assert!(instance.is_torn());
    assert!(matches!(instance.run(&[]), Err(Error::Torn)));
}

#[test]
fn a_torn_instance_can_be_accepted_as_it_is() {
    let mut instance = failing(true);
    instance.run(&[("code", 5)]).unwrap_err();
    instance.accept_torn();
    instance.run(&[("code", 0)]).unwrap();
    assert_eq!(output::<i64>(&instance, "runs"), [2]);
}

#[test]
fn a_run_that_is_refused_before_it_began_tears_nothing() {
    let mut instance = failing(true);
    instance.run(&[]).unwrap_err();
    assert!(!instance.is_torn());
    instance.run(&[("code", 0)]).unwrap();
}

#[test]
fn states_carry_over_from_run_to_run_and_reset_restores_them() {
    let mut files = Files::small();
    files.weights(&[
        ("w", "F32", &[8], &bytes(&W)),
        ("runs", "I64", &[1], &bytes(&[40_i64])),
    ]);
    let zeros = json!({"name": "zeros", "role": "state", "dtype": "i64", "shape": [1]});
    files.set("/buffers/5", zeros);
    files.set("/ops/4", json!({"launch": 1, "args": [5]}));
    let out = json!({"name": "zeros", "buffer": 5, "offset": 0, "dtype": "i64", "shape": [1]});
    files.set("/outputs/2", out);
    let mut instance = files.instance();
    instance.set_input("x", View::from_slice(&X)).unwrap();
    let states = |instance: &Instance| {
        let of = |name| output::<i64>(instance, name)[0];
        (of("runs"), of("zeros"))
    };
    assert_eq!(states(&instance), (40, 0));
    for run in 1..=3 {
        instance.run(&[("n", 8)]).unwrap();
        assert_eq!(states(&instance), (40 + run, run));
    }
    instance.reset();
    assert_eq!(states(&instance), (40, 0));
    instance.run(&[("n", 8)]).unwrap();
    assert_eq!(states(&instance), (41, 1));
}

#[test]
fn recorded_tests_run_in_order_on_one_instance() {
    let mut files = Files::small();
    for (i, runs) in [1_i64, 2].into_iter().enumerate() {
        let file = format!("tests/{i}/runs.npy");
        files.npy(&file, &[1], &[runs]);
        files.set("/tests/1", files.plan["tests"][0].clone());
        files.set(&format!("/tests/{i}/outputs/runs"), json!(file));
    }
    files.set("/tests/0/outputs/runs", json!("tests/0/runs.npy"));
    let bundle = files.open().unwrap();
    let mut instance = files.instance();
    for test in bundle.tests() {
        let report = bundle.run_test(test, &mut instance).unwrap();
        assert!(report.is_exact(), "{report:?}");
        assert_eq!(report.outputs.len(), 2);
    }
}

#[test]
fn a_result_that_is_not_the_recorded_one_is_reported() {
    let mut files = Files::small();
    let mut other = Y;
    other[6] += 0.25;
    files.npy("tests/0/y.npy", &[2, 4], &other);
    let reports = |files: &Files| {
        let bundle = files.open().unwrap();
        bundle
            .run_test(&bundle.tests()[0], &mut files.instance())
            .unwrap()
    };
    let report = reports(&files);
    assert!(!report.is_within());
    let difference = report.outputs[0].difference;
    assert_eq!((difference.outside, difference.worst), (1, Some(6)));
    assert_eq!(difference.max_abs, 0.25);
    files.set("/tests/0/atol", json!(0.25));
    let report = reports(&files);
    assert!(report.is_within() && !report.is_exact());
}

#[test]
fn a_partial_write_keeps_what_it_does_not_write() {
    let files = Files::with_kernels(
        json!({
            "variables": {"row": {"min": 0, "max": 3}},
            "kernels": [{"entry": "append", "source": "kernels/append.c", "language": "c",
                "params": [
                    {"buffer": "i32", "len": 8, "access": "w"},
                    {"scalar": "i64", "name": "row", "min": 0, "max": 3},
                ]}],
            "buffers": [{"role": "state", "dtype": "i32", "shape": [4, 2]}],
            "ops": [{"launch": 0, "args": [0], "scalars": {"row": var("row")}}],
            "outputs": [{"name": "cache", "buffer": 0, "offset": 0, "dtype": "i32",
                         "shape": [4, 2]}],
        }),
        &[(
            "append",
            "void append(int *cache, long long row) {
                 cache[2 * row] = (int)row + 1; cache[2 * row + 1] = -(int)row - 1;
             }",
        )],
    );
    let mut instance = files.instance();
    for row in [2, 0, 3] {
        instance.run(&[("row", row)]).unwrap();
    }
    assert_eq!(
        output::<i32>(&instance, "cache"),
        [1, -1, 0, 0, 3, -3, 4, -4]
    );
}

#[test]
fn a_kernel_may_read_and_write_in_place() {
    let files = Files::with_kernels(
        json!({
            "kernels": [{"entry": "square", "source": "kernels/square.c", "language": "c",
                "params": [
                    {"buffer": "i32", "len": 4, "access": "rw"},
                    {"scalar": "i32", "index": true, "max": 4},
                ]}],
            "buffers": [
                {"name": "x", "role": "input", "dtype": "i32", "shape": [4]},
                {"role": "output", "dtype": "i32", "shape": [4]},
            ],
            "ops": [
                {"copy": {"from": 0, "to": 1}},
                {"launch": 0, "args": [1], "grid": 4},
                {"launch": 0, "args": [1], "grid": 2},
                {"launch": 0, "args": [1], "grid": 0},
            ],
            "outputs": [{"name": "y", "buffer": 1, "offset": 0, "dtype": "i32", "shape": [4]}],
        }),
        &[("square", "void square(int *x, int i) { x[i] *= x[i]; }")],
    );
    let mut instance = files.instance();
    instance
        .set_input("x", View::from_slice(&[1, 2, 3, 4]))
        .unwrap();
    instance.run(&[]).unwrap();
    assert_eq!(output::<i32>(&instance, "y"), [1, 16, 9, 16]);
}

/// A kernel that says where its two arguments lie.
const WHERE: &str = "void where(long long *out, const float *w) {
                         out[0] = (long long)w; out[1] = (long long)w[0]; out[2] = (long long)w[7];
                     }";

/// A bundle whose constant begins `past` a multiple of 64 in the file, and
/// whose kernel assumes an alignment for it. Returns the constant's address and
/// its first and last element.
fn constant_at(past: usize, align: usize) -> ([i64; 3], bool) {
    let files = Files::with_kernels(
        json!({
            "kernels": [{"entry": "where", "source": "kernels/where.c", "language": "c",
                "params": [
                    {"buffer": "i64", "len": 3, "access": "w"},
                    {"buffer": "f32", "len": 8, "access": "r", "align": align},
                ]}],
            "buffers": [
                {"role": "output", "dtype": "i64", "shape": [3]},
                {"role": "constant", "dtype": "f32", "shape": [8], "tensor": "w"},
            ],
            "ops": [{"launch": 0, "args": [0, 1]}],
            "outputs": [{"name": "out", "buffer": 0, "offset": 0, "dtype": "i64", "shape": [3]}],
        }),
        &[("where", WHERE)],
    );
    let w: Vec<f32> = (0..8_u8).map(|i| f32::from(i) + 10.0).collect();
    files.weights_from(past, &[("w", "F32", &[8], &bytes(&w))]);
    // Guarded, a constant is a copy wherever it lies.
    let executable = files.load().unwrap().with_guard(Guard::Off);
    let mut instance = executable.instance().unwrap();
    instance.run(&[]).unwrap();
    let out: [i64; 3] = output::<i64>(&instance, "out").try_into().unwrap();
    // Whether that address belongs to the mapped file, as the system sees it.
    let file = files
        .path()
        .join("weights.safetensors")
        .canonicalize()
        .unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mapped = maps
        .lines()
        .filter(|l| l.ends_with(file.to_str().unwrap()))
        .any(|line| {
            let (start, rest) = line.split_once('-').unwrap();
            let end = rest.split_once(' ').unwrap().0;
            let hex = |text| i64::from_str_radix(text, 16).unwrap();
            (hex(start)..hex(end)).contains(&out[0])
        });
    (out, mapped)
}

#[test]
fn a_constant_that_is_aligned_in_the_file_is_mapped_and_not_copied() {
    let ([address, first, last], mapped) = constant_at(0, 64);
    assert!(mapped, "{address:#x}");
    assert_eq!((address % 64, first, last), (0, 10, 17));
}

#[test]
fn a_constant_that_is_not_aligned_in_the_file_is_copied_to_where_it_is() {
    for (past, align) in [(8, 16), (4, 16), (1, 64), (0, 4096), (40, 4096)] {
        let ([address, first, last], mapped) = constant_at(past, align);
        assert!(!mapped, "{past} {align}: {address:#x}");
        let align = i64::try_from(align).unwrap();
        assert_eq!((address % align, first, last), (0, 10, 17), "{past}");
    }
}

#[test]
fn buffers_of_every_role_are_as_aligned_as_their_kernels_assume() {
    let roles = ["input", "state", "temp", "output"];
    for align in [64, 4096] {
        let params =
            roles.map(|_| json!({"buffer": "u8", "len": 3, "access": "r", "align": align}));
        let mut params = params.to_vec();
        params.push(json!({"buffer": "i64", "len": 1, "access": "w"}));
        let buffer = |role| json!({"name": role, "role": role, "dtype": "u8", "shape": [3]});
        let mut buffers = roles.map(buffer).to_vec();
        buffers.push(json!({"role": "output", "dtype": "i64", "shape": [1]}));
        let source = format!(
            "void low(const char *a, const char *b, const char *c, const char *d, long long *o) {{
                 o[0] = ((long long)a | (long long)b | (long long)c | (long long)d) % {align};
             }}"
        );
        let files = Files::with_kernels(
            json!({
                "kernels": [{"entry": "low", "source": "kernels/low.c", "language": "c",
                             "params": params}],
                "buffers": buffers,
                "ops": [{"launch": 0, "args": [0, 1, 2, 3, 4]}],
                "outputs": [{"name": "o", "buffer": 4, "offset": 0, "dtype": "i64", "shape": [1]}],
            }),
            &[("low", &source)],
        );
        let mut instance = files.instance();
        instance
            .set_input("input", View::from_slice(&[1_u8, 2, 3]))
            .unwrap();
        instance.run(&[]).unwrap();
        assert_eq!(output::<i64>(&instance, "o"), [0]);
    }
}

#[test]
fn a_bool_that_is_no_0_or_1_is_refused_wherever_it_comes_from() {
    let plan = |role: &str| {
        json!({
            "buffers": [
                {"name": "mask", "role": role, "dtype": "bool", "shape": [3], "tensor": "mask"},
                {"role": "output", "dtype": "bool", "shape": [3]},
            ],
            "ops": [{"copy": {"from": 0, "to": 1}}],
            "outputs": [{"name": "out", "buffer": 1, "offset": 0, "dtype": "bool", "shape": [3]}],
        })
    };
    for role in ["constant", "state"] {
        let files = Files::new(plan(role));
        files.weights(&[("mask", "BOOL", &[3], &[1, 0, 1])]);
        let mut instance = files.instance();
        instance.run(&[]).unwrap();
        assert_eq!(output::<u8>(&instance, "out"), [1, 0, 1]);
        files.weights(&[("mask", "BOOL", &[3], &[1, 0, 2])]);
        assert_file(&files.load().unwrap_err(), "`mask`", "element 2");
    }
    let mut instance = Files::new(plan("input")).instance();
    let error = instance
        .set_input("mask", View::from_slice(&[0_u8, 2, 1]))
        .unwrap_err();
    assert!(error.to_string().contains("element 1 is 2"), "{error}");
    instance
        .set_input("mask", View::from_bools(&[true, false, true]))
        .unwrap();
    instance.run(&[]).unwrap();
    assert_eq!(output::<u8>(&instance, "out"), [1, 0, 1]);
}

#[test]
fn a_tensor_of_a_type_that_no_buffer_has_can_be_read_as_bytes() {
    let files = Files::new(json!({
        "buffers": [
            {"role": "constant", "bytes": 4, "tensor": "f8"},
            {"role": "output", "bytes": 4},
        ],
        "ops": [{"copy": {"from": 0, "to": 1}}],
        "outputs": [{"name": "out", "buffer": 1, "offset": 0, "dtype": "u8", "shape": [4]}],
    }));
    files.weights(&[("f8", "F8_E5M2", &[2, 2], &[7, 8, 9, 10])]);
    let mut instance = files.instance();
    instance.run(&[]).unwrap();
    assert_eq!(output::<u8>(&instance, "out"), [7, 8, 9, 10]);
}

#[test]
fn buffers_without_elements_are_accepted() {
    let files = Files::with_kernels(
        json!({
            "kernels": [{"entry": "none", "source": "kernels/none.c", "language": "c", "params": [
                {"buffer": "f32", "len": 0, "access": "w"},
                {"buffer": "f32", "len": 0, "access": "r", "align": 4096},
            ]}],
            "buffers": [
                {"name": "x", "role": "input", "dtype": "f32", "shape": [0, 3]},
                {"role": "constant", "dtype": "f32", "shape": [0], "tensor": "w"},
                {"role": "output", "bytes": 0},
            ],
            "ops": [
                {"launch": 0, "args": [2, 0]},
                {"launch": 0, "args": [2, 1]},
                {"fill": {"to": 2, "dtype": "f64", "value": 1}},
            ],
            "outputs": [{"name": "y", "buffer": 2, "offset": 0, "dtype": "f32", "shape": [0]}],
        }),
        &[(
            "none",
            "void none(float *y, const float *x) { (void)y; (void)x; }",
        )],
    );
    files.weights(&[("w", "F32", &[0], &[])]);
    let mut instance = files.instance();
    instance
        .set_input("x", View::from_slice::<f32>(&[]))
        .unwrap();
    instance.run(&[]).unwrap();
    assert!(output::<f32>(&instance, "y").is_empty());
}

fn adding(n: i64) -> String {
    format!("void count(long long *runs) {{ runs[0] += {n}; }}")
}

#[track_caller]
pub(super) fn assert_counts_by(files: &Files, step: i64) {
    let mut instance = files.instance();
    instance.set_input("x", View::from_slice(&X)).unwrap();
    instance.run(&[("n", 1)]).unwrap();
    assert_eq!(output::<i64>(&instance, "runs"), [step]);
}

#[test]
fn an_object_that_this_cpu_can_run_is_used_instead_of_the_source() {
    let mut files = Files::small();
    add_object(&mut files, &adding(10), &[]);
    assert_counts_by(&files, 10);
    files
        .unset("/kernels/1/source")
        .unset("/kernels/1/language");
    assert_counts_by(&files, 10);
}

#[test]
fn of_several_objects_the_one_that_asks_most_of_this_cpu_is_used() {
    if ARCH != "x86_64" {
        return; // The names of features are those of x86-64 for now.
    }
    let mut files = Files::small();
    add_object(&mut files, &adding(10), &["sse2"]);
    add_object(&mut files, &adding(20), &["sse", "sse2"]);
    add_object(&mut files, &adding(30), &["sse", "sse2", "telepathy"]);
    add_object(&mut files, &adding(40), &[]);
    assert_counts_by(&files, 20);
}

#[test]
fn an_object_that_this_cpu_cannot_run_leaves_the_source() {
    let mut files = Files::small();
    add_object(&mut files, &adding(10), &["telepathy"]);
    assert_counts_by(&files, 1);
    let mut files = Files::small();
    add_object(&mut files, &adding(10), &[]);
    files.set("/kernels/1/objects/0/arch", json!("m68k"));
    assert_counts_by(&files, 1);
}

#[test]
fn without_a_source_and_a_usable_object_a_kernel_cannot_be_loaded() {
    let mut files = Files::small();
    add_object(&mut files, &adding(10), &["telepathy"]);
    files.unset("/kernels/1/source");
    let error = files.load().unwrap_err();
    assert_file(&error, "`count`", "no source");
}

#[test]
fn an_object_that_is_no_object_is_refused_at_load() {
    let mut files = Files::small();
    let junk = b"\x7fELF and then nothing";
    files.write("kernels/count.o", junk);
    let digest: String = Sha256::digest(junk)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let object = json!([{"path": "kernels/count.o", "arch": ARCH, "sha256": digest}]);
    files.set("/kernels/1/objects", object);
    let error = cause(files.load().unwrap_err());
    assert!(matches!(error, Error::MalformedObject { .. }), "{error:?}");
    assert!(error.to_string().contains("`count`"), "{error}");
}

#[test]
fn a_kernel_may_be_written_in_llvm_ir() {
    let mut files = Files::small();
    files.set("/kernels/1/language", json!("llvm-ir"));
    files.set("/kernels/1/source", json!("kernels/count.ll"));
    files.text(
        "kernels/count.ll",
        "define void @count(ptr %runs) {\n  %n = load i64, ptr %runs\n  %m = add i64 %n, 7\n  \
         store i64 %m, ptr %runs\n  ret void\n}\n",
    );
    match files.load() {
        Err(Error::Bundle { source, .. }) if matches!(*source, Error::NoLlvm { .. }) => {
            assert!(std::env::var_os("SVOD_TEST_NO_SKIP").is_none(), "no LLVM");
            eprintln!("skipped: there is neither a libLLVM nor a clang");
        }
        _ => assert_counts_by(&files, 7),
    }
}

#[test]
fn a_source_that_does_not_compile_shows_the_compiler_s_words() {
    let files = Files::small();
    files.text(
        "kernels/count.c",
        "void count(long long *runs) {\n    runs[0] += mistake;\n}\n",
    );
    let error = cause(files.load().unwrap_err());
    assert!(matches!(error, Error::Compile { .. }), "{error:?}");
    let text = error.to_string();
    for word in ["`count`", "kernels/count.c:2:", "mistake"] {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
}

#[test]
fn a_source_includes_files_from_its_own_folder() {
    let files = Files::small();
    files.text("kernels/step.h", "#define STEP 6\n");
    let source = "#include \"step.h\"\nvoid count(long long *runs) { runs[0] += STEP; }";
    files.text("kernels/count.c", source);
    assert_counts_by(&files, 6);
}

#[test]
fn loading_tells_of_each_kernel_once() {
    let files = Files::small();
    let bundle = files.open().unwrap();
    let told = std::sync::Mutex::new(Vec::new());
    let progress = |p: svod_runtime::bundle::Progress<'_>| {
        assert_eq!(p.total, 2);
        told.lock().unwrap().push((p.done, p.kernel.to_owned()));
    };
    // SAFETY: the small bundle's kernels keep their signatures, and nobody
    // writes its files.
    unsafe { bundle.load(runtime(), &progress) }.unwrap();
    let (mut done, mut kernels): (Vec<_>, Vec<_>) = told.into_inner().unwrap().into_iter().unzip();
    done.sort_unstable();
    kernels.sort_unstable();
    assert_eq!(
        (done, kernels),
        (vec![1, 2], vec!["affine".into(), "count".into()])
    );
}

#[test]
fn an_input_that_was_never_given_fails_the_run() {
    let mut instance = Files::small().instance();
    let error = instance.run(&[("n", 8)]).unwrap_err();
    assert!(matches!(error, Error::Run { .. }), "{error:?}");
    assert!(error.to_string().contains("`x`"), "{error}");
    assert!(!instance.is_torn());
    instance.set_input("x", View::from_slice(&X)).unwrap();
    instance.run(&[("n", 8)]).unwrap();
    assert_eq!(output::<f32>(&instance, "y"), Y);
}

#[test]
fn an_input_stays_given() {
    let mut instance = Files::small().instance();
    instance
        .input("x")
        .unwrap()
        .into_slice::<f32>()
        .unwrap()
        .copy_from_slice(&X);
    for _ in 0..2 {
        instance.run(&[("n", 8)]).unwrap();
        assert_eq!(output::<f32>(&instance, "y"), Y);
    }
}

#[test]
fn an_input_of_another_type_or_length_is_refused_and_does_not_count_as_given() {
    let mut instance = Files::small().instance();
    for (error, word) in [
        (
            instance.set_input("x", View::from_slice(&[0_i32; 8])),
            "i32",
        ),
        (instance.set_input("x", View::from_slice(&[0_u8; 32])), "u8"),
        (
            instance.set_input("x", View::from_slice(&[0.0_f32; 7])),
            "7",
        ),
        (
            instance.set_input("x", View::from_slice(&[0.0_f32; 9])),
            "9",
        ),
    ] {
        let error = error.unwrap_err();
        assert!(matches!(error, Error::Buffer { .. }), "{error:?}");
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(instance.run(&[("n", 8)]).is_err());
}

#[test]
fn an_unknown_name_is_answered_with_those_that_exist() {
    let mut instance = Files::small().instance();
    instance.set_input("x", View::from_slice(&X)).unwrap();
    let of = |error: Error| error.to_string();
    let input = of(instance.set_input("X", View::from_slice(&X)).unwrap_err());
    assert!(input.contains("`X`") && input.contains("`x`"), "{input}");
    let output = of(instance.output("z").unwrap_err());
    let all = ["`z`", "`y`", "`runs`"];
    assert!(all.iter().all(|name| output.contains(name)), "{output}");
    let variable = of(instance.run(&[("n", 8), ("m", 1)]).unwrap_err());
    assert!(
        variable.contains("`m`") && variable.contains("`n`"),
        "{variable}"
    );
}

#[test]
fn instances_of_one_executable_are_independent() {
    let executable = Files::small().load().unwrap();
    let [mut a, mut b] = [
        executable.instance().unwrap(),
        executable.instance().unwrap(),
    ];
    a.set_input("x", View::from_slice(&X)).unwrap();
    a.run(&[("n", 8)]).unwrap();
    a.run(&[("n", 8)]).unwrap();
    assert!(b.run(&[("n", 8)]).is_err(), "b was given nothing");
    b.set_input("x", View::from_slice(&[0.0_f32; 8])).unwrap();
    b.run(&[("n", 8)]).unwrap();
    assert_eq!(output::<f32>(&a, "y"), Y);
    assert_eq!(
        output::<f32>(&b, "y"),
        [0.0, 0.0, 0.0, 0.0, 8.0, 8.0, 8.0, 8.0]
    );
    assert_eq!(
        (output::<i64>(&a, "runs"), output::<i64>(&b, "runs")),
        (vec![2], vec![1])
    );
    drop((a, executable));
    b.run(&[("n", 8)]).unwrap();
    assert_eq!(output::<i64>(&b, "runs"), [2]);
}

#[test]
fn instances_run_on_any_thread_at_the_same_time() {
    let executable = Files::small().load().unwrap();
    let run = |start: f32| {
        let mut instance = executable.instance().unwrap();
        move || {
            for round in 0..100_u8 {
                let x = [start + f32::from(round); 8];
                instance.set_input("x", View::from_slice(&x)).unwrap();
                instance.run(&[("n", 8)]).unwrap();
                let y = output::<f32>(&instance, "y");
                let expected: Vec<_> = W[..4].iter().map(|w| x[0] * w + 8.0).collect();
                assert_eq!(y[4..], expected);
            }
            output::<i64>(&instance, "runs")
        }
    };
    std::thread::scope(|scope| {
        let threads = [1.0, 1000.0, -7.0].map(|start| scope.spawn(run(start)));
        for thread in threads {
            assert_eq!(thread.join().unwrap(), [100]);
        }
    });
}
