//! Errors of work with a GPU.

use std::time::Duration;

/// Reason why something could not be done on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    /// No driver library: the usual state of machines without a GPU.
    #[error("libcuda is not installed: there is no NVIDIA driver on this machine")]
    NoDriver,
    /// A driver, but no device that this process may use.
    #[error("the NVIDIA driver finds no device (none is there, or CUDA_VISIBLE_DEVICES hides it)")]
    NoDevice,
    /// There is no device with this number.
    #[error("there is no device {ordinal}: the driver finds {count}")]
    NoSuchDevice {
        /// Number of the device, from 0.
        ordinal: u32,
        /// Number of devices.
        count: u32,
    },
    /// A driver function failed.
    #[error("{function}: {name} ({code}), {message}")]
    Call {
        /// Driver function.
        function: &'static str,
        /// Its `CUresult`.
        code: u32,
        /// The driver's name of that result.
        name: String,
        /// The driver's description of that result.
        message: String,
    },
    /// The installed library is older than a function that it needs.
    #[error("the installed {library} is too old: it lacks {function}")]
    Missing {
        /// Library found.
        library: &'static str,
        /// Missing function.
        function: &'static str,
    },
    /// The driver's compiler refused a kernel.
    #[error("{source}; its compiler says: {log}")]
    Compile {
        /// Error of the call.
        source: Box<CudaError>,
        /// Output of the compiler.
        log: String,
    },
    /// Work on the device did not end in time. It may still be running, so the memory that it uses must stay as it is.
    #[error("{what}: the device did not finish within {limit:?}")]
    TimedOut {
        /// Work that was waited for.
        what: &'static str,
        /// Time waited.
        limit: Duration,
    },
    /// An argument that cannot be right.
    #[error("{what}")]
    Invalid {
        /// Reason, with the values.
        what: String,
    },
    /// cuBLASLt, a library apart from the driver, is not installed.
    #[error(
        "libcublasLt is not installed (the wheel nvidia-cublas or a CUDA toolkit has it; LD_LIBRARY_PATH must name its directory)"
    )]
    NoBlas,
    /// A cuBLASLt function failed.
    #[error("{function}: {status}")]
    Blas {
        /// cuBLASLt function.
        function: &'static str,
        /// Name of the status.
        status: String,
    },
}

impl CudaError {
    /// True if there is no GPU, as opposed to a GPU that does not work.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NoDriver | Self::NoDevice)
    }
}
