//! The errors that Svod's crates carry on.

use snafu::Snafu;

/// What may fail with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What goes wrong between a kernel's text and the end of its plan's run. The variants are
/// those of the original; errors of the library are in them as text, with all that they say.
#[derive(Debug, Snafu)]
#[snafu(visibility(pub))]
pub enum Error {
    /// The code generator failed.
    #[snafu(display("Codegen error: {source}"))]
    Codegen {
        /// Its error.
        source: svod_codegen::Error,
    },

    /// A kernel's text was not compiled, or its code not loaded.
    #[snafu(display("JIT compilation failed: {reason}"))]
    JitCompilation {
        /// What failed, and the compiler's words.
        reason: String,
    },

    /// An object lacks its entry.
    #[snafu(display("Function '{name}' not found in module"))]
    FunctionNotFound {
        /// The entry.
        name: String,
    },

    /// No memory for a buffer.
    #[snafu(display("Buffer allocation failed: {reason}"))]
    BufferAllocation {
        /// Why.
        reason: String,
    },

    /// A buffer of a size that makes no sense.
    #[snafu(display("Invalid buffer size: {size}"))]
    InvalidBufferSize {
        /// In bytes.
        size: usize,
    },

    /// A plan was not built, or a run failed.
    #[snafu(display("Execution error: {reason}"))]
    Execution {
        /// Which op, and why.
        reason: String,
    },

    /// LLVM refused a module.
    #[snafu(display("LLVM error: {reason}"))]
    LlvmError {
        /// Its words.
        reason: String,
    },

    /// A device that this runtime has not.
    #[snafu(display("Unsupported device type: {device}"))]
    UnsupportedDevice {
        /// Its type.
        device: String,
    },

    /// What Svod has a name for, and no runtime does yet.
    #[snafu(display("Unsupported runtime feature {kind}: {reason}"))]
    Unsupported {
        /// The name.
        kind: String,
        /// Why.
        reason: String,
    },

    /// An error of Svod's device layer.
    #[snafu(display("Device error: {source}"))]
    Device {
        /// That error.
        source: svod_device::Error,
    },
}

impl From<svod_device::Error> for Error {
    fn from(source: svod_device::Error) -> Self {
        Error::Device { source }
    }
}

impl Error {
    pub(crate) fn execution(reason: impl Into<String>) -> Error {
        Error::Execution {
            reason: reason.into(),
        }
    }
}

/// An error of the library, or of this crate, as one of Svod's device layer, which has text.
pub(crate) fn device(e: impl std::fmt::Display) -> svod_device::Error {
    svod_device::Error::Runtime {
        message: e.to_string(),
    }
}
