//! What a run does, prepared as far as it can be without knowing where memory is.
//!
//! A plan's ops become a list of steps, in the order in which they run, which all
//! instances share. What a step works on, addresses, scalars, the grid, lies in its
//! frame: words in a table that each instance has of its own. To make a run of an
//! instance is to walk the steps with that table.
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

mod making;
mod step;

use std::ptr::NonNull;
use std::time::Instant;

use step::{Step, run_all};

use super::builder::as_grid;
use super::timings::Timings;
use super::{Cancel, Plan, Value};
use crate::Error;
use crate::dispatch::{Kernel, Slots};
use crate::launch::Arg;
use crate::signature::{DType, Number, Scalar};

/// The steps of a plan and the first words of their frames.
#[derive(Debug)]
pub(super) struct Replay {
    steps: Vec<Step>,
    /// How many steps come before the first that writes a state.
    before_state: usize,
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
    /// The most arguments that a host function has.
    host_args: usize,
}

// SAFETY: what keeps it from being `Send` are the pointers of entries. They lead to code,
// which is never written, or to what a `Kernel` shares between threads; they are followed
// only in runs of an executable, which holds these kernels beside the replay. What else is
// here are numbers.
unsafe impl Send for Replay {}
// SAFETY: as above; nothing here is written once made.
unsafe impl Sync for Replay {}

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
        Frames {
            words: slots,
            host_args: Vec::with_capacity(self.host_args),
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

    /// Runs all steps, and does nothing else. `torn` is whether states are left half
    /// written.
    ///
    /// # Safety
    ///
    /// The frames must be this replay's, with every address and value put in, and
    /// memory and code behind them as the plan says; nothing else may use what the ops
    /// write meanwhile, or write what they read.
    pub(super) unsafe fn run(
        &self,
        plan: &Plan,
        frames: &mut Frames,
        torn: &mut bool,
    ) -> Result<(), Error> {
        let (before, after) = self.steps.split_at(self.before_state);
        // SAFETY: promised by the caller.
        unsafe { run_all(plan, before, frames)? };
        if !after.is_empty() {
            *torn = true;
            // SAFETY: promised by the caller.
            unsafe { run_all(plan, after, frames)? };
            *torn = false;
        }
        Ok(())
    }

    /// As [`run`](Self::run), with someone who watches.
    ///
    /// # Safety
    ///
    /// As [`run`](Self::run).
    pub(super) unsafe fn run_watched(
        &self,
        plan: &Plan,
        frames: &mut Frames,
        torn: &mut bool,
        watch: &mut Watch<'_>,
    ) -> Result<(), Error> {
        for (done, step) in self.steps.iter().enumerate() {
            let op = step.op as usize;
            watch.may_go_on(op, done, self.steps.len())?;
            if let Some(before) = &mut watch.before {
                before(op);
            }
            if done == self.before_state {
                *torn = true;
            }
            let start = watch.timings.is_some().then(Instant::now);
            // SAFETY: promised by the caller.
            let result = unsafe { step.run(plan, frames) };
            if let (Some(timings), Some(start)) = (&mut watch.timings, start) {
                timings.record(op, start.elapsed());
            }
            // Whatever a kernel says that it came to, what `after` finds may be the
            // reason.
            if let Some(after) = &watch.after {
                after(op)?;
            }
            result?;
        }
        *torn = false;
        Ok(())
    }
}

/// What is asked and told around each op.
#[derive(Default)]
pub(super) struct Watch<'a> {
    pub(super) cancel: Option<&'a Cancel>,
    pub(super) deadline: Option<Instant>,
    pub(super) timings: Option<&'a mut Timings>,
    pub(super) before: Option<&'a mut (dyn FnMut(usize) + Send + Sync)>,
    pub(super) after: Option<&'a dyn Fn(usize) -> Result<(), Error>>,
}

impl Watch<'_> {
    /// Whether nobody watches.
    pub(super) fn is_idle(&self) -> bool {
        let Watch {
            cancel: None,
            deadline: None,
            timings: None,
            before: None,
            after: None,
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
}

/// What an instance's steps work on.
#[derive(Debug)]
pub(super) struct Frames {
    words: Slots,
    /// Room for the arguments of a host function.
    host_args: Vec<Arg<'static>>,
}
