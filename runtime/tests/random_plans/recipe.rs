//! Random plans in which nothing is read that was not written before.
//!
//! A recipe is numbers, one for each op, so that a plan that fails is made smaller by
//! taking ops away: what a number comes to depends on the ops before it, and any comes to
//! an op that is allowed, or to none.

use proptest::prelude::*;
use svod_runtime::DType;
use svod_runtime::plan::{BufferRange, HostArg, Operator, Role};
use svod_runtime::signature::Access;

use crate::common::Rng;
use crate::kernels::{Form, SPECS};
use crate::model::{Expr, Footprint, Given, Model, ModelBuffer, Step};

/// What most ops of a plan have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Anything.
    Mixed,
    /// Ops that have nothing to do with each other.
    Wide,
    /// Each reads what the one before wrote.
    Deep,
    /// Late ops read what early ones wrote.
    Residual,
    /// A few chains side by side, each over many temps that live for a few ops, so that
    /// those of one chain lie where those of another were.
    Reuse,
}

impl Shape {
    pub(crate) const ALL: [Shape; 5] = [
        Shape::Mixed,
        Shape::Wide,
        Shape::Deep,
        Shape::Residual,
        Shape::Reuse,
    ];
}

#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) shape: Shape,
    pub(crate) seed: u64,
    pub(crate) steps: Vec<u64>,
}

pub(crate) fn recipes(shapes: &[Shape]) -> impl Strategy<Value = Recipe> {
    let shape = proptest::sample::select(shapes.to_vec());
    let steps = proptest::collection::vec(any::<u64>(), 1..=60);
    (shape, any::<u64>(), steps).prop_map(|(shape, seed, steps)| Recipe { shape, seed, steps })
}

impl Recipe {
    pub(crate) fn model(&self) -> Model {
        let mut cook = Cook::new(self);
        for &seed in &self.steps {
            cook.rng = Rng(seed);
            cook.step();
        }
        cook.model
    }

    /// What the `n`th run is given.
    pub(crate) fn given(&self, model: &Model, n: u64) -> Given {
        let mut rng = Rng(self.seed ^ (n + 1).wrapping_mul(0x1234_5678_9abc_def1));
        let within = |&(min, max): &(i64, i64)| min + rng.below((max - min + 1) as usize) as i64;
        let variables = model.variables.iter().map(within).collect();
        let inputs = model.of_role(&[Role::Input]);
        let inputs = inputs.into_iter();
        Given {
            variables,
            inputs: inputs
                .map(|i| (i, noise(&mut rng, model.buffers[i].bytes)))
                .collect(),
        }
    }
}

pub(crate) fn noise(rng: &mut Rng, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|_| rng.next() as u8).collect()
}

/// A model that is being made.
struct Cook<'a> {
    recipe: &'a Recipe,
    rng: Rng,
    model: Model,
    temps: Vec<usize>,
    /// For each byte of each buffer, whether every run has written it by now, or it needs
    /// no write.
    written: Vec<Vec<bool>>,
    /// What was written and nobody has read, latest last.
    fresh: Vec<BufferRange>,
    /// All that was written.
    old: Vec<BufferRange>,
    /// Which of some chains the op belongs to, and how many temps each has used.
    chain: usize,
    chains: Vec<usize>,
}

impl Cook<'_> {
    fn new(recipe: &Recipe) -> Cook<'_> {
        let mut rng = Rng(recipe.seed);
        let variables = (0..rng.below(4)).map(|_| {
            let min = rng.below(8) as i64 - 4;
            (min, min + rng.below(12) as i64)
        });
        let mut model = Model {
            variables: variables.collect(),
            ..Model::default()
        };
        let temps = match recipe.shape {
            Shape::Reuse | Shape::Wide => 8 + rng.below(20),
            _ => 1 + rng.below(8),
        };
        for (role, count) in [
            (Role::Input, 1 + rng.below(2)),
            (Role::Constant, 1 + rng.below(2)),
            (Role::State, 1 + rng.below(3)),
            (Role::Output, 1 + rng.below(3)),
            (Role::Temp, temps),
        ] {
            for _ in 0..count {
                let dtype = rng.pick(&[None, None, None, None, Some(DType::U8), Some(DType::U32)]);
                let bytes = 8 * (2 + rng.below(22));
                let content = match role {
                    Role::Constant => true,
                    Role::State => rng.below(2) == 0,
                    _ => false,
                };
                model.buffers.push(ModelBuffer {
                    role,
                    dtype: if rng.below(12) == 0 {
                        Some(DType::U64)
                    } else {
                        dtype
                    },
                    bytes,
                    content: content.then(|| noise(&mut rng, bytes)),
                });
            }
        }
        let chains = 2 + rng.below(3);
        let defined = |b: &ModelBuffer| !matches!(b.role, Role::Temp | Role::Output);
        let written = model.buffers.iter().map(|b| vec![defined(b); b.bytes]);
        Cook {
            written: written.collect(),
            temps: model.of_role(&[Role::Temp]),
            recipe,
            rng,
            model,
            fresh: Vec::new(),
            old: Vec::new(),
            chain: 0,
            chains: vec![0; chains],
        }
    }

    /// Adds one op, or none where none fits.
    fn step(&mut self) {
        self.chain = self.rng.below(self.chains.len());
        let relays = self.recipe.shape == Shape::Reuse && self.rng.below(2) == 0;
        let added = match self.rng.below(20) {
            _ if relays => self.relay(),
            0..14 => self.launch(),
            14 => self.copy(),
            15 => self.fill(),
            _ => self.host(),
        };
        let Some(step) = added else { return };
        self.model.steps.push(step);
        let op = self.model.steps.len() - 1;
        // How far a grid goes that depends on the run's variables, nobody may rely on.
        let any_grid = matches!(&self.model.steps[op],
            Step::Launch { grid, .. } if !matches!(grid, Expr::Number(_)));
        if !any_grid {
            let Footprint { reads, writes } = self.model.footprint(op, &[]);
            self.fresh
                .retain(|fresh| reads.iter().all(|read| !overlap(fresh, read)));
            for range in &writes {
                self.written[range.buffer][range.offset..range.offset + range.bytes].fill(true);
            }
        }
        let written = self.targets(op);
        self.fresh.extend(&written);
        self.old.extend(&written);
    }

    /// Where an op writes, as it was added.
    fn targets(&self, op: usize) -> Vec<BufferRange> {
        match &self.model.steps[op] {
            Step::Launch { kernel, args, .. } => {
                let of = args.iter().zip(SPECS[*kernel].buffers);
                of.filter(|(_, (access, ..))| access.writes())
                    .map(|(arg, _)| *arg)
                    .collect()
            }
            Step::Copy { to, .. } | Step::Fill { to, .. } => vec![*to],
            Step::Host { args, .. } => args
                .iter()
                .filter(|arg| arg.access.writes())
                .map(|arg| arg.range)
                .collect(),
        }
    }

    fn launch(&mut self) -> Option<Step> {
        let kernel = self.rng.below(SPECS.len());
        let spec = &SPECS[kernel];
        let mut taken: Vec<(BufferRange, Access)> = Vec::new();
        for (i, &(access, _, align)) in spec.buffers.iter().enumerate() {
            let mut range = self.find(spec.bytes(i), align, Some(spec.dtype), access, &taken)?;
            // A view may be longer than what the kernel touches.
            let longer = BufferRange {
                bytes: range.bytes + spec.dtype.size() * self.rng.below(3),
                ..range
            };
            let inside = longer.offset + longer.bytes <= self.model.buffers[range.buffer].bytes;
            if inside && fits(&longer, access, &taken) {
                range = longer;
            }
            taken.push((range, access));
        }
        let k = self.expr(2);
        let grid = match (spec.form, self.model.variables.len()) {
            (Form::Grid, variables) => {
                let max = spec.max_grid() as i64;
                match self.rng.below(4) {
                    0 if variables > 0 => Expr::op(Operator::Mod, self.expr(1), (max + 1).into()),
                    1 if variables > 0 => {
                        let variable = Expr::Variable(self.rng.below(variables));
                        let below = Expr::op(Operator::Min, variable, max.into());
                        Expr::op(Operator::Max, below, 0.into())
                    }
                    2 => (self.rng.below(max as usize + 1) as i64).into(),
                    _ => max.into(),
                }
            }
            _ => 1.into(),
        };
        Some(Step::Launch {
            kernel,
            args: taken.into_iter().map(|(range, _)| range).collect(),
            k,
            grid,
        })
    }

    /// The temp that the chain is at.
    fn current(&self) -> usize {
        let at = self.chain + self.chains[self.chain] * self.chains.len();
        self.temps[at % self.temps.len()]
    }

    /// Goes on to the chain's next temp, all of which follows from all of the last.
    fn relay(&mut self) -> Option<Step> {
        let last = self.current();
        self.chains[self.chain] += 1;
        let next = self.current();
        let whole = |buffer: usize| BufferRange {
            buffer,
            offset: 0,
            bytes: self.model.buffers[buffer].bytes,
        };
        let mut args = vec![whole(next).write()];
        if last != next && self.written[last].iter().all(|written| *written) {
            args.push(whole(last).read());
        }
        Some(Step::Host {
            args,
            k: self.rng.next(),
            odd: false,
        })
    }

    fn copy(&mut self) -> Option<Step> {
        let bytes = 4 + self.rng.below(60);
        let from = self.find(bytes, 1, None, Access::Read, &[])?;
        let to = self.find(bytes, 1, None, Access::Write, &[(from, Access::Read)])?;
        Some(Step::Copy { from, to })
    }

    fn fill(&mut self) -> Option<Step> {
        let buffer = self.pick(Access::Write);
        let ModelBuffer {
            dtype, bytes, role, ..
        } = self.model.buffers[buffer];
        if !role.writable() {
            return None;
        }
        let dtype = dtype.unwrap_or(self.rng.pick(&[DType::U8, DType::U32, DType::U64]));
        let elements = bytes / dtype.size();
        let anywhere = self.rng.below(elements);
        let from = self.rng.pick(&[0, anywhere]);
        let len = self.rng.pick(&[elements - from, (elements - from).min(4)]);
        let most = match dtype {
            DType::U8 => 251,
            _ => 4_000_000_007,
        };
        let large = Expr::op(Operator::Mul, self.expr(2), 1_000_003.into());
        let value = Expr::op(Operator::Mod, large, most.into());
        Some(Step::Fill {
            to: BufferRange {
                buffer,
                offset: from * dtype.size(),
                bytes: len * dtype.size(),
            },
            dtype,
            value,
        })
    }

    fn host(&mut self) -> Option<Step> {
        let mut args: Vec<(BufferRange, Access)> = Vec::new();
        for _ in 0..1 + self.rng.below(4) {
            let access = match self.rng.below(5) {
                0 | 1 => Access::Read,
                2 | 3 => Access::Write,
                _ => Access::ReadWrite,
            };
            let bytes = 8 * (1 + self.rng.below(10));
            if let Some(range) = self.find(bytes, 8, None, access, &args) {
                args.push((range, access));
            }
        }
        let arg = |(range, access)| HostArg { range, access };
        (!args.is_empty()).then(|| Step::Host {
            args: args.into_iter().map(arg).collect(),
            k: self.rng.next(),
            odd: self.rng.below(4) == 0,
        })
    }

    /// A place for an argument; `None` where luck finds none.
    fn find(
        &mut self,
        bytes: usize,
        align: usize,
        dtype: Option<DType>,
        access: Access,
        taken: &[(BufferRange, Access)],
    ) -> Option<BufferRange> {
        for _ in 0..24 {
            let (buffer, from) = match self.known(access) {
                Some(range) => (range.buffer, range.offset),
                None => (self.pick(access), self.rng.below(192)),
            };
            let found = &self.model.buffers[buffer];
            let room = found.bytes.saturating_sub(bytes) / align * align;
            let range = BufferRange {
                buffer,
                offset: from.next_multiple_of(align).min(room),
                bytes,
            };
            let end = range.offset + bytes;
            let of_type = found.dtype.is_none() || dtype.is_none() || found.dtype == dtype;
            if of_type
                && end <= found.bytes
                && (found.role.writable() || !access.writes())
                && fits(&range, access, taken)
                && (!access.reads() || self.written[buffer][range.offset..end].iter().all(|w| *w))
            {
                return Some(range);
            }
        }
        None
    }

    /// What a reader should find that was written before, where the shape wants one.
    fn known(&mut self, access: Access) -> Option<BufferRange> {
        if !access.reads() {
            return None;
        }
        let fresh = self.fresh.iter().rev();
        let candidates: Vec<_> = match self.recipe.shape {
            Shape::Deep => fresh.take(1).copied().collect(),
            Shape::Residual if self.rng.below(2) == 0 => self.old.iter().take(4).copied().collect(),
            Shape::Wide if self.rng.below(3) > 0 => return None,
            Shape::Reuse => {
                let chain = self.temps[0] + self.chain;
                let of_chain = fresh.filter(|r| {
                    r.buffer >= chain && (r.buffer - chain).is_multiple_of(self.chains.len())
                });
                of_chain.take(2).copied().collect()
            }
            _ => fresh.take(4).copied().collect(),
        };
        if candidates.is_empty() || self.rng.below(4) == 0 {
            return None;
        }
        Some(self.rng.pick(&candidates))
    }

    /// A buffer, of which some are likelier, as the shape wants it.
    fn pick(&mut self, access: Access) -> usize {
        let (buffers, temps) = (self.model.buffers.len(), self.temps.len());
        let any = self.rng.below(buffers);
        match (self.recipe.shape, access) {
            (Shape::Mixed, _) => any,
            (Shape::Reuse | Shape::Wide, Access::Read) if self.rng.below(8) > 0 => {
                self.rng.below(buffers - temps)
            }
            (Shape::Reuse, _) if self.rng.below(8) > 0 => self.current(),
            _ if self.rng.below(3) > 0 => self.temps[self.rng.below(temps)],
            _ => any,
        }
    }

    fn expr(&mut self, depth: usize) -> Expr {
        let variables = self.model.variables.len();
        match self.rng.below(if depth > 0 { 6 } else { 3 }) {
            0 => (self.rng.below(40) as i64 - 20).into(),
            1 | 2 if variables > 0 => Expr::Variable(self.rng.below(variables)),
            1 | 2 => 3.into(),
            3 => {
                let divisor = (1 + self.rng.below(9) as i64).into();
                let operator = self.rng.pick(&[Operator::FloorDiv, Operator::Mod]);
                Expr::op(operator, self.expr(depth - 1), divisor)
            }
            _ => {
                let operators = [Operator::Add, Operator::Mul, Operator::Min, Operator::Max];
                let operator = self.rng.pick(&operators);
                Expr::op(operator, self.expr(depth - 1), self.expr(depth - 1))
            }
        }
    }
}

impl From<i64> for Expr {
    fn from(number: i64) -> Expr {
        Expr::Number(number)
    }
}

fn overlap(a: &BufferRange, b: &BufferRange) -> bool {
    a.buffer == b.buffer && a.offset.max(b.offset) < (a.offset + a.bytes).min(b.offset + b.bytes)
}

/// Whether an argument may stand beside others.
fn fits(range: &BufferRange, access: Access, taken: &[(BufferRange, Access)]) -> bool {
    let harmless = |other: &Access| !access.writes() && !other.writes();
    taken
        .iter()
        .all(|(other, theirs)| harmless(theirs) || !overlap(range, other))
}
