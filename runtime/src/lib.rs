//! A kernel execution runtime for ML compilers.
//!
//! It takes the kernels that a compiler emits, makes them callable, and runs
//! whole plans of them over memory that it manages. Data takes one way, and each
//! step is a module that imports only from steps before it:
//!
//! ```text
//! signature   what a kernel expects: parameters, access, ranges, grid index
//! confine     what code, and a compiler, may do that nobody vouches for
//! compile     Source ──► Object
//! link        Object ──► Image              pure layout and relocation, then mapping
//! dispatch    Image + Signature ──► Kernel  prepared calls
//! memory      Buffer, View, Constant        aligned, zeroed, guarded on request
//! plan        PlanBuilder ──► Plan ──► Executable ──► Instance
//! bundle      files ──► Plan ──► Executable
//! diff        which op does not compute the same, side by side
//! verify      whether kernels keep what their signatures promise
//! bench       what takes how long, alone or side by side, and how sure that is
//! profile     where the time of runs goes
//! doctor      what of all this works here
//! ```
//!
//! [`Runtime`] holds what kernels are made with; [`Kernel::launch`] is a checked
//! call; [`bundle::Bundle`] is a whole model.
//!
//! # Safety
//!
//! Native code is admitted once, by an `unsafe` load in which the caller vouches
//! that a kernel keeps the contract of its [`Signature`]. From there on
//! everything is safe: each launch is checked against the signature, and a plan
//! is checked as a whole before it runs. The [`signature`] module states the
//! contract.
//!
//! ```
//! use svod_runtime::{Arg, Bounds, Buffer, DType, Runtime, Signature, Source};
//!
//! let runtime = Runtime::new()?;
//! let source = Source::c(
//!     "axpy",
//!     "void axpy(float *restrict y, const float *restrict x, float a, int i) {
//!          y[i] += a * x[i];
//!      }",
//! );
//! let signature = Signature::builder()
//!     .read_write(DType::F32, 4)
//!     .read(DType::F32, 4)
//!     .scalar(DType::F32, "a", Bounds::Any)
//!     .index(DType::I32, 4)
//!     .build()?;
//! // SAFETY: for each i in [0, 4) it touches y[i] and x[i], and writes only y.
//! let axpy = unsafe { runtime.load(&source, signature)? };
//!
//! let x = Buffer::from_slice(&[1.0_f32, 2.0, 3.0, 4.0])?;
//! let mut y = Buffer::zeroed(DType::F32, 4)?;
//! axpy.launch(&mut [Arg::from(&mut y), Arg::from(&x)], &[0.5_f32.into()], 4)?;
//! assert_eq!(y.as_slice::<f32>()?, [0.5, 1.0, 1.5, 2.0]);
//! # Ok::<(), svod_runtime::Error>(())
//! ```

#[cfg(not(target_os = "linux"))]
compile_error!("svod-runtime runs on Linux; other systems need a port of `link::image`");

pub mod bench;
pub mod bundle;
pub mod compile;
pub mod confine;
pub mod diff;
pub mod dispatch;
pub mod doctor;
pub mod link;
pub mod memory;
pub mod plan;
pub mod pool;
pub mod profile;
pub mod sandbox;
pub mod signature;
pub mod verify;

mod error;
mod launch;
mod runtime;

pub use compile::{OptLevel, Source};
pub use dispatch::Kernel;
pub use error::{Error, Place};
pub use launch::Arg;
pub use memory::{Buffer, Guard, View, ViewMut};
pub use runtime::{Runtime, RuntimeBuilder};
pub use signature::{Bounds, DType, Element, Scalar, Signature};

/// The README's program compiles and runs as well.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
