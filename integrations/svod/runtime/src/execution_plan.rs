//! Plans that Svod prepares once and runs many times.
//!
//! The builder takes what Svod hands over: buffers, ops, what each op waits for. [`build`]
//! makes a plan of the library of it, over the memory that the buffers have, and a run is a
//! run of that plan: one wake of the threads, calls that are prepared, ops side by side where
//! they touch different bytes.
//!
//! [`build`]: ExecutionPlanBuilder::build

mod prepared;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use engine::plan::{Instance, Run, Span, Trace};
use svod_device::Buffer;
use svod_dtype::DeviceSpec;

use crate::kernel_cache::CachedKernel;
use crate::order::by_levels;
use crate::profiler::KernelProfile;
use crate::signature::GRID_INDEX;
use crate::translation::{Translated, translate};
use crate::{Error, Result};
pub use prepared::{
    PreparedBufferView, PreparedCopy, PreparedCustomFunction, PreparedKernel, PreparedOp,
    RuntimeVar, collect_runtime_vars,
};

/// A plan that is prepared: it runs any number of times, one run at a time.
pub struct ExecutionPlan {
    // Runs the plan. The memory is that of `buffers`, of which the translation keeps clones: both
    // go after it.
    instance: Mutex<Instance>,
    /// The process that built it.
    process: u32,
    /// As Svod handed them over.
    ops: Vec<PreparedOp>,
    /// Their numbers, in an order in which they may run one after another.
    order: Vec<usize>,
    buffers: Vec<Buffer>,
    ast_to_buffer: HashMap<u64, usize>,
    outputs: Vec<usize>,
    device: DeviceSpec,
    alias_ids: Vec<u64>,
    translated: Translated,
}

impl ExecutionPlan {
    /// The first output.
    #[must_use]
    pub fn output_buffer(&self) -> Option<&Buffer> {
        self.output_buffer_at(0)
    }

    /// An output, in the order of what was asked for.
    #[must_use]
    pub fn output_buffer_at(&self, position: usize) -> Option<&Buffer> {
        self.buffers.get(*self.outputs.get(position)?)
    }

    /// All outputs, in the order of what was asked for.
    #[must_use]
    pub fn output_buffers(&self) -> Vec<&Buffer> {
        let outputs = self.outputs.iter();
        outputs.filter_map(|&i| self.buffers.get(i)).collect()
    }

    /// How many outputs there are.
    #[must_use]
    pub fn num_outputs(&self) -> usize {
        self.outputs.len()
    }

    /// The number of the first output's buffer.
    ///
    /// # Panics
    ///
    /// Where the plan has no output.
    #[must_use]
    pub fn output_buffer_idx(&self) -> usize {
        self.outputs[0]
    }

    /// The buffer of a node of the graph.
    #[must_use]
    pub fn buffer(&self, ast_id: u64) -> Option<&Buffer> {
        self.buffers.get(*self.ast_to_buffer.get(&ast_id)?)
    }

    /// The buffer of a node of the graph, to copy data into. To put another buffer in its place
    /// changes nothing for the plan.
    pub fn buffer_mut_by_id(&mut self, ast_id: u64) -> Option<&mut Buffer> {
        self.buffers.get_mut(*self.ast_to_buffer.get(&ast_id)?)
    }

    /// The device that most of the plan runs on.
    #[must_use]
    pub fn device(&self) -> &DeviceSpec {
        &self.device
    }

    /// All buffers.
    #[must_use]
    pub fn buffers(&self) -> &[Buffer] {
        &self.buffers
    }

    /// All buffers, to copy data into, as [`buffer_mut_by_id`](Self::buffer_mut_by_id) says.
    pub fn buffers_mut(&mut self) -> &mut [Buffer] {
        &mut self.buffers
    }

    /// A buffer by its number, to copy data into.
    pub fn buffer_at_mut(&mut self, index: usize) -> Option<&mut Buffer> {
        self.buffers.get_mut(index)
    }

    /// The kernels with what they are called with, as Svod handed them over.
    #[must_use]
    pub fn prepared_kernels(&self) -> Vec<&PreparedKernel> {
        self.kernel_ops().collect()
    }

    fn kernel_ops(&self) -> impl Iterator<Item = &PreparedKernel> {
        self.ops.iter().filter_map(|op| match op {
            PreparedOp::CompiledProgram(kernel) => Some(kernel),
            _ => None,
        })
    }

    /// The ops, as Svod handed them over; [`order`](Self::order) is in which they may run.
    #[must_use]
    pub fn prepared_ops(&self) -> &[PreparedOp] {
        &self.ops
    }

    /// The numbers of the ops in an order in which they may run one after another.
    #[must_use]
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// The kernels, as Svod handed them over.
    pub fn kernels(&self) -> impl Iterator<Item = &CachedKernel> {
        self.kernel_ops().map(|kernel| &*kernel.kernel)
    }

    /// Which buffer each node of the graph has.
    #[must_use]
    pub fn ast_to_buffer_map(&self) -> &HashMap<u64, usize> {
        &self.ast_to_buffer
    }

    /// Runs the plan.
    ///
    /// # Errors
    ///
    /// [`Error::Execution`] where an op fails; nothing that waits for it has run. In a process that
    /// was forked from the one that built the plan, also where another thread runs it: it may be
    /// one that the fork has left behind.
    pub fn execute(&self) -> Result<()> {
        self.run(&mut *self.instance()?, None)
    }

    /// Runs the plan and says what each kernel took, in the order of their run.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    pub fn execute_profiled(&self) -> Result<Vec<KernelProfile>> {
        let mut trace = Trace::new();
        self.run(&mut *self.instance()?, Some(&mut trace))?;
        let mut times = vec![None; self.translated.plan.ops().len()];
        for Span { op, start, end, .. } in trace.spans() {
            let (first, last) = times[op].get_or_insert((start, end));
            (*first, *last) = (start.min(*first), end.max(*last));
        }
        let took = |op| {
            let times = self.translated.number(op).and_then(|number| times[number]);
            times.map_or(Duration::ZERO, |(first, last)| last - first)
        };
        let kernels = self.order.iter().filter_map(|&op| match &self.ops[op] {
            PreparedOp::CompiledProgram(kernel) => Some(KernelProfile {
                kernel: Arc::clone(&kernel.kernel),
                device: kernel.device.clone(),
                num_buffers: kernel.buffer_indices.len(),
                elapsed: took(op),
            }),
            _ => None,
        });
        Ok(kernels.collect())
    }

    /// What runs the plan, to be had for one run at a time.
    pub(crate) fn instance(&self) -> Result<MutexGuard<'_, Instance>> {
        // A run that panicked leaves what a run that failed does.
        let instance = match self.instance.try_lock() {
            Ok(instance) => instance,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Whoever forked has one of all threads.
            Err(TryLockError::WouldBlock) if std::process::id() != self.process => {
                return Err(Error::execution(
                    "this process was forked from the one that built the plan, and another thread \
                     runs it, which may have been left behind: build the plan in this process",
                ));
            }
            Err(TryLockError::WouldBlock) => {
                let waited = self.instance.lock();
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        };
        Ok(instance)
    }

    /// Runs the plan once.
    pub(crate) fn run(&self, instance: &mut Instance, trace: Option<&mut Trace>) -> Result<()> {
        let run = Run {
            variables: &self.translated.variables,
            trace,
            ..Run::default()
        };
        instance.run_with(run).map_err(failed)
    }

    /// Runs the plan with other values for some variables; the rest keep theirs. Those that
    /// are fixed stay as they are.
    ///
    /// # Errors
    ///
    /// [`Error::Execution`] where a value is out of its bounds; nothing has run then, and
    /// nothing is changed. And as [`execute`](Self::execute).
    pub fn execute_with_vars(&mut self, var_vals: &[(&str, i64)]) -> Result<()> {
        self.set_variables(var_vals)?;
        self.execute()
    }

    /// As [`execute_with_vars`](Self::execute_with_vars), and says what each kernel took.
    ///
    /// # Errors
    ///
    /// As [`execute_with_vars`](Self::execute_with_vars).
    pub fn execute_with_vars_profiled(
        &mut self,
        var_vals: &[(&str, i64)],
    ) -> Result<Vec<KernelProfile>> {
        self.set_variables(var_vals)?;
        self.execute_profiled()
    }

    fn set_variables(&mut self, var_vals: &[(&str, i64)]) -> Result<()> {
        let given: HashMap<&str, i64> = var_vals.iter().copied().collect();
        for (vars, fixed) in self.ops.iter().filter_map(PreparedOp::variables) {
            for var in vars.iter().filter(|var| is_free(&var.name, fixed)) {
                let RuntimeVar {
                    name,
                    min_val,
                    max_val,
                } = var;
                if let Some(value) = given.get(&**name)
                    && !(min_val..=max_val).contains(&value)
                {
                    return Err(Error::execution(format!(
                        "the variable {name} is {value}, outside its bounds {min_val} to {max_val}"
                    )));
                }
            }
        }
        for op in &mut self.ops {
            let PreparedOp::CompiledProgram(kernel) = op else {
                continue;
            };
            let names = kernel.kernel.var_names.iter();
            for (name, value) in names.zip(&mut kernel.vals) {
                if let Some(given) = given.get(&**name)
                    && is_free(name, &kernel.fixedvars)
                {
                    *value = *given;
                }
            }
        }
        self.translated.set_variables(&self.ops, &given)
    }

    /// Tells `remove_fn` the ids of all nodes whose buffers are not outputs, and of aliases: what
    /// a registry of buffers may forget.
    pub fn release_intermediate_buffers<F>(&self, remove_fn: F)
    where
        F: Fn(u64),
    {
        let kept: HashSet<u64> = self.output_buffers().iter().map(|b| b.id().0).collect();
        self.release(remove_fn, |buffer| kept.contains(&buffer.id().0));
    }

    /// Tells `remove_fn` the ids of all nodes that have buffers, outputs too, and of aliases.
    pub fn release_all_buffers<F>(&self, remove_fn: F)
    where
        F: Fn(u64),
    {
        self.release(remove_fn, |_| false);
    }

    fn release(&self, remove: impl Fn(u64), keep: impl Fn(&Buffer) -> bool) {
        for (id, buffer) in &self.ast_to_buffer {
            if !self.buffers.get(*buffer).is_some_and(&keep) {
                remove(*id);
            }
        }
        self.alias_ids.iter().copied().for_each(remove);
    }
}

/// Whether a run may choose a variable.
pub(crate) fn is_free(name: &str, fixed: &HashMap<String, i64>) -> bool {
    name != GRID_INDEX && !fixed.contains_key(name)
}

/// Why a run failed: what an op of this crate's failed with, or the library's error.
fn failed(error: engine::Error) -> Error {
    match error {
        engine::Error::Host { source, .. } => match source.downcast::<Error>() {
            Ok(error) => *error,
            Err(source) => Error::execution(source.to_string()),
        },
        other => Error::execution(other.to_string()),
    }
}

impl fmt::Debug for ExecutionPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutionPlan")
            .field("ops", &self.ops.len())
            .field("kernels", &self.kernel_ops().count())
            .field("buffers", &self.buffers.len())
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

/// A plan that is being made.
pub struct ExecutionPlanBuilder {
    ops: Vec<PreparedOp>,
    instance_dependencies: Vec<Vec<usize>>,
    buffers: Vec<Buffer>,
    ast_to_buffer: HashMap<u64, usize>,
    outputs: Vec<usize>,
    device: DeviceSpec,
    alias_ids: Vec<u64>,
}

impl ExecutionPlanBuilder {
    /// An empty plan for a device.
    #[must_use]
    pub fn new(device: DeviceSpec) -> Self {
        Self {
            ops: Vec::new(),
            instance_dependencies: Vec::new(),
            buffers: Vec::new(),
            ast_to_buffer: HashMap::new(),
            outputs: Vec::new(),
            device,
            alias_ids: Vec::new(),
        }
    }

    /// Notes ids that a registry may forget when the plan is released.
    pub fn add_alias_ids(&mut self, ids: impl IntoIterator<Item = u64>) {
        self.alias_ids.extend(ids);
    }

    /// Adds the buffer of a node, and returns its number.
    pub fn add_buffer(&mut self, ast_id: u64, buffer: Buffer) -> usize {
        let number = self.buffers.len();
        self.buffers.push(buffer);
        self.ast_to_buffer.insert(ast_id, number);
        number
    }

    /// Gives a node a buffer that was added already.
    pub fn map_buffer(&mut self, ast_id: u64, idx: usize) {
        self.ast_to_buffer.insert(ast_id, idx);
    }

    /// Puts another buffer in a buffer's place.
    ///
    /// # Panics
    ///
    /// Where there is no buffer of that number.
    pub fn replace_buffer(&mut self, idx: usize, buffer: Buffer) {
        self.buffers[idx] = buffer;
    }

    /// Says which buffer is the plan's output.
    pub fn set_output_buffer(&mut self, idx: usize) {
        self.outputs = vec![idx];
    }

    /// Says which buffers are the plan's outputs, in order.
    pub fn set_output_buffers(&mut self, indices: Vec<usize>) {
        self.outputs = indices;
    }

    /// Adds a kernel.
    pub fn add_kernel(&mut self, kernel: PreparedKernel) {
        self.add_op(PreparedOp::CompiledProgram(kernel));
    }

    /// Adds an op.
    pub fn add_op(&mut self, op: PreparedOp) {
        self.add_op_with_instance_dependencies(op, Vec::new());
    }

    /// Adds an op that comes after those of these numbers, beside those that it names itself.
    pub fn add_op_with_instance_dependencies(
        &mut self,
        op: PreparedOp,
        instance_dependencies: Vec<usize>,
    ) {
        self.ops.push(op);
        self.instance_dependencies.push(instance_dependencies);
    }

    /// The plan. Kernels that are still being compiled are waited for.
    ///
    /// # Errors
    ///
    /// [`Error::JitCompilation`] where a kernel does not compile; [`Error::Execution`] where
    /// an op names a buffer or an op that there is not, where a kernel has no output, where
    /// ops wait for each other in a circle, and where a plan with buffers has no output.
    pub fn build(mut self) -> Result<ExecutionPlan> {
        for op in &mut self.ops {
            if let PreparedOp::CompiledProgram(kernel) = op {
                fill_in(kernel, &self.buffers)?;
            }
        }
        if self.outputs.is_empty() && !self.buffers.is_empty() {
            return Err(Error::execution("the plan was not told its outputs"));
        }
        let ids: Vec<_> = self.ops.iter().map(PreparedOp::id).collect();
        let deps: Vec<_> = self.ops.iter().map(PreparedOp::dependencies).collect();
        let order = by_levels(&ids, &deps, &self.instance_dependencies)?;
        let (translated, instance) = translate(&self.ops, &order, &self.buffers)?;
        Ok(ExecutionPlan {
            instance: Mutex::new(instance),
            process: std::process::id(),
            ops: self.ops,
            order,
            buffers: self.buffers,
            ast_to_buffer: self.ast_to_buffer,
            outputs: self.outputs,
            device: self.device,
            alias_ids: self.alias_ids,
            translated,
        })
    }
}

/// Writes down where a kernel's buffers are, which must be allocated.
fn fill_in(kernel: &mut PreparedKernel, buffers: &[Buffer]) -> Result<()> {
    let name = &kernel.kernel.entry_point;
    if kernel.output_indices.is_empty() {
        return Err(Error::execution(format!("`{name}` writes nothing")));
    }
    let count = kernel.buffer_indices.len();
    if let Some(i) = kernel.output_indices.iter().find(|&&i| i >= count) {
        let reason = format!("`{name}` is said to write its buffer {i}, of {count}");
        return Err(Error::execution(reason));
    }
    kernel.buffer_ptrs.clear();
    kernel.buffer_ids.clear();
    for &i in &kernel.buffer_indices {
        let buffer = find(buffers, i, name)?;
        // SAFETY: it is allocated, or `find` would have failed. The pointer is used while the
        // plan keeps the buffer.
        let start = unsafe { buffer.as_raw_ptr() };
        kernel.buffer_ptrs.push(start.expose_provenance());
        kernel.buffer_ids.push(buffer.id());
    }
    Ok(())
}

/// A buffer of the plan's, allocated, that an op uses.
pub(crate) fn find<'b>(buffers: &'b [Buffer], i: usize, op: &str) -> Result<&'b Buffer> {
    let buffer = buffers.get(i).ok_or_else(|| {
        let count = buffers.len();
        Error::execution(format!("`{op}` uses buffer {i}, and the plan has {count}"))
    })?;
    buffer.ensure_allocated()?;
    Ok(buffer)
}
