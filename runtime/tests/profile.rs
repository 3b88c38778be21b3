//! Runs that are traced, and profiles of many: what they say of what ran, when and where.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::HashSet;
use std::time::Duration;

use svod_runtime::bench::{Candidate as _, Replay};
use svod_runtime::plan::{Executable, PlanBuilder, Run, Schedule, Trace};
use svod_runtime::pool::Pool;
use svod_runtime::profile::{Bandwidth, Bound, Machine, Profile, Rates, overhead, write_events};
use svod_runtime::signature::Bounds;
use svod_runtime::{Arg, DType, Error, Kernel, Signature};

/// Two fills that nothing orders, and a host function after both, which writes into `c`.
fn diamond() -> PlanBuilder {
    let mut plan = PlanBuilder::new("diamond");
    let a = plan.temp(DType::F32, &[1024]).unwrap();
    let b = plan.temp(DType::F32, &[1024]).unwrap();
    let c = plan.output("c", DType::F32, &[1024]).unwrap();
    plan.fill(a, DType::F32, 1.0).unwrap();
    plan.fill(b, DType::F32, 2.0).unwrap();
    plan.host("add", &[a.read(), b.read(), c.write()], |args| {
        let [Arg::Read(a), Arg::Read(b), Arg::Write(c)] = args else {
            return Err("other arguments than were declared".into());
        };
        let sums = a.as_slice::<f32>()?.iter().zip(b.as_slice::<f32>()?);
        let c = c.reborrow().into_slice::<f32>()?;
        c.iter_mut().zip(sums).for_each(|(c, (a, b))| *c = a + b);
        Ok(())
    })
    .unwrap();
    plan
}

fn executable(plan: PlanBuilder) -> Executable {
    let executable = Executable::new(plan.build().unwrap(), vec![], []).unwrap();
    executable.with_guard(common::guard())
}

/// A signature of one buffer of `len` floats, which is written, with a grid.
fn writes(len: usize, grid: u64) -> Signature {
    Signature::builder()
        .write(DType::F32, len)
        .index(DType::I32, grid)
        .build()
        .unwrap()
}

/// A plan of launches of kernels that do nothing, of this grid, with stated costs.
fn launches(count: usize, grid: u64, flops: u64, bytes: u64) -> Executable {
    let mut plan = PlanBuilder::new("launches");
    let kernel = plan.kernel("nothing", writes(64, grid));
    let y = plan.output("y", DType::F32, &[64]).unwrap();
    for _ in 0..count {
        let grid = i64::try_from(grid).unwrap();
        plan.launch_with_costs(kernel, &[y], &[], grid, Some(flops), Some(bytes))
            .unwrap();
    }
    let kernels = vec![Kernel::empty("nothing", writes(64, grid))];
    let executable = Executable::new(plan.build().unwrap(), kernels, []).unwrap();
    executable.with_guard(common::guard())
}

fn traced(executable: &Executable) -> Trace {
    let mut trace = Trace::new();
    let mut instance = executable.instance().unwrap();
    let run = Run {
        trace: Some(&mut trace),
        ..Run::default()
    };
    instance.run_with(run).unwrap();
    trace
}

#[test]
fn a_trace_has_each_op_once_in_order_and_within_the_run() {
    let executable = executable(diamond());
    let trace = traced(&executable);
    let spans: Vec<_> = trace.spans().collect();
    let ops: Vec<_> = spans.iter().map(|span| span.op).collect();
    assert_eq!(ops, executable.plan().order());
    let mut before = Duration::ZERO;
    for span in spans {
        assert!(before <= span.start && span.start <= span.end, "{span:?}");
        assert!(span.end <= trace.took(), "{span:?} of {:?}", trace.took());
        assert_eq!((span.part, span.parts, span.thread), (0, 1, 0));
        before = span.end;
    }
    assert_eq!(trace.threads(), 1);
    assert!(!trace.is_trial());
}

#[test]
fn a_trace_of_a_team_has_each_part_once_and_keeps_the_order_of_phases() {
    let executable = launches(3, 8, 0, 0);
    let schedule = Schedule::waves(executable.plan(), 4);
    let pool = Pool::builder().threads(3).disturb(7).build();
    let executable = executable
        .with_guard(svod_runtime::Guard::Off)
        .with_pool(pool)
        .with_schedule(&schedule)
        .unwrap();
    for _ in 0..50 {
        let trace = traced(&executable);
        let parts: Vec<_> = trace.spans().map(|s| (s.op, s.part, s.parts)).collect();
        let expected = (0..3).flat_map(|op| (0..4).map(move |p| (op, p, 4)));
        let expected: Vec<_> = expected.collect();
        assert_eq!(parts, expected);
        let ends = |phase| trace.spans().filter(move |s| s.phase == phase);
        for phase in 1..3 {
            let before = ends(phase - 1).map(|s| s.end).max().unwrap();
            let after = ends(phase).map(|s| s.start).min().unwrap();
            assert!(before <= after, "phase {phase}: {before:?}, {after:?}");
        }
        assert!(trace.spans().all(|s| s.thread < trace.threads()));
        assert_eq!(trace.schedule(), Some(&schedule));
    }
}

#[test]
fn a_trace_ends_where_a_run_fails_and_begins_anew_with_the_next() {
    let mut plan = PlanBuilder::new("fails");
    let x = plan.state("x", DType::I32, &[1]).unwrap();
    let y = plan.output("y", DType::I32, &[1]).unwrap();
    plan.copy(x, y).unwrap();
    let fails = |args: &mut [Arg<'_>]| {
        let [Arg::Write(y)] = args else {
            return Err("other arguments than were declared".into());
        };
        match y.reborrow().into_slice::<i32>()?[0] {
            0 => Err("zero".into()),
            _ => Ok(()),
        }
    };
    plan.host("refuses zero", &[y.read_write()], fails).unwrap();
    plan.copy(y, x).unwrap();
    let executable = executable(plan);
    let mut instance = executable.instance().unwrap();
    let mut trace = Trace::new();
    let mut ops = |instance: &mut svod_runtime::plan::Instance| {
        let outcome = instance.run_with(Run {
            trace: Some(&mut trace),
            ..Run::default()
        });
        (outcome, trace.spans().map(|s| s.op).collect::<Vec<_>>())
    };
    let (outcome, ran) = ops(&mut instance);
    assert!(matches!(outcome, Err(Error::Host { .. })), "{outcome:?}");
    assert_eq!(ran, [0, 1]);
    instance
        .state_mut("x")
        .unwrap()
        .copy_from(svod_runtime::View::from_slice(&[5]))
        .unwrap();
    let (outcome, ran) = ops(&mut instance);
    outcome.unwrap();
    assert_eq!(ran, [0, 1, 2]);
}

#[test]
fn a_run_that_is_refused_leaves_no_trace() {
    let mut plan = PlanBuilder::new("asks");
    let x = plan.input("x", DType::I32, &[1]).unwrap();
    let y = plan.output("y", DType::I32, &[1]).unwrap();
    plan.copy(x, y).unwrap();
    let executable = executable(plan);
    let mut instance = executable.instance().unwrap();
    instance.input("x").unwrap();
    let mut trace = Trace::new();
    let run = |instance: &mut svod_runtime::plan::Instance, trace: &mut Trace| {
        instance.run_with(Run {
            trace: Some(trace),
            ..Run::default()
        })
    };
    run(&mut instance, &mut trace).unwrap();
    assert_eq!(trace.spans().count(), 1);
    // Nobody has given this one its input.
    let mut other = executable.instance().unwrap();
    run(&mut other, &mut trace).unwrap_err();
    assert_eq!((trace.spans().count(), trace.took()), (0, Duration::ZERO));
}

#[test]
fn a_trace_of_another_plan_says_nothing_of_this_one() {
    let (small, large) = (executable(diamond()), launches(9, 1, 0, 0));
    let trace = traced(&large);
    let mut profile = Profile::new(&small);
    profile.add(&trace);
    assert_eq!(profile.report(None, None).ops.len(), 3);
    write_events(small.plan(), &trace, std::io::sink()).unwrap();
}

#[test]
fn a_profile_counts_runs_and_shares_and_names_what_ran() {
    let executable = executable(diamond());
    let mut profile = Profile::new(&executable);
    let mut replay = Replay::new(&executable).unwrap();
    let mut trace = Trace::new();
    for _ in 0..20 {
        replay.trace(&mut trace).unwrap();
        profile.add(&trace);
    }
    let report = profile.report(None, None);
    assert_eq!(report.runs, 20);
    assert_eq!(report.run_ns, profile.run_ns());
    let names: HashSet<_> = report.kernels.iter().map(|k| k.name.as_str()).collect();
    assert_eq!(names, HashSet::from(["fill", "add"]));
    let fills = report.kernels.iter().find(|k| k.name == "fill").unwrap();
    assert_eq!(fills.ops, [0, 1]);
    let shares: f64 = report.kernels.iter().map(|k| k.share).sum();
    assert!((shares - 1.0).abs() < 1e-9, "{shares}");
    for op in &report.ops {
        assert_eq!((op.runs, op.threads), (20, 1));
        assert!(op.work_ns.min <= op.work_ns.median && op.work_ns.median <= op.work_ns.max);
    }
    // A fill of 4 KiB, and 12 KiB read and written by the function.
    let bytes: Vec<_> = report.ops.iter().map(|op| op.bytes).collect();
    assert_eq!(bytes, [4096, 4096, 3 * 4096]);
    // The function, and the longer one of the fills.
    assert!(report.ops[2].critical);
    assert_eq!(report.ops.iter().filter(|op| op.critical).count(), 2);
    assert!(report.machine.is_none() && report.kernels[0].of_peak.is_none());
}

/// What a thread did and what it did not come to the time of the run.
#[test]
fn what_is_neither_busy_nor_waiting_is_blank() {
    let executable = executable(diamond());
    let mut profile = Profile::new(&executable);
    let trace = traced(&executable);
    profile.add(&trace);
    let report = profile.report(None, None);
    let [caller] = &report.threads[..] else {
        panic!("{:?}", report.threads);
    };
    let busy: Duration = trace.spans().map(|span| span.time()).sum();
    let blank = trace.took().saturating_sub(busy).as_nanos() as f64;
    assert!(blank > 0.0);
    let apart = caller.blank_ns + caller.waits_ns - blank;
    assert!(apart.abs() < 1.0, "{caller:?} for {blank}");
}

/// One that moves a byte and does an operation in a nanosecond, and reads what fits 1,024 bytes
/// four times as fast.
fn machine() -> Machine {
    let level = |size, read| Bandwidth {
        size,
        read,
        copy: read,
    };
    Machine {
        cpu: "made up".into(),
        rates: vec![Rates {
            threads: 1,
            f32_flops: 1e9,
            f64_flops: 5e8,
            bandwidth: vec![level(1024, 4e9), level(1 << 20, 1e9)],
        }],
    }
}

#[test]
fn rates_are_those_of_the_most_threads_that_are_no_more() {
    let mut machine = machine();
    let two = Rates {
        threads: 2,
        f32_flops: 2e9,
        ..machine.rates[0].clone()
    };
    machine.rates.push(two.clone());
    assert_eq!(machine.rates(1), Some(&machine.rates[0]));
    assert_eq!(machine.rates(7), Some(&two));
    assert_eq!(machine.rates(0), None);
    let size = |size| machine.rates[0].bandwidth(size).map(|b| b.size);
    assert_eq!((size(1024), size(1025)), (Some(1024), Some(1 << 20)));
    assert_eq!(size(usize::MAX), Some(1 << 20));
    // A cache ends where the next size is slower by more than a quarter.
    let level = |size, read| Bandwidth {
        size,
        read,
        copy: read,
    };
    let mut rates = machine.rates[0].clone();
    rates.bandwidth = [(1, 8.0), (2, 7.0), (4, 5.0), (8, 4.9), (16, 1.0)]
        .map(|(size, read)| level(size, read))
        .to_vec();
    let ends: Vec<_> = rates.plateaus().map(|level| level.size).collect();
    assert_eq!(ends, [2, 8, 16]);
}

#[test]
fn what_bounds_a_kernel_follows_from_the_machine() {
    let bound = |flops, bytes, overhead| {
        let executable = launches(4, 1, flops, bytes);
        let mut profile = Profile::new(&executable);
        profile.add(&traced(&executable));
        let report = profile.report(Some(&machine()), overhead);
        let op = &report.ops[0];
        (report.kernels[0].bound, op.arithmetic_ns, op.memory_ns)
    };
    // 256 bytes lie in the small level: 4 bytes a nanosecond.
    let (by, arithmetic, memory) = bound(50, 256, None);
    assert_eq!((arithmetic, memory), (Some(50.0), Some(64.0)));
    assert_eq!(by, Some(Bound::Memory));
    assert_eq!(bound(65, 256, None).0, Some(Bound::Arithmetic));
    assert_eq!(bound(65, 256, Some(66.0)).0, Some(Bound::Launch));
}

#[test]
fn bytes_come_from_as_far_as_what_is_touched_in_between_has_room() {
    // Two temps of 768 bytes are filled and copied in turn: between two uses of one, the other
    // was touched, and both together do not fit the small level.
    let mut plan = PlanBuilder::new("turns");
    let a = plan.output("a", DType::F32, &[192]).unwrap();
    let b = plan.output("b", DType::F32, &[192]).unwrap();
    plan.fill(a, DType::F32, 1.0).unwrap();
    plan.fill(a, DType::F32, 2.0).unwrap();
    plan.fill(b, DType::F32, 3.0).unwrap();
    let executable = executable(plan);
    let mut profile = Profile::new(&executable);
    profile.add(&traced(&executable));
    let report = profile.report(Some(&machine()), None);
    let memory: Vec<_> = report.ops.iter().map(|op| op.memory_ns.unwrap()).collect();
    assert_eq!(memory, [768.0, 192.0, 768.0]);
}

#[test]
fn a_run_with_empty_kernels_does_everything_else() {
    let mut plan = PlanBuilder::new("beside");
    let signature = || {
        Signature::builder()
            .write(DType::I32, 4)
            .scalar(DType::I32, "n", Bounds::integers(0, 9))
            .build()
            .unwrap()
    };
    let kernel = plan.kernel("nothing", signature());
    let y = plan.output("y", DType::I32, &[4]).unwrap();
    plan.fill(y, DType::I32, 7).unwrap();
    plan.launch(kernel, &[y], &[("n", 3.into())], 1).unwrap();
    let kernels = vec![Kernel::empty("nothing", signature())];
    let executable = Executable::new(plan.build().unwrap(), kernels, []).unwrap();
    let empty = executable.with_empty_kernels().unwrap();
    let mut replay = Replay::new(&empty).unwrap();
    replay.prepare().unwrap();
    replay.run().unwrap();
    let y = replay.instance().output("y").unwrap();
    assert_eq!(y.as_slice::<i32>().unwrap(), [7; 4]);
    let replay = Replay::new(&executable).unwrap();
    assert!(overhead(&replay).unwrap().unwrap() > 0.0);
    let diamond = self::executable(diamond());
    assert_eq!(overhead(&Replay::new(&diamond).unwrap()).unwrap(), None);
}

#[test]
fn events_have_a_track_a_thread_and_an_arrow_for_each_wait() {
    let executable = executable(diamond());
    let trace = traced(&executable);
    let mut out = Vec::new();
    write_events(executable.plan(), &trace, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let count = |what: &str| text.matches(what).count();
    assert_eq!(count(r#""ph":"X""#), 3);
    assert_eq!(count(r#""ph":"s""#), 2);
    assert_eq!(count(r#""ph":"f""#), 2);
    assert_eq!(count(r#""name":"thread_name""#), 1);
}
