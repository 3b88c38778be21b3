//! Guarded memory and fillings: what a kernel does beside its buffers, and what it
//! reads that nobody wrote, is found and named. What ends the process is the
//! command's to test, which starts one.
//!
//! The kernels here are functions of this program, so that no compiler is needed.

// A helper of a test says what it expects by failing, as the test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use support::{Files, output};
use svod_runtime::memory::{Filling, Guard, Stray};
use svod_runtime::plan::{Executable, Instance, PlanBuilder, Role, Run};
use svod_runtime::signature::Returns;
use svod_runtime::{
    Arg, Bounds, Buffer, DType, Error, Kernel, Runtime, Scalar, Signature, View, ViewMut,
};

const GUARDS: [Guard; 2] = [Guard::End, Guard::Start];

/// Elements of the buffers here: with four bytes each, and aligned to 16, there are 8
/// bytes of slack past their end where that is guarded, and before their start none
/// where that is.
const LEN: usize = 10;

/// Writes 1 to `x[at]` and returns `status`.
extern "C" fn poke(x: *mut f32, at: i32, status: i32) -> i32 {
    // SAFETY: called over guarded buffers, whose slack the tests below stay in.
    unsafe { x.offset(at as isize).write_volatile(1.0) };
    status
}

/// It says of itself that it stays within its buffer, and for some `at` it does not.
fn poke_kernel() -> Kernel {
    let signature = Signature::builder()
        .write(DType::F32, LEN)
        .scalar(DType::I32, "at", Bounds::Any)
        .scalar(DType::I32, "status", Bounds::Any)
        .returns(Returns::Status)
        .build()
        .unwrap();
    // SAFETY: not so, and what is tested; each test keeps it within mapped memory
    // that belongs to the buffer.
    unsafe { Kernel::from_entry("poke", poke as *const _, signature) }
}

fn guarded(guard: Guard) -> Buffer {
    Buffer::guarded(DType::F32, LEN, 16, guard).unwrap()
}

fn launch(x: ViewMut<'_>, at: i32, status: i32) -> Result<(), Error> {
    let scalars = [Scalar::I32(at), Scalar::I32(status)];
    poke_kernel().launch(&mut [x.into()], &scalars, 1)
}

/// Where it was, of an error that is an overrun by `poke`.
#[track_caller]
fn overrun(result: Result<(), Error>) -> (usize, Option<String>, Stray) {
    match result {
        Err(Error::Overrun {
            kernel,
            op: _,
            argument,
            buffer,
            stray,
        }) => {
            assert_eq!(kernel, "poke");
            (argument, buffer, stray)
        }
        other => panic!("no overrun: {other:?}"),
    }
}

const fn past_end(nearest: usize, farthest: usize) -> Stray {
    Stray {
        past_end: true,
        nearest,
        farthest,
    }
}

#[test]
fn a_write_past_the_end_is_an_error_that_says_where() {
    for guard in GUARDS {
        let mut x = guarded(guard);
        launch(x.as_view_mut(), LEN as i32 - 1, 0).unwrap();
        let found = overrun(launch(x.as_view_mut(), LEN as i32, 0));
        assert_eq!(found, (0, None, past_end(1, 4)));
        let found = overrun(launch(x.as_view_mut(), LEN as i32 + 1, 0));
        assert_eq!(found, (0, None, past_end(5, 8)));
        // It is told once, of the launch that did it.
        launch(x.as_view_mut(), 0, 0).unwrap();
    }
}

#[test]
fn a_write_before_the_start_is_found_where_there_is_slack() {
    let mut x = guarded(Guard::End);
    let (_, _, stray) = overrun(launch(x.as_view_mut(), -2, 0));
    assert_eq!(stray.to_string(), "bytes 5 to 8 before its start");
}

#[test]
fn a_part_of_a_buffer_knows_its_guard() {
    let mut x = Buffer::guarded(DType::F32, 2 * LEN + 2, 16, Guard::End).unwrap();
    // 88 bytes, and 8 of slack.
    let part = x.view_mut(12..22).unwrap();
    let (mut first, second) = part.split_at(0).unwrap();
    assert!(first.reborrow().is_empty());
    assert_eq!(overrun(launch(second, 10, 0)).2, past_end(1, 4));
    // Within the buffer nobody looks.
    launch(x.view_mut(0..10).unwrap(), 10, 0).unwrap();
}

#[test]
fn an_output_of_untyped_bytes_is_aligned_to_its_elements() {
    for guard in GUARDS {
        let mut plan = PlanBuilder::new("outputs");
        let bytes = plan.bytes(None, Role::Output, 13).unwrap();
        plan.result("o", bytes, 4, DType::F32, &[2]).unwrap();
        let executable = Executable::new(plan.build().unwrap(), vec![], []).unwrap();
        let instance = executable.with_guard(guard).instance().unwrap();
        let zeros = instance.output("o").unwrap().as_slice::<f32>().unwrap();
        assert_eq!(zeros, [0.0; 2], "{guard:?}");
    }
}

#[test]
fn an_overrun_is_told_rather_than_the_failure_that_it_may_have_led_to() {
    let mut x = guarded(Guard::End);
    overrun(launch(x.as_view_mut(), LEN as i32, 7));
    let failed = launch(x.as_view_mut(), 0, 7);
    assert!(matches!(failed, Err(Error::KernelStatus { status: 7, .. })));
}

#[test]
fn the_argument_is_named_of_several() {
    extern "C" fn second(_: *const f32, y: *mut f32) {
        // SAFETY: within the slack of the guarded buffer below.
        unsafe { y.add(LEN).write_volatile(1.0) };
    }
    let signature = Signature::builder()
        .read(DType::F32, LEN)
        .write(DType::F32, LEN)
        .build()
        .unwrap();
    // SAFETY: as `poke`.
    let kernel = unsafe { Kernel::from_entry("poke", second as *const _, signature) };
    let (x, mut y) = (guarded(Guard::End), guarded(Guard::End));
    let found = overrun(kernel.launch(&mut [Arg::from(&x), Arg::from(&mut y)], &[], 1));
    assert_eq!(found, (1, None, past_end(1, 4)));
}

#[test]
fn a_runtime_gives_buffers_as_it_is_told() {
    for guard in Guard::ALL {
        let runtime = Runtime::builder().guard(guard).build().unwrap();
        assert_eq!(runtime.guard(), guard);
        let mut x = runtime.buffer(DType::F32, 16).unwrap();
        assert_eq!(x.as_slice::<f32>().unwrap(), [0.0; 16]);
        launch(x.as_view_mut(), 15, 0).unwrap();
    }
    assert_eq!(Runtime::builder().build().unwrap().guard(), Guard::Off);
    assert_eq!(Guard::from_name("end"), Some(Guard::End));
    assert_eq!(Guard::from_name("both"), None);
}

// ---------------------------------------------------------------------------
// Instances
// ---------------------------------------------------------------------------

/// A plan that pokes a state, and then an output.
fn poking(state_at: i64, output_at: i64) -> Executable {
    let mut plan = PlanBuilder::new("poking");
    plan.kernel("poke", poke_kernel().signature().clone());
    let state = plan
        .buffer(Some("state"), Role::State, DType::F32, &[LEN])
        .unwrap();
    let output = plan.buffer(None, Role::Output, DType::F32, &[LEN]).unwrap();
    for (buffer, at) in [(state, state_at), (output, output_at)] {
        let range = plan.whole(buffer).unwrap();
        let scalars = [("at", at.into()), ("status", 0.into())];
        plan.launch(0, &[range], &scalars, 1).unwrap();
    }
    plan.result("state", state, 0, DType::F32, &[LEN]).unwrap();
    plan.result("y", output, 0, DType::F32, &[LEN]).unwrap();
    Executable::new(plan.build().unwrap(), vec![poke_kernel()], []).unwrap()
}

fn instance_of(executable: Executable, guard: Guard) -> Instance {
    executable.with_guard(guard).instance().unwrap()
}

#[test]
fn a_run_names_the_buffer_and_is_torn_like_any_that_failed() {
    for guard in GUARDS {
        let mut instance = instance_of(poking(0, LEN as i64), guard);
        assert_eq!(instance.executable().guard(), guard);
        let (argument, buffer, stray) = overrun(instance.run(&[]));
        assert_eq!((argument, stray), (0, past_end(1, 4)));
        assert_eq!(buffer.as_deref(), Some("output #1"));
        assert!(instance.is_torn());
        instance.reset();
        let error = instance.run(&[]).unwrap_err().to_string();
        for word in [
            "`poke`",
            "argument 0",
            "output #1",
            "bytes 1 to 4 past its end",
        ] {
            assert!(error.contains(word), "{error}");
        }

        let mut instance = instance_of(poking(LEN as i64, 0), guard);
        let (_, buffer, _) = overrun(instance.run(&[]));
        assert_eq!(buffer.as_deref(), Some("state `state`"));
        assert!(instance.is_torn());
    }
}

#[test]
fn guarded_memory_of_the_caller_s_is_looked_at_whatever_the_instance_is() {
    for guard in Guard::ALL {
        let mut instance = instance_of(poking(0, LEN as i64), guard);
        let y = instance.executable().plan().find_output("y").unwrap();
        let mut mine = guarded(Guard::End);
        let outputs = &mut [(y, mine.as_view_mut())];
        let result = instance.run_with(Run {
            outputs,
            ..Run::default()
        });
        let (argument, buffer, stray) = overrun(result);
        assert_eq!((argument, stray), (0, past_end(1, 4)));
        assert_eq!(buffer.as_deref(), Some("output #1"));
    }
}

#[test]
fn a_guarded_run_computes_what_any_other_does() {
    let files = Files::small();
    let run = |executable: Executable| {
        let mut instance = executable.instance().unwrap();
        instance
            .set_input("x", View::from_slice(&support::X))
            .unwrap();
        instance.run(&[("n", 8)]).unwrap();
        instance.run(&[("n", 8)]).unwrap();
        (
            output::<f32>(&instance, "y"),
            output::<i64>(&instance, "runs"),
        )
    };
    for guard in Guard::ALL {
        let executable = files.load().unwrap().with_guard(guard);
        assert_eq!(run(executable), (support::Y.to_vec(), vec![2]));
    }
}

#[test]
fn a_bundle_is_guarded_as_the_runtime_is_that_loads_it() {
    let files = Files::small();
    let bundle = files.open().unwrap();
    for guard in Guard::ALL {
        let runtime = svod_runtime::RuntimeBuilder::from_env().guard(guard);
        // SAFETY: as for `Files::load`.
        let executable = unsafe { bundle.load(&runtime.build().unwrap(), &|_| {}) };
        assert_eq!(executable.unwrap().guard(), guard);
    }
}

#[test]
fn an_observer_is_told_of_each_op_right_before_it() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut instance = instance_of(poking(LEN as i64, 0), Guard::End);
    let sink = seen.clone();
    instance.set_observer(move |op| sink.lock().unwrap().push(op));
    instance.run(&[]).unwrap_err();
    // The second is never reached.
    assert_eq!(*seen.lock().unwrap(), [0]);

    let count = Arc::new(AtomicUsize::new(0));
    let mut instance = instance_of(poking(0, 0), Guard::Off);
    let counter = count.clone();
    instance.set_observer(move |op| {
        assert_eq!(op, counter.fetch_add(1, Ordering::Relaxed) % 2);
    });
    instance.run(&[]).unwrap();
    instance.run(&[]).unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 4);
}

// ---------------------------------------------------------------------------
// Fillings
// ---------------------------------------------------------------------------

/// `y[0]` is `x[0]`, `y[1]` is whatever `t[0]` is, and `y[2]` stays.
extern "C" fn leak(y: *mut f32, x: *const f32, t: *const f32) {
    // SAFETY: within three elements of each.
    unsafe {
        *y = *x;
        *y.add(1) = *t;
    }
}

fn leaking() -> Executable {
    let signature = Signature::builder()
        .write(DType::F32, 3)
        .read(DType::F32, 3)
        .read(DType::F32, 3)
        .build()
        .unwrap();
    let mut plan = PlanBuilder::new("leaking");
    plan.kernel("leak", signature.clone());
    let roles = [Role::Output, Role::State, Role::Temp];
    let buffers = roles.map(|role| plan.buffer(None, role, DType::F32, &[3]).unwrap());
    let args = buffers.map(|b| plan.whole(b).unwrap());
    plan.launch(0, &args, &[], 1).unwrap();
    plan.result("y", buffers[0], 0, DType::F32, &[3]).unwrap();
    plan.result("x", buffers[1], 0, DType::F32, &[3]).unwrap();
    // SAFETY: it touches what the signature says.
    let kernel = unsafe { Kernel::from_entry("leak", leak as *const _, signature) };
    let x = Buffer::from_slice(&[5.0_f32, 6.0, 7.0]).unwrap();
    Executable::new(plan.build().unwrap(), vec![kernel], [(1, x.into())]).unwrap()
}

#[test]
fn what_was_never_written_depends_on_the_filling_and_states_do_not() {
    for guard in Guard::ALL {
        let mut instance = instance_of(leaking(), guard);
        for (filling, same) in [
            (Filling::Ones, f32::is_nan as fn(f32) -> bool),
            (Filling::Hundreds, |v| v == 100.0),
        ] {
            instance.fill_scratch(filling).unwrap();
            instance.run(&[]).unwrap();
            let y = output::<f32>(&instance, "y");
            assert_eq!(y[0], 5.0);
            assert!(same(y[1]) && same(y[2]), "{filling:?}: {y:?}");
            assert_eq!(output::<f32>(&instance, "x"), [5.0, 6.0, 7.0]);
        }
    }
}

#[test]
fn a_recorded_run_names_the_outputs_that_depend_on_the_filling() {
    // The kernel leaves out y[n..], and what it left out is copied to `rest`.
    let mut files = Files::with_kernels(
        json!({
            "variables": {"n": {"min": 0, "max": 4}},
            "kernels": [{"entry": "some", "source": "kernels/some.c", "language": "c", "params": [
                {"buffer": "f32", "len": 4, "access": "w"},
                {"scalar": "i32", "name": "n", "min": 0, "max": 4},
            ]}],
            "buffers": [
                {"role": "output", "dtype": "f32", "shape": [4]},
                {"role": "output", "dtype": "f32", "shape": [1]},
            ],
            "ops": [
                {"launch": 0, "args": [0], "scalars": {"n": {"var": "n"}}},
                {"copy": {"from": {"buffer": 0, "offset": 12, "bytes": 4}, "to": 1}},
            ],
            "outputs": [
                {"name": "y", "buffer": 0, "dtype": "f32", "shape": [4]},
                {"name": "rest", "buffer": 1, "dtype": "f32", "shape": [1]},
            ],
        }),
        &[(
            "some",
            "void some(float *y, int n) { for (int i = 0; i < n; i++) y[i] = i; }",
        )],
    );
    files.npy("y.npy", &[4], &[0.0_f32, 1.0, 2.0, 3.0]);
    let tests =
        [4, 2].map(|n| json!({"variables": {"n": n}, "inputs": {}, "outputs": {"y": "y.npy"}}));
    files.set("/tests", json!(tests));
    let bundle = files.open().unwrap();
    let executable = files.load().unwrap();
    let [mut first, mut second] = [(), ()].map(|()| executable.instance().unwrap());
    let mut run = |test| {
        let report = bundle.run_test_filled(&bundle.tests()[test], &mut first, &mut second);
        report.unwrap()
    };
    let whole = run(0);
    assert!(whole.is_steady() && whole.is_exact());
    let part = run(1);
    assert!(!part.is_steady());
    let found = part.unsteady.iter().map(|o| {
        let d = &o.difference;
        (o.name.as_str(), d.elements, d.other_bits, d.first)
    });
    let expected = [("y", 4, 2, Some(2)), ("rest", 1, 1, Some(0))];
    assert_eq!(found.collect::<Vec<_>>(), expected);
}
