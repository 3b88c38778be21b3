//! A plan as the tests write it down, what the runtime makes of it, and what a plain
//! reading of it comes to.

use std::ops::Range;
use std::panic::resume_unwind;

use svod_runtime::memory::Constant;
use svod_runtime::plan::{
    BufferRange, Executable, HostArg, Instance, Operator, Plan, PlanBuilder, Role, Run, Value,
    VariableId,
};
use svod_runtime::{Buffer, DType, Error};

use crate::common;
use crate::kernels::{Form, SPECS, Written, fails, kernels, listen, mix, mix_host, store};

/// A plan, written down.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// The bounds of each variable.
    pub(crate) variables: Vec<(i64, i64)>,
    pub(crate) buffers: Vec<ModelBuffer>,
    pub(crate) steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub(crate) struct ModelBuffer {
    pub(crate) role: Role,
    pub(crate) dtype: Option<DType>,
    pub(crate) bytes: usize,
    /// What it holds at the start, if that is said.
    pub(crate) content: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Launch {
        kernel: usize,
        args: Vec<BufferRange>,
        k: Expr,
        grid: Expr,
    },
    Copy {
        from: BufferRange,
        to: BufferRange,
    },
    Fill {
        to: BufferRange,
        dtype: DType,
        value: Expr,
    },
    Host {
        args: Vec<HostArg>,
        k: u64,
        odd: bool,
    },
}

/// A number that may depend on the variables.
#[derive(Clone, Debug)]
pub(crate) enum Expr {
    Number(i64),
    Variable(usize),
    Op(Operator, Box<[Expr; 2]>),
}

impl Expr {
    pub(crate) fn op(operator: Operator, a: Expr, b: Expr) -> Expr {
        Expr::Op(operator, Box::new([a, b]))
    }

    fn value(&self, ids: &[VariableId]) -> Value {
        match self {
            Expr::Number(n) => (*n).into(),
            Expr::Variable(i) => ids[*i].into(),
            Expr::Op(op, ab) => Value::op(*op, ab[0].value(ids), ab[1].value(ids)),
        }
    }

    /// What it is. Divisors here are positive numbers.
    fn at(&self, variables: &[i64]) -> i64 {
        let (op, a, b) = match self {
            Expr::Number(n) => return *n,
            Expr::Variable(i) => return variables[*i],
            Expr::Op(op, ab) => (op, ab[0].at(variables), ab[1].at(variables)),
        };
        match op {
            Operator::Add => a + b,
            Operator::Mul => a * b,
            Operator::FloorDiv => a.div_euclid(b),
            Operator::Mod => a.rem_euclid(b),
            Operator::Min => a.min(b),
            Operator::Max => a.max(b),
        }
    }
}

impl ModelBuffer {
    fn element(&self) -> DType {
        self.dtype.unwrap_or(DType::U8)
    }
}

/// The name of a buffer.
pub(crate) fn name(buffer: usize) -> String {
    format!("b{buffer}")
}

impl Model {
    pub(crate) fn of_role(&self, roles: &[Role]) -> Vec<usize> {
        let all = 0..self.buffers.len();
        all.filter(|&i| roles.contains(&self.buffers[i].role))
            .collect()
    }

    /// The plan that the builder makes of it.
    pub(crate) fn plan(&self) -> Plan {
        let mut plan = PlanBuilder::new("random");
        let ids: Vec<_> = (self.variables.iter().enumerate())
            .map(|(i, &(min, max))| plan.variable(format!("v{i}"), min, max).unwrap())
            .collect();
        for kernel in kernels() {
            plan.kernel(kernel.name(), kernel.signature().clone());
        }
        for (i, buffer) in self.buffers.iter().enumerate() {
            let name = (buffer.role != Role::Temp).then(|| name(i));
            let len = buffer.bytes / buffer.element().size();
            match buffer.dtype {
                Some(dtype) => plan.buffer(name.as_deref(), buffer.role, dtype, &[len]),
                None => plan.bytes(name.as_deref(), buffer.role, buffer.bytes),
            }
            .unwrap();
            if buffer.role == Role::Output {
                let result = plan.result(name.unwrap(), i, 0, buffer.element(), &[len]);
                result.unwrap();
            }
        }
        for (op, step) in self.steps.iter().enumerate() {
            let added = match step {
                Step::Launch {
                    kernel,
                    args,
                    k,
                    grid,
                } => {
                    let scalars = [("k", k.value(&ids)), ("op", (op as i64).into())];
                    plan.launch(*kernel, args, &scalars, grid.value(&ids))
                }
                Step::Copy { from, to } => plan.copy(*from, *to),
                Step::Fill { to, dtype, value } => plan.fill(*to, *dtype, value.value(&ids)),
                Step::Host { args, k, odd } => {
                    let written = args.iter().filter(|arg| arg.access.writes());
                    let read_too: Vec<_> = written.map(|arg| arg.access.reads()).collect();
                    let (k, odd) = (*k, *odd);
                    plan.host("mix", args, move |args| {
                        mix_host(op, k, args, &read_too, odd);
                        match fails(op) {
                            // Without a word about it in the test's output.
                            true if op % 2 == 1 => resume_unwind(Box::new("as was asked")),
                            true => return Err("as was asked".into()),
                            false => {}
                        }
                        Ok(())
                    })
                }
            };
            assert_eq!(added.unwrap(), op, "{step:?}");
        }
        plan.build().unwrap()
    }

    pub(crate) fn executable(&self) -> Executable {
        let plan = self.plan();
        let contents: Vec<_> = (self.buffers.iter().enumerate())
            .filter_map(|(i, b)| Some((i, self.constant(&plan, i, b.content.as_ref()?))))
            .collect();
        Executable::new(plan, kernels().to_vec(), contents).unwrap()
    }

    /// Memory of a buffer's type and size and of the alignment that the plan wants.
    pub(crate) fn memory_for(&self, plan: &Plan, buffer: usize, bytes: &[u8]) -> Buffer {
        let dtype = self.buffers[buffer].element();
        let align = plan.buffers()[buffer].align;
        let mut memory = common::aligned(dtype, bytes.len() / dtype.size(), align);
        store(memory.as_view_mut(), bytes);
        memory
    }

    /// Contents for a buffer.
    pub(crate) fn constant(&self, plan: &Plan, buffer: usize, bytes: &[u8]) -> Constant {
        self.memory_for(plan, buffer, bytes).into()
    }

    /// What an op reads and writes in a run, to the byte.
    pub(crate) fn footprint(&self, op: usize, variables: &[i64]) -> Footprint {
        let mut found = Footprint::default();
        let mut odd_elements = |range: BufferRange, size: usize, odd: bool| {
            let elements = (0..range.bytes).step_by(size).enumerate();
            for (i, from) in elements {
                if !odd || i % 2 == 1 {
                    found
                        .writes
                        .push(range.part(from..range.bytes.min(from + size)));
                }
            }
        };
        match &self.steps[op] {
            Step::Launch {
                kernel, args, grid, ..
            } => {
                let spec = &SPECS[*kernel];
                for index in 0..grid.at(variables) as usize {
                    for (i, (arg, &(access, ..))) in args.iter().zip(spec.buffers).enumerate() {
                        let (from, to) = spec.touched(i, index);
                        if access.writes() {
                            odd_elements(arg.part(from..to), spec.dtype.size(), spec.odd);
                        }
                        if access.reads() {
                            found.reads.push(arg.part(from..to));
                        }
                    }
                }
            }
            Step::Copy { from, to } => {
                found.reads.push(*from);
                found.writes.push(*to);
            }
            Step::Fill { to, .. } => found.writes.push(*to),
            Step::Host { args, odd, .. } => {
                let size = self.host_element(args);
                for arg in args {
                    if arg.access.writes() {
                        odd_elements(arg.range, size, *odd);
                    }
                    if arg.access.reads() {
                        found.reads.push(arg.range);
                    }
                }
            }
        }
        found
    }

    /// The size of the elements that a host function writes.
    fn host_element(&self, args: &[HostArg]) -> usize {
        let written = args.iter().find(|arg| arg.access.writes());
        written.map_or(1, |arg| self.buffers[arg.range.buffer].element().size())
    }

    /// Whether an op tells what it reads, and writes what follows from it.
    pub(crate) fn mixes(&self, op: usize) -> bool {
        matches!(self.steps[op], Step::Launch { .. } | Step::Host { .. })
    }
}

/// What an op reads and writes.
#[derive(Debug, Default)]
pub(crate) struct Footprint {
    pub(crate) reads: Vec<BufferRange>,
    pub(crate) writes: Vec<BufferRange>,
}

/// What one run is given.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) variables: Vec<i64>,
    /// What each input holds.
    pub(crate) inputs: Vec<(usize, Vec<u8>)>,
}

/// What can be known of a run: what each op read, and what states and outputs hold
/// after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) seen: Vec<u64>,
    pub(crate) held: Vec<(usize, Vec<u8>)>,
}

/// Plain bytes, in which buffers lie where one says.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    spaces: Vec<Vec<u8>>,
    /// Of each buffer, its space, and where in it.
    places: Vec<(usize, usize)>,
}

impl Memory {
    /// Each buffer in a space of its own.
    pub(crate) fn unplanned(model: &Model) -> Memory {
        let start = |b: &ModelBuffer| b.content.clone().unwrap_or_else(|| vec![0; b.bytes]);
        Memory {
            spaces: model.buffers.iter().map(start).collect(),
            places: (0..model.buffers.len()).map(|i| (i, 0)).collect(),
        }
    }

    /// Temps where the plan places them, in one more space.
    pub(crate) fn planned(model: &Model, plan: &Plan) -> Memory {
        let mut memory = Memory::unplanned(model);
        let arena = memory.spaces.len();
        memory.spaces.push(vec![0; plan.memory().arena]);
        for (i, place) in memory.places.iter_mut().enumerate() {
            if let Some(offset) = plan.arena_offset(i) {
                *place = (arena, offset);
            }
        }
        memory
    }

    /// Where a range lies.
    pub(crate) fn place(&self, range: &BufferRange) -> (usize, Range<usize>) {
        let (space, base) = self.places[range.buffer];
        let start = base + range.offset;
        (space, start..start + range.bytes)
    }

    /// How many bytes two ranges share.
    pub(crate) fn shared(&self, a: &BufferRange, b: &BufferRange) -> usize {
        let ((space, a), (other, b)) = (self.place(a), self.place(b));
        let shared = a.start.max(b.start)..a.end.min(b.end);
        if space == other { shared.len() } else { 0 }
    }

    fn at(&self, range: &BufferRange) -> &[u8] {
        let (space, bytes) = self.place(range);
        &self.spaces[space][bytes]
    }

    fn at_mut(&mut self, range: &BufferRange) -> &mut [u8] {
        let (space, bytes) = self.place(range);
        &mut self.spaces[space][bytes]
    }

    /// A buffer that shares no space.
    pub(crate) fn own(&mut self, buffer: usize) -> &mut Vec<u8> {
        &mut self.spaces[buffer]
    }

    /// What a run in this order comes to, done by hand.
    pub(crate) fn run(
        &mut self,
        model: &Model,
        order: impl Iterator<Item = usize>,
        given: &Given,
    ) -> Observed {
        for (input, bytes) in &given.inputs {
            self.own(*input).copy_from_slice(bytes);
        }
        let mut seen = vec![0_u64; model.steps.len()];
        for op in order {
            if let Some(digest) = self.step(model, op, &given.variables) {
                seen[op] = digest;
            }
        }
        self.observe(model, seen)
    }

    /// A run in the order in which the ops were added.
    pub(crate) fn run_in_order(&mut self, model: &Model, given: &Given) -> Observed {
        self.run(model, 0..model.steps.len(), given)
    }

    fn observe(&self, model: &Model, seen: Vec<u64>) -> Observed {
        let kept = model.of_role(&[Role::State, Role::Output]).into_iter();
        Observed {
            seen,
            held: kept.map(|i| (i, self.spaces[i].clone())).collect(),
        }
    }

    fn step(&mut self, model: &Model, op: usize, variables: &[i64]) -> Option<u64> {
        match &model.steps[op] {
            Step::Launch {
                kernel,
                args,
                k,
                grid,
            } => {
                let (spec, k) = (&SPECS[*kernel], k.at(variables));
                let k = match spec.form {
                    Form::Float => (k as f64).to_bits(),
                    _ => k as u64,
                };
                let mut digest = 0_u64;
                for index in 0..grid.at(variables) as usize {
                    let touched = args.iter().zip(spec.buffers).enumerate();
                    let touched: Vec<_> = touched
                        .map(|(i, (arg, &(access, ..)))| {
                            let (from, to) = spec.touched(i, index);
                            (arg.part(from..to), access, from / spec.dtype.size())
                        })
                        .collect();
                    let one = self.mix(op, k, &touched, spec.dtype.size(), spec.odd);
                    digest = digest.wrapping_add(one);
                }
                Some(digest)
            }
            Step::Copy { from, to } => {
                let bytes = self.at(from).to_vec();
                self.at_mut(to).copy_from_slice(&bytes);
                None
            }
            Step::Fill { to, dtype, value } => {
                let value = value.at(variables).to_le_bytes();
                for element in self.at_mut(to).chunks_mut(dtype.size()) {
                    element.copy_from_slice(&value[..dtype.size()]);
                }
                None
            }
            Step::Host { args, k, odd } => {
                let all: Vec<_> = args.iter().map(|a| (a.range, a.access, 0)).collect();
                Some(self.mix(op, *k, &all, model.host_element(args), *odd))
            }
        }
    }

    fn mix(
        &mut self,
        op: usize,
        k: u64,
        touched: &[(BufferRange, svod_runtime::signature::Access, usize)],
        size: usize,
        odd: bool,
    ) -> u64 {
        let (mut reads, mut held) = (Vec::new(), Vec::new());
        for (range, access, first) in touched {
            let bytes = self.at(range).to_vec();
            if access.writes() {
                held.push((range, bytes, access.reads(), *first));
            } else {
                reads.push(bytes);
            }
        }
        let reads: Vec<_> = reads.iter().map(Vec::as_slice).collect();
        let mut writes: Vec<_> = held
            .iter_mut()
            .map(|(_, bytes, reads, first)| Written {
                bytes,
                reads: *reads,
                first: *first,
            })
            .collect();
        let digest = mix(op, k, &reads, &mut writes, size, odd);
        for (range, bytes, ..) in &held {
            self.at_mut(range).copy_from_slice(bytes);
        }
        digest
    }
}

/// Gives an instance a run's inputs.
pub(crate) fn give(instance: &mut Instance, given: &Given) {
    for (input, bytes) in &given.inputs {
        store(instance.input(&name(*input)).unwrap(), bytes);
    }
}

/// A run of an instance, and what can be known of it.
pub(crate) fn run(
    instance: &mut Instance,
    model: &Model,
    given: &Given,
) -> Result<Observed, Error> {
    give(instance, given);
    let run = Run {
        variables: &given.variables,
        ..Run::default()
    };
    run_with(instance, model, run)
}

/// A run as it is asked for, and what can be known of it.
pub(crate) fn run_with(
    instance: &mut Instance,
    model: &Model,
    run: Run<'_, '_>,
) -> Result<Observed, Error> {
    let (result, seen) = listen(model.steps.len(), || instance.run_with(run));
    result?;
    Ok(observe(instance, model, seen))
}

/// What can be known of an instance after a run, whose ops have told `seen`.
pub(crate) fn observe(instance: &Instance, model: &Model, seen: Vec<u64>) -> Observed {
    let kept = model.of_role(&[Role::State, Role::Output]).into_iter();
    let bytes = |i: usize| {
        let view = match model.buffers[i].role {
            Role::State => instance.state(&name(i)),
            _ => instance.output(&name(i)),
        };
        // What is bound to memory of the caller's is his to look at.
        view.map(|view| view.as_bytes().to_vec())
            .unwrap_or_default()
    };
    Observed {
        seen,
        held: kept.map(|i| (i, bytes(i))).collect(),
    }
}
