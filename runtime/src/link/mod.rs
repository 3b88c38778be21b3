//! Object to image: laid out and linked by pure functions, then mapped.
//!
//! [`layout`] says how many bytes an object needs and where each section goes;
//! [`link`] computes the image's bytes for a base address. Neither touches
//! memory that runs, so both are tested and fuzzed like any parser, on any host.
//! Only [`Image`] maps and is the host's. Objects are those of x86-64 so far.
//!
//! An image has up to two segments, each on pages of its own, in this order:
//!
//! ```text
//! base ┌──────────────────────────┐
//!      │ code         read, exec  │  text sections, then stubs for far calls
//!      ├──────────────────────────┤
//!      │ constants    read        │  read-only data, then the GOT
//!      └──────────────────────────┘
//! ```
//!
//! Writable sections are refused: a kernel keeps no state. No page
//! is ever writable and executable at the same time: an image is filled while it
//! is plain data, and turned to its rights afterwards.
//!
//! An undefined symbol gets a slot in the GOT, and a stub that jumps through it
//! if it is called; a call whose target is near enough goes there directly.

mod elf;
mod image;
mod layout;
mod resolve;
mod symbols;
mod x86_64;

pub use elf::ObjectFile;
pub use image::Image;
pub use layout::{Layout, Rights, Segment, layout};
pub use resolve::link;
pub use symbols::{Definition, Resolver, Symbols};
