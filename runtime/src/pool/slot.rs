//! Where one run at a time meets those who help with it.

use super::platform::{Gate, Platform, Word};
use super::word::{
    EPOCH, MAX_UNITS, OWNER, SLEEPERS, TAKEN, UNCLAIMED, UNFINISHED, phases_since, unclaimed,
    unfinished,
};

/// What a team can be given to do: phases one after another, each of units that any
/// threads run in any order.
pub(crate) trait Job: Sync {
    /// How many phases there are.
    fn phases(&self) -> u32;

    /// How many units a phase has: 1 to [`MAX_UNITS`].
    fn units(&self, phase: u32) -> u32;

    /// Runs a unit. It is called once for each unit of each phase, from any thread, and
    /// after all units of the phases before have returned. It must not unwind: the process
    /// is aborted, since others may be at work in the same memory.
    fn run(&self, phase: u32, unit: u32);

    /// How many nanoseconds are saved where others help, if that is known. For a job that says
    /// so, nobody is woken before it pays.
    fn gain(&self) -> Option<u64> {
        None
    }
}

/// A job that is being run, as those see it who help. It has cache lines of its own: the
/// owner's stack around it is written all the time.
#[repr(align(128))]
pub(super) struct Run<'a> {
    job: &'a dyn Job,
    /// The slot's word when the run began: its epoch is that of the phase before the first.
    since: u64,
}

/// Where one run at a time meets those who help with it. It outlives all runs, so that
/// who comes too late finds a word that says so.
// Two cache lines, since processors fetch them in pairs.
#[repr(align(128))]
pub(super) struct Slot<P: Platform> {
    word: P::Word,
    /// The address of the [`Run`].
    run: P::Word,
    /// Where the owner sleeps.
    gate: P::Gate,
}

impl<P: Platform> Slot<P> {
    pub(super) fn new() -> Slot<P> {
        Slot {
            word: P::Word::new(0),
            run: P::Word::new(0),
            gate: P::Gate::new(),
        }
    }

    /// The word, by a look that orders nothing.
    pub(super) fn peek(&self) -> u64 {
        self.word.peek()
    }

    /// Takes the slot for a run, if it has none.
    pub(super) fn take(&self) -> Option<Taken<'_, P>> {
        let mut word = self.word.peek();
        while word & TAKEN == 0 {
            match self.word.exchange(word, word | TAKEN) {
                Ok(()) => {
                    return Some(Taken {
                        slot: self,
                        since: word,
                    });
                }
                Err(now) => word = now,
            }
        }
        None
    }

    /// Claims a unit, of whatever run and phase the word has by then; `word` is what it
    /// was when last seen.
    pub(super) fn claim(&self, mut word: u64) -> Option<Claim<'_, P>> {
        while unclaimed(word) > 0 {
            match self.word.exchange(word, word - UNCLAIMED) {
                Ok(()) => {
                    let address = self.run.peek() as usize;
                    let run: *const Run<'_> = std::ptr::with_exposed_provenance(address);
                    // SAFETY: see `Claim::job`: there is one from this moment on.
                    let (since, job) = unsafe { ((*run).since, (*run).job) };
                    let phase = phases_since(word, since) - 1;
                    return Some(Claim {
                        slot: self,
                        run,
                        phase,
                        unit: job.units(phase) - unclaimed(word),
                    });
                }
                Err(now) => word = now,
            }
        }
        None
    }

    /// Wakes the owner, if `word` says that it sleeps.
    fn wake_owner(&self, word: u64) {
        if word & OWNER != 0 && self.word.clear(OWNER) & OWNER != 0 {
            self.gate.post(1);
        }
    }

    /// Says that threads which could help are asleep, and returns what the word was.
    pub(super) fn set_sleepers(&self) -> u64 {
        self.word.set(SLEEPERS)
    }

    /// Says that none are.
    pub(super) fn clear_sleepers(&self) {
        self.word.clear(SLEEPERS);
    }
}

/// A slot with a run, in the hands of the run's owner.
pub(super) struct Taken<'s, P: Platform> {
    slot: &'s Slot<P>,
    since: u64,
}

impl<'s, P: Platform> Taken<'s, P> {
    pub(super) fn slot(&self) -> &'s Slot<P> {
        self.slot
    }

    /// The run of a job in this slot.
    pub(super) fn run<'a>(&self, job: &'a dyn Job) -> Run<'a> {
        Run {
            job,
            since: self.since,
        }
    }

    /// The first turn of a run, in which nothing is open yet.
    ///
    /// # Safety
    ///
    /// The run must stay where it is until the slot [is over](Self::is_over), or until the
    /// turn was given up without opening a phase.
    pub(super) unsafe fn begin(&self, run: &Run<'_>) -> Turn<'s, P> {
        let run = std::ptr::from_ref(run);
        // Who claims a unit reads it after the word in which that phase was opened, which
        // hands it over.
        self.slot.run.put(run.expose_provenance() as u64);
        Turn {
            slot: self.slot,
            run: run.cast(),
            open: None,
        }
    }

    /// Whether the run, of so many phases, is over by this word.
    pub(super) fn is_over(&self, word: u64, phases: u32) -> bool {
        phases_since(word, self.since) > phases
    }

    /// The word; what was done by those who changed it is done.
    pub(super) fn look(&self) -> u64 {
        self.slot.word.load()
    }

    /// Has the owner sleep until a phase opens or the run ends, unless there is something
    /// to claim already, or it is over.
    pub(super) fn sleep(&self, phases: u32) {
        let slot = self.slot;
        let word = slot.word.set(OWNER);
        let may_sleep = unclaimed(word) == 0 && !self.is_over(word, phases);
        // Where the bit is gone by now, someone saw it, and opens the gate.
        if may_sleep || slot.word.clear(OWNER) & OWNER == 0 {
            slot.gate.wait();
        }
    }

    /// Gives the slot back.
    pub(super) fn release(self) {
        self.slot.word.clear(TAKEN);
    }
}

/// A unit that is this thread's to run. Its run cannot end before it is finished.
#[must_use]
pub(super) struct Claim<'s, P: Platform> {
    slot: &'s Slot<P>,
    run: *const Run<'s>,
    phase: u32,
    unit: u32,
}

impl<'s, P: Platform> Claim<'s, P> {
    /// The job that the unit is of.
    pub(super) fn job(&self) -> &dyn Job {
        // SAFETY: it was published before the phase was opened whose unit this is, and the
        // claim was an acquiring read-modify-write of that word or of one that followed on
        // it by nothing but read-modify-writes. The owner keeps it until the run is over,
        // which it cannot be before this unit is finished: the phase ends with the
        // last of its units. What is returned borrows the claim, which finishing consumes.
        unsafe { (*self.run).job }
    }

    /// Runs the unit.
    pub(super) fn run(&self) {
        self.job().run(self.phase, self.unit);
    }

    /// Says that the unit has run.
    pub(super) fn finish(self) -> Finished<'s, P> {
        let word = self.slot.word.sub(UNFINISHED);
        match unfinished(word) {
            1 => Finished::Last(Turn {
                slot: self.slot,
                run: self.run,
                open: Some(self.phase),
            }),
            _ => Finished::Others(word - UNFINISHED),
        }
    }
}

/// What becomes of a thread that has finished a unit.
pub(super) enum Finished<'s, P: Platform> {
    /// Units of the same phase are not finished yet. This is the word as it was left.
    Others(u64),
    /// It was the last of its phase.
    Last(Turn<'s, P>),
}

/// The run in the hands of one thread: nothing of it is claimed, and nothing can be, until
/// this thread opens a phase.
#[must_use]
pub(super) struct Turn<'s, P: Platform> {
    slot: &'s Slot<P>,
    run: *const Run<'s>,
    /// The phase that was open last.
    open: Option<u32>,
}

impl<'s, P: Platform> Turn<'s, P> {
    /// The job, and the phase that comes next.
    pub(super) fn next(&self) -> (&dyn Job, u32) {
        // SAFETY: as for a claim. The owner keeps the run until it is over, which it is when
        // whoever has this turn says so and gives it up; in the first turn, which is the
        // owner's own, it promised to.
        let job = unsafe { (*self.run).job };
        (job, self.open.map_or(0, |open| open + 1))
    }

    pub(super) fn slot(&self) -> &'s Slot<P> {
        self.slot
    }

    /// Opens a phase of several units, of which the first is this thread's. Also returns
    /// what the word was.
    pub(super) fn open(self, phase: u32, units: u32) -> (Claim<'s, P>, u64) {
        let units = u64::from(units.clamp(1, MAX_UNITS));
        let opened = UNCLAIMED * (units - 1) + UNFINISHED * units;
        let epochs = self.epochs(phase);
        let Turn { slot, run, .. } = self;
        let word = slot.word.add(epochs.wrapping_add(opened));
        slot.wake_owner(word);
        let claim = Claim {
            slot,
            run,
            phase,
            unit: 0,
        };
        (claim, word)
    }

    /// Ends the run after its last phase.
    pub(super) fn end(self) {
        let slot = self.slot;
        let phases = self.next().0.phases();
        let word = slot.word.add(self.epochs(phases));
        slot.wake_owner(word);
    }

    /// What brings the word's epoch to that of a phase.
    fn epochs(&self, phase: u32) -> u64 {
        let open = self.open.map_or(-1, i64::from);
        EPOCH.wrapping_mul((i64::from(phase) - open) as u64)
    }
}
