//! One launch, checked once and run again and again.

use super::{DefaultFloatEnv, Pool};
use crate::Error;
use crate::dispatch::{Call, Kernel};
use crate::launch::Arg;
use crate::signature::Scalar;

/// A launch of one kernel that is checked once and run any number of times, on the calling
/// thread or shared by those of a pool. Its arguments are its own, or borrowed, for as long
/// as it lives.
///
/// ```
/// use svod_runtime::bench::{Budget, measure};
/// use svod_runtime::pool::{Pool, PreparedLaunch};
/// # use svod_runtime::{Buffer, DType, Runtime, Signature, Source};
///
/// # let runtime = Runtime::new()?;
/// # let source = Source::c("bump", "void bump(int *x, int i) { x[i] += 1; }");
/// # let signature = Signature::builder()
/// #     .read_write(DType::I32, 8)
/// #     .index(DType::I32, 8)
/// #     .build()?;
/// # // SAFETY: for a grid of up to 8, the kernel touches x[0] to x[7].
/// # let bump = unsafe { runtime.load(&source, signature)? };
/// let mut x = Buffer::zeroed(DType::I32, 8)?;
/// let mut launch = PreparedLaunch::new(&bump, vec![(&mut x).into()], &[], 8, Pool::alone())?;
/// let time = measure(&mut launch, &Budget::rounds(10), None)?;
/// println!("{:.0} ns", time.times().median);
/// # Ok::<(), svod_runtime::Error>(())
/// ```
#[derive(Debug)]
pub struct PreparedLaunch<'a> {
    call: Call,
    args: Vec<Arg<'a>>,
    buffers: Vec<*mut u8>,
    scalars: Vec<u64>,
    grid: u64,
    pool: Pool,
    guarded: bool,
}

// SAFETY: what keeps it from being `Send` are addresses. Those of buffers are of `args`, which are
// views that may go to another thread, and they are used through `&mut self` alone; those in the call
// are the same, and lead to code, which any thread may run and which the call's kernel keeps.
unsafe impl Send for PreparedLaunch<'_> {}

impl<'a> PreparedLaunch<'a> {
    /// Of arguments and a grid as [`Kernel::launch`] takes them. [`Pool::alone`] has it run
    /// on the thread that calls it.
    ///
    /// # Errors
    ///
    /// [`Error::Launch`], as [`Kernel::launch`].
    pub fn new(
        kernel: &Kernel,
        args: Vec<Arg<'a>>,
        scalars: &[Scalar],
        grid: u64,
        pool: Pool,
    ) -> Result<PreparedLaunch<'a>, Error> {
        kernel.check_bounded()?;
        kernel.check_launch(&args, scalars, grid)?;
        let buffers: Vec<_> = args.iter().map(Arg::address).collect();
        let scalars: Vec<_> = scalars.iter().map(|scalar| scalar.to_slot()).collect();
        let mut call = Call::new(kernel);
        for (i, buffer) in buffers.iter().enumerate() {
            call.set_buffer(i, *buffer);
        }
        for (i, scalar) in scalars.iter().enumerate() {
            call.set_scalar(i, *scalar);
        }
        Ok(PreparedLaunch {
            call,
            guarded: args.iter().any(Arg::is_guarded),
            args,
            buffers,
            scalars,
            grid,
            pool,
        })
    }

    /// The kernel.
    #[must_use]
    pub const fn kernel(&self) -> &Kernel {
        self.call.kernel()
    }

    /// Whose threads share it.
    #[must_use]
    pub const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Runs it once.
    ///
    /// # Errors
    ///
    /// [`Error::KernelStatus`] and [`Error::Overrun`] as [`Kernel::launch`]; of a pool of
    /// several threads, what [`Pool::launch`] returns.
    pub fn run(&mut self) -> Result<(), Error> {
        let result = if self.pool.threads() > 1 {
            // SAFETY: what was checked is still so: the arguments are borrowed for as long as
            // `self` is, exclusively where the kernel may write them, and `self` is borrowed
            // exclusively meanwhile. Whoever loaded the kernel vouched for the rest, and
            // that the calls of a grid are independent.
            unsafe {
                let kernel = self.call.kernel();
                self.pool
                    .launch(kernel, &self.buffers, &self.scalars, self.grid)
            }
        } else {
            let _default = DefaultFloatEnv::enter();
            // SAFETY: as above.
            unsafe { self.call.run(self.grid) }
        };
        if self.guarded {
            return self.kernel().check_slack(&self.args).and(result);
        }
        result
    }
}
