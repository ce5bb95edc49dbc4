//! Another process's memfd mapped for reading; knows nothing of how the descriptor came here.

use std::os::fd::{AsFd, OwnedFd};

use super::MemoryError;
use super::mapping::{self, Mapping};

/// A read-only mapping of another process's [`super::HostMemory`] with [`super::Backing::Memfd`].
///
/// The owner may write at any time, so copy the bytes out through the raw pointer and never make a Rust reference to
/// them. The mapping outlives the owner: the kernel keeps the pages until the last mapping is gone.
#[derive(Debug)]
pub struct PeerMemory {
    mapping: Mapping,
}

impl PeerMemory {
    /// Maps the first `bytes` bytes of a memfd that its owner has sealed against shrinking.
    pub fn open(fd: OwnedFd, bytes: usize) -> Result<Self, MemoryError> {
        if bytes == 0 {
            return Err(MemoryError::Empty);
        }
        if !mapping::cannot_shrink(fd.as_fd()) {
            return Err(MemoryError::NotSealed { wanted_bytes: bytes });
        }
        mapping::holds(fd.as_fd(), bytes)?;
        Ok(Self { mapping: Mapping::read_only(fd.as_fd(), 0, bytes)? })
    }

    /// The first byte; valid for reads of [`PeerMemory::len`] bytes.
    pub fn as_ptr(&self) -> *const u8 {
        self.mapping.as_ptr()
    }

    /// Length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.mapping.len()
    }
}
