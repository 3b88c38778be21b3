//! The steps of a plan, and what each reads and writes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::{PlanKernel, Value};
use crate::launch::Arg;
use crate::signature::{Access, DType};

/// A part of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferRange {
    /// The buffer, counted in the order of declaration.
    pub buffer: usize,
    /// Where the part begins, in bytes.
    pub offset: usize,
    /// Its size in bytes.
    pub bytes: usize,
}

impl BufferRange {
    /// The bytes `range` of the same buffer, counted from the start of this part. They may
    /// go on behind it, and whoever uses them checks that they stay inside the buffer; a
    /// range that ends before it begins is empty. [`PlanBuilder::view`](super::PlanBuilder::view)
    /// counts elements, and stays inside the part.
    #[must_use]
    pub const fn part(self, range: Range<usize>) -> BufferRange {
        BufferRange {
            buffer: self.buffer,
            offset: self.offset.saturating_add(range.start),
            bytes: range.end.saturating_sub(range.start),
        }
    }

    /// This range as an argument that a host function reads.
    #[must_use]
    pub const fn read(self) -> HostArg {
        self.host_arg(Access::Read)
    }

    /// This range as an argument that a host function writes, and of which it reads
    /// nothing that it has not written.
    #[must_use]
    pub const fn write(self) -> HostArg {
        self.host_arg(Access::Write)
    }

    /// This range as an argument that a host function reads and writes.
    #[must_use]
    pub const fn read_write(self) -> HostArg {
        self.host_arg(Access::ReadWrite)
    }

    const fn host_arg(self, access: Access) -> HostArg {
        HostArg {
            range: self,
            access,
        }
    }

    pub(super) const fn end(&self) -> usize {
        self.offset + self.bytes
    }
}

/// One step of a plan.
#[derive(Clone, Debug)]
pub enum Op {
    /// A kernel over buffers.
    Launch(Launch),
    /// Bytes from one place to another.
    Copy {
        /// Where they are.
        from: BufferRange,
        /// Where they go.
        to: BufferRange,
    },
    /// One value for every element.
    Fill {
        /// Which elements.
        to: BufferRange,
        /// Their type.
        dtype: DType,
        /// The value.
        value: Value,
    },
    /// A function of the embedder's.
    Host(HostCall),
}

/// A launch of a plan.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The kernel, counted in the order of declaration.
    pub kernel: usize,
    /// One range for each buffer parameter.
    pub args: Vec<BufferRange>,
    /// One value for each scalar parameter.
    pub scalars: Vec<Value>,
    /// How many indices it runs for.
    pub grid: Value,
    /// The compiler's estimate of floating-point operations.
    pub flops: Option<u64>,
    /// The compiler's estimate of bytes moved.
    pub bytes: Option<u64>,
}

/// A function of the embedder's with the ranges that it is called on.
#[derive(Clone, Debug)]
pub struct HostCall {
    /// The function.
    pub function: HostFunction,
    /// What it is given, in order.
    pub args: Vec<HostArg>,
}

/// An argument of a host function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostArg {
    /// Which part of which buffer.
    pub range: BufferRange,
    /// What the function does with it.
    pub access: Access,
}

/// Why a host function failed.
pub type HostError = Box<dyn std::error::Error + Send + Sync>;

type HostClosure = dyn Fn(&mut [Arg<'_>]) -> Result<(), HostError> + Send + Sync;

/// A named function of the embedder's. Instances that run at the same time call it at
/// the same time. Clones share it.
#[derive(Clone)]
pub struct HostFunction {
    name: Arc<str>,
    closure: Arc<HostClosure>,
}

impl HostFunction {
    pub(super) fn new(
        name: &str,
        closure: impl Fn(&mut [Arg<'_>]) -> Result<(), HostError> + Send + Sync + 'static,
    ) -> HostFunction {
        HostFunction {
            name: name.into(),
            closure: Arc::new(closure),
        }
    }

    /// Its name, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn call(&self, args: &mut [Arg<'_>]) -> Result<(), HostError> {
        (self.closure)(args)
    }
}

impl fmt::Debug for HostFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostFunction").field(&self.name).finish()
    }
}

/// What an op does to a part of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// The bytes that it may touch: of a launch's argument those that the signature
    /// says, which may be fewer than it was given.
    pub range: BufferRange,
    /// What it does with them.
    pub access: Access,
}

impl Op {
    /// What it touches, in the order of its arguments; of a copy, what it reads comes
    /// first. `kernels` are those of its plan.
    pub(super) fn touches<'a>(
        &'a self,
        kernels: &'a [PlanKernel],
    ) -> impl Iterator<Item = Touch> + 'a {
        let touch = |range, access| Some(Touch { range, access });
        let (launch, few, host): (_, [Option<Touch>; 2], &[HostArg]) = match self {
            Op::Launch(launch) => (Some(launch), [None; 2], &[]),
            Op::Copy { from, to } => {
                let both = [touch(*from, Access::Read), touch(*to, Access::Write)];
                (None, both, &[])
            }
            Op::Fill { to, .. } => (None, [touch(*to, Access::Write), None], &[]),
            Op::Host(call) => (None, [None; 2], &call.args),
        };
        let launched = launch.into_iter().flat_map(|launch| {
            let params = kernels[launch.kernel].signature.buffers();
            params.zip(&launch.args).map(|(param, arg)| Touch {
                range: arg.part(0..param.bytes()),
                access: param.access,
            })
        });
        let hosted = host.iter().map(|arg| Touch {
            range: arg.range,
            access: arg.access,
        });
        launched.chain(few.into_iter().flatten()).chain(hosted)
    }

    /// What it is, in few words: ``launch of `r_16_4` ``, `copy`.
    pub(super) fn label(&self, kernels: &[PlanKernel]) -> String {
        match self {
            Op::Launch(launch) => format!("launch of `{}`", kernels[launch.kernel].entry),
            Op::Copy { .. } => "copy".into(),
            Op::Fill { .. } => "fill".into(),
            Op::Host(call) => format!("host function `{}`", call.function.name()),
        }
    }
}
