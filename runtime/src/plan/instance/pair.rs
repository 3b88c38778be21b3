//! A run in which each op is run twice, by the code of two executables, from the same bytes.
//!
//! There is one set of memory. What an op will overwrite is kept aside, the op is run by the
//! left code, memory and what was kept change places, and the op is run by the right code: it
//! finds every byte as the left one did, at the same address. Then memory gets the left results
//! back, and the run goes on with these. So what differs in one op says nothing about others,
//! and no more is kept than what one op writes.

use std::sync::Arc;

use super::super::replay::{Asked, Code, Script};
use super::super::{BufferRange, Executable, Op, Plan, Role, Run};
use super::Instance;
use super::walk::check_slack;
use crate::Error;
use crate::memory::{BUFFER_ALIGN, Buffer, Guard, View};
use crate::pool::DefaultFloatEnv;
use crate::signature::DType;

/// In how many parts a grid is cut that so many threads share: some for each, so that who comes late
/// finds one. One thread takes it whole.
pub(crate) fn parts_for(threads: usize) -> u32 {
    const EACH: u32 = 4;
    match u32::try_from(threads).unwrap_or(u32::MAX) {
        0 | 1 => 1,
        threads => threads.saturating_mul(EACH),
    }
}

/// One of the two of a [`Pair`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is what its name says
pub enum Side {
    Left,
    Right,
}

impl Side {
    /// `left` or `right`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Side::Left => "left",
            Side::Right => "right",
        }
    }
}

/// An instance of the left of two executables, in whose runs each op is run by the code of both.
///
/// Where an executable's [pool](Executable::with_pool) has more than one thread, launches of its
/// side are cut into parts that the pool's threads share.
#[derive(Debug)]
pub struct Pair {
    instance: Instance,
    /// The right kernels, as the left plan's.
    code: Arc<Code>,
    right: Executable,
    aside: Buffer,
}

/// What a [`Pair`]'s run tells of.
#[derive(Debug)]
pub enum PairEvent<'a> {
    /// An op is about to be run by the code of this side.
    Begins {
        /// The op.
        op: usize,
        /// The side.
        side: Side,
    },
    /// An op was run by both.
    Ran(RanTwice<'a>),
}

/// An op that was run by the code of both sides.
#[derive(Debug)]
pub struct RanTwice<'a> {
    /// The op.
    pub op: usize,
    /// How it failed, on the left and on the right.
    pub failed: [Option<&'a Error>; 2],
    /// All that it may write, in the order of its arguments, as both have left it.
    pub written: Vec<Written<'a>>,
}

/// What an op has written to a part of a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// Where it lies.
    pub range: BufferRange,
    /// The type of the elements, as the kernel has it; as the buffer has it where there is no
    /// kernel.
    pub dtype: DType,
    /// What the left code has left there; `bool` as `u8`, since nobody knows what wrong code
    /// writes.
    pub left: View<'a>,
    /// What the right code has left there, likewise.
    pub right: View<'a>,
}

impl Pair {
    /// A new instance of `left`, beside the code of `right`. Constants and initial states are
    /// those of `left`.
    ///
    /// # Errors
    ///
    /// As [`Plan::check_alike`] where the ops of one plan are not those of the other, and as
    /// [`Executable::instance`].
    pub fn new(left: &Executable, right: &Executable) -> Result<Pair, Error> {
        let plan = left.plan();
        plan.check_alike(right.plan())?;
        let kernels = right.kernels().to_vec();
        let most = (0..plan.ops.len()).map(|op| places(plan, op).1).max();
        Ok(Pair {
            instance: left.instance()?,
            code: Arc::new(Code::new(plan, left.replay(), kernels, 0)),
            right: right.clone(),
            aside: Buffer::zeroed(DType::U8, most.unwrap_or(0))?,
        })
    }

    /// The instance, to be given inputs and looked at. What it holds is what the left code has
    /// left.
    #[must_use]
    pub const fn instance(&self) -> &Instance {
        &self.instance
    }

    /// As [`Instance::set_input`].
    ///
    /// # Errors
    ///
    /// As [`Instance::set_input`].
    pub fn set_input(&mut self, name: &str, elements: View<'_>) -> Result<(), Error> {
        self.instance.set_input(name, elements)
    }

    /// As [`Instance::reset`].
    pub fn reset(&mut self) {
        self.instance.reset();
    }

    /// Runs the plan once, in the plan's order, each op by both codes, with a value for each
    /// variable, and tells `visit` of it.
    ///
    /// Where an op fails on the right alone, the run goes on with what the left one has done. A
    /// host function is called twice as well.
    ///
    /// # Errors
    ///
    /// As [`Instance::run`] for what the left code does, and [`Error::Overrun`] for either, where
    /// the instance is guarded; `visit` was told of it then. And whatever `visit` returns, which
    /// ends the run.
    pub fn run(
        &mut self,
        variables: &[(&str, i64)],
        visit: &mut dyn FnMut(PairEvent<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.begin(variables)?;
        let _default = DefaultFloatEnv::enter();
        // What ends the run by a panic leaves it so.
        self.instance.running = true;
        let left = self.instance.script.code().clone();
        let (mut result, mut torn) = (Ok(()), false);
        for op in self.instance.executable.plan().order() {
            torn |= self.writes_state(op);
            result = self.step(op, &left, visit);
            if result.is_err() {
                break;
            }
        }
        self.instance.running = false;
        self.instance.torn = torn && result.is_err();
        result
    }

    /// Checks what a run is given, and has the frames know it.
    fn begin(&mut self, variables: &[(&str, i64)]) -> Result<(), Error> {
        let instance = &mut self.instance;
        if instance.is_torn() {
            return Err(Error::Torn);
        }
        let plan = instance.executable.plan();
        instance.computed = false;
        instance.variables = plan.variable_values(variables)?;
        instance.bind(&Run::default())?;
        let replay = instance.executable.replay();
        replay.compute(&mut instance.frames, &instance.variables)?;
        instance.computed = true;
        instance.look();
        Ok(())
    }

    fn writes_state(&self, op: usize) -> bool {
        let plan = self.instance.executable.plan();
        let mut touches = plan.touches(op);
        touches.any(|t| t.access.writes() && plan.buffers[t.range.buffer].role == Role::State)
    }

    fn step(
        &mut self,
        op: usize,
        left: &Arc<Code>,
        visit: &mut dyn FnMut(PairEvent<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (places, _) = places(self.instance.executable.plan(), op);
        let begins = |side| PairEvent::Begins { op, side };
        visit(begins(Side::Left))?;
        self.exchange(&places, Exchange::Keep);
        let on_left = self.run_op(op, Side::Left, left);
        self.exchange(&places, Exchange::Swap);
        let told = visit(begins(Side::Right)).and_then(|()| {
            let right = self.code.clone();
            let on_right = self.run_op(op, Side::Right, &right);
            visit(PairEvent::Ran(RanTwice {
                op,
                failed: [on_left.as_ref().err(), on_right.as_ref().err()],
                written: places.iter().map(|place| self.written(place)).collect(),
            }))?;
            match on_right {
                // What it has written beside its arguments would be found again after each op.
                Err(error @ Error::Overrun { .. }) => Err(error),
                _ => Ok(()),
            }
        });
        self.exchange(&places, Exchange::Restore);
        on_left.and(told)
    }

    /// Runs one op by this code.
    fn run_op(&mut self, op: usize, side: Side, code: &Arc<Code>) -> Result<(), Error> {
        let Instance {
            frames,
            storage,
            executable,
            ..
        } = &mut self.instance;
        // The names in errors of kernels, and host functions, are the side's; memory, and who has
        // written beside it, are the left one's.
        let (plan, pool) = match side {
            Side::Left => (executable.plan(), executable.pool()),
            Side::Right => (self.right.plan(), self.right.pool()),
        };
        let parts = parts_for(pool.threads()).clamp(1, plan.max_parts(op));
        let script = Script::of_op(plan, code.clone(), op, parts)?;
        // Pools are different ones, so that where the last run was says nothing.
        let (torn, hint) = (&mut false, &mut 0);
        // SAFETY: as in a run of the instance: the ops before this one in the plan's order have
        // run, by code that does what the same signatures say, and memory holds what they left;
        // the frames depend on signatures alone, and are those of the instance, whose plan is
        // alike with that of the right code in all that an op is. Whoever made the executables
        // vouched for their kernels, for all that such a plan does with them. Parts of a launch
        // are independent, as the signature says; no more runs at the same time.
        let ran = unsafe {
            match script.is_shared() {
                true => script.run_with_team(plan, frames, torn, Asked::default(), (pool, hint)),
                false => script.run(plan, frames, torn),
            }
        };
        if executable.guard() != Guard::Off {
            let slack = check_slack(executable, storage, &Run::default(), op);
            slack.map_err(|error| executable.plan().with_names(error))?;
        }
        ran.map_err(|error| plan.with_names(error))
    }

    /// Exchanges what an op writes with what is kept aside of it.
    fn exchange(&mut self, places: &[Place], how: Exchange) {
        let bases = &self.instance.bases;
        let Ok(aside) = self.aside.as_mut_slice::<u8>() else {
            return;
        };
        for place in places {
            let kept = &mut aside[place.aside..place.aside + place.range.bytes];
            // SAFETY: the range lies within a buffer of the instance, as the builder checked,
            // which is no constant and no input, since an op writes it; nothing runs, and no
            // view of it is given out, while the pair is borrowed. What is kept aside is memory
            // of its own. Ranges that an op writes do not overlap.
            let memory = unsafe {
                let start = bases[place.range.buffer].byte_add(place.range.offset);
                std::slice::from_raw_parts_mut(start.as_ptr(), place.range.bytes)
            };
            match how {
                Exchange::Keep => kept.copy_from_slice(memory),
                Exchange::Swap => kept.swap_with_slice(memory),
                Exchange::Restore => memory.copy_from_slice(kept),
            }
        }
    }

    /// What the op whose place this is has left there: the left code aside, the right one in
    /// memory.
    fn written(&self, place: &Place) -> Written<'_> {
        let shown = match place.dtype {
            DType::Bool => DType::U8,
            dtype => dtype,
        };
        let len = place.range.bytes / shown.size();
        let aside = self.aside.as_view().start();
        // SAFETY: as many bytes are kept there, and the pair is borrowed for as long as the view.
        let left = unsafe { View::from_raw(aside.byte_add(place.aside), shown, len) };
        let right = self.instance.address(&place.range);
        // SAFETY: the range lies within a buffer of the instance, which is borrowed likewise;
        // nothing runs meanwhile, and every byte is a value of a type that is no `bool`.
        let right = unsafe { View::from_raw(right, shown, len) };
        Written {
            range: place.range,
            dtype: place.dtype,
            left,
            right,
        }
    }
}

#[derive(Clone, Copy)]
enum Exchange {
    /// It is kept aside.
    Keep,
    /// Memory has what was aside, and the other way round.
    Swap,
    /// Memory has what was aside.
    Restore,
}

/// A part of a buffer that an op writes.
#[derive(Clone, Copy, Debug)]
struct Place {
    range: BufferRange,
    dtype: DType,
    /// Where it is kept aside.
    aside: usize,
}

/// What an op writes, and how many bytes are kept aside of it.
fn places(plan: &Plan, op: usize) -> (Vec<Place>, usize) {
    let typed = |range: &BufferRange| {
        let dtype = plan.buffers[range.buffer].dtype;
        let fits = |dtype: &DType| {
            range.offset.is_multiple_of(dtype.size()) && range.bytes.is_multiple_of(dtype.size())
        };
        dtype.filter(fits).unwrap_or(DType::U8)
    };
    let dtypes: Vec<Option<DType>> = match &plan.ops[op] {
        Op::Launch(launch) => {
            let params = plan.kernels[launch.kernel].signature.buffers();
            params.map(|param| Some(param.dtype)).collect()
        }
        Op::Fill { dtype, .. } => vec![Some(*dtype)],
        Op::Copy { .. } | Op::Host(_) => Vec::new(),
    };
    let (mut places, mut bytes) = (Vec::new(), 0);
    for (i, touch) in plan.touches(op).enumerate() {
        if !touch.access.writes() {
            continue;
        }
        places.push(Place {
            range: touch.range,
            dtype: dtypes
                .get(i)
                .copied()
                .flatten()
                .unwrap_or_else(|| typed(&touch.range)),
            aside: bytes,
        });
        bytes += touch.range.bytes.next_multiple_of(BUFFER_ALIGN);
    }
    (places, bytes)
}
