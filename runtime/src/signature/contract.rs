//! The checks of one launch against its signature, in one place.
//!
//! A safe launch checks live buffers, a plan checks ranges of buffers that do
//! not exist yet. Both describe each argument as an [`ArgShape`] and ask here.

use super::{DType, Number, Param, Scalar, ScalarParam, Signature};

/// An argument for a buffer parameter, as far as checks need to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgShape {
    /// The type of its elements; `None` for untyped bytes, which fit any.
    pub dtype: Option<DType>,
    /// Which memory it lies in. Arguments of different spaces never overlap.
    pub space: usize,
    /// Where it begins in that space, in bytes: an address, or an offset into
    /// memory that will be aligned to what any parameter asks of it.
    pub start: usize,
    /// Its length in bytes.
    pub bytes: usize,
    /// Whether the kernel may write it.
    pub writable: bool,
}

impl ArgShape {
    /// Whether any byte belongs to both.
    #[must_use]
    pub const fn overlaps(&self, other: &ArgShape) -> bool {
        self.space == other.space
            && self.bytes > 0
            && other.bytes > 0
            && self.start < other.start.saturating_add(other.bytes)
            && other.start < self.start.saturating_add(self.bytes)
    }
}

/// Why a launch does not fit its kernel's signature.
///
/// Buffer arguments are counted from 0 among the buffer parameters, in order.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the messages say what the fields are
pub enum Misuse {
    #[error("{got} buffer arguments for {expected} buffer parameters")]
    ArgumentCount { expected: usize, got: usize },
    #[error("{got} scalars for {expected} scalar parameters")]
    ScalarCount { expected: usize, got: usize },
    #[error("argument {argument}: elements are {got}, the kernel expects {expected}")]
    DType {
        argument: usize,
        expected: DType,
        got: DType,
    },
    #[error("argument {argument}: {got} bytes, the kernel touches {expected}")]
    TooShort {
        argument: usize,
        expected: usize,
        got: usize,
    },
    #[error(
        "argument {argument}: its first byte is {misaligned_by} past a multiple of {expected} \
         bytes, which the kernel assumes; copy it to a Buffer, or view it from another offset"
    )]
    Misaligned {
        argument: usize,
        expected: usize,
        misaligned_by: usize,
    },
    #[error("argument {argument}: the kernel writes it, and it is given for reading only")]
    ReadOnly { argument: usize },
    #[error("arguments {first} and {second} overlap, and the kernel writes one of them")]
    Overlap { first: usize, second: usize },
    #[error("scalar `{name}`: a value of type {got}, the kernel expects {expected}")]
    ScalarType {
        name: String,
        expected: DType,
        got: DType,
    },
    #[error("scalar `{name}`: {value} is outside {bounds}")]
    ScalarRange {
        name: String,
        value: Number,
        bounds: super::Bounds,
    },
    #[error(
        "scalar `{name}` states no bounds, so a safe launch cannot vouch for it; state them in \
         the signature, or use the unsafe launch"
    )]
    Unbounded { name: String },
    #[error("a grid of {grid}, the kernel allows {max}")]
    Grid { grid: u64, max: u64 },
    #[error("a grid of {grid} for a kernel without a grid index")]
    GridWithoutIndex { grid: u64 },
}

impl Signature {
    /// Checks `count` buffer arguments, each described by `arg`: count, types,
    /// lengths, alignment, access, overlap. Allocates nothing.
    ///
    /// # Errors
    ///
    /// The first [`Misuse`] found.
    pub fn check_arguments(
        &self,
        count: usize,
        arg: impl Fn(usize) -> ArgShape,
    ) -> Result<(), Misuse> {
        let expected = self.buffers().count();
        if count != expected {
            return Err(Misuse::ArgumentCount {
                expected,
                got: count,
            });
        }
        for (argument, param) in self.buffers().enumerate() {
            let shape = arg(argument);
            if let Some(got) = shape.dtype
                && got != param.dtype
            {
                return Err(Misuse::DType {
                    argument,
                    expected: param.dtype,
                    got,
                });
            }
            if shape.bytes < param.bytes() {
                return Err(Misuse::TooShort {
                    argument,
                    expected: param.bytes(),
                    got: shape.bytes,
                });
            }
            // A kernel that touches no element assumes nothing of the address.
            let misaligned_by = shape.start % param.align;
            if misaligned_by != 0 && param.len > 0 {
                return Err(Misuse::Misaligned {
                    argument,
                    expected: param.align,
                    misaligned_by,
                });
            }
            if param.access.writes() && !shape.writable {
                return Err(Misuse::ReadOnly { argument });
            }
        }
        for (second, param) in self.buffers().enumerate() {
            let shape = arg(second);
            for (first, earlier) in self.buffers().take(second).enumerate() {
                let harmless = !param.access.writes() && !earlier.access.writes();
                if !harmless && shape.overlaps(&arg(first)) {
                    return Err(Misuse::Overlap { first, second });
                }
            }
        }
        Ok(())
    }

    /// Checks the grid of a launch.
    ///
    /// # Errors
    ///
    /// [`Misuse::Grid`] above the index's maximum, [`Misuse::GridWithoutIndex`]
    /// above 1 without an index.
    pub fn check_grid(&self, grid: u64) -> Result<(), Misuse> {
        match self.index() {
            Some(index) if grid > index.max => Err(Misuse::Grid {
                grid,
                max: index.max,
            }),
            None if grid > 1 => Err(Misuse::GridWithoutIndex { grid }),
            _ => Ok(()),
        }
    }

    /// Checks scalars, in the order of the scalar parameters, for count, type
    /// and bounds.
    ///
    /// # Errors
    ///
    /// The first [`Misuse`] found; [`Misuse::Unbounded`] is not among them.
    pub fn check_scalars(&self, scalars: &[Scalar]) -> Result<(), Misuse> {
        let expected = self.scalars().count();
        if scalars.len() != expected {
            return Err(Misuse::ScalarCount {
                expected,
                got: scalars.len(),
            });
        }
        self.scalars()
            .zip(scalars)
            .try_for_each(|(param, scalar)| param.check(*scalar))
    }

    /// The first scalar parameter that states no bounds, if there is one.
    #[must_use]
    pub fn unbounded(&self) -> Option<&ScalarParam> {
        self.params().iter().find_map(|p| match p {
            Param::Scalar(p) if p.bounds == super::Bounds::Unstated => Some(p),
            _ => None,
        })
    }
}

impl ScalarParam {
    /// Checks one value for its type and bounds.
    ///
    /// # Errors
    ///
    /// [`Misuse::ScalarType`] or [`Misuse::ScalarRange`].
    pub fn check(&self, scalar: Scalar) -> Result<(), Misuse> {
        if scalar.dtype() != self.dtype {
            return Err(Misuse::ScalarType {
                name: self.name.clone(),
                expected: self.dtype,
                got: scalar.dtype(),
            });
        }
        if !self.bounds.contain(scalar.number()) {
            return Err(Misuse::ScalarRange {
                name: self.name.clone(),
                value: scalar.number(),
                bounds: self.bounds,
            });
        }
        Ok(())
    }
}
