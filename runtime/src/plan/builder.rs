//! A plan's parts in, a checked plan out.

use std::collections::HashSet;
use std::ops::Range;

use super::layout::Layout;
use super::value::MAX_STEPS_OF_A_PLAN;
use super::{
    BufferRange, HostArg, HostCall, HostError, HostFunction, Launch, Names, Op, Plan, PlanBuffer,
    PlanKernel, PlanOutput, Role, Value, Variable, VariableId,
};
use crate::Error;
use crate::error::Place;
use crate::launch::Arg;
use crate::signature::{Access, ArgShape, DType, Misuse, Number, Scalar, Signature};

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
                let reason = format!("elements {start}..{end} of {}", of.bytes / size);
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

    /// Adds a launch of `kernel` with one range for each of its buffer
    /// parameters and one value for each of its scalars, by name.
    ///
    /// # Errors
    ///
    /// [`Error::Plan`], with the op's number: an argument that does not fit its
    /// parameter as [`Misuse`] lists it, a range that leaves its buffer, a write
    /// to an input or a constant, a scalar or a grid that some value of the
    /// variables would drive out of its bounds.
    pub fn launch(
        &mut self,
        kernel: usize,
        args: &[BufferRange],
        scalars: &[(&str, Value)],
        grid: impl Into<Value>,
    ) -> Result<usize, Error> {
        self.launch_with_costs(kernel, args, scalars, grid, None, None)
    }

    /// As [`launch`](Self::launch), with estimates of what it costs.
    ///
    /// # Errors
    ///
    /// As [`launch`](Self::launch).
    pub fn launch_with_costs(
        &mut self,
        kernel: usize,
        args: &[BufferRange],
        scalars: &[(&str, Value)],
        grid: impl Into<Value>,
        flops: Option<u64>,
        bytes: Option<u64>,
    ) -> Result<usize, Error> {
        let grid = grid.into();
        let op = Place::at("ops", self.plan.ops.len());
        let Some(PlanKernel { entry, signature }) = self.plan.kernels.get(kernel) else {
            let reason = format!("kernel {kernel} of {}", self.plan.kernels.len());
            return Err(Error::plan(op.key("launch"), reason));
        };
        let in_kernel = |reason: &dyn std::fmt::Display| format!("kernel `{entry}`: {reason}");

        for (i, arg) in args.iter().enumerate() {
            self.check_range(op.item("args", i), arg)?;
        }
        let shape = |i: usize| self.shape(&args[i]);
        signature
            .check_arguments(args.len(), shape)
            .map_err(|misuse| {
                let place = match misuse {
                    Misuse::DType { argument, .. }
                    | Misuse::TooShort { argument, .. }
                    | Misuse::Misaligned { argument, .. }
                    | Misuse::ReadOnly { argument }
                    | Misuse::Overlap {
                        second: argument, ..
                    } => op.item("args", argument),
                    _ => op.key("args"),
                };
                let reason: &dyn std::fmt::Display = match &misuse {
                    Misuse::ReadOnly { argument } => &self.no_write(&args[*argument]),
                    other => other,
                };
                Error::plan(place, in_kernel(reason))
            })?;

        let mut names = HashSet::new();
        for (name, _) in scalars {
            if !names.insert(name) {
                let place = op.key("scalars").key(name);
                return Err(Error::plan(place, in_kernel(&"it has two values")));
            }
        }
        let mut values = Vec::new();
        for param in signature.scalars() {
            let place = op.key("scalars").key(&param.name);
            let Some((_, value)) = scalars.iter().find(|(name, _)| *name == param.name) else {
                return Err(Error::plan(place, in_kernel(&"it has no value")));
            };
            value
                .prove(&self.plan.variables, &mut self.proof_steps, |number| {
                    let scalar = Scalar::from_number(param.dtype, number)
                        .ok_or_else(|| format!("{number} is not a value of {}", param.dtype))?;
                    param.check(scalar).map_err(|misuse| misuse.to_string())
                })
                .map_err(|reason| Error::plan(place, in_kernel(&reason)))?;
            values.push(value.clone());
        }
        if let Some((name, _)) = scalars
            .iter()
            .find(|(name, _)| signature.scalars().all(|p| p.name != *name))
        {
            let place = op.key("scalars").key(name);
            return Err(Error::plan(place, in_kernel(&"it has no such scalar")));
        }
        grid.prove(&self.plan.variables, &mut self.proof_steps, |number| {
            let grid = as_grid(number)?;
            signature.check_grid(grid).map_err(|m| m.to_string())
        })
        .map_err(|reason| Error::plan(op.key("grid"), in_kernel(&reason)))?;

        let untyped = |arg: &BufferRange| self.plan.buffers[arg.buffer].dtype.is_none();
        let reinterprets_bool = signature.buffers().zip(args).any(|(param, arg)| {
            param.dtype == DType::Bool && param.access != Access::Write && untyped(arg)
        });
        let unbounded = signature.unbounded().is_some();
        let aligns: Vec<_> = signature.buffers().map(|p| p.align).collect();
        for (arg, align) in args.iter().zip(aligns) {
            let buffer = &mut self.plan.buffers[arg.buffer];
            buffer.align = buffer.align.max(align);
        }
        if reinterprets_bool {
            self.needs_vouching(op.key("args"), READS_BOOL);
        }
        if unbounded {
            self.needs_vouching(op.key("scalars"), UNSTATED_BOUNDS);
        }
        Ok(self.push(Op::Launch(Launch {
            kernel,
            args: args.to_vec(),
            scalars: values,
            grid,
            flops,
            bytes,
        })))
    }

    /// Adds a copy of bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Plan`], with the op's number, where the ranges differ in size,
    /// overlap, leave their buffers, or the target may not be written.
    pub fn copy(&mut self, from: BufferRange, to: BufferRange) -> Result<usize, Error> {
        let op = Place::at("ops", self.plan.ops.len()).key("copy");
        self.check_range(op.key("from"), &from)?;
        self.check_target(op.key("to"), &to)?;
        if from.bytes != to.bytes {
            let reason = format!("{} bytes to {} bytes", from.bytes, to.bytes);
            return Err(Error::plan(op, reason));
        }
        if self.shape(&from).overlaps(&self.shape(&to)) {
            return Err(Error::plan(op, "`from` and `to` overlap"));
        }
        let dtype = |range: &BufferRange| self.plan.buffers[range.buffer].dtype;
        if dtype(&to) == Some(DType::Bool) && dtype(&from) != Some(DType::Bool) {
            self.needs_vouching(op, READS_BOOL);
        }
        Ok(self.push(Op::Copy { from, to }))
    }

    /// Adds a fill of every element of `to` with one value.
    ///
    /// # Errors
    ///
    /// [`Error::Plan`], with the op's number, where the range leaves its buffer
    /// or holds no whole number of elements, its elements are of another type,
    /// it may not be written, or the value does not fit the type.
    pub fn fill(
        &mut self,
        to: BufferRange,
        dtype: DType,
        value: impl Into<Value>,
    ) -> Result<usize, Error> {
        let value = value.into();
        let op = Place::at("ops", self.plan.ops.len()).key("fill");
        self.check_target(op.key("to"), &to)?;
        if let Some(got) = self.plan.buffers[to.buffer].dtype
            && got != dtype
        {
            let reason = format!("elements are {got}, the fill is of {dtype}");
            return Err(Error::plan(op.key("dtype"), reason));
        }
        self.check_whole_elements(op.key("to"), &to, dtype)?;
        value
            .prove(&self.plan.variables, &mut self.proof_steps, |number| {
                Scalar::from_number(dtype, number)
                    .map(drop)
                    .ok_or_else(|| format!("{number} is not a value of {dtype}"))
            })
            .map_err(|reason| Error::plan(op.key("value"), reason))?;
        Ok(self.push(Op::Fill { to, dtype, value }))
    }

    /// Adds a call of a function of the embedder's. It is given an [`Arg`] for each of
    /// `args`, in order: [`Arg::Write`] for what it may write, [`Arg::Read`] for the
    /// rest, of the type of the buffer, or of bytes. What it returns as an error, and a
    /// panic, fails the run. Instances that run at the same time call it at the same
    /// time.
    ///
    /// ```
    /// # use svod_runtime::plan::{Executable, PlanBuilder};
    /// # use svod_runtime::{Arg, DType, View};
    /// let mut plan = PlanBuilder::new("largest");
    /// let x = plan.input("x", DType::F32, &[3])?;
    /// let y = plan.output("y", DType::I32, &[1])?;
    /// plan.host("argmax", &[x.read(), y.write()], |args| {
    ///     let [Arg::Read(x), Arg::Write(y)] = args else { return Ok(()) };
    ///     let best = x.as_slice::<f32>()?.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    ///     y.reborrow().into_slice::<i32>()?[0] = best.map_or(-1, |(i, _)| i as i32);
    ///     Ok(())
    /// })?;
    /// let mut instance = Executable::new(plan.build()?, vec![], [])?.instance()?;
    /// instance.set_input("x", View::from_slice(&[1.0_f32, 7.0, 3.0]))?;
    /// instance.run(&[])?;
    /// assert_eq!(instance.output("y")?.as_slice::<i32>()?, [1]);
    /// # Ok::<(), svod_runtime::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Plan`], with the op's number and the function's name: a range that
    /// leaves its buffer or holds no whole number of elements, one that is written
    /// where that may not be, two that overlap and one of which is written.
    pub fn host(
        &mut self,
        name: &str,
        args: &[HostArg],
        function: impl Fn(&mut [Arg<'_>]) -> Result<(), HostError> + Send + Sync + 'static,
    ) -> Result<usize, Error> {
        let op = Place::at("ops", self.plan.ops.len());
        let refuse = |place, reason: &dyn std::fmt::Display| {
            Err(Error::plan(
                place,
                format!("host function `{name}`: {reason}"),
            ))
        };
        for (i, HostArg { range, access }) in args.iter().enumerate() {
            let place = op.item("args", i);
            self.check_range(place.clone(), range)?;
            if access.writes() && !self.plan.buffers[range.buffer].role.writable() {
                return refuse(place, &self.no_write(range));
            }
            if let Some(dtype) = self.plan.buffers[range.buffer].dtype {
                self.check_whole_elements(place.clone(), range, dtype)?;
            }
            for (j, earlier) in args[..i].iter().enumerate() {
                let harmless = !access.writes() && !earlier.access.writes();
                if !harmless && self.shape(range).overlaps(&self.shape(&earlier.range)) {
                    let reason = format!("arguments {j} and {i} overlap, and it writes one");
                    return refuse(place, &reason);
                }
            }
        }
        Ok(self.push(Op::Host(HostCall {
            function: HostFunction::new(name, function),
            args: args.to_vec(),
        })))
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
                "{} bytes from offset {} leave buffer {}, which has {}",
                range.bytes, range.offset, range.buffer, buffer.bytes
            );
            return Err(Error::plan(place, reason));
        }
        Ok(())
    }

    fn check_target(&self, place: Place, range: &BufferRange) -> Result<(), Error> {
        self.check_range(place.clone(), range)?;
        if self.plan.buffers[range.buffer].role.writable() {
            Ok(())
        } else {
            Err(Error::plan(place, self.no_write(range)))
        }
    }

    fn check_whole_elements(
        &self,
        place: Place,
        range: &BufferRange,
        dtype: DType,
    ) -> Result<(), Error> {
        let size = dtype.size();
        if range.bytes.is_multiple_of(size) && range.offset.is_multiple_of(size) {
            return Ok(());
        }
        let reason = format!(
            "bytes {} to {} are no whole elements of {dtype}",
            range.offset,
            range.end()
        );
        Err(Error::plan(place, reason))
    }

    fn no_write(&self, range: &BufferRange) -> String {
        let role = self.plan.buffers[range.buffer].role.name();
        format!("buffer {} is a {role}, which no op may write", range.buffer)
    }

    /// Of a range that was checked.
    fn shape(&self, range: &BufferRange) -> ArgShape {
        let buffer = &self.plan.buffers[range.buffer];
        ArgShape {
            dtype: buffer.dtype,
            space: range.buffer,
            start: range.offset,
            bytes: range.bytes,
            writable: buffer.role.writable(),
        }
    }
}

const READS_BOOL: &str = "bytes that need not be 0 or 1 are taken for bool; declare their \
    buffers as bool, or vouch for them with Executable::new_unchecked";

const UNSTATED_BOUNDS: &str = "a kernel's scalar states no bounds; state them in its signature, or \
    vouch for the plan's values with Executable::new_unchecked";

/// The bytes of elements of `size` bytes in a shape, if memory can hold them.
fn byte_count(size: usize, shape: &[usize]) -> Option<usize> {
    // A dimension of 0 makes any shape empty, whatever the others are.
    if shape.contains(&0) {
        return Some(0);
    }
    let bytes = shape.iter().try_fold(size, |n, d| n.checked_mul(*d))?;
    isize::try_from(bytes).is_ok().then_some(bytes)
}

/// A number as the size of a grid.
pub(super) fn as_grid(number: Number) -> Result<u64, String> {
    match number {
        Number::Int(v) => u64::try_from(v).ok(),
        Number::Float(_) => None,
    }
    .ok_or_else(|| format!("a grid of {number}"))
}
