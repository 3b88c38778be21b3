//! What a kernel of a plan took.

use std::sync::Arc;
use std::time::Duration;

use svod_dtype::DeviceSpec;

use crate::kernel_cache::CachedKernel;

/// What one kernel took in a profiled run of its plan, as
/// [`ExecutionPlan::execute_profiled`](crate::ExecutionPlan::execute_profiled) gives it.
pub struct KernelProfile {
    /// The kernel.
    pub kernel: Arc<CachedKernel>,
    /// Where it ran.
    pub device: DeviceSpec,
    /// How many buffers it takes.
    pub num_buffers: usize,
    /// From when the first thread began with it until the last was done.
    pub elapsed: Duration,
}
