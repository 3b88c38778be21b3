//! What an instance does beside running: host functions, memory of the caller's, runs
//! that are stopped, states that are saved, constants that are replaced.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use svod_runtime::memory::Constant;
use svod_runtime::plan::{
    Cancel, Executable, HostError, InputId, Instance, Operator, OutputId, PlanBuilder, Role, Run,
    Timings, Value,
};
use svod_runtime::{Arg, Buffer, DType, Error, View, ViewMut};

fn instance(plan: PlanBuilder) -> Instance {
    with_contents(plan, Vec::new())
}

fn with_contents(plan: PlanBuilder, contents: Vec<(usize, Constant)>) -> Instance {
    let executable = Executable::new(plan.build().unwrap(), vec![], contents).unwrap();
    executable.with_guard(common::guard()).instance().unwrap()
}

fn output(instance: &Instance, name: &str) -> Vec<i32> {
    instance.output(name).unwrap().as_slice().unwrap().to_vec()
}

fn state(instance: &Instance, name: &str) -> Vec<i32> {
    instance.state(name).unwrap().as_slice().unwrap().to_vec()
}

/// `into += from`, elementwise.
fn add(args: &mut [Arg<'_>]) -> Result<(), HostError> {
    let [Arg::Read(from), Arg::Write(into)] = args else {
        return Err("other arguments than were declared".into());
    };
    let into = into.reborrow().into_slice::<i32>()?;
    for (into, from) in into.iter_mut().zip(from.as_slice::<i32>()?) {
        *into += from;
    }
    Ok(())
}

/// `y = x + total`, and `total += x`.
fn running_total() -> PlanBuilder {
    let mut plan = PlanBuilder::new("running total");
    let x = plan.input("x", DType::I32, &[4]).unwrap();
    let total = plan.state("total", DType::I32, &[4]).unwrap();
    let y = plan.output("y", DType::I32, &[4]).unwrap();
    plan.copy(total, y).unwrap();
    plan.host("add", &[x.read(), y.read_write()], add).unwrap();
    plan.host("add", &[x.read(), total.read_write()], add)
        .unwrap();
    plan
}

// ---------------------------------------------------------------------------
// Host functions
// ---------------------------------------------------------------------------

#[test]
fn a_host_function_is_an_op_like_others() {
    let mut instance = instance(running_total());
    instance
        .set_input("x", View::from_slice(&[1, 2, 3, 4]))
        .unwrap();
    instance.run(&[]).unwrap();
    assert_eq!(output(&instance, "y"), [1, 2, 3, 4]);
    instance.run(&[]).unwrap();
    assert_eq!(output(&instance, "y"), [2, 4, 6, 8]);
    assert_eq!(state(&instance, "total"), [2, 4, 6, 8]);
}

#[test]
fn a_host_function_sees_the_range_and_the_type_that_were_declared() {
    let mut plan = PlanBuilder::new("seen");
    let x = plan.input("x", DType::F32, &[8]).unwrap();
    let bytes = plan.bytes(None, Role::Output, 6).unwrap();
    let bytes = plan.whole(bytes).unwrap();
    let part = plan.view(x, 2..5).unwrap();
    let look = |args: &mut [Arg<'_>]| {
        let [Arg::Read(x), Arg::Write(y)] = args else {
            return Err("other arguments".into());
        };
        assert_eq!(x.as_slice::<f32>()?, [2.0, 3.0, 4.0]);
        assert_eq!((y.dtype(), y.len()), (DType::U8, 6));
        y.copy_from(View::from_slice(b"called"))?;
        Ok(())
    };
    plan.host("look", &[part.read(), bytes.write()], look)
        .unwrap();
    plan.result("y", bytes.buffer, 0, DType::U8, &[6]).unwrap();
    let mut instance = instance(plan);
    let x: Vec<f32> = (0_u8..8).map(f32::from).collect();
    instance.set_input("x", View::from_slice(&x)).unwrap();
    instance.run(&[]).unwrap();
    assert_eq!(instance.output("y").unwrap().as_bytes(), b"called");
}

#[test]
fn a_host_function_that_is_declared_wrongly_is_refused_by_name_and_op() {
    let mut plan = PlanBuilder::new("refused");
    let x = plan.input("x", DType::I32, &[4]).unwrap();
    let y = plan.output("y", DType::I32, &[4]).unwrap();
    plan.copy(x, y).unwrap();
    let mut refused = |args: &[_], words: &[&str]| {
        let error = plan.host("mine", args, |_| Ok(())).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{error}");
        }
    };
    refused(&[x.write()], &["ops[1].args[0]", "`mine`", "input"]);
    let part = y.part(4..12);
    refused(
        &[y.read(), part.write()],
        &["ops[1].args[1]", "`mine`", "overlap"],
    );
    refused(&[y.part(2..6).read()], &["ops[1].args[0]", "i32"]);
    refused(&[y.part(8..20).read()], &["ops[1].args[0]", "leave"]);
    // Two that are read may overlap.
    plan.host("mine", &[y.read(), part.read()], |_| Ok(()))
        .unwrap();
}

#[test]
fn a_host_function_that_fails_fails_the_run_and_says_which() {
    let fails = |panics: bool| {
        let mut plan = PlanBuilder::new("failing");
        let y = plan.output("y", DType::I32, &[1]).unwrap();
        plan.fill(y, DType::I32, 3).unwrap();
        let function = move |_: &mut [Arg<'_>]| -> Result<(), HostError> {
            assert!(!panics, "the sky is falling");
            Err("the tokens are out".into())
        };
        plan.host("sample", &[y.read_write()], function).unwrap();
        plan.fill(y, DType::I32, 4).unwrap();
        let mut instance = instance(plan);
        let error = instance.run(&[]).unwrap_err();
        assert_eq!(error.to_string(), "host function `sample` failed in ops[1]");
        // Nothing after it has run, and it can be run again.
        assert_eq!(output(&instance, "y"), [3]);
        assert!(!instance.is_torn());
        instance.run(&[]).unwrap_err();
        std::error::Error::source(&error).unwrap().to_string()
    };
    assert_eq!(fails(false), "the tokens are out");
    assert_eq!(fails(true), "it panicked: the sky is falling");
}

#[test]
fn host_functions_of_two_instances_run_at_the_same_time() {
    // Each waits until the other is in it too.
    let inside = Arc::new(std::sync::Barrier::new(2));
    let mut plan = PlanBuilder::new("together");
    let y = plan.output("y", DType::I32, &[1]).unwrap();
    let meet = move |_: &mut [Arg<'_>]| {
        inside.wait();
        Ok(())
    };
    plan.host("meet", &[y.write()], meet).unwrap();
    let executable = Executable::new(plan.build().unwrap(), vec![], []).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| executable.instance().unwrap().run(&[]).unwrap());
        }
    });
}

// ---------------------------------------------------------------------------
// Memory of the caller's
// ---------------------------------------------------------------------------

/// `y = x`, four elements, and twice the variable in the fifth of `y`.
fn copying() -> PlanBuilder {
    let mut plan = PlanBuilder::new("copying");
    let n = plan.variable("n", 0, 9).unwrap();
    let x = plan.input("x", DType::I32, &[4]).unwrap();
    let y = plan.output("y", DType::I32, &[5]).unwrap();
    plan.copy(x, y.part(0..16)).unwrap();
    let twice = Value::op(Operator::Mul, n, 2);
    plan.fill(y.part(16..20), DType::I32, twice).unwrap();
    plan
}

#[test]
fn inputs_and_outputs_are_used_where_the_caller_has_them() {
    let mut instance = instance(copying());
    let plan = instance.executable().plan();
    let (x, y) = (
        plan.find_input("x").unwrap(),
        plan.find_output("y").unwrap(),
    );
    let mut theirs = Buffer::zeroed(DType::I32, 5).unwrap();
    for n in [1, 2] {
        let given = Buffer::from_slice(&[n, 2, 3, 4]).unwrap();
        let run = Run {
            variables: &[i64::from(n)],
            inputs: &[(x, given.as_view())],
            outputs: &mut [(y, theirs.as_view_mut())],
            ..Run::default()
        };
        instance.run_with(run).unwrap();
        let expected = [n, 2, 3, 4, 2 * n];
        assert_eq!(theirs.as_slice::<i32>().unwrap(), expected);
        let error = instance.output("y").unwrap_err().to_string();
        assert!(error.contains("memory of the caller's"), "{error}");
    }
    // What was bound to one run is not for the next.
    let error = instance.run(&[("n", 0)]).unwrap_err().to_string();
    assert!(error.contains("`x` was not given"), "{error}");
    instance
        .set_input("x", View::from_slice(&[9, 9, 9, 9]))
        .unwrap();
    instance.run(&[("n", 3)]).unwrap();
    assert_eq!(output(&instance, "y"), [9, 9, 9, 9, 6]);
    assert_eq!(theirs.as_slice::<i32>().unwrap(), [2, 2, 3, 4, 4]);
}

#[test]
fn handles_find_what_names_find() {
    let mut instance = instance(copying());
    let plan = instance.executable().plan();
    let (x, y) = (
        plan.find_input("x").unwrap(),
        plan.find_output("y").unwrap(),
    );
    let error = plan.find_input("y").unwrap_err().to_string();
    assert!(error.contains("no input `y`; there are: `x`"), "{error}");
    let input = instance.input_at(x).unwrap();
    input.into_slice::<i32>().unwrap().fill(5);
    let variables = &[4];
    instance
        .run_with(Run {
            variables,
            ..Run::default()
        })
        .unwrap();
    let got = instance.output_at(y).unwrap();
    assert_eq!(got.as_slice::<i32>().unwrap(), [5, 5, 5, 5, 8]);
    for variables in [&[][..], &[1, 2], &[10]] {
        let run = Run {
            variables,
            ..Run::default()
        };
        assert!(matches!(instance.run_with(run), Err(Error::Run { .. })));
    }
}

#[test]
fn memory_that_does_not_fit_is_refused_and_nothing_runs() {
    let mut plan = copying();
    // A part of a buffer, and a state: no output that could lie elsewhere.
    let s = plan.state("s", DType::I32, &[4]).unwrap();
    plan.result("state", s.buffer, 0, DType::I32, &[4]).unwrap();
    plan.result("some of y", 1, 0, DType::I32, &[4]).unwrap();
    let bits = plan.input("bits", DType::Bool, &[2]).unwrap();
    let more = plan.output("more", DType::Bool, &[2]).unwrap();
    plan.copy(bits, more).unwrap();
    let mut instance = instance(plan);
    let plan = instance.executable().plan();
    let [x, bits] = ["x", "bits"].map(|name| plan.find_input(name).unwrap());
    let [y, state, some] = ["y", "state", "some of y"].map(|name| plan.find_output(name).unwrap());
    let mut refused =
        |inputs: &[(InputId, View<'_>)], outputs: &mut [(OutputId, ViewMut<'_>)], word: &str| {
            let run = Run {
                variables: &[0],
                inputs,
                outputs,
                ..Run::default()
            };
            let error = instance.run_with(run).unwrap_err();
            assert!(matches!(error, Error::Run { .. }), "{error:?}");
            assert!(error.to_string().contains(word), "{error}");
        };
    let good = View::from_slice(&[1, 2, 3, 4]);
    let floats = View::from_slice(&[0.0_f32; 4]);
    refused(&[(x, floats)], &mut [], "bound to f32");
    let short = good.slice(1..4).unwrap();
    refused(&[(x, short)], &mut [], "bound to 3");
    refused(&[(x, good), (x, good)], &mut [], "`x` is bound twice");
    let bytes = Buffer::zeroed(DType::U8, 32).unwrap();
    // SAFETY: 16 bytes of the buffer, from its second on.
    let odd = unsafe {
        let start = NonNull::from_ref(&bytes.as_slice::<u8>().unwrap()[1]);
        View::from_raw(start, DType::I32, 4)
    };
    refused(&[(x, odd)], &mut [], "1 bytes past a multiple of 4");
    let bytes = Buffer::from_slice(&[0_u8, 7]).unwrap();
    // SAFETY: two bytes of the buffer; that they are no bools is what is to be found.
    let no_bools = unsafe {
        let start = NonNull::from_ref(&bytes.as_slice::<u8>().unwrap()[0]);
        View::from_raw(start, DType::Bool, 2)
    };
    let word = "element 1 of `bits` is no bool";
    refused(&[(x, good), (bits, no_bools)], &mut [], word);

    let mut room = [0; 5];
    let four = || vec![0; 4];
    for (output, word) in [
        (state, "`state` cannot be bound"),
        (some, "`some of y` cannot be bound"),
        (y, "has 5 elements, and is bound to 4"),
    ] {
        let mut four = four();
        refused(&[], &mut [(output, ViewMut::from_slice(&mut four))], word);
    }
    let start = NonNull::from_mut(&mut room).cast();
    // SAFETY: within the array; that one is not exclusive is what is to be found.
    let (inside, all) = unsafe {
        let inside = View::from_raw(start, DType::I32, 4);
        (inside, ViewMut::from_raw(start, DType::I32, 5))
    };
    let word = "`x` and `y` are bound to overlaps";
    refused(&[(x, inside)], &mut [(y, all)], word);
}

#[test]
fn what_is_bound_may_be_shared_where_nobody_writes_it() {
    let mut plan = PlanBuilder::new("sum");
    let [a, b] = ["a", "b"].map(|name| plan.input(name, DType::I32, &[4]).unwrap());
    let y = plan.output("y", DType::I32, &[4]).unwrap();
    plan.copy(a, y).unwrap();
    plan.host("add", &[b.read(), y.read_write()], add).unwrap();
    let mut instance = instance(plan);
    let plan = instance.executable().plan();
    let [a, b] = ["a", "b"].map(|name| plan.find_input(name).unwrap());
    let same = [1, 2, 3, 4];
    let inputs = &[(a, View::from_slice(&same)), (b, View::from_slice(&same))];
    instance
        .run_with(Run {
            inputs,
            ..Run::default()
        })
        .unwrap();
    assert_eq!(output(&instance, "y"), [2, 4, 6, 8]);
}

// ---------------------------------------------------------------------------
// Runs that are stopped
// ---------------------------------------------------------------------------

#[test]
fn a_run_is_cancelled_from_another_thread_between_two_ops() {
    let cancel = Cancel::new();
    let started = Arc::new(std::sync::Barrier::new(2));
    let mut plan = PlanBuilder::new("long");
    let y = plan.output("y", DType::I32, &[1]).unwrap();
    plan.fill(y, DType::I32, 1).unwrap();
    let (meet, switch) = (started.clone(), cancel.clone());
    let wait = move |_: &mut [Arg<'_>]| {
        meet.wait();
        while !switch.is_cancelled() {
            std::thread::yield_now();
        }
        Ok(())
    };
    plan.host("wait", &[y.read_write()], wait).unwrap();
    plan.fill(y, DType::I32, 2).unwrap();
    let mut instance = instance(plan);
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            started.wait();
            cancel.cancel();
        });
        let run = Run {
            cancel: Some(&cancel),
            ..Run::default()
        };
        instance.run_with(run).unwrap_err()
    });
    assert!(
        matches!(
            error,
            Error::Cancelled {
                op: 2,
                done: 2,
                of: 3
            }
        ),
        "{error:?}"
    );
    assert_eq!(output(&instance, "y"), [1]);
    // The switch stays where it is until it is reset.
    let again = Run {
        cancel: Some(&cancel),
        ..Run::default()
    };
    let error = instance.run_with(again).unwrap_err();
    assert!(matches!(error, Error::Cancelled { op: 0, done: 0, .. }));
    assert!(!instance.is_torn());
}

#[test]
fn a_deadline_stops_a_run_before_its_next_op() {
    let mut instance = instance(running_total());
    instance
        .set_input("x", View::from_slice(&[1, 1, 1, 1]))
        .unwrap();
    let at = |deadline| Run {
        deadline: Some(deadline),
        ..Run::default()
    };
    let error = instance.run_with(at(Instant::now())).unwrap_err();
    assert!(
        matches!(error, Error::DeadlinePassed { done: 0, of: 3, .. }),
        "{error:?}"
    );
    assert!(!instance.is_torn());
    instance
        .run_with(at(Instant::now() + Duration::from_secs(3600)))
        .unwrap();
    assert_eq!(output(&instance, "y"), [1; 4]);
}

#[test]
fn an_instance_is_torn_where_a_state_had_been_written() {
    // Cancelled before each op in turn, and once not at all.
    for stop in 0..=5_usize {
        let mut plan = PlanBuilder::new("torn");
        let x = plan.input("x", DType::I32, &[1]).unwrap();
        let s = plan.state("s", DType::I32, &[1]).unwrap();
        let t = plan.temp(DType::I32, &[1]).unwrap();
        let y = plan.output("y", DType::I32, &[1]).unwrap();
        plan.copy(x, t).unwrap();
        plan.copy(t, y).unwrap();
        plan.host("add", &[t.read(), s.read_write()], add).unwrap();
        plan.copy(s, y).unwrap();
        plan.fill(t, DType::I32, 0).unwrap();
        let mut instance = instance(plan);
        instance.set_input("x", View::from_slice(&[7])).unwrap();
        instance.run(&[]).unwrap();
        let saved = instance.save();

        let cancel = Cancel::new();
        let switch = cancel.clone();
        let begun = AtomicUsize::new(0);
        instance.set_observer(move |_| {
            if begun.fetch_add(1, Ordering::Relaxed) + 1 == stop {
                switch.cancel();
            }
        });
        if stop == 0 {
            cancel.cancel();
        }
        let run = || Run {
            cancel: Some(&cancel),
            ..Run::default()
        };
        let result = instance.run_with(run());
        cancel.reset();
        if stop == 5 {
            result.unwrap();
            assert_eq!(state(&instance, "s"), [14]);
            continue;
        }
        assert!(matches!(result, Err(Error::Cancelled { done, .. }) if done == stop));
        // The third op writes the state.
        assert_eq!(instance.is_torn(), stop >= 3, "{stop}");
        if instance.is_torn() {
            assert!(matches!(instance.run(&[]), Err(Error::Torn)));
            instance.restore(&saved).unwrap();
        }
        instance.run(&[]).unwrap();
        assert_eq!(state(&instance, "s"), [14]);
        assert_eq!(output(&instance, "y"), [14]);
    }
}

#[test]
fn an_observer_that_panics_leaves_states_as_a_run_that_failed() {
    // The third op writes the state.
    for (at, torn) in [(2, false), (3, true)] {
        let mut plan = running_total();
        let z = plan.output("z", DType::I32, &[1]).unwrap();
        plan.fill(z, DType::I32, 1).unwrap();
        let mut instance = instance(plan);
        instance
            .set_input("x", View::from_slice(&[1, 1, 1, 1]))
            .unwrap();
        instance.set_observer(move |op| assert!(op != at, "enough"));
        let run = || instance.run(&[]);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        assert!(panicked.is_err());
        assert_eq!(instance.is_torn(), torn);
    }
}

#[test]
fn what_each_op_took_is_added_up() {
    let mut instance = instance(running_total());
    instance
        .set_input("x", View::from_slice(&[1, 1, 1, 1]))
        .unwrap();
    let mut timings = Timings::new(instance.executable().plan());
    for _ in 0..3 {
        let run = Run {
            timings: Some(&mut timings),
            ..Run::default()
        };
        instance.run_with(run).unwrap();
    }
    for op in timings.ops() {
        assert_eq!(op.runs, 3);
        assert!(op.min <= op.mean() && op.mean() <= op.total, "{op:?}");
    }
    assert_eq!(output(&instance, "y"), [3; 4]);
}

// ---------------------------------------------------------------------------
// States and constants
// ---------------------------------------------------------------------------

#[test]
fn states_are_each_instance_s_own_and_are_saved_and_restored_across() {
    let contents = vec![(1, Constant::from(common::from_slice(&[10, 20, 30, 40])))];
    let mut first = with_contents(running_total(), contents);
    let mut second = first.executable().instance().unwrap();
    for instance in [&mut first, &mut second] {
        instance
            .set_input("x", View::from_slice(&[1, 1, 1, 1]))
            .unwrap();
    }
    first.run(&[]).unwrap();
    first.run(&[]).unwrap();
    assert_eq!(state(&first, "total"), [12, 22, 32, 42]);
    assert_eq!(state(&second, "total"), [10, 20, 30, 40]);
    let saved = first.save();
    first.run(&[]).unwrap();
    second.restore(&saved).unwrap();
    second.run(&[]).unwrap();
    assert_eq!(state(&second, "total"), state(&first, "total"));
    first.reset();
    assert_eq!(state(&first, "total"), [10, 20, 30, 40]);
    let view = second.state_mut("total").unwrap();
    view.into_slice::<i32>().unwrap().fill(0);
    second.run(&[]).unwrap();
    assert_eq!(output(&second, "y"), [1; 4]);

    let mut stranger = instance(running_total());
    let error = stranger.restore(&saved).unwrap_err().to_string();
    assert!(error.contains("another executable"), "{error}");
    let error = stranger.state("y").unwrap_err().to_string();
    assert_eq!(error, "there is no state `y`; there are: `total`");
}

/// `y = w`, and the address of `w` in the log.
fn weighted() -> (PlanBuilder, Arc<std::sync::Mutex<Vec<usize>>>) {
    let log = Arc::<std::sync::Mutex<Vec<_>>>::default();
    let mut plan = PlanBuilder::new("weighted");
    let w = plan.constant("w", DType::I32, &[4]).unwrap();
    let y = plan.output("y", DType::I32, &[4]).unwrap();
    let seen = log.clone();
    let look = move |args: &mut [Arg<'_>]| {
        if let Arg::Read(w) = &args[0] {
            seen.lock().unwrap().push(w.as_bytes().as_ptr().addr());
        }
        Ok(())
    };
    plan.host("look", &[w.read()], look).unwrap();
    plan.copy(w, y).unwrap();
    (plan, log)
}

#[test]
fn a_constant_is_there_once_however_many_instances() {
    let (plan, log) = weighted();
    let w = Constant::from(common::from_slice(&[1, 2, 3, 4]));
    let executable = Executable::new(plan.build().unwrap(), vec![], [(0, w)]).unwrap();
    let instances = [0, 1, 2].map(|_| executable.instance().unwrap());
    for mut instance in instances {
        instance.run(&[]).unwrap();
        assert_eq!(output(&instance, "y"), [1, 2, 3, 4]);
    }
    let log = log.lock().unwrap();
    assert_eq!(log.len(), 3);
    assert!(log.iter().all(|at| *at == log[0]));
    let content = executable.contents()[0].as_ref().unwrap();
    assert_eq!(content.as_bytes().as_ptr().addr(), log[0]);
}

#[test]
fn a_weight_is_replaced_by_name_for_all_or_for_one_instance() {
    let constant = |elements: &[i32]| Constant::from(common::from_slice(elements));
    let (plan, _) = weighted();
    let mut one = with_contents(plan, vec![(0, constant(&[1, 2, 3, 4]))]);
    let mut other = one.executable().instance().unwrap();
    one.replace_constant("w", &constant(&[5, 6, 7, 8])).unwrap();
    for instance in [&mut one, &mut other] {
        instance.run(&[]).unwrap();
    }
    assert_eq!(output(&one, "y"), [5, 6, 7, 8]);
    assert_eq!(output(&other, "y"), [1, 2, 3, 4]);
    let nine = constant(&[9; 4]);
    let executable = other.executable().clone().with_weight("w", &nine).unwrap();
    let mut third = executable.instance().unwrap();
    third.run(&[]).unwrap();
    other.run(&[]).unwrap();
    assert_eq!(output(&third, "y"), [9; 4]);
    assert_eq!(output(&other, "y"), [1, 2, 3, 4]);

    let refused = |error: Error, word: &str| {
        assert!(error.to_string().contains(word), "{error}");
    };
    refused(
        one.replace_constant("w", &constant(&[1, 2])).unwrap_err(),
        "8 bytes for 16",
    );
    let floats = Constant::from(common::from_slice(&[0.0_f32; 4]));
    refused(
        one.replace_constant("w", &floats).unwrap_err(),
        "contents of f32 for i32",
    );
    refused(one.replace_constant("y", &nine).unwrap_err(), "`y`");
    refused(executable.with_weight("v", &nine).unwrap_err(), "`v`");
    let mut total = instance(running_total());
    refused(
        total.replace_constant("total", &nine).unwrap_err(),
        "no constant `total`",
    );
    // What a state holds at the start is a weight as well.
    let executable = total.executable().clone();
    let executable = executable.with_weight("total", &nine).unwrap();
    assert_eq!(state(&executable.instance().unwrap(), "total"), [9; 4]);
    one.run(&[]).unwrap();
    assert_eq!(output(&one, "y"), [5, 6, 7, 8]);
}

#[test]
fn memory_that_was_given_back_is_there_again_and_holds_nothing() {
    let mut plan = PlanBuilder::new("trimmed");
    let seen = Arc::new(AtomicUsize::new(0));
    let t = plan.temp(DType::I32, &[1 << 20]).unwrap();
    let log = seen.clone();
    let look = move |args: &mut [Arg<'_>]| {
        if let [Arg::Write(t)] = args {
            let t = t.reborrow().into_slice::<i32>()?;
            log.store(t[1 << 19] as usize, Ordering::Relaxed);
        }
        Ok(())
    };
    plan.host("look", &[t.read_write()], look).unwrap();
    plan.fill(t, DType::I32, 7).unwrap();
    let executable = Executable::new(plan.build().unwrap(), vec![], []).unwrap();
    // A temp that is separate or guarded stays.
    let mut instance = executable.instance().unwrap();
    let mut found = || {
        instance.run(&[]).unwrap();
        seen.load(Ordering::Relaxed)
    };
    assert_eq!((found(), found()), (0, 7));
    instance.trim();
    instance.run(&[]).unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), 0);
}

#[test]
fn what_was_saved_of_a_torn_instance_is_torn() {
    let mut plan = running_total();
    let y = plan.output("z", DType::I32, &[1]).unwrap();
    plan.host("fail", &[y.write()], |_| Err("no".into()))
        .unwrap();
    let mut first = instance(plan);
    first
        .set_input("x", View::from_slice(&[1, 1, 1, 1]))
        .unwrap();
    first.run(&[]).unwrap_err();
    assert!(first.is_torn());
    let mut second = first.executable().instance().unwrap();
    second.restore(&first.save()).unwrap();
    assert!(second.is_torn());
    second.reset();
    first.restore(&second.save()).unwrap();
    assert!(!first.is_torn());
}

#[test]
fn a_bound_run_that_was_refused_leaves_the_last_result() {
    let mut instance = instance(copying());
    let plan = instance.executable().plan();
    let y = plan.find_output("y").unwrap();
    instance
        .set_input("x", View::from_slice(&[1, 2, 3, 4]))
        .unwrap();
    instance.run(&[("n", 1)]).unwrap();
    let mut mine = [0; 5];
    let mut twice = [0; 5];
    let outputs = &mut [
        (y, ViewMut::from_slice(&mut mine)),
        (y, ViewMut::from_slice(&mut twice)),
    ];
    let run = Run {
        variables: &[1],
        outputs,
        ..Run::default()
    };
    instance.run_with(run).unwrap_err();
    assert_eq!(output(&instance, "y"), [1, 2, 3, 4, 2]);
}

#[test]
fn untyped_memory_is_bound_as_what_its_output_is() {
    let mut plan = PlanBuilder::new("untyped");
    let y = plan.bytes(None, Role::Output, 8).unwrap();
    plan.result("y", y, 0, DType::I32, &[2]).unwrap();
    let y = plan.whole(y).unwrap();
    plan.fill(y, DType::I32, 5).unwrap();
    let mut instance = instance(plan);
    let y = instance.executable().plan().find_output("y").unwrap();
    let mut mine = [0; 2];
    let outputs = &mut [(y, ViewMut::from_slice(&mut mine))];
    instance
        .run_with(Run {
            outputs,
            ..Run::default()
        })
        .unwrap();
    assert_eq!(mine, [5, 5]);
}

#[test]
fn a_name_that_nothing_has_is_answered_with_those_that_there_are() {
    let (plan, _) = weighted();
    let w = Constant::from(common::from_slice(&[1, 2, 3, 4]));
    let mut instance = with_contents(plan, vec![(0, w.clone())]);
    let says = |error: Error, text: &str| {
        assert!(matches!(error, Error::UnknownName { .. }), "{error:?}");
        assert_eq!(error.to_string(), text);
    };
    says(
        instance.output("z").unwrap_err(),
        "there is no output `z`; there are: `y`",
    );
    says(
        instance.state("z").unwrap_err(),
        "there is no state `z`; there are: none",
    );
    says(
        instance.replace_constant("z", &w).unwrap_err(),
        "there is no constant `z`; there are: `w`",
    );
    says(
        instance.run(&[("z", 1)]).unwrap_err(),
        "there is no variable `z`; there are: none",
    );
    let mut instance = self::instance(copying());
    instance
        .set_input("x", View::from_slice(&[1, 2, 3, 4]))
        .unwrap();
    let error = instance.run(&[("n", 1), ("n", 2)]).unwrap_err();
    assert!(error.to_string().contains("`n` has two values"), "{error}");
}

// ---- Memory that is lent for good

/// An executable of `y = 2x + c`: buffer 0 is `x`, 1 is `c`, a state, and 2 is `y`.
fn doubling() -> Executable {
    let mut plan = PlanBuilder::new("doubling");
    let x = plan.input("x", DType::I32, &[4]).unwrap();
    let c = plan.state("c", DType::I32, &[4]).unwrap();
    let y = plan.output("y", DType::I32, &[4]).unwrap();
    plan.copy(c, y).unwrap();
    for _ in 0..2 {
        plan.host("add", &[x.read(), y.read_write()], add).unwrap();
    }
    let executable = Executable::new(plan.build().unwrap(), vec![], []).unwrap();
    executable.with_guard(common::guard())
}

#[test]
fn lent_memory_is_read_and_written_in_every_run() {
    let mut x = [1, 2, 3, 4];
    let mut y = [0; 4];
    let (at_x, at_y) = (NonNull::from(&mut x).cast(), NonNull::from(&mut y).cast());
    // SAFETY: both arrays outlive the instance, and are used between its runs only.
    let mut instance = unsafe { doubling().instance_over([(0, at_x), (2, at_y)]) }.unwrap();
    instance.run(&[]).unwrap();
    // SAFETY: the array, through the pointer that the instance has.
    assert_eq!(unsafe { at_y.cast::<[i32; 4]>().read() }, [2, 4, 6, 8]);
    assert_eq!(output(&instance, "y"), [2, 4, 6, 8]);
    // SAFETY: as above.
    unsafe { at_x.cast::<[i32; 4]>().write([5, 5, 5, 5]) };
    instance.run(&[]).unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { at_y.cast::<[i32; 4]>().read() }, [10; 4]);
    // What one run binds is for that run; the next one is over the lent memory again.
    let (given, mut got) = ([100; 4], [0; 4]);
    let plan = doubling();
    let (id_x, id_y) = (
        plan.plan().find_input("x").unwrap(),
        plan.plan().find_output("y").unwrap(),
    );
    let bound = Run {
        inputs: &[(id_x, View::from_slice(&given))],
        outputs: &mut [(id_y, ViewMut::from_slice(&mut got))],
        ..Run::default()
    };
    instance.run_with(bound).unwrap();
    assert_eq!(got, [200; 4]);
    // SAFETY: as above.
    assert_eq!(unsafe { at_y.cast::<[i32; 4]>().read() }, [10; 4]);
    instance.run(&[]).unwrap();
    assert_eq!(output(&instance, "y"), [10; 4]);
}

#[test]
fn lent_inputs_are_written_where_they_lie_and_others_are_still_to_be_given() {
    let (mut x, mut y) = ([1; 4], [0; 4]);
    let (at_x, at_y) = (NonNull::from(&mut x).cast(), NonNull::from(&mut y).cast());
    // SAFETY: the arrays outlive the instances, and are used between runs only.
    let (mut over_x, mut over_y) = unsafe {
        let over = |memory| doubling().instance_over([memory]).unwrap();
        (over((0, at_x)), over((2, at_y)))
    };
    let refused = over_x.input("x").unwrap_err().to_string();
    assert!(refused.contains("memory of the caller's"), "{refused}");
    over_x.run(&[]).unwrap();
    assert_eq!(output(&over_x, "y"), [2; 4]);
    let missing = over_y.run(&[]).unwrap_err().to_string();
    assert!(missing.contains("was not given"), "{missing}");
}

#[test]
fn memory_is_lent_to_inputs_and_outputs_once_and_aligned() {
    let mut memory = [0_i32; 8];
    let start: NonNull<u8> = NonNull::from(&mut memory).cast();
    let refused = |memory: &[(usize, NonNull<u8>)]| {
        // SAFETY: an instance that is not made uses nothing.
        let instance = unsafe { doubling().instance_over(memory.iter().copied()) };
        instance.unwrap_err().to_string()
    };
    assert!(refused(&[(1, start)]).contains("it is a state"));
    assert!(refused(&[(7, start)]).contains("buffer 7 of 3"));
    assert!(refused(&[(0, start), (0, start)]).contains("lent twice"));
    // SAFETY: within the array.
    let odd = unsafe { start.byte_add(2) };
    assert!(refused(&[(0, odd)]).contains("2 bytes past a multiple of 4"));
}

#[test]
fn lent_memory_does_not_count_against_a_cap() {
    let (mut x, mut y) = ([1; 4], [0; 4]);
    let (at_x, at_y) = (NonNull::from(&mut x).cast(), NonNull::from(&mut y).cast());
    let capped = doubling().with_memory_cap(16);
    assert!(matches!(capped.instance(), Err(Error::MemoryCap { .. })));
    // SAFETY: the arrays outlive the instance.
    let instance = unsafe { capped.instance_over([(0, at_x), (2, at_y)]) };
    assert!(instance.is_ok(), "{instance:?}");
}
