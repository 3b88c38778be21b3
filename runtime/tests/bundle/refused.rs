//! What is refused.

use super::*;

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
        let of_its_kind = matches!(error, Error::Run { .. } | Error::UnknownName { .. });
        assert!(of_its_kind, "{error:?}");
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
    let vast = |role: &str| {
        let mut files = Files::small();
        let bytes = 1_u64 << 60;
        files.set(
            "/buffers/5",
            json!({"name": "vast", "role": role, "bytes": bytes}),
        );
        files.load().unwrap().instance()
    };
    let error = vast("state").unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error:?}");
    assert!(error.to_string().contains("`vast`"), "{error}");
    // A temp that no op uses takes nothing.
    vast("temp").unwrap();
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
    // So is one that leads out and in again.
    std::fs::remove_file(files.path().join("kernels")).unwrap();
    link(files.path().join("sources"), files.path().join("kernels")).unwrap();
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
        ops[2].copy.to = {"buffer": 3, "offset": 16, "bytes": 12} -> ops[2].copy: 16 bytes, `to` 12
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
        variables = [] -> expected an object
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

#[test]
fn a_name_that_stands_twice_is_refused() {
    let files = Files::small();
    let text = files.plan.to_string();
    // The plan's own variables come last.
    let (before, after) = text.rsplit_once(r#""variables":{"#).unwrap();
    let twice = format!(r#"{before}"variables":{{"n":{{"max":4,"min":1}},{after}"#);
    files.write("plan.json", twice.as_bytes());
    let error = Bundle::open(files.path()).unwrap_err();
    assert_refused(&error, "variables", "twice");
}
