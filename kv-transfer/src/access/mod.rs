//! Leases, and the ranges of this worker's regions that they open to readers; knows nothing of how reads arrive.

mod leases;

pub use leases::LeaseTable;
use sched::LeaseId;

use crate::RegionId;

/// Check that the owner's transport threads make before they serve a range.
pub trait AccessCheck: Send + Sync {
    /// Calls `read` once if `lease` covers `bytes` bytes at `offset` of `region`. The lease cannot end during the call:
    /// its end waits for `read`, which must be short and must not call this check again.
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

/// Reason for which a read was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccessDenied {
    /// The lease has ended.
    #[error("the lease has expired")]
    Expired,
    /// The owner knows no such lease.
    #[error("the lease is unknown")]
    Unknown,
    /// The range is not inside the lease or the region.
    #[error("the range is outside the lease")]
    Bounds,
}
