//! What a plan is prepared of: kernels, copies, views and custom functions, as Svod hands them over.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;
use svod_device::BufferId;
use svod_dtype::DeviceSpec;
use svod_ir::{CustomFunctionKind, Op, UOp};

use crate::kernel_cache::CachedKernel;

/// A kernel of a plan, with what it is called with.
#[derive(Clone)]
pub struct PreparedKernel {
    /// What other ops call it by.
    pub id: u64,
    /// The graph that it was made of.
    pub ast: Arc<UOp>,
    /// The kernel.
    pub kernel: Arc<CachedKernel>,
    /// Where it runs.
    pub device: DeviceSpec,
    /// Its buffers, as numbers of the plan's, in the order in which they are passed.
    pub buffer_indices: Vec<usize>,
    /// Which of these it writes, counted in `buffer_indices`.
    pub output_indices: Vec<usize>,
    /// The values of its variables, in the order of the kernel's `var_names`.
    pub vals: Vec<i64>,
    /// Variables that keep their value, whatever a run is given.
    pub fixedvars: HashMap<String, i64>,
    /// The ids of ops that come before.
    pub dependencies: Vec<u64>,
    /// The addresses of its buffers, which the plan's builder writes.
    pub buffer_ptrs: Vec<usize>,
    /// The ids of its buffers, which the plan's builder writes.
    pub buffer_ids: Vec<BufferId>,
    /// Its variables with their bounds.
    pub runtime_vars: Vec<RuntimeVar>,
}

/// A variable and its bounds, both inclusive.
#[derive(Clone, Debug)]
pub struct RuntimeVar {
    /// Its name.
    pub name: String,
    /// The smallest value.
    pub min_val: i64,
    /// The largest value.
    pub max_val: i64,
}

/// The variables of a graph, each once, in the order in which the graph has them.
pub fn collect_runtime_vars(root: &Arc<UOp>) -> Vec<RuntimeVar> {
    let mut seen = HashSet::new();
    let nodes = root.toposort();
    let vars = nodes.iter().filter_map(|node| match node.op() {
        Op::DefineVar {
            name,
            min_val,
            max_val,
        } => Some(RuntimeVar {
            name: name.clone(),
            min_val: *min_val,
            max_val: *max_val,
        }),
        _ => None,
    });
    vars.filter(|var| seen.insert(var.name.clone())).collect()
}

/// A copy of a plan.
#[derive(Clone, Debug)]
pub struct PreparedCopy {
    /// What other ops call it by.
    pub id: u64,
    /// Where to, and from where, as numbers of the plan's buffers.
    pub buffer_indices: Vec<usize>,
    /// The ids of ops that come before.
    pub dependencies: Vec<u64>,
}

/// A part of a buffer that goes by a name of its own. Nothing runs; that it is that part is
/// checked.
#[derive(Clone, Debug)]
pub struct PreparedBufferView {
    /// What other ops call it by.
    pub id: u64,
    /// The part, and the buffer that it is of, as numbers of the plan's buffers.
    pub buffer_indices: Vec<usize>,
    /// Where in the buffer the part begins, in bytes.
    pub byte_offset: usize,
    /// Its size in bytes.
    pub byte_size: usize,
    /// The ids of ops that come before.
    pub dependencies: Vec<u64>,
}

/// A custom function of a plan.
#[derive(Clone, Debug)]
pub struct PreparedCustomFunction {
    /// What other ops call it by.
    pub id: u64,
    /// Which function.
    pub kind: CustomFunctionKind,
    /// What the graph says of it.
    pub attrs: SmallVec<[Arc<UOp>; 4]>,
    /// Its buffers, as numbers of the plan's.
    pub buffer_indices: Vec<usize>,
    /// Variables that keep their value, whatever a run is given.
    pub fixedvars: HashMap<String, i64>,
    /// The ids of ops that come before.
    pub dependencies: Vec<u64>,
    /// Its variables with their bounds.
    pub runtime_vars: Vec<RuntimeVar>,
}

/// One step of a plan.
#[derive(Clone, Debug)]
pub enum PreparedOp {
    /// A kernel.
    CompiledProgram(PreparedKernel),
    /// A copy.
    BufferCopy(PreparedCopy),
    /// A part of a buffer by another name.
    BufferView(PreparedBufferView),
    /// A custom function.
    CustomFunction(PreparedCustomFunction),
}

impl PreparedOp {
    pub(super) fn id(&self) -> u64 {
        match self {
            PreparedOp::CompiledProgram(op) => op.id,
            PreparedOp::BufferCopy(op) => op.id,
            PreparedOp::BufferView(op) => op.id,
            PreparedOp::CustomFunction(op) => op.id,
        }
    }

    pub(super) fn dependencies(&self) -> &[u64] {
        match self {
            PreparedOp::CompiledProgram(op) => &op.dependencies,
            PreparedOp::BufferCopy(op) => &op.dependencies,
            PreparedOp::BufferView(op) => &op.dependencies,
            PreparedOp::CustomFunction(op) => &op.dependencies,
        }
    }

    /// The numbers of the buffers that it writes, whether the plan has them or not.
    pub(crate) fn written(&self) -> Vec<usize> {
        match self {
            PreparedOp::CompiledProgram(op) => {
                let outputs = op.output_indices.iter();
                outputs
                    .filter_map(|&i| op.buffer_indices.get(i).copied())
                    .collect()
            }
            PreparedOp::BufferCopy(op) => op.buffer_indices.iter().take(1).copied().collect(),
            PreparedOp::BufferView(_) => Vec::new(),
            // Which of them, nobody says.
            PreparedOp::CustomFunction(op) => op.buffer_indices.clone(),
        }
    }

    /// Its variables, and which of them are fixed.
    pub(super) fn variables(&self) -> Option<(&[RuntimeVar], &HashMap<String, i64>)> {
        match self {
            PreparedOp::CompiledProgram(op) => Some((&op.runtime_vars, &op.fixedvars)),
            PreparedOp::CustomFunction(op) => Some((&op.runtime_vars, &op.fixedvars)),
            PreparedOp::BufferCopy(_) | PreparedOp::BufferView(_) => None,
        }
    }
}

impl fmt::Debug for PreparedKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreparedKernel")
            .field("id", &self.id)
            .field("entry", &self.kernel.entry_point)
            .field("device", &self.device)
            .field("buffer_indices", &self.buffer_indices)
            .field("output_indices", &self.output_indices)
            .field("vals", &self.vals)
            .field("fixedvars", &self.fixedvars)
            .field("dependencies", &self.dependencies)
            .finish_non_exhaustive()
    }
}
