//! Launches, copies and fills over buffers, checked once and run many times.
//!
//! A [`PlanBuilder`] takes a plan's parts and refuses what cannot be right,
//! naming the place. The [`Plan`] that comes out is plain data: it knows its
//! kernels by their signatures, and no address. With code and constants it
//! becomes an [`Executable`], of which each [`Instance`] is a set of mutable
//! memory that can be run.
//!
//! Everything that can be checked before a run is: that arguments fit, that
//! views stay inside, that no variable can drive a scalar or a grid out of its
//! bounds. A run checks the values that it is given and then does nothing but
//! call kernels, in the order of the ops, on the calling thread.

mod builder;
mod executable;
mod instance;
// Not yet used by the builder.
#[cfg_attr(not(test), expect(dead_code))]
mod placement;
mod value;

pub use builder::PlanBuilder;
pub use executable::Executable;
pub use instance::Instance;
pub use value::{Expression, Operator, Value, Variable, VariableId};

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

/// A part of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferRange {
    /// The buffer, counted in the order of declaration.
    pub buffer: usize,
    /// Where the part begins, in bytes.
    pub offset: usize,
    /// Its size in bytes.
    pub bytes: usize,
}

/// One step of a plan.
#[derive(Clone, Debug)]
pub enum Op {
    /// A kernel over buffers.
    Launch(Launch),
    /// Bytes from one place to another.
    Copy {
        /// Where they are.
        from: BufferRange,
        /// Where they go.
        to: BufferRange,
    },
    /// One value for every element.
    Fill {
        /// Which elements.
        to: BufferRange,
        /// Their type.
        dtype: DType,
        /// The value.
        value: Value,
    },
}

impl Op {
    /// Whether any of its numbers is computed from the run's variables.
    fn depends_on_variables(&self) -> bool {
        match self {
            Op::Launch(launch) => {
                let mut values = launch.scalars.iter().chain([&launch.grid]);
                values.any(|v| !v.is_constant())
            }
            Op::Copy { .. } => false,
            Op::Fill { value, .. } => !value.is_constant(),
        }
    }
}

/// A launch of a plan.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The kernel, counted in the order of declaration.
    pub kernel: usize,
    /// One range for each buffer parameter.
    pub args: Vec<BufferRange>,
    /// One value for each scalar parameter.
    pub scalars: Vec<Value>,
    /// How many indices it runs for.
    pub grid: Value,
    /// The compiler's estimate of floating-point operations.
    pub flops: Option<u64>,
    /// The compiler's estimate of bytes moved.
    pub bytes: Option<u64>,
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

/// A checked plan: plain data that any thread may read.
#[derive(Clone, Debug)]
pub struct Plan {
    name: String,
    variables: Vec<Variable>,
    kernels: Vec<PlanKernel>,
    buffers: Vec<PlanBuffer>,
    ops: Vec<Op>,
    outputs: Vec<PlanOutput>,
    /// What only an unsafe load can vouch for, if the plan asks for it.
    unvouched: Option<(Place, &'static str)>,
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

    /// Its ops, in the order in which they run.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Its named results.
    #[must_use]
    pub fn outputs(&self) -> &[PlanOutput] {
        &self.outputs
    }

    /// The input of this name, if there is one.
    #[must_use]
    pub fn input(&self, name: &str) -> Option<&PlanBuffer> {
        self.input_index(name).map(|i| &self.buffers[i])
    }

    pub(crate) fn input_index(&self, name: &str) -> Option<usize> {
        let is_it = |b: &PlanBuffer| b.role == Role::Input && b.name.as_deref() == Some(name);
        self.buffers.iter().position(is_it)
    }

    /// Its inputs.
    pub fn inputs(&self) -> impl Iterator<Item = &PlanBuffer> {
        self.buffers.iter().filter(|b| b.role == Role::Input)
    }

    /// Checks values for a run's variables: all of them are to be given, within their
    /// bounds, and no others.
    ///
    /// # Errors
    ///
    /// [`Error::Run`] names the variable.
    pub fn check_variables(&self, given: &[(&str, i64)]) -> Result<(), Error> {
        self.choose(given, &mut vec![0; self.variables.len()])
    }

    /// Checks a run's variables and puts them into the plan's order.
    fn choose(&self, given: &[(&str, i64)], chosen: &mut [i64]) -> Result<(), Error> {
        let variables = &self.variables;
        for (variable, chosen) in variables.iter().zip(chosen) {
            let name = variable.name.as_str();
            let (min, max) = (variable.min, variable.max);
            let Some(&(_, value)) = given.iter().find(|(n, _)| *n == name) else {
                return Err(Error::run(format!(
                    "the variable `{name}` has no value; it takes {min} to {max}"
                )));
            };
            if !(min..=max).contains(&value) {
                return Err(Error::run(format!(
                    "the variable `{name}` is {value}; it takes {min} to {max}"
                )));
            }
            *chosen = value;
        }
        let unknown = given
            .iter()
            .find(|(n, _)| variables.iter().all(|v| v.name != *n));
        match unknown {
            None => Ok(()),
            Some((name, _)) => {
                let names: Vec<_> = variables.iter().map(|v| format!("`{}`", v.name)).collect();
                let names = names.join(", ");
                Err(Error::run(format!(
                    "there is no variable `{name}`; there are: {names}"
                )))
            }
        }
    }

    /// The bytes of all buffers of one role.
    #[must_use]
    pub fn bytes(&self, role: Role) -> usize {
        // A plan is built only where the sum of all buffers is a size.
        let of_role = self.buffers.iter().filter(|b| b.role == role);
        of_role.map(|b| b.bytes).sum()
    }

    /// The name of a buffer, or its index where it has none.
    #[must_use]
    pub fn buffer_label(&self, buffer: usize) -> String {
        match self.buffers.get(buffer).and_then(|b| b.name.as_deref()) {
            Some(name) => format!("`{name}`"),
            None => format!("#{buffer}"),
        }
    }
}
