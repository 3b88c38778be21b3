//! The kernels of the process, by the graph that each was made of.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use svod_device::device::Program;
use svod_ir::UOp;

/// A kernel with what Svod knows of it.
pub struct CachedKernel {
    /// What calls it.
    pub program: Box<dyn Program>,
    /// Whose it is: the key of the compiler that made it.
    pub device: String,
    /// Its text.
    pub code: String,
    /// The name of its function.
    pub entry_point: String,
    /// Its variables, in the order in which their values are passed; the grid index,
    /// `core_id`, among them.
    pub var_names: Vec<String>,
    /// The slots of its buffers, in the order in which they are passed.
    pub globals: Vec<usize>,
    /// The slots that it writes.
    pub outs: Vec<usize>,
    /// The slots that it reads.
    pub ins: Vec<usize>,
    /// Whether it may run beside others. A program of another device's that may not runs beside no
    /// other such program, copy of Svod's or custom function; of their own kernels plans find out
    /// from what they touch.
    pub host_parallel_safe: bool,
    /// Its grid, in three dimensions, of which CPUs use the first.
    pub global_size: [Arc<UOp>; 3],
    /// The size of a group, where the device has groups.
    pub local_size: Option<[Arc<UOp>; 3]>,
}

type Kernels = HashMap<(u64, String), Arc<CachedKernel>>;

static KERNELS: RwLock<Option<Kernels>> = RwLock::new(None);

/// The kernel of a graph for a device, made by `compile_fn` where there is none yet. Of several
/// threads that make the same, all get that of the first.
///
/// # Errors
///
/// That of `compile_fn`.
pub fn get_or_compile_kernel<F, E>(
    ast_id: u64,
    device: &str,
    compile_fn: F,
) -> Result<Arc<CachedKernel>, E>
where
    F: FnOnce() -> Result<CachedKernel, E>,
{
    let key = (ast_id, device.to_owned());
    let known = KERNELS.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(kernel) = known.as_ref().and_then(|kernels| kernels.get(&key)) {
        return Ok(Arc::clone(kernel));
    }
    drop(known);
    let made = Arc::new(compile_fn()?);
    let mut kernels = KERNELS.write().unwrap_or_else(PoisonError::into_inner);
    let kernel = kernels.get_or_insert_default().entry(key).or_insert(made);
    Ok(Arc::clone(kernel))
}

/// Forgets all kernels; those in use live on with their users.
pub fn clear_all() {
    let mut kernels = KERNELS.write().unwrap_or_else(PoisonError::into_inner);
    let gone = kernels.take();
    // What goes with the last kernel is done without the lock.
    drop(kernels);
    drop(gone);
}

/// Forgets the kernels of graphs that are not among `live_ids`.
pub fn gc_unused_kernels(live_ids: &HashSet<u64>) {
    let mut kernels = KERNELS.write().unwrap_or_else(PoisonError::into_inner);
    let Some(known) = kernels.as_mut() else {
        return;
    };
    let gone: Vec<_> = known
        .extract_if(|(id, _), _| !live_ids.contains(id))
        .collect();
    drop(kernels);
    drop(gone);
}
