//! Errors of work that ranks do together. After any of them the group is over: its ranks are no longer at the same
//! step.

use std::time::Duration;

use crate::KernelError;
use crate::memory::MemoryError;

/// Reason why ranks cannot continue together.
#[derive(Debug, thiserror::Error)]
pub enum CollectiveError {
    /// A rank answered an order with an error.
    #[error("rank {rank}: {said}")]
    Failed {
        /// The rank.
        rank: usize,
        /// Kind of the error, as the program of the rank numbers it.
        kind: u32,
        /// Text of the error.
        said: String,
    },
    /// A rank has ended without being told to.
    #[error("rank {rank} has ended{}", because(.said))]
    Ended {
        /// The rank.
        rank: usize,
        /// Kind of the last error reported, as the program numbers it; 0 if none.
        kind: u32,
        /// Last report of the rank or of its keeper; empty if there is none.
        said: String,
    },
    /// The leader has closed the segment.
    #[error("the leader of the ranks has gone")]
    Closed,
    /// A rank did not do something in time.
    #[error("rank {rank} has not {what} within {waited:?}")]
    Late {
        /// The rank that was waited for.
        rank: usize,
        /// Action that was waited for.
        what: &'static str,
        /// Time waited.
        waited: Duration,
    },
    /// Something does not fit into the segment.
    #[error("{what}: {count} do not fit into {max}")]
    TooLarge {
        /// Part of the segment.
        what: &'static str,
        /// Number of words or values.
        count: usize,
        /// Number that fits.
        max: usize,
    },
    /// A number of ranks that cannot work together, or a segment made for another number.
    #[error("{what} is {found}, must be {must}")]
    Shape {
        /// Name of the number.
        what: &'static str,
        /// Number found.
        found: usize,
        /// Numbers allowed.
        must: String,
    },
    /// An operation of this rank failed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The segment could not be mapped.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

fn because(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}
