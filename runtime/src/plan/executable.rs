//! A plan with its code and its constants.

mod code;

use std::ptr::NonNull;
use std::sync::Arc;

use super::learning::{LearnedSchedule, Learner, Scheduling, cpu_name};
use super::replay::{Replay, Script};
use super::storage::Lent;
use super::{Instance, Plan, PlanBuffer, Role, Schedule};
use crate::Error;
use crate::dispatch::Kernel;
use crate::error::Place;
use crate::memory::{Constant, Guard};
use crate::pool::Pool;
use crate::signature::DType;
pub use code::ReplacedCode;
use code::{Kin, Program};

/// A plan with its code and its constants: what instances share. Clones, and what the
/// methods `with_` make of it, share them too.
#[derive(Clone, Debug)]
pub struct Executable {
    program: Arc<Program>,
    /// What constants hold, and states at the start, for each buffer.
    contents: Arc<Vec<Option<Constant>>>,
    pool: Pool,
    scheduling: Scheduling,
    /// Whether the caller chose the schedule.
    fixed: bool,
    /// The code about which nothing is to be learned.
    provisional: Option<u32>,
    learner: Arc<Learner>,
    guard: Guard,
    separate_temps: bool,
    memory_cap: Option<usize>,
}

impl Executable {
    /// Joins a plan, which others may have as well, with a kernel for each of its kernels, in
    /// order, and with what its constants hold and its states hold at the start, by the
    /// buffer's number. A state without contents starts as zeros.
    ///
    /// # Errors
    ///
    /// [`Error::Plan`] where kernels or contents are not the plan's: another
    /// number, another name or signature, another size; a constant without contents,
    /// contents for what is given or computed. And where the plan does what only
    /// [`new_unchecked`](Self::new_unchecked) can vouch for: it takes bytes of
    /// unknown origin for `bool`, or launches a kernel with a scalar that states
    /// no bounds.
    pub fn new(
        plan: impl Into<Arc<Plan>>,
        kernels: Vec<Kernel>,
        contents: impl IntoIterator<Item = (usize, Constant)>,
    ) -> Result<Executable, Error> {
        let plan = plan.into();
        plan.check_vouched()?;
        // SAFETY: the builder notes each thing that has to be vouched for, and it
        // noted none.
        unsafe { Executable::new_unchecked(plan, kernels, contents) }
    }

    /// As [`new`](Self::new), for any plan.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), but for what has to be vouched for.
    ///
    /// # Safety
    ///
    /// What is taken for `bool`, by the plan's kernels or as its output, must be 0
    /// or 1 whenever it is, whatever untyped temps and outputs hold before they are
    /// written, and whatever is given to inputs, states and constants of another type
    /// later: who calls this answers for what safe code gives the instances. And for the
    /// values that the plan gives to scalars without stated bounds, its kernels must keep
    /// the rest of their contract.
    pub unsafe fn new_unchecked(
        plan: impl Into<Arc<Plan>>,
        kernels: Vec<Kernel>,
        contents: impl IntoIterator<Item = (usize, Constant)>,
    ) -> Result<Executable, Error> {
        let program = Program::new(plan.into(), kernels)?;
        let plan = &program.plan;
        let mut table = vec![None; plan.buffers.len()];
        for (i, content) in contents {
            let place = || Place::at("buffers", i);
            let Some(buffer) = plan.buffers.get(i) else {
                let reason = format!("contents for one of {}", plan.buffers.len());
                return Err(Error::plan(place(), reason));
            };
            check_in_place(buffer, &content)
                .map_err(|reason| Error::plan(place(), named(plan, i, &reason)))?;
            if table[i].replace(content).is_some() {
                return Err(Error::plan(place(), "contents are given twice"));
            }
        }
        for (i, (content, buffer)) in table.iter().zip(&plan.buffers).enumerate() {
            if content.is_none() && buffer.role == Role::Constant {
                let reason = named(plan, i, "a constant without contents");
                return Err(Error::plan(Place::at("buffers", i), reason));
            }
        }
        let mut kin = program.kin();
        let learner = Learner::fixed(plan, kin.serial.clone());
        let learner = kin.adopt(learner);
        drop(kin);
        Ok(Executable {
            learner,
            program: Arc::new(program),
            contents: Arc::new(table),
            pool: Pool::alone(),
            scheduling: Scheduling::default(),
            fixed: false,
            provisional: None,
            guard: Guard::Off,
            separate_temps: false,
            memory_cap: None,
        })
    }

    /// The same executable, whose instances are guarded: every buffer has pages of its
    /// own, aligned to what the plan's kernels ask for and no more. Constants are no
    /// longer shared, but copied for each instance into pages that cannot be written,
    /// and temps do not share memory.
    #[must_use]
    pub const fn with_guard(mut self, guard: Guard) -> Executable {
        self.guard = guard;
        self
    }

    /// The same executable, each of whose instances gives every temp memory of its own:
    /// for whoever suspects the memory planner, and to find what is read before it is
    /// written ([`Instance::fill_scratch`]).
    #[must_use]
    pub const fn with_separate_temps(mut self) -> Executable {
        self.separate_temps = true;
        self
    }

    /// The same executable, none of whose instances may take more than so many bytes, as
    /// [`instance_bytes`](Self::instance_bytes) counts them.
    #[must_use]
    pub const fn with_memory_cap(mut self, bytes: usize) -> Executable {
        self.memory_cap = Some(bytes);
        self
    }

    /// The same executable, whose runs may have the pool's threads. Instances that exist
    /// keep theirs. Without this, runs are on the thread that calls them.
    #[must_use]
    pub fn with_pool(mut self, pool: Pool) -> Executable {
        self.pool = pool;
        self.start_learning();
        self
    }

    /// The same executable, which comes to its schedule in another way; one that was
    /// [fixed](Self::with_schedule) is given up.
    #[must_use]
    pub fn with_scheduling(mut self, scheduling: Scheduling) -> Executable {
        self.scheduling = scheduling;
        self.fixed = false;
        self.start_learning();
        self
    }

    /// Begins anew, unless the schedule is the caller's, which is for any number of threads.
    fn start_learning(&mut self) {
        if self.fixed {
            return;
        }
        let (plan, threads) = (&self.program.plan, self.pool.threads());
        let mut kin = self.program.kin();
        let serial = kin.serial.clone();
        let learner = match self.scheduling {
            Scheduling::Learned if threads > 1 => Learner::learning(plan, threads, serial),
            _ => Learner::fixed(plan, serial),
        };
        let learner = self.waiting(learner, &kin);
        self.learner = kin.adopt(learner);
    }

    /// The same learner, which waits for other code where the present one is provisional.
    fn waiting(&self, learner: Learner, kin: &Kin) -> Learner {
        match self.provisional == Some(kin.serial.code().generation()) {
            true => learner.waiting(),
            false => learner,
        }
    }

    /// Fixes the schedule.
    fn fix(&mut self, schedule: &Schedule) -> Result<(), Error> {
        let plan = &self.program.plan;
        let mut kin = self.program.kin();
        let script = Script::new(plan, kin.serial.code().clone(), schedule.clone())?;
        self.learner = kin.adopt(Learner::fixed(plan, Arc::new(script)));
        self.fixed = true;
        Ok(())
    }

    /// The same executable, whose runs keep this schedule, and learn nothing. It must be one
    /// that [`Plan::check_schedule`] accepts. On one thread, tasks run in turn.
    ///
    /// # Errors
    ///
    /// [`Error::Schedule`] where the order breaks the plan.
    pub fn with_schedule(mut self, schedule: &Schedule) -> Result<Executable, Error> {
        self.plan().check_schedule(schedule)?;
        self.fix(schedule)?;
        Ok(self)
    }

    /// The same executable, which goes on from what was learned before, in another process
    /// perhaps. The first runs are as fast as those that were measured there; that they are
    /// is checked now and then. What was learned on another processor is learned anew.
    ///
    /// # Errors
    ///
    /// [`Error::Schedule`] where it was learned for another number of threads than the
    /// pool has, or breaks the plan, or has another number of ops.
    pub fn with_learned(mut self, learned: LearnedSchedule) -> Result<Executable, Error> {
        let threads = self.pool.threads();
        if learned.threads != threads {
            let reason = format!(
                "it was learned for {} threads, here are {threads}",
                learned.threads
            );
            return Err(Error::Schedule { reason });
        }
        self.plan().check_learned(&learned)?;
        let plan = &self.program.plan;
        let mut kin = self.program.kin();
        let serial = kin.serial.clone();
        let script = Script::new(plan, serial.code().clone(), learned.schedule.clone())?;
        if learned.cpu != cpu_name() {
            drop(kin);
            return Ok(self.with_scheduling(Scheduling::Learned));
        }
        let learner = Learner::learned(plan, learned, Arc::new(script), serial);
        let learner = self.waiting(learner, &kin);
        self.learner = kin.adopt(learner);
        drop(kin);
        self.fixed = false;
        Ok(self)
    }

    /// The same plan with the same constants, threads and, fixed, the schedule that it follows
    /// now, and with [kernels that do nothing](Kernel::empty): what its runs take is what the
    /// runtime takes for itself, its copies, fills and host functions.
    ///
    /// # Errors
    ///
    /// [`Error::Schedule`] where the schedule is one that breaks the plan.
    pub fn with_empty_kernels(&self) -> Result<Executable, Error> {
        let kernels = self.plan().kernels.iter();
        let kernels = kernels.map(|k| Kernel::empty(k.entry.clone(), k.signature.clone()));
        let mut empty = self.clone();
        empty.program = Arc::new(Program::new(self.plan().clone(), kernels.collect())?);
        empty.provisional = None;
        empty.with_schedule(&self.schedule())
    }

    /// Whether runs are still being measured to learn a schedule: the first ones, and a few
    /// more where the machine, its work or the code has changed. Guarded and observed runs teach
    /// nothing, and [provisional](Self::with_provisional_code) code is not learned about.
    #[must_use]
    pub fn is_learning(&self) -> bool {
        self.learner.asks()
    }

    /// What was learned so far; `None` while the first runs are being measured, and where
    /// nothing is learned.
    #[must_use]
    pub fn learned(&self) -> Option<LearnedSchedule> {
        self.learner.report()
    }

    /// The schedule that runs have now.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        self.learner.current().schedule().clone()
    }

    /// The threads that its runs may have.
    #[must_use]
    pub const fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(super) fn learner(&self) -> &Learner {
        &self.learner
    }

    /// As [`with_schedule`](Self::with_schedule), for any order of all ops, on the calling
    /// thread alone: to find out what becomes of one that breaks the plan.
    ///
    /// # Errors
    ///
    /// [`Error::Schedule`] where an op is not there, is there twice, or is cut in parts that
    /// it does not have.
    ///
    /// # Safety
    ///
    /// Where a kernel's contract rests on what earlier ops of the plan wrote, as where
    /// it takes bytes for `bool`, it must hold in this order too.
    pub unsafe fn with_schedule_unchecked(
        mut self,
        schedule: &Schedule,
    ) -> Result<Executable, Error> {
        let (plan, mut seen) = (self.plan(), vec![false; self.plan().ops.len()]);
        for task in schedule.phases.iter().flatten() {
            plan.check_parts(task)?;
        }
        let known = schedule.ops().all(|op| {
            let seen = seen.get_mut(op);
            seen.is_some_and(|seen| !std::mem::replace(seen, true))
        });
        if !known || seen.contains(&false) {
            return Err(Error::Schedule {
                reason: "it does not run each op of the plan once".into(),
            });
        }
        self.fix(schedule)?;
        self.pool = Pool::alone();
        Ok(self)
    }

    /// The same executable with other contents for the constants of this name, or the
    /// states, at the start. Instances that exist keep what they have.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`] where neither a constant nor a state has the name, and
    /// [`Error::Plan`] where the contents do not fit it.
    pub fn with_weight(mut self, name: &str, content: &Constant) -> Result<Executable, Error> {
        let roles = [Role::Constant, Role::State];
        let found = self
            .plan()
            .buffers_named("constant or state", &roles, name)?;
        for &i in &found {
            let checked = check_in_place(&self.plan().buffers[i], content);
            checked.map_err(|reason| {
                Error::plan(Place::at("buffers", i), format!("`{name}`: {reason}"))
            })?;
        }
        let contents = Arc::make_mut(&mut self.contents);
        for i in found {
            contents[i] = Some(content.clone());
        }
        Ok(self)
    }

    /// How its instances are guarded.
    #[must_use]
    pub const fn guard(&self) -> Guard {
        self.guard
    }

    /// Its plan.
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.program.plan
    }

    /// What each constant holds, and each state at the start, by the buffer's number.
    #[must_use]
    pub fn contents(&self) -> &[Option<Constant>] {
        &self.contents
    }

    pub(super) fn replay(&self) -> &Replay {
        &self.program.replay
    }

    pub(super) fn separates_temps(&self) -> bool {
        self.separate_temps || self.guard != Guard::Off
    }

    /// Whether two are of the same plan, as the `with_` methods leave it.
    pub(super) fn is_kin(&self, other: &Executable) -> bool {
        Arc::ptr_eq(&self.program, &other.program)
    }

    /// The bytes that an instance takes: as [`PlanMemory::instance`] says, where
    /// temps share memory; more where they are separate, and where constants are copied
    /// because they are guarded. What guards themselves take is not counted.
    ///
    /// [`PlanMemory::instance`]: super::PlanMemory::instance
    #[must_use]
    pub fn instance_bytes(&self) -> usize {
        let memory = self.plan().memory();
        let constants = match self.guard {
            Guard::Off => 0,
            _ => memory.bytes(Role::Constant),
        };
        memory.instance - memory.arena + self.temp_bytes() + constants
    }

    fn temp_bytes(&self) -> usize {
        let memory = self.plan().memory();
        if self.separates_temps() {
            memory.unplanned
        } else {
            memory.arena
        }
    }

    /// A set of mutable memory to run the plan in. Code and constants are shared, the
    /// latter where they are not [guarded](Self::with_guard).
    ///
    /// # Errors
    ///
    /// [`Error::MemoryCap`] where it would take more than it [may](Self::with_memory_cap),
    /// and [`Error::OutOfMemory`] where the system has not that much.
    pub fn instance(&self) -> Result<Instance, Error> {
        self.check_cap(0)?;
        Instance::new(self.clone(), Lent::new())
    }

    /// An instance that has some of its inputs and outputs in memory of the caller's, by the
    /// number of the buffer: for whoever has memory already and runs the plan over it again and
    /// again, as a framework does with its tensors. Inputs that lie there count as given.
    ///
    /// An input or output that lies there is written and read there, and not through the
    /// instance, but for outputs that are read. What no run binds to [other
    /// memory](super::Run::inputs) is used where it was lent.
    ///
    /// # Errors
    ///
    /// As [`instance`](Self::instance); and [`Error::Run`] where a buffer is neither an input
    /// nor an output, is lent twice, or where its memory is not as aligned as the plan's kernels
    /// [need it](super::PlanBuffer::align).
    ///
    /// # Safety
    ///
    /// For as long as the instance lives, each address must be that of as many bytes as the
    /// buffer has, which may be read and, of an output, be written. Two of them may overlap, or
    /// overlap other memory of a run, only where the plan writes neither. While the instance runs,
    /// and while a view is held that it gave, nothing else may write this memory; nor read,
    /// during a run, what the plan writes. What the plan takes for `bool` must be 0 or 1 in it.
    pub unsafe fn instance_over(
        &self,
        memory: impl IntoIterator<Item = (usize, NonNull<u8>)>,
    ) -> Result<Instance, Error> {
        let plan = self.plan();
        let (mut lent, mut bytes) = (Lent::new(), 0);
        for (i, start) in memory {
            let buffer = plan.buffers.get(i).ok_or_else(|| {
                Error::run(format!("memory for buffer {i} of {}", plan.buffers.len()))
            })?;
            let refuse = |reason: &str| {
                let label = plan.buffer_label(i);
                Err(Error::run(format!("memory for {label}: {reason}")))
            };
            if !matches!(buffer.role, Role::Input | Role::Output) {
                let role = buffer.role.name();
                return refuse(&format!("it is a {role}, and has memory of its own"));
            }
            let past = start.addr().get() % buffer.align;
            if past != 0 && buffer.bytes > 0 {
                let align = buffer.align;
                return refuse(&format!(
                    "it is {past} bytes past a multiple of {align}, as which the plan's kernels \
                     need it"
                ));
            }
            if lent.insert(i, start).is_some() {
                return refuse("it is lent twice");
            }
            bytes += buffer.bytes;
        }
        self.check_cap(bytes)?;
        Instance::new(self.clone(), lent)
    }

    /// Whether an instance may take as many bytes as it does, without those that are lent.
    fn check_cap(&self, lent: usize) -> Result<(), Error> {
        let Some(cap) = self.memory_cap else {
            return Ok(());
        };
        let (needed, temps) = (
            self.instance_bytes().saturating_sub(lent),
            self.temp_bytes(),
        );
        self.plan().check_needed(needed, temps, cap)
    }
}

/// The same, beginning with the buffer's name, where it has one.
fn named(plan: &Plan, buffer: usize, reason: &str) -> String {
    match &plan.buffers[buffer].name {
        Some(name) => format!("`{name}`: {reason}"),
        None => reason.to_owned(),
    }
}

/// Whether contents may be a buffer's, wherever they lie.
pub(crate) fn check_content(buffer: &PlanBuffer, content: &Constant) -> Result<(), String> {
    if !matches!(buffer.role, Role::Constant | Role::State) {
        return Err(format!(
            "its role is {}; contents are for constants and states",
            buffer.role.name()
        ));
    }
    if content.bytes() != buffer.bytes {
        return Err(format!(
            "contents of {} bytes for {}",
            content.bytes(),
            buffer.bytes
        ));
    }
    if let Some(dtype) = buffer.dtype
        && content.dtype() != Some(dtype)
    {
        let got = content.dtype().map_or("bytes", DType::name);
        return Err(format!("contents of {got} for {dtype}"));
    }
    Ok(())
}

/// Whether contents may be a buffer's where they lie.
pub(super) fn check_in_place(buffer: &PlanBuffer, content: &Constant) -> Result<(), String> {
    check_content(buffer, content)?;
    let address = content.start().addr().get();
    // A state is copied from wherever it lies.
    if buffer.role == Role::Constant && !address.is_multiple_of(buffer.align) {
        return Err(format!(
            "contents that are not aligned to {} bytes",
            buffer.align
        ));
    }
    Ok(())
}
