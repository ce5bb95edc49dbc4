//! The ranges of one pull, checked and joined; knows nothing of how they travel.

use std::time::{Duration, Instant};

use kernels::memory::Region;
use sched::LeaseId;
use sched::layout::TileCopy;

use crate::{Limits, RegionId, Side, TransferError};

/// One pull: ranges of one region of the peer into ranges of one region of this worker, under one lease.
///
/// The local ranges belong to the transport from `start` until the ticket has ended: no other code may touch them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Lease under which the owner serves the remote ranges.
    pub lease: LeaseId,
    /// Region of the peer.
    pub remote: RegionId,
    /// Region of this worker.
    pub local: RegionId,
    /// The ranges. Neighbours that are adjacent on both sides are joined.
    pub copies: Vec<RangeCopy>,
    /// Time from `start` to the last byte, including the wait for other batches; afterwards the batch fails.
    pub deadline: Duration,
    /// Time from the batch's first read to its last byte; afterwards it fails. Batches of a peer are read one after the
    /// other, and the wait for earlier batches does not count.
    pub reading: Duration,
}

/// Range to pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeCopy {
    /// Start in the peer's region, in bytes.
    pub remote_offset: u64,
    /// Start in this worker's region, in bytes.
    pub local_offset: u64,
    /// Length.
    pub bytes: u64,
}

impl From<TileCopy> for RangeCopy {
    fn from(copy: TileCopy) -> Self {
        Self { remote_offset: copy.src_offset, local_offset: copy.dst_offset, bytes: copy.bytes }
    }
}

/// A checked batch: its ranges lie inside their regions, and adjacent ones are joined.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) lease: LeaseId,
    pub(crate) remote: RegionId,
    pub(crate) local: Region,
    #[cfg_attr(not(feature = "ucx"), allow(dead_code, reason = "only one-sided transports ask for this"))]
    pub(crate) local_region: RegionId,
    pub(crate) copies: Vec<RangeCopy>,
    pub(crate) bytes: u64,
    pub(crate) started: Instant,
    pub(crate) allowed: Duration,
    pub(crate) reading: Duration,
}

impl Job {
    pub(crate) fn check(
        batch: Batch,
        remote_bytes: u64,
        local: &Region,
        limits: &Limits,
    ) -> Result<Self, TransferError> {
        if batch.copies.len() > limits.copies_max {
            let max = limits.copies_max as u64;
            return Err(TransferError::Limit { operation: "start a batch", what: "ranges", max });
        }
        for copy in &batch.copies {
            inside(Side::Remote, batch.remote, copy.remote_offset, copy.bytes, remote_bytes)?;
            inside(Side::Local, batch.local, copy.local_offset, copy.bytes, local.bytes() as u64)?;
        }
        let copies = joined(batch.copies);
        let bytes = copies.iter().map(|copy| copy.bytes).fold(0, u64::saturating_add);
        if bytes == 0 {
            return Err(TransferError::EmptyBatch);
        }
        Ok(Self {
            lease: batch.lease,
            remote: batch.remote,
            local: local.clone(),
            local_region: batch.local,
            copies,
            bytes,
            started: Instant::now(),
            allowed: batch.deadline,
            reading: batch.reading,
        })
    }

    /// Moment from which the batch is late; `None` beyond the range of the clock.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.started.checked_add(self.allowed)
    }

    pub(crate) fn late(&self) -> TransferError {
        TransferError::late("pull a batch", self.allowed)
    }

    pub(crate) fn slow(&self) -> TransferError {
        TransferError::late("read a batch", self.reading)
    }
}

fn inside(side: Side, region: RegionId, offset: u64, bytes: u64, region_bytes: u64) -> Result<(), TransferError> {
    match offset.checked_add(bytes) {
        Some(end) if end <= region_bytes => Ok(()),
        Some(_) | None => Err(TransferError::Bounds { side, region, offset, bytes, region_bytes }),
    }
}

/// Joins neighbours that are adjacent on both sides and drops empty ranges; the order stays.
fn joined(copies: Vec<RangeCopy>) -> Vec<RangeCopy> {
    let mut joined: Vec<RangeCopy> = Vec::with_capacity(copies.len());
    for copy in copies.into_iter().filter(|copy| copy.bytes > 0) {
        match joined.last_mut() {
            Some(last)
                if last.remote_offset + last.bytes == copy.remote_offset
                    && last.local_offset + last.bytes == copy.local_offset =>
            {
                last.bytes += copy.bytes;
            }
            Some(_) | None => joined.push(copy),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kernels::memory::{Backing, HostMemory};
    use proptest::prelude::*;

    use super::*;

    fn check(copies: Vec<RangeCopy>) -> Result<Job, TransferError> {
        let local = Region::from(Arc::new(HostMemory::new(1000, Backing::Anonymous).unwrap()));
        let deadline = Duration::from_secs(1);
        let batch =
            Batch { lease: LeaseId(1), remote: RegionId(0), local: RegionId(0), copies, deadline, reading: deadline };
        Job::check(batch, 2000, &local, &Limits::default())
    }

    fn copy(remote_offset: u64, local_offset: u64, bytes: u64) -> RangeCopy {
        RangeCopy { remote_offset, local_offset, bytes }
    }

    #[test]
    fn ranges_adjacent_on_both_sides_are_joined() {
        let job = check(vec![copy(0, 100, 10), copy(10, 110, 5), copy(15, 200, 5), copy(7, 7, 0), copy(20, 205, 1)]);
        let job = job.unwrap();
        assert_eq!(job.copies, vec![copy(0, 100, 15), copy(15, 200, 6)]);
        assert_eq!(job.bytes, 21);
    }

    #[test]
    fn ranges_that_leave_a_region_are_refused_by_name() {
        let remote = check(vec![copy(1999, 0, 2)]).unwrap_err();
        let expected = "start a batch: 2 bytes at offset 1999 leave the remote region0 of 2000 bytes";
        assert_eq!(remote.to_string(), expected);
        let local = check(vec![copy(0, 1000, 1)]).unwrap_err();
        assert_eq!(local.to_string(), "start a batch: 1 bytes at offset 1000 leave the local region0 of 1000 bytes");
        assert!(matches!(check(vec![copy(u64::MAX, 0, 2)]).unwrap_err(), TransferError::Bounds { .. }));
        assert_eq!(check(vec![]).unwrap_err(), TransferError::EmptyBatch);
        assert_eq!(check(vec![copy(2000, 1000, 0)]).unwrap_err(), TransferError::EmptyBatch);
    }

    proptest! {
        #[test]
        fn joining_moves_the_same_bytes(lengths in prop::collection::vec((0_u64..5, 0_u64..3, 0_u64..3), 0..40)) {
            let (mut remote, mut local) = (0, 0);
            let mut copies = Vec::new();
            for (bytes, remote_gap, local_gap) in lengths {
                copies.push(copy(remote, local, bytes));
                remote += bytes + remote_gap / 2;
                local += bytes + local_gap / 2;
            }
            let moves = |copies: &[RangeCopy]| -> Vec<(u64, u64)> {
                copies.iter().flat_map(|c| (0..c.bytes).map(|i| (c.remote_offset + i, c.local_offset + i))).collect()
            };
            let joined = joined(copies.clone());
            prop_assert_eq!(moves(&joined), moves(&copies));
            prop_assert!(joined.windows(2).all(|pair| pair[0].remote_offset + pair[0].bytes != pair[1].remote_offset
                || pair[0].local_offset + pair[0].bytes != pair[1].local_offset));
        }
    }
}
