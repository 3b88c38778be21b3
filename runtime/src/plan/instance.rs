//! One set of a plan's mutable memory, and a run over it.

use std::fmt;
use std::ptr::NonNull;

use super::builder::as_grid;
use super::{BufferRange, Executable, Launch, Op, Role, Value};
use crate::Error;
use crate::dispatch::Call;
use crate::memory::{Buffer, Filling, Guard, View, ViewMut};
use crate::signature::{DType, Number, Scalar};

/// One set of a plan's mutable memory: it runs the plan, one run at a time.
#[derive(Debug)]
pub struct Instance {
    // Steps hold addresses into `memory` and into the executable's constants;
    // neither moves or goes while the instance lives.
    steps: Vec<Step>,
    /// The steps that depend on the run's variables.
    varying: Vec<usize>,
    memory: Vec<Option<Buffer>>,
    /// Whether the caller has given each input; true for all that is none.
    given: Vec<bool>,
    /// The run's variables, in the plan's order.
    variables: Vec<i64>,
    torn: bool,
    observer: Option<Observer>,
    executable: Executable,
}

/// Who is told of each op.
struct Observer(Box<dyn FnMut(usize) + Send + Sync>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

/// An op with its addresses.
#[derive(Debug)]
enum Step {
    Launch {
        call: Call,
        grid: u64,
        writes_state: bool,
    },
    Copy {
        from: NonNull<u8>,
        to: NonNull<u8>,
        bytes: usize,
        writes_state: bool,
    },
    Fill {
        to: NonNull<u8>,
        bytes: usize,
        /// The element's bytes, of which the first `size` count.
        element: [u8; 8],
        size: usize,
        writes_state: bool,
    },
}

// SAFETY: the addresses in the steps are of memory that the instance owns, or
// of constants that it keeps alive and that nothing writes; an instance is used
// through `&mut`, so by one thread at a time.
unsafe impl Send for Instance {}
// SAFETY: through a shared reference, an instance gives out views for reading
// only, and nothing writes meanwhile.
unsafe impl Sync for Instance {}

impl Instance {
    pub(super) fn new(executable: Executable) -> Result<Instance, Error> {
        let (plan, guard) = (executable.plan(), executable.guard());
        let mut memory = Vec::with_capacity(plan.buffers.len());
        for (i, buffer) in plan.buffers.iter().enumerate() {
            if buffer.role == Role::Constant && guard == Guard::Off {
                memory.push(None);
                continue;
            }
            let dtype = buffer.dtype.unwrap_or(DType::U8);
            let len = buffer.bytes / dtype.size();
            let owned = Buffer::guarded(dtype, len, buffer.align, guard).map_err(|e| match e {
                Error::OutOfMemory { .. } => Error::OutOfMemory {
                    what: format!(
                        "buffer {} of the plan `{}`",
                        plan.buffer_label(i),
                        plan.name
                    ),
                    bytes: buffer.bytes,
                },
                other => other,
            })?;
            memory.push(Some(owned));
        }
        let mut instance = Instance {
            steps: Vec::new(),
            varying: Vec::new(),
            memory,
            given: plan.buffers.iter().map(|b| b.role != Role::Input).collect(),
            variables: plan.variables.iter().map(|v| v.min).collect(),
            torn: false,
            observer: None,
            executable: executable.clone(),
        };
        for (i, op) in plan.ops.iter().enumerate() {
            let mut step = instance.step(op);
            step.evaluate(op, &instance.variables)?;
            instance.steps.push(step);
            if op.depends_on_variables() {
                instance.varying.push(i);
            }
        }
        instance.copy_contents(Role::State);
        instance.copy_contents(Role::Constant);
        for (buffer, memory) in plan.buffers.iter().zip(&mut instance.memory) {
            if let (Role::Constant, Some(memory)) = (buffer.role, memory) {
                memory.make_read_only()?;
            }
        }
        Ok(instance)
    }

    /// The executable that it is an instance of.
    #[must_use]
    pub const fn executable(&self) -> &Executable {
        &self.executable
    }

    /// The elements of an input, for writing; a `bool` is written through
    /// [`ViewMut::copy_from`]. The input counts as given, and stays so.
    ///
    /// # Errors
    ///
    /// [`Error::Run`] where the plan has no input of that name.
    pub fn input(&mut self, name: &str) -> Result<ViewMut<'_>, Error> {
        let i = self.input_index(name)?;
        self.given[i] = true;
        self.input_at(i)
    }

    /// Copies an input's elements from the caller.
    ///
    /// # Errors
    ///
    /// [`Error::Run`] where the plan has no input of that name, [`Error::Buffer`]
    /// where its elements are of another type or number; it does not count as
    /// given then.
    pub fn set_input(&mut self, name: &str, elements: View<'_>) -> Result<(), Error> {
        let i = self.input_index(name)?;
        self.input_at(i)?.copy_from(elements)?;
        self.given[i] = true;
        Ok(())
    }

    fn input_index(&self, name: &str) -> Result<usize, Error> {
        let plan = self.executable.plan();
        plan.input_index(name).ok_or_else(|| {
            let names = plan.inputs().filter_map(|b| b.name.as_deref());
            let names: Vec<_> = names.map(|n| format!("`{n}`")).collect();
            let names = names.join(", ");
            Error::run(format!("there is no input `{name}`; there are: {names}"))
        })
    }

    fn input_at(&mut self, i: usize) -> Result<ViewMut<'_>, Error> {
        // Every buffer but a shared constant has memory of its own.
        let buffer = self.memory[i].as_mut();
        let buffer = buffer.ok_or_else(|| Error::run("an input without memory"))?;
        Ok(buffer.as_view_mut())
    }

    /// The elements of an output, as the last run left them.
    ///
    /// # Errors
    ///
    /// [`Error::Run`] where the plan has no output of that name.
    pub fn output(&self, name: &str) -> Result<View<'_>, Error> {
        let outputs = &self.executable.plan().outputs;
        let found = outputs.iter().find(|o| o.name == name);
        let Some(output) = found else {
            let names: Vec<_> = outputs.iter().map(|o| format!("`{}`", o.name)).collect();
            return Err(Error::run(format!(
                "there is no output `{name}`; there are: {}",
                names.join(", ")
            )));
        };
        let start = self.address(&output.range);
        let len = output.range.bytes / output.dtype.size();
        // SAFETY: the range lies within a buffer of this instance, which is
        // borrowed for as long as the view, and elements of this type fill it.
        Ok(unsafe { View::from_raw(start, output.dtype, len) })
    }

    /// Runs the plan once, on this thread, with a value for each variable.
    ///
    /// # Errors
    ///
    /// [`Error::Run`] where a variable has no value or one outside its bounds,
    /// where a name is not a variable's, or an input was never given; and
    /// [`Error::Torn`] after a run that failed halfway: nothing has run then.
    /// [`Error::KernelStatus`] where a kernel fails; the ops after it have not
    /// run. Of a guarded instance [`Error::Overrun`], where a kernel has written beside
    /// one of its arguments. The instance is torn by either if an op had written a
    /// state, and can be run again if not.
    pub fn run(&mut self, variables: &[(&str, i64)]) -> Result<(), Error> {
        if self.torn {
            return Err(Error::Torn);
        }
        let plan = self.executable.plan();
        plan.choose(variables, &mut self.variables)?;
        if let Some(missing) = self.given.iter().position(|given| !given) {
            let label = plan.buffer_label(missing);
            return Err(Error::run(format!("the input {label} was not given")));
        }
        for &i in &self.varying {
            self.steps[i].evaluate(&plan.ops[i], &self.variables)?;
        }

        let Instance {
            steps,
            memory,
            torn,
            observer,
            executable,
            ..
        } = self;
        let watched = observer.is_some() || executable.guard() != Guard::Off;
        // SAFETY: the plan was checked when it was built: every argument is
        // within its buffer, aligned, long enough, and overlaps no other
        // that is written; scalars and grids were proved to stay in bounds
        // for all variables, and those of this run are within theirs; what
        // has no bounds was vouched for when the executable was made.
        // Instance and executable own the memory, which no one else uses
        // while `self` is borrowed. Who loaded the kernels vouched for them.
        unsafe {
            if watched {
                let before = |op| {
                    if let Some(Observer(observe)) = observer {
                        observe(op);
                    }
                };
                walk(steps, torn, before, |op| {
                    check_slack(executable, memory, op)
                })
            } else {
                walk(steps, torn, |_| {}, |_| Ok(()))
            }
        }
    }

    /// Has every run from now on call `observer` with the number of each op, right
    /// before it runs: for whoever must know where a run is that does not come back. One
    /// that panics leaves the states as a run that failed does, and nobody is told.
    pub fn set_observer(&mut self, observer: impl FnMut(usize) + Send + Sync + 'static) {
        self.observer = Some(Observer(Box::new(observer)));
    }

    /// Fills temps and outputs, of whose contents no op may know anything before it
    /// has written them; of a guarded instance, also the slack beside every buffer.
    /// If two runs after two fillings differ, something was read that was never
    /// written. Inputs, constants and states keep what they hold.
    ///
    /// # Errors
    ///
    /// [`Error::System`] where the rights of a guarded constant's memory cannot be set.
    pub fn fill_scratch(&mut self, filling: Filling) -> Result<(), Error> {
        let buffers = &self.executable.plan().buffers;
        for (buffer, memory) in buffers.iter().zip(&mut self.memory) {
            let Some(memory) = memory else { continue };
            if matches!(buffer.role, Role::Temp | Role::Output) {
                memory.fill(filling.elements(buffer.dtype));
            }
            memory.fill_slack(filling.slack(buffer.dtype))?;
        }
        Ok(())
    }

    /// Whether a run failed after it had written a state.
    #[must_use]
    pub const fn is_torn(&self) -> bool {
        self.torn
    }

    /// Accepts the states as a failed run left them.
    pub const fn accept_torn(&mut self) {
        self.torn = false;
    }

    /// Puts every state back to what it was at the start.
    pub fn reset(&mut self) {
        let plan = self.executable.plan();
        let contents = self.executable.contents();
        for ((buffer, memory), content) in plan.buffers.iter().zip(&mut self.memory).zip(contents) {
            if let (Role::State, Some(memory), None) = (buffer.role, memory, content) {
                let start = memory.as_view_mut().start().as_ptr();
                // SAFETY: the buffer's own bytes, borrowed exclusively; zero is a
                // value of every element type.
                unsafe { std::ptr::write_bytes(start, 0, buffer.bytes) };
            }
        }
        self.copy_contents(Role::State);
        self.torn = false;
    }

    /// Copies to the states what they hold at the start, or to the constants that are
    /// not shared what they hold; states without contents are zeros, as which memory is
    /// born.
    fn copy_contents(&mut self, role: Role) {
        let buffers = self.executable.plan().buffers.iter();
        let contents = buffers.zip(self.executable.contents());
        for (memory, (_, content)) in self
            .memory
            .iter_mut()
            .zip(contents)
            .filter(|(_, (b, _))| b.role == role)
        {
            let (Some(buffer), Some(content)) = (memory, content) else {
                continue;
            };
            // SAFETY: contents are as long as their buffer, as the executable
            // was checked for, and lie elsewhere; the buffer is borrowed
            // exclusively.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    content.start().as_ptr(),
                    buffer.as_view_mut().start().as_ptr(),
                    content.bytes(),
                );
            }
        }
    }

    /// Where a checked range lies. What is a constant must only be read there.
    fn address(&self, range: &BufferRange) -> NonNull<u8> {
        let start = match (
            &self.memory[range.buffer],
            &self.executable.contents()[range.buffer],
        ) {
            (Some(buffer), _) => buffer.as_view().start(),
            (None, Some(constant)) => constant.start(),
            // Not of an executable, all of whose constants have contents.
            (None, None) => return NonNull::dangling(),
        };
        // SAFETY: the range lies within the buffer, as the builder checked, and the
        // buffer's memory is as long as the plan says, as the executable did.
        unsafe { start.byte_add(range.offset) }
    }

    fn writes_state(&self, range: &BufferRange) -> bool {
        self.executable.plan().buffers[range.buffer].role == Role::State
    }

    fn step(&self, op: &Op) -> Step {
        match op {
            Op::Launch(launch) => {
                let kernel = &self.executable.kernels()[launch.kernel];
                let mut call = Call::new(kernel);
                for (i, arg) in launch.args.iter().enumerate() {
                    call.set_buffer(i, self.address(arg).as_ptr());
                }
                let params = kernel.signature().buffers().zip(&launch.args);
                Step::Launch {
                    call,
                    grid: 0,
                    writes_state: params
                        .into_iter()
                        .any(|(p, arg)| p.access.writes() && self.writes_state(arg)),
                }
            }
            Op::Copy { from, to } => Step::Copy {
                from: self.address(from),
                to: self.address(to),
                bytes: to.bytes,
                writes_state: self.writes_state(to),
            },
            Op::Fill { to, dtype, .. } => Step::Fill {
                to: self.address(to),
                bytes: to.bytes,
                element: [0; 8],
                size: dtype.size(),
                writes_state: self.writes_state(to),
            },
        }
    }
}

/// Runs all steps in order, and tells `before` and asks `after` of each.
///
/// # Safety
///
/// As [`Step::run`], for each of them.
unsafe fn walk(
    steps: &mut [Step],
    torn: &mut bool,
    mut before: impl FnMut(usize),
    after: impl Fn(usize) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut state_written = false;
    for (i, step) in steps.iter_mut().enumerate() {
        before(i);
        state_written |= step.writes_state();
        // SAFETY: promised by the caller.
        let result = unsafe { step.run() };
        // Whatever a kernel says that it came to, what `after` finds may be the reason.
        if let Err(error) = after(i).and(result) {
            *torn = state_written;
            return Err(error);
        }
    }
    Ok(())
}

/// Whether the launch `op` has written beside one of its arguments. Copies and fills
/// stay where the plan says.
fn check_slack(executable: &Executable, memory: &[Option<Buffer>], op: usize) -> Result<(), Error> {
    let plan = executable.plan();
    let Op::Launch(launch) = &plan.ops[op] else {
        return Ok(());
    };
    for (argument, arg) in launch.args.iter().enumerate() {
        let buffer = memory[arg.buffer].as_ref();
        if let Some(stray) = buffer.and_then(|b| b.as_view().stray()) {
            let role = plan.buffers[arg.buffer].role.name();
            return Err(Error::Overrun {
                kernel: executable.kernels()[launch.kernel].name().to_owned(),
                argument,
                buffer: Some(format!("{role} {}", plan.buffer_label(arg.buffer))),
                stray,
            });
        }
    }
    Ok(())
}

impl Step {
    /// Puts in what depends on the run's variables.
    fn evaluate(&mut self, op: &Op, variables: &[i64]) -> Result<(), Error> {
        // The builder proved that none of this fails; a proof that had a hole
        // would be an error here, before anything has run.
        let number = |value: &Value| value.evaluate(variables).map_err(Error::run);
        let slot = |dtype: DType, number: Number| {
            let scalar = Scalar::from_number(dtype, number)
                .ok_or_else(|| Error::run(format!("{number} is not a value of {dtype}")))?;
            Ok::<u64, Error>(scalar.to_slot())
        };
        match (self, op) {
            (
                Step::Launch { call, grid, .. },
                Op::Launch(Launch {
                    scalars,
                    grid: grid_value,
                    ..
                }),
            ) => {
                let dtypes = call.kernel().signature().scalars().map(|p| p.dtype);
                let dtypes: Vec<_> = dtypes.collect();
                for (i, (value, dtype)) in scalars.iter().zip(dtypes).enumerate() {
                    call.set_scalar(i, slot(dtype, number(value)?)?);
                }
                *grid = as_grid(number(grid_value)?).map_err(Error::run)?;
            }
            (Step::Fill { element, .. }, Op::Fill { dtype, value, .. }) => {
                *element = slot(*dtype, number(value)?)?.to_le_bytes();
            }
            _ => {}
        }
        Ok(())
    }

    fn writes_state(&self) -> bool {
        match self {
            Step::Launch { writes_state, .. }
            | Step::Copy { writes_state, .. }
            | Step::Fill { writes_state, .. } => *writes_state,
        }
    }

    /// # Safety
    ///
    /// The addresses must be valid for what the op does with them, and a
    /// launch's call must be safe to make for its grid.
    unsafe fn run(&mut self) -> Result<(), Error> {
        match self {
            // SAFETY: promised by the caller.
            Step::Launch { call, grid, .. } => unsafe { call.run(*grid) },
            Step::Copy {
                from, to, bytes, ..
            } => {
                // SAFETY: promised by the caller; the builder refuses overlap.
                unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.as_ptr(), *bytes) };
                Ok(())
            }
            Step::Fill {
                to,
                bytes,
                element,
                size,
                ..
            } => {
                // SAFETY: promised by the caller; the bytes belong to a buffer
                // and were written at its birth.
                let target = unsafe { std::slice::from_raw_parts_mut(to.as_ptr(), *bytes) };
                for place in target.chunks_exact_mut(*size) {
                    place.copy_from_slice(&element[..*size]);
                }
                Ok(())
            }
        }
    }
}
