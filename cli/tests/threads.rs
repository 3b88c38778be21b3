//! The command as a process: how many threads runs have, and which schedule.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod digits;
mod svod;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use digits::DIGITS;
use serde_json::{Value, json as object};
use svod::Svod;

/// The command, whatever the tests are run with: where memory is guarded, ops run one at a
/// time, and nothing is learned.
fn svod(args: &[&str]) -> Svod {
    svod::svod(args).env("SVOD_GUARD", "off")
}

/// A copy of a bundle, without what learned schedules it has.
struct Copy(tempfile::TempDir);

impl Copy {
    fn new() -> Copy {
        Copy(digits::copy())
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("schedules.json")
    }

    fn schedules(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.file()).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// A schedule for so many threads, in a file of its own.
    fn schedule(&self, name: &str, threads: usize, phases: Value) -> String {
        let learned = object!({
            "cpu": "a processor", "threads": threads, "op_nanos": [1, 1, 1, 1],
            "serial_nanos": 4, "nanos": 3, "bound_nanos": 2, "phases": phases,
        });
        let file = self.0.path().join(name);
        fs::write(&file, learned.to_string()).unwrap();
        file.to_str().unwrap().to_owned()
    }
}

fn one_after_another() -> Value {
    object!([[{"ops": [0]}], [{"ops": [1, 2]}], [{"ops": [3]}]])
}

fn json(svod: Svod) -> Value {
    serde_json::from_str(&svod.succeeds()).unwrap()
}

#[test]
fn the_outputs_are_the_same_on_any_number_of_threads() {
    let outputs = |threads: &str| {
        let args = ["run", DIGITS, "--json", "--repeat", "20"];
        let value = json(svod(&[&args[..], &["--threads", threads]].concat()));
        assert_eq!(value["threads"].to_string(), threads);
        let runs = value["runs"].as_array().unwrap().clone();
        runs.into_iter()
            .map(|mut run| run["outputs"].take())
            .collect::<Vec<_>>()
    };
    let alone = outputs("1");
    assert_eq!(alone.len(), 8);
    for threads in ["2", "16"] {
        assert_eq!(outputs(threads), alone, "{threads} threads");
    }
}

#[test]
fn the_summary_says_how_many_threads_there_are_where_there_are_several() {
    let first = |args: &[&str]| {
        let out = svod(&[&["run", DIGITS], args].concat()).succeeds();
        out.lines().next().unwrap().to_owned()
    };
    let line = first(&["--threads", "3"]);
    assert!(line.ends_with(", runs on up to 3 threads"), "{line}");
    let line = first(&["--threads", "1"]);
    assert!(!line.contains("thread"), "{line}");
    // The order in which a guarded run finds things is the plan's.
    let line = first(&["--threads", "3", "--guard", "end"]);
    assert!(line.ends_with("guarded at their end"), "{line}");
    let guarded = svod(&["run", DIGITS, "--json", "--threads", "3", "--guard=end"]);
    assert_eq!(json(guarded)["threads"], 1);
}

#[test]
fn the_environment_says_it_where_the_option_does_not() {
    let threads = |args: &[&str], value: &str| {
        let args = [&["run", DIGITS, "--json"], args].concat();
        json(svod(&args).env("SVOD_THREADS", value))["threads"].clone()
    };
    assert_eq!(threads(&[], "5"), 5);
    assert_eq!(threads(&["--threads", "2"], "5"), 2);
    assert_eq!(threads(&["--threads", "2"], "many"), 2);
    let (_, err) = svod(&["run", DIGITS])
        .env("SVOD_THREADS", "many")
        .ends_with(1);
    assert!(
        err.contains("SVOD_THREADS") && err.contains("`many`"),
        "{err}"
    );
}

#[test]
fn no_run_has_none_or_a_hundred_thousand() {
    for threads in ["0", "4097", "100000", "-1", "two", ""] {
        let option = format!("--threads={threads}");
        let (_, err) = svod(&["run", DIGITS, &option]).ends_with(2);
        assert!(err.contains("--threads"), "{threads}: {err}");
    }
}

#[test]
fn a_schedule_is_saved_for_each_number_of_threads_and_used() {
    let copy = Copy::new();
    let out = svod(&["run", copy.path(), "--threads=2", "--save-schedule"]).succeeds();
    let line = out.lines().last().unwrap();
    assert!(
        line.starts_with("saved the schedule for 2 threads"),
        "{line}"
    );
    assert!(line.contains("schedules.json: "), "{line}");
    let args = ["--threads=3", "--save-schedule", "--json"];
    let value = json(svod(&[&["run", copy.path()], &args[..]].concat()));
    assert_eq!(value["saved_schedule"], copy.file().to_str().unwrap());

    let threads = |list: &[Value]| {
        list.iter()
            .map(|s| s["threads"].clone())
            .collect::<Vec<_>>()
    };
    let list = copy.schedules();
    assert_eq!(threads(&list), [2, 3]);
    assert_eq!(list[0]["plan"], "digits");
    assert_eq!(list[0]["op_nanos"].as_array().unwrap().len(), 4);

    // Again, in its place.
    svod(&["run", copy.path(), "--threads=2", "--save-schedule"]).succeeds();
    assert_eq!(threads(&copy.schedules()), [2, 3]);
    for threads in ["2", "3", "4"] {
        svod(&["run", copy.path(), "--check", "--threads", threads]).succeeds();
    }
}

#[test]
fn given_inputs_teach_a_schedule_as_tests_do() {
    let copy = Copy::new();
    let images = format!("images={DIGITS}/tests/3/images.npy");
    let args = ["--input", &images, "--threads=2", "--save-schedule"];
    let out = svod(&[&["run", copy.path()], &args[..]].concat()).succeeds();
    assert!(out.contains("saved the schedule for 2 threads"), "{out}");
    assert_eq!(copy.schedules().len(), 1);
}

#[test]
fn the_schedule_can_be_a_files_or_none() {
    let copy = Copy::new();
    let file = copy.schedule("mine.json", 4, one_after_another());
    let off = json(svod(&[
        "run",
        DIGITS,
        "--json",
        "--threads=4",
        "--schedule=off",
    ]));
    assert_eq!(off["threads"], 1);
    // The only one of a file may be of another number of threads.
    for threads in ["1", "2", "4"] {
        let args = ["--json", "--schedule", &file, "--threads", threads];
        let value = json(svod(&[&["run", DIGITS], &args[..]].concat()));
        assert_eq!(value["runs"][7]["outputs"], off["runs"][7]["outputs"]);
    }
    svod(&["run", DIGITS, "--check", "--schedule", "learned"]).succeeds();

    // One of several is.
    let text = fs::read_to_string(&file).unwrap();
    let two = text.replace(r#""threads":4"#, r#""threads":2"#);
    fs::write(&file, format!("[{text}, {two}]")).unwrap();
    let run = |threads| svod(&["run", DIGITS, "--schedule", &file, "--threads", threads]);
    run("2").succeeds();
    let (_, err) = run("3").ends_with(2);
    assert!(
        err.contains("no schedule for 3 threads; it has some for 4, 2"),
        "{err}"
    );
}

#[test]
fn a_schedule_that_is_wrong_is_named() {
    let copy = Copy::new();
    let fails = |args: &[&str], words: &[&str]| {
        let (_, err) = svod(&[&["run"], args].concat()).ends_with(1);
        for word in words {
            assert!(err.contains(word), "{args:?} lacks {word}: {err}");
        }
    };
    fails(
        &[DIGITS, "--schedule", "no/such.json"],
        &["no/such.json", "No such"],
    );
    let readme = format!("{DIGITS}/README.md");
    fails(
        &[DIGITS, "--schedule", &readme],
        &["README.md", "no learned schedule"],
    );
    let early = copy.schedule("early.json", 2, object!([[{"ops": [1, 0, 2, 3]}]]));
    let words = [
        "early.json",
        "not the plan's",
        "ops[1]",
        "must come after ops[0]",
    ];
    fails(&[DIGITS, "--schedule", &early], &words);

    // One that the bundle carries refuses it, whatever is to be done with it.
    copy.schedule("schedules.json", 2, object!([[{"ops": [0, 1, 2]}]]));
    for args in [&["--schedule=off"][..], &["--threads=2", "--save-schedule"]] {
        let words = ["schedules.json[0]: ops[3] is not there", "remove the file"];
        fails(&[&[copy.path()], args].concat(), &words);
    }
    fs::write(copy.file(), "{").unwrap();
    fails(&[copy.path()], &["schedules.json", "EOF"]);
}

#[test]
fn what_cannot_be_saved_is_said_after_the_results() {
    let copy = Copy::new();
    // A folder is in the way. It is found when the bundle is opened.
    fs::create_dir(copy.file()).unwrap();
    let (_, err) = svod(&["run", copy.path(), "--schedule=off"]).ends_with(1);
    assert!(
        err.contains("schedules.json") && err.contains("is no file"),
        "{err}"
    );
    fs::remove_dir(copy.file()).unwrap();

    let folder = copy.0.path();
    let set_mode = |mode| fs::set_permissions(folder, Permissions::from_mode(mode)).unwrap();
    set_mode(0o555);
    if fs::write(folder.join("probe"), "").is_err() {
        let args = ["run", copy.path(), "--threads=2", "--save-schedule"];
        let (out, err) = svod(&args).ends_with(1);
        assert!(out.contains("images right"), "{out}");
        assert!(
            err.contains("cannot write") && err.contains("schedules.json"),
            "{err}"
        );
    } else {
        eprintln!("skipped: whoever runs this may write to every folder");
    }
    set_mode(0o755);
}

#[test]
fn nothing_is_saved_where_nothing_is_learned() {
    let copy = Copy::new();
    let file = copy.schedule("mine.json", 2, one_after_another());
    for (args, word) in [
        (&["--threads=1"][..], "let them have more with --threads"),
        (&["--threads=2", "--schedule=off"], "--schedule off"),
        (&["--threads=2", "--schedule", &file], "schedule of a file"),
        (
            &["--threads=2", "--guard=end"],
            "guarded runs are on one thread",
        ),
        (&["--threads=2", "--fill"], "--fill"),
    ] {
        let all = [&["run", copy.path(), "--save-schedule"], args].concat();
        let (_, err) = svod(&all).ends_with(2);
        assert!(err.contains(word), "{args:?} lacks {word}: {err}");
        assert!(!copy.file().exists());
    }
}

#[test]
fn inspect_says_how_threads_share_a_run() {
    let copy = Copy::new();
    let args = ["inspect", copy.path(), "--schedule", "--threads=2"];
    let out = svod(&args).succeeds();
    let lines: Vec<_> = out.lines().collect();
    assert!(lines[0].starts_with("2 threads of "), "{out}");
    assert!(
        lines[0].contains("one thread ") && lines[0].contains("at best "),
        "{out}"
    );
    assert!(lines[1].starts_with("phase 0: "), "{out}");
    let last = lines.last().unwrap();
    let reasons = ["of 2 threads have work: ", "all on one thread: "];
    assert!(reasons.iter().any(|reason| last.contains(reason)), "{out}");
    // It has looked, and left nothing behind.
    assert!(!copy.file().exists());

    let value = json(svod(&[&args[..], &["--json"]].concat()));
    assert_eq!(value["schedule"]["carried"], false);
    assert_eq!(value["schedule"]["threads"], 2);
    assert_eq!(
        (&value["name"], &value["tests"]),
        (&"digits".into(), &8.into())
    );
    let explanation = value["schedule"]["explanation"].as_array().unwrap();
    assert!(explanation[1].as_str().unwrap().starts_with("phase 0: "));
}

#[test]
fn what_a_bundle_carries_is_shown_without_a_compiler() {
    let copy = Copy::new();
    svod(&["run", copy.path(), "--threads=2", "--save-schedule"]).succeeds();
    let mut list = copy.schedules();
    list[0]["phases"] = one_after_another();
    list[0]["tried_nanos"] = (10.0 * list[0]["serial_nanos"].as_f64().unwrap()).into();
    fs::write(copy.file(), Value::from(list).to_string()).unwrap();

    let args = ["inspect", copy.path(), "--schedule", "--threads=2"];
    let out = svod(&args).env("SVOD_CC", "no-such-cc").succeeds();
    assert!(
        out.contains("phase 1: ops 1-2 one after another ("),
        "{out}"
    );
    assert!(out.ends_with(", 900.0 % more\n"), "{out}");
    let value = json(svod(&[&args[..], &["--json"]].concat()));
    assert_eq!(value["schedule"]["carried"], true);
    assert_eq!(value["schedule"]["phases"][1][0]["ops"], object!([1, 2]));

    // There is none for three, and it would have to be compiled to learn one.
    let source = copy.path().to_owned() + "/kernels/conv1.c";
    let text = fs::read_to_string(&source).unwrap();
    fs::write(source, text + "\n").unwrap();
    let args = ["inspect", copy.path(), "--schedule", "--threads=3"];
    let (_, err) = svod(&args).env("SVOD_CC", "no-such-cc").ends_with(1);
    assert!(err.contains("no-such-cc"), "{err}");
}

#[test]
fn inspect_has_no_schedule_for_one_thread() {
    let needs = |args: &[&str], word: &str| {
        let (_, err) = svod(&[&["inspect", DIGITS], args].concat()).ends_with(2);
        assert!(err.contains(word), "{args:?} lacks {word}: {err}");
    };
    needs(
        &["--schedule", "--threads=1"],
        "one thread need no schedule",
    );
    needs(&["--threads=2"], "--schedule");
    needs(&["--schedule", "--explain=1"], "--explain");
    needs(&["--schedule", "--threads=0"], "--threads");
}
