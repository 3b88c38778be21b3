//! The runtime of the Svod compiler, made of the `svod-runtime` of this repository.
//!
//! Svod's crates ask their registry for a package of this name and version; cargo gives them
//! this one where a workspace says so under `[patch]`. What they find here is the interface
//! that they use: the CPU device with its two backends, device factories, the cache of
//! kernels, execution plans and their builder, profiles, benchmarks, custom functions. What
//! stands behind it is the library, `engine` in this crate:
//!
//! - A kernel that the device is given as text is not compiled at once: it is put
//!   down to be compiled beside Svod's own work, together with those that come
//!   meanwhile, and is waited for where it is needed.
//! - An [execution plan](execution_plan) becomes a plan of the library over the memory that
//!   Svod's buffers have. Hazards, schedule, threads and calls are the library's.
//! - A plan can be [captured](capture) into a plan bundle, which runs without Svod.
//!
//! What Svod's crates do not use of the original runtime is not here: its executor and queues
//! for several devices, and its loaders as public types.

#[cfg(feature = "mlir")]
compile_error!(
    "this runtime has no MLIR backend for Svod: its code generator needs the `melior` crate and \
     MLIR 22; use the C or the LLVM backend, which need neither"
);

pub mod benchmark;
pub mod capture;
mod code;
pub mod custom_function;
pub mod device_registry;
pub mod devices;
pub mod error;
pub mod execution_plan;
pub mod kernel_cache;
mod order;
pub mod profiler;
mod program;
mod signature;
mod translation;

pub use benchmark::{BenchmarkConfig, BenchmarkResult, benchmark_kernel, warmup_thread_pool};
pub use custom_function::run_custom_function;
pub use device_registry::DEVICE_FACTORIES;
pub use devices::cpu::{CpuBackend, create_cpu_device, create_cpu_device_with_backend};
pub use error::*;
pub use execution_plan::{
    ExecutionPlan, ExecutionPlanBuilder, PreparedBufferView, PreparedCopy, PreparedCustomFunction,
    PreparedKernel, PreparedOp,
};
pub use kernel_cache::*;
pub use profiler::KernelProfile;

use std::sync::LazyLock;

/// The library's runtime, as the environment asks for it: one for the process, as Svod's
/// devices are.
static ENGINE: LazyLock<std::result::Result<engine::Runtime, String>> =
    LazyLock::new(|| engine::Runtime::new().map_err(|e| e.to_string()));

/// The library's runtime.
pub(crate) fn engine() -> Result<&'static engine::Runtime> {
    ENGINE.as_ref().map_err(|reason| Error::JitCompilation {
        reason: format!("the runtime cannot be set up: {reason}"),
    })
}
