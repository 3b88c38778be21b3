//! The ops of a plan, each checked as it is added.

use std::collections::HashSet;

use super::super::{
    BufferRange, HostArg, HostCall, HostError, HostFunction, Launch, Op, PlanKernel, Value,
};
use super::{PlanBuilder, READS_BOOL};
use crate::Error;
use crate::error::Place;
use crate::launch::Arg;
use crate::signature::{Access, ArgShape, DType, Misuse, Number, Scalar};

impl PlanBuilder {
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
            let kernels = self.plan.kernels.len();
            let reason = format!("there is no kernel {kernel}, there are {kernels}");
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
                let given = |argument: &usize| self.plan.described(args[*argument].buffer);
                let reason = match &misuse {
                    Misuse::ReadOnly { argument } => self.no_write(&args[*argument]),
                    Misuse::DType { argument, .. }
                    | Misuse::TooShort { argument, .. }
                    | Misuse::Misaligned { argument, .. } => {
                        format!("{misuse} (it is given {})", given(argument))
                    }
                    Misuse::Overlap { first, second } => {
                        format!("{misuse} ({} and {})", given(first), given(second))
                    }
                    _ => misuse.to_string(),
                };
                Error::plan(place, in_kernel(&reason))
            })?;

        // Whoever misspells a name is told of the one that there is not.
        let mut names = HashSet::new();
        for (name, _) in scalars {
            let place = || op.key("scalars").key(name);
            if signature.scalars().all(|p| p.name != *name) {
                let known: Vec<_> = signature.scalars().map(|p| p.name.as_str()).collect();
                let reason = match &known[..] {
                    [] => "it has no such scalar; it has none".to_owned(),
                    known => format!("it has no such scalar; it has {}", known.join(", ")),
                };
                return Err(Error::plan(place(), in_kernel(&reason)));
            }
            if !names.insert(name) {
                return Err(Error::plan(place(), in_kernel(&"it has two values")));
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
            let reason = format!("`from` has {} bytes, `to` {}", from.bytes, to.bytes);
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
    /// With a [pool](crate::plan::Executable::with_pool), a run may call it on any of the pool's
    /// threads, beside other ops, and runs of other instances call it at the same time: what it
    /// locks must not be held by a thread that waits for a run. If it forks the process, the child
    /// is to execute another program, or to exit.
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
        let buffer = self.plan.described(range.buffer);
        format!("no op may write {buffer}")
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

const UNSTATED_BOUNDS: &str = "a kernel's scalar states no bounds; state them in its signature, or \
    vouch for the plan's values with Executable::new_unchecked";

/// A number as the size of a grid.
pub(in crate::plan) fn as_grid(number: Number) -> Result<u64, String> {
    match number {
        Number::Int(v) => u64::try_from(v).ok(),
        Number::Float(_) => None,
    }
    .ok_or_else(|| format!("a grid of {number} is no number of calls"))
}
