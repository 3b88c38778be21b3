//! What a bundle that classifies pictures adds.

use super::*;

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
    assert_refused(&files.open().unwrap_err(), "tests[0].truth", "each picture");
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
