//! The word in which a run's progress lies.
//!
//! All that the threads of a run agree on is in 64 bits, so that each step is one
//! read-modify-write, and what a step returns says all that was true at that moment.
//!
//! ```text
//! 63        35  34     33         32      31      16  15       0
//! │  epoch    │ TAKEN │ SLEEPERS │ OWNER │ unclaimed │ unfinished │
//! ```

/// The most units that a phase may have.
pub(crate) const MAX_UNITS: u32 = 1 << 15;

/// The most phases that a run may have: epochs of a slot are counted with 29 bits, and
/// those of one run must differ.
pub(crate) const MAX_PHASES: usize = 1 << 28;

/// One unit that is not finished.
pub(super) const UNFINISHED: u64 = 1;
/// One unit that is not claimed.
pub(super) const UNCLAIMED: u64 = 1 << 16;
/// The owner sleeps until there is something to claim, or the run has ended.
pub(super) const OWNER: u64 = 1 << 32;
/// Threads that could help may be asleep.
pub(super) const SLEEPERS: u64 = 1 << 33;
/// The slot has a run.
pub(super) const TAKEN: u64 = 1 << 34;
/// One phase.
pub(super) const EPOCH: u64 = 1 << 35;

/// How many units of the phase nobody has claimed.
pub(super) const fn unclaimed(word: u64) -> u32 {
    (word >> 16) as u32 & 0xffff
}

/// How many units of the phase are not finished.
pub(super) const fn unfinished(word: u64) -> u32 {
    word as u32 & 0xffff
}

/// The number of phases that lie between two words, of which `since` is the older one.
pub(super) const fn phases_since(word: u64, since: u64) -> u32 {
    (((word / EPOCH).wrapping_sub(since / EPOCH)) & (u64::MAX / EPOCH)) as u32
}
