//! What is done for one op, and for a row of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use super::super::{HostArg, Op, Plan};
use super::Table;
use crate::Error;
use crate::dispatch::Entry;
use crate::launch::Arg;
use crate::memory::{View, ViewMut};
use crate::pool::restore_default;
use crate::signature::DType;

/// An op, ready to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) kind: Kind,
    /// For launches with a grid of 1 in every run whose call can be made inline, the
    /// number of arguments; for all else [`NOT_ONCE`].
    pub(super) once: u8,
    /// Whether it writes a state.
    pub(super) writes_state: bool,
    pub(super) op: u32,
    /// Where its frame begins.
    pub(super) frame: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// The entry is of a kernel of the [code](super::Code) that the step is of.
    Launch(Entry),
    Copy,
    Fill,
    /// By number among the host functions.
    Host(u32),
}

/// In the place of a number of arguments: the step is no launch of one inline call.
pub(super) const NOT_ONCE: u8 = u8::MAX;

/// Runs steps in order.
///
/// Launches of one call are most of most plans, and steps with equally many arguments
/// often come in a row: such a row is a loop of its own, in which a call costs what a
/// typed call costs, and a few cycles to find the next.
///
/// # Safety
///
/// As [`Script::run`](super::Script::run), for these steps.
pub(super) unsafe fn run_all(
    plan: &Plan,
    mut steps: &[Step],
    table: Table<'_>,
) -> Result<(), Error> {
    macro_rules! rows {
        ($step:ident: $($args:literal)*) => {
            match $step.once {
                // SAFETY: promised by the caller.
                $($args => unsafe { row::<$args>(steps, table.words) },)*
                _ => {
                    // SAFETY: promised by the caller.
                    unsafe { $step.run(plan, table)? };
                    1
                }
            }
        };
    }
    while let Some(step) = steps.first() {
        let done = rows!(step: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
        steps = steps.get(done..).unwrap_or_default();
    }
    Ok(())
}

/// Runs the first steps, as long as they are launches of one inline call with `ARGS`
/// arguments, and returns how many those are.
///
/// # Safety
///
/// As [`Script::run`](super::Script::run), for these steps, whose frames lie in `words`.
#[inline(always)]
unsafe fn row<const ARGS: u8>(steps: &[Step], words: *mut u64) -> usize {
    for (done, step) in steps.iter().enumerate() {
        let Kind::Launch(entry) = step.kind else {
            return done;
        };
        if step.once != ARGS {
            return done;
        }
        // SAFETY: the frame lies within the words, and a launch's slots are behind its
        // grid. The rest is promised by the caller, and that the call takes so many
        // arguments is why the step is one of these.
        unsafe { entry.call_inline::<ARGS>(words.add(step.frame as usize + 1)) };
    }
    steps.len()
}

impl Step {
    /// # Safety
    ///
    /// As [`Script::run`](super::Script::run), for this step.
    #[inline(never)]
    pub(super) unsafe fn run(&self, plan: &Plan, table: Table<'_>) -> Result<(), Error> {
        // SAFETY: the frame lies within the words, which are touched through this
        // pointer alone.
        let frame = unsafe { table.words.add(self.frame as usize) };
        match self.kind {
            Kind::Launch(entry) => {
                // SAFETY: a launch's frame begins with its grid; the slots are behind it.
                let (grid, slots) = unsafe { (frame.read(), frame.add(1)) };
                for index in 0..grid {
                    // SAFETY: promised by the caller: the slots hold what the plan was
                    // checked for, and the grid is at most the index's maximum.
                    let status = unsafe { entry.call_at(slots, index) };
                    if status != 0 {
                        return Err(failed(self.op, status, index));
                    }
                }
                Ok(())
            }
            Kind::Copy => {
                // SAFETY: promised by the caller; the builder refuses overlap.
                unsafe { copy(plan, self.op, frame) };
                Ok(())
            }
            Kind::Fill => {
                // SAFETY: promised by the caller.
                unsafe { fill(plan, self.op, frame) };
                Ok(())
            }
            // SAFETY: promised by the caller. The room for its arguments is this op's own, and
            // an op is run by one thread.
            Kind::Host(number) => unsafe {
                let args = &mut *table.host_args[number as usize].0.get();
                host(plan, self.op, args, frame)
            },
        }
    }
}

/// Without [names](Plan::with_names), which whoever may allocate gives.
#[cold]
pub(super) fn failed(op: u32, status: i32, index: u64) -> Error {
    Error::KernelStatus {
        kernel: String::new(),
        op: Some(op as usize),
        status,
        index,
    }
}

/// # Safety
///
/// As [`Script::run`](super::Script::run), for the frame of the copy `op`.
unsafe fn copy(plan: &Plan, op: u32, frame: *const u64) {
    let Op::Copy { to, .. } = &plan.ops[op as usize] else {
        return;
    };
    // SAFETY: promised by the caller.
    unsafe {
        let (from, into) = (address(frame), address(frame.add(1)));
        std::ptr::copy_nonoverlapping(from.cast_const(), into, to.bytes);
    }
}

/// # Safety
///
/// As [`Script::run`](super::Script::run), for the frame of the fill `op`.
unsafe fn fill(plan: &Plan, op: u32, frame: *const u64) {
    fn with<const SIZE: usize>(bytes: &mut [u8], element: [u8; 8]) {
        let mut one = [0; SIZE];
        one.copy_from_slice(&element[..SIZE]);
        // What is filled is whole elements.
        bytes.as_chunks_mut().0.fill(one);
    }
    let Op::Fill { to, dtype, .. } = &plan.ops[op as usize] else {
        return;
    };
    // SAFETY: promised by the caller; the bytes belong to a buffer and were written at
    // its birth.
    let (bytes, element) = unsafe {
        let bytes = std::slice::from_raw_parts_mut(address(frame), to.bytes);
        (bytes, frame.add(1).read().to_le_bytes())
    };
    match dtype.size() {
        1 => with::<1>(bytes, element),
        2 => with::<2>(bytes, element),
        4 => with::<4>(bytes, element),
        _ => with::<8>(bytes, element),
    }
}

/// # Safety
///
/// As [`Script::run`](super::Script::run), for the frame of the host function `op`.
unsafe fn host(
    plan: &Plan,
    op: u32,
    args: &mut Vec<Arg<'static>>,
    frame: *const u64,
) -> Result<(), Error> {
    let Op::Host(call) = &plan.ops[op as usize] else {
        return Ok(());
    };
    args.clear();
    for (i, HostArg { range, access }) in call.args.iter().enumerate() {
        // SAFETY: a host function's frame has a word for each argument.
        let start = unsafe { address(frame.add(i)) };
        let start = NonNull::new(start).unwrap_or(NonNull::dangling());
        let dtype = plan.buffers[range.buffer].dtype.unwrap_or(DType::U8);
        let len = range.bytes / dtype.size();
        // SAFETY: the builder saw to it that the elements are whole and within their
        // buffer, whose memory is as the plan says, and that what is written overlaps
        // no other argument. Nothing else uses them until the function returns; it is
        // one for any lifetime, so that it can keep no argument longer.
        args.push(unsafe {
            if access.writes() {
                Arg::Write(ViewMut::from_raw(start, dtype, len))
            } else {
                Arg::Read(View::from_raw(start, dtype, len))
            }
        });
    }
    // A panic leaves what the function has written, as an error does; the run ends
    // with either.
    let outcome = catch_unwind(AssertUnwindSafe(|| call.function.call(args)));
    args.clear();
    // The ops after it are to have the same bits on whichever thread this one was.
    restore_default();
    let source = match outcome {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            // It may panic once more when it is dropped, and what that leaves may too.
            if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
                std::mem::forget(again);
            }
            format!("it panicked: {}", text.unwrap_or_default()).into()
        }
    };
    Err(Error::Host {
        function: call.function.name().to_owned(),
        op: op as usize,
        source,
    })
}

/// # Safety
///
/// `word` must be readable, and hold an address.
unsafe fn address(word: *const u64) -> *mut u8 {
    // SAFETY: promised by the caller. The address was exposed when it was put there.
    unsafe { std::ptr::with_exposed_provenance_mut(word.read() as usize) }
}
