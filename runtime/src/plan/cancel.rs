//! A run that is stopped from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Stops runs between two ops, from any thread. Clones are the same switch.
///
/// ```
/// use svod_runtime::plan::Cancel;
///
/// let cancel = Cancel::new();
/// let elsewhere = cancel.clone();
/// std::thread::spawn(move || elsewhere.cancel()).join().ok();
/// assert!(cancel.is_cancelled());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    cancelled: Arc<AtomicBool>,
}

impl Cancel {
    /// A switch that stops nothing yet.
    #[must_use]
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Stops every run that was given this switch before its next op, and every later
    /// one before its first.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Lets later runs be.
    pub fn reset(&self) {
        self.cancelled.store(false, Ordering::Relaxed);
    }

    /// Whether runs are stopped.
    #[must_use]
    #[inline]
    pub fn is_cancelled(&self) -> bool {
        // Nothing is handed over by it, so that no order is needed.
        self.cancelled.load(Ordering::Relaxed)
    }
}
