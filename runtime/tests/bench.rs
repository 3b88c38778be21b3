//! An instance in a race: what it is run on, and from which states.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use serde_json::json;
use svod_runtime::bench::{Budget, Candidate, Replay, race};
use svod_runtime::plan::Executable;
use svod_runtime::pool::Pool;
use svod_runtime::{Guard, View};

use support::{Files, W, X, Y, output};

/// A few rounds, of one run each where `sample` is nothing.
fn budget(sample: Duration) -> Budget {
    Budget {
        warm_up: Duration::ZERO,
        sample,
        ..Budget::rounds(3)
    }
}

fn replay(executable: &Executable) -> Replay<'_> {
    Replay::new(executable).unwrap()
}

fn runs(replay: &Replay<'_>) -> i64 {
    output(replay.instance(), "runs")[0]
}

#[test]
fn each_sample_starts_from_the_initial_states() {
    let executable = Files::small().load().unwrap();
    let mut replay = replay(&executable);
    race(&mut [&mut replay], &budget(Duration::ZERO)).unwrap();
    assert_eq!(runs(&replay), 1);
}

#[test]
fn runs_in_a_row_find_the_states_that_the_one_before_left() {
    let executable = Files::small().load().unwrap();
    let (mut a, mut b) = (replay(&executable), replay(&executable));
    // Whatever a run takes, it is less than this, so there are several.
    let budget = budget(Duration::from_millis(100));
    let race = race(
        &mut [&mut a, &mut b],
        &Budget {
            min_rounds: 1,
            max_rounds: 1,
            ..budget
        },
    );
    let row = race.unwrap().runs_in_a_sample();
    assert!(row > 1);
    assert_eq!((runs(&a), runs(&b)), (row.into(), row.into()));
}

#[test]
fn what_is_not_given_is_zero_and_as_small_as_it_may_be() {
    let executable = Files::small().load().unwrap();
    let mut replay = replay(&executable);
    assert!(replay.variables().eq([("n", 1)]));
    replay.run().unwrap();
    // 0 * w[0] + 1, and nothing else.
    let y = [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0];
    assert_eq!(output::<f32>(replay.instance(), "y"), y);
}

#[test]
fn inputs_and_variables_can_be_given() {
    let executable = Files::small().load().unwrap();
    let mut replay = replay(&executable);
    replay.set_input("x", View::from_slice(&X)).unwrap();
    replay.set_variable("n", 8).unwrap();
    assert!(replay.variables().eq([("n", 8)]));
    replay.run().unwrap();
    assert_eq!(output::<f32>(replay.instance(), "y"), Y);

    let error = replay.set_variable("n", 9).unwrap_err().to_string();
    assert!(error.contains("`n` is 9; it takes 1 to 8"), "{error}");
    let error = replay.set_variable("m", 1).unwrap_err().to_string();
    assert!(error.contains("no variable `m`"), "{error}");
    let error = replay.set_input("z", View::from_slice(&W)).unwrap_err();
    assert!(error.to_string().contains("no input `z`"), "{error}");
    // What was refused has changed nothing.
    assert!(replay.variables().eq([("n", 8)]));
}

#[test]
fn a_recorded_test_gives_what_it_gave_and_what_those_before_it_gave() {
    let mut files = Files::small();
    // The second leaves out its input, which stays as it is; the third has its own.
    files.set("/tests/1", json!({"variables": {"n": 5}, "inputs": {}}));
    files.npy("tests/2/x.npy", &[2, 4], &W);
    let third = json!({"variables": {"n": 8}, "inputs": {"x": "tests/2/x.npy"}});
    files.set("/tests/2", third);
    let (bundle, executable) = (files.open().unwrap(), files.load().unwrap());

    let mut replay = replay(&executable);
    replay.set_test(&bundle, 1).unwrap();
    assert!(replay.variables().eq([("n", 5)]));
    replay.set_variable("n", 8).unwrap();
    replay.run().unwrap();
    assert_eq!(output::<f32>(replay.instance(), "y"), Y);

    let error = replay.set_test(&bundle, 3).unwrap_err().to_string();
    assert!(error.contains("no recorded test 3; there are 3"), "{error}");
}

#[test]
fn a_schedule_is_learned_before_the_race_from_the_initial_states() {
    // Where memory is guarded, ops run one at a time, and nothing is learned.
    let loaded = Files::small().load().unwrap().with_guard(Guard::Off);
    let alone = loaded.with_pool(Pool::alone());
    let mut on_one_thread = replay(&alone);
    // There is nothing to learn, and no run for it.
    assert!(on_one_thread.learn(1000).unwrap());
    assert!(alone.learned().is_none());

    let shared = alone.clone().with_pool(Pool::builder().threads(3).build());
    let mut replay = replay(&shared);
    assert!(!replay.learn(3).unwrap() && shared.is_learning());
    assert!(replay.learn(1000).unwrap() && !shared.is_learning());
    assert_eq!(shared.learned().unwrap().threads, 3);
    assert_eq!(runs(&replay), 1);
}
