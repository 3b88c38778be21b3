//! Host functions that run other plans with the same team.

use std::sync::{Arc, Barrier, Mutex};

use svod_runtime::pool::Pool;

use crate::{alone, check, pool, squares, sum, wide};

/// Eight host functions, each of which runs an instance of its own with the same pool, as
/// deep as asked; and what a run adds to the sum.
fn nest(depth: usize, pool: &Pool) -> (svod_runtime::plan::Executable, u64) {
    if depth == 0 {
        return squares(pool);
    }
    let (inner, adds) = nest(depth - 1, pool);
    let instances: Vec<_> = (0..8)
        .map(|_| Mutex::new(inner.instance().unwrap()))
        .collect();
    let instances = Arc::new(instances);
    let outer = wide(8, pool, move |i| {
        let mut inner = instances[i].lock().map_err(|_| "a run has panicked")?;
        inner.reset();
        inner.run(&[])?;
        Ok(sum(&inner))
    });
    (outer, 8 * adds)
}

#[test]
fn a_host_function_runs_another_instance_with_the_same_team() {
    let _alone = alone();
    for threads in [1, 2, 4, 16] {
        for depth in [1, 2] {
            let pool = pool(threads);
            let (outer, adds) = nest(depth, &pool);
            let mut instance = outer.instance().unwrap();
            for _ in 0..10 {
                check(&mut instance, adds);
            }
        }
    }
}

#[test]
fn so_do_eight_threads_at_once() {
    let _alone = alone();
    for threads in [2, 4, 16] {
        let pool = Pool::builder().threads(threads).disturb(1).build();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let (outer, adds) = nest(2, &pool);
                    let mut instance = outer.instance().unwrap();
                    for _ in 0..3 {
                        check(&mut instance, adds);
                    }
                });
            }
        });
    }
}

#[test]
fn an_error_of_an_inner_run_ends_the_outer_one_and_neither_hurts_the_team() {
    let _alone = alone();
    let pool = pool(2);
    let inner = wide(4, &pool, |i| match i {
        2 => Err("as was asked".into()),
        _ => Ok(1),
    });
    let outer = wide(4, &pool, move |_| {
        inner.instance()?.run(&[])?;
        Ok(1)
    });
    let mut instance = outer.instance().unwrap();
    let error = instance.run(&[]).unwrap_err();
    assert!(error.to_string().contains("ops[0]"), "{error}");
    assert!(!instance.is_torn());
    let (executable, adds) = squares(&pool);
    check(&mut executable.instance().unwrap(), adds);
}

#[test]
fn a_run_has_all_threads_of_the_pool() {
    let _alone = alone();
    for threads in [2, 4, 16] {
        // Each op needs all the others to be on their way.
        let meeting = Arc::new(Barrier::new(threads));
        let executable = wide(threads, &pool(threads), move |_| {
            meeting.wait();
            Ok(1)
        });
        let mut instance = executable.instance().unwrap();
        for _ in 0..20 {
            check(&mut instance, threads as u64);
        }
    }
}
