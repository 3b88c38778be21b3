//! What a sandbox runs: kernels that nobody vouches for, and launches of them.

use std::ops::Range;

use super::explain::Site;
use crate::Error;
use crate::bundle::{Bundle, Load};
use crate::compile::{Object, Source};
use crate::dispatch::Kernel;
use crate::launch::Arg;
use crate::memory::{Buffer, Constant, Guard, View, ViewMut};
use crate::runtime::Runtime;
use crate::signature::{BufferParam, Scalar, Signature};

/// A kernel that nobody vouches for. It can be launched in a sandbox, and nowhere else, so that
/// having it is safe, whatever it does.
#[derive(Clone, Debug)]
pub struct Untrusted {
    kernel: Kernel,
    /// What it was linked from, where that is known.
    object: Option<Object>,
}

impl Untrusted {
    /// Of a kernel that was linked already.
    #[must_use]
    pub const fn new(kernel: Kernel) -> Untrusted {
        Untrusted {
            kernel,
            object: None,
        }
    }

    /// The kernel, for launches anywhere.
    ///
    /// # Safety
    ///
    /// It must keep the contract of its signature, as the [`signature`](crate::signature) module
    /// states it.
    #[must_use]
    pub unsafe fn vouch(self) -> Kernel {
        self.kernel
    }

    /// The entry's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.kernel.name()
    }

    /// What it says of itself.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        self.kernel.signature()
    }

    /// What it was linked from, where that is known.
    #[must_use]
    pub const fn object(&self) -> Option<&Object> {
        self.object.as_ref()
    }

    pub(super) const fn kernel(&self) -> &Kernel {
        &self.kernel
    }
}

impl From<Kernel> for Untrusted {
    fn from(kernel: Kernel) -> Untrusted {
        Untrusted::new(kernel)
    }
}

impl Runtime {
    /// As [`load`](Self::load), for a kernel that nobody vouches for: it can be launched in a
    /// sandbox alone. It is compiled in this process, or by processes of this one's rights, all
    /// the same.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_untrusted(
        &self,
        source: &Source,
        signature: Signature,
    ) -> Result<Untrusted, Error> {
        self.link_untrusted(self.compile(source)?, signature)
    }

    /// As [`link`](Self::link), for a kernel that nobody vouches for.
    ///
    /// # Errors
    ///
    /// As [`link`](Self::link).
    pub fn link_untrusted(&self, object: Object, signature: Signature) -> Result<Untrusted, Error> {
        // SAFETY: linking runs nothing of it, and what has this kernel runs it in other processes
        // alone, unless somebody vouches for it.
        let kernel = unsafe { self.link(&object, signature)? };
        Ok(Untrusted {
            kernel,
            object: Some(object),
        })
    }

    /// As [`link_all`](Self::link_all), for kernels that nobody vouches for.
    ///
    /// # Errors
    ///
    /// As [`link_all`](Self::link_all).
    pub fn link_all_untrusted(
        &self,
        kernels: &[(&Object, &Signature)],
    ) -> Result<Vec<Untrusted>, Error> {
        // SAFETY: as for one.
        let linked = unsafe { self.link_all(kernels)? };
        let pairs = linked.into_iter().zip(kernels);
        let untrusted = pairs.map(|(kernel, (object, _))| Untrusted {
            kernel,
            object: Some((*object).clone()),
        });
        Ok(untrusted.collect())
    }
}

/// What an executable of a bundle is made from, of code that nobody vouches for.
#[derive(Clone, Debug)]
pub struct UntrustedCode {
    /// The kernels, in the plan's order.
    pub kernels: Vec<Untrusted>,
    /// What constants hold, and states at the start, by the buffer's number.
    pub contents: Vec<(usize, Constant)>,
}

impl Bundle {
    /// As [`load`](Self::load), of kernels that nobody vouches for: they can be launched in a
    /// sandbox alone. What constants hold is copied, so that the bundle's files may change.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_untrusted(
        &self,
        runtime: &Runtime,
        load: &Load<'_>,
    ) -> Result<UntrustedCode, Error> {
        let objects = self.compile(runtime, load)?;
        let signatures = self.plan().kernels().iter().map(|k| &k.signature);
        let kernels: Vec<_> = objects.iter().zip(signatures).collect();
        Ok(UntrustedCode {
            kernels: runtime.link_all_untrusted(&kernels)?,
            contents: self.contents()?,
        })
    }
}

/// A launch in a sandbox: as [`Kernel::launch`] takes it, of an untrusted kernel.
///
/// Arguments that lie in [shared](Buffer::shared) memory are worked on where they lie. Others are
/// copied to such memory, each to the end of its pages or, where [that](Self::guard) is asked for,
/// to the start, and those that are written are copied back where the launch completes. What is
/// only read cannot be written in the child.
#[derive(Debug)]
pub struct Launch<'a> {
    pub(super) kernel: &'a Untrusted,
    pub(super) args: Vec<Arg<'a>>,
    pub(super) scalars: Vec<Scalar>,
    pub(super) indices: Range<u64>,
    pub(super) reversed: bool,
    /// The calls of the grid, in their order, where they are not all of `indices`.
    pub(super) order: Option<Vec<u64>>,
    guard: Guard,
}

impl<'a> Launch<'a> {
    /// Of a grid of `grid`: 1 for a kernel without an index.
    #[must_use]
    pub fn new(
        kernel: &'a Untrusted,
        args: Vec<Arg<'a>>,
        scalars: &[Scalar],
        grid: u64,
    ) -> Launch<'a> {
        Launch {
            kernel,
            args,
            scalars: scalars.to_vec(),
            indices: 0..grid,
            reversed: false,
            order: None,
            guard: Guard::End,
        }
    }

    /// Of these calls of the grid alone.
    #[must_use]
    pub const fn indices(mut self, indices: Range<u64>) -> Launch<'a> {
        self.indices = indices;
        self
    }

    /// With the calls of the grid from the last to the first.
    #[must_use]
    pub const fn reversed(mut self) -> Launch<'a> {
        self.reversed = true;
        self
    }

    /// Of these calls of the grid, in this order.
    #[must_use]
    pub fn order(mut self, order: Vec<u64>) -> Launch<'a> {
        let end = order.iter().max().map_or(0, |last| last.saturating_add(1));
        self.indices = 0..end;
        self.order = Some(order);
        self
    }

    /// With the arguments that are copied at this side of their pages.
    #[must_use]
    pub const fn guard(mut self, guard: Guard) -> Launch<'a> {
        self.guard = guard;
        self
    }

    /// At which side of their pages arguments lie that are copied.
    pub(super) const fn side(&self) -> Guard {
        self.guard
    }

    /// Whether it fits its kernel's signature.
    pub(super) fn check(&self) -> Result<(), Error> {
        let kernel = self.kernel.kernel();
        kernel.check_launch(&self.args, &self.scalars, self.indices.end)
    }

    /// Memory for the arguments that a child's writes to would be lost of, or that have no guard:
    /// a copy of each.
    pub(super) fn stage(&self) -> Result<Vec<Option<Buffer>>, Error> {
        let params = self.kernel.signature().buffers();
        let staged = self.args.iter().zip(params).map(|(arg, param)| {
            if arg.pages().is_some_and(|pages| pages.is_shared()) {
                return Ok(None);
            }
            let view = arg.view();
            let align = param.align;
            let mut copy = Buffer::shared(view.dtype(), view.len(), align, self.guard)?;
            copy.overwrite(view.as_bytes());
            Ok(Some(copy))
        });
        staged.collect()
    }

    /// Copies back what a child has written.
    pub(super) fn take(&mut self, staged: &[Option<Buffer>]) -> Result<(), Error> {
        let params = self.kernel.kernel().signature().buffers();
        for ((arg, staged), param) in self.args.iter_mut().zip(staged).zip(params) {
            if let (Arg::Write(view), Some(copy)) = (arg, staged)
                && param.access.writes()
            {
                view.copy_from(copy.as_view())?;
            }
        }
        Ok(())
    }
}

/// Where an argument lies in a child.
pub(super) fn site(argument: usize, param: &BufferParam, start: u64) -> Site {
    Site {
        start,
        argument,
        len: param.len,
        element: param.dtype.size(),
        buffer: None,
    }
}

impl Arg<'_> {
    pub(super) fn view(&self) -> View<'_> {
        match self {
            Arg::Read(view) => *view,
            Arg::Write(view) => ViewMut::as_view(view),
        }
    }
}
