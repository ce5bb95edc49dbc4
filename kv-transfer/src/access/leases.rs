//! The table of live leases, written by the replica thread and read by transport threads.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{PoisonError, RwLock};

use sched::LeaseId;

use super::{AccessCheck, AccessDenied};
use crate::RegionId;

/// Number of ended leases kept, so that a late reader is answered "expired" rather than "unknown".
const ENDED_REMEMBERED_MAX: usize = 4096;

/// Leases and the ranges that each covers. A check takes one shared lock and one binary search.
#[derive(Debug, Default)]
pub struct LeaseTable {
    inner: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Ranges of each lease and region: sorted, disjoint, not adjacent.
    live: BTreeMap<LeaseId, BTreeMap<RegionId, Vec<Range<u64>>>>,
    ended: VecDeque<LeaseId>,
}

impl LeaseTable {
    /// Returns a table without leases, which refuses every read.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets readers that name `lease` read these byte ranges of `region`, in addition to those already granted.
    pub fn grant(&self, lease: LeaseId, region: RegionId, ranges: impl IntoIterator<Item = Range<u64>>) {
        let mut table = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let covered = table.live.entry(lease).or_default().entry(region).or_default();
        covered.extend(ranges.into_iter().filter(|range| range.start < range.end));
        merge(covered);
    }

    /// Ends a lease: after this returns, no read under it is going on. Repeating it changes nothing.
    pub fn revoke(&self, lease: LeaseId) {
        let mut table = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if table.live.remove(&lease).is_some() {
            table.ended.push_back(lease);
            if table.ended.len() > ENDED_REMEMBERED_MAX {
                table.ended.pop_front();
            }
        }
    }

    /// Number of live leases.
    pub fn live(&self) -> usize {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).live.len()
    }
}

impl AccessCheck for LeaseTable {
    fn under(
        &self,
        lease: LeaseId,
        region: RegionId,
        offset: u64,
        bytes: u64,
        read: &mut dyn FnMut(),
    ) -> Result<(), AccessDenied> {
        // Held until `read` has returned, so that `revoke` waits for it.
        let table = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let Some(regions) = table.live.get(&lease) else {
            let ended = table.ended.contains(&lease);
            return Err(if ended { AccessDenied::Expired } else { AccessDenied::Unknown });
        };
        let end = offset.checked_add(bytes).ok_or(AccessDenied::Bounds)?;
        let ranges = regions.get(&region).ok_or(AccessDenied::Bounds)?;
        let after = ranges.partition_point(|range| range.start <= offset);
        match after.checked_sub(1).and_then(|index| ranges.get(index)) {
            Some(range) if end <= range.end => {
                read();
                Ok(())
            }
            Some(_) | None => Err(AccessDenied::Bounds),
        }
    }
}

fn merge(ranges: &mut Vec<Range<u64>>) {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges.drain(..) {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            Some(_) | None => merged.push(range),
        }
    }
    *ranges = merged;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REGION: RegionId = RegionId(0);

    #[test]
    fn a_lease_covers_what_was_granted_until_it_is_revoked() {
        let table = LeaseTable::new();
        let lease = LeaseId(7);
        assert_eq!(table.check(lease, REGION, 0, 1), Err(AccessDenied::Unknown));
        table.grant(lease, REGION, [100..200, 300..400]);
        assert_eq!(table.check(lease, REGION, 100, 100), Ok(()));
        assert_eq!(table.check(lease, REGION, 100, 101), Err(AccessDenied::Bounds));
        assert_eq!(table.check(lease, REGION, 150, 200), Err(AccessDenied::Bounds));
        assert_eq!(table.check(lease, RegionId(1), 100, 1), Err(AccessDenied::Bounds));
        assert_eq!(table.check(lease, REGION, 199, u64::MAX), Err(AccessDenied::Bounds));
        table.grant(lease, REGION, std::iter::once(200..300));
        assert_eq!(table.check(lease, REGION, 150, 200), Ok(()));
        table.revoke(lease);
        table.revoke(lease);
        assert_eq!(table.check(lease, REGION, 100, 1), Err(AccessDenied::Expired));
        assert_eq!(table.live(), 0);
    }

    #[test]
    fn a_lease_does_not_end_under_a_read() {
        let table = LeaseTable::new();
        let lease = LeaseId(7);
        table.grant(lease, REGION, std::iter::once(0..8));
        let ended = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let revoked = || {
                table.revoke(lease);
                ended.store(true, std::sync::atomic::Ordering::SeqCst);
            };
            let mut read = || {
                scope.spawn(revoked);
                std::thread::sleep(std::time::Duration::from_millis(50));
                assert!(!ended.load(std::sync::atomic::Ordering::SeqCst), "it ended under a read");
            };
            assert_eq!(table.under(lease, REGION, 0, 8, &mut read), Ok(()));
        });
        assert!(ended.into_inner());
        let denied = table.under(lease, REGION, 0, 8, &mut || panic!("it has ended"));
        assert_eq!(denied, Err(AccessDenied::Expired));
    }

    #[test]
    fn ended_leases_are_remembered_for_a_while_only() {
        let table = LeaseTable::new();
        for id in 0..=ENDED_REMEMBERED_MAX as u64 {
            table.grant(LeaseId(id), REGION, std::iter::once(0..1));
            table.revoke(LeaseId(id));
        }
        assert_eq!(table.check(LeaseId(0), REGION, 0, 1), Err(AccessDenied::Unknown));
        assert_eq!(table.check(LeaseId(1), REGION, 0, 1), Err(AccessDenied::Expired));
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_a_byte_map(
            grants in prop::collection::vec((0_u64..60, 0_u64..12), 0..12),
            offset in 0_u64..64,
            bytes in 1_u64..16,
        ) {
            let table = LeaseTable::new();
            let mut covered = [false; 128];
            for (start, length) in grants {
                table.grant(LeaseId(1), REGION, std::iter::once(start..start + length));
                covered[start as usize..(start + length) as usize].fill(true);
            }
            table.grant(LeaseId(1), REGION, []);
            let expected = covered[offset as usize..(offset + bytes) as usize].iter().all(|byte| *byte);
            prop_assert_eq!(table.check(LeaseId(1), REGION, offset, bytes).is_ok(), expected);
        }
    }
}
