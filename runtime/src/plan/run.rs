//! What one run is asked for.

use std::ptr::NonNull;
use std::time::Instant;

use super::{Cancel, InputId, OutputId, Plan, PlanBuffer, PlanOutput, Role, Timings, Trace};
use crate::Error;
use crate::memory::{Stray, View, ViewMut};
use crate::signature::DType;

/// What one run is asked for, beyond what its instance holds: see
/// [`Instance::run_with`](super::Instance::run_with). All of it is optional.
///
/// ```
/// # use std::time::{Duration, Instant};
/// # use svod_runtime::plan::{Executable, PlanBuilder, Run};
/// # use svod_runtime::{DType, View, ViewMut};
/// # let mut plan = PlanBuilder::new("copy");
/// # let from = plan.input("x", DType::F32, &[2])?;
/// # let to = plan.output("y", DType::F32, &[2])?;
/// # plan.copy(from, to)?;
/// let executable = Executable::new(plan.build()?, vec![], [])?;
/// let (x, y) = (executable.plan().find_input("x")?, executable.plan().find_output("y")?);
/// let mut instance = executable.instance()?;
/// let (given, mut got) = ([1.0_f32, 2.0], [0.0_f32; 2]);
/// instance.run_with(Run {
///     inputs: &[(x, View::from_slice(&given))],
///     outputs: &mut [(y, ViewMut::from_slice(&mut got))],
///     deadline: Some(Instant::now() + Duration::from_secs(60)),
///     ..Run::default()
/// })?;
/// assert_eq!(got, given);
/// # Ok::<(), svod_runtime::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Run<'r, 'm> {
    /// A value for each variable of the plan, in the plan's order.
    pub variables: &'r [i64],
    /// Inputs that are read where they lie, in this run alone, instead of the
    /// instance's own. They must be of the input's type and length, and as aligned as
    /// the plan's kernels [need it](PlanBuffer::align).
    pub inputs: &'r [(InputId, View<'r>)],
    /// Outputs that are written where they lie, instead of the instance's own. Each must
    /// be all of a buffer of role [`Output`](Role::Output). What the ops leave unwritten
    /// keeps what it held.
    pub outputs: &'r mut [(OutputId, ViewMut<'m>)],
    /// Stops the run between two ops.
    pub cancel: Option<&'r Cancel>,
    /// When it is stopped, between two ops. Reading the clock costs some 25 ns an op.
    pub deadline: Option<Instant>,
    /// Has each op's time added.
    pub timings: Option<&'r mut Timings>,
    /// Is overwritten with when each op ran, on which thread.
    pub trace: Option<&'r mut Trace>,
}

/// Refuses memory of the caller's that overlaps, where one is written, and two for the
/// same buffer.
pub(super) fn check_overlap(plan: &Plan, bound: &[Bound]) -> Result<(), Error> {
    let name = |bound: &Bound| plan.buffer_label(bound.buffer);
    for (i, a) in bound.iter().enumerate() {
        for b in &bound[..i] {
            if a.buffer == b.buffer {
                return Err(Error::run(format!("{} is bound twice", name(a))));
            }
            let (a_start, b_start) = (a.start.addr().get(), b.start.addr().get());
            let overlap = a_start < b_start + b.bytes && b_start < a_start + a.bytes;
            let overlap = overlap && a.bytes > 0 && b.bytes > 0;
            if overlap && (a.writes || b.writes) {
                return Err(Error::run(format!(
                    "the memory that {} and {} are bound to overlaps, and the plan writes it",
                    name(b),
                    name(a)
                )));
            }
        }
    }
    Ok(())
}

/// Memory of the caller's that takes the place of a buffer.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) buffer: usize,
    pub(super) start: NonNull<u8>,
    bytes: usize,
    writes: bool,
    /// Whether it lies in a guarded buffer.
    pub(super) guarded: bool,
}

impl Run<'_, '_> {
    /// The memory of the caller's, checked, one after another.
    pub(super) fn bound(&self, plan: &Plan) -> impl Iterator<Item = Result<Bound, Error>> {
        let inputs = self.inputs.iter().map(|(id, view)| {
            let buffer = plan.buffers.get(id.0).filter(|b| b.role == Role::Input);
            let buffer = buffer.ok_or_else(|| Error::run("an input of another plan"))?;
            let dtype = buffer.dtype.unwrap_or(DType::U8);
            check(&|| plan.buffer_label(id.0), buffer, dtype, *view)?;
            Ok(Bound::new(id.0, *view, false))
        });
        let outputs = self.outputs.iter().map(|(id, view)| {
            let output = plan.outputs.get(id.0);
            let output = output.ok_or_else(|| Error::run("an output of another plan"))?;
            let buffer = whole_output(plan, output)?;
            let view = view.as_view();
            check(&|| format!("`{}`", output.name), buffer, output.dtype, view)?;
            Ok(Bound::new(output.range.buffer, view, true))
        });
        inputs.chain(outputs)
    }

    /// What was written beside memory of the caller's that is bound to `buffer`, where
    /// that is guarded.
    pub(super) fn stray(&self, plan: &Plan, buffer: usize) -> Option<Stray> {
        let inputs = self.inputs.iter().find(|(id, _)| id.0 == buffer);
        if let Some((_, view)) = inputs {
            return view.stray();
        }
        let is_it = |id: &OutputId| plan.outputs[id.0].range.buffer == buffer;
        let outputs = self.outputs.iter().find(|(id, _)| is_it(id));
        outputs.and_then(|(_, view)| view.stray())
    }
}

/// The buffer of an output, if the output is all of it and it is written for the caller
/// alone.
fn whole_output<'p>(plan: &'p Plan, output: &PlanOutput) -> Result<&'p PlanBuffer, Error> {
    let buffer = &plan.buffers[output.range.buffer];
    if buffer.role != Role::Output || output.range.bytes != buffer.bytes {
        return Err(Error::run(format!(
            "the output `{}` cannot be bound to memory of the caller's: it is no more than a part \
             of a buffer, or one of a {}; read it from the instance",
            output.name,
            buffer.role.name()
        )));
    }
    Ok(buffer)
}

/// Whether memory of the caller's can take the place of a buffer that holds elements of
/// `dtype`.
fn check(
    name: &dyn Fn() -> String,
    buffer: &PlanBuffer,
    dtype: DType,
    view: View<'_>,
) -> Result<(), Error> {
    if view.dtype() != dtype {
        let reason = format!("{} holds {dtype}, and is bound to {}", name(), view.dtype());
        return Err(Error::run(reason));
    }
    let bytes = view.len() * dtype.size();
    if bytes != buffer.bytes {
        return Err(Error::run(format!(
            "{} has {} elements, and is bound to {}",
            name(),
            buffer.bytes / dtype.size(),
            view.len()
        )));
    }
    let address = view.start().addr().get();
    if !address.is_multiple_of(buffer.align) && bytes > 0 {
        return Err(Error::run(format!(
            "{} is bound to memory that is {} bytes past a multiple of {}, as which the plan's \
             kernels need it; copy it to a Buffer, or to the instance's own",
            name(),
            address % buffer.align,
            buffer.align
        )));
    }
    // A kernel may have left anything there.
    if dtype == DType::Bool
        && let Some(at) = view.as_bytes().iter().position(|&b| b > 1)
    {
        let reason = format!("element {at} of {} is no bool, 0 or 1", name());
        return Err(Error::run(reason));
    }
    Ok(())
}

impl Bound {
    fn new(buffer: usize, view: View<'_>, writes: bool) -> Bound {
        Bound {
            buffer,
            start: view.start(),
            bytes: view.len() * view.dtype().size(),
            writes,
            guarded: view.is_guarded(),
        }
    }
}
