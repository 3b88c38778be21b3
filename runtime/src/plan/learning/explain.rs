//! A learned schedule in words: what runs when, and why no more of it at the same time.

use std::fmt;
use std::time::Duration;

use super::LearnedSchedule;
use crate::Error;
use crate::plan::scheduling::{Cost, Overheads, longest_path};
use crate::plan::{Plan, Task};

/// More tasks of a phase than this are not listed.
const TASKS: usize = 6;

/// More stretches of ops than this are not listed.
const STRETCHES: usize = 8;

/// What a schedule does, and why: see [`LearnedSchedule::explain`]. It is shown as text, a
/// line that says for whom it is and what it gains, one for each phase, and one on what
/// keeps it from being faster.
#[derive(Clone, Debug)]
pub struct ScheduleExplanation<'a> {
    plan: &'a Plan,
    learned: &'a LearnedSchedule,
}

impl LearnedSchedule {
    /// What the schedule does, and why, in words. Phases and ops are counted from 0.
    ///
    /// # Errors
    ///
    /// [`Error::Schedule`] where it is not the plan's.
    pub fn explain<'a>(&'a self, plan: &'a Plan) -> Result<ScheduleExplanation<'a>, Error> {
        plan.check_learned(self)?;
        Ok(ScheduleExplanation {
            plan,
            learned: self,
        })
    }
}

impl fmt::Display for ScheduleExplanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LearnedSchedule {
            cpu,
            threads,
            schedule,
            ..
        } = self.learned;
        let [serial, nanos, bound] = [
            self.learned.serial_nanos,
            self.learned.nanos,
            self.learned.bound_nanos,
        ]
        .map(time);
        let of = if cpu.is_empty() {
            "this processor"
        } else {
            cpu
        };
        writeln!(
            f,
            "{} of {of}: one thread {serial}, with the schedule {nanos}, at best {bound}",
            count(*threads, "thread"),
        )?;
        for (i, phase) in schedule.phases.iter().enumerate() {
            write!(f, "phase {i}: ")?;
            self.phase(f, phase)?;
            writeln!(f)?;
        }
        if self.is_serial() {
            self.why_serial(f)
        } else {
            self.why_no_faster(f)
        }
    }
}

impl ScheduleExplanation<'_> {
    fn is_serial(&self) -> bool {
        let phases = self.learned.schedule.phases.iter();
        let mut phases = phases.filter(|phase| !phase.is_empty());
        phases.all(|phase| matches!(&phase[..], [task] if task.parts == 1))
    }

    fn phase(&self, f: &mut fmt::Formatter<'_>, phase: &[Task]) -> fmt::Result {
        match phase {
            [] => write!(f, "nothing"),
            [task] if task.parts > 1 => {
                let (nanos, parts) = (self.nanos(&task.ops), task.parts);
                let part = time(nanos / f64::from(parts));
                let name = self.name(&task.ops, true);
                write!(
                    f,
                    "{name} in {parts} parts ({}, about {part} each)",
                    time(nanos)
                )
            }
            [task] => {
                let (name, time) = (self.name(&task.ops, true), time(self.nanos(&task.ops)));
                let how = match task.ops[..] {
                    [_] => "on one thread",
                    _ => "one after another",
                };
                write!(f, "{name} {how} ({time})")?;
                match self.is_serial() {
                    true => Ok(()),
                    false => write!(f, ": {}", self.why_in_turn(&task.ops)),
                }
            }
            tasks => {
                let shown = &tasks[..tasks.len().min(TASKS)];
                let names = shown.iter().map(|task| match task.parts {
                    1 => self.name(&task.ops, false),
                    n => format!("{} in {n} parts", self.name(&task.ops, false)),
                });
                let mut names: Vec<_> = names.collect();
                let times = shown.iter().map(|task| time(self.nanos(&task.ops)));
                let mut times: Vec<_> = times.collect();
                if let Some(rest) = tasks.get(TASKS..).filter(|rest| !rest.is_empty()) {
                    names.push(format!("{} more", count(rest.len(), "task")));
                    let all = rest.iter().map(|task| self.nanos(&task.ops)).sum();
                    times.push(format!("{} together", time(all)));
                }
                let (names, times) = (names.join(" | "), times.join(" | "));
                write!(f, "{names} side by side ({times})")
            }
        }
    }

    /// What several threads would have of ops that one thread runs.
    fn why_in_turn(&self, ops: &[usize]) -> &'static str {
        let threads = self.learned.threads as f64;
        let Overheads { phase, unit } = Overheads::default();
        let cuttable = ops.iter().any(|&op| self.plan.max_parts(op) > 1);
        let is_path = ops.windows(2).all(|pair| {
            let before = self.plan.layout.graph.predecessors(pair[1]);
            before.contains(&(pair[0] as u32))
        });
        // What is gained if all threads have their share, and nothing stands in the way.
        let gain = self.nanos(ops) * (1.0 - 1.0 / threads);
        let each = |&op: &usize| self.nanos(&[op]) * (1.0 - 1.0 / threads) < phase + 2.0 * unit;
        match (cuttable, is_path) {
            (false, true) if ops.len() == 1 => "it cannot be cut",
            (false, true) => "each waits for the one before, and none can be cut",
            _ if gain < phase + 2.0 * unit => "too small to share",
            _ if ops.iter().all(each) => "each is too small to share",
            _ => "sharing it costs more than it gains",
        }
    }

    fn why_serial(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LearnedSchedule {
            threads,
            serial_nanos,
            ..
        } = *self.learned;
        write!(f, "all on one thread: ")?;
        let Some(tried) = self.learned.tried_nanos else {
            return write!(
                f,
                "by what the ops cost, nothing is gained by sharing them among {threads}"
            );
        };
        let percent = 100.0 * (tried / serial_nanos.max(1.0) - 1.0);
        write!(f, "the fastest schedule for several took {}, ", time(tried))?;
        if percent >= 0.0 {
            write!(f, "{percent:.1} % more")
        } else {
            write!(
                f,
                "{:.1} % less, which is too little to be sure of",
                -percent
            )
        }
    }

    fn why_no_faster(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LearnedSchedule {
            threads,
            nanos,
            ref op_nanos,
            ..
        } = *self.learned;
        let costs = op_nanos.iter().enumerate().map(|(op, &nanos)| Cost {
            nanos,
            parts: self.plan.max_parts(op),
        });
        let work: f64 = op_nanos.iter().sum();
        let even = work / threads as f64;
        let (longest, path) = longest_path(self.plan, &costs.collect::<Vec<_>>(), threads);
        let busy = (work / nanos.max(1.0)).clamp(1.0, threads as f64);
        write!(f, "on average {busy:.1} of {threads} threads have work: ")?;
        let reason = if longest > even {
            format!(
                "the longest path, {}, takes {} with each launch shared as far as it can be",
                self.name(&path, false),
                time(longest)
            )
        } else {
            format!("all ops take {}, shared evenly {}", time(work), time(even))
        };
        let rest = nanos - longest.max(even);
        match rest > 0.0 {
            true => write!(
                f,
                "{reason}; the other {} go to what is too small to share, to waiting and to memory",
                time(rest)
            ),
            false => write!(f, "{reason}"),
        }
    }

    fn nanos(&self, ops: &[usize]) -> f64 {
        let nanos = ops.iter().filter_map(|&op| self.learned.op_nanos.get(op));
        nanos.sum()
    }

    /// ``ops[13] (launch of `dot`)``, `ops 1-3, 7`
    fn name(&self, ops: &[usize], with_label: bool) -> String {
        let stretches: Vec<_> = ops.chunk_by(|a, b| a + 1 == *b).collect();
        if let [op] = ops {
            return match with_label {
                true => format!("ops[{op}] ({})", self.plan.op_label(*op)),
                false => format!("ops[{op}]"),
            };
        }
        let shown = stretches.iter().take(STRETCHES).map(|ops| match ops {
            [first, .., last] => format!("{first}-{last}"),
            ops => ops.iter().map(ToString::to_string).collect(),
        });
        let mut text = format!("ops {}", shown.collect::<Vec<_>>().join(", "));
        let rest: usize = stretches.iter().skip(STRETCHES).map(|s| s.len()).sum();
        if rest > 0 {
            text += &format!(" and {rest} more");
        }
        text
    }
}

fn count(n: usize, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

/// Three or four digits, and the unit.
fn time(nanos: f64) -> String {
    let time = Duration::try_from_secs_f64(nanos / 1e9).unwrap_or(Duration::MAX);
    let (number, unit) = match nanos {
        ..1e3 => return format!("{} ns", time.as_nanos()),
        ..1e6 => (nanos / 1e3, "µs"),
        ..1e9 => (nanos / 1e6, "ms"),
        _ => (nanos / 1e9, "s"),
    };
    let decimals = match number {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{number:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Schedule;
    use crate::plan::scheduling::tests::{launch, op, plan};

    /// Two ops, a launch of eight that waits for the first of them, two small ones.
    fn sketch() -> Plan {
        let ops = [
            op(200e3, &[]),
            op(150e3, &[]),
            launch(400e3, 8, &[0]),
            op(100.0, &[2]),
            op(50.0, &[3]),
        ];
        plan(&ops).0
    }

    fn learned(phases: Vec<Vec<Task>>) -> LearnedSchedule {
        LearnedSchedule {
            plan: "sketch".into(),
            cpu: "a processor".into(),
            threads: 2,
            schedule: Schedule { phases },
            op_nanos: vec![200e3, 150e3, 400e3, 100.0, 50.0],
            serial_nanos: 751e3,
            nanos: 412_160.0,
            tried_nanos: Some(412e3),
            bound_nanos: 400_150.0,
        }
    }

    fn text(learned: &LearnedSchedule) -> String {
        learned.explain(&sketch()).unwrap().to_string()
    }

    #[test]
    fn each_phase_says_what_runs_and_why_not_more() {
        let learned = learned(vec![
            vec![Task::chain(vec![0]), Task::chain(vec![1])],
            vec![Task::split(2, 2)],
            vec![Task::chain(vec![3, 4])],
        ]);
        assert_eq!(
            text(&learned),
            "2 threads of a processor: one thread 751 µs, with the schedule 412 µs, at best 400 µs\n\
             phase 0: ops[0] | ops[1] side by side (200 µs | 150 µs)\n\
             phase 1: ops[2] (launch of `launch`) in 2 parts (400 µs, about 200 µs each)\n\
             phase 2: ops 3-4 one after another (150 ns): each waits for the one before, and none \
             can be cut\n\
             on average 1.8 of 2 threads have work: the longest path, ops 0, 2-4, takes 400 µs \
             with each launch shared as far as it can be; the other 12.0 µs go to what is too small \
             to share, to waiting and to memory"
        );
    }

    #[test]
    fn a_launch_that_is_not_cut_says_whether_it_is_too_small() {
        let mut learned = learned(vec![
            vec![Task::chain(vec![0, 2])],
            vec![Task::chain(vec![1]), Task::chain(vec![3, 4])],
        ]);
        assert!(
            text(&learned).contains("phase 0: ops 0, 2 one after another (600 µs): sharing it")
        );
        learned.op_nanos[..3].fill(100.0);
        assert!(text(&learned).contains("ops 0, 2 one after another (200 ns): too small to share"));
        learned.op_nanos[..3].fill(400.0);
        let line = "ops 0, 2 one after another (800 ns): each is too small to share";
        assert!(text(&learned).contains(line), "{}", text(&learned));
    }

    #[test]
    fn where_the_serial_order_won_it_says_by_how_much() {
        let mut learned = learned(vec![vec![Task::chain(vec![0, 1, 2, 3, 4])]]);
        learned.serial_nanos = 400e3;
        learned.nanos = 400e3;
        let last = |learned: &LearnedSchedule| text(learned).lines().last().unwrap().to_owned();
        assert_eq!(
            last(&learned),
            "all on one thread: the fastest schedule for several took 412 µs, 3.0 % more"
        );
        learned.tried_nanos = Some(398e3);
        assert!(last(&learned).ends_with("398 µs, 0.5 % less, which is too little to be sure of"));
        learned.tried_nanos = None;
        assert!(last(&learned).ends_with("nothing is gained by sharing them among 2"));
        assert_eq!(
            text(&learned).lines().nth(1).unwrap(),
            "phase 0: ops 0-4 one after another (750 µs)"
        );
    }

    #[test]
    fn of_many_tasks_a_few_are_listed() {
        let ops: Vec<_> = (0..40).map(|_| op(1e3, &[])).collect();
        let (plan, _) = plan(&ops);
        let mut learned = learned(vec![(0..40).map(|op| Task::chain(vec![op])).collect()]);
        learned.op_nanos = vec![1e3; 40];
        let text = learned.explain(&plan).unwrap().to_string();
        assert!(
            text.contains("ops[5] | 34 tasks more side by side"),
            "{text}"
        );
        assert!(text.contains("| 34.0 µs together)"), "{text}");
        assert!(
            text.ends_with(
                "all ops take 40.0 µs, shared evenly 20.0 µs; the other 392 µs go \
                                to what is too small to share, to waiting and to memory"
            ),
            "{text}"
        );

        let evens = (0..40).step_by(2).chain((1..40).step_by(2)).collect();
        learned.schedule.phases = vec![vec![Task::chain(evens)]];
        let text = learned.explain(&plan).unwrap().to_string();
        assert!(
            text.contains("ops 0, 2, 4, 6, 8, 10, 12, 14 and 32 more"),
            "{text}"
        );
    }

    #[test]
    fn another_plans_is_refused() {
        let learned = learned(vec![vec![Task::chain(vec![0, 1])]]);
        let error = learned.explain(&sketch()).unwrap_err();
        assert!(matches!(error, Error::Schedule { .. }), "{error}");
    }
}
