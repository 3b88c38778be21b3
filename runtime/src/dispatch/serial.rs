//! Calls of code that keeps state: one at a time.

use std::ffi::c_void;
use std::sync::{Arc, PoisonError};

use super::entry::Entry;
use super::trampoline::Enter;
use crate::link::Image;

/// What the way in of a kernel with state points to: the way in that it would have
/// without, and the image, which it keeps alive, and whose lock is held meanwhile. All kernels of an image share
/// the lock, as they share the state.
#[derive(Debug)]
pub(super) struct SerialTarget {
    image: Arc<Image>,
    enter: Enter,
    target: *const c_void,
}

impl SerialTarget {
    /// `None` where the code keeps no state.
    pub(super) fn new(
        image: Option<&Arc<Image>>,
        enter: Enter,
        target: *const c_void,
    ) -> Option<SerialTarget> {
        let image = image.filter(|image| image.state().is_some())?;
        Some(SerialTarget {
            image: image.clone(),
            enter,
            target,
        })
    }

    /// The way in that takes the lock first.
    pub(super) const fn enter(&self) -> Enter {
        match self.enter {
            Enter::Void(_) => Enter::Void(enter_void),
            Enter::Status(_) => Enter::Status(enter_status),
        }
    }

    /// The entry that leads here, without the lock.
    pub(super) const fn unlocked(&self, entry: Entry) -> Entry {
        Entry {
            enter: self.enter,
            target: self.target,
            ..entry
        }
    }

    /// # Safety
    ///
    /// As [`Enter::call`], for the way in that it stands for.
    unsafe fn call(&self, slots: *const u64) -> i32 {
        let lock = self.image.state().map(|state| {
            // It guards nothing that a panic could leave half done.
            state.lock().unwrap_or_else(PoisonError::into_inner)
        });
        // SAFETY: promised by the caller.
        let status = unsafe { self.enter.call(self.target, slots) };
        drop(lock);
        status
    }
}

/// # Safety
///
/// `target` must point to a `SerialTarget`; the rest as [`Enter::call`].
unsafe extern "C" fn enter_void(target: *const c_void, slots: *const u64) {
    // SAFETY: promised by the caller.
    unsafe { (*target.cast::<SerialTarget>()).call(slots) };
}

/// # Safety
///
/// As [`enter_void`].
unsafe extern "C" fn enter_status(target: *const c_void, slots: *const u64) -> i32 {
    // SAFETY: promised by the caller.
    unsafe { (*target.cast::<SerialTarget>()).call(slots) }
}
