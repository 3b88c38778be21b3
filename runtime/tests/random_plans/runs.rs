//! Runs one after another: of one instance, of many on many threads, in memory of the
//! caller's, and runs that stop halfway.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use svod_runtime::memory::{Filling, Guard};
use svod_runtime::plan::{BufferRange, Cancel, Instance, Plan, Role, Run, SavedStates};
use svod_runtime::{Buffer, Error};

use crate::common::{self, Rng};
use crate::kernels::{FAILED, Form, SPECS, addresses, fail_at, listen};
use crate::model::{Given, Memory, Model, Observed, Step, give, name, run, run_with};
use crate::recipe::{Shape, noise};
use crate::{for_plans, for_same_plans, part, ways};

/// Memory as [`Instance::fill_scratch`] leaves it with [`Filling::Ones`], as far as a run
/// may know.
fn filled(model: &Model) -> Memory {
    let mut memory = Memory::unplanned(model);
    for output in model.of_role(&[Role::Output]) {
        memory.own(output).fill(0xff);
    }
    memory
}

#[test]
fn runs_come_to_what_the_ops_do_one_after_another() {
    for_plans(250, |recipe, model| {
        for executable in ways(&model.executable()) {
            let mut instance = executable.instance().unwrap();
            // What is read unwritten would show.
            instance.fill_scratch(Filling::Ones).unwrap();
            let mut memory = filled(model);
            for n in 0..3 {
                let given = recipe.given(model, n);
                let expected = memory.run_in_order(model, &given);
                assert_eq!(run(&mut instance, model, &given).unwrap(), expected);
            }
        }
    });
}

// ---------------------------------------------------------------------------
// Runs that stop halfway
// ---------------------------------------------------------------------------

/// Whether an op may write a state.
pub(crate) fn writes_state(plan: &Plan, op: usize) -> bool {
    let mut touches = plan.touches(op);
    touches.any(|touch| {
        touch.access.writes() && plan.buffers()[touch.range.buffer].role == Role::State
    })
}

/// An instance that has run once, and whose next run will be stopped.
struct Stopping<'a> {
    model: &'a Model,
    instance: Instance,
    saved: SavedStates,
    /// What the states hold.
    states: Vec<Vec<u8>>,
    given: Given,
    /// What the next run comes to, from these states and from those at the start.
    expected: Observed,
    from_start: Observed,
}

impl Stopping<'_> {
    fn new<'a>(model: &'a Model, mut instance: Instance, runs: [Given; 2]) -> Stopping<'a> {
        let [first, given] = runs;
        let mut memory = Memory::unplanned(model);
        let before = memory.run_in_order(model, &first);
        assert_eq!(run(&mut instance, model, &first).unwrap(), before);
        let mut reset = memory.clone();
        for state in model.of_role(&[Role::State]) {
            *reset.own(state) = Memory::unplanned(model).own(state).clone();
        }
        let mut stopping = Stopping {
            saved: instance.save(),
            expected: memory.run_in_order(model, &given),
            from_start: reset.run_in_order(model, &given),
            states: Vec::new(),
            model,
            instance,
            given,
        };
        stopping.states = stopping.states_now();
        stopping
    }

    fn states_now(&self) -> Vec<Vec<u8>> {
        let states = self.model.of_role(&[Role::State]).into_iter();
        let bytes = |i| self.instance.state(&name(i)).unwrap().as_bytes().to_vec();
        states.map(bytes).collect()
    }

    /// A run that is to stop, and what its ops told.
    fn stop(&mut self, cancel: Option<&Cancel>, deadline: Option<Instant>) -> (Error, Vec<u64>) {
        give(&mut self.instance, &self.given);
        let run = Run {
            variables: &self.given.variables,
            cancel,
            deadline,
            ..Run::default()
        };
        let ops = self.model.steps.len();
        let (result, seen) = listen(ops, || self.instance.run_with(run));
        (result.unwrap_err(), seen)
    }

    /// That the ops that have `begun` did what they do in any run, and no other ran; that
    /// states are called torn if one of these may have written them; and that the next
    /// runs come to what they should.
    fn check(&mut self, begun: &[usize], seen: &[u64], reset: bool) {
        for (op, (&seen, &expected)) in seen.iter().zip(&self.expected.seen).enumerate() {
            let expected = if begun.contains(&op) { expected } else { 0 };
            assert_eq!(seen, expected, "ops[{op}]");
        }
        let plan = self.instance.executable().plan();
        let torn = begun.iter().any(|&op| writes_state(plan, op));
        assert_eq!(self.instance.is_torn(), torn);
        if torn {
            let states = self.states_now();
            let (error, seen) = self.stop(None, None);
            assert!(matches!(error, Error::Torn), "{error:?}");
            assert!(seen.iter().all(|seen| *seen == 0));
            assert_eq!(self.states_now(), states);
            if reset {
                self.instance.reset();
            } else {
                self.instance.restore(&self.saved).unwrap();
            }
        } else {
            assert_eq!(self.states_now(), self.states);
        }
        let expected = if torn && reset {
            &self.from_start
        } else {
            &self.expected
        };
        let again = run(&mut self.instance, self.model, &self.given);
        assert_eq!(&again.unwrap(), expected);
        assert!(!self.instance.is_torn());
        self.instance.restore(&self.saved).unwrap();
    }
}

#[test]
fn a_run_that_is_cancelled_before_any_op_can_be_made_again() {
    for_plans(25, |recipe, model| {
        for executable in ways(&model.executable()) {
            let runs = [0, 1].map(|n| recipe.given(model, n));
            let mut stopping = Stopping::new(model, executable.instance().unwrap(), runs);
            let order = executable.plan().order();
            let (cancel, left) = (Cancel::new(), Arc::new(AtomicUsize::new(0)));
            let (switch, ops_left) = (cancel.clone(), left.clone());
            stopping.instance.set_observer(move |_| {
                // Called once more than it counts, it does not stop a later run.
                if ops_left.fetch_sub(1, Ordering::Relaxed) == 1 {
                    switch.cancel();
                }
            });
            for (k, &next) in order.iter().enumerate() {
                left.store(k, Ordering::Relaxed);
                if k == 0 {
                    cancel.cancel();
                }
                let (error, seen) = stopping.stop(Some(&cancel), None);
                cancel.reset();
                let Error::Cancelled { op, done, of } = error else {
                    panic!("{error:?}");
                };
                assert_eq!((op, done, of), (next, k, order.len()));
                stopping.check(&order[..k], &seen, k % 2 == 1);
            }
            // Once its last op runs, a run is no longer stopped.
            left.store(order.len(), Ordering::Relaxed);
            let run = Run {
                variables: &stopping.given.variables,
                cancel: Some(&cancel),
                ..Run::default()
            };
            let instance = &mut stopping.instance;
            assert_eq!(run_with(instance, model, run).unwrap(), stopping.expected);
            assert_eq!(cancel.is_cancelled(), !order.is_empty());
            assert!(!instance.is_torn());
            instance.restore(&stopping.saved).unwrap();

            if let Some(&first) = order.first() {
                let (error, seen) = stopping.stop(None, Some(Instant::now()));
                let Error::DeadlinePassed { op, done: 0, .. } = error else {
                    panic!("{error:?}");
                };
                assert_eq!(op, first);
                stopping.check(&[], &seen, false);
            }
        }
    });
}

#[test]
fn a_run_in_which_any_op_fails_can_be_made_again() {
    let failed = Cell::new(0);
    for_same_plans(&Shape::ALL, 25, |recipe, model| {
        for executable in ways(&model.executable()) {
            let runs = [0, 1].map(|n| recipe.given(model, n));
            let mut stopping = Stopping::new(model, executable.instance().unwrap(), runs);
            let order = executable.plan().order();
            for (at, &failing) in order.iter().enumerate() {
                let can_fail = match &model.steps[failing] {
                    Step::Launch { kernel, .. } => SPECS[*kernel].form == Form::Status,
                    Step::Host { .. } => true,
                    _ => false,
                };
                if !can_fail {
                    continue;
                }
                fail_at(Some(failing));
                let (error, seen) = stopping.stop(None, None);
                fail_at(None);
                match error {
                    Error::KernelStatus { kernel, status, .. } => {
                        assert_eq!((&*kernel, status), ("status", FAILED));
                    }
                    Error::Host { op, .. } => assert_eq!(op, failing),
                    other => panic!("{other:?}"),
                }
                stopping.check(&order[..=at], &seen, at % 2 == 1);
                failed.set(failed.get() + 1);
            }
        }
    });
    assert!(failed.get() > part(50), "{}", failed.get());
}

// ---------------------------------------------------------------------------
// Instances
// ---------------------------------------------------------------------------

const INSTANCES: usize = 200;
const THREADS: usize = 8;

#[test]
fn two_hundred_instances_run_on_eight_threads_and_share_constants_alone() {
    for_plans(4, |recipe, model| {
        // One more op looks where the constants are.
        let mut model = model.clone();
        let constants = model.of_role(&[Role::Constant]);
        let whole = |&buffer: &usize| BufferRange {
            buffer,
            offset: 0,
            bytes: model.buffers[buffer].bytes,
        };
        let looks = Step::Host {
            args: constants.iter().map(|c| whole(c).read()).collect(),
            k: 0,
            odd: false,
        };
        model.steps.push(looks);
        let model = &model;
        let executable = model.executable().with_guard(common::guard());
        let shared: Vec<_> = (constants.iter())
            .map(|&c| executable.contents()[c].as_ref().unwrap().as_bytes())
            .map(|bytes| bytes.as_ptr().addr())
            .collect();
        let mut instances: Vec<_> = (0..INSTANCES)
            .map(|_| (executable.instance().unwrap(), Memory::unplanned(model)))
            .collect();
        std::thread::scope(|scope| {
            for (t, mine) in instances.chunks_mut(INSTANCES / THREADS).enumerate() {
                let shared = &shared;
                scope.spawn(move || {
                    for round in 0..3 {
                        for (i, (instance, memory)) in mine.iter_mut().enumerate() {
                            // Each has inputs, variables and states of its own.
                            let n = ((t * 1000 + i) * 10 + round) as u64;
                            let given = recipe.given(model, n);
                            let expected = memory.run_in_order(model, &given);
                            assert_eq!(run(instance, model, &given).unwrap(), expected);
                            let last = addresses(model.steps.len() - 1);
                            if common::guard() == Guard::Off {
                                assert_eq!(&last, shared);
                            }
                        }
                    }
                });
            }
        });
    });
}

#[test]
fn states_that_were_saved_go_on_in_another_instance() {
    for_plans(60, |recipe, model| {
        let given = |n| recipe.given(model, n);
        for executable in ways(&model.executable()) {
            let mut one = executable.instance().unwrap();
            let mut memory = Memory::unplanned(model);
            memory.run_in_order(model, &given(0));
            run(&mut one, model, &given(0)).unwrap();
            let saved = one.save();
            let mut other = executable.instance().unwrap();
            run(&mut other, model, &given(2)).unwrap();

            // Outputs are no states: each instance has its own.
            let states_of = |memory: &mut Memory, from: &mut Memory| {
                for state in model.of_role(&[Role::State]) {
                    *memory.own(state) = from.own(state).clone();
                }
            };
            let mut others = Memory::unplanned(model);
            others.run_in_order(model, &given(2));
            states_of(&mut others, &mut memory);
            let mut later = memory.clone();

            run(&mut one, model, &given(1)).unwrap();
            later.run_in_order(model, &given(1));
            other.restore(&saved).unwrap();
            let expected = others.run_in_order(model, &given(3));
            assert_eq!(run(&mut other, model, &given(3)).unwrap(), expected);
            one.restore(&saved).unwrap();
            states_of(&mut later, &mut memory);
            let expected = later.run_in_order(model, &given(3));
            assert_eq!(run(&mut one, model, &given(3)).unwrap(), expected);
            one.reset();
            states_of(&mut later, &mut Memory::unplanned(model));
            let expected = later.run_in_order(model, &given(4));
            assert_eq!(run(&mut one, model, &given(4)).unwrap(), expected);
        }
    });
}

#[test]
fn weights_are_replaced_for_later_instances_and_constants_for_one() {
    for_plans(60, |recipe, model| {
        let mut rng = Rng(recipe.seed);
        let mut new = |i: usize| noise(&mut rng, model.buffers[i].bytes);
        let weights = model.of_role(&[Role::Constant, Role::State]);
        let weights: Vec<_> = weights.into_iter().map(|i| (i, new(i))).collect();
        let constants = model.of_role(&[Role::Constant]);
        let constants: Vec<_> = constants.into_iter().map(|i| (i, new(i))).collect();
        let check = |instance: &mut Instance, memory: &mut Memory, n| {
            let given = recipe.given(model, n);
            let expected = memory.run_in_order(model, &given);
            assert_eq!(run(instance, model, &given).unwrap(), expected);
        };
        for executable in ways(&model.executable()) {
            let plan = executable.plan();
            let mut old = (executable.instance().unwrap(), Memory::unplanned(model));
            check(&mut old.0, &mut old.1, 0);
            let mut changed = executable.clone();
            let mut new = Memory::unplanned(model);
            for (i, bytes) in &weights {
                let content = model.constant(plan, *i, bytes);
                changed = changed.with_weight(&name(*i), &content).unwrap();
                *new.own(*i) = bytes.clone();
            }
            let mut new = (changed.instance().unwrap(), new);
            check(&mut new.0, &mut new.1, 1);
            check(&mut old.0, &mut old.1, 1);

            // One instance has its own constants from now on, and the states it had.
            let mut beside = (executable.instance().unwrap(), Memory::unplanned(model));
            for (i, bytes) in &constants {
                let content = model.constant(plan, *i, bytes);
                old.0.replace_constant(&name(*i), &content).unwrap();
                *old.1.own(*i) = bytes.clone();
            }
            check(&mut old.0, &mut old.1, 2);
            check(&mut old.0, &mut old.1, 3);
            check(&mut beside.0, &mut beside.1, 2);
            check(&mut new.0, &mut new.1, 2);
        }
    });
}

#[test]
fn memory_of_the_caller_s_is_read_and_written_as_the_instance_s_own_is() {
    for_plans(80, |recipe, model| {
        let mut rng = Rng(recipe.seed);
        for executable in ways(&model.executable()) {
            let plan = executable.plan();
            let mut instance = executable.instance().unwrap();
            let mut memory = Memory::unplanned(model);
            // All that is not bound in the first run is given once.
            give(&mut instance, &recipe.given(model, 0));
            for n in 0..4 {
                let given = recipe.given(model, n);
                let (mut inputs, mut copied) = (Vec::new(), Vec::new());
                for (i, bytes) in given.inputs.clone() {
                    if rng.below(2) == 0 {
                        inputs.push((i, model.memory_for(plan, i, &bytes)));
                    } else {
                        copied.push((i, bytes));
                    }
                }
                let mut outputs: Vec<(usize, Buffer)> = Vec::new();
                let mut own = Vec::new();
                for i in model.of_role(&[Role::Output]) {
                    if rng.below(2) == 0 {
                        // What no op writes stays.
                        let held = noise(&mut rng, model.buffers[i].bytes);
                        outputs.push((i, model.memory_for(plan, i, &held)));
                        own.push((i, std::mem::replace(memory.own(i), held)));
                    }
                }
                let mut expected = memory.run_in_order(model, &given);

                let variables = given.variables.clone();
                let copied = Given {
                    variables: Vec::new(),
                    inputs: copied,
                };
                give(&mut instance, &copied);
                let inputs: Vec<_> = (inputs.iter())
                    .map(|(i, memory)| (plan.find_input(&name(*i)).unwrap(), memory.as_view()))
                    .collect();
                let mut bound: Vec<_> = (outputs.iter_mut())
                    .map(|(i, memory)| (plan.find_output(&name(*i)).unwrap(), memory.as_view_mut()))
                    .collect();
                let run = Run {
                    variables: &variables,
                    inputs: &inputs,
                    outputs: &mut bound,
                    ..Run::default()
                };
                let got = run_with(&mut instance, model, run).unwrap();
                for (i, written) in &outputs {
                    let held = expected.held.iter_mut().find(|(held, _)| held == i);
                    let (_, held) = held.unwrap();
                    assert_eq!(written.as_view().as_bytes(), std::mem::take(held));
                }
                assert_eq!(got, expected);
                // The instance's own outputs hold what they held.
                for (i, held) in own {
                    *memory.own(i) = held;
                }
            }
        }
    });
}
