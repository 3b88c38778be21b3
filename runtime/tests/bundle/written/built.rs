//! A plan that was built in code.

use super::*;

#[test]
fn a_plan_that_was_built_in_code_is_read_back_as_it_was() {
    let made = made();
    let (_dir, bundle) = written(made.writer().producer("the tests"));
    assert_same_plan(bundle.plan(), &made.plan);
    assert_eq!(bundle.producer(), "the tests");
    assert!(bundle.tests().is_empty() && bundle.labels().is_empty());
}

#[test]
fn it_runs_as_the_plan_does() {
    let made = made();
    let (_dir, bundle) = written(&made.writer());
    let (mut a, mut b) = (made.instance(), instance(&bundle));
    for (n, m) in [(1, -7), (4, 8), (3, i64::MAX)] {
        for instance in [&mut a, &mut b] {
            let x = [n as f32, 2.0, -3.0, 0.25];
            instance.set_input("x", View::from_slice(&x)).unwrap();
            instance.run(&[("n", n), ("a variable", m)]).unwrap();
        }
        for output in made.plan.outputs() {
            let [a, b] = [&a, &b].map(|i| i.output(&output.name).unwrap().as_bytes().to_vec());
            assert_eq!(a, b, "{}", output.name);
        }
    }
    // It has counted 2n + 1 in each run, from 40 on.
    assert_eq!(output::<i64>(&b, "runs"), [40 + 3 + 9 + 7]);
}

#[test]
fn numbers_are_read_back_in_every_bit() {
    let mut plan = PlanBuilder::new("numbers");
    let floats = plan.bytes(None, Role::Output, 8).unwrap();
    let floats = plan.whole(floats).unwrap();
    let mut bits = 0x0123_4567_89ab_cdef_u64;
    let special = [-0.0, 5e-324, f64::MAX, f64::MIN_POSITIVE, 1e23, 0.1, 2.0];
    let random = std::iter::repeat_with(|| {
        bits = bits.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        f64::from_bits(bits)
    });
    let floating = special.into_iter().chain(random.take(5000));
    for value in floating.filter(|v| v.is_finite()) {
        plan.fill(floats, DType::F64, value).unwrap();
    }
    for value in [i64::MIN, i64::MAX, -1, 0] {
        plan.fill(floats, DType::I64, value).unwrap();
        plan.fill(floats, DType::F64, value).unwrap();
    }
    let largest = Expr::Number(LARGEST);
    plan.fill(floats, DType::U64, largest).unwrap();
    let plan = plan.build().unwrap();
    let (_dir, bundle) = written(&BundleWriter::new(&plan));
    assert_same_plan(bundle.plan(), &plan);
}

#[test]
fn what_is_infinite_is_no_bound() {
    let signature = Signature::builder()
        .scalar(DType::F32, "any", Bounds::Any)
        .scalar(
            DType::F64,
            "all",
            Bounds::floats(f64::NEG_INFINITY, f64::INFINITY),
        )
        .scalar(DType::F16, "above", Bounds::floats(0.1, f64::INFINITY))
        .build()
        .unwrap();
    let mut plan = PlanBuilder::new("bounds");
    plan.kernel("f", signature.clone());
    let plan = plan.build().unwrap();
    let mut writer = BundleWriter::new(&plan);
    writer.source(0, Source::c("f", "void f(){}")).unwrap();
    let (_dir, bundle) = written(&writer);
    let read: Vec<_> = bundle.plan().kernels()[0].signature.scalars().collect();
    let built: Vec<_> = signature.scalars().collect();
    assert_eq!(read[0].bounds, Bounds::Unstated);
    assert_eq!(read[1].bounds, Bounds::Unstated);
    assert_eq!(read[2], built[2]);
}

#[test]
fn recorded_runs_are_written_with_it() {
    let made = made();
    let mut instance = made.instance();
    let mut writer = made.writer();
    let files = tempfile::tempdir().unwrap();
    for n in [2, 3] {
        let x = [n as f32, 2.0, -3.0, 0.25];
        instance.set_input("x", View::from_slice(&x)).unwrap();
        let variables = [("n", n), ("a variable", 6)];
        instance.run(&variables).unwrap();
        let elements = Buffer::from_slice(&output::<f32>(&instance, "y")).unwrap();
        let file = files.path().join(format!("{n}.npy"));
        npy::write(&file, &[2, 2], View::from_slice(&x)).unwrap();
        writer.test(Recording {
            variables: variables.map(|(n, v)| (n.to_owned(), v)).to_vec(),
            inputs: vec![("x".into(), file.into())],
            outputs: vec![(
                "y".into(),
                Recorded::Array(Array {
                    shape: vec![2, 4],
                    elements,
                }),
            )],
            tolerance: Tolerance {
                rtol: 0.1,
                atol: 1e-300,
            },
            truth: None,
        });
    }
    let (_dir, bundle) = written(&writer);
    let mut instance = self::instance(&bundle);
    assert_eq!(bundle.tests().len(), 2);
    for test in bundle.tests() {
        assert_eq!((test.tolerance.rtol, test.tolerance.atol), (0.1, 1e-300));
        let report = bundle.run_test(test, &mut instance).unwrap();
        assert!(report.is_exact(), "{report:?}");
    }

    // What was read can be recorded again.
    let mut again = made.writer();
    bundle.tests().iter().for_each(|test| _ = again.test(test));
    let (_dir, copy) = written(&again);
    assert_eq!(copy.tests().len(), 2);
}

#[test]
fn a_classifier_keeps_its_labels_and_its_truth() {
    let mut plan = PlanBuilder::new("classifier");
    plan.buffer(Some("images"), Role::Input, DType::U8, &[2, 1, 1])
        .unwrap();
    let scores = plan
        .buffer(None, Role::Output, DType::F32, &[2, 3])
        .unwrap();
    plan.result("scores", scores, 0, DType::F32, &[2, 3])
        .unwrap();
    let plan = plan.build().unwrap();
    let classifier = Classifier {
        images: "images".into(),
        scores: "scores".into(),
    };
    let truth = Array {
        shape: vec![2],
        elements: Buffer::from_slice(&[0_i64, 2]).unwrap(),
    };
    let mut writer = BundleWriter::new(&plan);
    writer
        .classifier(classifier.clone())
        .labels(["zero", "", " two "])
        .test(Recording {
            truth: Some(truth.into()),
            ..Recording::default()
        });
    let (_dir, bundle) = written(&writer);
    assert_eq!(bundle.classifier(), Some(&classifier));
    assert_eq!(bundle.labels(), ["zero", "", " two "]);
    let truth = npy::read(bundle.tests()[0].truth.as_ref().unwrap()).unwrap();
    assert_eq!(truth.elements.as_slice::<i64>().unwrap(), [0, 2]);
}

#[test]
fn kernels_share_a_file_where_their_text_is_the_same() {
    let mut plan = PlanBuilder::new("files");
    let entries = ["f", "f", "f", "../../f", "a b", "", &"long".repeat(100)];
    for entry in entries {
        plan.kernel(entry, Signature::builder().build().unwrap());
    }
    let plan = plan.build().unwrap();
    let mut writer = BundleWriter::new(&plan);
    // The first and the last of those called `f` are the same.
    let texts = ["a", "b", "a", "c", "d", "e", "f"].map(|text| format!("/* {text} */"));
    for (i, entry) in entries.iter().enumerate() {
        writer.source(i, Source::c(*entry, &texts[i])).unwrap();
    }
    let (_dir, bundle) = written(&writer);
    let file = |i| bundle.source_file(i).unwrap();
    assert_eq!(file(0), file(2));
    let kernels = bundle.path().join("kernels");
    let long = format!("{}.c", "long".repeat(25));
    assert_eq!(
        names(&kernels),
        ["_._.._f.c", "_.c", "a_b.c", "f.c", "f_2.c", &long]
            .map(str::to_owned)
            .as_slice()
    );
    for (i, text) in texts.iter().enumerate() {
        assert_eq!(file(i).parent(), Some(&*kernels));
        assert_eq!(std::fs::read_to_string(file(i)).unwrap(), *text);
    }
}

#[test]
fn an_object_is_code_enough() {
    let mut plan = PlanBuilder::new("object");
    let count = Signature::builder()
        .read_write(DType::I64, 1)
        .build()
        .unwrap();
    let count = plan.kernel("count", count);
    let runs = plan.buffer(None, Role::State, DType::I64, &[1]).unwrap();
    plan.launch(count, &[plan.whole(runs).unwrap()], &[], 1)
        .unwrap();
    plan.result("runs", runs, 0, DType::I64, &[1]).unwrap();
    let plan = plan.build().unwrap();
    let object = runtime().compile(&Source::c("count", COUNT)).unwrap();
    let mut writer = BundleWriter::new(&plan);
    writer
        .object(count, object.clone(), "pdp11", &["eis"])
        .unwrap();
    writer.object(count, object, ARCH, &[]).unwrap();
    let (dir, bundle) = written(&writer);
    assert_eq!(bundle.source_file(count), None);
    let mut instance = self::instance(&bundle);
    instance.run(&[]).unwrap();
    assert_eq!(output::<i64>(&instance, "runs"), [1]);

    let copy = dir.path().join("copy");
    bundle.write(&copy).unwrap();
    assert_eq!(all_files(&copy), all_files(bundle.path()));
}

#[test]
fn tensors_lie_where_kernels_can_read_them_in_place() {
    let of: [(Option<&str>, DType, &[usize], usize); 7] = [
        (Some("odd"), DType::U8, &[3], 3),
        (Some("w"), DType::F32, &[4, 8], 32),
        (Some("w"), DType::F64, &[3], 3),
        (None, DType::BF16, &[2, 32], 64),
        (Some("__metadata__"), DType::Bool, &[64], 64),
        (Some("empty"), DType::F32, &[1 << 40, 0, 1 << 40], 0),
        (Some("é/\"w\""), DType::I16, &[], 1),
    ];
    let mut plan = PlanBuilder::new("constants");
    for (name, dtype, shape, _) in of {
        plan.buffer(name, Role::Constant, dtype, shape).unwrap();
    }
    let bytes = plan.bytes(None, Role::Constant, 5).unwrap();
    let plan = plan.build().unwrap();
    let mut writer = BundleWriter::new(&plan);
    for (i, (_, dtype, _, len)) in of.into_iter().enumerate() {
        let zeros = Buffer::zeroed(dtype, len).unwrap();
        writer.contents(i, zeros).unwrap();
    }
    let five = Buffer::from_slice(&[1_u8, 2, 3, 4, 5]).unwrap();
    writer.contents(bytes, five).unwrap();
    let (_dir, bundle) = written(&writer);
    let file = std::fs::read(bundle.path().join("weights.safetensors")).unwrap();
    let (header, _) = SafeTensors::read_metadata(&file).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let mut names = tensors.names();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "__metadata___2",
            "buffer_3",
            "buffer_7",
            "empty",
            "odd",
            "w",
            "w_2",
            "é/\"w\""
        ]
    );
    assert_eq!((8 + header) % 64, 0);
    for (name, tensor) in tensors.tensors() {
        let at = tensor.data().as_ptr().addr() - file.as_ptr().addr();
        let size = tensor.data().len();
        let aligned = 1 << size.trailing_zeros().min(6);
        assert_eq!(at % aligned, 0, "{name} of {size} bytes at {at}");
    }
    assert_eq!(tensors.tensor("w").unwrap().shape(), [4, 8]);
    assert_eq!(tensors.tensor("buffer_7").unwrap().data(), [1, 2, 3, 4, 5]);
    instance(&bundle);
}

#[test]
fn buffers_that_hold_the_same_constant_share_a_tensor() {
    let made = made();
    let (dir, bundle) = written(&made.writer());
    let copy = dir.path().join("copy");
    bundle.write(&copy).unwrap();
    for path in [bundle.path(), &copy] {
        let file = std::fs::read(path.join("weights.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&file).unwrap();
        let mut names = tensors.names();
        names.sort_unstable();
        assert_eq!(names, ["counter", "w"]);
    }
}
