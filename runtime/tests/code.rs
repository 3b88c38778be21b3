//! Code that is replaced between two runs: each run has one code from its first op to its last,
//! and what is not code stays as it was.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use svod_runtime::link::Image;
use svod_runtime::plan::{
    Executable, Instance, LearnedSchedule, Plan, PlanBuilder, Run, Schedule, Scheduling, Timings,
};
use svod_runtime::pool::Pool;
use svod_runtime::signature::{Convention, Param, Returns};
use svod_runtime::{Arg, Bounds, DType, Error, Guard, Kernel, Signature};

/// Kernels of every kind of call, which write which code they are: with a grid, in C's
/// convention and packed; with a status; with a float in a register; and below with more arguments
/// than an inline call has, and than there are trampolines for.
const KERNELS: &str = "
void grid(int *y, int i) { y[i] = CODE; }
void packed(int **buffers, long long *values) { buffers[0][values[0]] = CODE; }
int status(int *y) { y[0] = CODE; return 0; }
void one(int *y) { y[0] = CODE; }
void floats(int *y, float k) { y[0] = (int)(k * CODE); }
";
const NAMES: [&str; 7] = ["grid", "packed", "status", "one", "floats", "many", "more"];
const MANY: usize = 20;
const MORE: usize = 40;

/// How many elements these write, each of them once.
const WRITTEN: usize = 4 + 4 + 1 + 1 + 1 + MANY + MORE;

fn signature(name: &str) -> Signature {
    let (buffers, len) = match name {
        "grid" | "packed" => (1, 4),
        "many" => (MANY, 1),
        "more" => (MORE, 1),
        _ => (1, 1),
    };
    let write = |b: svod_runtime::signature::SignatureBuilder, _| b.write(DType::I32, len).align(4);
    let plain = (0..buffers).fold(Signature::builder(), write);
    let signature = match name {
        "grid" => plain.index(DType::I32, 4),
        "packed" => plain.index(DType::I64, 4).convention(Convention::Packed),
        "status" => plain.returns(Returns::Status),
        "floats" => plain.scalar(DType::F32, "k", Bounds::Any),
        _ => plain,
    };
    signature.build().unwrap()
}

/// An image of the kernels that write 0, 1 or 2: another one each time.
fn image(code: usize) -> Arc<Image> {
    static OBJECTS: [OnceLock<Vec<u8>>; 3] = [const { OnceLock::new() }; 3];
    let wide = |name: &str, count: usize| {
        let params: Vec<_> = (0..count).map(|i| format!("int *y{i}")).collect();
        let body: String = (0..count).map(|i| format!("*y{i} = CODE; ")).collect();
        format!("void {name}({}) {{ {body}}}\n", params.join(", "))
    };
    let object = OBJECTS[code].get_or_init(|| {
        let (many, more) = (wide("many", MANY), wide("more", MORE));
        let text = format!("#define CODE {code}\n{KERNELS}{many}{more}");
        common::object(common::with(&common::compilers()[0]), &text)
    });
    common::load(object).unwrap()
}

fn kernels_of(image: &Arc<Image>) -> Vec<Kernel> {
    // SAFETY: each function is of its signature's prototype, and writes the element of each
    // buffer that there is, or that of the index.
    let kernel = |name| unsafe { common::kernel(image, name, signature(name)) };
    NAMES.map(kernel).into()
}

/// Kernels that write 0, 1 or 2.
fn kernels(code: usize) -> Vec<Kernel> {
    kernels_of(&image(code))
}

/// A plan in which all kernels write one output, then `between` happens, and then they write
/// another.
fn plan(between: impl Fn() + Send + Sync + 'static) -> Plan {
    let mut plan = PlanBuilder::new("which code");
    let numbers = NAMES.map(|name| plan.kernel(name, signature(name)));
    let halves = HALVES.map(|name| plan.output(name, DType::I32, &[WRITTEN]).unwrap());
    let launch_all = |plan: &mut PlanBuilder, half| {
        let mut next = 0;
        for (name, kernel) in NAMES.into_iter().zip(numbers) {
            let signature = signature(name);
            let buffers: Vec<_> = (signature.buffers())
                .map(|param| {
                    next += param.len;
                    plan.view(half, next - param.len..next).unwrap()
                })
                .collect();
            let has_index = |param: &Param| matches!(param, Param::Index(_));
            let grid = if signature.params().iter().any(has_index) {
                4
            } else {
                1
            };
            let k = [("k", 1.into())];
            let scalars = if name == "floats" { &k[..] } else { &[] };
            plan.launch(kernel, &buffers, scalars, grid).unwrap();
        }
        assert_eq!(next, WRITTEN);
    };
    launch_all(&mut plan, halves[0]);
    let call = move |_: &mut [Arg<'_>]| {
        between();
        Ok(())
    };
    // So that all that comes before and after has to.
    let args = halves.map(|half| half.read_write());
    plan.host("between", &args, call).unwrap();
    launch_all(&mut plan, halves[1]);
    plan.build().unwrap()
}

const HALVES: [&str; 2] = ["first", "second"];

/// An executable whose kernels write 0.
fn executable() -> Executable {
    Executable::new(plan(|| ()), kernels(0), []).unwrap()
}

/// What all ops of the last run wrote.
#[track_caller]
fn written(instance: &Instance) -> i32 {
    let all = HALVES.map(|half| {
        instance
            .output(half)
            .unwrap()
            .as_slice::<i32>()
            .unwrap()
            .to_vec()
    });
    let first = all[0][0];
    assert!(all.iter().flatten().all(|&y| y == first), "{all:?}");
    first
}

#[track_caller]
fn run(instance: &mut Instance) -> i32 {
    instance.run(&[]).unwrap();
    written(instance)
}

fn two_threads() -> Pool {
    Pool::builder().threads(2).build()
}

/// Executables that are of one program, and differ in how they run.
fn kin(executable: &Executable) -> Vec<Executable> {
    let waves = Schedule::waves(executable.plan(), 4);
    let pooled = executable.clone().with_pool(two_threads());
    vec![
        executable.clone(),
        executable.clone().with_separate_temps(),
        executable.clone().with_guard(Guard::End),
        executable.clone().with_schedule(&waves).unwrap(),
        pooled.clone(),
        pooled.clone().with_scheduling(Scheduling::Off),
        pooled.with_schedule(&waves).unwrap(),
    ]
}

#[test]
fn every_instance_of_all_kin_has_other_code_from_its_next_run_on() {
    let executable = executable();
    let kin = kin(&executable);
    let mut instances: Vec<_> = kin.iter().map(|e| e.instance().unwrap()).collect();
    for instance in &mut instances {
        assert_eq!((run(instance), instance.code_generation()), (0, 0));
    }
    // By whichever of them.
    for (n, by) in kin.iter().enumerate() {
        let code = [1, 2, 0][n % 3];
        by.replace_code(kernels(code)).unwrap();
        let schedules: Vec<_> = kin.iter().map(Executable::schedule).collect();
        instances.extend([by.instance().unwrap(), kin[6].instance().unwrap()]);
        for instance in &mut instances {
            assert_eq!(instance.executable().code_generation(), n as u32 + 1);
            assert_eq!(run(instance), code as i32);
            assert_eq!(instance.code_generation(), n as u32 + 1);
        }
        assert!(schedules[3].phases.len() > 1 && schedules[3] == schedules[6]);
    }
    // What is made of them afterwards has it too.
    for executable in self::kin(&executable) {
        let last = [1, 2, 0][(kin.len() - 1) % 3];
        assert_eq!(run(&mut executable.instance().unwrap()), last);
        assert_eq!(executable.code_generation(), kin.len() as u32);
    }
}

#[test]
fn runs_that_are_watched_have_it_too() {
    for executable in kin(&executable()) {
        let mut instance = executable.instance().unwrap();
        let mut timings = Timings::new(executable.plan());
        executable.replace_code(kernels(1)).unwrap();
        let timed = Run {
            timings: Some(&mut timings),
            ..Run::default()
        };
        instance.run_with(timed).unwrap();
        assert_eq!(written(&instance), 1);
        instance.set_observer(|_| ());
        executable.replace_code(kernels(2)).unwrap();
        assert_eq!(run(&mut instance), 2);
    }
}

#[test]
fn a_run_in_which_the_code_is_replaced_ends_with_the_one_that_it_began_with() {
    let slot: Arc<Mutex<Option<Executable>>> = Arc::default();
    let code = Arc::new(AtomicU32::new(0));
    let between = {
        let (slot, code) = (slot.clone(), code.clone());
        move || {
            let next = (code.load(Ordering::Relaxed) + 1) % 3;
            // The last that has the code before is this run.
            let executable = slot.lock().unwrap();
            let replaced = executable
                .as_ref()
                .unwrap()
                .replace_code(kernels(next as usize));
            drop(replaced.unwrap());
            code.store(next, Ordering::Relaxed);
        }
    };
    let executable = Executable::new(plan(between), kernels(0), []).unwrap();
    *slot.lock().unwrap() = Some(executable.clone());
    for executable in kin(&executable) {
        let mut instance = executable.instance().unwrap();
        for _ in 0..40 {
            let before = code.load(Ordering::Relaxed);
            assert_eq!(run(&mut instance), before as i32);
        }
    }
    // Its plan has the function that has the slot.
    slot.lock().unwrap().take();
}

#[test]
fn no_run_of_eight_threads_has_code_of_two_generations() {
    for executable in kin(&executable()) {
        // A multiple of three, as they are all of one program.
        let before = executable.code_generation();
        let (is_over, seen) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut instance = executable.instance().unwrap();
                    let (mut last, mut changes) = (before, 0_usize);
                    while !is_over.load(Ordering::Acquire) {
                        let wrote = run(&mut instance);
                        let generation = instance.code_generation();
                        assert_eq!(wrote, (generation % 3) as i32);
                        // None comes back.
                        assert!(generation >= last);
                        changes += usize::from(generation > last);
                        last = generation;
                    }
                    // What was there before the threads were told is there now.
                    run(&mut instance);
                    seen.lock()
                        .unwrap()
                        .push((instance.code_generation(), changes));
                });
            }
            let codes = [0, 1, 2].map(kernels);
            for n in 1..=60 {
                drop(executable.replace_code(codes[n % 3].clone()).unwrap());
            }
            is_over.store(true, Ordering::Release);
        });
        let seen = seen.into_inner().unwrap();
        assert!(
            seen.iter().all(|(last, _)| *last == before + 60),
            "{seen:?}"
        );
    }
}

#[test]
fn old_code_goes_with_the_last_that_has_it() {
    let first = image(0);
    let executable = Executable::new(plan(|| ()), kernels_of(&first), []).unwrap();
    let kin = kin(&executable);
    let mut instances: Vec<_> = kin.iter().map(|e| e.instance().unwrap()).collect();
    for instance in &mut instances {
        run(instance);
    }
    let old: Weak<Image> = Arc::downgrade(&first);
    drop(first);
    let replaced = executable.replace_code(kernels(1)).unwrap();
    // All but the last get on with the new; and what never runs again goes itself.
    let idle = instances.pop();
    for instance in &mut instances {
        run(instance);
    }
    assert!(replaced.is_in_use());
    drop(idle);
    assert!(!replaced.is_in_use());
    assert!(old.strong_count() > 0);
    drop(replaced);
    assert_eq!(old.strong_count(), 0);

    // Where nobody keeps it, the run that finds new code lets go of it.
    let second = executable.kernels();
    drop(executable.replace_code(kernels(2)).unwrap());
    drop(second);
    let image = image(0);
    let old = Arc::downgrade(&image);
    drop(executable.replace_code(kernels_of(&image)).unwrap());
    drop(image);
    run(&mut instances[0]);
    drop(executable.replace_code(kernels(2)).unwrap());
    assert!(old.strong_count() > 0);
    run(&mut instances[0]);
    assert_eq!(old.strong_count(), 0);
}

#[test]
fn kernels_that_are_not_the_plans_are_refused_and_change_nothing() {
    let executable = executable();
    let mut instance = executable.instance().unwrap();
    let place = |kernels: Vec<Kernel>| match executable.replace_code(kernels) {
        Err(Error::Plan { place, .. }) => place.to_string(),
        other => panic!("{other:?}"),
    };
    let mut fewer = kernels(1);
    fewer.pop();
    assert_eq!(place(fewer), "kernels");
    let mut swapped = kernels(1);
    swapped.swap(0, 1);
    assert_eq!(place(swapped), "kernels[0]");
    // Of the same signature, with another name.
    let mut renamed = kernels(1);
    // SAFETY: `one` takes an `int *` and writes the element.
    renamed[3] = unsafe { Kernel::new("one", image(1), signature("one")) }.unwrap();
    assert!(executable.clone().replace_code(renamed).is_ok());
    executable.replace_code(kernels(0)).unwrap();
    let mut other = kernels(1);
    // SAFETY: as above; it returns nothing.
    other[3] = unsafe { Kernel::from_entry("two", image_entry(), signature("one")) };
    assert_eq!(place(other), "kernels[3]");
    assert_eq!(run(&mut instance), 0);
    assert_eq!(executable.code_generation(), 2);
}

/// The address of a function `void (int *)`.
fn image_entry() -> *const std::ffi::c_void {
    extern "C" fn nothing(_: *mut i32) {}
    nothing as *const std::ffi::c_void
}

#[test]
fn where_someone_vouched_for_the_kernels_someone_vouches_again() {
    // Bytes of unknown origin as `bool`.
    let signature = Signature::builder().write(DType::Bool, 4).build().unwrap();
    let mut plan = PlanBuilder::new("bools");
    let kernel = plan.kernel("one", signature.clone());
    let bytes = plan.bytes(None, svod_runtime::plan::Role::Temp, 4).unwrap();
    let bytes = plan.whole(bytes).unwrap();
    let y = plan.output("y", DType::U8, &[4]).unwrap();
    plan.launch(kernel, &[bytes], &[], 1).unwrap();
    plan.copy(bytes, y).unwrap();
    let reads = Signature::builder().read(DType::Bool, 4).build().unwrap();
    let reader = plan.kernel("reader", reads.clone());
    plan.launch(reader, &[bytes], &[], 1).unwrap();
    let plan = plan.build().unwrap();
    let code = || {
        let entry = image_entry();
        // SAFETY: a function that does nothing with one pointer.
        unsafe {
            vec![
                Kernel::from_entry("one", entry, signature.clone()),
                Kernel::from_entry("reader", entry, reads.clone()),
            ]
        }
    };
    assert!(Executable::new(plan.clone(), code(), []).is_err());
    // SAFETY: the kernels read nothing.
    let executable = unsafe { Executable::new_unchecked(plan, code(), []) }.unwrap();
    assert!(matches!(
        executable.replace_code(code()),
        Err(Error::Plan { .. })
    ));
    assert_eq!(executable.code_generation(), 0);
    // SAFETY: as above.
    unsafe { executable.replace_code_unchecked(code()) }.unwrap();
    assert_eq!(executable.code_generation(), 1);
}

/// `y[0] = step * (number of the call)`: a kernel that keeps state, and one that has none.
fn counting(step: i32, keeps_state: bool) -> Vec<Kernel> {
    let word = if keeps_state { "static" } else { "" };
    let text = format!("void count(int *y) {{ {word} int n = 0; n += 1; *y = {step} * n; }}");
    let object = common::object(common::with(&common::compilers()[0]), &text);
    let image = common::load_state(&object).unwrap();
    let signature = Signature::builder().write(DType::I32, 1).build().unwrap();
    // SAFETY: it writes one element.
    vec![unsafe { common::kernel(&image, "count", signature) }]
}

#[test]
fn variables_of_a_kernels_own_begin_anew_with_other_code() {
    let mut plan = PlanBuilder::new("count");
    let first = counting(1, true);
    let kernel = plan.kernel("count", first[0].signature().clone());
    let (a, b) = ("a", "b");
    for name in [a, b] {
        let y = plan.output(name, DType::I32, &[1]).unwrap();
        plan.launch(kernel, &[y], &[], 1).unwrap();
    }
    let plan = plan.build().unwrap();
    let waves = Schedule::waves(&plan, 1);
    let executable = Executable::new(plan, first, []).unwrap();
    let executable = executable.with_pool(two_threads());
    let executable = executable.with_schedule(&waves).unwrap();
    let mut instance = executable.instance().unwrap();
    let mut run = || {
        instance.run(&[]).unwrap();
        let value = |name| instance.output(name).unwrap().as_slice::<i32>().unwrap()[0];
        [a, b].map(value)
    };
    // Calls of kernels with state keep their order, with two threads too.
    assert_eq!([run(), run()], [[1, 2], [3, 4]]);
    executable.replace_code(counting(10, true)).unwrap();
    assert_eq!([run(), run()], [[10, 20], [30, 40]]);
    executable.replace_code(counting(100, false)).unwrap();
    assert_eq!([run(), run()], [[100, 100]; 2]);
    executable.replace_code(counting(1, true)).unwrap();
    assert_eq!([run(), run()], [[1, 2], [3, 4]]);
}

// ---------------------------------------------------------------------------
// What was learned
// ---------------------------------------------------------------------------

/// Runs until nothing is being learned, for so many runs at most.
fn learn(executable: &Executable) -> usize {
    let mut instance = executable.instance().unwrap();
    let runs = (0..1000).take_while(|_| executable.is_learning() && run(&mut instance) >= 0);
    runs.count()
}

#[test]
fn a_schedule_that_was_learned_is_kept_and_learned_anew() {
    let executable = executable().with_pool(two_threads());
    assert!(learn(&executable) > 4);
    let learned = executable.learned().unwrap();
    executable.replace_code(kernels(1)).unwrap();
    assert_eq!(executable.schedule(), learned.schedule);
    assert!(executable.is_learning());
    assert!(learn(&executable) > 4);
    assert!(executable.learned().unwrap().op_nanos != learned.op_nanos);
}

#[test]
fn learning_that_new_code_interrupts_begins_anew() {
    let whole = learn(&executable().with_pool(two_threads()));
    for after in 0..whole {
        let executable = executable().with_pool(two_threads());
        let mut instance = executable.instance().unwrap();
        for _ in 0..after {
            assert_eq!(run(&mut instance), 0);
        }
        executable.replace_code(kernels(1)).unwrap();
        assert!(executable.is_learning());
        assert!(executable.learned().is_none());
        assert_eq!(run(&mut instance), 1);
        assert!(learn(&executable) > 4);
        assert_eq!(run(&mut instance), 1);
    }
}

#[test]
fn nothing_is_learned_about_provisional_code() {
    let executable = executable().with_provisional_code();
    let executable = executable.with_pool(two_threads());
    let mut instance = executable.instance().unwrap();
    for _ in 0..2500 {
        assert!(!executable.is_learning());
        assert_eq!(run(&mut instance), 0);
    }
    assert!(executable.learned().is_none());
    executable.replace_code(kernels(1)).unwrap();
    assert!(executable.is_learning() && learn(&executable) > 4);
    assert!(executable.learned().is_some());
    // It is another code that was provisional.
    let later = executable.with_pool(two_threads());
    assert!(later.is_learning());
}

#[test]
fn what_was_learned_before_outlives_provisional_code() {
    let before = executable().with_pool(two_threads());
    learn(&before);
    let learned = LearnedSchedule {
        schedule: Schedule::waves(before.plan(), 2),
        ..before.learned().unwrap()
    };
    let executable = executable().with_provisional_code();
    let executable = executable.with_pool(two_threads());
    let executable = executable.with_learned(learned.clone()).unwrap();
    let mut instance = executable.instance().unwrap();
    assert_eq!(run(&mut instance), 0);
    executable.replace_code(kernels(1)).unwrap();
    assert_eq!(run(&mut instance), 1);
    assert!(!executable.is_learning());
    assert_eq!(executable.learned().unwrap(), learned);
    assert_eq!(executable.schedule(), learned.schedule);
    // With the next code there is nothing that it was learned for.
    executable.replace_code(kernels(2)).unwrap();
    assert!(executable.is_learning());
    assert_eq!(executable.schedule(), learned.schedule);
}
