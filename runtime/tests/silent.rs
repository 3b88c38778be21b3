//! A run allocates nothing and asks nothing of the system: shown by counting every
//! allocation, and by running where a system call ends the process.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod counting;

use std::ffi::c_void;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use counting::{allocations, allocations_of_all};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use svod_runtime::plan::{
    Cancel, Executable, Instance, Operator, PlanBuilder, Run, Schedule, Timings, Value,
};
use svod_runtime::pool::Pool;
use svod_runtime::signature::{Convention, Param, Returns};
use svod_runtime::{Arg, Bounds, Buffer, DType, Kernel, Signature, View};

/// `y[i] += x[i] + k`, by C's convention.
unsafe extern "C" fn add(y: *mut i32, x: *const i32, k: i32, i: i32) {
    // SAFETY: the plan gives both four elements, and a grid of four at most.
    unsafe { *y.add(i as usize) += *x.add(i as usize) + k };
}

/// `y[0] += 1`, by the packed convention, with a status.
unsafe extern "C" fn bump(buffers: *const *mut i32, _values: *const i64) -> i32 {
    // SAFETY: the plan gives one buffer of one element.
    unsafe { **buffers += 1 };
    0
}

/// `y[0] += k`, whose scalar travels in a floating-point register.
unsafe extern "C" fn shift(y: *mut i32, k: f32) {
    // SAFETY: the plan gives one element.
    unsafe { *y += k as i32 };
}

/// An instance of a plan with every kind of op and of call, on this thread.
fn instance() -> Instance {
    instance_of(executable())
}

/// The same on two threads, by a schedule that leaves work to both.
fn instance_with_team() -> Instance {
    let executable = executable();
    let waves = Schedule::waves(executable.plan(), 2);
    // Where nobody waits awake, everyone has to be woken.
    let pool = Pool::builder().threads(2);
    let pool = pool.spin(Duration::ZERO, Duration::ZERO).build();
    // A thread that starts allocates, and asks the system for this and that.
    on_both(&pool, || {});
    instance_of(executable.with_pool(pool).with_schedule(&waves).unwrap())
}

/// Has both threads of a pool meet, and each do something.
fn on_both(pool: &Pool, act: impl Fn() + Clone + Send + Sync + 'static) {
    let mut plan = PlanBuilder::new("meet");
    let both = std::sync::Arc::new(std::sync::Barrier::new(2));
    for name in ["a", "b"] {
        let y = plan.output(name, DType::I32, &[1]).unwrap();
        let (both, act) = (both.clone(), act.clone());
        let meet = move |_: &mut [Arg<'_>]| {
            both.wait();
            act();
            Ok(())
        };
        plan.host(name, &[y.write()], meet).unwrap();
    }
    let plan = plan.build().unwrap();
    let waves = Schedule::waves(&plan, 1);
    let executable = Executable::new(plan, vec![], []).unwrap();
    let executable = executable.with_pool(pool.clone());
    let executable = executable.with_schedule(&waves).unwrap();
    executable.instance().unwrap().run(&[]).unwrap();
}

fn instance_of(executable: Executable) -> Instance {
    let mut instance = executable.instance().unwrap();
    instance
        .set_input("x", View::from_slice(&[1, 2, 3, 4]))
        .unwrap();
    instance
}

/// A plan with every kind of op and of call.
fn executable() -> Executable {
    let four = |b: svod_runtime::signature::SignatureBuilder| {
        b.read_write(DType::I32, 4)
            .read(DType::I32, 4)
            .scalar(DType::I32, "k", Bounds::integers(0, 100))
            .index(DType::I32, 4)
            .build()
            .unwrap()
    };
    let one = Signature::builder().read_write(DType::I32, 1).build();
    let one: Vec<Param> = one.unwrap().params().to_vec();
    let packed = Signature::new(one.clone(), Convention::Packed, Returns::Status).unwrap();
    let float = Signature::builder()
        .read_write(DType::I32, 1)
        .scalar(DType::F32, "k", Bounds::Any)
        .build()
        .unwrap();
    let signatures = [four(Signature::builder()), packed, float];
    let entries = [
        add as *const c_void,
        bump as *const c_void,
        shift as *const c_void,
    ];
    let mut plan = PlanBuilder::new("all kinds");
    let n = plan.variable("n", 0, 4).unwrap();
    let [add, bump, shift] = [0, 1, 2].map(|i| plan.kernel("k", signatures[i].clone()));
    let x = plan.input("x", DType::I32, &[4]).unwrap();
    let s = plan.state("s", DType::I32, &[8]).unwrap();
    let t = plan.temp(DType::I32, &[4]).unwrap();
    let y = plan.output("y", DType::I32, &[8]).unwrap();
    let twice = Value::op(Operator::Mul, n, 2);
    plan.fill(t, DType::I32, twice.clone()).unwrap();
    plan.launch(add, &[t, x], &[("k", twice)], n).unwrap();
    plan.launch(add, &[s.part(0..16), t], &[("k", 1.into())], 4)
        .unwrap();
    plan.launch(bump, &[s.part(0..4)], &[], 1).unwrap();
    plan.launch(shift, &[s.part(16..20)], &[("k", 3.into())], 1)
        .unwrap();
    plan.copy(s, y).unwrap();
    let double = |args: &mut [Arg<'_>]| {
        let [Arg::Write(y)] = args else { return Ok(()) };
        let y = y.reborrow().into_slice::<i32>()?;
        y.iter_mut().for_each(|y| *y *= 2);
        Ok(())
    };
    plan.host("double", &[y.read_write()], double).unwrap();
    let kernels = signatures
        .into_iter()
        .zip(entries)
        .map(|(signature, entry)| {
            // SAFETY: each entry is of its signature's prototype and does what that says.
            unsafe { Kernel::from_entry("k", entry, signature) }
        });
    Executable::new(plan.build().unwrap(), kernels.collect(), []).unwrap()
}

fn result(instance: &Instance) -> Vec<i32> {
    let y = instance.output("y").unwrap();
    y.as_slice().unwrap().to_vec()
}

#[test]
fn a_run_allocates_nothing() {
    let mut instance = instance();
    let plan = instance.executable().plan().clone();
    let (x, y) = (
        plan.find_input("x").unwrap(),
        plan.find_output("y").unwrap(),
    );
    let mut timings = Timings::new(&plan);
    let cancel = Cancel::new();
    let given = Buffer::from_slice(&[1, 2, 3, 4]).unwrap();
    let mut got = Buffer::zeroed(DType::I32, 8).unwrap();
    let deadline = Instant::now() + Duration::from_secs(3600);
    // The first call through libffi may set something up.
    instance.run(&[("n", 1)]).unwrap();
    let mut run = |n: i64| {
        instance.run(&[("n", n)]).unwrap();
        let variables = &[n];
        instance
            .run_with(Run {
                variables,
                inputs: &[(x, given.as_view())],
                outputs: &mut [(y, got.as_view_mut())],
                ..Run::default()
            })
            .unwrap();
        instance
            .run_with(Run {
                variables,
                cancel: Some(&cancel),
                deadline: Some(deadline),
                timings: Some(&mut timings),
                ..Run::default()
            })
            .unwrap();
        instance.reset();
    };
    let asked = allocations(|| [1, 1, 2, 4, 0].into_iter().for_each(&mut run));
    assert_eq!(asked, 0);
    let asked = allocations(|| drop(std::hint::black_box(Box::new(1))));
    assert_eq!(asked, 2, "the counter counts");
}

#[test]
fn nor_does_one_that_finds_other_code() {
    for mut instance in [instance(), instance_with_team()] {
        instance.run(&[("n", 1)]).unwrap();
        let executable = instance.executable().clone();
        for _ in 0..3 {
            // Kept, since it is for whoever drops it last to free the code before.
            let replaced = executable.replace_code(executable.kernels().to_vec());
            let asked = allocations(|| instance.run(&[("n", 1)]).unwrap());
            assert_eq!(asked, 0);
            assert_eq!(instance.code_generation(), executable.code_generation());
            assert!(!replaced.unwrap().is_in_use());
        }
        assert_eq!(instance.code_generation(), 3);
    }
}

/// Ends the process at any system call but these.
fn filter(permitted: &[i64]) -> BpfProgram {
    let filter = SeccompFilter::new(
        permitted.iter().map(|&call| (call, Vec::new())).collect(),
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into().unwrap(),
    );
    filter.unwrap().try_into().unwrap()
}

/// Ends the process at any system call of this thread, from now on.
fn permit_nothing() {
    seccompiler::apply_filter(&filter(&[])).unwrap();
}

/// Has another process do what `part` names, in a thread that may not call the system.
fn in_silence(part: &str) -> ExitStatus {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_part_that_runs_in_silence", "--nocapture"])
        .env("SVOD_TEST_SILENT", part)
        .output()
        .unwrap();
    child.status
}

/// What the tests below run in a process of its own; alone, it has nothing to do.
#[test]
fn the_part_that_runs_in_silence() {
    static DONE: AtomicBool = AtomicBool::new(false);
    let Ok(part) = std::env::var("SVOD_TEST_SILENT") else {
        return;
    };
    if let "count team" | "run team" | "call team" = &*part {
        with_team(&part);
    }
    let mut instance = instance();
    instance.run(&[("n", 1)]).unwrap();
    let cancel = Cancel::new();
    let plan = instance.executable().plan();
    let (x, y) = (
        plan.find_input("x").unwrap(),
        plan.find_output("y").unwrap(),
    );
    let given = Buffer::from_slice(&[1, 2, 3, 4]).unwrap();
    let mut got = Buffer::zeroed(DType::I32, 8).unwrap();
    // The first of the runs finds other code.
    let executable = instance.executable().clone();
    let replaced = executable.replace_code(executable.kernels().to_vec());
    let silent = std::thread::spawn(move || {
        permit_nothing();
        if part == "run" {
            for n in [1, 1, 2, 4] {
                let run = Run {
                    variables: &[n],
                    inputs: &[(x, given.as_view())],
                    outputs: &mut [(y, got.as_view_mut())],
                    cancel: Some(&cancel),
                    ..Run::default()
                };
                if instance.run(&[("n", n)]).is_err() || instance.run_with(run).is_err() {
                    // Not a silent end either.
                    std::process::abort();
                }
            }
        } else {
            std::thread::yield_now();
        }
        DONE.store(true, Ordering::Release);
        // Ending the thread would call the system.
        loop {
            std::hint::spin_loop();
        }
    });
    let _kept = replaced.unwrap();
    while !DONE.load(Ordering::Acquire) {
        // A thread that could not be silenced has panicked.
        if silent.is_finished() {
            std::process::abort();
        }
        std::thread::yield_now();
    }
    std::process::exit(0);
}

/// What a part does with a team, in a process that has nothing else to do.
fn with_team(part: &str) -> ! {
    unsafe extern "C" {
        safe fn _exit(code: i32) -> !;
    }
    #[cfg(target_arch = "x86_64")]
    const FUTEX_AND_EXIT_GROUP: [i64; 2] = [202, 231];
    #[cfg(target_arch = "aarch64")]
    const FUTEX_AND_EXIT_GROUP: [i64; 2] = [98, 94];

    let mut instance = instance_with_team();
    let pool = instance.executable().pool().clone();
    let plan = instance.executable().plan();
    let (x, y) = (
        plan.find_input("x").unwrap(),
        plan.find_output("y").unwrap(),
    );
    let (given, cancel) = (Buffer::from_slice(&[1, 2, 3, 4]).unwrap(), Cancel::new());
    let mut got = Buffer::zeroed(DType::I32, 8).unwrap();
    let mut is_right = true;
    let mut runs = |times: usize| {
        for n in (0..5).cycle().take(times) {
            let run = Run {
                variables: &[n],
                inputs: &[(x, given.as_view())],
                outputs: &mut [(y, got.as_view_mut())],
                cancel: Some(&cancel),
                ..Run::default()
            };
            is_right &= instance.run(&[("n", n)]).is_ok() && instance.run_with(run).is_ok();
            instance.reset();
        }
    };
    runs(100);
    if part == "count team" {
        // The harness's own thread may be allocating still, but not for long.
        let silent = (0..100).any(|_| allocations_of_all(|| runs(1000)) == 0);
        is_right &= silent;
        is_right &= allocations_of_all(|| drop(std::hint::black_box(Box::new(1)))) == 2;
        _exit(i32::from(!is_right));
    }
    // The team sleeps and wakes others by the one, and the test ends by the other.
    // Other threads are the harness's.
    let permitted = filter(&FUTEX_AND_EXIT_GROUP);
    on_both(&pool, move || {
        seccompiler::apply_filter(&permitted).unwrap();
    });
    runs(1000);
    if part == "call team" {
        std::thread::yield_now();
    }
    _exit(i32::from(!is_right))
}

#[test]
fn a_run_with_a_team_allocates_nothing_on_any_thread() {
    assert!(in_silence("count team").success());
}

#[test]
fn a_run_with_a_team_calls_the_system_to_sleep_and_to_wake_alone() {
    assert!(in_silence("run team").success());
}

#[test]
fn a_run_calls_the_system_for_nothing() {
    assert!(in_silence("run").success());
}

#[test]
fn whoever_calls_the_system_there_is_ended() {
    for part in ["call", "call team"] {
        let status = in_silence(part);
        // The signal for a bad system call.
        assert_eq!(status.signal(), Some(31), "{status}");
    }
}

#[test]
fn a_plan_of_all_kinds_computes_what_it_says() {
    for mut instance in [instance(), instance_with_team()] {
        instance.run(&[("n", 3)]).unwrap();
        // t = 6, of which three get x + 6; s = t + 1, and 1 more, and 3; doubled.
        let y = [13 + 1 + 1, 14 + 1, 15 + 1, 6 + 1, 3, 0, 0, 0];
        assert_eq!(result(&instance), y.map(|y| 2 * y));
    }
}
