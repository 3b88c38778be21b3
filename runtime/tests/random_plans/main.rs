//! Random plans against a plain reading of them: whatever the order, wherever temps lie,
//! whoever owns the memory, a run comes to the same bits as its ops done one after another
//! on buffers of their own; and what breaks the order is found.

// A helper of a test says what it expects by failing, as the test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod kernels;
mod model;
mod orders;
mod recipe;
mod runs;
mod threads;

use std::cell::RefCell;
use std::collections::BTreeSet;

use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use svod_runtime::Guard;
use svod_runtime::plan::{Executable, Role};

use model::Model;
use recipe::{Recipe, Shape, recipes};

/// So many, or, where memory is guarded, an eighth: what lies beside every argument is
/// looked at then, which takes ten times as long as the plans do.
fn part(cases: u32) -> u32 {
    let share = u32::try_from(common::share()).unwrap_or(1);
    match common::guard() {
        Guard::Off => cases.div_ceil(share),
        _ => cases.div_ceil(8 * share),
    }
}

/// Runs `test` on so many random plans. One that fails is made smaller first.
#[track_caller]
fn for_plans(cases: u32, test: impl Fn(&Recipe, &Model)) {
    let runner = TestRunner::new(config(cases));
    run_on_plans(runner, &Shape::ALL, test);
}

/// As [`for_plans`], of these shapes, and the same ones each time: for what counts what it
/// finds, so that the count does not depend on luck.
#[track_caller]
fn for_same_plans(shapes: &[Shape], cases: u32, test: impl Fn(&Recipe, &Model)) {
    let rng = TestRng::deterministic_rng(RngAlgorithm::default());
    let runner = TestRunner::new_with_rng(config(cases), rng);
    run_on_plans(runner, shapes, test);
}

fn config(cases: u32) -> Config {
    Config {
        cases: part(cases),
        failure_persistence: None,
        ..Config::default()
    }
}

#[track_caller]
fn run_on_plans(mut runner: TestRunner, shapes: &[Shape], test: impl Fn(&Recipe, &Model)) {
    let result = runner.run(&recipes(shapes), |recipe| {
        test(&recipe, &recipe.model());
        Ok(())
    });
    if let Err(TestError::Fail(reason, recipe)) = result {
        let model = recipe.model();
        for (i, buffer) in model.buffers.iter().enumerate() {
            let (role, dtype) = (buffer.role, buffer.dtype);
            eprintln!("buffers[{i}]: {role:?} {dtype:?}, {} bytes", buffer.bytes);
        }
        for (i, step) in model.steps.iter().enumerate() {
            eprintln!("ops[{i}]: {step:?}");
        }
        panic!("{reason}\n{recipe:?}");
    }
    result.unwrap();
}

/// An executable with temps in one arena, and with temps of their own: in guarded memory,
/// where the tests' is.
fn ways(executable: &Executable) -> [Executable; 2] {
    let apart = executable.clone().with_separate_temps();
    let apart = match common::guard() {
        Guard::Off => apart,
        guard => apart.with_guard(guard),
    };
    [executable.clone(), apart]
}

/// What the tests rest on: that the random plans have all there is in some.
#[test]
fn every_kind_of_op_and_of_view_is_among_the_random_ones() {
    let missing = RefCell::new(BTreeSet::from(
        [
            "copy",
            "fill",
            "host function `mix`",
            "an arena that is used again",
            "a wide plan",
            "a deep plan",
            "another order than that in which ops were added",
        ]
        .map(String::from),
    ));
    for spec in &kernels::SPECS {
        let launch = format!("launch of `{}`", spec.name);
        missing.borrow_mut().insert(launch);
    }
    for typed in [true, false] {
        for role in Role::ALL {
            for access in ["r", "w", "rw"] {
                if access == "r" || role.writable() {
                    missing.borrow_mut().insert(view(access, role, typed));
                }
            }
        }
    }
    for_same_plans(&Shape::ALL, 400, |_, model| {
        let plan = model.plan();
        let mut missing = missing.borrow_mut();
        for op in 0..plan.ops().len() {
            missing.remove(&plan.op_label(op));
            for touch in plan.touches(op) {
                let buffer = &plan.buffers()[touch.range.buffer];
                let typed = buffer.dtype.is_some();
                missing.remove(&view(touch.access.name(), buffer.role, typed));
            }
        }
        let in_order = plan.order().is_sorted();
        for (holds, what) in [
            (
                plan.memory().arena < plan.memory().unplanned,
                "an arena that is used again",
            ),
            (plan.width() >= 8, "a wide plan"),
            (plan.depth() >= 25, "a deep plan"),
            (!in_order, "another order than that in which ops were added"),
        ] {
            if holds {
                missing.remove(what);
            }
        }
    });
    let missing = missing.into_inner();
    assert!(missing.is_empty(), "{missing:?}");
}

fn view(access: &str, role: Role, typed: bool) -> String {
    let of = if typed { "elements" } else { "bytes" };
    format!("{access} of a {} of {of}", role.name())
}
