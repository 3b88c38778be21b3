//! Slots to registers, by number of arguments.
//!
//! # What a slot load costs
//!
//! A trampoline that reads its slots as plain values is compiled to wide loads,
//! two slots at a time. The grid index has been stored into its slot a moment
//! before, as 64 bits, and a wide load of it cannot be served from the store
//! buffer: it waits until the store has reached the cache, some 12 cycles. So
//! slots are read as volatile, which keeps each load as wide as the store was.
//!
//! # What a trampoline costs
//!
//! A trampoline is a second call. Up to six arguments, all in registers, it ends
//! in a jump, at a cycle or two; with more it must make room on the stack, call,
//! and return, five cycles that are most of what the call itself takes. So calls
//! with up to [`MAX_INLINE_ARGS`] arguments, as nearly all captured kernels have
//! them, are also to be had inline, in the place of their caller
//! ([`call_inline`]). There the slots between the registers and the last one are
//! read wide, which asks that none of them was just stored: that the index is
//! not among them.
//!
//! `cargo bench --bench dispatch` measures all of it.

use std::ffi::c_void;

/// The largest number of arguments that has a trampoline. libffi takes over
/// above. Captured kernels have up to 14; at 32 a call costs some 11 ns, through
/// libffi 40 times that. 0 sends all but calls without arguments through libffi.
pub const MAX_TRAMPOLINE_ARGS: usize = 32;

/// Loads the arguments from the slots and calls the target. The target is the
/// kernel's entry, or what stands for it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Enter {
    /// For entries that return nothing.
    Void(unsafe extern "C" fn(target: *const c_void, slots: *const u64)),
    /// For entries that return an `int32_t`.
    Status(unsafe extern "C" fn(target: *const c_void, slots: *const u64) -> i32),
}

impl Enter {
    /// Makes the call; the status is 0 where the entry returns nothing.
    ///
    /// # Safety
    ///
    /// `target` and `slots` must be what this way in was chosen for: an entry
    /// of that many arguments and that return, with that many slots to read,
    /// and the entry must be callable with them.
    #[inline(always)]
    pub(super) unsafe fn call(self, target: *const c_void, slots: *const u64) -> i32 {
        match self {
            // SAFETY: promised by the caller.
            Enter::Void(enter) => unsafe {
                enter(target, slots);
                0
            },
            // SAFETY: promised by the caller.
            Enter::Status(enter) => unsafe { enter(target, slots) },
        }
    }
}

/// The largest number of arguments of an inline call. 16 covers the captured
/// kernels; each further one is some 100 bytes of code in every caller. 0 sends all
/// but calls without arguments through trampolines.
pub(super) const MAX_INLINE_ARGS: usize = 16;

/// In the place of a number of arguments: the call cannot be made inline.
pub(super) const NOT_INLINE: u8 = u8::MAX;

/// The integer arguments that travel in registers; more do so on other
/// architectures, where this is merely cautious.
const REGISTERS: usize = 6;

/// Whether a slot may be stored just before an inline call with `args`
/// arguments: those that are not read wide.
pub(super) const fn may_be_fresh(slot: usize, args: usize) -> bool {
    slot < REGISTERS || slot + 1 >= args
}

macro_rules! inline_calls {
    ($($count:literal: $($fresh:literal)* $(| $($wide:literal)* | $last:literal)?;)*) => {
        /// Calls an entry that takes `args` integer and pointer arguments, at most
        /// [`MAX_INLINE_ARGS`], and returns nothing; or, where `args` is
        /// [`NOT_INLINE`], enters as `otherwise` does.
        ///
        /// # Safety
        ///
        /// `target` must be such an entry, or what `otherwise` was chosen for, and
        /// callable with the arguments in the slots, of which there must be as
        /// many.
        #[inline(always)]
        pub(super) unsafe fn call_inline(
            args: u8,
            otherwise: Enter,
            target: *const c_void,
            slots: *const u64,
        ) -> i32 {
            match args {
                $($count => {
                    type Entry = unsafe extern "C" fn(
                        $(trampolines!(@type $fresh),)*
                        $($(trampolines!(@type $wide),)* trampolines!(@type $last),)?
                    );
                    // SAFETY: promised by the caller.
                    unsafe {
                        let entry = std::mem::transmute::<*const c_void, Entry>(target);
                        entry(
                            $(slots.add($fresh).read_volatile(),)*
                            $(
                                $(slots.add($wide).read(),)*
                                slots.add($last).read_volatile(),
                            )?
                        );
                    }
                    0
                })*
                // SAFETY: promised by the caller.
                _ => unsafe { otherwise.call(target, slots) },
            }
        }
    };
}

macro_rules! trampolines {
    ($($count:literal: $($slot:literal)*;)*) => {
        /// The trampoline for `args` integer and pointer arguments, if there is
        /// one.
        pub(super) fn by_count(args: usize, status: bool) -> Option<Enter> {
            match (args, status) {
                _ if args > MAX_TRAMPOLINE_ARGS => None,
                $(
                    ($count, false) => {
                        unsafe extern "C" fn enter(target: *const c_void, _slots: *const u64) {
                            type Entry = unsafe extern "C" fn($(trampolines!(@type $slot)),*);
                            // SAFETY: `Enter::call` is promised an entry of this type and
                            // this many readable slots.
                            unsafe {
                                let entry = std::mem::transmute::<*const c_void, Entry>(target);
                                entry($(_slots.add($slot).read_volatile()),*);
                            }
                        }
                        Some(Enter::Void(enter))
                    }
                    ($count, true) => {
                        unsafe extern "C" fn enter(
                            target: *const c_void,
                            _slots: *const u64,
                        ) -> i32 {
                            type Entry =
                                unsafe extern "C" fn($(trampolines!(@type $slot)),*) -> i32;
                            // SAFETY: as above.
                            unsafe {
                                let entry = std::mem::transmute::<*const c_void, Entry>(target);
                                entry($(_slots.add($slot).read_volatile()),*)
                            }
                        }
                        Some(Enter::Status(enter))
                    }
                )*
                _ => None,
            }
        }
    };
    (@type $slot:literal) => { u64 };
}

trampolines! {
    0: ;
    1: 0;
    2: 0 1;
    3: 0 1 2;
    4: 0 1 2 3;
    5: 0 1 2 3 4;
    6: 0 1 2 3 4 5;
    7: 0 1 2 3 4 5 6;
    8: 0 1 2 3 4 5 6 7;
    9: 0 1 2 3 4 5 6 7 8;
    10: 0 1 2 3 4 5 6 7 8 9;
    11: 0 1 2 3 4 5 6 7 8 9 10;
    12: 0 1 2 3 4 5 6 7 8 9 10 11;
    13: 0 1 2 3 4 5 6 7 8 9 10 11 12;
    14: 0 1 2 3 4 5 6 7 8 9 10 11 12 13;
    15: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14;
    16: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15;
    17: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16;
    18: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17;
    19: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18;
    20: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19;
    21: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20;
    22: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21;
    23: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22;
    24: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23;
    25: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24;
    26: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25;
    27: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26;
    28: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27;
    29: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28;
    30: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29;
    31: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30;
    32: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31;
}

inline_calls! {
    0: ;
    1: 0;
    2: 0 1;
    3: 0 1 2;
    4: 0 1 2 3;
    5: 0 1 2 3 4;
    6: 0 1 2 3 4 5;
    7: 0 1 2 3 4 5 | | 6;
    8: 0 1 2 3 4 5 | 6 | 7;
    9: 0 1 2 3 4 5 | 6 7 | 8;
    10: 0 1 2 3 4 5 | 6 7 8 | 9;
    11: 0 1 2 3 4 5 | 6 7 8 9 | 10;
    12: 0 1 2 3 4 5 | 6 7 8 9 10 | 11;
    13: 0 1 2 3 4 5 | 6 7 8 9 10 11 | 12;
    14: 0 1 2 3 4 5 | 6 7 8 9 10 11 12 | 13;
    15: 0 1 2 3 4 5 | 6 7 8 9 10 11 12 13 | 14;
    16: 0 1 2 3 4 5 | 6 7 8 9 10 11 12 13 14 | 15;
}
