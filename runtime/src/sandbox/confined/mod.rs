//! Confinement: kernels in a program that was started for them, and has nothing else.
//!
//! The helper is a process of its own, not a fork: it has an empty environment, and of this process
//! no memory and no file but one, which lies in memory. In it are the objects, the arguments, and
//! what the two tell each other. The helper reads a plan's files, takes all
//! [rights](crate::confine::Rights) from itself but to compute, and only then links objects and
//! runs them. So code that means harm finds nothing to read and nobody to talk to, and the host
//! reads what it wrote as one reads any file of unknown origin.
//!
//! A helper serves many requests, and is warm from the second on. Launches that it made before may
//! have left anything in its memory: those of one helper can be wrong because of each other, if of
//! nothing else. One that ended it is told, and another helper goes on.

mod host;
mod plan;
mod serve;
mod server;
mod wire;

pub use host::Confined;
pub use plan::{ConfinedPlan, PlanOptions};

/// To be called first in the `main` of a program that is its own
/// [`Helper`](crate::confine::Helper): before it starts a thread, reads an argument or opens a
/// file. It returns at once unless the program was started to be one, for compilers or for kernels,
/// and not at all where it was.
pub fn enter() {
    crate::confine::enter_with(&[serve::MODE]);
}
