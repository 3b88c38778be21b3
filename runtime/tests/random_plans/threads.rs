//! Runs on several threads: whatever the number of threads, the schedule, and who comes
//! when, a run comes to the bits that its ops come to one after another; and one that stops
//! stops as it does on one thread.

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use svod_runtime::Error;
use svod_runtime::memory::Guard;
use svod_runtime::plan::{Executable, Instance, Plan, Role, Run, Schedule};
use svod_runtime::pool::Pool;

use crate::common::{self, Rng};
use crate::kernels::{Form, SPECS, cancel_in, fail_on_all, listen_to_all, switch};
use crate::model::{Given, Memory, Model, Observed, Step, give, name, observe};
use crate::orders::{phased, waits};
use crate::recipe::Shape;
use crate::runs::writes_state;
use crate::{for_plans, for_same_plans, part, ways};

/// What kernels tell from any thread is kept for one run at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two threads, four, and many more than there are CPUs; each held up at random.
fn pools() -> [Pool; 3] {
    [2, 4, 16].map(|threads| {
        let pool = Pool::builder().threads(threads);
        pool.disturb(threads as u64).build()
    })
}

/// Schedules that leave much to be done side by side.
fn schedules(plan: &Plan, rng: &mut Rng) -> Vec<Schedule> {
    let waits = waits(plan);
    let mut schedules: Vec<_> = [1, 2, 16].map(|k| Schedule::waves(plan, k)).into();
    for _ in 0..2 {
        let mut schedule = phased(rng, &waits);
        for task in schedule.phases.iter_mut().flatten() {
            if let [op] = task.ops[..] {
                task.parts = 1 + rng.below(plan.max_parts(op) as usize) as u32;
            }
        }
        schedules.push(schedule);
    }
    schedules
}

/// A run of an instance, on any threads, and what can be known of it.
fn run_on_all(instance: &mut Instance, model: &Model, given: &Given) -> Result<Observed, Error> {
    give(instance, given);
    let run = Run {
        variables: &given.variables,
        ..Run::default()
    };
    let (result, seen) = listen_to_all(model.steps.len(), || instance.run_with(run));
    result?;
    Ok(observe(instance, model, seen))
}

#[test]
fn any_number_of_threads_comes_to_the_same_bits_by_any_schedule() {
    let (_alone, pools) = (alone(), pools());
    for_plans(40, |recipe, model| {
        let plain = model.executable();
        let mut rng = Rng(recipe.seed);
        let given: Vec<_> = (0..3).map(|n| recipe.given(model, n)).collect();
        let mut memory = Memory::unplanned(model);
        let expected = given.iter().map(|g| memory.run_in_order(model, g));
        let expected: Vec<_> = expected.collect();
        for schedule in schedules(plain.plan(), &mut rng) {
            let executable = plain.clone().with_schedule(&schedule).unwrap();
            for pool in &pools {
                for executable in ways(&executable.clone().with_pool(pool.clone())) {
                    let mut instance = executable.instance().unwrap();
                    for (given, expected) in given.iter().zip(&expected) {
                        let got = run_on_all(&mut instance, model, given).unwrap();
                        assert_eq!(&got, expected, "{} threads", pool.threads());
                    }
                }
            }
        }
    });
}

#[test]
fn while_a_schedule_is_learned_and_after_every_run_comes_to_the_same_bits() {
    let (_alone, pools) = (alone(), pools());
    for_plans(8, |recipe, model| {
        for pool in &pools {
            let executable = model.executable().with_pool(pool.clone());
            for executable in ways(&executable) {
                let mut instance = executable.instance().unwrap();
                let mut memory = Memory::unplanned(model);
                for n in 0..80 {
                    let given = recipe.given(model, n);
                    let expected = memory.run_in_order(model, &given);
                    let got = run_on_all(&mut instance, model, &given).unwrap();
                    assert_eq!(got, expected, "run {n}, {} threads", pool.threads());
                }
                // Where memory is guarded, ops run one at a time.
                if executable.guard() == Guard::Off {
                    assert!(executable.learned().is_some());
                }
            }
        }
    });
}

#[test]
fn instances_on_eight_threads_share_the_threads_of_one_team() {
    // Disturbed or not: the second is how it is used.
    let plain = [2, 4, 16].map(|threads| Pool::builder().threads(threads).build());
    let (_alone, pools) = (alone(), pools());
    for_plans(6, |recipe, model| {
        let plan = model.plan();
        let schedule = Schedule::waves(&plan, 4);
        for pool in pools.iter().chain(&plain) {
            let executable = model.executable().with_pool(pool.clone());
            let executable = executable.with_schedule(&schedule).unwrap();
            std::thread::scope(|scope| {
                for t in 0..8 {
                    let executable = executable.clone().with_guard(common::guard());
                    scope.spawn(move || {
                        let mut instance = executable.instance().unwrap();
                        let mut memory = Memory::unplanned(model);
                        for n in 0..10 {
                            let given = recipe.given(model, t * 100 + n);
                            let expected = memory.run_in_order(model, &given);
                            // What all of them tell at once is no use to anyone.
                            give(&mut instance, &given);
                            let variables = &given.variables;
                            let run = Run {
                                variables,
                                ..Run::default()
                            };
                            instance.run_with(run).unwrap();
                            let got = observe(&instance, model, expected.seen.clone());
                            assert_eq!(got, expected);
                        }
                    });
                }
            });
        }
    });
}

// ---------------------------------------------------------------------------
// Runs that stop halfway
// ---------------------------------------------------------------------------

/// Executables of a plan, by several schedules, with each pool.
fn with_teams(model: &Model, rng: &mut Rng, pools: &[Pool]) -> Vec<Executable> {
    let plain = model.executable();
    let schedules = schedules(plain.plan(), rng);
    let schedules = [&schedules[2], &schedules[3]];
    let each = schedules.into_iter().flat_map(|schedule| {
        let executable = plain.clone().with_schedule(schedule).unwrap();
        let with = move |pool: &Pool| executable.clone().with_pool(pool.clone());
        pools.iter().map(with)
    });
    each.collect()
}

fn states(instance: &Instance, model: &Model) -> Vec<Vec<u8>> {
    let states = model.of_role(&[Role::State]).into_iter();
    let bytes = |i| instance.state(&name(i)).unwrap().as_bytes().to_vec();
    states.map(bytes).collect()
}

/// Whether an op tells of each time that it runs: not one whose grid may be 0.
fn always_tells(model: &Model, op: usize) -> bool {
    match &model.steps[op] {
        Step::Launch { kernel, .. } => SPECS[*kernel].form != Form::Grid,
        step => matches!(step, Step::Host { .. }),
    }
}

/// That an instance whose run stopped is torn exactly if a state may have been written,
/// as far as its ops tell, and that after a reset it is as new.
fn check_stopped(
    instance: &mut Instance,
    model: &Model,
    given: &Given,
    seen: &[u64],
    before: &[Vec<u8>],
) {
    let plan = instance.executable().plan();
    let mut writers = (0..seen.len()).filter(|&op| writes_state(plan, op));
    if writers.clone().any(|op| seen[op] != 0) {
        assert!(instance.is_torn());
    } else if writers.all(|op| always_tells(model, op)) {
        assert!(!instance.is_torn());
    }
    if instance.is_torn() {
        let again = run_on_all(instance, model, given);
        assert!(matches!(again, Err(Error::Torn)));
    } else {
        assert_eq!(states(instance, model), before);
    }
    instance.reset();
}

#[test]
fn a_run_on_several_threads_that_any_op_cancels_can_be_made_again() {
    let (_alone, pools) = (alone(), pools());
    let cancelled = Cell::new(0);
    for_same_plans(&Shape::ALL, 12, |recipe, model| {
        let given = recipe.given(model, 0);
        let expected = Memory::unplanned(model).run_in_order(model, &given);
        for executable in with_teams(model, &mut Rng(recipe.seed), &pools) {
            let mut instance = executable.instance().unwrap();
            let start = states(&instance, model);
            // And once before the first.
            let ops = (0..model.steps.len()).filter(|&op| model.mixes(op));
            for op in ops.map(Some).chain([None]) {
                cancel_in(op);
                if op.is_none() {
                    switch().cancel();
                }
                give(&mut instance, &given);
                let run = Run {
                    variables: &given.variables,
                    cancel: Some(switch()),
                    ..Run::default()
                };
                let (result, seen) = listen_to_all(model.steps.len(), || instance.run_with(run));
                cancel_in(None);
                switch().reset();
                match result {
                    // It may have been the last that ran.
                    Ok(()) => {
                        let got = observe(&instance, model, seen);
                        assert_eq!(got, expected);
                        assert!(op.is_some() && !instance.is_torn());
                        instance.reset();
                    }
                    Err(Error::Cancelled { op: next, of, .. }) => {
                        assert_eq!(of, model.steps.len());
                        // Of a launch another part may have run.
                        assert!(seen[next] == 0 || !always_tells(model, next));
                        if op.is_none() {
                            assert!(seen.iter().all(|seen| *seen == 0));
                            assert!(!instance.is_torn());
                        }
                        check_stopped(&mut instance, model, &given, &seen, &start);
                        cancelled.set(cancelled.get() + 1);
                    }
                    Err(other) => panic!("{other:?}"),
                }
                assert_eq!(run_on_all(&mut instance, model, &given).unwrap(), expected);
                instance.reset();
            }
        }
    });
    assert!(cancelled.get() > part(500), "{}", cancelled.get());
}

#[test]
fn a_run_in_which_ops_fail_ends_with_the_error_that_one_thread_ends_with() {
    let (_alone, pools) = (alone(), pools());
    let failed = Cell::new(0);
    for_same_plans(&Shape::ALL, 25, |recipe, model| {
        let mut rng = Rng(recipe.seed);
        let given = recipe.given(model, 0);
        let expected = Memory::unplanned(model).run_in_order(model, &given);
        let can_fail = |op: &usize| match &model.steps[*op] {
            Step::Launch { kernel, .. } => SPECS[*kernel].form == Form::Status,
            step => matches!(step, Step::Host { .. }),
        };
        let failing: Vec<_> = (0..model.steps.len()).filter(can_fail).collect();
        // Each by itself, and many at once.
        let mut choices: Vec<_> = failing.iter().map(|&op| vec![op]).collect();
        for _ in 0..failing.len().min(4) {
            let some = failing.iter().copied().filter(|_| rng.below(2) == 0);
            choices.push(some.collect());
        }
        for executable in with_teams(model, &mut rng, &pools) {
            let mut one = executable
                .clone()
                .with_pool(Pool::alone())
                .instance()
                .unwrap();
            let mut all = executable.instance().unwrap();
            let start = states(&all, model);
            for choice in choices.iter().filter(|choice| !choice.is_empty()) {
                fail_on_all(choice);
                let error = run_on_all(&mut one, model, &given).unwrap_err();
                give(&mut all, &given);
                let run = Run {
                    variables: &given.variables,
                    ..Run::default()
                };
                let (result, seen) = listen_to_all(model.steps.len(), || all.run_with(run));
                fail_on_all(&[]);
                let got = result.unwrap_err();
                assert_eq!(format!("{got:?}"), format!("{error:?}"));
                assert!(matches!(
                    got,
                    Error::Host { .. } | Error::KernelStatus { .. }
                ));
                check_stopped(&mut all, model, &given, &seen, &start);
                one.reset();
                assert_eq!(run_on_all(&mut all, model, &given).unwrap(), expected);
                all.reset();
                failed.set(failed.get() + 1);
            }
        }
    });
    assert!(failed.get() > part(300), "{}", failed.get());
}
