//! Code that is replaced between two runs.
//!
//! Whatever depends on the code alone is in a script: its steps, and the kernels that they
//! call. So other code is other scripts, which are all made before any run sees one of them:
//! a run finds the new one where it finds what was learned, by a look at a number. What depends
//! on signatures, the frames of every instance, stays as it is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::super::learning::Learner;
use super::super::replay::{Code, Replay, Script};
use super::super::{Plan, Schedule};
use super::Executable;
use crate::Error;
use crate::dispatch::Kernel;
use crate::error::Place;

/// A plan and its code.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) plan: Arc<Plan>,
    pub(super) replay: Replay,
    kin: Mutex<Kin>,
}

/// What executables of one program have in common that changes.
#[derive(Debug)]
pub(super) struct Kin {
    /// The plan's own order, with the code that there is.
    pub(super) serial: Arc<Script>,
    /// What each of them has learned.
    learners: Vec<Weak<Learner>>,
}

impl Program {
    pub(super) fn new(plan: Arc<Plan>, kernels: Vec<Kernel>) -> Result<Program, Error> {
        check_kernels(&plan, &kernels)?;
        let replay = Replay::new(&plan, &kernels)?;
        let serial = serial(&plan, &replay, kernels, 0)?;
        let kin = Kin {
            serial,
            learners: Vec::new(),
        };
        Ok(Program {
            plan,
            replay,
            kin: Mutex::new(kin),
        })
    }

    /// For whoever makes scripts: there is no other code meanwhile. No run asks for it.
    pub(super) fn kin(&self) -> MutexGuard<'_, Kin> {
        self.kin.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kin {
    /// Has other code come to those who follow this learner too.
    pub(super) fn adopt(&mut self, learner: Learner) -> Arc<Learner> {
        let learner = Arc::new(learner);
        self.learners.retain(|learner| learner.strong_count() > 0);
        self.learners.push(Arc::downgrade(&learner));
        learner
    }
}

fn serial(
    plan: &Plan,
    replay: &Replay,
    kernels: Vec<Kernel>,
    generation: u32,
) -> Result<Arc<Script>, Error> {
    let code = Arc::new(Code::new(plan, replay, kernels, generation));
    Script::new(plan, code, Schedule::serial(plan.order())).map(Arc::new)
}

/// Whether these are a plan's kernels.
fn check_kernels(plan: &Plan, kernels: &[Kernel]) -> Result<(), Error> {
    if kernels.len() != plan.kernels.len() {
        let reason = format!("{} of them for {}", kernels.len(), plan.kernels.len());
        return Err(Error::plan("kernels", reason));
    }
    for (i, (kernel, expected)) in kernels.iter().zip(&plan.kernels).enumerate() {
        let (name, entry) = (kernel.name(), &expected.entry);
        if *kernel.signature() != expected.signature {
            let reason = format!("`{name}` has another signature than the plan's");
            return Err(Error::plan(Place::at("kernels", i), reason));
        }
        if name != entry {
            let reason = format!("it is `{name}`, the plan's is `{entry}`");
            return Err(Error::plan(Place::at("kernels", i), reason));
        }
    }
    Ok(())
}

/// The code that [`Executable::replace_code`] has replaced. Runs that began with it go on with
/// it, and an instance keeps it until it runs again.
///
/// What the last of them and this do not keep any longer is freed, by whoever lets go of it
/// last. So that it is no run that has to do it, this is kept until the code is
/// [not in use](Self::is_in_use), and dropped then; it may also be dropped at once.
#[derive(Debug)]
pub struct ReplacedCode {
    code: Arc<Code>,
    /// One of each, so that others that there are, are in use.
    scripts: Vec<Arc<Script>>,
}

impl ReplacedCode {
    fn new(before: Arc<Script>, given_up: Vec<Arc<Script>>) -> ReplacedCode {
        let code = before.code().clone();
        let mut scripts = vec![before];
        scripts.extend(given_up);
        scripts.sort_by_key(Arc::as_ptr);
        scripts.dedup_by(|a, b| Arc::ptr_eq(a, b));
        ReplacedCode { code, scripts }
    }

    /// Whether an instance, or a run that is on, has the code still. Once it has not, none ever
    /// has again.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        // Each script has the code; what is being made of it has it too.
        let is_used = |script| Arc::strong_count(script) > 1;
        self.scripts.iter().any(is_used) || Arc::strong_count(&self.code) > self.scripts.len() + 1
    }

    /// The kernels that were replaced, in the plan's order.
    #[must_use]
    pub fn kernels(&self) -> Arc<[Kernel]> {
        self.code.kernels().clone()
    }
}

impl Executable {
    /// Gives the plan other code: a kernel for each of its kernels, in order, as
    /// [`new`](Self::new) takes them. It is the code of all executables that were made from one,
    /// clones and what the methods `with_` make, and of all their instances, each from its next
    /// run on; a run that is on ends with the code that it began with. Any thread may do it at
    /// any time, a host function in a run too: it waits for no run, and no run for it. All that
    /// new code asks for is made here; a run that finds new code takes a pointer to it. Variables
    /// of a kernel's own, where such kernels [may be](crate::RuntimeBuilder::admit_state), begin
    /// anew with other code; states of the plan stay what they are.
    ///
    /// Runs keep the schedule that they have, also a chosen one. As other code has other costs,
    /// one that was learned is learned anew in the next runs, and so is one that is being
    /// learned; see [`with_provisional_code`](Self::with_provisional_code).
    ///
    /// A run that begins in the very moment in which another thread exchanges code or schedule,
    /// and does not get on with it, may have the code before once more.
    ///
    /// # Errors
    ///
    /// [`Error::Plan`] where the kernels are not the plan's, as for [`new`](Self::new), and
    /// where only [`new_unchecked`](Self::new_unchecked) takes the plan: for that there is
    /// [`replace_code_unchecked`](Self::replace_code_unchecked). All stays as it is then.
    pub fn replace_code(&self, kernels: Vec<Kernel>) -> Result<ReplacedCode, Error> {
        self.plan().check_vouched()?;
        // SAFETY: the builder notes each thing that has to be vouched for, and it noted none.
        // Whoever loaded the kernels vouched for what their signatures say, which are the
        // plan's; more the plan takes from no code.
        unsafe { self.replace_code_unchecked(kernels) }
    }

    /// As [`replace_code`](Self::replace_code), for any plan.
    ///
    /// # Errors
    ///
    /// As [`replace_code`](Self::replace_code), but for what has to be vouched for.
    ///
    /// # Safety
    ///
    /// What [`new_unchecked`](Self::new_unchecked) asks for must hold with these kernels too, in
    /// place of those that the executable was made with. For what the instances hold by then,
    /// the kernels before have to answer.
    pub unsafe fn replace_code_unchecked(
        &self,
        kernels: Vec<Kernel>,
    ) -> Result<ReplacedCode, Error> {
        let Program { plan, replay, .. } = &*self.program;
        check_kernels(plan, &kernels)?;
        let mut kin = self.program.kin();
        let generation = kin.serial.code().generation().wrapping_add(1);
        let serial = serial(plan, replay, kernels, generation)?;
        let mut given_up = Vec::new();
        for learner in kin.learners.iter().filter_map(Weak::upgrade) {
            given_up.extend(learner.replace_code(plan, &serial));
        }
        let before = std::mem::replace(&mut kin.serial, serial);
        Ok(ReplacedCode::new(before, given_up))
    }

    /// The same executable, which measures nothing on the code that it has now, and learns no
    /// schedule before there is other code: for code that was made quickly, to be
    /// [replaced](Self::replace_code) by better. Until then, runs are in the plan's own order,
    /// or in one that was [learned before](Self::with_learned), which the better code keeps.
    ///
    /// What was learned so far is given up, so that this is to be said before it is said what
    /// was learned.
    #[must_use]
    pub fn with_provisional_code(mut self) -> Executable {
        self.provisional = Some(self.code_generation());
        self.start_learning();
        self
    }

    /// How often the code was [replaced](Self::replace_code) that runs begin with now: 0 at
    /// first.
    #[must_use]
    pub fn code_generation(&self) -> u32 {
        self.learner.current().code().generation()
    }

    /// The kernels that runs begin with now, in the plan's order.
    #[must_use]
    pub fn kernels(&self) -> Arc<[Kernel]> {
        self.learner.current().code().kernels().clone()
    }
}
