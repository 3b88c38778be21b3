//! The runs of a team, and the threads that help with them.

use std::time::Duration;

use super::delays::Delays;
use super::platform::{Gate, Platform, Spin, Word};
use super::slot::{Claim, Finished, Job, Slot, Taken, Turn};
use super::word::{SLEEPERS, TAKEN, unclaimed};

/// In the word of absent helpers: nobody is to sleep any more.
const CLOSED: u64 = 1 << 63;

/// What it costs a thread to wake another, in nanoseconds: 9 to 10 µs here (the first launch after 2 ms
/// of serial work, `cargo bench --bench team`). Zero has helpers woken whenever they sleep.
const WAKING: u64 = 10_000;

/// How long threads wait awake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spins {
    /// While a run is on.
    pub(super) in_run: Duration,
    /// While none is.
    pub(super) between_runs: Duration,
}

/// The runs of a team, and the threads that help with them.
pub(super) struct Board<P: Platform> {
    slots: Box<[Slot<P>]>,
    /// How many helpers are away, and can be summoned; [`CLOSED`].
    absent: P::Word,
    /// How many nanoseconds the jobs since helpers were last fetched would have saved with them.
    missed: P::Word,
    summons: Summons<P>,
    spins: Spins,
    delays: Option<Delays>,
}

/// How a helper that is away is fetched.
pub(super) enum Summons<P: Platform> {
    /// It waits at a gate.
    Gate(P::Gate),
    /// It is told to attend.
    Call(Box<dyn Fn(u32) + Send + Sync>),
}

/// The owner of a run waits for threads that are not in this process: it was forked from
/// the one in which they are.
#[derive(Debug)]
pub(crate) struct Forked;

impl<P: Platform> Board<P> {
    pub(super) fn new(
        slots: usize,
        absent: u32,
        summons: Summons<P>,
        spins: Spins,
        delays: Option<Delays>,
    ) -> Board<P> {
        let board = Board {
            slots: (0..slots.next_power_of_two())
                .map(|_| Slot::new())
                .collect(),
            absent: P::Word::new(absent.into()),
            missed: P::Word::new(0),
            summons,
            spins,
            delays,
        };
        for slot in &board.slots {
            slot.set_sleepers();
        }
        board
    }

    /// Runs a job, in the slot that `hint` says if that is free, and returns when it is
    /// done. Where all slots are taken, the calling thread is on its own.
    ///
    /// # Errors
    ///
    /// [`Forked`] where `is_here` says that the helpers are not, and some of them have units.
    pub(super) fn lead(
        &self,
        hint: &mut usize,
        job: &dyn Job,
        is_here: &dyn Fn() -> bool,
    ) -> Result<(), Forked> {
        let guard = AbortOnUnwind;
        let result = match self.take(hint) {
            Some(taken) => self.lead_in(taken, job, is_here),
            None => {
                run_alone(job);
                Ok(())
            }
        };
        std::mem::forget(guard);
        result
    }

    fn take(&self, hint: &mut usize) -> Option<Taken<'_, P>> {
        for i in 0..self.slots.len() {
            let at = self.at(*hint, i);
            if let Some(taken) = self.slots[at].take() {
                *hint = at;
                return Some(taken);
            }
        }
        None
    }

    fn lead_in(
        &self,
        taken: Taken<'_, P>,
        job: &dyn Job,
        is_here: &dyn Fn() -> bool,
    ) -> Result<(), Forked> {
        let run = taken.run(job);
        // SAFETY: this returns when the run is over, or when there is no thread but this
        // one that could use it. It does not unwind.
        let turn = unsafe { taken.begin(&run) };
        let mut claim = self.advance(turn);
        loop {
            if let Some(claim) = claim {
                self.work(taken.slot(), claim);
            }
            claim = match self.wait(&taken, job.phases(), is_here)? {
                Some(claim) => Some(claim),
                None => break,
            };
        }
        taken.release();
        Ok(())
    }

    /// Waits for something to claim in a run, or for its end.
    fn wait<'s>(
        &self,
        taken: &Taken<'s, P>,
        phases: u32,
        is_here: &dyn Fn() -> bool,
    ) -> Result<Option<Claim<'s, P>>, Forked> {
        let (mut spin, mut looks) = (P::Spin::new(), 0_u32);
        loop {
            // However long it is told to stay awake.
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(1 << 16) && !is_here() {
                return Err(Forked);
            }
            let word = taken.look();
            if taken.is_over(word, phases) {
                return Ok(None);
            }
            if unclaimed(word) > 0 {
                self.delay();
                if let Some(claim) = taken.slot().claim(word) {
                    return Ok(Some(claim));
                }
            }
            if !spin.goes_on(self.spins.in_run) {
                if !is_here() {
                    return Err(Forked);
                }
                taken.sleep(phases);
                spin = P::Spin::new();
            }
        }
    }

    /// Runs a claimed unit, and what can be claimed after it in the same slot.
    fn work<'s>(&self, slot: &'s Slot<P>, claim: Claim<'s, P>) {
        let mut next = Some(claim);
        while let Some(claim) = next {
            claim.run();
            self.delay();
            next = match claim.finish() {
                Finished::Last(turn) => self.advance(turn),
                Finished::Others(word) => {
                    self.delay();
                    slot.claim(word)
                }
            };
        }
    }

    /// Goes on with a run that this thread has to itself: runs phases of one unit, opens
    /// the next that has several and claims the first of them, or ends the run.
    fn advance<'s>(&self, turn: Turn<'s, P>) -> Option<Claim<'s, P>> {
        let (job, mut phase) = turn.next();
        let phases = job.phases();
        while phase < phases {
            let units = job.units(phase);
            if units > 1 {
                let slot = turn.slot();
                let (claim, word) = turn.open(phase, units);
                self.delay();
                if word & SLEEPERS != 0 && self.pays(claim.job().gain()) {
                    self.rouse(slot, units - 1);
                }
                return Some(claim);
            }
            job.run(phase, 0);
            phase += 1;
        }
        turn.end();
        None
    }

    /// Whether helpers that sleep are to be woken for a job: once those that went without them
    /// have lost what waking one costs. So of one helper no more is lost than twice what can be
    /// helped, however long the next jobs are and whenever they come.
    fn pays(&self, gain: Option<u64>) -> bool {
        let Some(gain) = gain else { return true };
        let missed = self.missed.peek().saturating_add(gain);
        let pays = missed >= WAKING;
        // Jobs that are led at the same time may lose each other's part.
        self.missed.put(if pays { 0 } else { missed });
        pays
    }

    /// Fetches up to `wanted` helpers.
    #[cold]
    fn rouse(&self, slot: &Slot<P>, wanted: u32) {
        slot.clear_sleepers();
        let (taken, rest) = self.take_absent(wanted);
        if rest > 0 {
            slot.set_sleepers();
        }
        if taken > 0 {
            match &self.summons {
                Summons::Gate(gate) => gate.post(taken),
                Summons::Call(call) => call(taken),
            }
        }
    }

    /// Takes up to `wanted` from the absent: they are as good as back. Returns how many,
    /// and how many are left.
    fn take_absent(&self, wanted: u32) -> (u32, u32) {
        let mut absent = self.absent.peek();
        loop {
            let count = (absent & !CLOSED) as u32;
            let taken = count.min(wanted);
            if taken == 0 {
                return (0, count);
            }
            match self.absent.exchange(absent, absent - u64::from(taken)) {
                Ok(()) => return (taken, count - taken),
                Err(now) => absent = now,
            }
        }
    }

    /// The life of a helper: works on whatever run has something to claim, and is away
    /// when none has for long enough. Returns when the board is closed, or, where helpers
    /// are called, when it is away.
    pub(super) fn serve(&self) {
        let guard = AbortOnUnwind;
        let mut at = 0;
        loop {
            self.stay(&mut at);
            match (self.leave(), &self.summons) {
                (Left::Not, _) => {}
                (Left::Away, Summons::Gate(gate)) => gate.wait(),
                (Left::Away, Summons::Call(_)) | (Left::Closed, _) => break,
            }
        }
        std::mem::forget(guard);
    }

    /// Works until there has been nothing to do for long enough.
    fn stay(&self, at: &mut usize) {
        let mut spin = P::Spin::new();
        let mut was_busy = false;
        loop {
            let (mut busy, mut worked) = (false, false);
            for i in 0..self.slots.len() {
                let here = self.at(*at, i);
                let slot = &self.slots[here];
                let word = slot.peek();
                busy |= word & TAKEN != 0;
                if unclaimed(word) > 0 {
                    self.delay();
                    if let Some(claim) = slot.claim(word) {
                        self.work(slot, claim);
                        *at = here;
                        worked = true;
                        break;
                    }
                }
            }
            if worked || (was_busy && !busy) {
                spin = P::Spin::new();
            }
            was_busy = busy;
            if worked {
                continue;
            }
            let limit = match busy {
                true => self.spins.in_run,
                false => self.spins.between_runs,
            };
            if !spin.goes_on(limit) {
                return;
            }
        }
    }

    /// Goes away, unless there is something to do after all.
    fn leave(&self) -> Left {
        if self.absent.add(1) & CLOSED != 0 {
            return Left::Closed;
        }
        self.delay();
        for slot in &self.slots {
            if unclaimed(slot.set_sleepers()) > 0 {
                // Where none is absent any more, this one was summoned meanwhile.
                return match self.take_absent(1) {
                    (0, _) => Left::Away,
                    _ => Left::Not,
                };
            }
        }
        Left::Away
    }

    /// A helper that was called will not come: it is still away.
    pub(super) fn decline(&self) {
        self.absent.add(1);
        for slot in &self.slots {
            slot.set_sleepers();
        }
    }

    /// Has all helpers return, those that are away as well.
    pub(super) fn close(&self) {
        self.absent.set(CLOSED);
        let (taken, _) = self.take_absent(u32::MAX);
        if let Summons::Gate(gate) = &self.summons {
            gate.post(taken);
        }
    }

    fn at(&self, hint: usize, i: usize) -> usize {
        // A power of two.
        hint.wrapping_add(i) & (self.slots.len() - 1)
    }

    #[inline]
    fn delay(&self) {
        if let Some(delays) = &self.delays {
            delays.delay();
        }
    }
}

/// What became of a helper that wanted to leave.
enum Left {
    Not,
    Away,
    Closed,
}

/// Runs a job on the calling thread.
pub(crate) fn run_alone(job: &dyn Job) {
    for phase in 0..job.phases() {
        for unit in 0..job.units(phase) {
            job.run(phase, unit);
        }
    }
}

/// Ends the process where a unit unwinds: other threads may be at work in memory that its
/// caller is about to give up.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::Relaxed;

    use super::super::platform::Native;
    use super::*;

    struct Gaining(Option<u64>);

    impl Job for Gaining {
        fn phases(&self) -> u32 {
            1
        }

        fn units(&self, _phase: u32) -> u32 {
            2
        }

        fn run(&self, _phase: u32, _unit: u32) {}

        fn gain(&self) -> Option<u64> {
            self.0
        }
    }

    #[test]
    fn helpers_are_called_once_what_was_missed_comes_to_what_it_costs() {
        let called = Arc::new(AtomicU32::new(0));
        let counts = called.clone();
        let call = Summons::Call(Box::new(move |count| {
            counts.fetch_add(count, Relaxed);
        }));
        let spins = Spins {
            in_run: Duration::ZERO,
            between_runs: Duration::ZERO,
        };
        let board = Board::<Native>::new(4, 1, call, spins, None);
        let calls = |gain| {
            assert!(board.lead(&mut 0, &Gaining(gain), &|| true).is_ok());
            let calls = called.swap(0, Relaxed);
            // It does not come.
            (0..calls).for_each(|_| board.decline());
            calls
        };
        // Nothing is known of the first; each of the next two loses less than a call costs.
        assert_eq!(calls(None), 1);
        assert_eq!(calls(Some(WAKING / 2 - 1)), 0);
        assert_eq!(calls(Some(WAKING / 2)), 0);
        assert_eq!(calls(Some(1)), 1);
        assert_eq!(calls(Some(1)), 0);
        assert_eq!(calls(Some(u64::MAX)), 1);
    }
}
