//! Launches, lists of launches, plans and races in forked children, as one uses them.

// A helper of a test says what it expects by failing, as the test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use svod_runtime::bench::{Budget, Ending, measure_in, race_in};
use svod_runtime::memory::Guard;
use svod_runtime::plan::{Executable, Instance, PlanBuilder};
use svod_runtime::sandbox::{CrashIsolation, Fault, Launch, Limits, Outcome, TimeLimit, Untrusted};
use svod_runtime::signature::Returns;
use svod_runtime::{Bounds, Buffer, DType, Error, Kernel, Scalar, Signature, View};

const LEN: usize = 8;

/// Adds 1 to each element, and then does what it is told to: 1 loops, 2 returns a status, 3 writes
/// the element behind the last, 4 divides by zero.
extern "C" fn obey(x: *mut i32, what: i32) -> i32 {
    for i in 0..LEN {
        // SAFETY: the tests give it as many elements.
        unsafe { *x.add(i) += 1 };
    }
    match what {
        1 => loop {
            std::hint::spin_loop();
        },
        2 => return 7,
        // SAFETY: not so, and what is tested.
        3 => unsafe { x.add(LEN).write_volatile(0) },
        4 => divide_by_zero(),
        _ => {}
    }
    0
}

#[cfg(target_arch = "x86_64")]
fn divide_by_zero() {
    // SAFETY: it faults, which is what is tested.
    unsafe {
        std::arch::asm!("xor ecx, ecx", "div ecx", out("ecx") _, inout("eax") 1 => _, inout("edx") 0 => _);
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn divide_by_zero() {
    std::process::abort();
}

fn signature() -> Signature {
    Signature::builder()
        .read_write(DType::I32, LEN)
        .scalar(DType::I32, "what", Bounds::Any)
        .returns(Returns::Status)
        .build()
        .unwrap()
}

fn kernel() -> Kernel {
    // SAFETY: not so for each `what`, and what is tested: it runs in sandboxes alone.
    unsafe { Kernel::from_entry("obey", obey as *const _, signature()) }
}

fn short() -> CrashIsolation {
    CrashIsolation::new(Limits::default().wall(Duration::from_millis(200)))
}

fn launch<'a>(kernel: &'a Untrusted, x: &'a mut Buffer, what: i32) -> Launch<'a> {
    Launch::new(kernel, vec![x.into()], &[Scalar::I32(what)], 1)
}

#[test]
fn a_list_goes_on_behind_what_is_bad() {
    let kernel = Untrusted::new(kernel());
    let mut buffers: Vec<_> = (0..6)
        .map(|_| Buffer::zeroed(DType::I32, LEN).unwrap())
        .collect();
    let whats = [0, 3, 0, 1, 2, 0];
    let launches = buffers.iter_mut().zip(whats);
    let mut launches: Vec<_> = launches.map(|(x, what)| launch(&kernel, x, what)).collect();
    let outcomes = short().run_all(&mut launches).unwrap();
    drop(launches);
    for (i, outcome) in outcomes.iter().enumerate() {
        match (whats[i], outcome) {
            (0, Outcome::Completed { .. }) => {}
            (1, Outcome::TimedOut { limit, at, .. }) => {
                assert_eq!((*limit, at.kernel.as_str()), (TimeLimit::Wall, "obey"));
            }
            (2, Outcome::Failed(Error::KernelStatus { status: 7, .. })) => {}
            (3, Outcome::Crashed(crash)) => {
                assert_eq!(crash.fault, Fault::Memory);
                let access = crash.access.as_ref().unwrap();
                let place = access.argument.as_ref().unwrap();
                assert_eq!((place.argument, place.element, place.outside), (0, 8, 1));
                assert_eq!(access.write, Some(true));
            }
            (what, other) => panic!("{what}: {other}"),
        }
    }
    for (buffer, what) in buffers.iter().zip(whats) {
        let expected = i32::from(what == 0);
        assert_eq!(buffer.as_slice::<i32>().unwrap(), [expected; LEN], "{what}");
    }
}

#[test]
fn launches_of_a_list_share_memory_that_is_shared() {
    let kernel = Untrusted::new(kernel());
    let mut x = Buffer::shared(DType::I32, LEN, 16, Guard::End).unwrap();
    let sandbox = short();
    for _ in 0..3 {
        let outcome = sandbox.run(launch(&kernel, &mut x, 0)).unwrap();
        assert!(outcome.is_completed(), "{outcome}");
    }
    assert_eq!(x.as_slice::<i32>().unwrap(), [3; LEN]);
    // It was written before the fault, and nothing takes it back.
    let outcome = sandbox.run(launch(&kernel, &mut x, 4)).unwrap();
    assert!(matches!(outcome, Outcome::Crashed(_)), "{outcome}");
    assert_eq!(x.as_slice::<i32>().unwrap(), [4; LEN]);
}

#[test]
fn what_does_not_fit_its_signature_is_not_launched() {
    let kernel = Untrusted::new(kernel());
    let mut x = Buffer::zeroed(DType::I32, LEN - 1).unwrap();
    let outcome = short().run(launch(&kernel, &mut x, 0)).unwrap();
    assert!(
        matches!(outcome, Outcome::Failed(Error::Launch { .. })),
        "{outcome}"
    );
}

/// A plan of a launch on a state, after which an output is a copy of it.
fn instance(what: i32, guard: Guard) -> Instance {
    let mut plan = PlanBuilder::new("obey");
    let state = plan.state("s", DType::I32, &[LEN]).unwrap();
    let output = plan.output("y", DType::I32, &[LEN]).unwrap();
    let obey = plan.kernel("obey", signature());
    plan.launch(obey, &[state], &[("what", 0.into())], 1)
        .unwrap();
    plan.launch(obey, &[state], &[("what", i64::from(what).into())], 1)
        .unwrap();
    plan.copy(state, output).unwrap();
    let executable = Executable::new(plan.build().unwrap(), vec![kernel()], []).unwrap();
    executable.with_guard(guard).instance().unwrap()
}

#[test]
fn a_plan_in_a_child_is_a_plan_here() {
    for guard in Guard::ALL {
        let (mut here, mut there) = (instance(0, guard), instance(0, guard));
        for run in 1..4 {
            here.run(&[]).unwrap();
            let outcome = short().run_plan(&mut there, &[]).unwrap();
            assert!(outcome.is_completed(), "{outcome}");
            for side in [&here, &there] {
                let y = side.output("y").unwrap().as_slice::<i32>().unwrap();
                assert_eq!(y, [2 * run; LEN]);
                let s = side.state("s").unwrap().as_slice::<i32>().unwrap();
                assert_eq!(s, [2 * run; LEN]);
            }
        }
    }
}

#[test]
fn a_plan_that_goes_wrong_names_the_op_and_changes_nothing() {
    for (what, guard) in [
        (1, Guard::Off),
        (2, Guard::Off),
        (3, Guard::End),
        (4, Guard::Off),
    ] {
        let mut plan = instance(what, guard);
        plan.state_mut("s")
            .unwrap()
            .copy_from(View::from_slice(&[5_i32; LEN]))
            .unwrap();
        let outcome = short().run_plan(&mut plan, &[]).unwrap();
        match (what, &outcome) {
            (1, Outcome::TimedOut { at, .. }) => {
                assert_eq!((at.op, at.kernel.as_str()), (Some(1), "obey"));
            }
            (2, Outcome::Failed(Error::KernelStatus { op, status, .. })) => {
                assert_eq!((*op, *status), (Some(1), 7));
            }
            (3, Outcome::Crashed(crash)) => {
                assert_eq!((crash.at.op, crash.fault), (Some(1), Fault::Memory));
                let access = crash.access.as_ref().unwrap();
                let place = access.argument.as_ref().unwrap();
                assert_eq!((place.element, place.outside), (8, 1));
                assert_eq!(place.buffer.as_deref(), Some("state `s`"));
            }
            (4, Outcome::Crashed(crash)) if cfg!(target_arch = "x86_64") => {
                assert_eq!((crash.at.op, crash.fault), (Some(1), Fault::DivisionByZero));
            }
            (4, Outcome::Crashed(crash)) => assert_eq!(crash.at.op, Some(1)),
            (_, other) => panic!("{what}: {other}"),
        }
        assert!(!plan.is_torn());
        assert_eq!(
            plan.state("s").unwrap().as_slice::<i32>().unwrap(),
            [5; LEN]
        );
        assert_eq!(
            plan.output("y").unwrap().as_slice::<i32>().unwrap(),
            [0; LEN]
        );
    }
}

#[test]
fn what_cannot_begin_is_an_error_and_no_outcome() {
    let mut plan = instance(0, Guard::Off);
    let error = short().run_plan(&mut plan, &[("n", 1)]).unwrap_err();
    assert!(matches!(error, Error::UnknownName { .. }), "{error}");
}

#[test]
fn bad_candidates_are_left_out_of_a_race_and_reported() {
    let kernel = Untrusted::new(kernel());
    let mut buffers: Vec<_> = (0..5)
        .map(|_| Buffer::zeroed(DType::I32, LEN).unwrap())
        .collect();
    let launches = buffers.iter_mut().zip([4, 0, 1, 2, 0]);
    let mut launches: Vec<_> = launches.map(|(x, what)| launch(&kernel, x, what)).collect();
    let screened = race_in(&short(), &mut launches, &Budget::rounds(5)).unwrap();
    let samples: Vec<_> = (0..5).map(|i| screened.race.samples(i).len()).collect();
    assert_eq!(samples, [0, 5, 0, 0, 5]);
    let bad: Vec<_> = screened.bad.iter().map(|(i, _)| *i).collect();
    assert_eq!(bad, [0, 2, 3]);
    assert!(matches!(screened.race.fastest(), Some(1 | 4)));
    assert!(matches!(screened.bad[1].1, Outcome::TimedOut { .. }));
    drop(launches);
    // What measured runs write stays in the child.
    assert_eq!(buffers[1].as_slice::<i32>().unwrap(), [0; LEN]);
}

#[test]
fn a_candidate_that_goes_wrong_later_is_left_out_too() {
    /// Counts its calls in its argument, and crashes in the tenth.
    extern "C" fn tenth(x: *mut i32) {
        // SAFETY: the test gives it one element; the null is what is tested.
        unsafe {
            *x += 1;
            if *x == 10 {
                std::ptr::null_mut::<i32>().write_volatile(0);
            }
        }
    }
    let signature = Signature::builder()
        .read_write(DType::I32, 1)
        .build()
        .unwrap();
    // SAFETY: not so, and what is tested: it runs in sandboxes alone.
    let kernel = unsafe { Kernel::from_entry("tenth", tenth as *const _, signature) };
    let kernel = Untrusted::new(kernel);
    let (mut x, mut y) = (
        Buffer::zeroed(DType::I32, 1).unwrap(),
        Buffer::zeroed(DType::I32, 1).unwrap(),
    );
    y.as_mut_slice::<i32>().unwrap()[0] = 1000;
    let mut launches = [
        Launch::new(&kernel, vec![(&mut x).into()], &[], 1),
        Launch::new(&kernel, vec![(&mut y).into()], &[], 1),
    ];
    let screened = race_in(&short(), &mut launches, &Budget::rounds(20)).unwrap();
    assert_eq!(screened.race.samples(1).len(), 20);
    let [(0, Outcome::Crashed(crash))] = &screened.bad[..] else {
        panic!("{:?}", screened.bad);
    };
    assert_eq!(
        (crash.fault, crash.at.kernel.as_str()),
        (Fault::Memory, "tenth")
    );
}

#[test]
fn one_launch_is_measured_or_its_outcome_is_told() {
    let kernel = Untrusted::new(kernel());
    let mut x = Buffer::zeroed(DType::I32, LEN).unwrap();
    let budget = Budget::rounds(5);
    let measured = measure_in(&short(), launch(&kernel, &mut x, 0), &budget, None).unwrap();
    let measured = measured.unwrap();
    assert_eq!(
        (measured.samples().len(), measured.ending()),
        (5, Ending::Spent)
    );
    assert!(measured.times().median > 0.0);
    let outcome = measure_in(&short(), launch(&kernel, &mut x, 2), &budget, None).unwrap();
    assert!(matches!(outcome, Err(Outcome::Failed(_))));
}
