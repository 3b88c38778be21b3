//! From checked ops to waves, places in the arena, and the final graph.
//!
//! Hazards are found twice. The first time over buffers as they were declared: from
//! these follow the waves, from the waves how long each temp lives, and from the lives
//! where in the arena it lies. The second time over the bytes of the arena: where one
//! temp was laid on top of another that is no longer needed, the ops that use it must
//! wait for those that used the other. These edges lead from earlier waves to later
//! ones, since the two lives share none, so that all waves stay what they were.

use super::graph::Graph;
use super::hazards::{Bytes, TooManyHazards};
use super::op::Touch;
use super::placement::{Block, place};
use super::{Op, PlanBuffer, PlanKernel, Role};
use crate::Error;
use crate::error::Place;
use crate::memory::BUFFER_ALIGN;
use crate::signature::DType;

/// What a plan needs of memory: see [`Plan::memory`](super::Plan::memory).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanMemory {
    /// The bytes of all buffers of each role, in the order of [`Role::ALL`].
    by_role: [usize; Role::ALL.len()],
    /// The arena's size in bytes.
    pub arena: usize,
    /// The bytes that temps would take if each had memory of its own, rounded up to
    /// its alignment.
    pub unplanned: usize,
    /// The largest sum, over the waves, of the bytes of the temps that live in it, each
    /// rounded up to its alignment. No arena can be smaller.
    pub lower_bound: usize,
    /// The bytes that an instance allocates: the arena, and its inputs, states and
    /// outputs.
    pub instance: usize,
}

impl PlanMemory {
    /// The bytes of all buffers of one role, without what alignment adds.
    #[must_use]
    pub fn bytes(&self, role: Role) -> usize {
        let at = Role::ALL.iter().position(|r| *r == role);
        at.map_or(0, |at| self.by_role[at])
    }
}

/// How the ops of a plan are ordered, and where its temps lie.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    /// The final graph, over the bytes of the arena.
    pub(super) graph: Graph,
    /// The ops by wave, and where each wave begins among them; one more at the end.
    by_wave: Vec<u32>,
    wave_starts: Vec<u32>,
    /// The order in which one thread runs the ops.
    pub(super) order: Vec<u32>,
    /// Where each temp lies in the arena; `None` for what is no temp, or one that no op
    /// uses.
    pub(super) offsets: Vec<Option<usize>>,
    pub(super) memory: PlanMemory,
}

impl Layout {
    pub(super) fn new(
        buffers: &[PlanBuffer],
        kernels: &[PlanKernel],
        ops: &[Op],
    ) -> Result<Layout, Error> {
        if u32::try_from(ops.len()).is_err() || u32::try_from(buffers.len()).is_err() {
            return Err(Error::plan("ops", "more ops or buffers than 32 bits count"));
        }
        let too_many = |TooManyHazards { op }| {
            let reason = "with it, too many ops read or write what too many others touched in \
                          parts; let them share larger views, or split the plan";
            Error::plan(Place::at("ops", op), reason)
        };
        // What is never written orders nobody.
        let touches = |op: usize| {
            let all = ops[op].touches(kernels);
            all.filter(|touch| buffers[touch.range.buffer].role.writable())
        };
        let file_order = (0..ops.len() as u32).collect();
        let unplaced = vec![None; buffers.len()];
        let declared = Graph::new(file_order, buffers.len() + 1, |op| {
            touches(op).map(|touch| bytes(&unplaced, &touch))
        })
        .map_err(too_many)?;

        let (offsets, memory) = place_temps(buffers, kernels, ops, declared.waves());
        let by_wave = declared.by_wave();
        let mut graph = Graph::new(by_wave.clone(), buffers.len() + 1, |op| {
            touches(op).map(|touch| bytes(&offsets, &touch))
        })
        .map_err(too_many)?;
        debug_assert_eq!(graph.waves(), declared.waves());
        graph.reduce();

        let wave = |at: usize| graph.waves()[by_wave[at] as usize];
        let is_first = |at: &u32| *at == 0 || wave(*at as usize) != wave(*at as usize - 1);
        let mut wave_starts: Vec<u32> = (0..ops.len() as u32).filter(is_first).collect();
        wave_starts.push(ops.len() as u32);
        Ok(Layout {
            order: graph.first_come(),
            graph,
            by_wave,
            wave_starts,
            offsets,
            memory,
        })
    }

    /// The ops of each wave.
    pub(super) fn waves(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        let bounds = self.wave_starts.windows(2);
        bounds.map(|b| &self.by_wave[b[0] as usize..b[1] as usize])
    }

    /// Where what an op touches lies.
    pub(super) fn bytes(&self, touch: &Touch) -> Bytes {
        bytes(&self.offsets, touch)
    }
}

/// Where what an op touches lies: in its buffer, or in the arena, which is a memory
/// after those of all buffers.
fn bytes(offsets: &[Option<usize>], touch: &Touch) -> Bytes {
    let range = touch.range;
    let (memory, base) = match offsets[range.buffer] {
        Some(offset) => (offsets.len(), offset),
        None => (range.buffer, 0),
    };
    Bytes {
        memory,
        start: base + range.offset,
        end: base + range.end(),
        writes: touch.access.writes(),
    }
}

/// The alignment of a temp in the arena: no two share a cache line.
fn alignment(buffer: &PlanBuffer) -> usize {
    buffer.align.max(BUFFER_ALIGN)
}

/// Where temps lie, of which each lives from the first wave that uses it to the last.
///
/// Those of type `bool` are laid on top of each other alone. A kernel may take a `bool`
/// that no op wrote to be 0 or 1, and must not find a part of a number there.
fn place_temps(
    buffers: &[PlanBuffer],
    kernels: &[PlanKernel],
    ops: &[Op],
    waves: &[u32],
) -> (Vec<Option<usize>>, PlanMemory) {
    let mut lives: Vec<Option<(u32, u32)>> = vec![None; buffers.len()];
    for (op, &wave) in ops.iter().zip(waves) {
        for touch in op.touches(kernels) {
            let life = &mut lives[touch.range.buffer];
            let (first, last) = life.unwrap_or((wave, wave));
            *life = Some((first.min(wave), last.max(wave)));
        }
    }
    let block = |buffer: &PlanBuffer, life: Option<(u32, u32)>| {
        // What no op uses takes no memory.
        let (bytes, (first, last)) = match life {
            Some(life) => (buffer.bytes, life),
            None => (0, (0, 0)),
        };
        Block {
            bytes,
            align: alignment(buffer),
            first,
            last,
        }
    };
    let temps = |bools: bool| {
        let all = buffers.iter().enumerate();
        all.filter(move |(_, b)| b.role == Role::Temp && (b.dtype == Some(DType::Bool)) == bools)
    };
    let mut memory = PlanMemory::default();
    let mut offsets = vec![None; buffers.len()];
    for bools in [false, true] {
        let blocks: Vec<_> = temps(bools).map(|(i, b)| block(b, lives[i])).collect();
        let placed = place(&blocks);
        let align = blocks.iter().map(|b| b.align).max().unwrap_or(1);
        let base = memory.arena.next_multiple_of(align);
        for ((i, _), offset) in temps(bools).zip(&placed.offsets) {
            // What has no bytes lies anywhere within.
            let offset = if buffers[i].bytes > 0 {
                base + offset
            } else {
                0
            };
            offsets[i] = lives[i].map(|_| offset);
        }
        if placed.bytes > 0 {
            memory.arena = base + placed.bytes;
        }
        let aligned = blocks.iter().map(|b| b.bytes.next_multiple_of(b.align));
        memory.unplanned += aligned.sum::<usize>();
    }
    let all = temps(false).chain(temps(true));
    let blocks: Vec<_> = all.map(|(i, b)| block(b, lives[i])).collect();
    memory.lower_bound = super::placement::lower_bound(&blocks);
    for (sum, role) in memory.by_role.iter_mut().zip(Role::ALL) {
        let of_role = buffers.iter().filter(|b| b.role == role);
        *sum = of_role.map(|b| b.bytes).sum();
    }
    let own = [Role::Input, Role::State, Role::Output];
    memory.instance = memory.arena + own.into_iter().map(|r| memory.bytes(r)).sum::<usize>();
    (offsets, memory)
}
