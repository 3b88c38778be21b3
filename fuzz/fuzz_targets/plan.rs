//! Plans: built from a recipe, which is numbers, and run against a plain reading of their ops, in
//! the plan's order, in waves that its validator accepts, or with temps that share no memory.

#![no_main]

#[allow(dead_code)] // a part of each is used here
#[path = "../../runtime/tests/common/mod.rs"]
mod common;
#[allow(dead_code)]
#[path = "../../runtime/tests/random_plans/kernels.rs"]
mod kernels;
#[allow(dead_code)]
#[path = "../../runtime/tests/random_plans/model.rs"]
mod model;
#[allow(dead_code)]
#[path = "../../runtime/tests/random_plans/recipe.rs"]
mod recipe;

use model::{Memory, run};
use recipe::{Recipe, Shape};
use svod_runtime::memory::Filling;
use svod_runtime::plan::{Role, Schedule};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((how, numbers)) = bytes.split_first() else {
        return;
    };
    let (how, shape) = (how / 8, usize::from(how % 8));
    let numbers = numbers.chunks(8).map(|chunk| {
        let mut number = [0; 8];
        number[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(number)
    });
    let mut numbers = numbers.take(61);
    let recipe = Recipe {
        shape: Shape::ALL[shape % Shape::ALL.len()],
        seed: numbers.next().unwrap_or(0),
        steps: numbers.collect(),
    };
    let model = recipe.model();
    let executable = model.executable();
    let plan = executable.plan();
    let waves = Schedule::waves(plan, 4);
    plan.check_schedule(&waves).unwrap();
    // The last op first breaks a plan in which anything waits for anything.
    let mut order = plan.order();
    order.reverse();
    let backwards = plan.check_schedule(&Schedule::serial(order));
    assert_eq!(backwards.is_err(), plan.depth() > 1);
    let executable = match how % 3 {
        0 => executable,
        1 => executable.with_schedule(&waves).unwrap(),
        _ => executable.with_separate_temps(),
    };
    let mut memory = Memory::unplanned(&model);
    for output in model.of_role(&[Role::Output]) {
        memory.own(output).fill(0xff);
    }
    let mut instance = executable.instance().unwrap();
    instance.fill_scratch(Filling::Ones).unwrap();
    for n in 0..2 {
        let given = recipe.given(&model, n);
        let expected = memory.run_in_order(&model, &given);
        assert_eq!(run(&mut instance, &model, &given).unwrap(), expected);
    }
});
