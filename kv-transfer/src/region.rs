//! Whether a transport can serve a piece of memory.

use std::sync::Arc;

use kernels::memory::{HostMemory, Region, RegionKind};

use crate::{TransferError, TransportKind};

/// The memory of the host, for transports that serve no other.
pub(crate) fn host_memory(kind: TransportKind, memory: &Region) -> Result<&Arc<HostMemory>, TransferError> {
    let wrong = || TransferError::WrongMemory { kind, needed: RegionKind::Host, found: memory.kind() };
    memory.host().ok_or_else(wrong)
}
