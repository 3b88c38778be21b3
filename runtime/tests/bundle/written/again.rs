//! A bundle that was read.

use super::*;

#[test]
fn a_bundle_that_was_read_is_written_as_it_was() {
    let digits = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits"));
    let bundle = Bundle::open(&digits).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("digits.svod");
    bundle.write(&path).unwrap();
    let copy = Bundle::open(&path).unwrap();

    assert_same_plan(bundle.plan(), copy.plan());
    assert_eq!(bundle.producer(), copy.producer());
    assert_eq!(bundle.labels(), copy.labels());
    assert_eq!(bundle.classifier(), copy.classifier());
    assert_eq!(bundle.tests().len(), copy.tests().len());
    let (mut old, mut new) = (all_files(&digits), all_files(&path));
    for rewritten in ["plan.json", "weights.safetensors"] {
        assert!(old.remove(rewritten).is_some() && new.remove(rewritten).is_some());
    }
    assert_eq!(old, new);

    let (mut a, mut b) = (instance(&bundle), instance(&copy));
    for (old, new) in bundle.tests().iter().zip(copy.tests()) {
        let [a, b] = [
            bundle.run_test(old, &mut a).unwrap(),
            copy.run_test(new, &mut b).unwrap(),
        ];
        assert!(a.is_within());
        assert_eq!(a.classified, b.classified);
        let difference = |o: &svod_runtime::bundle::OutputReport| (o.name.clone(), o.difference);
        let differences = [&a, &b].map(|r| r.outputs.iter().map(difference).collect::<Vec<_>>());
        assert_eq!(differences[0], differences[1]);
    }
    for output in bundle.plan().outputs() {
        let [a, b] = [&a, &b].map(|i| i.output(&output.name).unwrap().as_bytes());
        assert_eq!(a, b);
    }

    // Once written by us, it stays the same in every byte.
    let again = dir.path().join("again.svod");
    copy.write(&again).unwrap();
    assert_eq!(all_files(&path), all_files(&again));
}

#[test]
fn what_sources_include_comes_along() {
    let mut files = Files::small();
    files.text(
        "kernels/affine.h",
        "#include \"../include/deeper/type.h\"\n",
    );
    files.text("include/deeper/type.h", "typedef float element;\n");
    let source = format!("#include \"affine.h\"\n{}", support::AFFINE);
    files.text("kernels/affine.c", &source.replace("float *", "element *"));
    files.text("labels.txt", "one\r\ntwo");
    files.set("/x-note", json!("lost"));
    let bundle = files.open().unwrap();
    // Also where that is a folder of its own.
    let path = files.path().join("copy");
    bundle.write(&path).unwrap();
    let copy = Bundle::open(&path).unwrap();
    let mut instance = instance(&copy);
    for test in copy.tests() {
        assert!(copy.run_test(test, &mut instance).unwrap().is_exact());
    }
    assert_eq!(
        std::fs::read(path.join("labels.txt")).unwrap(),
        b"one\r\ntwo"
    );
    assert!(
        !std::fs::read_to_string(path.join("plan.json"))
            .unwrap()
            .contains("x-note")
    );
}

#[test]
fn tensors_that_no_buffer_names_are_kept_as_they_are() {
    let files = Files::small();
    files.weights_from(
        9,
        &[
            ("note", "F8_E4M3", &[3], &[1, 2, 3]),
            ("w", "F32", &[2, 4], &bytes(&W)),
            ("runs", "I64", &[1], &bytes(&[0_i64])),
        ],
    );
    let bundle = files.open().unwrap();
    let path = files.path().join("copy");
    bundle.write(&path).unwrap();
    let file = std::fs::read(path.join("weights.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let note = tensors.tensor("note").unwrap();
    assert_eq!(
        (note.dtype(), note.data()),
        (safetensors::Dtype::F8_E4M3, &[1, 2, 3][..])
    );
    let w = tensors.tensor("w").unwrap();
    assert_eq!((w.shape(), w.data()), (&[2, 4][..], &bytes(&W)[..]));
    assert!(
        w.data()
            .as_ptr()
            .addr()
            .wrapping_sub(file.as_ptr().addr())
            .is_multiple_of(32)
    );
}

#[test]
fn a_link_is_followed_within_the_bundle_and_no_further() {
    let files = Files::small();
    std::os::unix::fs::symlink("affine.c", files.path().join("kernels/link.c")).unwrap();
    let bundle = files.open().unwrap();
    let dir = tempfile::tempdir().unwrap();
    bundle.write(dir.path().join("copy")).unwrap();
    let link = dir.path().join("copy/kernels/link.c");
    assert!(link.symlink_metadata().unwrap().is_file());

    for (name, target, word) in [
        ("outside.h", "/proc/self/status", "leaves the bundle"),
        ("folder", "../tests", "neither a file nor a folder"),
        ("nothing", "nowhere", "cannot find the file"),
    ] {
        let link = files.path().join("kernels").join(name);
        std::os::unix::fs::symlink(target, &link).unwrap();
        let error = bundle.write(dir.path().join("other")).unwrap_err();
        let text = chain(&error);
        assert!(text.contains(name) && text.contains(word), "{text}");
        std::fs::remove_file(link).unwrap();
    }
    assert_eq!(names(dir.path()), ["copy"]);
}
