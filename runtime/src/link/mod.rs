//! Objects to images: laid out and linked by pure functions, then mapped.
//!
//! [`layout_all`] says how many bytes objects need and where each section goes;
//! [`link_all`] computes the bytes for a base address; [`layout`] and [`link`] are
//! the same for one object. None touches memory that runs, so they are tested and fuzzed
//! like any parser, and for every [`Architecture`] on every host. Only [`Image`] maps and
//! is the host's.
//!
//! What is mapped has up to three segments, each on pages of its own, in this order:
//!
//! ```text
//! base ┌──────────────────────────┐
//!      │ code         read, exec  │  for each object: text sections, then stubs
//!      ├──────────────────────────┤
//!      │ constants    read        │  for each object: read-only data, then its GOT
//!      ├──────────────────────────┤
//!      │ data         read, write │  writable data, if it was admitted
//!      └──────────────────────────┘
//! ```
//!
//! Many objects that are loaded together share one mapping, so that the system is asked
//! for memory once and for a change of rights once a segment, however many there are. Objects
//! know nothing of each other all the same. What keeps state, or is to lie somewhere in
//! particular, has a mapping of its own.
//!
//! What no code refers to is left out. A kernel keeps no state, so that what is left
//! of writable data is refused, unless the embedder admits it
//! ([`LoadOptions::admit_state`]). No page is ever writable and executable at the same
//! time: an image is filled while it is plain data, and turned to its rights afterwards.
//!
//! An undefined symbol gets a slot in the global offset table (GOT), and a stub that
//! jumps through it if code may not reach it; a call whose target is near enough goes
//! there directly.

mod aarch64;
mod architecture;
pub mod disassembly;
mod elf;
mod header;
mod image;
mod layout;
mod object_file;
mod observe;
mod relocation;
mod resolve;
mod symbols;
mod x86_64;

pub use architecture::Architecture;
pub(crate) use image::{Code, try_executable_memory};
pub use image::{Image, LoadOptions};
pub use layout::{Layout, Rights, Segment, layout, layout_all};
pub use object_file::ObjectFile;
pub use observe::Observers;
pub use resolve::{link, link_all};
pub use symbols::{Definition, Resolver, Symbols};
