//! Why an op waits for another.

use std::fmt;

use super::op::Touch;
use super::{BufferRange, Plan};

/// Which order of two accesses to the same bytes must be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hazard {
    /// The later op reads what the earlier one writes.
    ReadAfterWrite,
    /// The later op writes what the earlier one reads.
    WriteAfterRead,
    /// Both write.
    WriteAfterWrite,
}

/// One reason why an op must come after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Which order must be kept.
    pub hazard: Hazard,
    /// What the later op touches.
    pub later: BufferRange,
    /// What the earlier op touches. Another buffer than the later op's where the memory
    /// planner laid one temp where another had been.
    pub earlier: BufferRange,
}

/// An op that another waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The op that must be done before.
    pub op: usize,
    /// Why; at least one reason.
    pub reasons: Vec<Reason>,
}

/// What an op waits for, and why: see [`Plan::explain`]. It is shown as text, a line
/// for each reason.
#[derive(Clone, Debug)]
pub struct Explanation<'a> {
    plan: &'a Plan,
    /// The op.
    pub op: usize,
    /// Its wave, counted from 0: the length of the longest path that leads to it.
    pub wave: usize,
    /// What it waits for, without what it waits for by waiting for others.
    pub waits: Vec<Wait>,
}

impl Plan {
    /// What an op waits for, and why; `None` where there is no such op.
    ///
    /// ```
    /// # use svod_runtime::plan::PlanBuilder;
    /// # use svod_runtime::DType;
    /// let mut plan = PlanBuilder::new("twice");
    /// let x = plan.input("x", DType::F32, &[4])?;
    /// let t = plan.temp(DType::F32, &[4])?;
    /// let y = plan.output("y", DType::F32, &[4])?;
    /// plan.copy(x, t)?;
    /// plan.copy(t, y)?;
    /// let plan = plan.build()?;
    /// let explanation = plan.explain(1).map(|e| e.to_string());
    /// assert_eq!(
    ///     explanation.unwrap_or_default(),
    ///     "ops[1] (copy), in wave 1\n  \
    ///      waits for ops[0] (copy): it reads bytes 0 to 16 of temp #1, which that writes"
    /// );
    /// # Ok::<(), svod_runtime::Error>(())
    /// ```
    #[must_use]
    pub fn explain(&self, op: usize) -> Option<Explanation<'_>> {
        self.ops.get(op)?;
        let graph = &self.layout.graph;
        let mut before: Vec<_> = graph.predecessors(op).iter().map(|&p| p as usize).collect();
        before.sort_unstable();
        let wait = |earlier| Wait {
            op: earlier,
            reasons: self.reasons(op, earlier),
        };
        Some(Explanation {
            plan: self,
            op,
            wave: graph.waves()[op] as usize,
            waits: before.into_iter().map(wait).collect(),
        })
    }

    /// Why the op `earlier` must come before `op`; empty where it need not, or only by
    /// way of others.
    fn reasons(&self, op: usize, earlier: usize) -> Vec<Reason> {
        let mut reasons = Vec::new();
        for later in self.touches(op) {
            for earlier in self.touches(earlier) {
                let hazard = match (earlier.access.writes(), later.access.writes()) {
                    (false, false) => continue,
                    (true, true) if later.access.reads() => Hazard::ReadAfterWrite,
                    (true, true) => Hazard::WriteAfterWrite,
                    (true, false) => Hazard::ReadAfterWrite,
                    (false, true) => Hazard::WriteAfterRead,
                };
                if self.share_bytes(&later, &earlier) {
                    reasons.push(Reason {
                        hazard,
                        later: later.range,
                        earlier: earlier.range,
                    });
                }
            }
        }
        reasons
    }

    fn share_bytes(&self, a: &Touch, b: &Touch) -> bool {
        let [a, b] = [a, b].map(|touch| self.layout.bytes(touch));
        a.memory == b.memory && a.start.max(b.start) < a.end.min(b.end)
    }

    /// One sentence on why `op` must come after `earlier`.
    pub(super) fn explain_wait(&self, op: usize, earlier: usize) -> String {
        let reasons = self.reasons(op, earlier);
        let why = reasons.first().map(|reason| self.describe(reason));
        format!(
            "ops[{op}] ({}) must come after ops[{earlier}] ({}): {}",
            self.op_label(op),
            self.op_label(earlier),
            why.unwrap_or_default()
        )
    }

    /// One sentence on a reason, from the later op's side: `it reads …, which that writes`.
    pub(crate) fn describe(&self, reason: &Reason) -> String {
        let Reason {
            hazard,
            later,
            earlier,
        } = reason;
        let (does, did) = match hazard {
            Hazard::ReadAfterWrite => ("reads", "writes"),
            Hazard::WriteAfterRead => ("writes", "reads"),
            Hazard::WriteAfterWrite => ("writes", "writes"),
        };
        let name = |range: &BufferRange| self.buffer_with_role(range.buffer);
        let place = if later.buffer == earlier.buffer {
            String::new()
        } else {
            format!("lies where {} was, which ", name(earlier))
        };
        let (start, end) = if later.buffer == earlier.buffer {
            let start = later.offset.max(earlier.offset);
            (start, later.end().min(earlier.end()))
        } else {
            (later.offset, later.end())
        };
        format!(
            "it {does} bytes {start} to {end} of {}, which {place}that {did}",
            name(later)
        )
    }
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = |op: usize| self.plan.op_label(op);
        write!(
            f,
            "ops[{}] ({}), in wave {}",
            self.op,
            label(self.op),
            self.wave
        )?;
        for wait in &self.waits {
            for reason in &wait.reasons {
                let why = self.plan.describe(reason);
                write!(
                    f,
                    "\n  waits for ops[{}] ({}): {why}",
                    wait.op,
                    label(wait.op)
                )?;
            }
        }
        if self.waits.is_empty() {
            write!(f, "\n  waits for nothing")?;
        }
        Ok(())
    }
}
