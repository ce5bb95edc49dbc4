//! How work in common fails. Whatever fails, the group is over: its ranks no longer stand at the same place.

use std::time::Duration;

use crate::KernelError;
use crate::memory::MemoryError;

/// Why ranks cannot go on together.
#[derive(Debug, thiserror::Error)]
pub enum CollectiveError {
    /// A rank answered an order with an error.
    #[error("rank {rank}: {said}")]
    Failed {
        /// Which.
        rank: usize,
        /// What kind of error it is, as its program numbers them.
        kind: u32,
        /// Its error.
        said: String,
    },
    /// A rank has ended although nobody told it to.
    #[error("rank {rank} has ended{}", because(.said))]
    Ended {
        /// Which.
        rank: usize,
        /// What kind of error it said last, as its program numbers them; 0 if none.
        kind: u32,
        /// What it or its keeper said last; empty if nothing.
        said: String,
    },
    /// The leader has closed the segment.
    #[error("the leader of the ranks has gone")]
    Closed,
    /// A rank did not come.
    #[error("rank {rank} has not {what} within {waited:?}")]
    Late {
        /// Who was waited for.
        rank: usize,
        /// What it should have done.
        what: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
    /// More than the segment was made for.
    #[error("{what}: {count} do not fit into {max}")]
    TooLarge {
        /// What was to be put into the segment.
        what: &'static str,
        /// How many words or values.
        count: usize,
        /// How many fit.
        max: usize,
    },
    /// A number of ranks that cannot work together, or a segment made for another.
    #[error("{what} is {found}, must be {must}")]
    Shape {
        /// What was compared.
        what: &'static str,
        /// What it is.
        found: usize,
        /// What it must be.
        must: String,
    },
    /// An operation of this rank.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The mapping.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

fn because(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}
