//! `svod bench` as a process: what it measures, and how it says it. How long things
//! take is nobody's promise here.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod digits;
mod svod;

use std::fs;
use std::process::Command;

use digits::sources;
use serde_json::Value;
use svod::svod;

/// A bundle without tests, with a variable and a state.
fn counter() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let plan = r#"{
        "format": "svod-plan", "version": 1, "name": "counter",
        "variables": {"n": {"min": 2, "max": 4}},
        "kernels": [{"entry": "count", "source": "count.c", "language": "c", "params": [
            {"buffer": "i64", "len": 1, "access": "rw"},
            {"buffer": "i64", "len": 1, "access": "r"},
            {"scalar": "i32", "name": "n", "min": 0, "max": 4}
        ]}],
        "buffers": [
            {"role": "state", "dtype": "i64", "shape": [1]},
            {"name": "x", "role": "input", "dtype": "i64", "shape": [1]}
        ],
        "ops": [{"launch": 0, "args": [0, 1], "scalars": {"n": {"var": "n"}}}],
        "outputs": [{"name": "total", "buffer": 0, "dtype": "i64", "shape": [1]}]
    }"#;
    let kernel = "void count(long *total, const long *x, int n) { *total += *x + n; }";
    fs::write(dir.path().join("plan.json"), plan).unwrap();
    fs::write(dir.path().join("count.c"), kernel).unwrap();
    dir
}

/// What `--json` says, where no time is spent on it.
fn bench(args: &[&str]) -> Value {
    let mut all = vec!["bench", "--json", "--warm-up", "0", "--rounds", "5"];
    all.extend(args);
    serde_json::from_str(&svod(&all).succeeds()).unwrap()
}

fn candidates(json: &Value) -> &Vec<Value> {
    json["candidates"].as_array().unwrap()
}

/// Two C compilers of this machine, or one twice.
fn compilers() -> [&'static str; 2] {
    let runs = |name: &&str| {
        let output = Command::new(name).arg("--version").output();
        output.is_ok_and(|o| o.status.success())
    };
    let names = ["clang-19", "clang", "gcc", "cc"];
    let mut found = names.into_iter().filter(runs);
    let first = found.next().unwrap();
    [first, found.next_back().unwrap_or(first)]
}

#[test]
fn a_bundle_alone_has_times_and_no_ratio() {
    let json = bench(&[sources()]);
    assert_eq!(json["rounds"], 5);
    assert!(json["runs_in_a_row"].as_u64().unwrap() >= 1);
    let [candidate] = candidates(&json).as_slice() else {
        panic!("{json}");
    };
    assert_eq!(candidate["bundle"], sources());
    assert_eq!(candidate["name"], "digits");
    assert_eq!(candidate["opt_level"], "-O2");
    assert_eq!(candidate["test"], 0);
    assert_eq!(candidate["ops"], 4);
    assert_eq!(
        (&json["sets"], &json["confidence"]),
        (&5.into(), &0.95.into())
    );
    for key in ["ratio", "ratio_interval", "verdict", "cpu"] {
        assert_eq!(candidate[key], Value::Null, "{key}");
    }
    assert_eq!(candidate["schedule"], "learned");
    // Five rounds are too few for one.
    assert_eq!(candidate["interval_us"], Value::Null);
    let compiler = &candidate["compiler"];
    assert!(
        compiler["path"].as_str().unwrap().starts_with('/'),
        "{json}"
    );
    assert!(compiler["major"].as_u64().unwrap() > 0, "{json}");

    let samples = candidate["samples_us"].as_array().unwrap();
    let mut samples: Vec<_> = samples.iter().map(|s| s.as_f64().unwrap()).collect();
    samples.sort_by(f64::total_cmp);
    let time = |key: &str| candidate["time_us"][key].as_f64().unwrap();
    let five = ["min", "lower", "median", "upper", "max"].map(time);
    assert_eq!(samples, five);
    let per_op = candidate["ns_per_op"].as_f64().unwrap();
    assert!((per_op / 250.0 / time("median") - 1.0).abs() < 1e-9);
}

#[test]
fn each_bundle_meets_each_compiler_and_each_level() {
    let counter = counter();
    let counter = counter.path().to_str().unwrap();
    let [a, b] = compilers();
    let json = bench(&[sources(), counter, "--cc", a, "--cc", b, "-O1", "-O", "2"]);
    let of = |c: &Value| {
        let path = c["compiler"]["path"].as_str().unwrap().to_owned();
        let name = path.rsplit('/').next().unwrap().to_owned();
        let level = c["opt_level"].as_str().unwrap().to_owned();
        (c["name"].as_str().unwrap().to_owned(), name, level)
    };
    let all: Vec<_> = candidates(&json).iter().map(of).collect();
    let mut expected = Vec::new();
    for bundle in ["digits", "counter"] {
        for compiler in [a, b] {
            for level in ["-O1", "-O2"] {
                expected.push((bundle.to_owned(), compiler.to_owned(), level.to_owned()));
            }
        }
    }
    assert_eq!(all, expected);
    for (i, candidate) in candidates(&json).iter().enumerate() {
        assert_eq!(candidate["samples_us"].as_array().unwrap().len(), 5);
        assert_eq!(candidate["ratio"]["median"].is_f64(), i > 0, "{candidate}");
    }
}

#[test]
fn each_number_of_threads_is_a_candidate() {
    let counter = counter();
    let counter = counter.path().to_str().unwrap();
    let json = bench(&[sources(), counter, "--threads", "1,3", "-O1", "-O2"]);
    let of = |c: &Value| (c["opt_level"].clone(), c["threads"].as_u64().unwrap());
    let all: Vec<_> = candidates(&json).iter().map(of).collect();
    let one = ["-O1", "-O2"].map(|level| [(level.into(), 1), (level.into(), 3)]);
    assert_eq!(all, [one.as_flattened(), one.as_flattened()].concat());

    // Without the option it is as for any run.
    let args = ["bench", sources(), "--json", "--warm-up=0", "--rounds=1"];
    let out = svod(&args).env("SVOD_THREADS", "4").succeeds();
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(candidates(&json)[0]["threads"], 4);
    let out = svod(&[
        "bench",
        sources(),
        "--warm-up=0",
        "--rounds=1",
        "--threads=2",
    ])
    .succeeds();
    assert!(out.contains("test 0; 2 threads; 4 ops"), "{out}");
}

#[test]
fn each_schedule_and_each_cpu_is_a_candidate() {
    let args = [
        "--threads",
        "1,2",
        "--schedule",
        "learned,off",
        "--cpu",
        "native",
    ];
    let json = bench(&[&[sources()], &args[..]].concat());
    let of = |c: &Value| {
        let schedule = c["schedule"].as_str().unwrap().to_owned();
        (c["threads"].as_u64().unwrap(), schedule)
    };
    let all: Vec<_> = candidates(&json).iter().map(of).collect();
    let expected = [(1, "learned"), (1, "off"), (2, "learned"), (2, "off")];
    assert_eq!(all, expected.map(|(n, which)| (n, which.to_owned())));
    assert!(candidates(&json).iter().all(|c| c["cpu"] == "native"));
}

#[test]
fn what_is_said_of_a_candidate_follows_from_the_interval_of_its_ratio() {
    // Each of nine sets has a round.
    let args = "bench --json --warm-up 0 --rounds 9 --confidence 0.9 -O0 -O2".split(' ');
    let args: Vec<_> = args.chain([sources()]).collect();
    let json: Value = serde_json::from_str(&svod(&args).succeeds()).unwrap();
    assert_eq!(
        (&json["sets"], &json["confidence"]),
        (&9.into(), &0.9.into())
    );
    let second = &candidates(&json)[1];
    let number = |value: &Value| value.as_f64().unwrap();
    let ratio = &second["ratio_interval"];
    let (low, high) = (number(&ratio["low"]), number(&ratio["high"]));
    let median = number(&second["ratio"]["median"]);
    assert!(low <= median && median <= high, "{second}");
    let verdict = &second["verdict"];
    let (is, [from, to]) = match () {
        () if high < 1.0 => ("faster", [1.0 - high, 1.0 - low]),
        () if low > 1.0 => ("slower", [low - 1.0, high - 1.0]),
        () => ("alike", [0.0, (1.0 - low).max(high - 1.0)]),
    };
    assert_eq!(verdict["is"], is, "{second}");
    assert_eq!(
        [number(&verdict["low"]), number(&verdict["high"])],
        [from, to]
    );
    let interval = &candidates(&json)[0]["interval_us"];
    assert!(number(&interval["low"]) <= number(&interval["high"]));
}

#[test]
fn inputs_and_variables_are_of_the_test_or_as_given_or_zeros_and_minima() {
    let json = bench(&[sources(), "--test", "3"]);
    assert_eq!(candidates(&json)[0]["test"], 3);
    let images = format!("images={}/tests/3/images.npy", sources());
    bench(&[sources(), "--input", &images]);

    let counter = counter();
    let counter = counter.path().to_str().unwrap();
    let json = bench(&[counter]);
    assert_eq!(candidates(&json)[0]["test"], Value::Null);
    assert_eq!(candidates(&json)[0]["variables"]["n"], 2);
    let json = bench(&[counter, "--var", "n=4"]);
    assert_eq!(candidates(&json)[0]["variables"]["n"], 4);
}

#[test]
fn the_table_fits_80_columns() {
    let counter = counter();
    let args = ["--threads", "1", "--rounds", "18", "--warm-up", "0"];
    let mut command = svod(&[&["bench", ".", sources()], &args[..]].concat());
    command.0.current_dir(counter.path());
    let out = command.succeeds();
    for word in [
        "[1] .  ",
        "inputs zero, n = 2; 1 thread; 1 op; 1 kernel ready",
        "test 0; 1 thread; 4 ops; 4 kernels ready",
        "18 rounds",
        "in 9 sets of memory",
        "95% interval",
    ] {
        assert!(out.contains(word), "{word}: {out}");
    }
    let mut table = out.lines().skip_while(|l| !l.contains("median"));
    assert!(table.all(|l| l.chars().count() <= 80), "{out}");
    let rows = out
        .lines()
        .filter(|l| l.starts_with('[') && l.contains(" to "));
    assert!(rows.count() >= 2, "{out}");
    let last = out.lines().last().unwrap();
    assert!(last.starts_with("[2] "), "{out}");
    assert!(last.contains("[1]"), "{out}");

    // Who is told too little says so.
    let few = svod(&["bench", sources(), sources(), "--rounds=2", "--warm-up=0"]).succeeds();
    assert!(few.contains("unknown") && few.contains("[2] is not told apart from [1]"));
    assert!(few.contains("too few rounds"), "{few}");
}

#[test]
fn bad_usage_ends_with_2_and_says_what_to_do() {
    let needs = |args: &[&str], words: &[&str]| {
        let (out, err) = svod(&[&["bench"], args].concat()).ends_with(2);
        assert_eq!(out, "");
        for word in words {
            assert!(err.contains(word), "{args:?} lacks {word}: {err}");
        }
    };
    needs(&[], &["BUNDLE"]);
    needs(&[sources(), "--rounds", "0"], &["--rounds"]);
    needs(&[sources(), "--time=-1"], &["--time"]);
    needs(&[sources(), "--time", "soon"], &["number of seconds"]);
    needs(
        &[sources(), "--rounds", "9", "--time", "9"],
        &["--rounds", "--time"],
    );
    needs(
        &[sources(), "--threads", "1,0"],
        &["--threads", "0 is not in"],
    );
    needs(&[sources(), "--threads", "2,"], &["--threads"]);
    needs(&[sources(), "-O4"], &["0, 1, 2 or 3"]);
    needs(&[sources(), "--schedule", "some"], &["learned", "off"]);
    needs(&[sources(), "--confidence", "95"], &["between 0 and 1"]);
    needs(&[sources(), "--sets", "0"], &["--sets"]);
    needs(&[sources(), "--cpu", "z80"], &["z80"]);
    let other = if cfg!(target_arch = "aarch64") {
        "x86-64"
    } else {
        "aarch64"
    };
    needs(&[sources(), "--cpu", other], &["does not run", other]);
    needs(
        &[sources(), "--test", "8"],
        &["8 recorded tests", "no test 8"],
    );
    needs(&[sources(), "--var", "n=1"], &["`n`", "no variables"]);
    needs(&[sources(), "--input", "x=y.npy"], &["`x`", "images"]);

    // What is given is for every bundle.
    let counter = counter();
    let counter = counter.path().to_str().unwrap();
    needs(&[counter, sources(), "--var", "n=2"], &[sources(), "`n`"]);
    needs(&[counter, "--test", "0"], &["0 recorded tests"]);
    let twice = ["--var", "n=2", "--var", "n=3"];
    needs(&[&[counter], &twice[..]].concat(), &["`n`", "twice"]);
}

#[test]
fn failures_end_with_1_and_name_what_failed() {
    let fails = |args: &[&str], words: &[&str]| {
        let (out, err) = svod(&[&["bench"], args].concat()).ends_with(1);
        assert_eq!(out, "");
        for word in words {
            assert!(err.contains(word), "{args:?} lacks {word}: {err}");
        }
    };
    fails(
        &[sources(), "no/such/bundle"],
        &["no/such/bundle", "No such"],
    );
    fails(&[sources(), "--cc", "no-such-cc"], &["no-such-cc"]);
    let counter = counter();
    let counter = counter.path().to_str().unwrap();
    fails(&[counter, "--var", "n=5"], &["`n`", "2 to 4"]);
}

#[test]
fn help_names_every_option() {
    let out = svod(&["bench", "--help"]).succeeds();
    for option in [
        "--cc",
        "--opt-level",
        "--threads",
        "--test",
        "--input",
        "--var",
        "--rounds",
        "--time",
        "--warm-up",
        "--cpu",
        "--schedule",
        "--sets",
        "--confidence",
        "--json",
    ] {
        assert!(out.contains(option), "{option}: {out}");
    }
}
