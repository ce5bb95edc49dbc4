//! The failures of making or opening a mapping.

use std::io;

/// Why host memory could not be mapped; every variant names the bytes wanted.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A mapping of no bytes has no meaning.
    #[error("map of 0 bytes of host memory")]
    Empty,
    /// A system call refused.
    #[error("{call} for {wanted_bytes} bytes of host memory: {source}")]
    System {
        /// The system call that refused.
        call: &'static str,
        /// How long the mapping was to be.
        wanted_bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file whose owner could shrink it would kill its reader with SIGBUS.
    #[error("open of a peer's {wanted_bytes} bytes: the file is not a memfd sealed against shrinking")]
    NotSealed {
        /// How long the mapping was to be.
        wanted_bytes: usize,
    },
    /// The peer promised more than its file holds.
    #[error("open of a peer's {wanted_bytes} bytes: its memfd holds only {has_bytes}")]
    TooShort {
        /// How long the mapping was to be.
        wanted_bytes: usize,
        /// How long the file is.
        has_bytes: usize,
    },
}

impl MemoryError {
    /// The error that the last system call of this thread left in `errno`.
    pub(super) fn last(call: &'static str, wanted_bytes: usize) -> Self {
        Self::System { call, wanted_bytes, source: io::Error::last_os_error() }
    }
}
