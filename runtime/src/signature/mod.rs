//! What a kernel expects: its parameters, their types, and how it is called.
//!
//! A signature is more than the types of a C prototype: it is the kernel's
//! safety contract. Native code cannot be checked, so it is admitted once, by
//! an `unsafe` load in which the caller vouches for this contract:
//!
//! > For every scalar within its stated bounds and every grid up to its stated
//! > maximum, the kernel touches only elements `[0, len)` of each buffer
//! > parameter, writes only through those that allow it and only 0 or 1 to a
//! > `bool`, keeps no state of its own, and the calls of one grid are independent
//! > of each other.
//!
//! From there on everything is safe Rust, because each launch is checked
//! against the signature ([`Misuse`] lists what is checked).

mod contract;
mod dtype;
mod json;
mod scalar;

pub use contract::{ArgShape, Misuse};
pub use dtype::{DType, Element};
pub use scalar::{Bounds, Number, Scalar};
pub(crate) use scalar::{at_most, round_to_odd};

use crate::Error;

/// The alignment, in bytes, that a kernel may assume of a buffer where its
/// signature says nothing: that of the widest vector type which captured
/// kernels use.
pub const DEFAULT_ALIGN: usize = 16;

/// The largest alignment, in bytes, that a parameter may ask for: a page.
pub const MAX_ALIGN: usize = 4096;

/// The largest number of parameters of one kernel. The C standard promises
/// 127; the frame of a call lives on the stack, so there is an end.
pub const MAX_PARAMS: usize = 1024;

/// What a kernel does with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// It reads elements and writes none.
    Read,
    /// It writes some or all elements and reads none; those that it does not
    /// write keep what they held.
    Write,
    /// It reads what was there and writes.
    ReadWrite,
}

impl Access {
    /// Whether the kernel writes.
    #[must_use]
    pub const fn writes(self) -> bool {
        !matches!(self, Access::Read)
    }

    /// Whether the kernel reads what was there.
    #[must_use]
    pub const fn reads(self) -> bool {
        !matches!(self, Access::Write)
    }

    /// The name in the bundle format: `r`, `w` or `rw`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Access::Read => "r",
            Access::Write => "w",
            Access::ReadWrite => "rw",
        }
    }
}

/// A buffer parameter: a pointer to elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferParam {
    /// The type of its elements.
    pub dtype: DType,
    /// How many elements the kernel may touch, from the first.
    pub len: usize,
    /// What it does with them.
    pub access: Access,
    /// The alignment in bytes that the kernel assumes of the pointer, a power
    /// of two up to [`MAX_ALIGN`].
    pub align: usize,
}

impl BufferParam {
    /// The bytes that the kernel may touch, from the first.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        // Exact in a signature, which is only built where it is.
        self.len.saturating_mul(self.dtype.size())
    }
}

/// A scalar parameter, passed by value.
#[derive(Clone, Debug, PartialEq)]
pub struct ScalarParam {
    /// Its type.
    pub dtype: DType,
    /// Its name, by which a plan gives it a value.
    pub name: String,
    /// The values that it may take.
    pub bounds: Bounds,
}

/// The grid index: the kernel is called once for each index in `[0, grid)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexParam {
    /// `i32` or `i64`.
    pub dtype: DType,
    /// The largest grid that the kernel may be launched with.
    pub max: u64,
}

/// A parameter of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub enum Param {
    /// A pointer to elements.
    Buffer(BufferParam),
    /// A value.
    Scalar(ScalarParam),
    /// The grid index.
    Index(IndexParam),
}

/// How parameters become arguments of the C function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Convention {
    /// Each parameter is an argument, in order.
    #[default]
    C,
    /// `entry(void **buffers, int64_t *values)`: pointers and values each in
    /// the order of the parameters. A floating-point value is its bits in the
    /// low bytes of its slot.
    Packed,
}

/// What a kernel returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Returns {
    /// Nothing.
    #[default]
    Void,
    /// An `int32_t`; anything but 0 fails the launch with that number.
    Status,
}

/// What a kernel expects, checked: see the [module](self) for what it promises.
///
/// ```
/// use svod_runtime::{Bounds, DType, Signature};
///
/// // void axpy(float *restrict y, const float *restrict x, float a, int i)
/// let axpy = Signature::builder()
///     .read_write(DType::F32, 1024)
///     .read(DType::F32, 1024)
///     .scalar(DType::F32, "a", Bounds::Any)
///     .index(DType::I32, 1024)
///     .build()?;
/// assert_eq!(axpy.buffers().count(), 2);
/// assert_eq!(axpy.max_grid(), 1024);
/// # Ok::<(), svod_runtime::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Signature {
    params: Vec<Param>,
    convention: Convention,
    returns: Returns,
}

impl Signature {
    /// A builder with no parameters.
    pub fn builder() -> SignatureBuilder {
        SignatureBuilder::default()
    }

    /// A signature of `params` in the order of the kernel's arguments.
    ///
    /// # Errors
    ///
    /// [`Error::Signature`] names the parameter: more than [`MAX_PARAMS`] of
    /// them; a length whose bytes cannot be counted; an alignment that is no
    /// power of two or above [`MAX_ALIGN`]; a scalar without a name or with
    /// another's; bounds that are empty or that the type cannot hold; a second
    /// grid index, or one whose type cannot hold its maximum.
    pub fn new(
        mut params: Vec<Param>,
        convention: Convention,
        returns: Returns,
    ) -> Result<Signature, Error> {
        if params.len() > MAX_PARAMS {
            return Err(Error::Signature {
                param: MAX_PARAMS,
                reason: format!(
                    "{} parameters, at most {MAX_PARAMS} are possible",
                    params.len()
                ),
            });
        }
        let mut names = std::collections::HashSet::new();
        let mut indexed = false;
        for (i, param) in params.iter().enumerate() {
            let problem = match param {
                Param::Buffer(p) => buffer_problem(p),
                Param::Scalar(p) if p.name.is_empty() => Some("a scalar needs a name".into()),
                Param::Scalar(p) if !names.insert(p.name.as_str()) => {
                    Some(format!("two scalars are named `{}`", p.name))
                }
                Param::Scalar(p) => bounds_problem(p),
                Param::Index(_) if std::mem::replace(&mut indexed, true) => {
                    Some("a second grid index; a kernel has at most one".into())
                }
                Param::Index(p) => index_problem(p),
            };
            if let Some(reason) = problem {
                return Err(Error::Signature { param: i, reason });
            }
        }
        for param in &mut params {
            if let Param::Scalar(p) = param {
                p.bounds = p.bounds.rounded(p.dtype);
            }
        }
        Ok(Signature {
            params,
            convention,
            returns,
        })
    }

    /// All parameters, in the order of the kernel's arguments.
    #[must_use]
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// How parameters become arguments.
    #[must_use]
    pub const fn convention(&self) -> Convention {
        self.convention
    }

    /// What the kernel returns.
    #[must_use]
    pub const fn returns(&self) -> Returns {
        self.returns
    }

    /// The buffer parameters, in order.
    pub fn buffers(&self) -> impl Iterator<Item = &BufferParam> {
        self.params.iter().filter_map(|p| match p {
            Param::Buffer(p) => Some(p),
            _ => None,
        })
    }

    /// The scalar parameters, in order, without the grid index.
    pub fn scalars(&self) -> impl Iterator<Item = &ScalarParam> {
        self.params.iter().filter_map(|p| match p {
            Param::Scalar(p) => Some(p),
            _ => None,
        })
    }

    /// The grid index, if the kernel has one.
    #[must_use]
    pub fn index(&self) -> Option<&IndexParam> {
        self.params.iter().find_map(|p| match p {
            Param::Index(p) => Some(p),
            _ => None,
        })
    }

    /// The largest grid that a launch may have: 1 without an index.
    #[must_use]
    pub fn max_grid(&self) -> u64 {
        self.index().map_or(1, |p| p.max)
    }
}

fn buffer_problem(p: &BufferParam) -> Option<String> {
    if !p.align.is_power_of_two() || p.align > MAX_ALIGN {
        return Some(format!(
            "an alignment of {} bytes; it must be a power of two up to {MAX_ALIGN}",
            p.align
        ));
    }
    let bytes = p.len.checked_mul(p.dtype.size());
    if bytes.is_none_or(|b| isize::try_from(b).is_err()) {
        return Some(format!(
            "{} elements of {} are too many to address",
            p.len, p.dtype
        ));
    }
    None
}

fn bounds_problem(p: &ScalarParam) -> Option<String> {
    let Bounds::Between { min, max } = p.bounds else {
        return None;
    };
    for bound in [min, max] {
        if Scalar::from_number(p.dtype, bound).is_none() {
            return Some(format!(
                "scalar `{}`: the bound {bound} is not a value of {}",
                p.name, p.dtype
            ));
        }
    }
    (!at_most(min, max)).then(|| format!("scalar `{}`: no value lies in {}", p.name, p.bounds))
}

fn index_problem(p: &IndexParam) -> Option<String> {
    let largest = match p.dtype {
        DType::I32 => 1 << 31,
        DType::I64 => 1 << 63,
        other => return Some(format!("a grid index is i32 or i64, not {other}")),
    };
    (p.max > largest).then(|| {
        format!(
            "an index of type {} cannot count to a grid of {}",
            p.dtype, p.max
        )
    })
}

/// Builds a [`Signature`], parameter by parameter in the kernel's own order.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct SignatureBuilder {
    params: Vec<Param>,
    convention: Convention,
    returns: Returns,
    misplaced_align: Option<usize>,
}

impl SignatureBuilder {
    /// Any parameter.
    pub fn param(mut self, param: Param) -> Self {
        self.params.push(param);
        self
    }

    fn buffer(self, dtype: DType, len: usize, access: Access) -> Self {
        self.param(Param::Buffer(BufferParam {
            dtype,
            len,
            access,
            align: DEFAULT_ALIGN,
        }))
    }

    /// A buffer of `len` elements that the kernel reads, aligned to
    /// [`DEFAULT_ALIGN`] bytes.
    pub fn read(self, dtype: DType, len: usize) -> Self {
        self.buffer(dtype, len, Access::Read)
    }

    /// A buffer of `len` elements that the kernel writes and does not read.
    pub fn write(self, dtype: DType, len: usize) -> Self {
        self.buffer(dtype, len, Access::Write)
    }

    /// A buffer of `len` elements that the kernel reads and writes.
    pub fn read_write(self, dtype: DType, len: usize) -> Self {
        self.buffer(dtype, len, Access::ReadWrite)
    }

    /// The alignment, in bytes, that the kernel assumes of the buffer
    /// parameter that was added last.
    pub fn align(mut self, align: usize) -> Self {
        match self.params.last_mut() {
            Some(Param::Buffer(p)) => p.align = align,
            _ => self.misplaced_align = Some(self.params.len()),
        }
        self
    }

    /// A scalar.
    pub fn scalar(self, dtype: DType, name: impl Into<String>, bounds: Bounds) -> Self {
        self.param(Param::Scalar(ScalarParam {
            dtype,
            name: name.into(),
            bounds,
        }))
    }

    /// The grid index, of type `i32` or `i64`, for grids of up to `max`.
    pub fn index(self, dtype: DType, max: u64) -> Self {
        self.param(Param::Index(IndexParam { dtype, max }))
    }

    /// The calling convention; [`Convention::C`] where this is not called.
    pub fn convention(mut self, convention: Convention) -> Self {
        self.convention = convention;
        self
    }

    /// What the kernel returns; [`Returns::Void`] where this is not called.
    pub fn returns(mut self, returns: Returns) -> Self {
        self.returns = returns;
        self
    }

    /// The signature.
    ///
    /// # Errors
    ///
    /// As [`Signature::new`]; and where [`align`](Self::align) did not follow
    /// a buffer parameter.
    pub fn build(self) -> Result<Signature, Error> {
        if let Some(param) = self.misplaced_align {
            return Err(Error::Signature {
                param,
                reason: "an alignment that follows no buffer parameter".into(),
            });
        }
        Signature::new(self.params, self.convention, self.returns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(builder: SignatureBuilder) -> String {
        builder.build().unwrap_err().to_string()
    }

    #[test]
    fn a_bound_is_within_itself_whatever_its_type() {
        for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
            let built = Signature::builder().scalar(dtype, "x", Bounds::floats(-0.3, 0.1));
            let built = built.build().unwrap();
            for bound in [-0.3, 0.1] {
                let scalar = Scalar::from_number(dtype, Number::Float(bound)).unwrap();
                assert_eq!(built.check_scalars(&[scalar]), Ok(()), "{dtype}");
            }
        }
    }

    #[test]
    fn what_no_kernel_can_have_is_refused() {
        let new = Signature::builder;
        assert!(reason(new().read(DType::F32, 1).align(24)).contains("power of two"));
        assert!(reason(new().read(DType::F32, 1).align(8192)).contains("power of two"));
        assert!(reason(new().read(DType::F64, usize::MAX / 4)).contains("too many"));
        assert!(reason(new().scalar(DType::I32, "", Bounds::Any)).contains("needs a name"));
        let twice = new()
            .scalar(DType::I32, "n", Bounds::Any)
            .scalar(DType::I64, "n", Bounds::Any);
        assert!(reason(twice).contains("two scalars"));
        let wide = new().scalar(DType::U8, "n", Bounds::integers(0, 256));
        assert!(reason(wide).contains("not a value of u8"));
        let empty = new().scalar(DType::F32, "x", Bounds::floats(1.0, 0.0));
        assert!(reason(empty).contains("no value"));
        let two = new().index(DType::I32, 4).index(DType::I64, 4);
        assert!(reason(two).contains("second grid index"));
        assert!(reason(new().index(DType::U32, 4)).contains("i32 or i64"));
        assert!(reason(new().index(DType::I32, (1 << 31) + 1)).contains("cannot count"));
        let many = (0..=MAX_PARAMS).fold(new(), |b, _| b.read(DType::F32, 1));
        assert!(reason(many).contains("at most 1024"));
    }
}
