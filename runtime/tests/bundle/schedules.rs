//! Schedules that a bundle carries, in `schedules.json`.

use std::fs;

use svod_runtime::bench::Replay;
use svod_runtime::bundle::{BundleWriter, read_schedules};
use svod_runtime::plan::{Executable, LearnedSchedule, Schedule};
use svod_runtime::{Buffer, Runtime, RuntimeBuilder};

use super::*;

const FILE: &str = "schedules.json";

fn with_threads(threads: usize, guard: Guard) -> Runtime {
    let builder = RuntimeBuilder::from_env().threads(threads).guard(guard);
    builder.build().unwrap()
}

fn load(bundle: &Bundle, runtime: &Runtime) -> Executable {
    // SAFETY: as for `Files::load`.
    unsafe { bundle.load(runtime, &|_| {}) }.unwrap()
}

/// What is learned of the small bundle, with a schedule that is not the plan's order.
fn learned(files: &Files, threads: usize) -> LearnedSchedule {
    let bundle = files.open().unwrap();
    let executable = load(&bundle, &with_threads(2, Guard::Off));
    let executable = executable.with_scheduling(svod_runtime::plan::Scheduling::Learned);
    let mut replay = Replay::new(&executable).unwrap();
    assert!(replay.learn(1000).unwrap());
    LearnedSchedule {
        threads,
        schedule: Schedule::waves(bundle.plan(), 3),
        ..executable.learned().unwrap()
    }
}

fn set(files: &Files, list: &[LearnedSchedule]) {
    files.text(FILE, &LearnedSchedule::list_to_json(list).unwrap());
}

#[test]
fn runs_start_with_the_one_that_was_learned_here_for_as_many_threads() {
    let files = Files::small();
    assert!(files.open().unwrap().schedules().is_empty());
    let learned = [2, 5].map(|threads| learned(&files, threads));
    set(&files, &learned);
    let bundle = files.open().unwrap();
    assert_eq!(bundle.schedules(), learned);

    let executable = load(&bundle, &with_threads(2, Guard::Off));
    assert!(!executable.is_learning());
    assert_eq!(executable.learned().as_ref(), Some(&learned[0]));
    assert_eq!(executable.schedule(), learned[0].schedule);
    let mut instance = executable.instance().unwrap();
    instance.set_input("x", View::from_slice(&X)).unwrap();
    instance.run(&[("n", 8)]).unwrap();
    assert_eq!(output::<f32>(&instance, "y"), Y);

    for threads in [3, 4] {
        let executable = load(&bundle, &with_threads(threads, Guard::Off));
        assert!(executable.is_learning() && executable.learned().is_none());
    }
    let executable = load(&bundle, &with_threads(1, Guard::Off));
    assert!(!executable.is_learning() && executable.learned().is_none());
    // A guarded run finds things in the plan's order.
    let executable = load(&bundle, &with_threads(2, Guard::End));
    assert!(executable.learned().is_none());
    assert_eq!(executable.schedule().phases.len(), 1);
}

#[test]
fn that_of_another_processor_is_kept_and_not_used() {
    let files = Files::small();
    let other = LearnedSchedule {
        cpu: "another processor".into(),
        ..learned(&files, 2)
    };
    set(&files, std::slice::from_ref(&other));
    let bundle = files.open().unwrap();
    assert_eq!((bundle.schedule(2), bundle.schedules().len()), (None, 1));
    assert!(load(&bundle, &with_threads(2, Guard::Off)).is_learning());

    let here = learned(&files, 2);
    let path = bundle.save_schedule(&here).unwrap();
    assert_eq!(path, files.path().join(FILE));
    let bundle = files.open().unwrap();
    assert_eq!(bundle.schedules(), [other, here.clone()]);
    assert_eq!(bundle.schedule(2), Some(&here));
}

#[test]
fn a_saved_one_takes_the_place_of_its_like_and_of_no_other() {
    let files = Files::small();
    let bundle = files.open().unwrap();
    let (two, three) = (learned(&files, 2), learned(&files, 3));
    bundle.save_schedule(&two).unwrap();
    bundle.save_schedule(&three).unwrap();
    let newer = LearnedSchedule {
        nanos: 7.0,
        ..two.clone()
    };
    bundle.save_schedule(&newer).unwrap();
    // It says what was there when it was opened.
    assert!(bundle.schedules().is_empty());
    assert_eq!(files.open().unwrap().schedules(), [newer, three]);
    // Nothing is left beside the file.
    let hidden = |name: &str| name.starts_with('.');
    let names = fs::read_dir(files.path()).unwrap();
    let mut names = names.map(|e| e.unwrap().file_name().into_string().unwrap());
    assert!(!names.any(|name| hidden(&name)));
}

#[test]
fn what_cannot_be_saved_changes_nothing() {
    let files = Files::small();
    let bundle = files.open().unwrap();
    let mut wrong = learned(&files, 2);
    wrong.op_nanos.pop();
    let error = cause(bundle.save_schedule(&wrong).unwrap_err());
    assert!(
        error.to_string().contains("from 3 ops, here are 4"),
        "{error}"
    );
    assert!(!files.path().join(FILE).exists());

    files.text(FILE, "[");
    let error = bundle.save_schedule(&learned_of(&bundle)).unwrap_err();
    assert_file(&error, FILE, "EOF");
    assert_eq!(fs::read_to_string(files.path().join(FILE)).unwrap(), "[");

    let bundle = files_moved_away();
    let error = bundle.save_schedule(&learned_of(&bundle)).unwrap_err();
    assert_file(&error, FILE, "cannot write");
}

/// One that is the bundle's, without a run.
fn learned_of(bundle: &Bundle) -> LearnedSchedule {
    LearnedSchedule {
        plan: "small".into(),
        cpu: "a processor".into(),
        threads: 2,
        schedule: Schedule::waves(bundle.plan(), 2),
        op_nanos: vec![1.0; bundle.plan().ops().len()],
        serial_nanos: 4.0,
        nanos: 3.0,
        tried_nanos: Some(3.0),
        bound_nanos: 2.0,
    }
}

/// A bundle whose folder is gone.
fn files_moved_away() -> Bundle {
    Files::small().open().unwrap()
}

#[test]
fn a_file_that_is_wrong_refuses_the_bundle_and_is_named() {
    let files = Files::small();
    let good = learned_of(&files.open().unwrap());
    let text = |edit: &dyn Fn(&mut LearnedSchedule)| {
        let mut learned = good.clone();
        edit(&mut learned);
        learned.to_json().unwrap()
    };
    let good_text = good.to_json().unwrap();
    let refused = [
        ("".to_owned(), "EOF"),
        ("3".into(), "expected a sequence"),
        (format!("[{good_text},{{}}]"), "[1]: missing field"),
        (
            format!(
                "[{}]",
                good_text.replace(r#""threads":2"#, r#""threads":0"#)
            ),
            "[0].threads: a run has at least 1",
        ),
        (
            format!("[{good_text}, {good_text}]"),
            "[1] is the second for 2 threads of `a processor`",
        ),
        (
            text(&|l| drop(l.schedule.phases.pop())),
            "schedules.json[0]: ops[2] is not there; remove the file",
        ),
        (
            text(&|l| l.schedule.phases.reverse()),
            "must come after ops[0]",
        ),
        (text(&|l| l.op_nanos.push(1.0)), "from 5 ops, here are 4"),
        (
            text(&|l| l.schedule.phases[0][0].parts = 9),
            "cut in 9 parts; it has 1 to 8",
        ),
    ];
    for (text, word) in refused {
        files.text(FILE, &text);
        let error = files.open().expect_err(word);
        assert_file(&error, FILE, word);
    }
    files.remove(FILE);
    files.open().unwrap();
    std::os::unix::fs::symlink("/proc/self/status", files.path().join(FILE)).unwrap();
    assert_refused(&files.open().unwrap_err(), FILE, "leaves the bundle");
}

#[test]
fn one_alone_is_read_as_a_list_of_one() {
    let files = Files::small();
    let learned = learned_of(&files.open().unwrap());
    files.text(FILE, &learned.to_json().unwrap());
    assert_eq!(
        files.open().unwrap().schedules(),
        std::slice::from_ref(&learned)
    );
    let file = files.path().join(FILE);
    assert_eq!(read_schedules(&file).unwrap(), [learned]);
    files.remove(FILE);
    let error = read_schedules(&file).unwrap_err();
    assert_file(&error, FILE, "cannot read");
}

#[test]
fn a_bundle_that_is_written_keeps_them() {
    let files = Files::small();
    let learned = learned_of(&files.open().unwrap());
    set(&files, std::slice::from_ref(&learned));
    let bundle = files.open().unwrap();
    let dir = tempfile::tempdir().unwrap();
    bundle.write(dir.path().join("again")).unwrap();
    let again = Bundle::open(dir.path().join("again")).unwrap();
    assert_eq!(again.schedules(), bundle.schedules());

    let mut writer = BundleWriter::new(bundle.plan());
    writer
        .source(0, Source::c("affine", support::AFFINE))
        .unwrap()
        .source(1, Source::c("count", COUNT))
        .unwrap()
        .contents(1, Buffer::from_slice(&W).unwrap())
        .unwrap();
    writer.schedule(learned.clone()).unwrap();
    let newer = LearnedSchedule {
        nanos: 1.0,
        ..learned.clone()
    };
    writer.schedule(newer.clone()).unwrap();
    writer.write(dir.path().join("built")).unwrap();
    let built = Bundle::open(dir.path().join("built")).unwrap();
    assert_eq!(built.schedules(), [newer]);

    let mut wrong = learned;
    wrong.schedule.phases.clear();
    let error = writer.schedule(wrong).unwrap_err();
    assert!(matches!(error, Error::Schedule { .. }), "{error}");
}
