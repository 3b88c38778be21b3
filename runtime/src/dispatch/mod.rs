//! Image and signature to kernel: calls that are prepared, then made.
//!
//! A kernel's arguments are packed once, into 64-bit slots ([`Call`]). Making
//! the call is then to load the slots into the registers and the stack as the C ABI
//! asks and to call the entry: in place with up to 16 arguments, through a trampoline
//! above. There is one for each number of arguments; where none fits, because a
//! scalar travels in a floating-point register or the arguments are too many,
//! libffi's call interface stands in its place ([`KernelCif`]), behind the same
//! two pointers, so that the call itself never asks which it is.
//!
//! The packed convention and a status return are facts about the slots and the
//! trampoline that are chosen once; they are no other path through the code.
//!
//! Everything here that makes a call is `unsafe`: it takes addresses on trust.
//! The safe face is [`Kernel::launch`](crate::Kernel::launch), which checks
//! them.

mod call;
mod cif;
mod cost;
mod entry;
mod kernel;
mod packing;
mod serial;
mod trampoline;

pub use call::Call;
pub use cif::KernelCif;
pub(crate) use cost::Cost;
pub(crate) use entry::Entry;
pub use kernel::Kernel;
pub(crate) use packing::Slots;
pub use trampoline::MAX_TRAMPOLINE_ARGS;
