//! One set of a plan's mutable memory.

mod pair;
mod walk;

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

pub(crate) use pair::parts_for;
pub use pair::{Pair, PairEvent, RanTwice, Side, Written};

use super::executable::check_in_place;
use super::replay::{Clocks, Frames, Script};
use super::run::Bound;
use super::storage::{Lent, Storage};
use super::{BufferRange, Executable, InputId, OutputId, Plan, Role, Run};
use crate::Error;
use crate::error::Place;
use crate::memory::{Buffer, Constant, Filling, View, ViewMut};

/// One set of a plan's mutable memory: it runs the plan, one run at a time. Any number
/// of instances of one executable run at the same time, on threads of their own.
#[derive(Debug)]
pub struct Instance {
    // Frames hold addresses into the storage and into the executable's constants;
    // neither moves or goes while the instance lives. Those of memory that is the
    // caller's are used in the run that it was bound for, and in no other.
    frames: Frames,
    storage: Storage,
    /// Where the frames have each buffer.
    bases: Vec<NonNull<u8>>,
    inputs: Vec<Input>,
    /// What the last run bound, and room for what the next one does.
    bound: Vec<Bound>,
    binding: Vec<Bound>,
    /// The run's variables, in the plan's order, and whether the frames know them.
    variables: Vec<i64>,
    computed: bool,
    /// Room for variables that are not checked yet.
    chosen: Vec<Option<i64>>,
    torn: bool,
    /// Whether a run is on: in a process that was forked meanwhile it stays so.
    running: bool,
    observer: Option<Observer>,
    /// What runs follow, and which version of it the executable had.
    script: Arc<Script>,
    version: u32,
    /// Which code the last run had.
    generation: u32,
    /// In how many runs one is measured again, if ever.
    check_in: Option<u32>,
    /// Where the pool had the last run.
    hint: usize,
    clocks: Clocks,
    executable: Executable,
}

/// The numbers of a plan's buffers of a role, in their order.
fn of_role(plan: &Plan, role: Role) -> impl Iterator<Item = usize> {
    let all = plan.buffers.iter().enumerate();
    all.filter(move |(_, b)| b.role == role).map(|(i, _)| i)
}

/// An input. They stand in the order of their buffers.
#[derive(Clone, Copy, Debug)]
struct Input {
    buffer: usize,
    /// Whether the caller has given it, for all runs or for this one.
    given: bool,
    bound: bool,
}

/// Who is told of each op.
pub(crate) struct Observer(pub(crate) Box<dyn FnMut(usize) + Send + Sync>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

// SAFETY: the addresses are of memory that the instance owns, of constants that it keeps
// alive and that nothing writes, of memory that a run has borrowed and that no other
// uses, or of memory that whoever lent it for good vouched for; an instance is run through `&mut`, so by one thread at a time.
unsafe impl Send for Instance {}
// SAFETY: through a shared reference, an instance gives out views for reading
// only, and nothing writes meanwhile; not to lent memory either, as whoever lent it vouched.
unsafe impl Sync for Instance {}

/// What the states of an instance held at some time: see [`Instance::save`].
#[derive(Clone, Debug)]
pub struct SavedStates {
    executable: Executable,
    torn: bool,
    /// The bytes of each state, by the buffer's number.
    states: Vec<(usize, Box<[u8]>)>,
}

impl Instance {
    pub(super) fn new(executable: Executable, lent: Lent) -> Result<Instance, Error> {
        let plan = executable.plan();
        let given: Vec<_> = of_role(plan, Role::Input)
            .map(|buffer| Input {
                buffer,
                given: lent.contains_key(&buffer),
                bound: false,
            })
            .collect();
        let storage = Storage::new(&executable, lent)?;
        // Before the script, so that what comes between them is found again.
        let version = executable.learner().version();
        let script = executable.learner().current();
        let mut frames = executable.replay().frames(script.code().kernels());
        let bases: Vec<_> = (0..plan.buffers.len())
            .map(|buffer| storage.base(&executable, buffer))
            .collect();
        for (buffer, base) in bases.iter().enumerate() {
            executable.replay().set_base(&mut frames, buffer, *base);
        }
        let bindable = given.len() + plan.outputs.len();
        Ok(Instance {
            inputs: given,
            bound: Vec::with_capacity(bindable),
            binding: Vec::with_capacity(bindable),
            variables: plan.variables.iter().map(|v| v.min).collect(),
            computed: false,
            chosen: vec![None; plan.variables.len()],
            torn: false,
            running: false,
            observer: None,
            version,
            generation: script.code().generation(),
            script,
            check_in: executable.learner().check_every(),
            hint: 0,
            clocks: Clocks::new(plan.ops.len()),
            frames,
            storage,
            bases,
            executable,
        })
    }

    /// The executable that it is an instance of.
    #[must_use]
    pub const fn executable(&self) -> &Executable {
        &self.executable
    }

    /// The [generation](Executable::code_generation) of the code that the last run had; before
    /// the first, of that which the instance was made with.
    #[must_use]
    pub const fn code_generation(&self) -> u32 {
        self.generation
    }

    /// The elements of an input, for writing; a `bool` is written through
    /// [`ViewMut::copy_from`]. The input counts as given, and stays so.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`] where the plan has no input of that name.
    pub fn input(&mut self, name: &str) -> Result<ViewMut<'_>, Error> {
        let id = self.executable.plan().find_input(name)?;
        self.input_at(id)
    }

    /// As [`input`](Self::input), for an input that was found before.
    ///
    /// # Errors
    ///
    /// [`Error::Run`] where this plan has none such.
    pub fn input_at(&mut self, id: InputId) -> Result<ViewMut<'_>, Error> {
        self.give(id)?;
        self.own_mut(id.0)
    }

    /// Copies an input's elements from the caller.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`] where the plan has no input of that name, [`Error::Buffer`]
    /// where its elements are of another type or number; it does not count as
    /// given then.
    pub fn set_input(&mut self, name: &str, elements: View<'_>) -> Result<(), Error> {
        let id = self.executable.plan().find_input(name)?;
        self.own_mut(id.0)?.copy_from(elements)?;
        self.give(id)
    }

    fn give(&mut self, id: InputId) -> Result<(), Error> {
        let found = self
            .inputs
            .binary_search_by_key(&id.0, |input| input.buffer);
        let found = found.map_err(|_| Error::run("an input of another plan"))?;
        self.inputs[found].given = true;
        Ok(())
    }

    /// The memory of a buffer that shares none.
    fn own_mut(&mut self, buffer: usize) -> Result<ViewMut<'_>, Error> {
        let own = self.storage.own_mut(buffer);
        let own = own.ok_or_else(|| {
            let label = self.executable.plan().buffer_label(buffer);
            Error::run(format!(
                "{label} lies in memory of the caller's: write it there"
            ))
        })?;
        Ok(own.as_view_mut())
    }

    /// The elements of an output, as the last run left them.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`] where the plan has no output of that name; [`Error::Run`]
    /// where it was bound to memory of the caller's for the last run.
    pub fn output(&self, name: &str) -> Result<View<'_>, Error> {
        self.output_at(self.executable.plan().find_output(name)?)
    }

    /// As [`output`](Self::output), for an output that was found before.
    ///
    /// # Errors
    ///
    /// [`Error::Run`] where this plan has none such, or it was bound to memory of the
    /// caller's for the last run.
    pub fn output_at(&self, id: OutputId) -> Result<View<'_>, Error> {
        let output = self.executable.plan().outputs.get(id.0);
        let output = output.ok_or_else(|| Error::run("an output of another plan"))?;
        if self.bound.iter().any(|b| b.buffer == output.range.buffer) {
            return Err(Error::run(format!(
                "the output `{}` was bound to memory of the caller's for the last run",
                output.name
            )));
        }
        let start = self.address(&output.range);
        let len = output.range.bytes / output.dtype.size();
        // SAFETY: the range lies within a buffer of this instance, which is
        // borrowed for as long as the view, and elements of this type fill it.
        Ok(unsafe { View::from_raw(start, output.dtype, len) })
    }

    /// The elements of a state, by the name of its buffer.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`] where the plan has no state of that name, and [`Error::Run`]
    /// where it has several.
    pub fn state(&self, name: &str) -> Result<View<'_>, Error> {
        let i = self.find_state(name)?;
        let own = self.storage.own(i).map(crate::Buffer::as_view);
        own.ok_or_else(|| Error::run("a state without memory"))
    }

    /// The elements of a state, by the name of its buffer, for writing.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`] where the plan has no state of that name, and [`Error::Run`]
    /// where it has several.
    pub fn state_mut(&mut self, name: &str) -> Result<ViewMut<'_>, Error> {
        let i = self.find_state(name)?;
        self.own_mut(i)
    }

    fn find_state(&self, name: &str) -> Result<usize, Error> {
        let plan = self.executable.plan();
        match plan.buffers_named("state", &[Role::State], name)?[..] {
            [one] => Ok(one),
            ref several => Err(Error::run(format!(
                "{} states are named `{name}`",
                several.len()
            ))),
        }
    }

    /// Runs the plan once, with a value for each variable: on this thread, with the help of
    /// the executable's [pool](Executable::with_pool).
    ///
    /// # Errors
    ///
    /// [`Error::Run`] where a variable has no value, or two, or one outside its bounds, or
    /// an input was never given, [`Error::UnknownName`] where a name is not a variable's,
    /// and [`Error::Torn`] after a run that stopped halfway: nothing has run then.
    /// [`Error::KernelStatus`] and [`Error::Host`] where a kernel or a host function
    /// fails; the ops after it have not run, but for some that nothing orders after it, where
    /// there are several threads. Of several that fail it is the first in the order of the
    /// schedule. [`Error::Forked`] where a host function has forked this process. Of a guarded instance [`Error::Overrun`],
    /// where a kernel has written beside one of its arguments. The instance is torn by
    /// these if an op had written a state, and can be run again if not.
    pub fn run(&mut self, variables: &[(&str, i64)]) -> Result<(), Error> {
        let result = self.run_unnamed(variables);
        result.map_err(|error| self.executable.plan().with_names(error))
    }

    /// As [`run`](Self::run), but errors of kernels are without [names](Plan::with_names): also a
    /// run that fails by one allocates nothing.
    pub(crate) fn run_unnamed(&mut self, variables: &[(&str, i64)]) -> Result<(), Error> {
        self.executable.plan().choose(variables, &mut self.chosen)?;
        for (value, chosen) in self.variables.iter_mut().zip(&self.chosen) {
            if let Some(chosen) = *chosen
                && *value != chosen
            {
                *value = chosen;
                self.computed = false;
            }
        }
        self.walk(&mut Run::default())
    }

    /// Runs the plan once, as `run` asks: with memory of the caller's
    /// in the place of inputs and outputs, with an end, or measured.
    ///
    /// Nothing is allocated between the first op and the last, or before, where all goes
    /// well.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), and [`Error::Run`] where memory of the caller's does not fit,
    /// [`Error::Cancelled`] and [`Error::DeadlinePassed`] where the run was stopped; they
    /// tear the instance as a kernel that fails does.
    pub fn run_with(&mut self, mut run: Run<'_, '_>) -> Result<(), Error> {
        let plan = self.executable.plan();
        plan.check_values(run.variables)?;
        // Without variables there is nothing to compare, and comparing nothing takes
        // 80 ns: the addresses of empty vectors are no memory, which `bcmp` trips over.
        if !run.variables.is_empty() && self.variables != run.variables {
            self.variables.copy_from_slice(run.variables);
            self.computed = false;
        }
        let result = self.walk(&mut run);
        result.map_err(|error| self.executable.plan().with_names(error))
    }

    /// Has every run from now on call `observer` with the number of each op, right
    /// before it runs: for whoever must know where a run is that does not come back. One
    /// that panics leaves the states as a run that failed does.
    pub fn set_observer(&mut self, observer: impl FnMut(usize) + Send + Sync + 'static) {
        self.observer = Some(Observer(Box::new(observer)));
    }

    /// That a run with these variables would begin.
    pub(crate) fn check_ready(&mut self, variables: &[(&str, i64)]) -> Result<(), Error> {
        if self.is_torn() {
            return Err(Error::Torn);
        }
        self.executable.plan().choose(variables, &mut self.chosen)?;
        self.bind(&Run::default())
    }

    /// That all that a run leaves is in memory of the instance's own, and that no code keeps state,
    /// for whose lock a copy of this process might wait for ever.
    pub(crate) fn check_own_results(&self) -> Result<(), Error> {
        let plan = self.executable.plan();
        let lent = of_role(plan, Role::Output).find(|i| self.storage.own(*i).is_none());
        if let Some(lent) = lent {
            let label = plan.buffer_label(lent);
            return Err(Error::run(format!(
                "{label} lies in memory of the caller's, which a child has a copy of: its results \
                 would be lost"
            )));
        }
        let kernels = self.executable.kernels();
        match kernels.iter().find(|kernel| kernel.keeps_state()) {
            None => Ok(()),
            Some(kernel) => Err(Error::run(format!(
                "kernel `{}` keeps state, which a child would change a copy of",
                kernel.name()
            ))),
        }
    }

    /// Has runs call another observer, or none, and returns the one before.
    pub(crate) const fn replace_observer(
        &mut self,
        observer: Option<Observer>,
    ) -> Option<Observer> {
        std::mem::replace(&mut self.observer, observer)
    }

    /// The buffers that a run may change and that are looked at after it, with their memory:
    /// states, and outputs that are not the caller's.
    pub(crate) fn results(&mut self) -> impl Iterator<Item = (usize, &mut Buffer)> {
        let plan = self.executable.plan();
        self.storage
            .all_own_mut()
            .filter(|(i, _)| matches!(plan.buffers[*i].role, Role::State | Role::Output))
    }

    /// Fills temps and outputs, of whose contents no op may know anything before it
    /// has written them; of a guarded instance, also the slack beside every buffer.
    /// If two runs after two fillings differ, something was read that was never
    /// written. Inputs, constants and states keep what they hold.
    ///
    /// A temp that shares memory with others finds what these wrote in the same run, and
    /// no filling: to find all, have them [separate](Executable::with_separate_temps).
    ///
    /// # Errors
    ///
    /// [`Error::System`] where the rights of a guarded constant's memory cannot be set.
    pub fn fill_scratch(&mut self, filling: Filling) -> Result<(), Error> {
        self.storage.fill_scratch(&self.executable, filling)
    }

    /// Gives the memory of the temps back to the system, until the next run: for an
    /// instance that waits for long. Temps that are [separate](Executable::with_separate_temps)
    /// or [guarded](Executable::with_guard) stay.
    pub fn trim(&mut self) {
        self.storage.trim();
    }

    /// Has one of this instance's constants hold something else from now on. Other
    /// instances keep theirs.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`] where no constant has that name, [`Error::Plan`] where the contents
    /// do not fit it; [`Error::OutOfMemory`] and [`Error::System`] where it is guarded,
    /// and copied.
    pub fn replace_constant(&mut self, name: &str, content: &Constant) -> Result<(), Error> {
        let plan = self.executable.plan();
        let guard = self.executable.guard();
        let mut replacements = Vec::new();
        for i in plan.buffers_named("constant", &[Role::Constant], name)? {
            let buffer = &plan.buffers[i];
            check_in_place(buffer, content).map_err(|reason| {
                Error::plan(Place::at("buffers", i), format!("`{name}`: {reason}"))
            })?;
            let replacement = self.storage.replacement(i, buffer, content, guard)?;
            replacements.push((i, replacement));
        }
        for (i, replacement) in replacements {
            self.storage.replace(i, replacement);
            let base = self.storage.base(&self.executable, i);
            self.bases[i] = base;
            self.executable.replay().set_base(&mut self.frames, i, base);
        }
        Ok(())
    }

    /// Whether a run stopped after it had written a state, or was on when this process was
    /// forked from another.
    #[must_use]
    pub const fn is_torn(&self) -> bool {
        self.torn || self.running
    }

    /// Accepts the states as a stopped run left them.
    pub const fn accept_torn(&mut self) {
        self.torn = false;
        self.running = false;
    }

    /// Puts every state back to what it was at the start.
    pub fn reset(&mut self) {
        let executable = &self.executable;
        let contents = executable.plan().buffers.iter().zip(executable.contents());
        for (i, (buffer, content)) in contents.enumerate() {
            match content {
                _ if buffer.role != Role::State => {}
                Some(content) => self.storage.copy(i, content),
                None => {
                    if let Some(own) = self.storage.own_mut(i) {
                        // Zero is a value of every element type.
                        own.fill([0; 8]);
                    }
                }
            }
        }
        self.accept_torn();
    }

    /// What the states hold now, to be restored later, here or in another instance of
    /// the same executable. Of a torn instance it is what the stopped run left, and tears
    /// what it is restored to.
    #[must_use]
    pub fn save(&self) -> SavedStates {
        let buffers = self.executable.plan().buffers.iter().enumerate();
        let states = buffers.filter(|(_, b)| b.role == Role::State);
        let saved = states.filter_map(|(i, _)| {
            let bytes = self.storage.own(i)?.as_view().as_bytes();
            Some((i, bytes.into()))
        });
        SavedStates {
            states: saved.collect(),
            torn: self.is_torn(),
            executable: self.executable.clone(),
        }
    }

    /// Has the states hold what was saved. The instance is no longer torn, unless the one
    /// was that they were saved from.
    ///
    /// # Errors
    ///
    /// [`Error::Run`] where it was saved from an instance of another executable.
    pub fn restore(&mut self, saved: &SavedStates) -> Result<(), Error> {
        if !self.executable.is_kin(&saved.executable) {
            return Err(Error::run(
                "the states were saved from an instance of another executable",
            ));
        }
        for (i, bytes) in &saved.states {
            if let Some(own) = self.storage.own_mut(*i) {
                own.overwrite(bytes);
            }
        }
        self.torn = saved.torn;
        self.running = false;
        Ok(())
    }

    /// Where a checked range lies. What is a constant must only be read there.
    pub(crate) fn address(&self, range: &BufferRange) -> NonNull<u8> {
        // SAFETY: the range lies within the buffer, as the builder checked, and the
        // buffer's memory is as long as the plan says, as the executable did.
        unsafe { self.bases[range.buffer].byte_add(range.offset) }
    }
}
