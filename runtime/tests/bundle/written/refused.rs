//! What is not written.

use super::*;

#[test]
fn only_an_empty_place_is_written_to() {
    let plan = PlanBuilder::new("empty").build().unwrap();
    let writer = BundleWriter::new(&plan);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.svod");
    std::fs::create_dir(&path).unwrap();
    writer.write(&path).unwrap();
    let error = chain(&writer.write(&path).unwrap_err());
    assert!(error.contains("cannot write the bundle"), "{error}");
    assert!(
        error.contains("a.svod: the folder exists and is not empty"),
        "{error}"
    );
    std::fs::write(dir.path().join("file"), "mine").unwrap();
    let error = chain(&writer.write(dir.path().join("file")).unwrap_err());
    assert!(error.contains("no empty folder"), "{error}");
    for (path, word) in [
        ("none/a.svod", "create a folder in"),
        ("a.svod/..", "new folder"),
    ] {
        let error = chain(&writer.write(dir.path().join(path)).unwrap_err());
        assert!(error.contains(word), "{error}");
    }
    assert_eq!(names(dir.path()), ["a.svod", "file"]);
    assert_eq!(names(&path), ["plan.json"]);
}

#[test]
fn what_is_missing_is_named() {
    let made = made();
    let mut writer = BundleWriter::new(&made.plan);
    assert_not_written(
        &writer,
        "kernels[0]",
        "`mix` has neither a source nor an object",
    );
    for (kernel, source) in Made::sources().into_iter().enumerate() {
        writer.source(kernel, source).unwrap();
    }
    assert_not_written(&writer, "buffers[1]", "the constant `w` has no contents");
    writer.contents(Made::W, made.weights.clone()).unwrap();
    assert_not_written(&writer, "buffers[2]", "the constant #2 has no contents");
    writer.contents(Made::BIAS, made.weights.clone()).unwrap();
    // A state begins as zeros.
    let (_dir, bundle) = written(&writer);
    let mut instance = instance(&bundle);
    instance
        .set_input("x", View::from_slice(&[0.0_f32; 4]))
        .unwrap();
    instance.run(&[("n", 1), ("a variable", 0)]).unwrap();
    assert_eq!(output::<i64>(&instance, "runs"), [3]);
}

#[test]
fn what_does_not_fit_the_plan_is_not_taken() {
    let made = made();
    let mut writer = made.writer();
    let source = |entry: &str| Source::c(entry, "");
    let object = runtime().compile(&Source::c("count", COUNT)).unwrap();
    assert_refused(
        &writer.source(2, source("mix")).unwrap_err(),
        "kernels[2]",
        "no such",
    );
    assert_refused(
        &writer.source(1, source("mix")).unwrap_err(),
        "kernels[1]",
        "`step`",
    );
    let error = writer.object(1, object, ARCH, &[]).unwrap_err();
    assert_refused(&error, "kernels[1]", "code for `count`");
    let including = source("mix").include_dir("/usr/include");
    let error = writer.source(0, including).unwrap_err();
    assert_refused(&error, "kernels[0].source", "/usr/include");
    for (buffer, word) in [
        (0, "role is input"),
        (3, "role is temp"),
        (7, "no such buffer"),
    ] {
        let error = writer.contents(buffer, made.weights.clone()).unwrap_err();
        assert_refused(&error, &format!("buffers[{buffer}]"), word);
    }
    let error = writer.contents(Made::W, made.counter.clone());
    assert_refused(&error.unwrap_err(), "buffers[1]", "contents of 8 bytes");
}

#[test]
fn what_json_cannot_say_is_refused() {
    for value in [f64::NAN, f64::INFINITY] {
        let mut plan = PlanBuilder::new("nan");
        let y = plan.buffer(None, Role::Output, DType::F32, &[1]).unwrap();
        plan.fill(plan.whole(y).unwrap(), DType::F32, value)
            .unwrap();
        let plan = plan.build().unwrap();
        assert_not_written(
            &BundleWriter::new(&plan),
            "ops[0].fill.value",
            "JSON has no such",
        );
    }
    let made = made();
    let mut writer = made.writer();
    writer.test(Recording {
        tolerance: Tolerance {
            rtol: 0.0,
            atol: f64::INFINITY,
        },
        ..Recording::default()
    });
    assert_not_written(&writer, "tests[0].atol", "inf");
    let mut plan = PlanBuilder::new("deep");
    let y = plan.buffer(None, Role::Output, DType::I64, &[1]).unwrap();
    let n = Expr::from(plan.variable("n", 0, 1).unwrap());
    let deep = (0..100).fold(n, |v, _| Expr::op(Operator::Add, v, 1));
    plan.fill(plan.whole(y).unwrap(), DType::I64, deep).unwrap();
    let plan = plan.build().unwrap();
    let error = BundleWriter::new(&plan).write("never").unwrap_err();
    assert!(
        chain(&error).contains("recursion limit"),
        "{}",
        chain(&error)
    );
}

#[test]
fn what_a_reader_would_refuse_is_not_written() {
    let made = made();
    let array = |shape: &[usize]| Array {
        shape: shape.to_vec(),
        elements: Buffer::zeroed(DType::F32, 4).unwrap(),
    };
    let variables = vec![("n".to_owned(), 1), ("a variable".to_owned(), 0)];
    let mut writer = made.writer();
    writer.test(Recording {
        variables: variables.clone(),
        inputs: vec![("x".into(), array(&[4]).into())],
        ..Recording::default()
    });
    assert_not_written(&writer, "tests[0].inputs.x", "of shape [4]");

    let mut writer = made.writer();
    writer.test(Recording {
        variables: variables[..1].to_vec(),
        ..Recording::default()
    });
    assert_not_written(&writer, "tests[0].variables.a variable", "no value");

    let mut writer = made.writer();
    writer.labels(["one", "two\nthree"]);
    assert_not_written(&writer, "labels.txt", "more than one line");

    let mut writer = made.writer();
    writer.test(Recording {
        variables,
        inputs: vec![("x".into(), PathBuf::from("/nowhere.npy").into())],
        ..Recording::default()
    });
    let error = writer.write("never").unwrap_err();
    assert!(
        chain(&error).contains("read /nowhere.npy"),
        "{}",
        chain(&error)
    );
    assert!(!PathBuf::from("never").exists());
}

#[test]
fn a_plan_that_calls_back_is_refused_and_says_where() {
    let mut plan = PlanBuilder::new("calls");
    let y = plan.output("y", DType::F32, &[1]).unwrap();
    for name in ["sample", "log"] {
        plan.fill(y, DType::F32, 0).unwrap();
        plan.host(name, &[y.read_write()], |_| Ok(())).unwrap();
    }
    let plan = plan.build().unwrap();
    assert_not_written(
        &BundleWriter::new(&plan),
        "ops",
        "functions of the embedder's: `sample` (ops[1]), `log` (ops[3])",
    );
}
