//! Memory that kernels compute in and transports move, on the host or on a device; knows nothing of what is stored in it.

use std::fmt;
use std::sync::Arc;

use super::HostMemory;

/// One piece of memory, alive as long as somebody has it.
#[derive(Debug, Clone)]
pub enum Region {
    /// In this process.
    Host(Arc<HostMemory>),
    /// On an accelerator.
    Device(Arc<dyn DeviceMemory>),
}

/// Memory of an accelerator, which the host cannot read or write by itself.
pub trait DeviceMemory: fmt::Debug + Send + Sync {
    /// Ordinal of the device.
    fn device(&self) -> u32;
    /// First byte, as the device addresses it.
    fn address(&self) -> u64;
    /// Length in bytes.
    fn bytes(&self) -> usize;
}

/// Where a region lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegionKind {
    /// In host memory.
    Host,
    /// In a device's memory.
    Device,
}

impl Region {
    /// Where it lies.
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
