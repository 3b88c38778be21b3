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

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::time::Instant;

use super::builder::as_grid;
use super::timings::Timings;
use super::{BufferRange, Cancel, HostArg, Op, Plan, Role, Value};
use crate::Error;
use crate::dispatch::{Entry, Kernel, Slots};
use crate::launch::Arg;
use crate::memory::{View, ViewMut};
use crate::signature::{Convention, DType, Number, Scalar};

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
    /// Kernels whose frames point into themselves, and where their slots begin.
    bound: Vec<(u32, u32)>,
    /// The most arguments that a host function has.
    host_args: usize,
}

/// An op, ready to run.
#[derive(Clone, Copy, Debug)]
struct Step {
    kind: Kind,
    /// For launches with a grid of 1 in every run whose call can be made inline, the
    /// number of arguments; for all else [`NOT_ONCE`].
    once: u8,
    op: u32,
    /// Where its frame begins.
    frame: u32,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// The entry is of a kernel of the executable's.
    Launch(Entry),
    Copy,
    Fill,
    Host,
}

/// In the place of a number of arguments: the step is no launch of one inline call.
const NOT_ONCE: u8 = u8::MAX;

// SAFETY: entries are of kernels, which any thread may call; what else is here are
// numbers.
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
    /// The steps of a plan's ops in an order.
    pub(super) fn new(
        plan: &Plan,
        kernels: &[Kernel],
        order: impl Iterator<Item = usize>,
    ) -> Result<Replay, Error> {
        let mut making = Making {
            kernels,
            words: Vec::new(),
            addresses: Vec::new(),
            computed: Vec::new(),
            known: HashMap::new(),
            bound: Vec::new(),
        };
        let mut steps = Vec::with_capacity(plan.ops.len());
        let (mut before_state, mut host_args) = (None, 0);
        for op in order {
            let frame = making.here()?;
            let kind = making.step(&plan.ops[op])?;
            if let Op::Host(call) = &plan.ops[op] {
                host_args = host_args.max(call.args.len());
            }
            let mut touches = plan.ops[op].touches(&plan.kernels);
            let writes_state = touches.any(|touch| {
                touch.access.writes() && plan.buffers[touch.range.buffer].role == Role::State
            });
            if writes_state {
                before_state.get_or_insert(steps.len());
            }
            let once = match (&plan.ops[op], kind) {
                (Op::Launch(launch), Kind::Launch(entry)) if launch.grid == 1.into() => {
                    entry.inline_args()
                }
                _ => None,
            };
            steps.push(Step {
                kind,
                once: once.unwrap_or(NOT_ONCE),
                // A plan has no more ops than 32 bits count.
                op: op as u32,
                frame,
            });
        }
        // Any further frame would have been refused.
        making.here()?;
        let Making {
            words,
            mut addresses,
            computed,
            bound,
            ..
        } = making;
        addresses.sort_by_key(|(buffer, address)| (*buffer, address.word));
        let mut address_starts = vec![0; plan.buffers.len() + 1];
        for (buffer, _) in &addresses {
            address_starts[buffer + 1] += 1;
        }
        for i in 0..plan.buffers.len() {
            address_starts[i + 1] += address_starts[i];
        }
        Ok(Replay {
            before_state: before_state.unwrap_or(steps.len()),
            steps,
            words: words.into(),
            addresses: addresses.into_iter().map(|(_, address)| address).collect(),
            address_starts,
            computed,
            bound,
            host_args,
        })
    }

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
        for &(kernel, word) in &self.bound {
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

/// Runs steps in order.
///
/// Launches of one call are most of most plans, and steps with equally many arguments
/// often come in a row: such a row is a loop of its own, in which a call costs what a
/// typed call costs, and a few cycles to find the next.
///
/// # Safety
///
/// As [`Replay::run`], for these steps.
unsafe fn run_all(plan: &Plan, mut steps: &[Step], frames: &mut Frames) -> Result<(), Error> {
    macro_rules! rows {
        ($step:ident: $($args:literal)*) => {
            match $step.once {
                // SAFETY: promised by the caller.
                $($args => unsafe { row::<$args>(steps, frames.words.as_ptr()) },)*
                _ => {
                    // SAFETY: promised by the caller.
                    unsafe { $step.run(plan, frames)? };
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
/// As [`Replay::run`], for these steps, whose frames lie in `words`.
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
    /// As [`Replay::run`], for this step.
    #[inline(never)]
    unsafe fn run(&self, plan: &Plan, frames: &mut Frames) -> Result<(), Error> {
        // SAFETY: the frame lies within the words, which are touched through this
        // pointer alone.
        let frame = unsafe { frames.words.as_ptr().add(self.frame as usize) };
        match self.kind {
            Kind::Launch(entry) => {
                // SAFETY: a launch's frame begins with its grid; the slots are behind it.
                let (grid, slots) = unsafe { (frame.read(), frame.add(1)) };
                for index in 0..grid {
                    // SAFETY: promised by the caller: the slots hold what the plan was
                    // checked for, and the grid is at most the index's maximum.
                    let status = unsafe { entry.call_at(slots, index) };
                    if status != 0 {
                        return Err(failed(plan, self.op, status, index));
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
            // SAFETY: promised by the caller.
            Kind::Host => unsafe { host(plan, self.op, frames, frame) },
        }
    }
}

#[cold]
fn failed(plan: &Plan, op: u32, status: i32, index: u64) -> Error {
    let op = op as usize;
    let kernel = match &plan.ops[op] {
        Op::Launch(launch) => plan.kernels[launch.kernel].entry.clone(),
        _ => plan.op_label(op),
    };
    Error::KernelStatus {
        kernel,
        op: Some(op),
        status,
        index,
    }
}

/// # Safety
///
/// As [`Replay::run`], for the frame of the copy `op`.
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
/// As [`Replay::run`], for the frame of the fill `op`.
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
/// As [`Replay::run`], for the frame of the host function `op`.
unsafe fn host(plan: &Plan, op: u32, frames: &mut Frames, frame: *const u64) -> Result<(), Error> {
    let Op::Host(call) = &plan.ops[op as usize] else {
        return Ok(());
    };
    let args = &mut frames.host_args;
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
    let source = match outcome {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
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

/// A replay that is being made.
struct Making<'a> {
    kernels: &'a [Kernel],
    words: Vec<u64>,
    addresses: Vec<(usize, Address)>,
    computed: Vec<(Value, Vec<Use>)>,
    /// Which of `computed` a value is, by how it is written down.
    known: HashMap<String, usize>,
    bound: Vec<(u32, u32)>,
}

impl Making<'_> {
    /// The next word.
    fn here(&self) -> Result<u32, Error> {
        let here = u32::try_from(self.words.len());
        here.map_err(|_| Error::plan("ops", "more arguments than 32 bits count"))
    }

    fn step(&mut self, op: &Op) -> Result<Kind, Error> {
        Ok(match op {
            Op::Launch(launch) => {
                let kernel = &self.kernels[launch.kernel];
                self.word(&launch.grid, Word::Grid)?;
                let slots = self.words.len();
                self.words.resize(slots + kernel.slots(), 0);
                if kernel.signature().convention() == Convention::Packed {
                    self.bound.push((launch.kernel as u32, slots as u32));
                }
                for (slot, arg) in kernel.buffer_slots().zip(&launch.args) {
                    self.address(slots + slot, arg);
                }
                let params = kernel.signature().scalars().zip(&launch.scalars);
                for (slot, (param, value)) in kernel.scalar_slots().zip(params) {
                    self.set(slots + slot, value, Word::Scalar(param.dtype))?;
                }
                Kind::Launch(kernel.entry())
            }
            Op::Copy { from, to } => {
                self.push_address(from);
                self.push_address(to);
                Kind::Copy
            }
            Op::Fill { to, dtype, value } => {
                self.push_address(to);
                self.word(value, Word::Scalar(*dtype))?;
                Kind::Fill
            }
            Op::Host(call) => {
                for arg in &call.args {
                    self.push_address(&arg.range);
                }
                Kind::Host
            }
        })
    }

    fn push_address(&mut self, range: &BufferRange) {
        self.words.push(0);
        self.address(self.words.len() - 1, range);
    }

    fn address(&mut self, word: usize, range: &BufferRange) {
        let address = Address {
            word: word as u32,
            offset: range.offset,
        };
        self.addresses.push((range.buffer, address));
    }

    fn word(&mut self, value: &Value, kind: Word) -> Result<(), Error> {
        self.words.push(0);
        self.set(self.words.len() - 1, value, kind)
    }

    fn set(&mut self, word: usize, value: &Value, kind: Word) -> Result<(), Error> {
        if value.is_constant() {
            let number = value.evaluate(&[]).map_err(Error::run)?;
            self.words[word] = kind.of(number)?;
            return Ok(());
        }
        let next = self.computed.len();
        let at = *self.known.entry(format!("{value:?}")).or_insert(next);
        if at == next {
            self.computed.push((value.clone(), Vec::new()));
        }
        let word = word as u32;
        self.computed[at].1.push(Use { word, kind });
        Ok(())
    }
}
