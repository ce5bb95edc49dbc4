//! Everything that talking to a GPU can fail at.

use std::time::Duration;

/// Why something could not be done on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    /// No driver library: the usual state of a machine without a GPU.
    #[error("libcuda is not installed: there is no NVIDIA driver on this machine")]
    NoDriver,
    /// A driver, but no device that this process may use.
    #[error("the NVIDIA driver finds no device (none is there, or CUDA_VISIBLE_DEVICES hides it)")]
    NoDevice,
    /// A device number beyond the last.
    #[error("there is no device {ordinal}: the driver finds {count}")]
    NoSuchDevice {
        /// What was asked for, counted from 0.
        ordinal: u32,
        /// How many there are.
        count: u32,
    },
    /// A driver function refused.
    #[error("{function}: {name} ({code}), {message}")]
    Call {
        /// The driver function.
        function: &'static str,
        /// Its `CUresult`.
        code: u32,
        /// The driver's name of that result.
        name: String,
        /// The driver's description of that result.
        message: String,
    },
    /// A function that came with a later version than the one installed.
    #[error("the installed {library} is too old: it lacks {function}")]
    Missing {
        /// The library that was found.
        library: &'static str,
        /// The function it lacks.
        function: &'static str,
    },
    /// The driver's compiler refused a kernel's text.
    #[error("{source}; its compiler says: {log}")]
    Compile {
        /// The call that failed.
        source: Box<CudaError>,
        /// What the compiler wrote.
        log: String,
    },
    /// Work on the device did not end in time. It may still be running: what it touches must stay as it is.
    #[error("{what}: the device did not finish within {limit:?}")]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// How long.
        limit: Duration,
    },
    /// An argument that cannot be right.
    #[error("{what}")]
    Invalid {
        /// What is wrong, with the values.
        what: String,
    },
    /// cuBLASLt is a library of its own, apart from the driver.
    #[error(
        "libcublasLt is not installed (the wheel nvidia-cublas or a CUDA toolkit has it; LD_LIBRARY_PATH must name its directory)"
    )]
    NoBlas,
    /// A cuBLASLt function refused.
    #[error("{function}: {status}")]
    Blas {
        /// The function.
        function: &'static str,
        /// Its status, by name.
        status: String,
    },
}

impl CudaError {
    /// Whether this says that there is no GPU here, as opposed to one that does not work.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NoDriver | Self::NoDevice)
    }
}
