//! Bad code is a message, not a crash: kernels that nobody vouches for, in processes of their own.
//!
//! Compilers under development emit kernels that overrun their buffers, loop, divide by zero, or
//! jump into nowhere; an autotuner tries thousands of candidates, of which some do. Here such a
//! kernel is [launched](Launch) in a child process, and what comes of it is an [`Outcome`]: the
//! kernel, the instruction, and, where it left an argument, which one, at which element, by how
//! many bytes, and whether it read or wrote.
//!
//! # Which of the two
//!
//! [`CrashIsolation`] forks this process. The child has all that this process has, so that any
//! kernel that was linked here can be run, and a list of launches costs little more than the
//! launches. The host's memory is safe from the kernel, and not secret from it: this is for code
//! that is wrong, not for code that means harm.
//!
//! # What is known of a crash
//!
//! A child has handlers for the signals that a fault becomes, on a stack of their own. They write
//! down what the processor said and what its registers held; the host decodes the instruction and
//! computes what it touched, as the processor did. Arguments lie in pages of their own, the end of
//! each before an inaccessible page, so that an access outside meets one, and what is only read
//! cannot be written. The kernel has a stack of its own, with inaccessible addresses below, by
//! which an overflow is told from other faults.
//!
//! Between the fork and the kernel the child allocates nothing and takes no lock, as any of them
//! may be held by a thread that it does not have. So the host may have any number of threads.

mod attempt;
mod child;
mod confined;
mod control;
mod explain;
mod fault;
mod isolation;
mod launch;
mod limits;
mod outcome;
mod plan;
mod prepared;
mod repeat;

pub use confined::{Confined, ConfinedPlan, PlanOptions, enter};
pub(crate) use control::Numbers;
pub use isolation::CrashIsolation;
pub use launch::{Launch, Untrusted, UntrustedCode};
pub use limits::Limits;
pub use outcome::{
    Access, ArgumentPlace, CodePlace, Crash, Fault, Outcome, Place, TimeLimit, signal_name,
};
pub(crate) use repeat::Repeated;
