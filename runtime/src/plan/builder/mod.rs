//! A plan's parts in, a checked plan out.

mod ops;

pub(super) use ops::as_grid;

use std::ops::Range;

use super::layout::Layout;
use super::value::MAX_STEPS_OF_A_PLAN;
use super::{
    BufferRange, Names, Op, Plan, PlanBuffer, PlanKernel, PlanOutput, Role, Variable, VariableId,
};
use crate::Error;
use crate::error::Place;
use crate::signature::{DType, Signature};

/// Builds a [`Plan`]. Everything is checked as it is added, and an error names
/// the place, as the bundle format would write the way to it.
///
/// Kernels, buffers and ops are known by the numbers that adding them returns,
/// counted from 0. Whatever an op touches is a [`BufferRange`]: all of a buffer, as
/// declaring it returns it, or a [`view`](Self::view) of a part.
///
/// ```
/// use svod_runtime::plan::PlanBuilder;
/// use svod_runtime::{DType, Signature};
///
/// let mut plan = PlanBuilder::new("double");
/// let n = plan.variable("n", 1, 100)?;
/// let double = plan.kernel(
///     "double_it",
///     Signature::builder()
///         .write(DType::F32, 100)
///         .read(DType::F32, 100)
///         .index(DType::I32, 100)
///         .build()?,
/// );
/// let x = plan.input("x", DType::F32, &[100])?;
/// let t = plan.temp(DType::F32, &[100])?;
/// let y = plan.output("y", DType::F32, &[100])?;
/// plan.launch(double, &[t, x], &[], n)?;
/// plan.launch(double, &[y, t], &[], n)?;
/// let plan = plan.build()?;
/// assert_eq!((plan.depth(), plan.memory().arena), (2, 448));
/// # Ok::<(), svod_runtime::Error>(())
/// ```
#[derive(Debug)]
pub struct PlanBuilder {
    plan: Plan,
    total_bytes: usize,
    /// What may still be spent on proving values.
    proof_steps: u128,
}

impl PlanBuilder {
    /// A plan with nothing in it.
    #[must_use]
    pub fn new(name: impl Into<String>) -> PlanBuilder {
        PlanBuilder {
            plan: Plan {
                name: name.into(),
                variables: Vec::new(),
                kernels: Vec::new(),
                buffers: Vec::new(),
                ops: Vec::new(),
                outputs: Vec::new(),
                names: Names::default(),
                unvouched: None,
                layout: Layout::default(),
            },
            total_bytes: 0,
            proof_steps: MAX_STEPS_OF_A_PLAN,
        }
    }

    /// Declares an integer that each run chooses from `min` to `max`, both
    /// inclusive.
    ///
    /// # Errors
    ///
    /// [`Error::Plan`] where the bounds hold no value or the name is taken.
    pub fn variable(
        &mut self,
        name: impl Into<String>,
        min: i64,
        max: i64,
    ) -> Result<VariableId, Error> {
        let name = name.into();
        let place = || format!("variables.{name}");
        if min > max {
            return Err(Error::plan(
                place(),
                format!("no value lies in {min}..={max}"),
            ));
        }
        let id = self.plan.variables.len();
        if self.plan.names.variables.contains_key(&name) {
            return Err(Error::plan(place(), "the name is taken"));
        }
        self.plan.names.variables.insert(name.clone(), id);
        self.plan.variables.push(Variable { name, min, max });
        Ok(VariableId(id))
    }

    /// Declares a kernel.
    pub fn kernel(&mut self, entry: impl Into<String>, signature: Signature) -> usize {
        self.plan.kernels.push(PlanKernel {
            entry: entry.into(),
            signature,
        });
        self.plan.kernels.len() - 1
    }

    /// Declares an input: given by the caller, never written by an op.
    ///
    /// # Errors
    ///
    /// As [`buffer`](Self::buffer).
    pub fn input(
        &mut self,
        name: &str,
        dtype: DType,
        shape: &[usize],
    ) -> Result<BufferRange, Error> {
        self.declare(Some(name), Role::Input, dtype, shape)
    }

    /// Declares a constant, whose contents the executable is given.
    ///
    /// # Errors
    ///
    /// As [`buffer`](Self::buffer).
    pub fn constant(
        &mut self,
        name: &str,
        dtype: DType,
        shape: &[usize],
    ) -> Result<BufferRange, Error> {
        self.declare(Some(name), Role::Constant, dtype, shape)
    }

    /// Declares a state: what ops write to it, the next run finds.
    ///
    /// # Errors
    ///
    /// As [`buffer`](Self::buffer).
    pub fn state(
        &mut self,
        name: &str,
        dtype: DType,
        shape: &[usize],
    ) -> Result<BufferRange, Error> {
        self.declare(Some(name), Role::State, dtype, shape)
    }

    /// Declares scratch of one run, undefined before its first write.
    ///
    /// # Errors
    ///
    /// As [`buffer`](Self::buffer).
    pub fn temp(&mut self, dtype: DType, shape: &[usize]) -> Result<BufferRange, Error> {
        self.declare(None, Role::Temp, dtype, shape)
    }

    /// Declares a buffer that ops write and the caller reads, and names all of it as a
    /// result.
    ///
    /// # Errors
    ///
    /// As [`buffer`](Self::buffer), and where the name is another output's.
    pub fn output(
        &mut self,
        name: &str,
        dtype: DType,
        shape: &[usize],
    ) -> Result<BufferRange, Error> {
        self.check_output_name(name)?;
        let buffer = self.declare(Some(name), Role::Output, dtype, shape)?;
        self.result(name, buffer.buffer, 0, dtype, shape)?;
        Ok(buffer)
    }

    fn declare(
        &mut self,
        name: Option<&str>,
        role: Role,
        dtype: DType,
        shape: &[usize],
    ) -> Result<BufferRange, Error> {
        let buffer = self.buffer(name, role, dtype, shape)?;
        self.whole(buffer)
    }

    /// The elements `elements` of a range of a buffer, counted in the buffer's type
    /// (bytes, where it has none) from the start of the range.
    ///
    /// # Errors
    ///
    /// [`Error::Plan`] where there is no such buffer, or the elements leave the range.
    pub fn view(&self, of: BufferRange, elements: Range<usize>) -> Result<BufferRange, Error> {
        let place = Place::at("buffers", of.buffer);
        self.check_range(place.clone(), &of)?;
        let size = self.plan.buffers[of.buffer].dtype.map_or(1, DType::size);
        let Range { start, end } = elements;
        let bytes = start.checked_mul(size).zip(end.checked_mul(size));
        match bytes {
            Some((from, to)) if from <= to && to <= of.bytes => Ok(of.part(from..to)),
            _ => {
                let elements = of.bytes / size;
                let reason = format!("elements {start}..{end} leave a range of {elements}");
                Err(Error::plan(place, reason))
            }
        }
    }

    /// Declares a buffer of elements, of any role and with or without a name. It is
    /// known by the number that this returns.
    ///
    /// # Errors
    ///
    /// [`Error::Plan`] where its bytes, or those of all buffers, are too many to
    /// address; where an input has no name, or another input's.
    pub fn buffer(
        &mut self,
        name: Option<&str>,
        role: Role,
        dtype: DType,
        shape: &[usize],
    ) -> Result<usize, Error> {
        self.add_buffer(name, role, Some(dtype), shape)
    }

    /// Declares a buffer of untyped bytes, which fit parameters of any type.
    ///
    /// # Errors
    ///
    /// As [`buffer`](Self::buffer).
    pub fn bytes(&mut self, name: Option<&str>, role: Role, bytes: usize) -> Result<usize, Error> {
        self.add_buffer(name, role, None, &[bytes])
    }

    fn add_buffer(
        &mut self,
        name: Option<&str>,
        role: Role,
        dtype: Option<DType>,
        shape: &[usize],
    ) -> Result<usize, Error> {
        let place = Place::at("buffers", self.plan.buffers.len());
        let bytes = byte_count(dtype.map_or(1, DType::size), shape);
        // Every buffer may be padded to its alignment and more.
        let total = bytes
            .and_then(|b| b.checked_add(crate::signature::MAX_ALIGN))
            .and_then(|b| b.checked_add(self.total_bytes))
            .filter(|b| isize::try_from(*b).is_ok());
        let (Some(bytes), Some(total)) = (bytes, total) else {
            return Err(Error::plan(
                place,
                format!("{shape:?} is too large to address"),
            ));
        };
        if role == Role::Input {
            match name {
                None => return Err(Error::plan(place, "an input needs a name")),
                Some(name) if self.plan.names.inputs.contains_key(name) => {
                    return Err(Error::plan(place, format!("a second input named `{name}`")));
                }
                Some(name) => {
                    let index = self.plan.buffers.len();
                    self.plan.names.inputs.insert(name.to_owned(), index);
                }
            }
        }
        self.total_bytes = total;
        self.plan.buffers.push(PlanBuffer {
            name: name.map(str::to_owned),
            role,
            dtype,
            shape: shape.to_vec(),
            bytes,
            align: dtype.map_or(1, DType::size),
        });
        Ok(self.plan.buffers.len() - 1)
    }

    /// All of a buffer.
    ///
    /// # Errors
    ///
    /// [`Error::Plan`] where there is no such buffer.
    pub fn whole(&self, buffer: usize) -> Result<BufferRange, Error> {
        let place = Place::at("buffers", buffer);
        let found = self.plan.buffers.get(buffer);
        let bytes = found
            .map(|b| b.bytes)
            .ok_or_else(|| Error::plan(place, self.no_buffer()))?;
        Ok(BufferRange {
            buffer,
            offset: 0,
            bytes,
        })
    }

    /// Names a result: elements from `offset` bytes into a buffer that is declared
    /// already.
    ///
    /// # Errors
    ///
    /// [`Error::Plan`], with the output's number, where it leaves its buffer,
    /// lies in a temp or a constant, is not aligned to its elements, has another
    /// type than its buffer, or another output's name.
    pub fn result(
        &mut self,
        name: impl Into<String>,
        buffer: usize,
        offset: usize,
        dtype: DType,
        shape: &[usize],
    ) -> Result<usize, Error> {
        let name = name.into();
        let place = Place::at("outputs", self.plan.outputs.len());
        self.check_output_name(&name)?;
        let bytes = byte_count(dtype.size(), shape)
            .ok_or_else(|| Error::plan(place.key("shape"), "it is too large to address"))?;
        let range = BufferRange {
            buffer,
            offset,
            bytes,
        };
        self.check_range(place.clone(), &range)?;
        let found = &self.plan.buffers[buffer];
        if matches!(found.role, Role::Temp | Role::Constant) {
            let reason = format!(
                "it lies in buffer {buffer}, a {}; a result lies in an output, a state or an input",
                found.role.name()
            );
            return Err(Error::plan(place.key("buffer"), reason));
        }
        if let Some(got) = found.dtype
            && got != dtype
        {
            let reason = format!("buffer {buffer} holds {got}, not {dtype}");
            return Err(Error::plan(place.key("dtype"), reason));
        }
        if !offset.is_multiple_of(dtype.size()) {
            let reason = format!("{offset} bytes is no whole number of elements of {dtype}");
            return Err(Error::plan(place.key("offset"), reason));
        }
        if dtype == DType::Bool && found.dtype.is_none() {
            self.needs_vouching(place, READS_BOOL);
        }
        // Whoever reads it reads elements of this type, in an untyped buffer as well.
        let align = &mut self.plan.buffers[buffer].align;
        *align = (*align).max(dtype.size());
        let index = self.plan.outputs.len();
        self.plan.names.outputs.insert(name.clone(), index);
        self.plan.outputs.push(PlanOutput {
            name,
            range,
            dtype,
            shape: shape.to_vec(),
        });
        Ok(self.plan.outputs.len() - 1)
    }

    fn check_output_name(&self, name: &str) -> Result<(), Error> {
        if self.plan.names.outputs.contains_key(name) {
            let place = Place::at("outputs", self.plan.outputs.len());
            return Err(Error::plan(
                place,
                format!("a second output named `{name}`"),
            ));
        }
        Ok(())
    }

    /// The plan: what must come before what is found, and a place for each temp.
    ///
    /// # Errors
    ///
    /// [`Error::Plan`] where so many ops read or write what so many others wrote in
    /// parts that nobody would wait for the end of it: some five thousand that each
    /// touch what five thousand others did. It names the op at which that shows.
    pub fn build(mut self) -> Result<Plan, Error> {
        let Plan {
            buffers,
            kernels,
            ops,
            ..
        } = &self.plan;
        self.plan.layout = Layout::new(buffers, kernels, ops)?;
        Ok(self.plan)
    }

    /// Notes what only an unsafe load can vouch for; the first such place is enough.
    fn needs_vouching(&mut self, place: Place, reason: &'static str) {
        self.plan.unvouched.get_or_insert((place, reason));
    }

    fn push(&mut self, op: Op) -> usize {
        self.plan.ops.push(op);
        self.plan.ops.len() - 1
    }

    fn no_buffer(&self) -> String {
        format!("no such buffer, there are {}", self.plan.buffers.len())
    }

    fn check_range(&self, place: Place, range: &BufferRange) -> Result<(), Error> {
        let Some(buffer) = self.plan.buffers.get(range.buffer) else {
            let reason = format!("buffer {}: {}", range.buffer, self.no_buffer());
            return Err(Error::plan(place, reason));
        };
        let end = range.offset.checked_add(range.bytes);
        if end.is_none_or(|end| end > buffer.bytes) {
            let reason = format!(
                "{} bytes from offset {} leave {}, which has {}",
                range.bytes,
                range.offset,
                self.plan.described(range.buffer),
                buffer.bytes
            );
            return Err(Error::plan(place, reason));
        }
        Ok(())
    }
}

const READS_BOOL: &str = "bytes that need not be 0 or 1 are taken for bool; declare their \
    buffers as bool, or vouch for them with Executable::new_unchecked";

/// The bytes of elements of `size` bytes in a shape, if memory can hold them.
fn byte_count(size: usize, shape: &[usize]) -> Option<usize> {
    // A dimension of 0 makes any shape empty, whatever the others are.
    if shape.contains(&0) {
        return Some(0);
    }
    let bytes = shape.iter().try_fold(size, |n, d| n.checked_mul(*d))?;
    isize::try_from(bytes).is_ok().then_some(bytes)
}
