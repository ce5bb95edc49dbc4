//! Memory that kernels compute in and transports move, on the host or a device; knows nothing of its contents.

use std::fmt;
use std::sync::Arc;

use super::HostMemory;

/// A piece of memory that lives as long as its last owner.
#[derive(Debug, Clone)]
pub enum Region {
    /// Memory of this host.
    Host(Arc<HostMemory>),
    /// Memory of an accelerator.
    Device(Arc<dyn DeviceMemory>),
}

/// Memory of an accelerator, which the host cannot read or write directly.
pub trait DeviceMemory: fmt::Debug + Send + Sync {
    /// Ordinal of the device.
    fn device(&self) -> u32;
    /// First byte, as the device addresses it.
    fn address(&self) -> u64;
    /// Length in bytes.
    fn bytes(&self) -> usize;
}

/// Place of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegionKind {
    /// In host memory.
    Host,
    /// In a device's memory.
    Device,
}

impl Region {
    /// Place of the memory.
    #[must_use]
    pub fn kind(&self) -> RegionKind {
        match self {
            Region::Host(_) => RegionKind::Host,
            Region::Device(_) => RegionKind::Device,
        }
    }

    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Region::Host(memory) => memory.len(),
            Region::Device(memory) => memory.bytes(),
        }
    }

    /// The host memory; `None` on a device.
    #[must_use]
    pub fn host(&self) -> Option<&Arc<HostMemory>> {
        match self {
            Region::Host(memory) => Some(memory),
            Region::Device(_) => None,
        }
    }
}

impl From<Arc<HostMemory>> for Region {
    fn from(memory: Arc<HostMemory>) -> Region {
        Region::Host(memory)
    }
}

impl fmt::Display for RegionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RegionKind::Host => "host memory",
            RegionKind::Device => "device memory",
        })
    }
}
