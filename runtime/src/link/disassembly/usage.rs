//! What a function takes of the machine.

use std::collections::{BTreeMap, BTreeSet};

/// What a function takes of the machine, as far as its own instructions say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The general registers that it names, by their widest names, without the stack's pointer.
    pub general: Vec<String>,
    /// The vector registers that it names, as wide as it uses any of them.
    pub vector: Vec<String>,
    /// The mask registers of AVX-512 that it names.
    pub mask: Vec<String>,
    /// The bytes of the widest vectors that it computes with or copies, times 8: 64, 128, 256
    /// or 512. `None` of code that takes one element at a time. Zeroing, bitwise operations on
    /// the registers of scalars, and what is put aside on the stack do not count.
    pub vector_bits: Option<u32>,
    /// The most bytes of stack that it has at a time, without what it calls and what lies below
    /// the stack's pointer.
    pub stack_bytes: u64,
    /// Whether it takes more than that, by a number that it computes.
    pub stack_is_dynamic: bool,
    /// What it calls, or jumps to and does not come back from, by name.
    pub calls: Vec<String>,
}

/// Adds up what instructions use.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// By number.
    pub(super) general: BTreeMap<usize, String>,
    pub(super) vector: BTreeSet<usize>,
    pub(super) mask: BTreeSet<usize>,
    /// The widest register, in bits, whatever is done with it.
    pub(super) widest: u32,
    /// The widest vector.
    pub(super) packed: u32,
    pub(super) calls: BTreeSet<String>,
    depth: u64,
    deepest: u64,
    pub(super) is_dynamic: bool,
}

impl Tally {
    /// The stack grows, or shrinks, by so many bytes.
    pub(super) fn grow(&mut self, bytes: i64) {
        self.depth = self.depth.saturating_add_signed(bytes);
        self.deepest = self.deepest.max(self.depth);
    }

    /// What follows is not reached from here: a frame that is built there is another path's.
    pub(super) const fn end_path(&mut self) {
        self.depth = 0;
    }

    /// As an answer; `vectors` names a vector register of so many bits.
    pub(super) fn usage(self, vectors: impl Fn(u32) -> &'static str) -> Usage {
        let numbered = |prefix: &str, numbers: BTreeSet<usize>| {
            let names = numbers.into_iter().map(|n| format!("{prefix}{n}"));
            names.collect::<Vec<_>>()
        };
        Usage {
            general: self.general.into_values().collect(),
            vector: numbered(vectors(self.widest), self.vector),
            mask: numbered("k", self.mask),
            vector_bits: (self.packed > 0).then_some(self.packed),
            stack_bytes: self.deepest,
            stack_is_dynamic: self.is_dynamic,
            calls: self.calls.into_iter().collect(),
        }
    }
}
