//! The code table: what the steps of a plan call.

use super::super::{Op, Plan};
use super::step::{Kind, NOT_ONCE, Step};
use super::{Replay, Spot};
use crate::dispatch::Kernel;
use std::sync::Arc;

/// The kernels of an executable, by number, and the steps that call them, by op. Other code of
/// the same signatures has other entries, and the same frames.
#[derive(Debug)]
pub(in crate::plan) struct Code {
    kernels: Arc<[Kernel]>,
    /// How often there was other code before.
    generation: u32,
    pub(super) steps: Vec<Step>,
    /// Whether the results of a kernel depend on the order of its calls.
    pub(super) keeps_state: bool,
}

// SAFETY: what keeps it from being `Send` are the pointers of entries. They lead to code,
// which is never written, or to what a `Kernel` shares between threads; the kernels that they
// are of live as long, since they are here beside them. What else is here are numbers.
unsafe impl Send for Code {}
// SAFETY: as above; nothing here is written once made.
unsafe impl Sync for Code {}

impl Code {
    /// The code of a plan, whose kernels must have the signatures that the plan says.
    pub(in crate::plan) fn new(
        plan: &Plan,
        replay: &Replay,
        kernels: Vec<Kernel>,
        generation: u32,
    ) -> Code {
        let step = |(op, &spot): (usize, &Spot)| {
            let (kind, once) = match &plan.ops[op] {
                Op::Launch(launch) => {
                    let entry = kernels[launch.kernel].entry();
                    let is_once = launch.grid == 1.into();
                    let once = entry.inline_args().filter(|_| is_once);
                    (Kind::Launch(entry), once)
                }
                Op::Copy { .. } => (Kind::Copy, None),
                Op::Fill { .. } => (Kind::Fill, None),
                Op::Host(_) => (Kind::Host(spot.host), None),
            };
            Step {
                kind,
                once: once.unwrap_or(NOT_ONCE),
                writes_state: spot.writes_state,
                // A plan has no more ops than 32 bits count.
                op: op as u32,
                frame: spot.frame,
            }
        };
        Code {
            steps: replay.spots.iter().enumerate().map(step).collect(),
            keeps_state: kernels.iter().any(Kernel::keeps_state),
            kernels: kernels.into(),
            generation,
        }
    }

    /// Its kernels, in the plan's order.
    pub(in crate::plan) const fn kernels(&self) -> &Arc<[Kernel]> {
        &self.kernels
    }

    /// How often there was other code before.
    pub(in crate::plan) const fn generation(&self) -> u32 {
        self.generation
    }
}
