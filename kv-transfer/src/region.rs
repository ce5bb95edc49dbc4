//! Check that a transport can serve a piece of memory.

use std::sync::Arc;

use kernels::memory::{HostMemory, Region, RegionKind};

use crate::{TransferError, TransportKind};

/// Returns the region's host memory, for transports that serve no device memory.
pub(crate) fn host_memory(kind: TransportKind, memory: &Region) -> Result<&Arc<HostMemory>, TransferError> {
    let wrong = || TransferError::WrongMemory { kind, needed: RegionKind::Host, found: memory.kind() };
    memory.host().ok_or_else(wrong)
}
