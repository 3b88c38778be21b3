//! What a run does, prepared as far as it can be without knowing where memory is.
//!
//! A plan's ops become steps, which all instances share. What a step works on, addresses,
//! scalars, the grid, lies in its frame: words in a table that each instance has of its
//! own. What a step calls is in the [code table](Code), which can be exchanged for another
//! between two runs. A [`Script`] is the steps in the order of a schedule, and to make a run
//! of an instance is to walk a script with that table: on one thread, or with a
//! [team](team).
//!
//! ```text
//! launch   grid │ the slots of the call …
//! copy     from │ to
//! fill     to   │ the element
//! host     the address of each argument …
//! ```
//!
//! So that nothing is looked up later, the words that hold an address are listed by
//! buffer, and those that depend on the run's variables by value.

mod code;
mod making;
mod script;
mod step;
mod team;

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::time::Instant;

pub(super) use code::Code;
pub(super) use script::Script;
pub(super) use team::Clocks;

use super::builder::as_grid;
use super::trace::Spans;
use super::{Cancel, Value};
use crate::Error;
use crate::dispatch::{Kernel, Slots};
use crate::launch::Arg;
use crate::signature::{DType, Number, Scalar};

/// The frames of a plan: where they lie, and their first words. They depend on the signatures
/// of its kernels, and not on their code.
#[derive(Debug)]
pub(super) struct Replay {
    /// By op.
    spots: Vec<Spot>,
    /// The words of all frames, as far as they are the same for all instances and runs.
    words: Box<[u64]>,
    /// The words that hold an address, by buffer; and for each buffer, where its begin.
    addresses: Vec<Address>,
    address_starts: Vec<u32>,
    /// Each value that depends on variables, and the words that follow from it.
    computed: Vec<(Value, Vec<Use>)>,
    /// The kernels of the packed convention, whose slots point into themselves, and where
    /// the slots of each launch begin.
    packed: Vec<(u32, u32)>,
    /// How many arguments each host function has.
    host_args: Vec<u32>,
}

/// What is known of a step without the code that it calls.
#[derive(Clone, Copy, Debug)]
struct Spot {
    /// Where its frame begins.
    frame: u32,
    /// Whether it writes a state.
    writes_state: bool,
    /// The number of its host function, if it has one.
    host: u32,
}

#[derive(Clone, Copy, Debug)]
struct Address {
    word: u32,
    /// In bytes from the buffer's start.
    offset: usize,
}

/// A word that follows from a computed value.
#[derive(Clone, Copy, Debug)]
struct Use {
    word: u32,
    kind: Word,
}

#[derive(Clone, Copy, Debug)]
enum Word {
    Grid,
    Scalar(DType),
}

impl Word {
    fn of(self, number: Number) -> Result<u64, Error> {
        match self {
            Word::Grid => as_grid(number).map_err(Error::run),
            Word::Scalar(dtype) => Scalar::from_number(dtype, number)
                .map(Scalar::to_slot)
                .ok_or_else(|| Error::run(format!("{number} is not a value of {dtype}"))),
        }
    }
}

impl Replay {
    /// The frames of an instance: no address is in them yet, and nothing that depends
    /// on variables.
    pub(super) fn frames(&self, kernels: &[Kernel]) -> Frames {
        let slots = Slots::zeroed(self.words.len());
        // SAFETY: as many words, just allocated.
        unsafe {
            slots
                .as_ptr()
                .copy_from_nonoverlapping(self.words.as_ptr(), self.words.len());
        }
        for &(kernel, word) in &self.packed {
            // SAFETY: the kernel's slots begin at this word and lie within the table.
            unsafe { kernels[kernel as usize].bind(slots.as_ptr().add(word as usize)) };
        }
        let room = |&args: &u32| HostRoom(UnsafeCell::new(Vec::with_capacity(args as usize)));
        Frames {
            words: slots,
            host_args: self.host_args.iter().map(room).collect(),
        }
    }

    /// Has every step find the buffer at `base`.
    pub(super) fn set_base(&self, frames: &mut Frames, buffer: usize, base: NonNull<u8>) {
        let starts = &self.address_starts[buffer..buffer + 2];
        for address in &self.addresses[starts[0] as usize..starts[1] as usize] {
            let place = base.as_ptr().wrapping_byte_add(address.offset);
            frames.words.set(address.word as usize, place as u64);
        }
    }

    /// Puts in what depends on the run's variables.
    pub(super) fn compute(&self, frames: &mut Frames, variables: &[i64]) -> Result<(), Error> {
        for (value, uses) in &self.computed {
            // The builder proved that none of this fails; a proof that had a hole
            // would be an error here, before anything has run.
            let number = value.evaluate(variables).map_err(Error::run)?;
            for one in uses {
                frames.words.set(one.word as usize, one.kind.of(number)?);
            }
        }
        Ok(())
    }
}

/// What is asked around each op, on whatever thread that runs.
#[derive(Clone, Copy, Default)]
pub(super) struct Asked<'a> {
    pub(super) cancel: Option<&'a Cancel>,
    pub(super) deadline: Option<Instant>,
    pub(super) clocks: Option<&'a Clocks>,
    pub(super) spans: Option<Spans<'a>>,
}

impl Asked<'_> {
    /// Whether it is nothing.
    pub(super) const fn is_nothing(&self) -> bool {
        let Asked {
            cancel: None,
            deadline: None,
            clocks: None,
            spans: None,
        } = self
        else {
            return false;
        };
        true
    }

    #[inline]
    fn may_go_on(&self, op: usize, done: usize, of: usize) -> Result<(), Error> {
        if self.cancel.is_some_and(Cancel::is_cancelled) {
            return Err(Error::Cancelled { op, done, of });
        }
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            return Err(Error::DeadlinePassed { op, done, of });
        }
        Ok(())
    }

    /// The time, if that of ops is asked for.
    #[inline]
    fn clock(&self) -> Option<Instant> {
        (self.clocks.is_some() || self.spans.is_some()).then(Instant::now)
    }

    /// Takes down that an op, or the part of one whose span this is, has run since `start`.
    #[inline]
    fn note(&self, op: usize, span: usize, start: Option<Instant>) {
        let Some(start) = start else {
            return;
        };
        let end = Instant::now();
        if let Some(clocks) = self.clocks {
            clocks.add(op, end.duration_since(start));
        }
        if let Some(spans) = &self.spans {
            spans.put(span, start, end);
        }
    }
}

/// Who looks at memory or at the order around each op, for which ops must run one at a
/// time.
#[derive(Default)]
pub(super) struct Watch<'a> {
    pub(super) before: Option<&'a mut (dyn FnMut(usize) + Send + Sync)>,
    pub(super) after: Option<&'a dyn Fn(usize) -> Result<(), Error>>,
}

impl Watch<'_> {
    /// Whether nobody watches.
    pub(super) const fn is_idle(&self) -> bool {
        self.before.is_none() && self.after.is_none()
    }
}

/// What an instance's steps work on.
#[derive(Debug)]
pub(super) struct Frames {
    words: Slots,
    host_args: Vec<HostRoom>,
}

/// Room for the arguments of a host function. It is empty but while that runs.
#[derive(Debug)]
struct HostRoom(UnsafeCell<Vec<Arg<'static>>>);

// SAFETY: only the run of the host function that it is for touches it, which is one at a
// time.
unsafe impl Sync for HostRoom {}

/// The frames in a run.
#[derive(Clone, Copy)]
struct Table<'a> {
    words: *mut u64,
    host_args: &'a [HostRoom],
}

// SAFETY: threads that share it run different steps, whose frames and rooms are different
// ones, or parts of one launch, whose frame they only read.
unsafe impl Send for Table<'_> {}
// SAFETY: as above.
unsafe impl Sync for Table<'_> {}

impl Frames {
    fn table(&mut self) -> Table<'_> {
        Table {
            words: self.words.as_ptr(),
            host_args: &self.host_args,
        }
    }
}
