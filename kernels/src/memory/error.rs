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
    /// What a system call refused, for `map_err`.
    pub(super) fn of(call: &'static str, wanted_bytes: usize) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::System { call, wanted_bytes, source: errno.into() }
    }
}
