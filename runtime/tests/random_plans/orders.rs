//! Orders of a plan's ops: all that are accepted come to the same bits, and one that
//! breaks what a single edge asks for is refused, and where it is forced, found.

use std::cell::Cell;
use std::collections::BTreeSet;

use svod_runtime::plan::{Executable, Hazard, Plan, Role, Schedule, Task, Wait};

use crate::common::Rng;
use crate::model::{Given, Memory, Model, Observed, run};
use crate::recipe::{Recipe, Shape};
use crate::{for_plans, for_same_plans, part, ways};

/// For each op, those that it waits for.
pub(crate) fn waits(plan: &Plan) -> Vec<Vec<usize>> {
    let explained = (0..plan.ops().len()).map(|op| plan.explain(op).unwrap());
    explained
        .map(|e| e.waits.iter().map(|wait| wait.op).collect())
        .collect()
}

/// Ops in an order that keeps all waits, of which there are many: any of those that
/// nothing holds back is next.
fn shuffled(rng: &mut Rng, waits: &[Vec<usize>]) -> Vec<usize> {
    let (mut order, mut done) = (Vec::new(), vec![false; waits.len()]);
    while order.len() < waits.len() {
        let is_ready = |&op: &usize| !done[op] && waits[op].iter().all(|&w| done[w]);
        let ready: Vec<_> = (0..waits.len()).filter(is_ready).collect();
        let next = rng.pick(&ready);
        done[next] = true;
        order.push(next);
    }
    order
}

/// A schedule of several phases, in which what is ordered is in one chain.
pub(crate) fn phased(rng: &mut Rng, waits: &[Vec<usize>]) -> Schedule {
    let mut phases: Vec<Vec<Vec<usize>>> = vec![Vec::new()];
    for op in shuffled(rng, waits) {
        if rng.below(6) == 0 {
            phases.push(Vec::new());
        }
        let chains = phases.last_mut().unwrap();
        // All chains that it waits for become one, and perhaps one more that has nothing
        // to do with it.
        let held = |chain: &Vec<usize>| chain.iter().any(|done| waits[op].contains(done));
        let (holding, mut others): (Vec<_>, Vec<_>) = chains.drain(..).partition(held);
        let mut chain = holding.concat();
        if !others.is_empty() && rng.below(3) == 0 {
            let i = rng.below(others.len());
            chain.extend(others.swap_remove(i));
        }
        chain.push(op);
        others.insert(rng.below(others.len() + 1), chain);
        *chains = others;
    }
    Schedule::chains(phases)
}

#[test]
fn every_order_that_is_accepted_comes_to_the_same() {
    for_plans(60, |recipe, model| {
        let plain = model.executable();
        let plan = plain.plan();
        let (waits, mut rng) = (waits(plan), Rng(recipe.seed));
        let mut schedules = vec![
            Schedule::serial(plan.order()),
            Schedule::waves(plan, 3),
            Schedule::serial(plan.waves().flatten().collect()),
        ];
        for _ in 0..3 {
            schedules.push(Schedule::serial(shuffled(&mut rng, &waits)));
            schedules.push(phased(&mut rng, &waits));
        }
        let mut memory = Memory::unplanned(model);
        let given: Vec<_> = (0..2).map(|n| recipe.given(model, n)).collect();
        let expected: Vec<_> = given
            .iter()
            .map(|g| memory.run_in_order(model, g))
            .collect();
        for schedule in schedules {
            let executable = plain.clone().with_schedule(&schedule).unwrap();
            for executable in ways(&executable) {
                let mut instance = executable.instance().unwrap();
                for (given, expected) in given.iter().zip(&expected) {
                    assert_eq!(&run(&mut instance, model, given).unwrap(), expected);
                }
            }
        }
    });
}

/// Each two ops that share a byte of memory which one of them writes, the first of them
/// first: all that a plan's graph says, and much that follows from the rest of it.
fn conflicts(plan: &Plan, memory: &Memory) -> Vec<(usize, usize)> {
    let touches: Vec<Vec<_>> = (0..plan.ops().len())
        .map(|op| plan.touches(op).collect())
        .collect();
    let conflict = |a: usize, b: usize| {
        touches[a].iter().any(|a| {
            let mut others = touches[b].iter();
            others.any(|b| {
                (a.access.writes() || b.access.writes()) && memory.shared(&a.range, &b.range) > 0
            })
        })
    };
    let order = plan.order();
    let pairs = (0..order.len()).flat_map(|j| (0..j).map(move |i| (i, j)));
    let pairs = pairs.map(|(i, j)| (order[i], order[j]));
    pairs.filter(|&(a, b)| conflict(a, b)).collect()
}

/// Whether a schedule keeps the order of all these pairs.
fn keeps(schedule: &Schedule, pairs: &[(usize, usize)]) -> bool {
    let mut places = vec![(0, 0, 0); schedule.ops().count()];
    for (p, tasks) in schedule.phases.iter().enumerate() {
        for (c, task) in tasks.iter().enumerate() {
            for (at, &op) in task.ops.iter().enumerate() {
                places[op] = (p, c, at);
            }
        }
    }
    pairs.iter().all(|&(first, second)| {
        let ((p, c, a), (q, d, b)) = (places[first], places[second]);
        p < q || (p == q && c == d && a < b)
    })
}

/// A schedule with a few ops put elsewhere.
fn disturbed(rng: &mut Rng, schedule: &Schedule) -> Schedule {
    let mut schedule = schedule.clone();
    for _ in 0..1 + rng.below(8) / 7 {
        let all = schedule.phases.iter_mut().flatten();
        let mut all: Vec<_> = all.filter(|chain| !chain.ops.is_empty()).collect();
        let from = rng.below(all.len());
        let at = rng.below(all[from].ops.len());
        let op = all[from].ops.remove(at);
        all[from].parts = 1;
        let phase = rng.below(schedule.phases.len());
        let chains = &mut schedule.phases[phase];
        if chains.is_empty() || rng.below(3) == 0 {
            chains.push(Task::chain(vec![op]));
        } else {
            let chain = rng.below(chains.len());
            let at = rng.below(chains[chain].ops.len() + 1);
            chains[chain].ops.insert(at, op);
            chains[chain].parts = 1;
        }
    }
    schedule
}

#[test]
fn a_schedule_is_accepted_exactly_if_it_keeps_every_conflict_whichever_edges_say_so() {
    let (accepted, refused) = (Cell::new(0), Cell::new(0));
    for_same_plans(&Shape::ALL, 60, |recipe, model| {
        let plan = model.plan();
        let (waits, mut rng) = (waits(&plan), Rng(recipe.seed));
        let pairs = conflicts(&plan, &Memory::planned(model, &plan));
        let edges = waits.iter().map(Vec::len).sum::<usize>();
        assert_eq!(plan.edges(), edges);
        assert!(edges <= pairs.len());
        // What uses the same buffer keeps the order in which it was added.
        let declared = conflicts(&plan, &Memory::unplanned(model));
        assert!(declared.iter().all(|(first, second)| first < second));
        if plan.ops().is_empty() {
            return;
        }
        for round in 0..24 {
            let schedule = match round % 3 {
                0 => Schedule::waves(&plan, 2),
                1 => phased(&mut rng, &waits),
                _ => Schedule::serial(shuffled(&mut rng, &waits)),
            };
            assert!(keeps(&schedule, &pairs));
            let schedule = disturbed(&mut rng, &schedule);
            let outcome = plan.check_schedule(&schedule);
            assert_eq!(outcome.is_ok(), keeps(&schedule, &pairs), "{outcome:?}");
            let count = if outcome.is_ok() { &accepted } else { &refused };
            count.set(count.get() + 1);
        }
    });
    let (accepted, refused) = (accepted.get(), refused.get());
    assert!(
        accepted > part(200) && refused > part(200),
        "{accepted} and {refused}"
    );
}

/// What to run before and after two ops, so that `second` right before `first` breaks the
/// edge from `first` to it and keeps all others: all that any of the two waits for, and the
/// rest.
///
/// It can be done, since no other path leads from one to the other: the edge would follow
/// from it.
fn around(waits: &[Vec<usize>], first: usize, second: usize) -> [Vec<usize>; 2] {
    let mut needed = BTreeSet::new();
    let mut ahead = vec![first, second];
    while let Some(op) = ahead.pop() {
        let others = waits[op].iter().filter(|&&w| (w, op) != (first, second));
        ahead.extend(others.filter(|&&w| needed.insert(w)));
    }
    assert!(!needed.contains(&first) && !needed.contains(&second));
    // By the longest path that leads to each, which keeps all waits.
    let mut waves = vec![0; waits.len()];
    let mut rest: Vec<_> = (0..waits.len()).collect();
    while !rest.is_empty() {
        rest.retain(|&op| {
            let is_held = waits[op].iter().any(|&w| waves[w] == 0);
            if !is_held {
                waves[op] = 1 + waits[op].iter().map(|&w| waves[w]).max().unwrap_or(0);
            }
            is_held
        });
    }
    let mut others: Vec<_> = (0..waits.len())
        .filter(|&op| op != first && op != second)
        .collect();
    others.sort_by_key(|&op| waves[op]);
    let (before, after) = others.into_iter().partition(|op| needed.contains(op));
    [before, after]
}

/// What was found of the edges of one kind.
#[derive(Default)]
struct Tally {
    edges: Cell<u32>,
    /// How many made a difference when they were broken.
    found: Cell<u32>,
}

impl Tally {
    fn count(&self, found: bool) {
        self.edges.set(self.edges.get() + 1);
        self.found.set(self.found.get() + u32::from(found));
    }

    /// That there were so many, and that so many of a hundred were found.
    #[track_caller]
    fn assert(&self, at_least: u32, percent: u32, what: &str) {
        let (edges, found) = (self.edges.get(), self.found.get());
        println!("{what}: {found} of {edges} edges");
        assert!(edges >= part(at_least), "{what}: {edges} edges");
        assert!(
            found * 100 >= edges * percent,
            "{what}: {found} of {edges} edges"
        );
    }
}

/// Whether it must show that `second` runs right before `first` and `after` follows: one
/// of them, or a later op, tells that it has read bytes that the other should, or should
/// not, have written, or the run ends with such bytes in a state or an output.
///
/// It need not show where what they write is read by nobody, or through a copy alone,
/// which is not followed here. Four bytes are as good as never the same by chance.
fn must_show(
    model: &Model,
    memory: &Memory,
    given: &Given,
    [first, second]: [usize; 2],
    after: &[usize],
) -> bool {
    if !model.mixes(first) || !model.mixes(second) {
        return false;
    }
    let footprint = |op| {
        let footprint = model.footprint(op, &given.variables);
        [footprint.reads, footprint.writes].map(|ranges| {
            let places = ranges.iter().map(|range| memory.place(range));
            let bytes = places.flat_map(|(space, bytes)| bytes.map(move |byte| (space, byte)));
            bytes.collect::<BTreeSet<_>>()
        })
    };
    let [[first_reads, first_writes], [second_reads, second_writes]] =
        [footprint(first), footprint(second)];
    let shows = |bytes: &BTreeSet<_>, others: &BTreeSet<_>| bytes.intersection(others).count() >= 4;
    if shows(&second_reads, &first_writes) || shows(&first_reads, &second_writes) {
        return true;
    }
    let mut wrong: BTreeSet<_> = first_writes.intersection(&second_writes).copied().collect();
    for &op in after {
        let [reads, writes] = footprint(op);
        if model.mixes(op) && shows(&reads, &wrong) {
            return true;
        }
        wrong.retain(|byte| !writes.contains(byte));
    }
    let lasting = model.of_role(&[Role::State, Role::Output]);
    wrong.retain(|(space, _)| lasting.contains(space));
    wrong.len() >= 4
}

/// An executable, of which the edges are broken one by one.
struct Breaking<'a> {
    model: &'a Model,
    executable: Executable,
    /// As the executable, but temps share no memory.
    apart: Executable,
    waits: Vec<Vec<usize>>,
    given: Given,
    expected: Observed,
}

impl Breaking<'_> {
    fn new<'a>(recipe: &Recipe, model: &'a Model) -> Breaking<'a> {
        let executable = model.executable();
        let given = recipe.given(model, 0);
        let [_, apart] = ways(&executable);
        Breaking {
            waits: waits(executable.plan()),
            expected: Memory::unplanned(model).run_in_order(model, &given),
            model,
            executable,
            apart,
            given,
        }
    }

    /// All edges: from the op in the wait to the other.
    fn edges(&self) -> impl Iterator<Item = (Wait, usize)> {
        let plan = self.executable.plan();
        let all = (0..plan.ops().len()).map(|op| (op, plan.explain(op).unwrap().waits));
        all.flat_map(|(op, waits)| waits.into_iter().map(move |wait| (wait, op)))
    }

    /// Breaks one edge, and returns whether that had to show, and whether it did.
    fn break_edge(&self, wait: &Wait, second: usize) -> [bool; 2] {
        let Breaking { model, given, .. } = self;
        let plan = self.executable.plan();
        let first = wait.op;
        let [before, after] = around(&self.waits, first, second);
        refused(plan, &before, first, second, &after);

        // What comes of it when it is forced is what the order does to the bytes of the
        // arena.
        let order = [&before[..], &[second, first], &after].concat();
        let planned = Memory::planned(model, plan);
        let got = self.forced(&self.executable, &order);
        let mut foreseen = planned.clone();
        assert_eq!(got, foreseen.run(model, order.iter().copied(), given));
        let must = must_show(model, &planned, given, [first, second], &after);
        let shows = got != self.expected;
        assert!(shows || !must, "{second} before {first}: {wait:?}");

        // Where temps share no memory, it is what it does to theirs; and of an edge that
        // is there because they share some, nothing.
        let got = self.forced(&self.apart, &order);
        let mut foreseen = Memory::unplanned(model);
        assert_eq!(got, foreseen.run(model, order.iter().copied(), given));
        if is_of_reuse(wait) {
            assert_eq!(got, self.expected);
        }
        [must, shows]
    }

    /// A run of a new instance in an order that may be any.
    fn forced(&self, executable: &Executable, order: &[usize]) -> Observed {
        let schedule = Schedule::serial(order.to_vec());
        // SAFETY: the kernels here take any bytes.
        let executable = unsafe { executable.clone().with_schedule_unchecked(&schedule) };
        let mut instance = executable.unwrap().instance().unwrap();
        run(&mut instance, self.model, &self.given).unwrap()
    }
}

/// Whether an edge is there only because temps share memory.
fn is_of_reuse(wait: &Wait) -> bool {
    assert!(!wait.reasons.is_empty());
    let mut reasons = wait.reasons.iter();
    reasons.all(|reason| reason.later.buffer != reason.earlier.buffer)
}

#[test]
fn an_order_that_breaks_one_edge_is_refused_and_when_forced_found() {
    let [must, all] = [(); 2].map(|()| Tally::default());
    for_same_plans(&Shape::ALL, 60, |recipe, model| {
        let breaking = Breaking::new(recipe, model);
        for (wait, second) in breaking.edges() {
            let [had_to, shows] = breaking.break_edge(&wait, second);
            must.count(had_to);
            all.count(shows);
        }
    });
    must.assert(1000, 65, "had to show");
    all.assert(1000, 80, "showed");
}

#[test]
fn so_is_one_that_breaks_what_sharing_memory_asks_for() {
    let [must, all, war, waw] = [(); 4].map(|()| Tally::default());
    for_same_plans(&[Shape::Reuse], 160, |recipe, model| {
        let breaking = Breaking::new(recipe, model);
        for (wait, second) in breaking.edges().filter(|(wait, _)| is_of_reuse(wait)) {
            let [had_to, shows] = breaking.break_edge(&wait, second);
            must.count(had_to);
            all.count(shows);
            let hazard = wait.reasons[0].hazard;
            let of_kind = if hazard == Hazard::WriteAfterRead {
                &war
            } else {
                &waw
            };
            of_kind.count(shows);
        }
    });
    must.assert(200, 65, "had to show");
    all.assert(200, 75, "showed");
    war.assert(100, 85, "a write after a read");
    waw.assert(50, 40, "a write after a write");
}

/// That the plan refuses all ways in which `second` is no longer after `first`, and says
/// which two ops they are.
fn refused(plan: &Plan, before: &[usize], first: usize, second: usize, after: &[usize]) {
    let phases = [
        vec![vec![vec![second, first]]],
        vec![vec![vec![first], vec![second]]],
        vec![vec![vec![second], vec![first]]],
        vec![vec![vec![second]], vec![vec![first]]],
    ];
    for middle in phases {
        let mut phases = vec![vec![before.to_vec()]];
        phases.extend(middle);
        phases.push(vec![after.to_vec()]);
        let error = plan.check_schedule(&Schedule::chains(phases)).unwrap_err();
        let error = error.to_string();
        for op in [format!("ops[{first}] ("), format!("ops[{second}] (")] {
            assert!(error.contains(&op), "{error}: {first} before {second}");
        }
        assert!(error.contains("must come after"), "{error}");
    }
    // In this order it is one that is accepted.
    let kept = [before, &[first, second], after].concat();
    plan.check_schedule(&Schedule::serial(kept)).unwrap();
}
