use proptest::prelude::*;

use super::predicting::units;
use super::*;
use crate::plan::{PlanBuilder, Task};
use crate::signature::{DType, Signature};

/// An op: what it costs, and which ops it waits for.
#[derive(Clone, Debug)]
pub(in crate::plan) struct Sketch {
    pub(super) nanos: f64,
    pub(super) parts: u32,
    pub(super) before: Vec<usize>,
}

pub(in crate::plan) fn op(nanos: f64, before: &[usize]) -> Sketch {
    launch(nanos, 1, before)
}

pub(in crate::plan) fn launch(nanos: f64, parts: u32, before: &[usize]) -> Sketch {
    let before = before.to_vec();
    Sketch {
        nanos,
        parts,
        before,
    }
}

/// A plan of such ops: each writes a buffer of its own and reads those of the ops that it
/// waits for.
pub(in crate::plan) fn plan(sketches: &[Sketch]) -> (Plan, Vec<Cost>) {
    let mut plan = PlanBuilder::new("sketch");
    let outputs: Vec<_> = (0..sketches.len())
        .map(|i| plan.output(&i.to_string(), DType::U8, &[1]).unwrap())
        .collect();
    for (sketch, &to) in sketches.iter().zip(&outputs) {
        let reads = sketch.before.iter().map(|&p| outputs[p]);
        if sketch.parts == 1 {
            let args: Vec<_> = reads.map(|x| x.read()).chain([to.write()]).collect();
            plan.host("step", &args, |_| Ok(())).unwrap();
            continue;
        }
        let args: Vec<_> = [to].into_iter().chain(reads).collect();
        let signature = Signature::builder().write(DType::U8, 1);
        let signature = (1..args.len()).fold(signature, |s, _| s.read(DType::U8, 1));
        let signature = signature.index(DType::I32, u64::from(sketch.parts));
        let kernel = plan.kernel("launch", signature.build().unwrap());
        plan.launch(kernel, &args, &[], i64::from(sketch.parts))
            .unwrap();
    }
    let costs = sketches
        .iter()
        .map(|&Sketch { nanos, parts, .. }| Cost { nanos, parts });
    (plan.build().unwrap(), costs.collect())
}

const FREE: Overheads = Overheads {
    phase: 0.0,
    unit: 0.0,
};

/// What is proposed, once it has been proved right.
fn proposed(sketches: &[Sketch], threads: usize) -> Proposal {
    let (plan, costs) = plan(sketches);
    let proposal = propose(&plan, &costs, threads, &Overheads::default());
    plan.check_schedule(&proposal.schedule).unwrap();
    proposal
}

fn sketches() -> impl Strategy<Value = Vec<Sketch>> {
    let parts = prop_oneof![3 => Just(1_u32), 1 => 2..20_u32];
    let nanos = prop_oneof![0.0..300.0, 0.0..10_000.0, 10_000.0..1e6, Just(0.0)];
    let op = (nanos, parts, proptest::collection::vec(1..12_usize, 0..4));
    proptest::collection::vec(op, 0..60).prop_map(|ops| {
        let sketch = |(i, (nanos, parts, back)): (usize, (f64, u32, Vec<usize>))| {
            let mut before: Vec<_> = back.iter().filter_map(|b| i.checked_sub(*b)).collect();
            before.sort_unstable();
            before.dedup();
            launch(nanos, parts, &before)
        };
        ops.into_iter().enumerate().map(sketch).collect()
    })
}

proptest! {
    #[test]
    fn what_is_proposed_is_right_and_no_worse_than_what_is_simple(
        sketches in sketches(),
        threads in 1..10_usize,
        phase in 0.0..1000.0,
        unit in 0.0..200.0,
    ) {
        let (plan, costs) = plan(&sketches);
        let overheads = Overheads { phase, unit };
        let proposal = propose(&plan, &costs, threads, &overheads);
        prop_assert_eq!(plan.check_schedule(&proposal.schedule).map_err(|e| e.to_string()), Ok(()));
        let predicted = |schedule: &Schedule| predict(&plan, schedule, &costs, threads, &overheads);
        prop_assert_eq!(proposal.nanos, predicted(&proposal.schedule));
        prop_assert!(proposal.nanos <= predicted(&Schedule::serial(plan.order())));
        prop_assert!(proposal.nanos <= predicted(&Schedule::waves(&plan, threads as u32)));
        let free = predict(&plan, &proposal.schedule, &costs, threads, &FREE);
        prop_assert!(free >= bound(&plan, &costs, threads) * (1.0 - 1e-9));
        prop_assert_eq!(propose(&plan, &costs, threads, &overheads), proposal);
    }
}

#[test]
fn one_thread_runs_all_in_turn() {
    let ops = [launch(1e6, 8, &[]), op(1e6, &[]), op(50.0, &[1])];
    let Proposal { schedule, nanos } = proposed(&ops, 1);
    assert_eq!(schedule, Schedule::serial(vec![0, 1, 2]));
    assert_eq!(nanos, 2_000_050.0);
    assert_eq!(proposed(&[], 2).nanos, 0.0);
}

#[test]
fn cheap_ops_stay_in_one_chain() {
    // Side by side, each would wait longer for the other threads than it takes.
    let ops: Vec<_> = (0..4).map(|_| op(60.0, &[])).collect();
    let proposal = proposed(&ops, 2);
    assert_eq!(proposal.schedule, Schedule::serial(vec![0, 1, 2, 3]));
    assert_eq!(proposal.nanos, 240.0);
    // A launch of many indices too.
    let proposal = proposed(&[launch(300.0, 8, &[])], 2);
    assert_eq!(proposal.schedule, Schedule::serial(vec![0]));
}

#[test]
fn independent_chains_go_side_by_side() {
    // Ops of two chains in turn, and one that waits for both.
    let ops = [
        op(100.0, &[]),
        op(90_000.0, &[0]),
        op(90_000.0, &[0]),
        op(40.0, &[1]),
        op(300.0, &[2]),
        op(500.0, &[3, 4]),
    ];
    let Proposal { schedule, nanos } = proposed(&ops, 2);
    let chains = vec![vec![vec![0]], vec![vec![2, 4], vec![1, 3]], vec![vec![5]]];
    assert_eq!(schedule, Schedule::chains(chains));
    assert_eq!(nanos, 100.0 + 150.0 + 40.0 + 90_300.0 + 500.0);
}

#[test]
fn a_big_launch_is_split_among_the_threads() {
    let split = |grid, threads| proposed(&[launch(240_000.0, grid, &[])], threads).schedule;
    let parts = |parts| Schedule {
        phases: vec![vec![Task::split(0, parts)]],
    };
    assert_eq!(split(8, 2), parts(2));
    assert_eq!(split(8, 3), parts(3));
    assert_eq!(split(3, 2), parts(2));
    assert_eq!(split(3, 8), parts(3));
    assert_eq!(split(1_000_000, 4), parts(4));
    // One index more than two each is three for one of them.
    assert_eq!(proposed(&[launch(90_000.0, 3, &[])], 2).nanos, 60_190.0);
}

#[test]
fn a_launch_is_cut_finer_to_fill_what_a_chain_leaves() {
    let ops = [
        launch(1_600_000.0, 8, &[]),
        op(50_000.0, &[]),
        op(217_000.0, &[1]),
    ];
    let Proposal { schedule, nanos } = proposed(&ops, 2);
    // In two parts it would take longer than in turn with the chain, 1,067 µs.
    assert_eq!(schedule.phases.len(), 1);
    let split = schedule.phases[0].iter().find(|task| task.ops == [0]);
    assert!(split.is_some_and(|task| task.parts > 2));
    assert!(nanos < 1_010_000.0, "{nanos}");
}

#[test]
fn an_op_waits_for_the_phase_that_it_fills() {
    // The long op that nobody waits for could begin at once; then the launch would have to
    // wait for it, or run beside nothing.
    let ops = [
        op(100_000.0, &[]),
        op(10_000.0, &[]),
        launch(200_000.0, 8, &[1]),
    ];
    let Proposal { schedule, nanos } = proposed(&ops, 2);
    assert_eq!(schedule.phases[0], [Task::chain(vec![1])]);
    assert!(schedule.phases.len() == 2 && nanos < 162_000.0, "{nanos}");
}

#[test]
fn many_independent_ops_become_few_units() {
    let many = 10_000;
    let ops: Vec<_> = (0..many).map(|_| op(100.0, &[])).collect();
    for threads in [2, 8] {
        let Proposal { schedule, nanos } = proposed(&ops, threads);
        assert!(
            schedule
                .phases
                .iter()
                .all(|phase| units(phase) <= 16 * threads)
        );
        let share = many as f64 * 100.0 / threads as f64;
        assert!(nanos < share * 1.02, "{nanos} of {share}");
    }
    // Also where each could be cut, more finely than there may be units.
    let ops: Vec<_> = (0..many).map(|_| launch(3_000.0, 16, &[])).collect();
    let Proposal { schedule, .. } = proposed(&ops, 1_000);
    assert!(
        schedule
            .phases
            .iter()
            .all(|phase| units(phase) <= MAX_UNITS)
    );
}

#[test]
fn a_deep_chain_is_one_task() {
    let before = |i: usize| i.checked_sub(1).into_iter().collect::<Vec<_>>();
    let ops: Vec<_> = (0..10_000).map(|i| op(100.0, &before(i))).collect();
    let proposal = proposed(&ops, 8);
    assert_eq!(proposal.schedule, Schedule::serial((0..10_000).collect()));
}

#[test]
fn long_chains_beside_each_other_stay_chains() {
    // Two ops of a step at a time; now and then nothing hangs together any more.
    let before = |i: usize| i.checked_sub(2).into_iter().collect::<Vec<_>>();
    let ops: Vec<_> = (0..4_000).map(|i| op(100.0, &before(i))).collect();
    let Proposal { schedule, nanos } = proposed(&ops, 2);
    assert_eq!(schedule.phases.len(), 1);
    assert_eq!(nanos, 2_000.0 * 100.0 + 190.0);
}

#[test]
fn costs_that_are_no_times_cost_nothing() {
    let (plan, mut costs) = plan(&[
        op(1.0, &[]),
        op(f64::NAN, &[0]),
        op(-5.0, &[]),
        op(2.0, &[]),
    ]);
    costs[0].parts = 0;
    costs.pop();
    let proposal = propose(&plan, &costs, 2, &Overheads::default());
    plan.check_schedule(&proposal.schedule).unwrap();
    assert_eq!(proposal.nanos, 1.0);
    assert_eq!(bound(&plan, &costs, 0), 1.0);
}

#[test]
fn units_are_taken_by_whoever_is_free() {
    let (plan, costs) = plan(&[
        op(100.0, &[]),
        op(60.0, &[]),
        op(60.0, &[]),
        launch(40.0, 4, &[]),
    ]);
    let overheads = Overheads {
        phase: 7.0,
        unit: 1.0,
    };
    let predicted = |tasks: Vec<Task>| {
        let schedule = Schedule {
            phases: vec![tasks],
        };
        predict(&plan, &schedule, &costs, 2, &overheads)
    };
    let [a, b, c] = [0, 1, 2].map(|op| Task::chain(vec![op]));
    assert_eq!(
        predicted(vec![a.clone(), b.clone(), c.clone()]),
        7.0 + 122.0
    );
    assert_eq!(predicted(vec![b, c, a.clone()]), 7.0 + 162.0);
    // Of four indices, parts of one, one and two.
    assert_eq!(predicted(vec![a.clone(), Task::split(3, 3)]), 7.0 + 101.0);
    assert_eq!(predicted(vec![Task::split(3, 3)]), 7.0 + 11.0 + 21.0);
    // One unit alone costs nothing more.
    assert_eq!(predicted(vec![a]), 100.0);
}
