//! What a profile comes to.
//!
//! All of it is data that is also written as JSON: times are in nanoseconds, shares between 0 and 1,
//! rates a second.

use std::time::Duration;

use serde::Serialize;

use super::{Counts, Kept, Machine, Profile, nanos, traffic};
use crate::bench::Spread;
use crate::plan::{Op, Plan};
use crate::signature::{DType, Param};

/// What a profile comes to. Written as JSON, it is of the schema that its first key names.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// `svod.profile.1`: names and units of this form stay, others may be added.
    pub schema: &'static str,
    /// The plan's name.
    pub plan: String,
    /// How many runs were added.
    pub runs: u64,
    /// The time of a run.
    pub run_ns: Spread,
    /// How many threads a run could have had; its schedule may use fewer.
    pub pool_threads: usize,
    /// What threads that were seen did.
    pub threads: Vec<ThreadReport>,
    /// What a run comes to.
    pub totals: Totals,
    /// What the processor counted in a run in the mean; none until somebody who has
    /// [counted](super::Counters) puts it here.
    pub counts: Option<Counts>,
    /// The machine, where it was measured.
    pub machine: Option<Machine>,
    /// By kernel, the most costly first; copies and fills are one each, and so is each host
    /// function.
    pub kernels: Vec<KernelReport>,
    /// By op, in the plan's order.
    pub ops: Vec<OpReport>,
}

/// Where the times of the latest runs lie, in nanoseconds; zeros of an op that never ran.
pub(super) fn spread(times: &Kept) -> Spread {
    let numbers: Vec<_> = times.numbers.iter().map(|&n| f64::from(n)).collect();
    match numbers.is_empty() {
        true => Spread::of(&[0.0]),
        false => Spread::of(&numbers),
    }
}

/// What a thread did, in a run in the mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ThreadReport {
    /// In how many runs it had an op.
    pub runs: u64,
    /// In ops.
    pub busy_ns: f64,
    /// Without an op, until the others had done their part of a phase.
    pub waits_ns: f64,
    /// Neither of these: the runtime, or other programs, had its time.
    pub blank_ns: f64,
    /// How many ops and parts of ops it ran.
    pub spans: f64,
}

impl Report {
    /// As [`kernels`](Self::kernels), for each op on its own, the most costly first.
    #[must_use]
    pub fn by_op(&self) -> Vec<KernelReport> {
        let all: f64 = self.ops.iter().map(|op| op.work_ns.median).sum();
        let one = |op| kernel(&[op], all, self.totals.overhead_ns);
        let mut ops: Vec<_> = self.ops.iter().map(one).collect();
        ops.sort_by(|a, b| b.work_ns.total_cmp(&a.work_ns));
        ops
    }
}

/// What a run comes to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Totals {
    /// How many launches.
    pub launches: usize,
    /// All ops, on all threads: the sum of their medians.
    pub work_ns: f64,
    /// What all threads waited for each other.
    pub waits_ns: f64,
    /// What the runtime takes for a launch, where it was [measured](super::overhead).
    pub overhead_ns: Option<f64>,
    /// How evenly work is shared: the mean of what threads did over the most that one did; 1 on
    /// one thread.
    pub balance: f64,
    /// What the critical path takes: of all chains of ops that each wait for the one before, the
    /// one that takes longest, if none of its ops is split.
    pub critical_path_ns: f64,
}

/// What keeps a kernel from being faster: the largest of three times that it cannot
/// do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// Moving its bytes.
    Memory,
    /// Its arithmetic.
    Arithmetic,
    /// What the runtime takes for a launch.
    Launch,
}

impl Bound {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Bound::Memory => "memory",
            Bound::Arithmetic => "arithmetic",
            Bound::Launch => "launch",
        }
    }
}

/// What an op takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OpReport {
    /// Its number.
    pub op: usize,
    /// Which kernel it launches.
    pub kernel: Option<usize>,
    /// The kernel's entry, `copy`, `fill`, or the host function's name.
    pub name: String,
    /// Which [wave](crate::plan::Plan::waves) it is of.
    pub wave: usize,
    /// Whether it is on the critical path.
    pub critical: bool,
    /// In how many of the runs it ran.
    pub runs: u64,
    /// What it takes, on all threads together.
    pub work_ns: Spread,
    /// The most threads that had a part of it in one run.
    pub threads: u32,
    /// Floating-point operations, as the plan states them.
    pub flops: Option<u64>,
    /// Bytes moved: as the plan states them, or those of its arguments.
    pub bytes: u64,
    /// The least that its arithmetic takes on this machine, on all threads together.
    pub arithmetic_ns: Option<f64>,
    /// The least that moving its bytes takes on this machine, on all threads together.
    pub memory_ns: Option<f64>,
}

impl OpReport {
    /// The least that it takes on this machine, where that is known.
    fn least(&self) -> Option<f64> {
        match (self.arithmetic_ns, self.memory_ns) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (one, other) => one.or(other),
        }
    }
}

/// What the launches of a kernel take in a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KernelReport {
    /// Its number; none of copies, fills and host functions.
    pub kernel: Option<usize>,
    /// Its entry, `copy`, `fill`, or the host function's name.
    pub name: String,
    /// The ops.
    pub ops: Vec<usize>,
    /// All of them, on all threads together: the sum of their medians.
    pub work_ns: f64,
    /// How far their quartiles are apart, over the median.
    pub spread: f64,
    /// Of all ops.
    pub share: f64,
    /// The most threads that had a part of one of them in a run.
    pub threads: u32,
    /// Floating-point operations a second, where the plan states them for each: while it runs, on
    /// as many threads as it has.
    pub flops: Option<f64>,
    /// Bytes a second.
    pub bytes: f64,
    /// The least time that the machine could do it in, over the time that it took; more than 1 of
    /// what is nearer than it could be known to be.
    pub of_peak: Option<f64>,
    /// What bounds it.
    pub bound: Option<Bound>,
}

pub(super) fn make(
    profile: &Profile,
    machine: Option<&Machine>,
    overhead_ns: Option<f64>,
) -> Report {
    let plan = profile.plan();
    let ops = ops(profile, machine);
    let kernels = kernels(&ops, overhead_ns);
    let runs = profile.runs.max(1) as f64;
    let threads: Vec<_> = profile
        .threads
        .iter()
        .map(|thread| ThreadReport {
            runs: thread.runs,
            busy_ns: thread.busy / runs,
            waits_ns: thread.waits / runs,
            blank_ns: ((profile.wall - thread.busy - thread.waits) / runs).max(0.0),
            spans: thread.spans as f64 / runs,
        })
        .collect();
    let busy = threads.iter().map(|t| t.busy_ns);
    let (all, most) = (busy.clone().sum::<f64>(), busy.fold(0.0, f64::max));
    let is_launch = |op: &&Op| matches!(op, Op::Launch(_));
    let totals = Totals {
        launches: plan.ops().iter().filter(is_launch).count(),
        work_ns: ops.iter().map(|op| op.work_ns.median).sum(),
        waits_ns: threads.iter().map(|t| t.waits_ns).sum(),
        overhead_ns,
        balance: match most > 0.0 {
            true => all / threads.len() as f64 / most,
            false => 1.0,
        },
        critical_path_ns: ops
            .iter()
            .filter(|op| op.critical)
            .map(|op| op.work_ns.median)
            .sum(),
    };
    Report {
        schema: "svod.profile.1",
        plan: plan.name().to_owned(),
        runs: profile.runs,
        run_ns: profile.run_ns(),
        pool_threads: profile.executable.pool().threads(),
        threads,
        totals,
        counts: None,
        machine: machine.cloned(),
        kernels,
        ops,
    }
}

fn ops(profile: &Profile, machine: Option<&Machine>) -> Vec<OpReport> {
    let plan = profile.plan();
    let order: Vec<usize> = profile.executable.schedule().ops().collect();
    let traffic = traffic::of(plan, &order);
    let mut waves = vec![0; plan.ops().len()];
    for (wave, ops) in plan.waves().enumerate() {
        ops.for_each(|op| waves[op] = wave);
    }
    let all = plan.ops().iter().zip(&profile.ops).enumerate();
    let mut ops: Vec<OpReport> = all
        .map(|(i, (op, times))| {
            let (kernel, name) = named(plan, op);
            let (flops, stated) = match op {
                Op::Launch(launch) => (launch.flops, launch.bytes),
                _ => (None, None),
            };
            // Its work is that of so many threads; what they can do together, in that time.
            let rates = machine.and_then(|m| m.rates(times.threads.max(1) as usize));
            let work = |rates: &super::Rates, least: Duration| nanos(least) * rates.threads as f64;
            OpReport {
                op: i,
                kernel,
                name,
                wave: waves[i],
                critical: false,
                runs: times.runs,
                work_ns: spread(&times.work),
                threads: times.threads,
                flops,
                bytes: stated.unwrap_or_else(|| traffic[i].iter().map(|t| t.bytes as u64).sum()),
                arithmetic_ns: rates.zip(flops).map(|(rates, flops)| {
                    work(rates, rates.arithmetic(flops, bytes_a_float(plan, op)))
                }),
                memory_ns: rates
                    .map(|rates| work(rates, traffic::time(&traffic[i], stated, rates))),
            }
        })
        .collect();
    for op in critical_path(plan, &ops) {
        ops[op].critical = true;
    }
    ops
}

/// The chain of ops that takes longest.
fn critical_path(plan: &Plan, ops: &[OpReport]) -> Vec<usize> {
    // When each ends, if none waits for anything else than those before it.
    let mut ends = vec![0.0; ops.len()];
    let before = |op: usize, ends: &[f64]| {
        plan.predecessors(op)
            .max_by(|&a, &b| ends[a].total_cmp(&ends[b]))
    };
    for op in plan.order() {
        let start = before(op, &ends).map_or(0.0, |before| ends[before]);
        ends[op] = start + ops[op].work_ns.median;
    }
    let last = (0..ops.len()).max_by(|&a, &b| ends[a].total_cmp(&ends[b]));
    std::iter::successors(last, |&op| before(op, &ends)).collect()
}

fn named(plan: &Plan, op: &Op) -> (Option<usize>, String) {
    match op {
        Op::Launch(launch) => {
            let entry = plan.kernels()[launch.kernel].entry.clone();
            (Some(launch.kernel), entry)
        }
        Op::Copy { .. } => (None, "copy".into()),
        Op::Fill { .. } => (None, "fill".into()),
        Op::Host(call) => (None, call.function.name().to_owned()),
    }
}

/// How wide the floats are that it computes with: as the widest of its arguments, and of what
/// is narrower than 32 bits 32, in which it is most often computed.
fn bytes_a_float(plan: &Plan, op: &Op) -> usize {
    let Op::Launch(launch) = op else {
        return 4;
    };
    let params = plan.kernels()[launch.kernel].signature.params();
    let is_wide = |param: &Param| matches!(param, Param::Buffer(b) if b.dtype == DType::F64);
    if params.iter().any(is_wide) { 8 } else { 4 }
}

fn kernels(ops: &[OpReport], overhead: Option<f64>) -> Vec<KernelReport> {
    let mut groups: Vec<Vec<&OpReport>> = Vec::new();
    let mut known = std::collections::HashMap::new();
    for op in ops {
        let group = *known.entry((op.kernel, &op.name)).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(op);
    }
    let all: f64 = ops.iter().map(|op| op.work_ns.median).sum();
    let mut kernels: Vec<_> = groups
        .iter()
        .map(|ops| kernel(ops, all, overhead))
        .collect();
    kernels.sort_by(|a, b| b.work_ns.total_cmp(&a.work_ns));
    kernels
}

fn kernel(ops: &[&OpReport], all: f64, overhead: Option<f64>) -> KernelReport {
    let sum = |of: &dyn Fn(&OpReport) -> f64| ops.iter().map(|op| of(op)).sum::<f64>();
    let sum_known =
        |of: &dyn Fn(&OpReport) -> Option<f64>| ops.iter().map(|op| of(op)).sum::<Option<f64>>();
    let work = sum(&|op| op.work_ns.median);
    let span = sum(&|op| op.work_ns.median / f64::from(op.threads.max(1)));
    let rate = |amount: f64| if span > 0.0 { amount / span * 1e9 } else { 0.0 };
    let least = sum_known(&OpReport::least);
    let bound = least.map(|_| {
        let arithmetic = sum(&|op| op.arithmetic_ns.unwrap_or(0.0));
        let memory = sum(&|op| op.memory_ns.unwrap_or(0.0));
        // Of all threads, as the other two.
        let launch = overhead.unwrap_or(0.0) * sum(&|op| f64::from(op.threads.max(1)));
        if launch > arithmetic.max(memory) {
            Bound::Launch
        } else if arithmetic > memory {
            Bound::Arithmetic
        } else {
            Bound::Memory
        }
    });
    KernelReport {
        kernel: ops[0].kernel,
        name: ops[0].name.clone(),
        ops: ops.iter().map(|op| op.op).collect(),
        work_ns: work,
        spread: match work > 0.0 {
            true => sum(&|op| op.work_ns.upper - op.work_ns.lower) / work,
            false => 0.0,
        },
        share: if all > 0.0 { work / all } else { 0.0 },
        threads: ops.iter().map(|op| op.threads).max().unwrap_or(0),
        flops: sum_known(&|op| op.flops.map(|f| f as f64)).map(rate),
        bytes: rate(sum(&|op| op.bytes as f64)),
        of_peak: least.filter(|_| work > 0.0).map(|least| least / work),
        bound,
    }
}
