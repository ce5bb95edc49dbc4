//! Failures to make or open a mapping.

use std::io;

/// Reason why host memory could not be mapped; every variant names the bytes wanted.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Mapping of 0 bytes.
    #[error("map of 0 bytes of host memory")]
    Empty,
    /// A system call failed.
    #[error("{call} for {wanted_bytes} bytes of host memory: {source}")]
    System {
        /// The system call.
        call: &'static str,
        /// Requested length.
        wanted_bytes: usize,
        /// Error of the kernel.
        source: io::Error,
    },
    /// The owner could shrink the file, which would kill its reader with SIGBUS.
    #[error("open of a peer's {wanted_bytes} bytes: the file is not a memfd sealed against shrinking")]
    NotSealed {
        /// Requested length.
        wanted_bytes: usize,
    },
    /// The file is shorter than the peer said.
    #[error("open of a peer's {wanted_bytes} bytes: its memfd holds only {has_bytes}")]
    TooShort {
        /// Requested length.
        wanted_bytes: usize,
        /// Length of the file.
        has_bytes: usize,
    },
}

impl MemoryError {
    /// Makes the error of a system call, for `map_err`.
    pub(super) fn of(call: &'static str, wanted_bytes: usize) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::System { call, wanted_bytes, source: errno.into() }
    }
}
