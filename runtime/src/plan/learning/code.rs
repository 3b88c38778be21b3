//! Other code for what was learned.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::super::Plan;
use super::super::replay::Script;
use super::{Learner, Stage};

impl Learner {
    /// The same, which learns nothing before there is other code.
    pub(in crate::plan) fn waiting(mut self) -> Learner {
        let state = self.state.get_mut();
        state.unwrap_or_else(PoisonError::into_inner).waits = true;
        *self.asks.get_mut() = false;
        self
    }

    /// Has runs follow the schedule that they have on other code, which is that of `serial`,
    /// the plan's own order. What ops cost is another thing from now on, and is learned anew;
    /// but for what was brought along for this very code, while nothing was learned about the
    /// code before. Returns the scripts of that.
    pub(in crate::plan) fn replace_code(
        &self,
        plan: &Plan,
        serial: &Arc<Script>,
    ) -> Vec<Arc<Script>> {
        loop {
            // Without the lock, since it may take long: runs need what it is over.
            let before = self.current();
            let script = again(plan, &before, serial);

            let mut guard = self.lock();
            let state = &mut *guard;
            // Only who has the lock exchanges it.
            if !Arc::ptr_eq(&before, &self.current()) {
                continue;
            }
            let current = self.current.write();
            self.exchange(current.unwrap_or_else(PoisonError::into_inner), script);
            let mut old = vec![before];
            old.push(std::mem::replace(&mut state.serial, serial.clone()));
            if let Stage::Racing(race) = &mut state.stage {
                old.extend(race.candidates.drain(..).map(|c| c.script));
            }
            let waited = std::mem::take(&mut state.waits);
            (state.work, state.changes, state.checks, state.losses) = (0.0, 0, 0, 0);
            match state.stage {
                Stage::Fixed => {}
                Stage::Settled if waited => {}
                _ => {
                    state.stage = Stage::start();
                    self.asks.store(true, Ordering::Relaxed);
                }
            }
            return old;
        }
    }
}

/// A script with the schedule of another, on the code of `serial`.
fn again(plan: &Plan, script: &Script, serial: &Arc<Script>) -> Arc<Script> {
    if script.schedule() == serial.schedule() {
        return serial.clone();
    }
    let again = Script::new(plan, serial.code().clone(), script.schedule().clone());
    // What is refused is a schedule, and this one was not. The plan's order is right too.
    again.map_or_else(|_| serial.clone(), Arc::new)
}
