//! Launches, copies, fills and host functions over buffers, checked once and run many
//! times.
//!
//! A [`PlanBuilder`] takes a plan's parts and refuses what cannot be right,
//! naming the place. The [`Plan`] that comes out is plain data: it knows its
//! kernels by their signatures, and no address. It knows what must come before what,
//! and where each temp will lie. With code and constants it becomes an [`Executable`],
//! of which each [`Instance`] is a set of mutable memory that can be run.
//!
//! Everything that can be checked before a run is: that arguments fit, that
//! views stay inside, that no variable can drive a scalar or a grid out of its
//! bounds. A run checks the values that it is given and then does nothing but
//! call kernels, on the calling thread.
//!
//! # Order
//!
//! Two ops keep the order in which they were added where they touch the same bytes and
//! one of them writes them; nothing else orders them. A *wave* is the ops that are
//! equally many steps from the start: nothing orders them among themselves. Temps lie
//! in one arena, on top of each other where no wave needs both, and what that adds to
//! the order is part of the plan: [`Plan::explain`] names it, and
//! [`Plan::check_schedule`] proves that a [`Schedule`] keeps all of it.

mod alike;
mod builder;
mod cancel;
mod executable;
mod explain;
mod graph;
mod hazards;
mod instance;
mod layout;
mod learning;
mod op;
mod placement;
mod replay;
mod run;
mod schedule;
mod scheduling;
mod storage;
mod timings;
mod trace;
mod unwritten;
mod value;

use std::collections::HashMap;

pub use builder::PlanBuilder;
pub use cancel::Cancel;
pub(crate) use executable::check_content;
pub use executable::{Executable, ReplacedCode};
pub use explain::{Explanation, Hazard, Reason, Wait};
pub use instance::{Instance, Pair, PairEvent, RanTwice, SavedStates, Side, Written};
pub(crate) use instance::{Observer, parts_for};
pub use layout::PlanMemory;
pub(crate) use learning::cpu_name;
pub use learning::{LearnedSchedule, ScheduleExplanation, Scheduling};
pub use op::{BufferRange, HostArg, HostCall, HostError, HostFunction, Launch, Op, Touch};
pub use run::Run;
pub use schedule::{Schedule, Task};
pub use timings::{OpTime, Timings};
pub use trace::{Span, Trace};
pub use unwritten::UnwrittenRead;
pub use value::{Expression, Operator, Value, Variable, VariableId};

use layout::Layout;

use crate::Error;
use crate::error::Place;
use crate::signature::{DType, Signature};

/// What becomes of a buffer between runs, and who may write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Given by the caller; never written by an op.
    Input,
    /// Loaded once; never written.
    Constant,
    /// Loaded at the start; ops may write it, and the next run finds what they
    /// wrote.
    State,
    /// Scratch of one run.
    Temp,
    /// Written by the ops, read by the caller.
    Output,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 5] = [
        Role::Input,
        Role::Constant,
        Role::State,
        Role::Temp,
        Role::Output,
    ];

    /// Whether ops may write it.
    #[must_use]
    pub const fn writable(self) -> bool {
        matches!(self, Role::State | Role::Temp | Role::Output)
    }

    /// The name in the bundle format.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Role::Input => "input",
            Role::Constant => "constant",
            Role::State => "state",
            Role::Temp => "temp",
            Role::Output => "output",
        }
    }
}

/// A buffer of a plan.
#[derive(Clone, Debug)]
pub struct PlanBuffer {
    /// Its name; inputs have one, so that the caller can give them.
    pub name: Option<String>,
    /// What becomes of it.
    pub role: Role,
    /// The type of its elements; `None` for untyped bytes.
    pub dtype: Option<DType>,
    /// Its shape in elements; of untyped bytes, their number.
    pub shape: Vec<usize>,
    /// Its size in bytes.
    pub bytes: usize,
    /// The alignment in bytes that its elements and the kernels that use it need.
    pub align: usize,
}

/// A kernel of a plan: an entry and what it expects.
#[derive(Clone, Debug)]
pub struct PlanKernel {
    /// The entry's name; several kernels may share one.
    pub entry: String,
    /// What it expects.
    pub signature: Signature,
}

/// A named result of a plan.
#[derive(Clone, Debug)]
pub struct PlanOutput {
    /// Its name.
    pub name: String,
    /// Where it lies.
    pub range: BufferRange,
    /// The type of its elements.
    pub dtype: DType,
    /// Its shape in elements.
    pub shape: Vec<usize>,
}

/// An input of a plan: what [`Plan::find_input`] finds, so that nothing is looked up
/// by name later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InputId(usize);

/// An output of a plan: what [`Plan::find_output`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OutputId(usize);

/// A checked plan: data that any thread may read.
#[derive(Clone, Debug)]
pub struct Plan {
    name: String,
    variables: Vec<Variable>,
    kernels: Vec<PlanKernel>,
    buffers: Vec<PlanBuffer>,
    ops: Vec<Op>,
    outputs: Vec<PlanOutput>,
    /// The buffer of each input, the variable and the output of each name.
    names: Names,
    /// What only an unsafe load can vouch for, if the plan asks for it.
    unvouched: Option<(Place, &'static str)>,
    layout: Layout,
}

/// What is found by name.
#[derive(Clone, Debug, Default)]
struct Names {
    inputs: HashMap<String, usize>,
    variables: HashMap<String, usize>,
    outputs: HashMap<String, usize>,
}

/// Looks a name up, and says which there are where it is none of them.
fn find(what: &'static str, name: &str, among: &HashMap<String, usize>) -> Result<usize, Error> {
    among.get(name).copied().ok_or_else(|| {
        let mut known: Vec<_> = among.iter().map(|(name, i)| (i, name.as_str())).collect();
        known.sort_unstable();
        unknown(what, name, known.into_iter().map(|(_, name)| name))
    })
}

fn unknown<'a>(what: &'static str, name: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let known: Vec<_> = known.map(|name| format!("`{name}`")).collect();
    Error::UnknownName {
        what,
        name: name.to_owned(),
        known: match &known[..] {
            [] => "none".into(),
            known => known.join(", "),
        },
    }
}

/// Whether a variable takes a value.
fn check_value(variable: &Variable, value: i64) -> Result<(), Error> {
    let Variable { name, min, max } = variable;
    if (*min..=*max).contains(&value) {
        return Ok(());
    }
    Err(Error::run(format!(
        "the variable `{name}` is {value}; it takes {min} to {max}"
    )))
}

impl Plan {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its variables.
    #[must_use]
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// Its kernels.
    #[must_use]
    pub fn kernels(&self) -> &[PlanKernel] {
        &self.kernels
    }

    /// Its buffers.
    #[must_use]
    pub fn buffers(&self) -> &[PlanBuffer] {
        &self.buffers
    }

    /// Its ops, in the order in which they were added.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// What an op touches, in the order of its arguments; of a copy, what it reads comes
    /// first. Nothing where there is no such op.
    pub fn touches(&self, op: usize) -> impl Iterator<Item = Touch> {
        let op = self.ops.get(op).into_iter();
        op.flat_map(|op| op.touches(&self.kernels))
    }

    /// What an op is, in few words: ``launch of `r_16_4` ``, `copy`. Nothing where there is
    /// no such op.
    #[must_use]
    pub fn op_label(&self, op: usize) -> String {
        let op = self.ops.get(op);
        op.map(|op| op.label(&self.kernels)).unwrap_or_default()
    }

    /// Its named results.
    #[must_use]
    pub fn outputs(&self) -> &[PlanOutput] {
        &self.outputs
    }

    /// The input of this name, if there is one.
    #[must_use]
    pub fn input(&self, name: &str) -> Option<&PlanBuffer> {
        self.names.inputs.get(name).map(|&i| &self.buffers[i])
    }

    /// Its inputs.
    pub fn inputs(&self) -> impl Iterator<Item = &PlanBuffer> {
        self.buffers.iter().filter(|b| b.role == Role::Input)
    }

    /// The input of this name, for use with an [`Instance`].
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`] where there is none; it says which there are.
    pub fn find_input(&self, name: &str) -> Result<InputId, Error> {
        find("input", name, &self.names.inputs).map(InputId)
    }

    /// The output of this name, for use with an [`Instance`].
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`] where there is none; it says which there are.
    pub fn find_output(&self, name: &str) -> Result<OutputId, Error> {
        find("output", name, &self.names.outputs).map(OutputId)
    }

    /// The variable of this name: its number among the plan's variables, as which a
    /// [`Run`] gives it a value.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`] where there is none; it says which there are.
    pub fn find_variable(&self, name: &str) -> Result<usize, Error> {
        find("variable", name, &self.names.variables)
    }

    /// How many waves there are: the number of ops on the longest path.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.layout.waves().len()
    }

    /// The most ops that a wave has.
    #[must_use]
    pub fn width(&self) -> usize {
        self.layout.waves().map(<[u32]>::len).max().unwrap_or(0)
    }

    /// The ops of each wave, in the order in which they were added.
    pub fn waves(&self) -> impl ExactSizeIterator<Item = impl Iterator<Item = usize>> {
        let waves = self.layout.waves();
        waves.map(|ops| ops.iter().map(|&op| op as usize))
    }

    /// A longest path of ops that each must wait for the one before.
    #[must_use]
    pub fn critical_path(&self) -> Vec<usize> {
        self.layout.graph.critical_path()
    }

    /// What an op waits for: those of the ops before it that nothing else between has waited
    /// for already. None where there is no such op.
    pub fn predecessors(&self, op: usize) -> impl Iterator<Item = usize> {
        let known = op < self.ops.len();
        let ops = known.then(|| self.layout.graph.predecessors(op));
        ops.unwrap_or_default().iter().map(|&op| op as usize)
    }

    /// How many pairs of ops must keep their order, without those that follow from
    /// others. (Of plans with millions of pairs, some of the latter may be among them.)
    #[must_use]
    pub fn edges(&self) -> usize {
        self.layout.graph.edges()
    }

    /// The order in which one thread runs the ops: the order in which they were added,
    /// but where the memory planner needs another.
    #[must_use]
    pub fn order(&self) -> Vec<usize> {
        self.layout.order.iter().map(|&op| op as usize).collect()
    }

    /// What an instance needs of memory: known before any is allocated.
    #[must_use]
    pub const fn memory(&self) -> &PlanMemory {
        &self.layout.memory
    }

    /// Where a temp lies in the arena, in bytes; `None` where the buffer is no temp, or no
    /// op uses it.
    #[must_use]
    pub fn arena_offset(&self, buffer: usize) -> Option<usize> {
        self.layout.offsets.get(buffer).copied().flatten()
    }

    /// Refuses a plan for which someone has to vouch.
    fn check_vouched(&self) -> Result<(), Error> {
        match &self.unvouched {
            None => Ok(()),
            Some((place, reason)) => Err(Error::plan(place.clone(), reason)),
        }
    }

    /// The buffers of this name and of one of these roles; at least one.
    fn buffers_named(
        &self,
        what: &'static str,
        roles: &[Role],
        name: &str,
    ) -> Result<Vec<usize>, Error> {
        let of_role = |b: &&PlanBuffer| roles.contains(&b.role);
        let is_it = |b: &PlanBuffer| of_role(&b) && b.name.as_deref() == Some(name);
        let found: Vec<_> = (0..self.buffers.len())
            .filter(|&i| is_it(&self.buffers[i]))
            .collect();
        if found.is_empty() {
            let known = self.buffers.iter().filter(of_role);
            let known = known.filter_map(|b| b.name.as_deref());
            return Err(unknown(what, name, known));
        }
        Ok(found)
    }

    /// Checks values for a run's variables: all of them are to be given, within their
    /// bounds, and no others.
    ///
    /// # Errors
    ///
    /// [`Error::Run`] names the variable, and [`Error::UnknownName`] one that there is not.
    pub fn check_variables(&self, given: &[(&str, i64)]) -> Result<(), Error> {
        self.variable_values(given).map(drop)
    }

    /// Checks a value for one variable, known by its number.
    ///
    /// # Errors
    ///
    /// [`Error::Run`] where it is outside the variable's bounds, or there is no such
    /// variable.
    pub fn check_variable(&self, variable: usize, value: i64) -> Result<(), Error> {
        let found = self.variables.get(variable);
        let found = found.ok_or_else(|| Error::run(format!("there is no variable {variable}")))?;
        check_value(found, value)
    }

    /// Checks that an instance whose temps share memory, and that is not guarded, takes no
    /// more than `cap` bytes, before there is an [`Executable`] with such a
    /// [cap](Executable::with_memory_cap).
    ///
    /// # Errors
    ///
    /// [`Error::MemoryCap`] where it takes more.
    pub fn check_memory_cap(&self, cap: usize) -> Result<(), Error> {
        let memory = self.memory();
        self.check_needed(memory.instance, memory.arena, cap)
    }

    fn check_needed(&self, needed: usize, temps: usize, cap: usize) -> Result<(), Error> {
        if needed <= cap {
            return Ok(());
        }
        Err(Error::MemoryCap {
            plan: self.name.clone(),
            needed,
            temps,
            cap,
        })
    }

    /// Values for a run's variables in the plan's order, as a [`Run`] takes them, from
    /// values by name, which are checked as [`check_variables`](Self::check_variables)
    /// does.
    ///
    /// # Errors
    ///
    /// [`Error::Run`] names the variable, and [`Error::UnknownName`] one that there is not.
    pub fn variable_values(&self, given: &[(&str, i64)]) -> Result<Vec<i64>, Error> {
        let mut chosen = vec![None; self.variables.len()];
        self.choose(given, &mut chosen)?;
        Ok(chosen.into_iter().flatten().collect())
    }

    /// Puts a run's variables into the plan's order, and checks them.
    fn choose(&self, given: &[(&str, i64)], chosen: &mut [Option<i64>]) -> Result<(), Error> {
        chosen.fill(None);
        for (name, value) in given {
            let i = self.find_variable(name)?;
            if chosen[i].replace(*value).is_some() {
                return Err(Error::run(format!("the variable `{name}` has two values")));
            }
        }
        for (variable, chosen) in self.variables.iter().zip(chosen) {
            let Variable { name, min, max } = variable;
            let value = chosen.ok_or_else(|| {
                Error::run(format!(
                    "the variable `{name}` has no value; it takes {min} to {max}"
                ))
            })?;
            check_value(variable, value)?;
        }
        Ok(())
    }

    /// Checks a run's variables, given in the plan's order.
    pub(crate) fn check_values(&self, values: &[i64]) -> Result<(), Error> {
        if values.len() != self.variables.len() {
            return Err(Error::run(format!(
                "{} values for {} variables",
                values.len(),
                self.variables.len()
            )));
        }
        let mut pairs = self.variables.iter().zip(values);
        pairs.try_for_each(|(variable, value)| check_value(variable, *value))
    }

    /// The bytes of all buffers of one role.
    #[must_use]
    pub fn bytes(&self, role: Role) -> usize {
        self.layout.memory.bytes(role)
    }

    /// A buffer by number, role and name: ``buffer 2 (temp `t`)``.
    fn described(&self, i: usize) -> String {
        match self.buffers.get(i) {
            None => format!("buffer {i}"),
            Some(PlanBuffer { role, name, .. }) => match name {
                Some(name) => format!("buffer {i} ({} `{name}`)", role.name()),
                None => format!("buffer {i} ({})", role.name()),
            },
        }
    }

    /// The name of a buffer, or its index where it has none.
    #[must_use]
    pub fn buffer_label(&self, buffer: usize) -> String {
        match self.buffers.get(buffer).and_then(|b| b.name.as_deref()) {
            Some(name) => format!("`{name}`"),
            None => format!("#{buffer}"),
        }
    }

    /// An error of one of its ops with the names of the kernel and the buffer. What runs ops leaves
    /// them out, so that it allocates nothing: it may be in a forked child.
    pub(crate) fn with_names(&self, mut error: Error) -> Error {
        let launch = |op: Option<usize>| match self.ops.get(op?)? {
            Op::Launch(launch) => Some(launch),
            _ => None,
        };
        let entry = |launch: &Launch| self.kernels[launch.kernel].entry.clone();
        match &mut error {
            Error::KernelStatus { kernel, op, .. } => {
                *kernel = launch(*op).map(entry).unwrap_or_default();
            }
            Error::Overrun {
                kernel,
                op,
                argument,
                buffer,
                ..
            } => {
                let launch = launch(*op);
                *kernel = launch.map(entry).unwrap_or_default();
                let range = launch.and_then(|launch| launch.args.get(*argument));
                *buffer = range.map(|range| self.buffer_with_role(range.buffer));
            }
            _ => {}
        }
        error
    }

    /// A buffer's role, and its label.
    pub(crate) fn buffer_with_role(&self, buffer: usize) -> String {
        let role = self.buffers.get(buffer).map_or("", |b| b.role.name());
        format!("{role} {}", self.buffer_label(buffer))
    }
}
