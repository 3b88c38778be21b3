//! Object to image: laid out and linked by pure functions, then mapped.
//!
//! [`layout`] says how many bytes an object needs and where each section goes;
//! [`link`] computes the image's bytes for a base address. Neither touches
//! memory that runs, so both are tested and fuzzed like any parser, and for every
//! [`Architecture`] on every host. Only [`Image`] maps and is the host's.
//!
//! An image has up to three segments, each on pages of its own, in this order:
//!
//! ```text
//! base ┌──────────────────────────┐
//!      │ code         read, exec  │  text sections, then stubs
//!      ├──────────────────────────┤
//!      │ constants    read        │  read-only data, then the GOT
//!      ├──────────────────────────┤
//!      │ data         read, write │  writable data, if it was admitted
//!      └──────────────────────────┘
//! ```
//!
//! What no code refers to is left out. A kernel keeps no state, so that what is left
//! of writable data is refused, unless the embedder admits it
//! ([`Image::load_with_state`]). No page is ever writable and executable at the same
//! time: an image is filled while it is plain data, and turned to its rights afterwards.
//!
//! An undefined symbol gets a slot in the global offset table (GOT), and a stub that
//! jumps through it if code may not reach it; a call whose target is near enough goes
//! there directly.

mod aarch64;
mod architecture;
mod elf;
mod header;
mod image;
mod layout;
mod object_file;
mod relocation;
mod resolve;
mod symbols;
mod x86_64;

pub use architecture::Architecture;
pub use image::Image;
pub use layout::{Layout, Rights, Segment, layout};
pub use object_file::ObjectFile;
pub use resolve::link;
pub use symbols::{Definition, Resolver, Symbols};
