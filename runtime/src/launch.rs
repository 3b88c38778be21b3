//! One launch, checked: the safe face of dispatch.
//!
//! Who validates what: the caller of an `unsafe` load vouched that the kernel
//! keeps its signature; the borrow checker sees to it that what a kernel writes
//! is borrowed by nobody else; everything in between, that these arguments fit
//! that signature, is checked here at each launch, by
//! [`Signature::check_arguments`](crate::Signature::check_arguments) and its
//! siblings.

use crate::Error;
use crate::dispatch::{Call, Kernel};
use crate::memory::{Buffer, Pages, Stray, View, ViewMut};
use crate::signature::{ArgShape, Misuse, Scalar};

/// A buffer argument of a launch.
#[derive(Debug)]
pub enum Arg<'a> {
    /// For a parameter that the kernel reads.
    Read(View<'a>),
    /// For a parameter that the kernel writes, or reads.
    Write(ViewMut<'a>),
}

impl Arg<'_> {
    fn shape(&self) -> ArgShape {
        let (start, dtype, len) = match self {
            Arg::Read(v) => (v.start(), v.dtype(), v.len()),
            Arg::Write(v) => (v.start(), v.dtype(), v.len()),
        };
        ArgShape {
            dtype: Some(dtype),
            space: 0,
            start: start.addr().get(),
            bytes: len * dtype.size(),
            writable: matches!(self, Arg::Write(_)),
        }
    }

    pub(crate) fn address(&self) -> *mut u8 {
        match self {
            Arg::Read(v) => v.start().as_ptr(),
            Arg::Write(v) => v.start().as_ptr(),
        }
    }

    pub(crate) const fn is_guarded(&self) -> bool {
        match self {
            Arg::Read(v) => v.is_guarded(),
            Arg::Write(v) => v.is_guarded(),
        }
    }

    /// The pages of the guarded buffer that it is a part of, if it is.
    pub(crate) const fn pages(&self) -> Option<&Pages> {
        match self {
            Arg::Read(v) => v.pages(),
            Arg::Write(v) => v.pages(),
        }
    }

    pub(crate) fn stray(&self) -> Option<Stray> {
        match self {
            Arg::Read(v) => v.stray(),
            Arg::Write(v) => v.stray(),
        }
    }
}

impl<'a> From<&'a Buffer> for Arg<'a> {
    fn from(buffer: &'a Buffer) -> Arg<'a> {
        Arg::Read(buffer.as_view())
    }
}

impl<'a> From<&'a mut Buffer> for Arg<'a> {
    fn from(buffer: &'a mut Buffer) -> Arg<'a> {
        Arg::Write(buffer.as_view_mut())
    }
}

impl<'a> From<View<'a>> for Arg<'a> {
    fn from(view: View<'a>) -> Arg<'a> {
        Arg::Read(view)
    }
}

impl<'a> From<ViewMut<'a>> for Arg<'a> {
    fn from(view: ViewMut<'a>) -> Arg<'a> {
        Arg::Write(view)
    }
}

impl Kernel {
    /// Runs the kernel on this thread for each index in `[0, grid)`, in order.
    ///
    /// `args` has one entry for each buffer parameter and `scalars` one for each
    /// scalar parameter, each in the signature's order. `grid` is 1 for a kernel
    /// without a grid index; with a grid of 0 nothing runs.
    ///
    /// ```
    /// # use svod_runtime::{Bounds, Buffer, DType, Runtime, Signature, Source};
    /// let runtime = Runtime::new()?;
    /// let source = Source::c("scale", "void scale(float *x, float by, int i) { x[i] *= by; }");
    /// let signature = Signature::builder()
    ///     .read_write(DType::F32, 3)
    ///     .scalar(DType::F32, "by", Bounds::Any)
    ///     .index(DType::I32, 3)
    ///     .build()?;
    /// // SAFETY: for a grid of up to 3, the kernel touches x[0] to x[2].
    /// let scale = unsafe { runtime.load(&source, signature)? };
    /// let mut x = Buffer::from_slice(&[1.0_f32, 2.0, 3.0])?;
    /// scale.launch(&mut [(&mut x).into()], &[2.0_f32.into()], 3)?;
    /// assert_eq!(x.as_slice::<f32>()?, [2.0, 4.0, 6.0]);
    /// # Ok::<(), svod_runtime::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Launch`] where an argument does not fit the signature, or a
    /// scalar's bounds are not stated in it; nothing has run then.
    /// [`Error::KernelStatus`] where the kernel returns a status other than 0;
    /// the indices after it have not run. [`Error::Overrun`] where it has written
    /// beside a [guarded](Buffer::guarded) buffer.
    pub fn launch(&self, args: &mut [Arg<'_>], scalars: &[Scalar], grid: u64) -> Result<(), Error> {
        self.check_bounded()?;
        // SAFETY: every scalar's bounds are stated, and checked there.
        unsafe { self.launch_unbounded(args, scalars, grid) }
    }

    /// As [`launch`](Self::launch), for signatures that leave bounds unstated.
    ///
    /// # Errors
    ///
    /// As [`launch`](Self::launch), but for those bounds.
    ///
    /// # Safety
    ///
    /// For the values of scalars without stated bounds, the kernel must keep
    /// the rest of its contract.
    pub unsafe fn launch_unbounded(
        &self,
        args: &mut [Arg<'_>],
        scalars: &[Scalar],
        grid: u64,
    ) -> Result<(), Error> {
        self.check_launch(args, scalars, grid)?;
        let mut call = Call::new(self);
        for (i, arg) in args.iter().enumerate() {
            call.set_buffer(i, arg.address());
        }
        for (i, scalar) in scalars.iter().enumerate() {
            call.set_scalar(i, scalar.to_slot());
        }
        // SAFETY: each argument is borrowed for the launch, exclusively where
        // the kernel may write it, and long and aligned enough; scalars and grid
        // are within their bounds. Whoever loaded the kernel vouched for the rest.
        let result = unsafe { call.run(grid) };
        if args.iter().any(Arg::is_guarded) {
            // Whatever a kernel says that it came to, this may be the reason.
            return self.check_slack(args).and(result);
        }
        result
    }

    /// Whether the bounds of each scalar are stated.
    pub(crate) fn check_bounded(&self) -> Result<(), Error> {
        match self.signature().unbounded() {
            None => Ok(()),
            Some(param) => {
                let name = param.name.clone();
                Err(self.misuse(Misuse::Unbounded { name }))
            }
        }
    }

    /// Whether these fit its signature.
    pub(crate) fn check_launch(
        &self,
        args: &[Arg<'_>],
        scalars: &[Scalar],
        grid: u64,
    ) -> Result<(), Error> {
        let signature = self.signature();
        signature
            .check_arguments(args.len(), |i| args[i].shape())
            .and_then(|()| signature.check_scalars(scalars))
            .and_then(|()| signature.check_grid(grid))
            .map_err(|misuse| self.misuse(misuse))
    }

    #[cold]
    pub(crate) fn check_slack(&self, args: &[Arg<'_>]) -> Result<(), Error> {
        let mut found = args.iter().map(Arg::stray).enumerate();
        match found.find_map(|(argument, stray)| Some((argument, stray?))) {
            None => Ok(()),
            Some((argument, stray)) => Err(Error::Overrun {
                kernel: self.name().to_owned(),
                op: None,
                argument,
                buffer: None,
                stray,
            }),
        }
    }

    fn misuse(&self, misuse: Misuse) -> Error {
        Error::Launch {
            kernel: self.name().to_owned(),
            misuse: Box::new(misuse),
        }
    }
}
