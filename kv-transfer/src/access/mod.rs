//! Who may read which range of our regions; knows nothing of how reads arrive.

mod leases;

pub use leases::LeaseTable;
use sched::LeaseId;

use crate::RegionId;

/// Asked by the owner's transport threads before a range is served.
pub trait AccessCheck: Send + Sync {
    /// Calls `read` once if `lease` covers `bytes` bytes at `offset` of `region`, and does not let it end meanwhile: who
    /// ends it waits for `read`, which must therefore be short and must not come back here.
    fn under(
        &self,
        lease: LeaseId,
        region: RegionId,
        offset: u64,
        bytes: u64,
        read: &mut dyn FnMut(),
    ) -> Result<(), AccessDenied>;

    /// Whether `lease` covers `bytes` bytes at `offset` of `region` right now.
    fn check(&self, lease: LeaseId, region: RegionId, offset: u64, bytes: u64) -> Result<(), AccessDenied> {
        self.under(lease, region, offset, bytes, &mut || {})
    }
}

/// Why a read was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccessDenied {
    /// The lease has been, and is over.
    #[error("the lease has expired")]
    Expired,
    /// The owner knows no such lease.
    #[error("the lease is unknown")]
    Unknown,
    /// The range leaves what the lease or the region covers.
    #[error("the range is outside the lease")]
    Bounds,
}
