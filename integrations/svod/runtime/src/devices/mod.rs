//! The devices that this runtime has.

pub mod cpu;

pub use cpu::{CpuBackend, create_cpu_device, create_cpu_device_with_backend};
