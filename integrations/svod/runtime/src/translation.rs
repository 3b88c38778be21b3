//! From Svod's ops to a plan of the library over the same memory.
//!
//! Each storage that Svod's buffers are views of becomes one buffer of the plan, lent to it for
//! good; a view is a range of it. What an op touches is then known to the byte, whatever Svod's
//! memory planner has put on top of each other.
//!
//! A kernel becomes a launch. What cannot be one becomes a function that does as Svod would: a
//! program of another device's, a launch that breaks what its kernel states and that Svod would
//! make all the same, a copy that Svod's buffers refuse when it is their turn.

mod storages;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use engine::plan::{
    BufferRange, Executable, HostArg, HostError, Instance, Plan, PlanBuilder, Role, Value,
};
use engine::signature::BufferParam;
use engine::{DType, Kernel};
use svod_device::device::ProgramSpec;
use svod_device::{Buffer, BufferId};

use crate::code::Code;
use crate::custom_function::run_custom_function;
use crate::execution_plan::{
    PreparedBufferView, PreparedCopy, PreparedCustomFunction, PreparedKernel, PreparedOp, find,
    is_free,
};
use crate::program::{code_of, grid};
use crate::{Error, Result, engine};
use storages::{Storage, storages};

/// What a plan of Svod's became.
pub(crate) struct Translated {
    pub(crate) plan: Plan,
    /// The values of the plan's variables, in its order.
    pub(crate) variables: Vec<i64>,
    /// What each of them is.
    sources: Vec<Source>,
    /// The number that each op of Svod's has in the plan, if it runs there.
    numbers: Vec<Option<usize>>,
    /// What functions read when they run.
    values: Values,
    /// The memory that the plan runs over, kept for as long as it.
    _buffers: Vec<Buffer>,
}

/// What a variable of the plan is.
enum Source {
    /// A variable of Svod's that a run may choose.
    Chosen(String),
    /// The grid of the op of this number, which follows from its variables.
    Grid(usize),
}

/// The values of variables, for functions: of each kernel that is called by one, and those that
/// runs have chosen.
#[derive(Clone, Default)]
struct Values(Arc<Mutex<ValuesInner>>);

#[derive(Default)]
struct ValuesInner {
    kernels: HashMap<usize, Vec<i64>>,
    chosen: HashMap<String, i64>,
}

impl Values {
    fn with<T>(&self, f: impl FnOnce(&mut ValuesInner) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Translated {
    /// The number of an op of Svod's in the plan.
    pub(crate) fn number(&self, op: usize) -> Option<usize> {
        self.numbers[op]
    }

    /// Has variables that runs may choose take these values; the ops have theirs already.
    pub(crate) fn set_variables(
        &mut self,
        ops: &[PreparedOp],
        given: &HashMap<&str, i64>,
    ) -> Result<()> {
        let mut variables = self.variables.clone();
        for (value, source) in variables.iter_mut().zip(&self.sources) {
            match source {
                Source::Chosen(name) => {
                    if let Some(given) = given.get(&**name) {
                        *value = *given;
                    }
                }
                Source::Grid(op) => {
                    if let PreparedOp::CompiledProgram(kernel) = &ops[*op] {
                        *value = launch_size(kernel, &kernel.vals)?[0] as i64;
                    }
                }
            }
        }
        self.variables = variables;
        self.values.with(|values| {
            for (op, vals) in &mut values.kernels {
                if let PreparedOp::CompiledProgram(kernel) = &ops[*op] {
                    vals.clone_from(&kernel.vals);
                }
            }
            let given = given
                .iter()
                .map(|(name, value)| ((*name).to_owned(), *value));
            values.chosen.extend(given);
        });
        Ok(())
    }
}

/// The plan, and an instance over the buffers' memory.
pub(crate) fn translate(
    ops: &[PreparedOp],
    order: &[usize],
    buffers: &[Buffer],
) -> Result<(Translated, Instance)> {
    let mut making = Making {
        builder: PlanBuilder::new("svod"),
        buffers,
        storages: storages(ops, buffers)?,
        kernels: Vec::new(),
        known: HashMap::new(),
        chosen: HashMap::new(),
        variables: Vec::new(),
        sources: Vec::new(),
        values: Values::default(),
        turn: None,
    };
    if ops.iter().any(is_alone) {
        let turn = making.builder.bytes(Some("turn"), Role::Temp, 1);
        making.turn = Some(
            making
                .builder
                .whole(turn.map_err(refused)?)
                .map_err(refused)?,
        );
    }
    let mut lent = Vec::with_capacity(making.storages.len());
    for storage in making.storages.values_mut() {
        let name = format!("storage {}", storage.id);
        let role = match storage.written {
            true => Role::Output,
            false => Role::Input,
        };
        let number = making.builder.bytes(Some(&name), role, storage.bytes);
        storage.number = number.map_err(refused)?;
        lent.push((storage.number, storage.start));
    }
    let mut numbers = vec![None; ops.len()];
    for &op in order {
        numbers[op] = match &ops[op] {
            PreparedOp::CompiledProgram(kernel) => Some(making.kernel(op, kernel)?),
            PreparedOp::BufferCopy(copy) => Some(making.copy(copy)?),
            PreparedOp::BufferView(view) => making.view(view)?,
            PreparedOp::CustomFunction(custom) => Some(making.custom_function(custom)?),
        };
    }
    let Making {
        builder,
        kernels,
        variables,
        sources,
        values,
        ..
    } = making;
    let plan = builder.build().map_err(refused)?;
    // SAFETY: the plan's kernels take for `bool` what Svod's graph has as such, and a kernel of
    // Svod's writes 0 or 1 there before another reads it; and Svod checks what it gives to
    // variables, as the kernels' scalars do not.
    let executable = unsafe { Executable::new_unchecked(plan.clone(), kernels, []) };
    let executable = executable
        .map_err(refused)?
        .with_pool(engine()?.pool().clone());
    // SAFETY: each storage is a whole allocation of Svod's, which the clones of its buffers below
    // keep, so that none overlaps another; that nobody else uses it while the plan runs is what
    // Svod asks of whoever runs a plan.
    let instance = unsafe { executable.instance_over(lent) }.map_err(refused)?;
    let translated = Translated {
        plan,
        variables,
        sources,
        numbers,
        values,
        _buffers: buffers.to_vec(),
    };
    Ok((translated, instance))
}

/// A plan that is being made.
struct Making<'a> {
    builder: PlanBuilder,
    buffers: &'a [Buffer],
    storages: HashMap<BufferId, Storage>,
    kernels: Vec<Kernel>,
    /// The number of each kernel that is in the plan already, by the code's address.
    known: HashMap<*const Code, usize>,
    /// The variables that runs may choose, by name and first value.
    chosen: HashMap<(String, i64), Value>,
    variables: Vec<i64>,
    sources: Vec<Source>,
    values: Values,
    /// What functions touch that must not run beside each other, where there are such: those that
    /// run beside none write it, the rest read it.
    turn: Option<BufferRange>,
}

/// Whether an op is a program, or a function, that does not run beside others.
fn is_alone(op: &PreparedOp) -> bool {
    match op {
        PreparedOp::CompiledProgram(kernel) => {
            !kernel.kernel.host_parallel_safe && code_of(&*kernel.kernel.program).is_none()
        }
        PreparedOp::CustomFunction(_) => true,
        PreparedOp::BufferCopy(_) | PreparedOp::BufferView(_) => false,
    }
}

impl Making<'_> {
    /// A launch; or a call of the program, where the library will not launch it so.
    fn kernel(&mut self, op: usize, kernel: &PreparedKernel) -> Result<usize> {
        if let Some(code) = code_of(&*kernel.kernel.program) {
            // What does not compile is an error; what does not fit is left to the program.
            code.kernel()?;
            match self.launch(op, kernel, &code)? {
                Ok(number) => return Ok(number),
                Err(reason) => {
                    tracing::debug!(kernel = %kernel.kernel.entry_point, %reason, "called by Svod's rules");
                }
            }
        }
        let ptrs = kernel.buffer_ptrs.clone();
        let (values, called) = (self.values.clone(), kernel.clone());
        values.with(|values| values.kernels.insert(op, kernel.vals.clone()));
        self.function(
            &kernel.kernel.entry_point,
            &kernel.buffer_indices,
            |i| kernel.output_indices.contains(&i),
            !kernel.kernel.host_parallel_safe,
            move || {
                let id = called.id;
                let vals = values.with(|values| values.kernels.get(&op).cloned());
                let vals = vals.unwrap_or_default();
                let size = launch_size(&called, &vals)?;
                let ptrs = ptrs.iter();
                let ptrs: Vec<_> = ptrs
                    .map(|&p| std::ptr::with_exposed_provenance_mut(p))
                    .collect();
                // SAFETY: the buffers' addresses, in the kernel's order. The plan keeps them, and
                // has nothing else touch them meanwhile where the kernel writes.
                let done = unsafe {
                    let program = &called.kernel.program;
                    program.execute(&ptrs, &vals, Some(size), None)
                };
                done.map_err(|e| Error::execution(format!("kernel {id} failed: {e}")))
            },
        )
    }

    /// A launch, or why it cannot be one.
    fn launch(
        &mut self,
        op: usize,
        kernel: &PreparedKernel,
        code: &Arc<Code>,
    ) -> Result<std::result::Result<usize, String>> {
        let name = &kernel.kernel.entry_point;
        let mut args = Vec::with_capacity(kernel.buffer_indices.len());
        let mut params = code.signature.buffers();
        let mut misaligned = None;
        for (argument, &i) in kernel.buffer_indices.iter().enumerate() {
            let buffer = find(self.buffers, i, name)?;
            let param = params.next();
            let needed = param.map_or(0, BufferParam::bytes);
            if buffer.size() < needed {
                let size = buffer.size();
                return Err(Error::execution(format!(
                    "`{name}` may touch {needed} bytes of its argument {argument}, and is given a \
                     buffer of {size}"
                )));
            }
            let align = param.map_or(1, |param| param.align);
            let start = self.storages[&buffer.storage_id()].start.addr().get() + buffer.offset();
            if !start.is_multiple_of(align) {
                misaligned = Some(format!("its argument {argument} is no multiple of {align}"));
            }
            args.push(self.range(buffer));
        }
        if let Some(reason) = misaligned {
            return Ok(Err(reason));
        }
        let names = &kernel.kernel.var_names;
        if names.len() != kernel.vals.len() {
            let (names, vals) = (names.len(), kernel.vals.len());
            return Err(Error::execution(format!(
                "`{name}`: {vals} values for {names} variables"
            )));
        }
        let size = match constant_launch_size(kernel) {
            Some(size) => size,
            None => launch_size(kernel, &kernel.vals)?,
        };
        let grid = match grid(code, Some(size)) {
            Ok(grid) => grid,
            Err(reason) => return Ok(Err(reason)),
        };
        let number = match self.known.get(&Arc::as_ptr(code)) {
            Some(number) => *number,
            None => {
                let number = self.builder.kernel(name.clone(), code.signature.clone());
                self.kernels.push(code.kernel()?.clone());
                self.known.insert(Arc::as_ptr(code), number);
                number
            }
        };
        let mut scalars = Vec::new();
        for ((i, name), &value) in names.iter().enumerate().zip(&kernel.vals) {
            if Some(i) == code.index {
                continue;
            }
            let params = &mut code.signature.scalars();
            let Some(param) = params.find(|param| param.name == *name) else {
                return Ok(Err(format!("it has no scalar `{name}`")));
            };
            let value = match is_free(name, &kernel.fixedvars) {
                true => self.variable(name, value, param.dtype)?,
                false => Value::from(value),
            };
            scalars.push((&**name, value));
        }
        let grid = match constant_launch_size(kernel) {
            Some(_) => Value::from(grid as i64),
            None => {
                let max = i64::try_from(code.signature.max_grid()).unwrap_or(i64::MAX);
                let source = Source::Grid(op);
                self.new_variable(&format!("grid of op {op}"), grid as i64, (1, max), source)?
            }
        };
        let launched = self.builder.launch(number, &args, &scalars, grid);
        Ok(launched.map_err(|e| e.to_string()))
    }

    /// A variable of Svod's with what its first value is: two kernels may begin with different
    /// ones.
    fn variable(&mut self, name: &str, value: i64, dtype: DType) -> Result<Value> {
        if let Some(known) = self.chosen.get(&(name.to_owned(), value)) {
            return Ok(known.clone());
        }
        let bounds = match dtype {
            DType::I64 => (i64::MIN, i64::MAX),
            _ => (i32::MIN.into(), i32::MAX.into()),
        };
        let number = self.variables.len();
        let source = Source::Chosen(name.to_owned());
        let variable = self.new_variable(&format!("{name} ({number})"), value, bounds, source)?;
        self.chosen
            .insert((name.to_owned(), value), variable.clone());
        Ok(variable)
    }

    fn new_variable(
        &mut self,
        name: &str,
        value: i64,
        (min, max): (i64, i64),
        source: Source,
    ) -> Result<Value> {
        let id = self.builder.variable(name, min, max).map_err(refused)?;
        self.variables.push(value);
        self.sources.push(source);
        Ok(id.into())
    }

    /// A copy; or that of Svod's buffers, where they are of different sizes or overlap.
    fn copy(&mut self, copy: &PreparedCopy) -> Result<usize> {
        let name = format!("copy {}", copy.id);
        let &[to, from, ..] = &copy.buffer_indices[..] else {
            let reason = format!("`{name}` has {} buffers", copy.buffer_indices.len());
            return self.failing(&name, Error::execution(reason));
        };
        let (to, from) = match (
            find(self.buffers, to, &name),
            find(self.buffers, from, &name),
        ) {
            (Ok(to), Ok(from)) => (to, from),
            (Err(e), _) | (_, Err(e)) => return self.failing(&name, e),
        };
        if to.size() == from.size()
            && let Ok(number) = self.builder.copy(self.range(from), self.range(to))
        {
            return Ok(number);
        }
        let (to, from) = (to.clone(), from.clone());
        let what = name.clone();
        self.function(
            &name,
            &copy.buffer_indices[..2],
            |i| i == 0,
            false,
            move || {
                let copied = to.clone().copy_from(&from);
                copied.map_err(|e| Error::execution(format!("{what} failed: {e}")))
            },
        )
    }

    /// Nothing, where the part is the one that it should be.
    fn view(&mut self, view: &PreparedBufferView) -> Result<Option<usize>> {
        let name = format!("view {}", view.id);
        let wrong = match view.buffer_indices[..] {
            [part, whole, ..] => {
                let found = (
                    find(self.buffers, part, &name),
                    find(self.buffers, whole, &name),
                );
                match found {
                    (Ok(part), Ok(whole)) => wrong_part(&name, part, whole, view),
                    (Err(e), _) | (_, Err(e)) => Some(e),
                }
            }
            _ => {
                let count = view.buffer_indices.len();
                Some(Error::execution(format!("`{name}` has {count} buffers")))
            }
        };
        wrong.map(|e| self.failing(&name, e)).transpose()
    }

    fn custom_function(&mut self, custom: &PreparedCustomFunction) -> Result<usize> {
        let name = format!("custom function {}", custom.id);
        let mut buffers = Vec::with_capacity(custom.buffer_indices.len());
        for &i in &custom.buffer_indices {
            buffers.push(find(self.buffers, i, &name)?.clone());
        }
        let (values, custom) = (self.values.clone(), custom.clone());
        let what = name.clone();
        self.function(
            &name,
            &custom.buffer_indices.clone(),
            |_| true,
            true,
            move || {
                let mut vars = values.with(|values| values.chosen.clone());
                let fixed = custom.fixedvars.iter();
                vars.extend(fixed.map(|(name, value)| (name.clone(), *value)));
                let mut buffers = buffers.clone();
                let done = run_custom_function(&custom.kind, &custom.attrs, &mut buffers, &vars);
                done.map_err(|e| match e {
                    unsupported @ Error::Unsupported { .. } => unsupported,
                    other => Error::execution(format!("{what} failed: {other}")),
                })
            },
        )
    }

    /// An op that fails when it is its turn.
    fn failing(&mut self, name: &str, error: Error) -> Result<usize> {
        let reason = error.to_string();
        self.function(
            name,
            &[],
            |_| false,
            false,
            move || Err(Error::execution(&*reason)),
        )
    }

    /// A function that is given whole storages: what it uses of them, it knows itself. One that is
    /// `alone` runs beside no other function; kernels of this runtime, which use nothing but their
    /// buffers, may run beside it.
    fn function(
        &mut self,
        name: &str,
        buffers: &[usize],
        writes: impl Fn(usize) -> bool,
        alone: bool,
        function: impl Fn() -> Result<()> + Send + Sync + 'static,
    ) -> Result<usize> {
        let mut args: Vec<HostArg> = Vec::new();
        for (i, &buffer) in buffers.iter().enumerate() {
            let buffer = find(self.buffers, buffer, name)?;
            let storage = &self.storages[&buffer.storage_id()];
            let whole = self.builder.whole(storage.number).map_err(refused)?;
            let arg = match writes(i) {
                true => whole.read_write(),
                false => whole.read(),
            };
            match args.iter_mut().find(|known| known.range == whole) {
                Some(known) if writes(i) => *known = arg,
                Some(_) => {}
                None => args.push(arg),
            }
        }
        args.extend(self.turn.map(|turn| match alone {
            true => turn.read_write(),
            false => turn.read(),
        }));
        let host = self.builder.host(name, &args, move |_| {
            function().map_err(|e| Box::new(e) as HostError)
        });
        host.map_err(refused)
    }

    fn range(&self, buffer: &Buffer) -> BufferRange {
        BufferRange {
            buffer: self.storages[&buffer.storage_id()].number,
            offset: buffer.offset(),
            bytes: buffer.size(),
        }
    }
}

/// Why a part is not the one of the buffer that it is said to be.
fn wrong_part(
    name: &str,
    part: &Buffer,
    whole: &Buffer,
    view: &PreparedBufferView,
) -> Option<Error> {
    let offset = whole.offset() + view.byte_offset;
    let is_it = part.storage_id() == whole.storage_id()
        && part.offset() == offset
        && part.size() == view.byte_size;
    (!is_it).then(|| {
        Error::execution(format!(
            "`{name}` should be {} bytes from byte {offset} of storage {}, and is {} bytes from \
             byte {} of storage {}",
            view.byte_size,
            whole.storage_id().0,
            part.size(),
            part.offset(),
            part.storage_id().0
        ))
    })
}

/// The grid of a kernel for these values of its variables.
fn launch_size(kernel: &PreparedKernel, vals: &[i64]) -> Result<[usize; 3]> {
    let names = kernel.kernel.var_names.iter().map(String::as_str);
    let mut vars: HashMap<&str, i64> = names.zip(vals.iter().copied()).collect();
    let fixed = kernel.fixedvars.iter();
    vars.extend(fixed.map(|(name, value)| (name.as_str(), *value)));
    resolve(kernel, &vars).map_err(|e| {
        let name = &kernel.kernel.entry_point;
        Error::execution(format!("the grid of `{name}`: {e}"))
    })
}

/// The grid of a kernel, where it is the same for all values.
pub(crate) fn constant_launch_size(kernel: &PreparedKernel) -> Option<[usize; 3]> {
    resolve(kernel, &HashMap::new()).ok()
}

fn resolve(kernel: &PreparedKernel, vars: &HashMap<&str, i64>) -> svod_device::Result<[usize; 3]> {
    let kernel = &kernel.kernel;
    let sizes = (&kernel.global_size, kernel.local_size.as_ref());
    Ok(ProgramSpec::resolve_launch_dims(sizes.0, sizes.1, vars)?.global_size)
}

fn refused(error: engine::Error) -> Error {
    Error::execution(error.to_string())
}
