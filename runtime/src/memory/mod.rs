//! Buffers: memory with an element type, and views of it.
//!
//! A buffer is born zeroed and aligned to at least [`BUFFER_ALIGN`] bytes, so
//! there is no uninitialised memory that safe code could read, and nothing that
//! a kernel may assume of alignment is left to chance. Rust sees its elements as
//! plain numbers, of which every bit pattern is a value: what a kernel wrote is
//! never undefined behaviour to read.
//!
//! `bool` is the exception that proves it. A kernel may assume that a `bool` is 0
//! or 1, so Rust reads it as `u8` and writes it through
//! [`ViewMut::copy_from`], which checks.
//!
//! A [`View`] or [`ViewMut`] is a part of a buffer, or memory of the caller's:
//! a slice becomes one without a copy, with the alignment that it happens to
//! have. A launch checks it.
//!
//! To find a kernel that leaves its buffers, these can be had [guarded](Guard):
//! between inaccessible pages, with a pattern in what remains beside them.

mod arena;
mod buffer;
mod constant;
mod filling;
mod guard;
mod view;

pub(crate) use arena::Arena;
pub use buffer::{BUFFER_ALIGN, Buffer};
pub use constant::Constant;
pub use filling::Filling;
pub(crate) use guard::Pages;
pub use guard::{Guard, Stray};
pub use view::{View, ViewMut};
