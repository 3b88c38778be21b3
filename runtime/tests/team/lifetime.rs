//! When a team's threads start, and when they end.

use svod_runtime::RuntimeBuilder;
use svod_runtime::pool::Pool;

use crate::{alone, check, pool, squares};

/// How many threads of teams this process has.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")));
    // One that has ended since has none.
    names
        .filter(|name| name.as_ref().is_ok_and(|name| name.starts_with("svod-")))
        .count()
}

/// That so many threads of teams are there: soon, as one that was started has no name
/// before it runs, and one that was joined is listed until the system has cleared up.
#[track_caller]
fn assert_threads(count: usize) {
    for _ in 0..100_000 {
        if threads() == count {
            return;
        }
        std::thread::yield_now();
    }
    assert_eq!(threads(), count);
}

#[test]
fn threads_start_with_the_first_run_that_can_use_them_and_end_with_the_last_handle() {
    let _alone = alone();
    let four = pool(4);
    let (executable, adds) = squares(&four);
    let mut instance = executable.instance().unwrap();
    assert_threads(0);
    check(&mut instance, adds);
    assert_threads(3);
    drop((four, executable));
    check(&mut instance, adds);
    assert_threads(3);
    drop(instance);
    assert_threads(0);
}

#[test]
fn what_one_thread_can_do_starts_none() {
    let _alone = alone();
    let (executable, adds) = squares(&Pool::alone());
    check(&mut executable.instance().unwrap(), adds);
    let serial = svod_runtime::plan::Schedule::serial((0..9).collect());
    let executable = executable.with_pool(pool(4)).with_schedule(&serial);
    check(&mut executable.unwrap().instance().unwrap(), adds);
    assert_threads(0);
}

#[test]
fn ten_thousand_runtimes_leave_no_thread_behind() {
    let _alone = alone();
    let (executable, adds) = squares(&Pool::alone());
    for _ in 0..10_000 {
        let runtime = RuntimeBuilder::default().threads(2).build().unwrap();
        let executable = executable.clone().with_pool(runtime.pool().clone());
        drop(runtime);
        check(&mut executable.instance().unwrap(), adds);
    }
    assert_threads(0);
}
