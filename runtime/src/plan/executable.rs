//! A plan with its code and its constants.

use std::sync::Arc;

use super::{Instance, Plan, Role};
use crate::Error;
use crate::dispatch::Kernel;
use crate::error::Place;
use crate::memory::{Constant, Guard};

/// A plan with its code and its constants: what instances share. Clones are the
/// same executable.
#[derive(Clone, Debug)]
pub struct Executable {
    inner: Arc<Inner>,
    guard: Guard,
}

#[derive(Debug)]
struct Inner {
    plan: Plan,
    /// The code table: the plan's kernels, by number.
    kernels: Vec<Kernel>,
    /// What constants hold, and states at the start.
    contents: Vec<Option<Constant>>,
}

impl Executable {
    /// Joins a plan with a kernel for each of its kernels and, for each of its
    /// buffers, what a constant holds and a state holds at the start (without
    /// any, zeros).
    ///
    /// # Errors
    ///
    /// [`Error::Plan`] where kernels or contents are not the plan's: another
    /// number, another signature, another size; a constant without contents,
    /// contents for what is given or computed. And where the plan does what only
    /// [`new_unchecked`](Self::new_unchecked) can vouch for: it takes bytes of
    /// unknown origin for `bool`, or launches a kernel with a scalar that states
    /// no bounds.
    pub fn new(
        plan: Plan,
        kernels: Vec<Kernel>,
        contents: Vec<Option<Constant>>,
    ) -> Result<Executable, Error> {
        if let Some((place, reason)) = &plan.unvouched {
            return Err(Error::plan(place.clone(), reason));
        }
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
    /// written; and for the values that the plan gives to scalars without
    /// stated bounds, its kernels must keep the rest of their contract.
    pub unsafe fn new_unchecked(
        plan: Plan,
        kernels: Vec<Kernel>,
        contents: Vec<Option<Constant>>,
    ) -> Result<Executable, Error> {
        if kernels.len() != plan.kernels.len() {
            let reason = format!("{} of them for {}", kernels.len(), plan.kernels.len());
            return Err(Error::plan("kernels", reason));
        }
        for (i, (kernel, expected)) in kernels.iter().zip(&plan.kernels).enumerate() {
            if *kernel.signature() != expected.signature {
                let reason = format!("`{}` has another signature than the plan's", kernel.name());
                return Err(Error::plan(Place::at("kernels", i), reason));
            }
        }
        if contents.len() != plan.buffers.len() {
            let reason = format!("contents for {} of {}", contents.len(), plan.buffers.len());
            return Err(Error::plan("buffers", reason));
        }
        for (i, (content, buffer)) in contents.iter().zip(&plan.buffers).enumerate() {
            let place = || Place::at("buffers", i);
            let may = matches!(buffer.role, Role::Constant | Role::State);
            match content {
                None if buffer.role == Role::Constant => {
                    return Err(Error::plan(place(), "a constant without contents"));
                }
                None => {}
                Some(_) if !may => {
                    let reason = format!("contents for a {}", buffer.role.name());
                    return Err(Error::plan(place(), reason));
                }
                Some(content) => {
                    if content.bytes() != buffer.bytes {
                        let reason =
                            format!("contents of {} bytes for {}", content.bytes(), buffer.bytes);
                        return Err(Error::plan(place(), reason));
                    }
                    if buffer.dtype.is_some() && content.dtype() != buffer.dtype {
                        return Err(Error::plan(place(), "contents of another type"));
                    }
                    let address = content.start().addr().get();
                    if buffer.role == Role::Constant && !address.is_multiple_of(buffer.align) {
                        let reason =
                            format!("contents that are not aligned to {} bytes", buffer.align);
                        return Err(Error::plan(place(), reason));
                    }
                }
            }
        }
        Ok(Executable {
            inner: Arc::new(Inner {
                plan,
                kernels,
                contents,
            }),
            guard: Guard::Off,
        })
    }

    /// The same executable, whose instances are guarded: every buffer has pages of its
    /// own, aligned to what the plan's kernels ask for and no more. Constants are no
    /// longer shared, but copied for each instance into pages that cannot be written.
    #[must_use]
    pub fn with_guard(mut self, guard: Guard) -> Executable {
        self.guard = guard;
        self
    }

    /// How its instances are guarded.
    #[must_use]
    pub const fn guard(&self) -> Guard {
        self.guard
    }

    /// Its plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.inner.plan
    }

    /// Its kernels, in the plan's order.
    #[must_use]
    pub fn kernels(&self) -> &[Kernel] {
        &self.inner.kernels
    }

    pub(super) fn contents(&self) -> &[Option<Constant>] {
        &self.inner.contents
    }

    /// A set of mutable memory to run the plan in. Constants are shared, where they
    /// are not [guarded](Self::with_guard).
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`] where the system has not that much.
    pub fn instance(&self) -> Result<Instance, Error> {
        Instance::new(self.clone())
    }
}
