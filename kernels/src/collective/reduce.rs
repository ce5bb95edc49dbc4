//! Sums over the ranks of one group; each rank adds a share of the values. Knows no matrix.
//!
//! Each rank copies its rows into its slot, sums its share of the values over all slots in the tree, and reads the
//! whole sum: every value is summed by exactly one rank.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::counter::Patience;
use super::segment::Number;
use super::{Collective, CollectiveError, Segment};
use crate::Ops;

/// Values that are summed at a time, so that they stay in the first-level cache.
const BLOCK_VALUES: usize = 2048;

/// One rank's end of the sums of its group.
pub struct SharedReduce {
    segment: Arc<Segment>,
    first: usize,
    rank: usize,
    round: u32,
    patience: Patience,
}

impl SharedReduce {
    /// Makes the end of rank `rank` of the segment.
    pub fn new(segment: &Arc<Segment>, rank: usize, patience: Patience) -> Result<SharedReduce, CollectiveError> {
        let shape = segment.shape();
        if rank >= shape.ranks {
            let must = format!("less than {}", shape.ranks);
            return Err(CollectiveError::Shape { what: "rank", found: rank, must });
        }
        let first = rank / shape.group_ranks * shape.group_ranks;
        Ok(SharedReduce { segment: Arc::clone(segment), first, rank: rank - first, round: 0, patience })
    }

    fn group_ranks(&self) -> usize {
        self.segment.shape().group_ranks
    }

    /// Announces that this rank has finished a phase of a sum of `values`, and waits for the other ranks.
    fn meet(&self, phase: u32, values: usize) -> Result<(), CollectiveError> {
        let own = self.segment.number(self.first + self.rank, Number::Summed);
        // A rank is at most one phase ahead of the others, so two notes are enough.
        let note = phase as usize % 2;
        own.notes[note].store(values as u32, Ordering::Relaxed);
        own.raise(phase);
        for rank in self.first..self.first + self.group_ranks() {
            let other = self.segment.number(rank, Number::Summed);
            let met = other.wait_for(phase, self.segment.over(), self.patience);
            met.map_err(|unmet| self.segment.unmet(unmet, rank, "come to a sum"))?;
            let found = other.notes[note].load(Ordering::Relaxed) as usize;
            if found != values {
                let must = format!("{values}, as this rank has");
                return Err(CollectiveError::Shape { what: "values another rank sums up", found, must });
            }
        }
        Ok(())
    }

    /// This rank's share of the values, in whole cache lines.
    fn share(&self, values: usize) -> std::ops::Range<usize> {
        let per_rank = values.div_ceil(self.group_ranks()).next_multiple_of(16);
        (self.rank * per_rank).min(values)..((self.rank + 1) * per_rank).min(values)
    }

    /// Sums this rank's share over the slots, pairs first, into the slot of the group's first rank.
    fn sum(&self, values: usize) {
        let share = self.share(values);
        for from in share.clone().step_by(BLOCK_VALUES) {
            let count = BLOCK_VALUES.min(share.end - from);
            // SAFETY: a slot has room for `values`; between the two meetings of a round only this rank touches its
            // share of any slot.
            let block = |rank: usize| unsafe {
                std::slice::from_raw_parts_mut(self.segment.slot(self.first + rank, self.round).add(from), count)
            };
            let mut apart = 1;
            while apart < self.group_ranks() {
                for left in (0..self.group_ranks()).step_by(2 * apart) {
                    for (sum, other) in block(left).iter_mut().zip(block(left + apart)) {
                        *sum += *other;
                    }
                }
                apart *= 2;
            }
        }
    }
}

impl<O: Ops> Collective<O> for SharedReduce {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.group_ranks()
    }

    fn all_reduce(&mut self, ops: &mut O, rows: &mut O::Rows, values: usize) -> Result<(), CollectiveError> {
        if self.group_ranks() == 1 {
            return Ok(());
        }
        let max = self.segment.shape().row_values_max;
        if values > max {
            return Err(CollectiveError::TooLarge { what: "values of a sum", count: values, max });
        }
        self.round = self.round.wrapping_add(1);
        let own = self.segment.slot(self.first + self.rank, self.round);
        // SAFETY: the slot has room for `values`. It was last read two rounds ago, and since then all ranks have met in
        // a later round.
        ops.read_rows(rows, unsafe { std::slice::from_raw_parts_mut(own, values) })?;
        self.meet(self.round.wrapping_mul(2), values)?;
        self.sum(values);
        self.meet(self.round.wrapping_mul(2).wrapping_add(1), values)?;
        let whole = self.segment.slot(self.first, self.round);
        // SAFETY: all ranks have summed their shares, and the slot is not written before the round after the next.
        Ok(ops.write_rows(rows, unsafe { std::slice::from_raw_parts(whole.cast_const(), values) })?)
    }
}
