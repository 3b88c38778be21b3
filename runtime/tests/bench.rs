//! Instances and launches that are measured: what they are run on, from which states, and
//! without an allocation.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod counting;
mod support;

use std::ffi::c_void;
use std::time::Duration;

use serde_json::json;
use svod_runtime::bench::{
    Budget, Candidate, Cold, Ending, Replay, Sweep, measure, race, race_sets,
};
use svod_runtime::plan::Executable;
use svod_runtime::pool::{Pool, PreparedLaunch};
use svod_runtime::signature::{Convention, Param, Returns};
use svod_runtime::{Bounds, Buffer, DType, Error, Guard, Kernel, Signature, View};

use counting::{allocations, asked};
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

/// `y[i] += k`.
unsafe extern "C" fn add(y: *mut i32, k: i32, i: i32) {
    // SAFETY: the tests give as many elements as the grid has indices.
    unsafe { *y.add(i as usize) += k };
}

const GRID: usize = 64;

fn kernel(bounds: Bounds) -> Kernel {
    let signature = Signature::builder()
        .read_write(DType::I32, GRID)
        .scalar(DType::I32, "k", bounds)
        .index(DType::I32, GRID as u64)
        .build();
    // SAFETY: `add` keeps it.
    unsafe { Kernel::from_entry("add", add as *const c_void, signature.unwrap()) }
}

fn zeros() -> Buffer {
    Buffer::guarded(DType::I32, GRID, 16, common_guard()).unwrap()
}

/// As `SVOD_GUARD` says.
fn common_guard() -> Guard {
    let runtime = svod_runtime::RuntimeBuilder::from_env().build();
    runtime.unwrap().guard()
}

#[test]
fn a_launch_is_checked_once_and_runs_again_and_again_on_any_pool() {
    let kernel = kernel(Bounds::integers(0, 9));
    for pool in [Pool::alone(), Pool::builder().threads(3).build()] {
        let mut y = zeros();
        let args = vec![(&mut y).into()];
        let mut launch = PreparedLaunch::new(&kernel, args, &[2.into()], 60, pool).unwrap();
        assert_eq!(launch.kernel().name(), "add");
        for _ in 0..5 {
            launch.run().unwrap();
        }
        drop(launch);
        let y = y.as_slice::<i32>().unwrap();
        assert!(y[..60].iter().all(|y| *y == 10), "{y:?}");
        assert_eq!(y[60..], [0; 4]);
    }
}

#[test]
fn a_launch_that_does_not_fit_is_refused_before_it_runs() {
    let refused = |kernel: &Kernel, len, k: i32, grid| {
        let mut y = Buffer::zeroed(DType::I32, len).unwrap();
        let args = vec![(&mut y).into()];
        let launch = PreparedLaunch::new(kernel, args, &[k.into()], grid, Pool::alone());
        let error = launch.map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::Launch { .. }), "{error}");
    };
    let bounded = kernel(Bounds::integers(0, 9));
    refused(&bounded, GRID - 1, 1, 1);
    refused(&bounded, GRID, 10, 1);
    refused(&bounded, GRID, 1, GRID as u64 + 1);
    refused(&kernel(Bounds::Unstated), GRID, 1, 1);
}

/// `y[1] = 1`.
unsafe extern "C" fn stray(y: *mut u8) {
    // SAFETY: the memory beside a guarded buffer is its own.
    unsafe { *y.add(1) = 1 };
}

/// Returns 7.
unsafe extern "C" fn fail(_y: *mut u8) -> i32 {
    7
}

#[test]
fn what_a_launch_came_to_is_told_of_each_run() {
    let one = Signature::builder().write(DType::U8, 1).build().unwrap();
    // SAFETY: it does not keep it, which is what is to be found; the buffer has room.
    let kernel = unsafe { Kernel::from_entry("stray", stray as *const c_void, one.clone()) };
    let mut y = Buffer::guarded(DType::U8, 1, 16, Guard::End).unwrap();
    let args = vec![(&mut y).into()];
    let mut launch = PreparedLaunch::new(&kernel, args, &[], 1, Pool::alone()).unwrap();
    let error = launch.run().unwrap_err();
    assert!(matches!(error, Error::Overrun { .. }), "{error}");

    let params: Vec<Param> = one.params().to_vec();
    let status = Signature::new(params, Convention::C, Returns::Status).unwrap();
    // SAFETY: it touches nothing.
    let kernel = unsafe { Kernel::from_entry("fail", fail as *const c_void, status) };
    let mut y = Buffer::zeroed(DType::U8, 1).unwrap();
    let args = vec![(&mut y).into()];
    let mut launch = PreparedLaunch::new(&kernel, args, &[], 1, Pool::alone()).unwrap();
    let failed = measure(&mut launch, &budget(Duration::ZERO), None).unwrap_err();
    assert!(
        matches!(failed, Error::KernelStatus { status: 7, .. }),
        "{failed}"
    );
}

#[test]
fn cold_candidates_are_prepared_before_each_run() {
    let executable = Files::small().load().unwrap();
    let sweep = Sweep::of_bytes(1 << 16).unwrap();
    let mut cold = Cold::new(replay(&executable), &sweep);
    assert!(cold.runs_once() && cold.pool().is_some());
    // However short a run is.
    let measured = measure(&mut cold, &budget(Duration::from_millis(100)), None).unwrap();
    assert_eq!(measured.runs_in_a_sample(), 1);
    assert_eq!(
        (measured.samples().len(), measured.ending()),
        (3, Ending::Spent)
    );
}

#[test]
fn each_set_has_instances_of_its_own() {
    let executable = Files::small().load().unwrap();
    let mut made = 0;
    let race = race_sets(7, &Budget::rounds(14), || {
        made += 1;
        Ok::<_, Error>(vec![Replay::new(&executable)?, Replay::new(&executable)?])
    });
    let race = race.unwrap();
    assert_eq!((made, race.sets(), race.rounds()), (7, 7, 14));
    let interval = race.interval(1).unwrap();
    let median = race.times(1).median;
    assert!(interval.low <= median && median <= interval.high);
}

/// As a tuner has them: everything on, and next to no time.
fn tuning() -> Budget {
    Budget {
        warm_up: Duration::ZERO,
        sample: Duration::ZERO,
        precision: 1e-9,
        drop_out: true,
        ..Budget::rounds(40)
    }
}

#[test]
fn once_a_race_has_begun_it_allocates_nothing() {
    let kernel = kernel(Bounds::integers(0, 9));
    let mut y = Buffer::zeroed(DType::I32, GRID).unwrap();
    let args = vec![(&mut y).into()];
    let mut launch = PreparedLaunch::new(&kernel, args, &[1.into()], 8, Pool::alone()).unwrap();
    let (mut first, mut last) = (None, 0);
    let mut watch = || {
        last = asked();
        first.get_or_insert(last);
        Ok(())
    };
    race(&mut [&mut launch, &mut watch], &tuning()).unwrap();
    assert_eq!(first, Some(last));

    let (mut first, mut last) = (None, 0);
    let mut watch = || {
        last = asked();
        first.get_or_insert(last);
        Ok(())
    };
    let measured = measure(&mut watch, &tuning(), Some(1e18)).unwrap();
    assert_eq!(first, Some(last));
    assert_eq!(measured.samples().len(), 40);
}

#[test]
fn to_set_up_a_race_of_a_dozen_is_little() {
    let mut runs = [|| Ok(()); 12];
    let mut candidates: Vec<&mut dyn Candidate> = Vec::new();
    for run in &mut runs {
        candidates.push(run);
    }
    let asked = allocations(|| drop(race(&mut candidates, &tuning()).unwrap()));
    // Samples of each, and a few lists; got and given back.
    assert!(asked <= 2 * (12 + 6), "{asked}");
}
