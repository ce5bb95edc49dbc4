//! Work that the ranks of one worker do together: sums in the fixed tree, orders of a leader, rows that are passed on.
//! Knows no model.
//!
//! The ranks are threads or processes of one host around one mapping, the [`Segment`]. They communicate only through
//! it, so both kinds run the same code. Every wait spins shortly, then sleeps in the kernel (futex), ends at its limit,
//! and ends early when a rank has ended or the leader has closed the segment.

mod board;
mod counter;
mod error;
mod orders;
mod reduce;
mod segment;
mod tallies;

use crate::Ops;

pub use board::Board;
pub use counter::Patience;
pub use error::CollectiveError;
pub use orders::{Follower, Heard, Leader};
pub use reduce::SharedReduce;
pub use segment::{Segment, SegmentShape};
pub use tallies::Tallies;

/// Sums over the ranks that hold the parts of one matrix.
///
/// Each of `size` ranks holds a [`crate::KShard`] and computes the root of its sub-tree of the sum over `k`. The roots
/// are added in the same binary tree, `((0+1)+(2+3))+((4+5)+(6+7))`, so the sum has the bits of the whole product.
pub trait Collective<O: Ops> {
    /// Index of this rank, from 0.
    fn rank(&self) -> usize;

    /// Number of ranks: 1, 2, 4 or 8.
    fn size(&self) -> usize;

    /// Replaces `rows` at every rank by the sum of all ranks' rows. All ranks make the same calls in the same order,
    /// each with the same number of `values` (rows times columns).
    fn all_reduce(&mut self, ops: &mut O, rows: &mut O::Rows, values: usize) -> Result<(), CollectiveError>;
}

/// A group of one rank, whose sums are whole already.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl<O: Ops> Collective<O> for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_reduce(&mut self, _: &mut O, _: &mut O::Rows, _: usize) -> Result<(), CollectiveError> {
        Ok(())
    }
}
