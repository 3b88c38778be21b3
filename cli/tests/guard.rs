//! `svod run --guard` and `--fill`: a kernel that leaves its buffers is caught,
//! whichever buffer it is and whether it reads or writes, and the command says who it
//! was, though the process in which it ran may be gone.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../runtime/tests/support/mod.rs"]
mod support;
mod svod;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};
use support::{Files, bytes};
use svod::{Svod, svod};

/// A bundle, run with these flags.
fn run(files: &Files, flags: &[&str]) -> Svod {
    files.text("plan.json", &files.plan.to_string());
    let args = ["run", files.path().to_str().unwrap()];
    svod(&[&args[..], flags].concat())
}

// ---------------------------------------------------------------------------
// One element too far, in every buffer of a small network
// ---------------------------------------------------------------------------

/// A kernel of the network: its name, its buffers (the first is written), its text,
/// in which `PLANTED` is where something may be put in.
type NetworkKernel = (&'static str, &'static [usize], &'static str);

const NETWORK: [NetworkKernel; 4] = [
    (
        "hidden",
        &[3, 0, 1, 2],
        "void hidden(float *h, const float *x, const float *w, const float *b) {
            for (int i = 0; i < 8; i++) {
                float sum = b[i];
                for (int j = 0; j < 12; j++) sum += w[12 * i + j] * x[j];
                h[i] = sum > 0 ? sum : 0;
            }
            PLANTED
        }",
    ),
    (
        "scores",
        &[6, 3, 4, 5],
        "void scores(float *s, const float *h, const float *w, const float *b) {
            for (int i = 0; i < 5; i++) {
                float sum = b[i];
                for (int j = 0; j < 8; j++) sum += w[8 * i + j] * h[j];
                s[i] = sum;
            }
            PLANTED
        }",
    ),
    (
        "highest",
        &[7, 6],
        "void highest(float *m, const float *s) {
            float best = s[0];
            for (int i = 1; i < 5; i++) best = s[i] > best ? s[i] : best;
            m[0] = best;
            PLANTED
        }",
    ),
    (
        "below",
        &[8, 6, 7],
        "void below(float *y, const float *s, const float *m) {
            for (int i = 0; i < 5; i++) y[i] = s[i] - m[0];
            PLANTED
        }",
    ),
];

/// The buffers of the network: role, name, length. Aligned to 16 bytes, those of 5 and
/// of 1 have slack past their end.
const BUFFERS: [(&str, &str, usize); 9] = [
    ("input", "x", 12),
    ("constant", "w1", 96),
    ("constant", "b1", 8),
    ("temp", "h", 8),
    ("constant", "w2", 40),
    ("constant", "b2", 5),
    ("temp", "s", 5),
    ("temp", "m", 1),
    ("output", "y", 5),
];

fn network() -> Files {
    let kernels = NETWORK.map(|(name, buffers, _)| {
        let params = buffers.iter().enumerate().map(|(i, b)| {
            let access = if i == 0 { "w" } else { "r" };
            json!({"buffer": "f32", "len": BUFFERS[*b].2, "access": access})
        });
        json!({"entry": name, "source": format!("kernels/{name}.c"), "language": "c",
               "params": params.collect::<Vec<_>>()})
    });
    let buffers = BUFFERS.map(|(role, name, len)| {
        let mut buffer = json!({"role": role, "name": name, "dtype": "f32", "shape": [len]});
        if role == "constant" {
            buffer["tensor"] = json!(name);
        }
        buffer
    });
    let ops = NETWORK.iter().enumerate();
    let ops = ops.map(|(i, (_, buffers, _))| json!({"launch": i, "args": buffers}));
    let files = Files::new(json!({
        "name": "network",
        "kernels": kernels,
        "buffers": buffers,
        "ops": ops.collect::<Vec<_>>(),
        "outputs": [{"name": "y", "buffer": 8, "dtype": "f32", "shape": [5]}],
        "tests": [{"variables": {}, "inputs": {"x": "x.npy"}, "outputs": {}}],
    }));
    let numbers = |len| (0..len).map(|i| 0.1 * i as f32 - 0.2).collect::<Vec<_>>();
    let constants = BUFFERS.iter().filter(|(role, ..)| *role == "constant");
    let tensors = constants.map(|(_, name, len)| (*name, [*len], bytes(&numbers(*len))));
    let tensors: Vec<_> = tensors.collect();
    let tensors = tensors.iter().map(|(n, s, b)| (*n, "F32", &s[..], &b[..]));
    files.weights(&tensors.collect::<Vec<_>>());
    files.npy("x.npy", &[12], &numbers(12));
    for (kernel, ..) in NETWORK {
        plant(&files, kernel, "");
    }
    files
}

/// Puts a line into a kernel.
fn plant(files: &Files, kernel: &str, line: &str) {
    let (_, _, text) = NETWORK.iter().find(|(name, ..)| *name == kernel).unwrap();
    files.text(
        &format!("kernels/{kernel}.c"),
        &text.replace("PLANTED", line),
    );
}

/// How something planted was caught.
#[derive(Debug, PartialEq)]
enum Caught {
    Signal,
    Slack,
    Results,
}

/// Plants the read or the write of the element `at(len)` of each buffer in the first
/// kernel that has it, and looks how that is caught. All of it is named, and nothing
/// else is found.
fn catch_all(side: &str, at: fn(usize) -> isize, expected: fn(&str, usize, bool) -> Caught) {
    let files = network();
    let flags = ["--fill", "--guard", side];
    let out = run(&files, &flags).succeeds();
    assert!(out.contains("whatever memory held before"), "{out}");
    for (buffer, (role, name, len)) in BUFFERS.into_iter().enumerate() {
        let mut ops = NETWORK.iter().enumerate();
        let (op, (kernel, args)) = ops
            .find_map(|(i, (kernel, buffers, _))| {
                let arg = buffers.iter().position(|b| *b == buffer)?;
                Some((i, (*kernel, (buffers[0], arg))))
            })
            .unwrap();
        let (written, arg) = args;
        // What the kernel calls its buffers is how they begin.
        let [target, planted] = [written, buffer].map(|b| &BUFFERS[b].1[..1]);
        let at = at(len);
        for write in [false, true] {
            let line = if write {
                format!("*(volatile float *)({planted} + ({at})) = 1;")
            } else {
                format!("{target}[0] += {planted}[{at}];")
            };
            plant(&files, kernel, &line);
            let (out, err) = run(&files, &flags).ends_with(1);
            let case = format!("{line}\n{out}\n{err}");
            let has = |words: &[&str]| {
                for word in words {
                    assert!(case.contains(word), "{word}: {case}");
                }
            };
            let caught = if err.contains("SIGSEGV") {
                let argument = format!("argument {arg}: {role} `{name}`");
                has(&[
                    "test 0",
                    &format!("ops[{op}]"),
                    &format!("`{kernel}`"),
                    &argument,
                ]);
                Caught::Signal
            } else if err.contains("wrote outside") {
                let argument = format!("argument {arg} ({role} `{name}`)");
                has(&[
                    &format!("`{kernel}`"),
                    &argument,
                    "bytes 1 to 4 past its end",
                ]);
                Caught::Slack
            } else {
                has(&["UNSTEADY   y: ", "of 5 elements"]);
                Caught::Results
            };
            assert_eq!(caught, expected(role, len, write), "{case}");
        }
        plant(&files, kernel, "");
    }
}

#[test]
fn one_element_past_the_end_of_each_buffer_is_caught() {
    catch_all(
        "end",
        |len| len.cast_signed(),
        |role, len, write| match len * 4 % 16 {
            0 => Caught::Signal,
            // Nor is the slack of a constant written.
            _ if write && role == "constant" => Caught::Signal,
            _ if write => Caught::Slack,
            _ => Caught::Results,
        },
    );
}

#[test]
fn one_element_before_the_start_of_each_buffer_is_caught() {
    catch_all("start", |_| -1, |_, _, _| Caught::Signal);
}

#[test]
fn a_constant_cannot_be_written_where_it_lies() {
    let files = network();
    plant(&files, "scores", "*(volatile float *)b = b[0];");
    let (_, err) = run(&files, &["--check", "--guard"]).ends_with(1);
    for word in [
        "SIGSEGV",
        "`scores`",
        "constant `b2`",
        "constants cannot be written",
    ] {
        assert!(err.contains(word), "{word}: {err}");
    }
}

// ---------------------------------------------------------------------------
// What the command makes of it
// ---------------------------------------------------------------------------

/// A bundle of one kernel, `k(float *y)`, and one recorded test.
fn one_kernel(body: &str, outputs: Value) -> Files {
    let files = Files::with_kernels(
        json!({
            "name": "one",
            "kernels": [{"entry": "k", "source": "kernels/k.c", "language": "c",
                         "params": [{"buffer": "f32", "len": 4, "access": "w"}]}],
            "buffers": [{"role": "output", "dtype": "f32", "shape": [4]}],
            "ops": [{"launch": 0, "args": [0]}],
            "outputs": [{"name": "y", "buffer": 0, "dtype": "f32", "shape": [4]}],
            "tests": [{"variables": {}, "inputs": {}, "outputs": outputs}],
        }),
        &[("k", &format!("void k(volatile float *y) {{ {body} }}"))],
    );
    files.npy("y.npy", &[4], &[1.0_f32, 2.0, 3.0, 4.0]);
    files
}

/// It is right.
const ALL: &str = "for (int i = 0; i < 4; i++) y[i] = i + 1;";
/// It leaves out two elements.
const SOME: &str = "for (int i = 0; i < 2; i++) y[i] = i + 1;";

#[test]
fn what_is_right_runs_guarded_as_it_does_otherwise() {
    let files = one_kernel(ALL, json!({"y": "y.npy"}));
    for (flags, words) in [
        (&["--guard"][..], &["guarded at their end"][..]),
        (&["--guard", "start"], &["guarded at their start"]),
        (&["--guard=end", "--repeat", "3"], &["medians of 3 runs"]),
        (
            &["--exact", "--guard"],
            &["1 of 1 test the same bit for bit"],
        ),
        (
            &["--fill"],
            &[
                "within tolerance",
                "1 of 1 test the same whatever memory held before",
            ],
        ),
    ] {
        let out = run(&files, flags).succeeds();
        for word in words {
            assert!(out.contains(word), "{flags:?}: {out}");
        }
    }
    let out = run(&files, &["--guard", "start", "--exact", "--fill", "--json"]).succeeds();
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&json["ok"], &json["guard"]),
        (&json!(true), &json!("start"))
    );
    assert_eq!(json["runs"][0]["unsteady"], json!([]));

    let out = run(&files, &["--check"])
        .env("SVOD_GUARD", "start")
        .succeeds();
    assert!(out.contains("guarded at their start"), "{out}");
    let out = run(&files, &["--guard=end"]).env("SVOD_GUARD", "both");
    assert!(out.succeeds().contains("guarded at their end"));
    let (_, err) = run(&files, &[]).env("SVOD_GUARD", "both").ends_with(1);
    for word in ["SVOD_GUARD", "`both`", "off, end or start"] {
        assert!(err.contains(word), "{err}");
    }
    // An empty variable says nothing.
    run(&files, &[]).env("SVOD_GUARD", "").succeeds();
}

#[test]
fn an_output_that_is_not_written_wholly_depends_on_the_filling() {
    let files = one_kernel(SOME, json!({}));
    run(&files, &["--check"]).succeeds();
    let (out, _) = run(&files, &["--fill"]).ends_with(1);
    let row = "UNSTEADY   y: 2 of 4 elements depend on memory that was not written, the first is 2";
    assert!(out.contains(row), "{out}");
    assert!(
        out.contains("0 of 1 test the same whatever memory held before"),
        "{out}"
    );
    let (out, _) = run(&files, &["--fill", "--json"]).ends_with(1);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["ok"], false);
    let expected = json!([{"name": "y", "elements": 4, "other_bits": 2, "first": 2}]);
    assert_eq!(json["runs"][0]["unsteady"], expected);
}

#[test]
fn what_is_found_is_told_on_standard_error_alone() {
    let past = one_kernel("y[4] = 1;", json!({}));
    let (out, err) = run(&past, &["--guard", "--json"]).ends_with(1);
    assert_eq!(out, "");
    assert!(
        err.starts_with("error: SIGSEGV in test 0, ops[0]: kernel `k`"),
        "{err}"
    );
    // A crash of another kind, without a guard.
    let trap = one_kernel("__builtin_trap();", json!({}));
    let (out, err) = run(&trap, &["--fill", "--json"]).ends_with(1);
    assert_eq!(out, "");
    assert!(
        err.contains("test 0, ops[0]: kernel `k` ended the process"),
        "{err}"
    );
    // Nor is it a test where there is none.
    let mut given = past;
    given.set("/tests", json!([]));
    let (_, err) = run(&given, &["--guard"]).ends_with(1);
    assert!(
        err.starts_with("error: SIGSEGV in ops[0]: kernel `k`"),
        "{err}"
    );
}

#[test]
fn bad_usage_is_told_as_without_a_guard() {
    let mut files = one_kernel(ALL, json!({}));
    let bundle = files.path().to_str().unwrap().to_owned();
    let (_, err) = svod(&["run", "--guard", &bundle]).ends_with(2);
    assert!(err.contains("bundle's folder before --guard"), "{err}");
    let (_, err) = svod(&["run", &bundle, "--fill", "--var", "n=1"]).ends_with(2);
    assert!(err.contains("--fill"), "{err}");
    let (_, err) = svod(&["run", &bundle, "--watched-by", "1"]).ends_with(2);
    assert!(err.contains("--watched-by"), "{err}");
    files.set("/tests", json!([]));
    let (_, err) = run(&files, &["--guard", "--check"]).ends_with(2);
    assert!(err.contains("no recorded tests"), "{err}");
    let (_, err) = svod(&["run", "no/such/bundle", "--guard"]).ends_with(1);
    assert!(err.contains("no/such/bundle"), "{err}");
}

/// Starts a bundle whose kernel takes its time, waits until the kernels are ready,
/// and hands over the process.
fn interrupted(signal: impl FnOnce(Pid)) -> (std::process::ExitStatus, String, String) {
    // Some seconds, so that a test that fails ends all the same.
    let files = one_kernel(
        "for (long i = 0; i < 10000000000; i++) y[0] = i; y[1] = 1;",
        json!({}),
    );
    let mut command = run(&files, &["--guard"]).0;
    command.process_group(0);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let mut out = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.contains("1 kernel ready"), "{line}");
    signal(Pid::from_child(&process));
    let (mut rest, mut err) = (String::new(), String::new());
    // These end when both processes have.
    out.read_to_string(&mut rest).unwrap();
    process
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut err)
        .unwrap();
    (process.wait().unwrap(), rest, err)
}

/// Whether whoever started the tests has them ignore Ctrl-C, as a shell does for what a
/// script runs in the background. Their processes do then, too.
fn ignores_interrupts() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    let ignored = u64::from_str_radix(ignored.unwrap().trim(), 16).unwrap();
    ignored & (1 << (Signal::INT.as_raw() - 1)) != 0
}

#[test]
fn whoever_interrupts_the_command_interrupts_the_run() {
    if ignores_interrupts() {
        println!("skipped: interrupts are ignored here, and so they are by the command");
    } else {
        // As a terminal does on Ctrl-C.
        let (status, out, err) = interrupted(|pid| kill_process_group(pid, Signal::INT).unwrap());
        assert_eq!(status.signal(), Some(Signal::INT.as_raw()));
        assert_eq!((out.trim(), err.as_str()), ("", ""));
    }
    let (status, out, _) = interrupted(|pid| kill_process(pid, Signal::KILL).unwrap());
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
    assert_eq!(out.trim(), "");
}
