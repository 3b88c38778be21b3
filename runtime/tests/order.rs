//! What a plan says of itself before it runs: what must come before what and why, its
//! waves, where its temps lie, and which schedules it accepts.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use svod_runtime::plan::{BufferRange, Executable, Hazard, Plan, PlanBuilder, Role, Schedule};
use svod_runtime::{DType, Error, Guard, Signature};

/// The ops that each op waits for.
fn waits(plan: &Plan) -> Vec<Vec<usize>> {
    let of = |op| {
        plan.explain(op)
            .unwrap()
            .waits
            .iter()
            .map(|w| w.op)
            .collect()
    };
    (0..plan.ops().len()).map(of).collect()
}

fn waves(plan: &Plan) -> Vec<Vec<usize>> {
    plan.waves().map(Iterator::collect).collect()
}

/// A plan of 64-byte buffers: an input, a state, and as many temps as are asked for.
fn parts(temps: usize) -> (PlanBuilder, BufferRange, BufferRange, Vec<BufferRange>) {
    let mut plan = PlanBuilder::new("parts");
    let x = plan.input("x", DType::I32, &[16]).unwrap();
    let s = plan.state("s", DType::I32, &[16]).unwrap();
    let temps = (0..temps).map(|_| plan.temp(DType::I32, &[16]).unwrap());
    let temps = temps.collect();
    (plan, x, s, temps)
}

// ---------------------------------------------------------------------------
// Order
// ---------------------------------------------------------------------------

#[test]
fn two_ops_are_ordered_where_they_share_a_byte_that_one_of_them_writes() {
    let (mut plan, x, s, _) = parts(0);
    let half = |of, from: usize| plan_view(of, from, from + 8);
    plan.copy(half(x, 0), half(s, 0)).unwrap();
    plan.copy(half(x, 8), half(s, 8)).unwrap();
    // Reads a little of both.
    let y = plan.output("y", DType::I32, &[8]).unwrap();
    plan.copy(plan_view(s, 4, 12), y).unwrap();
    // Overwrites what only the first wrote, and the third read.
    plan.fill(plan_view(s, 0, 6), DType::I32, 0).unwrap();
    let plan = plan.build().unwrap();
    assert_eq!(waits(&plan), [vec![], vec![], vec![0, 1], vec![2]]);
    assert_eq!(waves(&plan), [vec![0, 1], vec![2], vec![3]]);
    assert_eq!((plan.depth(), plan.width(), plan.edges()), (3, 2, 3));
    assert_eq!(plan.critical_path(), [0, 2, 3]);
}

/// Elements `from..to` of a range of `i32`.
fn plan_view(of: BufferRange, from: usize, to: usize) -> BufferRange {
    of.part(4 * from..4 * to)
}

#[test]
fn a_partial_write_does_not_end_the_life_of_what_it_leaves() {
    let (mut plan, x, s, _) = parts(0);
    plan.copy(x, s).unwrap();
    plan.fill(plan_view(s, 4, 8), DType::I32, 7).unwrap();
    let y = plan.output("y", DType::I32, &[4]).unwrap();
    // What the fill left is the copy's still.
    plan.copy(plan_view(s, 8, 12), y).unwrap();
    let plan = plan.build().unwrap();
    assert_eq!(waits(&plan), [vec![], vec![0], vec![0]]);
    assert_eq!(waves(&plan), [vec![0], vec![1, 2]]);
}

#[test]
fn readers_wait_for_no_other_reader_and_constants_order_nobody() {
    let mut plan = PlanBuilder::new("readers");
    let w = plan.constant("w", DType::I32, &[4]).unwrap();
    let x = plan.input("x", DType::I32, &[4]).unwrap();
    for name in ["a", "b", "c", "d"] {
        let y = plan.output(name, DType::I32, &[4]).unwrap();
        let from = if name < "c" { w } else { x };
        plan.copy(from, y).unwrap();
    }
    let plan = plan.build().unwrap();
    assert_eq!(waves(&plan), [[0, 1, 2, 3]]);
    assert_eq!(plan.edges(), 0);
}

#[test]
fn what_a_kernel_may_touch_is_what_its_signature_says() {
    // It is given 16 elements, and writes the first 4.
    let signature = Signature::builder().write(DType::I32, 4);
    let (mut plan, _, s, _) = parts(0);
    let kernel = plan.kernel("few", signature.build().unwrap());
    plan.launch(kernel, &[s], &[], 1).unwrap();
    plan.fill(plan_view(s, 4, 16), DType::I32, 1).unwrap();
    plan.launch(kernel, &[s], &[], 1).unwrap();
    let plan = plan.build().unwrap();
    assert_eq!(waits(&plan), [vec![], vec![], vec![0]]);
}

#[test]
fn an_op_says_why_it_waits() {
    let (mut plan, x, s, _) = parts(0);
    plan.copy(x, s).unwrap();
    plan.host("look", &[plan_view(s, 2, 5).read()], |_| Ok(()))
        .unwrap();
    plan.fill(plan_view(s, 4, 8), DType::I32, 7).unwrap();
    plan.host("add", &[plan_view(s, 0, 6).read_write()], |_| Ok(()))
        .unwrap();
    let plan = plan.build().unwrap();
    let hazards = |op: usize| -> Vec<_> {
        let waits = plan.explain(op).unwrap().waits;
        let reasons = waits
            .into_iter()
            .flat_map(|w| w.reasons.into_iter().map(move |r| (w.op, r)));
        reasons.map(|(op, reason)| (op, reason.hazard)).collect()
    };
    assert_eq!(hazards(1), [(0, Hazard::ReadAfterWrite)]);
    assert_eq!(hazards(2), [(1, Hazard::WriteAfterRead)]);
    assert_eq!(hazards(3), [(2, Hazard::ReadAfterWrite)]);
    let text = |op: usize| plan.explain(op).unwrap().to_string();
    assert_eq!(text(0), "ops[0] (copy), in wave 0\n  waits for nothing");
    assert_eq!(
        text(2),
        "ops[2] (fill), in wave 2\n  \
         waits for ops[1] (host function `look`): it writes bytes 16 to 20 of state `s`, which \
         that reads"
    );
    assert!(plan.explain(4).is_none());
}

#[test]
fn an_order_that_breaks_the_plan_is_refused_and_says_which_two_ops() {
    let (mut plan, x, s, _) = parts(0);
    plan.copy(x, s).unwrap();
    let y = plan.output("y", DType::I32, &[16]).unwrap();
    plan.copy(s, y).unwrap();
    let z = plan.output("z", DType::I32, &[16]).unwrap();
    plan.copy(x, z).unwrap();
    let plan = plan.build().unwrap();
    let check = |phases: Vec<Vec<Vec<usize>>>| plan.check_schedule(&Schedule::chains(phases));
    // In a chain, in phases, beside it.
    check(vec![vec![vec![2, 0, 1]]]).unwrap();
    check(vec![vec![vec![0], vec![2]], vec![vec![1]]]).unwrap();
    check(vec![vec![vec![0, 1], vec![2]]]).unwrap();
    plan.check_schedule(&Schedule::waves(&plan, 1)).unwrap();
    plan.check_schedule(&Schedule::serial(plan.order()))
        .unwrap();

    let refused = |phases, word: &str| {
        let error = check(phases).unwrap_err();
        assert!(matches!(error, Error::Schedule { .. }), "{error:?}");
        assert!(error.to_string().contains(word), "{error}");
    };
    let why = "ops[1] (copy) must come after ops[0] (copy): it reads bytes 0 to 64 of state `s`";
    refused(vec![vec![vec![1, 0, 2]]], why);
    // Two chains of a phase may run at the same time.
    refused(vec![vec![vec![0], vec![1, 2]]], why);
    refused(vec![vec![vec![1]], vec![vec![0, 2]]], why);
    refused(vec![vec![vec![0, 1]]], "ops[2] is not there");
    refused(vec![vec![vec![0, 1, 2, 1]]], "ops[1] is there twice");
    refused(vec![vec![vec![0, 1, 2, 3]]], "ops[3] of 3");
}

#[test]
fn a_schedule_is_run_in_its_order_and_only_if_it_is_right() {
    let mut plan = PlanBuilder::new("log");
    let log = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
        let y = plan.output(name, DType::I32, &[1]).unwrap();
        let log = log.clone();
        let write = move |_: &mut [svod_runtime::Arg<'_>]| {
            log.lock().unwrap().push(i);
            Ok(())
        };
        plan.host(name, &[y.write()], write).unwrap();
    }
    let executable = Executable::new(plan.build().unwrap(), vec![], []).unwrap();
    let phases = vec![vec![vec![2], vec![0]], vec![vec![1]]];
    let executable = executable.with_schedule(&Schedule::chains(phases)).unwrap();
    executable.instance().unwrap().run(&[]).unwrap();
    assert_eq!(*log.lock().unwrap(), [2, 0, 1]);
    let half = Schedule::serial(vec![0, 1]);
    assert!(executable.clone().with_schedule(&half).is_err());
    // SAFETY: no kernel is launched.
    let result = unsafe { executable.with_schedule_unchecked(&half) };
    assert!(matches!(result, Err(Error::Schedule { .. })));
}

// ---------------------------------------------------------------------------
// Memory
// ---------------------------------------------------------------------------

#[test]
fn temps_that_live_at_different_times_share_memory() {
    let (mut plan, x, _, temps) = parts(4);
    plan.copy(x, temps[0]).unwrap();
    for pair in temps.windows(2) {
        plan.copy(pair[0], pair[1]).unwrap();
    }
    let y = plan.output("y", DType::I32, &[16]).unwrap();
    plan.copy(temps[3], y).unwrap();
    let plan = plan.build().unwrap();
    let memory = plan.memory();
    assert_eq!((memory.unplanned, memory.lower_bound), (256, 128));
    assert_eq!(memory.arena, 128);
    let by_role = Role::ALL.map(|role| memory.bytes(role));
    assert_eq!(by_role, [64, 0, 64, 256, 64]);
    assert_eq!(memory.instance, 128 + 3 * 64);
    let offset = |temp: BufferRange| plan.arena_offset(temp.buffer).unwrap();
    assert_eq!(offset(temps[0]), offset(temps[2]));
    assert_ne!(offset(temps[0]), offset(temps[1]));
    assert_eq!(plan.arena_offset(x.buffer), None);
}

#[test]
fn an_order_that_memory_asks_for_is_named() {
    // A long chain beside one op on a temp of its own, which is free for the first wave
    // only: ops that nothing else orders come to share memory.
    let mut plan = PlanBuilder::new("shared");
    let x = plan.input("x", DType::I32, &[16]).unwrap();
    let mut last = x;
    for _ in 0..3 {
        let next = plan.temp(DType::I32, &[16]).unwrap();
        plan.copy(last, next).unwrap();
        last = next;
    }
    let y = plan.output("y", DType::I32, &[16]).unwrap();
    plan.copy(last, y).unwrap();
    let short = plan.temp(DType::I32, &[16]).unwrap();
    let z = plan.output("z", DType::I32, &[16]).unwrap();
    plan.copy(x, short).unwrap();
    plan.copy(short, z).unwrap();
    let plan = plan.build().unwrap();
    let memory = plan.memory();
    assert_eq!((memory.unplanned, memory.arena), (256, 192));
    let shared = (0..plan.ops().len()).flat_map(|op| {
        let waits = plan.explain(op).unwrap().waits;
        waits.into_iter().map(move |wait| (op, wait))
    });
    let mut shared = shared.filter(|(_, wait)| {
        wait.reasons
            .iter()
            .any(|r| r.later.buffer != r.earlier.buffer)
    });
    let (op, wait) = shared.next().unwrap();
    let text = plan.explain(op).unwrap().to_string();
    assert!(text.contains("lies where temp #"), "{text}");
    // And it is kept by every schedule.
    let mut order = plan.order();
    let (first, second) = (wait.op, op);
    order.retain(|&op| op != second);
    let at = order.iter().position(|&op| op == first).unwrap();
    order.insert(at, second);
    let error = plan.check_schedule(&Schedule::serial(order)).unwrap_err();
    assert!(matches!(error, Error::Schedule { .. }), "{error}");
}

#[test]
fn bools_share_memory_with_bools_alone() {
    let mut plan = PlanBuilder::new("bools");
    let x = plan.input("x", DType::Bool, &[64]).unwrap();
    let n = plan.input("n", DType::U8, &[64]).unwrap();
    let [a, b] = [0, 1].map(|_| plan.temp(DType::Bool, &[64]).unwrap());
    let [c, d] = [0, 1].map(|_| plan.temp(DType::U8, &[64]).unwrap());
    let y = plan.output("y", DType::Bool, &[64]).unwrap();
    let m = plan.output("m", DType::U8, &[64]).unwrap();
    // One after another, so that all could share.
    plan.copy(n, c).unwrap();
    plan.host("then", &[c.read(), a.write()], |_| Ok(()))
        .unwrap();
    plan.copy(a, b).unwrap();
    plan.host("then", &[b.read(), d.write()], |_| Ok(()))
        .unwrap();
    plan.copy(d, m).unwrap();
    plan.copy(x, y).unwrap();
    let plan = plan.build().unwrap();
    let offset = |temp: BufferRange| plan.arena_offset(temp.buffer).unwrap();
    for bool_ in [a, b] {
        for other in [c, d] {
            assert_ne!(offset(bool_), offset(other));
        }
    }
    assert_eq!(offset(c), offset(d));
}

#[test]
fn a_temp_that_nobody_uses_takes_no_memory() {
    let (plan, ..) = parts(3);
    let plan = plan.build().unwrap();
    assert_eq!((plan.memory().arena, plan.memory().unplanned), (0, 0));
    assert_eq!((plan.depth(), plan.width()), (0, 0));
}

#[test]
fn a_cap_on_memory_is_an_error_before_anything_is_allocated() {
    let mut plan = PlanBuilder::new("vast");
    // More than any machine has; it would not be an error to plan it.
    let vast = plan.temp(DType::F32, &[1 << 50]).unwrap();
    plan.fill(vast, DType::F32, 0).unwrap();
    plan.copy(vast.part(0..4), vast.part(4..8)).unwrap();
    let executable = Executable::new(plan.build().unwrap(), vec![], []).unwrap();
    let capped = executable.clone().with_memory_cap(1 << 30);
    let error = capped.instance().unwrap_err();
    assert!(matches!(error, Error::MemoryCap { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("may take 1073741824"), "{text}");
    let error = executable.instance().unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error:?}");
    assert!(error.to_string().contains("arena"), "{error}");
}

#[test]
fn separate_temps_count_as_such_against_the_cap() {
    let (mut plan, x, _, temps) = parts(4);
    plan.copy(x, temps[0]).unwrap();
    for pair in temps.windows(2) {
        plan.copy(pair[0], pair[1]).unwrap();
    }
    let executable = Executable::new(plan.build().unwrap(), vec![], []).unwrap();
    let needed = executable.plan().memory().instance;
    assert_eq!(needed, 128 + 2 * 64);
    let capped = executable.with_memory_cap(needed);
    capped.instance().unwrap();
    let separate = capped.with_separate_temps().instance();
    assert!(matches!(
        separate,
        Err(Error::MemoryCap { needed: 384, .. })
    ));
}

#[test]
fn what_is_copied_for_an_instance_counts_and_what_nobody_uses_is_not_there() {
    let mut plan = PlanBuilder::new("guarded");
    let w = plan.constant("w", DType::U8, &[1000]).unwrap();
    let y = plan.output("y", DType::U8, &[1000]).unwrap();
    // More than there is.
    plan.temp(DType::U8, &[1 << 60]).unwrap();
    plan.copy(w, y).unwrap();
    let content = common::zeroed(DType::U8, 1000).into();
    let executable = Executable::new(plan.build().unwrap(), vec![], [(0, content)]).unwrap();
    assert_eq!(executable.instance_bytes(), 1000);
    let separate = executable.clone().with_separate_temps();
    assert_eq!(separate.instance_bytes(), 1000);
    separate.instance().unwrap();
    let guarded = executable.with_guard(Guard::End);
    assert_eq!(guarded.instance_bytes(), 2000);
    guarded.instance().unwrap();
    let capped = guarded.with_memory_cap(1999).instance();
    assert!(matches!(capped, Err(Error::MemoryCap { .. })));
}

#[test]
fn what_nobody_could_plan_is_refused_and_the_op_is_named() {
    let mut plan = PlanBuilder::new("dense");
    let parts = 8_000;
    let s = plan.state("s", DType::U8, &[parts]).unwrap();
    for part in 0..parts {
        plan.fill(s.part(part..part + 1), DType::U8, 0).unwrap();
    }
    for _ in 0..parts {
        plan.host("look", &[s.read()], |_| Ok(())).unwrap();
    }
    let error = plan.build().unwrap_err().to_string();
    assert!(error.starts_with("ops["), "{error}");
    assert!(error.contains("too many"), "{error}");
}

// ---------------------------------------------------------------------------
// Values
// ---------------------------------------------------------------------------

#[test]
fn a_range_of_elements_is_counted_in_the_buffer_s_type_and_stays_inside() {
    let mut plan = PlanBuilder::new("views");
    let x = plan.input("x", DType::F64, &[10]).unwrap();
    let view = plan.view(x, 2..5).unwrap();
    assert_eq!((view.offset, view.bytes), (16, 24));
    let inner = plan.view(view, 1..3).unwrap();
    assert_eq!((inner.offset, inner.bytes), (24, 16));
    for range in [0..11, 10..11, usize::MAX - 1..usize::MAX] {
        let error = plan.view(x, range).unwrap_err();
        assert!(error.to_string().contains("of 10"), "{error}");
    }
    let elsewhere = BufferRange { buffer: 7, ..x };
    assert!(plan.view(elsewhere, 0..1).is_err());
}

#[test]
fn a_run_computes_each_value_from_its_own_variables() {
    let mut plan = PlanBuilder::new("values");
    let n = plan.variable("n", 0, 100).unwrap();
    let y = plan.output("y", DType::I32, &[4]).unwrap();
    plan.fill(plan_view(y, 0, 2), DType::I32, n * 2).unwrap();
    plan.fill(plan_view(y, 2, 3), DType::I32, n).unwrap();
    plan.fill(plan_view(y, 3, 4), DType::I32, 5).unwrap();
    let executable = Executable::new(plan.build().unwrap(), vec![], []).unwrap();
    let mut instance = executable.with_guard(common::guard()).instance().unwrap();
    for n in [0, 3, 3, 100, 7] {
        instance.run(&[("n", n)]).unwrap();
        let n = i32::try_from(n).unwrap();
        let got = instance.output("y").unwrap();
        assert_eq!(got.as_slice::<i32>().unwrap(), [2 * n, 2 * n, n, 5]);
    }
    // A value that is refused leaves the last one out of the next run.
    instance.run(&[("n", 101)]).unwrap_err();
    instance.run(&[("n", 1)]).unwrap();
    let got = instance.output("y").unwrap();
    assert_eq!(got.as_slice::<i32>().unwrap(), [2, 2, 1, 5]);
}
