//! A prepared plan as a plan bundle, which runs with no Svod in the process.
//!
//! What Svod worked out, schedule, kernels, memory, is all in the plan, so that a program that
//! loads the bundle has none of it to do again. Storages become the bundle's buffers: what the
//! caller names as inputs, outputs and states by these names, what no op writes a constant with
//! what it holds now, the rest scratch.
//!
//! What memory lives on from one run to the next, a plan of Svod's does not say. So a bundle is
//! run, with two fillings of its scratch, before it is handed over: one that lacks what its plan
//! finds in memory gives other bits.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use engine::bundle::npy::Array;
use engine::bundle::{Bundle, BundleWriter, Recording, Tolerance, compare};
use engine::memory::Constant;
use engine::plan::{BufferRange, PlanBuilder, Role, Value, VariableId};
use engine::signature::{Number, Param};
use engine::{Bounds, DType, Scalar, Signature, View};
use svod_device::{Buffer, BufferId};

use crate::code::Code;
use crate::execution_plan::{
    ExecutionPlan, PreparedCopy, PreparedKernel, PreparedOp, RuntimeVar, find, is_free,
};
use crate::program::code_of;
use crate::translation::constant_launch_size;
use crate::{Error, Result, engine, signature};

/// What a bundle is to call things.
#[derive(Debug)]
pub struct Names<'a> {
    /// The model.
    pub model: &'a str,
    /// The inputs: buffers that runs are given anew. Each must be all of its storage.
    pub inputs: &'a [Named<'a>],
    /// The states: buffers that begin with what they hold now, and in which a run finds what the
    /// one before has left. Each must be all of its storage. A part of a state may be an output.
    pub states: &'a [Named<'a>],
    /// The outputs: buffers of the plan's, in any order.
    pub outputs: &'a [Named<'a>],
}

/// A buffer with its name and its shape.
#[derive(Debug)]
pub struct Named<'a> {
    /// The name.
    pub name: &'a str,
    /// The buffer.
    pub buffer: &'a Buffer,
    /// The shape, in elements.
    pub shape: &'a [usize],
}

impl ExecutionPlan {
    /// Writes the plan as a bundle at `path`, with what its constants and states hold now, and
    /// with one recorded test: what its inputs hold now, and what a run makes of them, which this
    /// does. The bundle is then run twice, with scratch that holds different things, and stays
    /// only if each run has the bits of the plan's.
    ///
    /// Nothing else may write the plan's memory meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Execution`], naming the op or the buffer: an op that a bundle cannot say, such
    /// as a custom function, a program of another device's or a grid that depends on variables;
    /// a buffer that is read before any op writes it, and that no name makes an input or a state;
    /// an input that no op reads, or one that is written; two names for one storage; a run of the
    /// bundle that differs from the plan's; what [`PlanBuilder`] and [`BundleWriter`] refuse; and
    /// where the run fails, or the folder cannot be written.
    pub fn capture(&self, names: &Names<'_>, path: impl AsRef<Path>) -> Result<()> {
        // No run until the bundle is there.
        let mut instance = self.instance()?;
        let mut capture = Capture {
            plan: self,
            builder: PlanBuilder::new(names.model),
            storages: HashMap::new(),
            contents: Vec::new(),
            kernels: HashMap::new(),
            sources: Vec::new(),
            variables: HashMap::new(),
            chosen: Vec::new(),
        };
        capture.declare(names)?;
        for &op in self.order() {
            match &self.prepared_ops()[op] {
                PreparedOp::CompiledProgram(kernel) => capture.kernel(kernel)?,
                PreparedOp::BufferCopy(copy) => capture.copy(copy)?,
                // It is a part of a buffer, which its users know.
                PreparedOp::BufferView(_) => {}
                PreparedOp::CustomFunction(custom) => {
                    let (kind, id) = (&custom.kind, custom.id);
                    return Err(Error::execution(format!(
                        "op {id} is the custom function {kind:?}, which a bundle cannot hold"
                    )));
                }
            }
        }
        for output in names.outputs {
            let range = capture.range(output.buffer)?;
            let (name, dtype) = (output.name, element(output.buffer)?);
            let result =
                capture
                    .builder
                    .result(name, range.buffer, range.offset, dtype, output.shape);
            result.map_err(refused)?;
        }
        let Capture {
            builder,
            contents,
            sources,
            chosen,
            ..
        } = capture;
        let plan = builder.build().map_err(refused)?;
        if let Some(read) = plan.unwritten_reads().first() {
            return Err(Error::execution(format!(
                "{} is read before it is written: name it as an input or as a state: {read:?}",
                plan.buffer_label(read.range.buffer)
            )));
        }

        let mut writer = BundleWriter::new(&plan);
        writer.producer("svod 0.1.0-alpha.3");
        for (kernel, code) in sources.iter().enumerate() {
            writer
                .source(kernel, code.source.clone())
                .map_err(refused)?;
        }
        for (buffer, content) in contents {
            writer.contents(buffer, content).map_err(refused)?;
        }
        let record = |named: &Named<'_>| Ok((named.name.to_owned(), array(named)?.into()));
        let inputs = names.inputs.iter().map(record).collect::<Result<_>>()?;
        self.run(&mut instance, None)?;
        let path = path.as_ref();
        writer.test(Recording {
            variables: chosen,
            inputs,
            outputs: names.outputs.iter().map(record).collect::<Result<_>>()?,
            tolerance: Tolerance {
                rtol: 1e-4,
                atol: 1e-5,
            },
            truth: None,
        });
        writer.write(path).map_err(refused)?;
        let checked = check(path, names.states);
        if checked.is_err() {
            // It stands where nothing was; that it cannot be removed is not what went wrong.
            let _ = std::fs::remove_dir_all(path);
        }
        checked
    }
}

/// Whether the bundle, whose plan has just run, gives the same bits, whatever scratch holds.
fn check(path: &Path, states: &[Named<'_>]) -> Result<()> {
    let bundle = Bundle::open(path).map_err(refused)?;
    // SAFETY: its kernels are those that the plan has run, of which Svod claims that they keep to
    // their signatures. Its files are written once.
    let executable = unsafe { bundle.load(engine()?, &|_| ()) }.map_err(refused)?;
    let instance = || executable.instance().map_err(refused);
    let (mut first, mut second) = (instance()?, instance()?);
    for test in bundle.tests() {
        let report = bundle.run_test_filled(test, &mut first, &mut second);
        let report = report.map_err(refused)?;
        let mut all = report.outputs.iter().chain(&report.unsteady);
        if let Some(output) = all.find(|output| !output.difference.is_exact()) {
            return Err(differs("output", &output.name));
        }
    }
    for state in states {
        let expected = array(state)?;
        for instance in [&first, &second] {
            let left = instance.state(state.name).map_err(refused)?;
            let difference = compare(left, expected.elements.as_view(), Tolerance::default());
            if !difference.map_err(refused)?.is_exact() {
                return Err(differs("state", state.name));
            }
        }
    }
    Ok(())
}

/// Why a bundle is of no use.
fn differs(what: &str, name: &str) -> Error {
    Error::execution(format!(
        "a run of the bundle has left other bits in the {what} `{name}` than the plan: some op \
         finds, or leaves, what memory held before the run; name that memory as a state"
    ))
}

struct Capture<'a> {
    plan: &'a ExecutionPlan,
    builder: PlanBuilder,
    /// The bundle's buffer for each storage.
    storages: HashMap<BufferId, usize>,
    contents: Vec<(usize, Constant)>,
    /// The number of each kernel, by the address of its code.
    kernels: HashMap<*const Code, usize>,
    sources: Vec<Arc<Code>>,
    variables: HashMap<String, VariableId>,
    /// What the variables are now.
    chosen: Vec<(String, i64)>,
}

impl Capture<'_> {
    /// Declares a buffer for each storage.
    fn declare(&mut self, names: &Names<'_>) -> Result<()> {
        let plan = self.plan;
        let written = written(plan);
        let types = types(plan)?;
        let outputs = names.outputs.iter().map(|o| o.buffer.storage_id());
        let used: HashSet<BufferId> = used(plan).chain(outputs).collect();
        for input in names.inputs {
            let (name, storage) = (input.name, input.buffer.storage_id());
            if written.contains(&storage) {
                return Err(Error::execution(format!(
                    "the plan writes its input `{name}`: name it as a state"
                )));
            }
            if !used.contains(&storage) {
                return Err(Error::execution(format!(
                    "no op reads the input `{name}`: what it held when the graph was made is in \
                     the plan, or nothing depends on it; do not name it as an input"
                )));
            }
            self.declare_named(input, Role::Input)?;
        }
        for state in names.states {
            let number = self.declare_named(state, Role::State)?;
            self.contents.push((number, array(state)?.elements.into()));
        }
        for buffer in plan.buffers() {
            let storage = buffer.storage_id();
            if self.storages.contains_key(&storage) {
                continue;
            }
            let outputs = names.outputs.iter();
            let outputs = outputs.filter(|output| output.buffer.storage_id() == storage);
            let outputs: Vec<_> = outputs.collect();
            let role = match (&outputs[..], written.contains(&storage)) {
                ([_, ..], _) => Role::Output,
                ([], true) => Role::Temp,
                ([], false) => Role::Constant,
            };
            self.declare_whole(buffer, role, &types[&storage], &outputs)?;
        }
        Ok(())
    }

    /// Declares all of a buffer's storage, in which these outputs lie.
    fn declare_whole(
        &mut self,
        buffer: &Buffer,
        role: Role,
        types: &[DType],
        outputs: &[&Named<'_>],
    ) -> Result<()> {
        let (storage, total) = (buffer.storage_id(), buffer.total_size());
        // Elements where all that use it agree on their type, bytes otherwise: the memory planner
        // puts any types on top of each other, and its buffers are of bytes.
        let one = match types {
            [one] => Some(*one),
            [] => Some(element(buffer)?),
            _ => None,
        };
        let holds = |dtype| {
            outputs
                .iter()
                .all(|o| element(o.buffer).is_ok_and(|d| d == dtype))
        };
        let one = one.filter(|dtype| holds(*dtype) && total.is_multiple_of(dtype.size()));
        let name = match outputs {
            [output, ..] => output.name.to_owned(),
            [] => format!("storage {}", storage.0),
        };
        let number = match one {
            Some(dtype) => {
                let shape = [total / dtype.size()];
                self.builder.buffer(Some(&name), role, dtype, &shape)
            }
            None => self.builder.bytes(Some(&name), role, total),
        };
        let number = number.map_err(refused)?;
        if role == Role::Constant {
            let content = elements(buffer, 0, one.unwrap_or(DType::U8), total)?;
            self.contents.push((number, content.into()));
        }
        self.storages.insert(storage, number);
        Ok(())
    }

    /// Declares a storage that is known by a name, and all of which is named.
    fn declare_named(&mut self, named: &Named<'_>, role: Role) -> Result<usize> {
        let (name, buffer, kind) = (named.name, named.buffer, role.name());
        if buffer.offset() != 0 || buffer.size() != buffer.total_size() {
            return Err(Error::execution(format!(
                "the {kind} `{name}` is a part of a storage: give it one of its own"
            )));
        }
        let number = self
            .builder
            .buffer(Some(name), role, element(buffer)?, named.shape)
            .map_err(refused)?;
        match self.storages.insert(buffer.storage_id(), number) {
            None => Ok(number),
            Some(_) => Err(Error::execution(format!(
                "the {kind} `{name}` lies where another that is named does: name it once"
            ))),
        }
    }

    fn range(&self, buffer: &Buffer) -> Result<BufferRange> {
        let number = self.storages.get(&buffer.storage_id()).ok_or_else(|| {
            let storage = buffer.storage_id().0;
            Error::execution(format!("storage {storage} is none of the plan's"))
        })?;
        Ok(BufferRange {
            buffer: *number,
            offset: buffer.offset(),
            bytes: buffer.size(),
        })
    }

    fn copy(&mut self, copy: &PreparedCopy) -> Result<()> {
        let name = format!("copy {}", copy.id);
        let &[to, from, ..] = &copy.buffer_indices[..] else {
            return Err(Error::execution(format!("`{name}` has too few buffers")));
        };
        let buffers = self.plan.buffers();
        let from = self.range(find(buffers, from, &name)?)?;
        let to = self.range(find(buffers, to, &name)?)?;
        self.builder.copy(from, to).map_err(refused)?;
        Ok(())
    }

    fn kernel(&mut self, kernel: &PreparedKernel) -> Result<()> {
        let name = &kernel.kernel.entry_point;
        let refuse = |reason: &str| Err(Error::execution(format!("kernel `{name}`: {reason}")));
        let Some(code) = code_of(&*kernel.kernel.program) else {
            return refuse("its program is none of this runtime's");
        };
        let Some([grid, 1, 1]) = constant_launch_size(kernel) else {
            return refuse("its grid depends on variables, or is no row");
        };
        let number = match self.kernels.get(&Arc::as_ptr(&code)) {
            Some(number) => *number,
            None => {
                let bounded = bounded(&code.signature, &kernel.runtime_vars)?;
                let number = self.builder.kernel(name.clone(), bounded);
                self.kernels.insert(Arc::as_ptr(&code), number);
                self.sources.push(Arc::clone(&code));
                number
            }
        };
        let buffers = kernel.buffer_indices.iter();
        let args = buffers.map(|&i| self.range(find(self.plan.buffers(), i, name)?));
        let args = args.collect::<Result<Vec<_>>>()?;
        let mut scalars = Vec::new();
        let names = kernel.kernel.var_names.iter().enumerate();
        for ((i, name), &value) in names.zip(&kernel.vals) {
            if Some(i) != code.index {
                let value = match is_free(name, &kernel.fixedvars) {
                    true => self.variable(name, value, &kernel.runtime_vars)?,
                    false => Value::from(value),
                };
                scalars.push((name.as_str(), value));
            }
        }
        let grid = grid as i64;
        self.builder
            .launch(number, &args, &scalars, grid)
            .map_err(refused)?;
        Ok(())
    }

    fn variable(&mut self, name: &str, value: i64, vars: &[RuntimeVar]) -> Result<Value> {
        const SAY: &str = "bind it, or run the plan with execute_with_vars first";
        if let Some(known) = self.variables.get(name) {
            let chosen = self.chosen.iter().find(|(n, _)| n == name);
            if let Some((_, other)) = chosen.filter(|(_, other)| *other != value) {
                return Err(Error::execution(format!(
                    "the variable `{name}` is {other} for one kernel and {value} for another: {SAY}"
                )));
            }
            return Ok((*known).into());
        }
        let var = vars.iter().find(|var| var.name == name);
        let var = var.ok_or_else(|| Error::execution(format!("`{name}` has no bounds")))?;
        let (min, max) = (var.min_val, var.max_val);
        if !(min..=max).contains(&value) {
            return Err(Error::execution(format!(
                "the variable `{name}` is {value}, outside its bounds {min} to {max}: {SAY}"
            )));
        }
        let id = self.builder.variable(name, min, max).map_err(refused)?;
        self.variables.insert(name.to_owned(), id);
        self.chosen.push((name.to_owned(), value));
        Ok(id.into())
    }
}

/// The storages that some op uses, other than to give a part of one a name.
fn used(plan: &ExecutionPlan) -> impl Iterator<Item = BufferId> {
    let ops = plan.prepared_ops().iter();
    let buffers = ops.flat_map(|op| match op {
        PreparedOp::CompiledProgram(kernel) => &kernel.buffer_indices[..],
        PreparedOp::BufferCopy(copy) => &copy.buffer_indices,
        PreparedOp::CustomFunction(custom) => &custom.buffer_indices,
        PreparedOp::BufferView(_) => &[],
    });
    let buffers = buffers.filter_map(|&i| plan.buffers().get(i));
    buffers.map(Buffer::storage_id)
}

/// The storages that some op writes.
fn written(plan: &ExecutionPlan) -> Vec<BufferId> {
    let ops = plan.prepared_ops().iter();
    let buffers = ops.flat_map(|op| op.written());
    let buffers = buffers.filter_map(|i| plan.buffers().get(i));
    buffers.map(Buffer::storage_id).collect()
}

/// As what the kernels take each storage, each type once.
fn types(plan: &ExecutionPlan) -> Result<HashMap<BufferId, Vec<DType>>> {
    let storages = plan.buffers().iter().map(|b| (b.storage_id(), Vec::new()));
    let mut types: HashMap<_, Vec<DType>> = storages.collect();
    for kernel in plan.prepared_kernels() {
        let Some(code) = code_of(&*kernel.kernel.program) else {
            continue;
        };
        for (&i, param) in kernel.buffer_indices.iter().zip(code.signature.buffers()) {
            let buffer = find(plan.buffers(), i, &kernel.kernel.entry_point)?;
            let types = types.entry(buffer.storage_id()).or_default();
            if !types.contains(&param.dtype) {
                types.push(param.dtype);
            }
        }
    }
    Ok(types)
}

/// The signature, with the bounds that Svod's variables have.
fn bounded(signature: &Signature, vars: &[RuntimeVar]) -> Result<Signature> {
    let mut params = signature.params().to_vec();
    for param in &mut params {
        if let Param::Scalar(scalar) = param
            && let Some(var) = vars.iter().find(|var| var.name == scalar.name)
        {
            let holds = |v: i64| Scalar::from_number(scalar.dtype, Number::Int(v.into())).is_some();
            if !holds(var.min_val) || !holds(var.max_val) {
                return Err(Error::execution(format!(
                    "`{}`, a {}, may be {} to {}",
                    scalar.name, scalar.dtype, var.min_val, var.max_val
                )));
            }
            scalar.bounds = Bounds::integers(var.min_val.into(), var.max_val.into());
        }
    }
    let signature = Signature::new(params, signature.convention(), signature.returns());
    signature.map_err(refused)
}

/// The type of a buffer's elements.
fn element(buffer: &Buffer) -> Result<DType> {
    let dtype = buffer.dtype();
    signature::dtype(dtype.base())
        .ok_or_else(|| Error::execution(format!("a bundle has no elements of type {dtype:?}")))
}

/// What a named buffer holds, as an array.
fn array(named: &Named<'_>) -> Result<Array> {
    let Named { buffer, shape, .. } = named;
    Ok(Array {
        shape: shape.to_vec(),
        elements: elements(buffer, buffer.offset(), element(buffer)?, buffer.size())?,
    })
}

/// A copy of `bytes` bytes of a buffer's storage.
fn elements(buffer: &Buffer, offset: usize, dtype: DType, bytes: usize) -> Result<engine::Buffer> {
    buffer.ensure_allocated()?;
    let len = bytes / dtype.size();
    let mut copy = engine::Buffer::zeroed(dtype, len).map_err(refused)?;
    // SAFETY: it is allocated. The storage begins so many bytes before the view, and the callers
    // ask for bytes of it.
    let start = unsafe { buffer.as_raw_ptr() };
    let start = start
        .wrapping_byte_sub(buffer.offset())
        .wrapping_byte_add(offset);
    let start = NonNull::new(start).ok_or_else(|| Error::execution("a buffer at null"))?;
    // SAFETY: as many bytes, which Svod wrote as elements of this type, and which nothing writes
    // meanwhile, since no run of the plan is on.
    let held = unsafe { View::from_raw(start, dtype, len) };
    copy.as_view_mut().copy_from(held).map_err(refused)?;
    Ok(copy)
}

fn refused(error: engine::Error) -> Error {
    Error::execution(error.to_string())
}
