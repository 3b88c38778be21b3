//! What a reader of plan bundles refuses, accepts, and makes of a run: the
//! contract of `docs/bundle-format.md`, item by item.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use svod_runtime::bundle::Bundle;
use svod_runtime::plan::Instance;
use svod_runtime::{Error, Source, View};

use support::{
    COUNT, Files, W, X, Y, assert_refused, bytes, cause, chain, output, runtime, safetensors,
};

const ARCH: &str = std::env::consts::ARCH;

/// Each line, `PATH = JSON -> PLACE: WORDS`, sets one thing in the small bundle's
/// plan, which is then refused at that place, or at the path if none is named,
/// with an error that has these words.
#[track_caller]
fn refused(lines: &str) {
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    for line in lines {
        let (path, rest) = line.split_once(" = ").unwrap();
        let (value, expected) = rest.rsplit_once(" -> ").unwrap();
        let (place, words) = expected.split_once(": ").unwrap_or((path, expected));
        let mut files = Files::small();
        let pointer = format!("/{}", path.replace(['.', '['], "/").replace(']', ""));
        files.set(&pointer, serde_json::from_str(value).unwrap());
        let error = files.open().expect_err(line);
        assert_refused(&error, place, words);
    }
}

/// Asserts that an error about a file names it and says why.
#[track_caller]
fn assert_file(error: &Error, file: &str, word: &str) {
    let text = chain(error);
    assert!(text.contains(file) && text.contains(word), "{text}");
}

fn view(buffer: i64, offset: i64, bytes: i64) -> Value {
    json!({"buffer": buffer, "offset": offset, "bytes": bytes})
}

fn var(name: &str) -> Value {
    json!({"var": name})
}

// ---------------------------------------------------------------------------
// What is refused
// ---------------------------------------------------------------------------

#[test]
fn the_small_bundle_itself_is_accepted() {
    let files = Files::small();
    let bundle = files.open().unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(bundle.plan().name(), "small");
    assert_eq!(bundle.producer(), "the tests");
    let mut instance = files.instance();
    for test in bundle.tests() {
        let report = bundle.run_test(test, &mut instance).unwrap();
        assert!(report.is_exact(), "{report:?}");
    }
}

#[test]
fn a_wrong_format_is_refused() {
    refused(
        r#"
        format = "onnx" -> svod-plan
        "#,
    );
}

#[test]
fn a_newer_version_is_refused() {
    refused(
        r#"
        version = 2 -> newer
        "#,
    );
}

#[test]
fn a_newer_version_is_refused_as_such_even_if_nothing_else_can_be_read() {
    let mut files = Files::small();
    files.set("/version", json!(2)).set("/ops", json!("packed"));
    assert_refused(&files.open().unwrap_err(), "version", "newer");
}

#[test]
fn a_required_extension_that_is_unknown_is_refused() {
    refused(
        r#"
        requires = ["time-travel"] -> requires[0]: time-travel
        "#,
    );
}

#[test]
fn an_index_out_of_range_is_refused() {
    refused(
        r#"
        ops[3].launch = 2 -> kernel 2
        ops[0].args[1] = 5 -> buffer 5
        ops[0].args[0] = {"buffer": 5, "offset": 0, "bytes": 32} -> buffer 5
        ops[1].fill.to = 5 -> buffer 5
        ops[2].copy.from = 5 -> buffer 5
        ops[2].copy.to = {"buffer": 5, "offset": 0, "bytes": 16} -> buffer 5
        outputs[0].buffer = 5 -> outputs[0]: buffer 5
        "#,
    );
}

#[test]
fn an_argument_count_that_does_not_fit_is_refused() {
    refused(
        r#"
        ops[0].args = [2, 0] -> 2 buffer arguments for 3
        ops[3].args = [] -> 0 buffer arguments for 1
        ops[3].args = [4, 3] -> 2 buffer arguments for 1
        ops[0].scalars = {} -> ops[0].scalars.n: no value
        ops[3].scalars = {"m": 1} -> ops[3].scalars.m: no such scalar
        "#,
    );
}

#[test]
fn a_dtype_that_does_not_fit_is_refused() {
    refused(
        r#"
        ops[3].args[0] = 3 -> i64
        kernels[0].params[1].buffer = "i32" -> ops[0].args[1]: i32
        ops[1].fill.dtype = "i32" -> i32
        outputs[0].dtype = "i32" -> i32
        "#,
    );
}

#[test]
fn a_view_that_leaves_its_buffer_is_refused() {
    refused(
        r#"
        ops[0].args[0] = {"buffer": 2, "offset": 48, "bytes": 32} -> leave buffer 2
        ops[0].args[0] = {"buffer": 2, "offset": 18446744073709551600, "bytes": 32} -> leave buffer 2
        ops[2].copy.from = {"buffer": 2, "offset": 64, "bytes": 16} -> leave buffer 2
        ops[2].copy.to = {"buffer": 3, "offset": 17, "bytes": 16} -> leave buffer 3
        ops[2].copy.from = {"buffer": 2, "offset": 18446744073709551600, "bytes": 32} -> leave buffer 2
        ops[1].fill.to = {"buffer": 3, "offset": 32, "bytes": 4} -> leave buffer 3
        outputs[0].offset = 4 -> outputs[0]: leave buffer 3
        outputs[0].shape = [9] -> outputs[0]: leave buffer 3
        "#,
    );
}

#[test]
fn a_view_smaller_than_what_the_kernel_touches_is_refused() {
    refused(
        r#"
        ops[0].args[0] = {"buffer": 2, "offset": 16, "bytes": 28} -> 28 bytes
        ops[0].args[1] = {"buffer": 0, "offset": 16, "bytes": 16} -> 16 bytes
        kernels[1].params[0].len = 2 -> ops[3].args[0]: touches 16
        "#,
    );
}

#[test]
fn a_view_that_breaks_its_parameter_s_alignment_is_refused() {
    refused(
        r#"
        ops[0].args[0] = {"buffer": 2, "offset": 8, "bytes": 32} -> multiple of 16
        kernels[0].params[0].align = 32 -> ops[0].args[0]: multiple of 32
        "#,
    );
    let mut files = Files::small();
    files.set("/kernels/0/params/0/align", json!(8));
    files.set("/ops/0/args/0", view(2, 8, 32));
    assert!(
        files.open().is_ok(),
        "an alignment of 8 allows an offset of 8"
    );
}

#[test]
fn views_without_whole_elements_are_refused() {
    refused(
        r#"
        ops[1].fill.to = {"buffer": 3, "offset": 0, "bytes": 6} -> whole elements
        ops[1].fill.to = {"buffer": 3, "offset": 2, "bytes": 8} -> whole elements
        "#,
    );
    let mut files = Files::small();
    files
        .set("/outputs/0/offset", json!(2))
        .set("/outputs/0/shape", json!([2]));
    assert_refused(&files.open().unwrap_err(), "outputs[0].offset", "2 bytes");
}

#[test]
fn arguments_that_overlap_are_refused_unless_both_are_read() {
    refused(
        r#"
        ops[0].args[1] = {"buffer": 2, "offset": 0, "bytes": 32} -> overlap
        ops[0].args[2] = {"buffer": 2, "offset": 32, "bytes": 32} -> overlap
        ops[2].copy.to = {"buffer": 2, "offset": 24, "bytes": 16} -> ops[2].copy: overlap
        "#,
    );
    let mut files = Files::small();
    files.set("/ops/0/args/2", json!(0));
    let mut instance = files.instance();
    instance.set_input("x", View::from_slice(&X)).unwrap();
    instance.run(&[("n", 8)]).unwrap();
    let squares: Vec<_> = X[..4].iter().map(|x| x * x + 8.0).collect();
    assert_eq!(output::<f32>(&instance, "y")[4..], squares);
}

#[test]
fn neighbours_do_not_overlap() {
    let mut files = Files::small();
    files.set(
        "/ops/2/copy",
        json!({"from": view(2, 16, 16), "to": view(2, 32, 16)}),
    );
    assert!(files.open().is_ok());
    // Temp bytes 0 to 32 are read, 32 to 64 written.
    let mut files = Files::small();
    files.set("/ops/0/args", json!([view(2, 32, 32), view(2, 0, 32), 1]));
    assert!(files.open().is_ok());
}

#[test]
fn a_write_to_an_input_or_a_constant_is_refused() {
    refused(
        r#"
        ops[0].args = [0, 3, 1] -> ops[0].args[0]: input
        ops[0].args = [1, 3, 0] -> ops[0].args[0]: constant
        ops[1].fill.to = 0 -> input
        ops[1].fill.to = 1 -> constant
        ops[2].copy.to = {"buffer": 0, "offset": 0, "bytes": 16} -> input
        ops[2].copy.to = {"buffer": 1, "offset": 0, "bytes": 16} -> constant
        buffers[4].role = "constant" -> ops[3].args[0]: constant
        "#,
    );
}

#[test]
fn an_output_that_lies_in_a_temp_or_a_constant_is_refused() {
    refused(
        r#"
        outputs[0].buffer = 2 -> temp
        outputs[0].buffer = 1 -> constant
        "#,
    );
    let mut files = Files::small();
    files.set("/outputs/0/buffer", json!(0));
    assert!(files.open().is_ok(), "an input may be given back");
}

#[test]
fn a_grid_above_the_maximum_is_refused() {
    refused(
        r#"
        ops[0].grid = 9 -> 9
        ops[0].grid = {"add": [{"var": "n"}, 1]} -> 9
        ops[0].grid = {"mul": [{"var": "n"}, -1]} -> -1
        ops[0].grid = 2.5 -> 2.5
        kernels[0].params[4].max = 7 -> ops[0].grid: 8
        "#,
    );
}

#[test]
fn a_grid_above_1_without_an_index_is_refused() {
    refused(
        r#"
        ops[3].grid = 2 -> without a grid index
        ops[3].grid = {"var": "n"} -> without a grid index
        "#,
    );
    for grid in [json!(1), json!(0), json!({"min": [var("n"), 1]})] {
        let mut files = Files::small();
        files.set("/ops/3/grid", grid.clone());
        assert!(files.open().is_ok(), "{grid}");
    }
}

#[test]
fn a_scalar_outside_its_bounds_for_some_value_is_refused() {
    refused(
        r#"
        ops[0].scalars.n = 0 -> outside 1..=8
        ops[0].scalars.n = 9 -> outside 1..=8
        ops[0].scalars.n = 1.5 -> not a value of i32
        ops[0].scalars.n = {"var": "m"} -> no variable `m`
        variables.n.max = 9 -> ops[0].scalars.n: n = 9
        variables.n.min = 0 -> ops[0].scalars.n: n = 0
        "#,
    );
    // n * (9 - n) is 8 at both ends, and more between.
    refused(
        r#"
        ops[0].scalars.n = {"mul": [{"var": "n"}, {"add": [9, {"mul": [-1, {"var": "n"}]}]}]} -> n = 2
        "#,
    );
}

#[test]
fn an_expression_that_fails_for_some_value_is_refused() {
    refused(
        r#"
        ops[0].scalars.n = {"max": [1, {"min": [8, {"floordiv": [8, {"add": [{"var": "n"}, -4]}]}]}]} -> divided by zero
        ops[0].scalars.n = {"add": [1, {"mul": [{"mul": [{"var": "n"}, 9223372036854775807]}, 0]}]} -> overflow
        ops[0].grid = {"mod": [{"var": "n"}, 0]} -> zero
        "#,
    );
}

#[test]
fn what_intervals_cannot_prove_is_tried_value_by_value() {
    // 8 * (n // 8) + n % 8 is n.
    let n = json!({"add": [{"mul": [8, {"floordiv": [var("n"), 8]}]}, {"mod": [var("n"), 8]}]});
    let mut files = Files::small();
    files.set("/ops/0/scalars/n", n.clone());
    assert!(files.open().is_ok());
    // The same of a variable that takes too many values to try.
    files.set("/variables/m", json!({"min": 1, "max": 1_000_000}));
    files.set("/tests/0/variables/m", json!(1));
    let of_m = json!({"min": [8, {"max": [1, {"add": [var("m"), {"mul": [-1, var("m")]}]}]}]});
    files.set("/ops/0/scalars/n", of_m);
    assert!(files.open().is_ok(), "clamped, it needs no trying");
    files.set(
        "/ops/0/scalars/n",
        json!({"add": [1, {"add": [var("m"), {"mul": [-1, var("m")]}]}]}),
    );
    assert_refused(
        &files.open().unwrap_err(),
        "ops[0].scalars.n",
        "too much work",
    );
}

#[test]
fn a_missing_file_is_refused() {
    for (file, place, word) in [
        ("kernels/affine.c", "kernels[0].source", "kernels/affine.c"),
        (
            "weights.safetensors",
            "buffers[1].tensor",
            "weights.safetensors is missing",
        ),
        ("tests/0/x.npy", "tests[0].inputs.x", "tests/0/x.npy"),
        ("tests/0/y.npy", "tests[0].outputs.y", "tests/0/y.npy"),
    ] {
        let files = Files::small();
        files.remove(file);
        assert_refused(&files.open().unwrap_err(), place, word);
    }
    refused(
        r#"
        kernels[0].objects = [{"path": "k.o", "arch": "x", "sha256": ""}] -> kernels[0].objects[0].path: k.o
        tests[0].truth = "truth.npy" -> truth.npy
        "#,
    );
}

#[test]
fn a_missing_plan_or_folder_is_refused() {
    let files = Files::small();
    let error = Bundle::open(files.path()).unwrap_err();
    assert_refused(&error, "plan.json", "cannot be opened");
    let none = files.path().join("none");
    assert_file(&Bundle::open(&none).unwrap_err(), "none", "No such file");
    files.text("file", "");
    assert_file(
        &Bundle::open(files.path().join("file")).unwrap_err(),
        "file",
        "no folder",
    );
    std::fs::create_dir(files.path().join("plan.json")).unwrap();
    assert_refused(
        &Bundle::open(files.path()).unwrap_err(),
        "plan.json",
        "is no file",
    );
}

#[test]
fn a_missing_tensor_is_refused() {
    refused(
        r#"
        buffers[1].tensor = "v" -> no tensor `v`
        buffers[4].tensor = "v" -> no tensor `v`
        "#,
    );
    let mut files = Files::small();
    files.unset("/buffers/1/tensor");
    assert_refused(&files.open().unwrap_err(), "buffers[1]", "tensor");
}

#[test]
fn a_tensor_of_another_size_or_dtype_is_refused() {
    let runs = bytes(&[0_i64]);
    for (dtype, shape, data, word) in [
        ("F32", vec![7], bytes(&W[..7]), "28 bytes"),
        (
            "F32",
            vec![9],
            [bytes(&W), bytes(&W[..1])].concat(),
            "36 bytes",
        ),
        ("I32", vec![8], bytes(&W), "another type"),
        ("F8_E4M3", vec![32], bytes(&W), "another type"),
    ] {
        let files = Files::small();
        files.weights(&[("w", dtype, &shape, &data), ("runs", "I64", &[1], &runs)]);
        assert_refused(&files.open().unwrap_err(), "buffers[1].tensor", word);
    }
}

#[test]
fn a_weights_file_that_contradicts_itself_is_refused() {
    let tensors: &[(&str, &str, &[usize], &[u8])] = &[("w", "F32", &[8], &bytes(&W))];
    let good = safetensors(0, tensors);
    let replaced = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let header = String::from_utf8_lossy(&good[8..good.len() - 32]).into_owned();
        assert!(header.contains(from), "{header}");
        let header = header.replace(from, to);
        [&good[..8], header.as_bytes(), &good[good.len() - 32..]].concat()
    };
    for (file, word) in [
        (good[..good.len() - 1].to_vec(), "leaves the file"),
        (good[..20].to_vec(), "no safetensors file"),
        (good[..4].to_vec(), "too early"),
        (Vec::new(), "too early"),
        ([&[0xff; 8], &good[8..]].concat(), "header"),
        (
            replaced("\"shape\":[8]", "\"shape\":[7]"),
            "no safetensors file",
        ),
        (replaced("[0,32]", "[9,32]"), "no safetensors file"),
        (replaced("[0,32]", "[32,0]"), "no safetensors file"),
        (replaced("\"F32\"", "\"F99\""), "no safetensors file"),
        (replaced("\"w\"", "\"w "), "no safetensors file"),
        ([&good[..], &[0]].concat(), "no safetensors file"),
    ] {
        let files = Files::small();
        files.write("weights.safetensors", &file);
        assert_file(&files.open().unwrap_err(), "weights.safetensors", word);
    }
}

#[test]
fn a_recorded_array_of_another_shape_or_dtype_is_refused() {
    let [inputs, outputs] = ["tests[0].inputs.x", "tests[0].outputs.y"];
    for (file, place) in [("tests/0/x.npy", inputs), ("tests/0/y.npy", outputs)] {
        let files = Files::small();
        files.npy(file, &[2, 4], &[0_i32; 8]);
        assert_refused(&files.open().unwrap_err(), place, "i32");
        for (shape, len) in [(vec![8], 8), (vec![2, 5], 10), (vec![1, 2, 4], 8)] {
            files.npy(file, &shape, &vec![0.0_f32; len]);
            assert_refused(&files.open().unwrap_err(), place, &format!("{shape:?}"));
        }
    }
}

#[test]
fn a_recorded_array_shorter_or_longer_than_its_shape_is_refused() {
    let files = Files::small();
    files.open().unwrap();
    let good = std::fs::read(files.path().join("tests/0/y.npy")).unwrap();
    for bad in [
        &good[..good.len() - 1],
        &[&good[..], &[0]].concat(),
        b"",
        b"PK\x03\x04 zipped",
    ] {
        files.write("tests/0/y.npy", bad);
        assert_file(&files.open().unwrap_err(), "y.npy", "no array file");
    }
}

#[test]
fn a_test_names_what_the_plan_has() {
    refused(
        r#"
        tests[0].inputs.z = "tests/0/x.npy" -> no such input
        tests[0].outputs.z = "tests/0/y.npy" -> no such output
        tests[0].variables.z = 1 -> no such variable
        tests[0].variables.n = 9 -> outside 1..=8
        tests[0].variables = {} -> tests[0].variables.n: no value
        "#,
    );
}

#[test]
fn an_object_with_another_digest_is_refused() {
    let place = "kernels[1].objects[0].sha256";
    for (digest, word) in [
        ("0".repeat(64), "digest"),
        ("0".repeat(63), "64 hexadecimal"),
        ("g".repeat(64), "64 hexadecimal"),
    ] {
        let mut files = Files::small();
        files.write("kernels/count.o", b"\x7fELF and more");
        let object = json!([{"path": "kernels/count.o", "arch": ARCH, "sha256": digest}]);
        files.set("/kernels/1/objects", object);
        assert_refused(&files.open().unwrap_err(), place, word);
    }
}

#[test]
fn an_object_that_changed_since_it_was_checked_is_refused_at_load() {
    let mut files = Files::small();
    add_object(&mut files, COUNT, &[]);
    let bundle = files.open().unwrap();
    files.write("kernels/0.o", b"something else");
    // SAFETY: nothing of it runs: it is refused.
    let error = unsafe { bundle.load(runtime(), &|_| {}) }.unwrap_err();
    assert_file(&error, "0.o", "digest");
}

#[test]
fn a_variable_that_is_missing_or_outside_its_bounds_at_run_time_is_refused() {
    let mut instance = Files::small().instance();
    instance.set_input("x", View::from_slice(&X)).unwrap();
    for (variables, word) in [
        (&[][..], "`n` has no value; it takes 1 to 8"),
        (&[("n", 0)], "`n` is 0; it takes 1 to 8"),
        (&[("n", 9)], "`n` is 9; it takes 1 to 8"),
        (&[("n", i64::MIN)], "it takes 1 to 8"),
        (&[("n", 1), ("m", 1)], "no variable `m`"),
    ] {
        let error = instance.run(variables).unwrap_err();
        assert!(matches!(error, Error::Run { .. }), "{error:?}");
        assert!(error.to_string().contains(word), "{error}");
    }
    assert_eq!(output::<i64>(&instance, "runs"), [0], "nothing has run");
    instance.run(&[("n", 8)]).unwrap();
}

#[test]
fn a_number_too_large_for_what_it_counts_is_refused() {
    // Each of these counts something and is no VALUE, so that JSON says enough.
    for (pointer, place) in [
        ("/version", "version"),
        ("/kernels/0/params/0/len", "kernels[0].params[0]"),
        ("/kernels/0/params/0/align", "kernels[0].params[0]"),
        ("/kernels/0/params/4/max", "kernels[0].params[4]"),
        ("/buffers/0/shape/1", "buffers[0]"),
        ("/buffers/2/bytes", "buffers[2]"),
        ("/ops/0/launch", "ops[0]"),
        ("/ops/0/args/1", "ops[0].args[1]"),
        ("/ops/0/args/0/buffer", "ops[0].args[0]"),
        ("/ops/0/args/0/offset", "ops[0].args[0]"),
        ("/ops/0/args/0/bytes", "ops[0].args[0]"),
        ("/ops/2/copy/to/offset", "ops[2].copy.to"),
        ("/outputs/0/buffer", "outputs[0]"),
        ("/outputs/0/offset", "outputs[0]"),
        ("/outputs/0/shape/0", "outputs[0]"),
        ("/ops/0/grid", "ops[0].grid"),
        ("/ops/0/scalars/n", "ops[0].scalars.n"),
    ] {
        for number in [
            json!("@1180591620717411303424"), // 2^70
            json!(1e30),
            json!("@18446744073709551615"), // 2^64 - 1
            json!("@9223372036854775808"),  // 2^63
            json!(-1),
            json!(i64::MIN),
            json!(1.5),
        ] {
            let mut files = Files::small();
            let error = files.set(pointer, number.clone()).open();
            let error = chain(&error.expect_err(&format!("{pointer} = {number}")));
            assert!(
                error.contains(&format!(": {place}")),
                "{pointer} = {number}: {error}"
            );
        }
    }
    for bound in ["min", "max"] {
        let place = format!("variables.n.{bound}");
        for number in ["@1180591620717411303424", "@9223372036854775808", "@1e30"] {
            refused(&format!("{place} = \"{number}\" -> expected i64"));
        }
    }
}

#[test]
fn sizes_whose_product_or_sum_is_too_large_are_refused() {
    let large = 1_u64 << 62;
    refused(
        r#"
        kernels[0].params[0].len = 4611686018427387904 -> kernels[0].params[0]: too many
        buffers[0].shape = [4294967296, 4294967296] -> buffers[0]: too large
        buffers[0].shape = [4611686018427387904, 2] -> buffers[0]: too large
        outputs[0].shape = [4294967296, 4294967296] -> too large
        kernels[0].params[4].max = 4294967296 -> kernels[0].params[4]: cannot count
        kernels[0].params[3].max = 4294967296 -> kernels[0].params[3]: not a value of i32
        "#,
    );
    let mut files = Files::small();
    files.set("/buffers/5", json!({"role": "temp", "bytes": large}));
    files.set("/buffers/6", json!({"role": "temp", "bytes": large}));
    assert_refused(&files.open().unwrap_err(), "buffers[6]", "too large");
}

#[test]
fn memory_that_the_machine_lacks_is_an_error_that_names_the_buffer() {
    let mut files = Files::small();
    let bytes = 1_u64 << 60;
    files.set(
        "/buffers/5",
        json!({"name": "vast", "role": "temp", "bytes": bytes}),
    );
    let error = files.load().unwrap().instance().unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error:?}");
    assert!(error.to_string().contains("`vast`"), "{error}");
}

#[test]
fn a_path_that_leaves_the_bundle_is_refused() {
    let other = Files::small();
    let absolute = other.path().join("kernels/affine.c");
    let absolute = absolute.to_str().unwrap();
    for path in [
        "../kernels/affine.c",
        "kernels/../../x.c",
        "..",
        "",
        "/dev/null",
        absolute,
    ] {
        let object = json!([{"path": path, "arch": ARCH, "sha256": "0".repeat(64)}]);
        refused(&format!(
            r#"
            kernels[0].source = "{path}" -> leaves the bundle
            kernels[0].objects = {object} -> kernels[0].objects[0].path: leaves the bundle
            tests[0].inputs.x = "{path}" -> leaves the bundle
            tests[0].outputs.y = "{path}" -> leaves the bundle
            tests[0].truth = "{path}" -> leaves the bundle
            "#
        ));
    }
}

#[test]
fn a_link_that_leads_out_of_the_bundle_is_refused() {
    let link = std::os::unix::fs::symlink::<std::path::PathBuf, std::path::PathBuf>;
    let other = Files::small();
    for (file, place) in [
        ("kernels/affine.c", "kernels[0].source"),
        ("tests/0/x.npy", "tests[0].inputs.x"),
        ("weights.safetensors", "weights.safetensors"),
    ] {
        let files = Files::small();
        files.remove(file);
        link(other.path().join(file), files.path().join(file)).unwrap();
        assert_refused(&files.open().unwrap_err(), place, "leaves the bundle");
    }
    let files = Files::small();
    std::fs::rename(files.path().join("kernels"), files.path().join("sources")).unwrap();
    link(other.path().join("kernels"), files.path().join("kernels")).unwrap();
    assert_refused(
        &files.open().unwrap_err(),
        "kernels[0].source",
        "leaves the bundle",
    );
    // One that stays inside is a file like any other.
    std::fs::remove_file(files.path().join("kernels")).unwrap();
    link("sources".into(), files.path().join("kernels")).unwrap();
    assert!(files.open().is_ok());
}

#[test]
fn a_bundle_may_be_reached_through_a_link() {
    let files = Files::small();
    files.open().unwrap();
    let other = tempfile::tempdir().unwrap();
    let through = other.path().join("link.svod");
    std::os::unix::fs::symlink(files.path(), &through).unwrap();
    assert!(Bundle::open(&through).is_ok());
}

#[test]
fn a_kernel_that_keeps_state_is_refused_at_load() {
    for source in [
        "static long long n; void count(long long *runs) { runs[0] = ++n; }",
        "long long n = 7; void count(long long *runs) { runs[0] = n++; }",
    ] {
        let files = Files::small();
        files.text("kernels/count.c", source);
        let error = cause(files.load().unwrap_err());
        assert!(matches!(error, Error::WritableSection { .. }), "{error:?}");
        assert!(error.to_string().contains("`count`"), "{error}");
    }
}

#[test]
fn a_kernel_with_constants_of_its_own_is_accepted() {
    let files = Files::small();
    let source = "static const long long steps[4] = {0, 5, 9, 11};
                  void count(long long *runs) { runs[0] = steps[(runs[0] + 1) & 3]; }";
    files.text("kernels/count.c", source);
    let mut instance = files.instance();
    instance.set_input("x", View::from_slice(&X)).unwrap();
    instance.run(&[("n", 1)]).unwrap();
    assert_eq!(output::<i64>(&instance, "runs"), [5]);
}

#[test]
fn a_kernel_that_uses_an_unknown_symbol_is_refused_at_load() {
    let files = Files::small();
    let source = "long long ticks(void); void count(long long *runs) { runs[0] += ticks(); }";
    files.text("kernels/count.c", source);
    let error = cause(files.load().unwrap_err());
    assert!(matches!(error, Error::UndefinedSymbol { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("`count`") && text.contains("`ticks`"),
        "{text}"
    );
}

#[test]
fn a_kernel_without_its_entry_is_refused_at_load() {
    let files = Files::small();
    files.text(
        "kernels/count.c",
        "void tally(long long *runs) { runs[0] += 1; }",
    );
    let error = cause(files.load().unwrap_err());
    assert!(matches!(error, Error::NoEntry { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("`count`") && text.contains("`tally`"),
        "{text}"
    );
}

#[test]
fn a_kernel_needs_a_source_or_an_object() {
    let mut files = Files::small();
    files.unset("/kernels/0/source");
    assert_refused(&files.open().unwrap_err(), "kernels[0]", "neither");
    let mut files = Files::small();
    files.unset("/kernels/0/language");
    assert_refused(&files.open().unwrap_err(), "kernels[0]", "language");
}

#[test]
fn a_parameter_that_no_kernel_can_have_is_refused() {
    refused(
        r#"
        kernels[0].params[0].align = 24 -> kernels[0].params[0]: power of two
        kernels[0].params[0].align = 8192 -> kernels[0].params[0]: power of two
        kernels[0].params[5] = {"scalar": "i32", "index": true, "max": 8} -> second grid index
        kernels[0].params[4].scalar = "u32" -> kernels[0].params[4]: i32 or i64
        kernels[0].params[3].min = 9 -> kernels[0].params[3]: no value
        kernels[0].params[0].access = "x" -> unknown variant
        kernels[0].params[0].scalar = "f32" -> kernels[0].params[0]: either
        "#,
    );
}

#[test]
fn a_buffer_says_what_it_holds_and_inputs_have_names_of_their_own() {
    refused(
        r#"
        buffers[2] = {"role": "temp"} -> neither
        buffers[2] = {"role": "temp", "dtype": "f32"} -> shape
        buffers[2] = {"role": "input", "bytes": 64} -> name
        buffers[2] = {"name": "x", "role": "input", "bytes": 64} -> second
        outputs[1].name = "y" -> outputs[1]: second output named `y`
        variables.n = {"min": 2, "max": 1} -> no value
        "#,
    );
}

#[test]
fn a_copy_between_ranges_of_other_sizes_is_refused() {
    refused(
        r#"
        ops[2].copy.to = {"buffer": 3, "offset": 16, "bytes": 12} -> ops[2].copy: 16 bytes to 12
        "#,
    );
}

#[test]
fn a_fill_with_a_value_that_its_dtype_lacks_is_refused() {
    refused(
        r#"
        ops[1].fill = {"to": 2, "dtype": "u8", "value": 256} -> ops[1].fill.value: of u8
        ops[1].fill = {"to": 2, "dtype": "u8", "value": -1} -> ops[1].fill.value: of u8
        ops[1].fill = {"to": 2, "dtype": "i8", "value": -129} -> ops[1].fill.value: of i8
        ops[1].fill = {"to": 2, "dtype": "bool", "value": 2} -> ops[1].fill.value: of bool
        ops[1].fill = {"to": 2, "dtype": "bool", "value": {"var": "n"}} -> ops[1].fill.value: n = 2
        ops[1].fill = {"to": 2, "dtype": "i32", "value": 0.5} -> ops[1].fill.value: of i32
        ops[1].fill = {"to": 2, "dtype": "i64", "value": 9223372036854775808} -> ops[1].fill.value: of i64
        ops[1].fill = {"to": 2, "dtype": "u64", "value": "@1180591620717411303424"} -> ops[1].fill.value: of u64
        ops[1].fill = {"to": 2, "dtype": "f16", "value": 70000} -> ops[1].fill.value: of f16
        ops[1].fill = {"to": 2, "dtype": "f32", "value": 1e39} -> ops[1].fill.value: of f32
        "#,
    );
}

#[test]
fn malformed_json_is_refused_with_its_place() {
    refused(
        r#"
        variables = [] -> expected a map
        variables.n = 3 -> expected struct
        kernels[0].params = {} -> expected a sequence
        kernels[0].params[0].len = "8" -> expected u64
        kernels[0].language = "pascal" -> unknown variant
        kernels[0].returns = "int" -> unknown variant
        buffers[0].role = "register" -> unknown variant
        buffers[0].dtype = "f8" -> unknown variant
        ops[0].args[1] = "x" -> a buffer's number
        ops[0].args[1] = {"buffer": 0} -> missing field `offset`
        ops[0].grid = {} -> without a key
        ops[0].grid = {"sub": [1, 2]} -> unknown field `sub`
        ops[0].grid = {"add": [1, 2], "mul": [1, 2]} -> one key
        ops[0].grid = {"add": [1]} -> ops[0].grid.add: array of length 2
        ops[0].grid = {"add": [1, 2, 3]} -> ops[0].grid.add: trailing characters
        ops[0].grid = "n" -> expected a number
        ops[1] = {} -> exactly one of
        ops[3].copy = {"from": 2, "to": 3} -> ops[3]: exactly one of
        ops[1].fill.value = null -> expected a number
        outputs[0] = {"buffer": 3} -> missing field `name`
        tests[0].rtol = "0" -> expected f64
        "#,
    );
}

#[test]
fn a_plan_that_is_no_json_or_ends_early_is_refused() {
    let files = Files::small();
    files.open().unwrap();
    let whole = std::fs::read_to_string(files.path().join("plan.json")).unwrap();
    let doubled = format!("{whole}{whole}");
    let half = &whole[..whole.len() / 2];
    let deep = format!("{}0{}", "{\"add\": [".repeat(500), ", 0]}".repeat(500));
    let deep = whole.replacen("{\"var\":\"n\"}", &deep, 1);
    assert_ne!(whole, deep);
    let (cases, word) = (
        [half, "", "[]", "digits", &doubled, &deep],
        " at line 1 column ",
    );
    for text in cases {
        files.text("plan.json", text);
        let error = cause(Bundle::open(files.path()).unwrap_err());
        assert!(matches!(error, Error::Plan { .. }), "{error:?}");
        assert!(error.to_string().contains(word), "{error}");
    }
    files.write("plan.json", b"{\"format\": \"\xff\"}");
    assert_file(
        &Bundle::open(files.path()).unwrap_err(),
        "plan.json",
        "UTF-8",
    );
}

/// A stream of numbers that is the same at every run (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end as u64).unwrap()
    }

    /// One to four bytes changed, removed or repeated, or the end cut off.
    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            if bytes.is_empty() {
                return;
            }
            let at = self.below(bytes.len());
            match self.below(8) {
                0 => bytes.truncate(at),
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, bytes[at]),
                3 => bytes[at] ^= 1 << self.below(8),
                4 => bytes[at] = u8::try_from(self.below(256)).unwrap(),
                _ => bytes[at] = b"0123456789-.eE[]{},:\"tfn "[self.below(25)],
            }
        }
    }

    /// Another value in one place of a JSON document.
    fn spoil_json(&mut self, value: &mut Value) {
        let evil = [
            json!(0),
            json!(-1),
            json!(u64::MAX),
            json!(i64::MIN),
            json!(1_u64 << 62),
            json!(1e300),
            json!(0.5),
            json!(""),
            json!("n"),
            json!("../x"),
            json!([]),
            json!({}),
            json!({"var": "n"}),
            json!({"mul": [{"var": "n"}, i64::MAX]}),
            json!(true),
            Value::Null,
        ];
        // Half of the time on the way down it stops, so that all depths are met.
        let inner = match value {
            Value::Array(list) if !list.is_empty() => {
                let i = self.below(list.len());
                list.get_mut(i)
            }
            Value::Object(map) if !map.is_empty() => {
                let i = self.below(map.len());
                map.values_mut().nth(i)
            }
            _ => None,
        };
        match inner {
            Some(inner) if self.below(8) > 0 => self.spoil_json(inner),
            _ => *value = evil[self.below(evil.len())].clone(),
        }
    }
}

/// Opens whatever is in the folder; true if it was accepted.
fn opens(files: &Files, what: &str, case: usize) -> bool {
    let result = catch_unwind(AssertUnwindSafe(|| Bundle::open(files.path())));
    match result.unwrap_or_else(|_| panic!("it panicked on {what}, mutation {case}")) {
        Ok(_) => true,
        Err(error) => {
            assert!(matches!(error, Error::Bundle { .. }), "{error:?}");
            assert!(!chain(&error).is_empty());
            false
        }
    }
}

#[test]
fn a_spoiled_bundle_is_refused_or_accepted_and_never_panics() {
    let files = Files::small();
    files.open().unwrap();
    let mut random = Random(20_260);
    for (file, mutations) in [
        ("plan.json", 1000),
        ("weights.safetensors", 500),
        ("tests/0/x.npy", 500),
    ] {
        let good = std::fs::read(files.path().join(file)).unwrap();
        let mut refused = 0;
        for case in 0..mutations {
            let mut bad = good.clone();
            random.spoil(&mut bad);
            files.write(file, &bad);
            refused += usize::from(!opens(&files, file, case));
        }
        assert!(
            refused > mutations / 4,
            "{file}: {refused} of {mutations} refused"
        );
        files.write(file, &good);
    }
    let good = files.plan.clone();
    let mut refused = 0;
    for case in 0..1500 {
        let mut bad = good.clone();
        random.spoil_json(&mut bad);
        files.text("plan.json", &bad.to_string());
        refused += usize::from(!opens(&files, "a value of plan.json", case));
    }
    assert!(refused > 500, "{refused} of 1500 refused");
}

// ---------------------------------------------------------------------------
// What is accepted, and what it does
// ---------------------------------------------------------------------------

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
                status,
                index,
            } => {
                assert_eq!(
                    (kernel.as_str(), i64::from(status), index),
                    ("check", code, 0)
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
    let mut instance = files.instance();
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

/// Adds to the kernel `count` an object that was compiled from another source.
fn add_object(files: &mut Files, source: &str, features: &[&str]) {
    let objects = files.plan["kernels"][1]["objects"]
        .as_array()
        .map_or(0, Vec::len);
    if objects == 0 {
        files.set("/kernels/1/objects", json!([]));
    }
    let object = runtime().compile(&Source::c("count", source)).unwrap();
    let path = format!("kernels/{objects}.o");
    files.write(&path, object.bytes());
    let digest = Sha256::digest(object.bytes());
    let digest: String = digest.iter().map(|b| format!("{b:02X}")).collect();
    let object = json!({"path": path, "arch": ARCH, "features": features, "sha256": digest});
    files.set(&format!("/kernels/1/objects/{objects}"), object);
}

fn adding(n: i64) -> String {
    format!("void count(long long *runs) {{ runs[0] += {n}; }}")
}

#[track_caller]
fn assert_counts_by(files: &Files, step: i64) {
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
fn a_language_that_is_not_supported_yet_is_refused_at_load() {
    for language in ["llvm-ir", "mlir"] {
        let mut files = Files::small();
        files.set("/kernels/1/language", json!(language));
        assert!(files.open().is_ok(), "it can be looked at");
        match cause(files.load().unwrap_err()) {
            Error::Language {
                kernel,
                language: named,
            } => {
                assert_eq!((kernel.as_str(), named.as_str()), ("count", language));
            }
            other => panic!("{other:?}"),
        }
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

// ---------------------------------------------------------------------------
// Classifiers
// ---------------------------------------------------------------------------

/// Scores are the pictures themselves: 2 pictures of 1 by 3, and 3 classes.
fn classifier() -> Files {
    let files = Files::new(json!({
        "classifier": {"images": "pictures", "scores": "scores"},
        "buffers": [
            {"name": "pictures", "role": "input", "dtype": "f32", "shape": [2, 1, 3]},
            {"role": "output", "dtype": "f32", "shape": [2, 3]},
        ],
        "ops": [{"copy": {"from": 0, "to": 1}}],
        "outputs": [{"name": "scores", "buffer": 1, "offset": 0, "dtype": "f32", "shape": [2, 3]}],
        "tests": [{"inputs": {"pictures": "pictures.npy"}, "outputs": {}, "truth": "truth.npy"}],
    }));
    files.npy(
        "pictures.npy",
        &[2, 1, 3],
        &[0.1_f32, 0.7, 0.2, 0.4, 0.3, 0.3],
    );
    files.npy("truth.npy", &[2], &[1_i32, 2]);
    files.text("labels.txt", "cat\ndog\nowl\n");
    files
}

#[test]
fn a_classifier_s_answers_are_held_against_the_truth() {
    let files = classifier();
    let bundle = files.open().unwrap();
    assert_eq!(bundle.labels(), ["cat", "dog", "owl"]);
    assert_eq!(bundle.classifier().unwrap().images, "pictures");
    let mut instance = files.instance();
    let report = bundle.run_test(&bundle.tests()[0], &mut instance).unwrap();
    let classified = report.classified.unwrap();
    assert_eq!(
        (&classified.answers[..], &classified.truth[..]),
        (&[1, 0][..], &[1, 2][..])
    );
    assert_eq!(classified.correct(), 1);
}

#[test]
fn a_classifier_that_does_not_fit_its_plan_is_refused() {
    for (pointer, value, place, word) in [
        (
            "/classifier/images",
            json!("x"),
            "classifier.images",
            "no such input",
        ),
        (
            "/classifier/scores",
            json!("x"),
            "classifier.scores",
            "no such output",
        ),
        ("/outputs/0/shape", json!([3, 2]), "classifier", "shape"),
        ("/outputs/0/shape", json!([6]), "classifier", "shape"),
    ] {
        let mut files = classifier();
        files.set(pointer, value);
        assert_refused(&files.open().unwrap_err(), place, word);
    }
}

#[test]
fn a_truth_for_another_number_of_pictures_is_an_error() {
    let files = classifier();
    files.npy("truth.npy", &[3], &[1_i32, 2, 0]);
    let bundle = files.open().unwrap();
    let error = bundle
        .run_test(&bundle.tests()[0], &mut files.instance())
        .unwrap_err();
    assert_file(&error, "truth.npy", "3 classes for 2 pictures");
}

#[test]
fn the_digits_are_told_apart() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits");
    let bundle = Bundle::open(path).unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(bundle.labels().len(), 10);
    // SAFETY: the repository's own bundle, whose kernels keep the signatures
    // that its plan states; nobody writes its files.
    let executable = unsafe { bundle.load(runtime(), &|_| {}) }.unwrap();
    let mut instance = executable.instance().unwrap();
    let (mut correct, mut pictures) = (0, 0);
    for test in bundle.tests() {
        let report = bundle.run_test(test, &mut instance).unwrap();
        assert!(report.is_within(), "{report:?}");
        let classified = report.classified.unwrap();
        correct += classified.correct();
        pictures += classified.truth.len();
    }
    assert_eq!(pictures, 360);
    assert!(
        correct * 100 >= pictures * 97,
        "{correct} of {pictures} are right"
    );
}

#[test]
fn the_example_of_the_documentation_loads_and_runs() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/bundle-format.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, example) = text.split_once("## A complete example").unwrap();
    let block = |language: &str| {
        let (_, rest) = example.split_once(&format!("```{language}\n")).unwrap();
        rest.split_once("```").unwrap().0
    };
    let files = Files::new(serde_json::from_str(block("json")).unwrap());
    files.text("kernels/scale.c", block("c"));
    let mut instance = files.instance();
    instance
        .set_input("x", View::from_slice(&[1.0_f32, 2.0, 3.0, 4.0]))
        .unwrap();
    instance.run(&[("n", 3)]).unwrap();
    assert_eq!(output::<f32>(&instance, "y"), [2.5, 5.0, 7.5, 0.0]);
    instance.run(&[("n", 4)]).unwrap();
    assert_eq!(output::<f32>(&instance, "y"), [2.5, 5.0, 7.5, 10.0]);
    assert_eq!(output::<i64>(&instance, "total"), [7]);
}
