//! Relocations, symbols and sections in each form that an object may hold, for both
//! architectures, made by hand: what each computes, where it ends, and what is refused.

// A helper of a test says what it expects by failing, as the test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod fields;
mod instructions;
mod made;
mod sections;
mod state;
mod stubs;
mod symbols;
mod table;
