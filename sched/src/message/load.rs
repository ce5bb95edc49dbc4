//! Load of a worker, as it reports itself; knows no session.

use crate::Span;

/// Load of a worker, for routing and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Sequences that decode, or whose prefill has started.
    pub running: u32,
    /// Sequences that wait for their giver or its KV, for blocks, for a slot or for their first chunk.
    pub waiting: u32,
    /// Prompt tokens that still have to be prefilled.
    pub waiting_tokens: u64,
    /// Legs whose KV is held for a reader.
    pub held: u32,
    /// Blocks without holders and content.
    pub blocks_free: u32,
    /// Blocks without holders, but with reusable content.
    pub blocks_cached: u32,
    /// Blocks with references.
    pub blocks_in_use: u32,
    /// Blocks without holders that a step or a pull may still touch or read.
    pub blocks_quarantined: u32,
    /// Prompt tokens whose KV was found in the prefix cache, since the start. For this worker's metrics only.
    pub cached_tokens: u64,
    /// Sequences that lost their blocks to make room, since the start. For this worker's metrics only.
    pub preemptions: u64,
    /// Words of readers about leases of another reader, since the start. For this worker's metrics only.
    pub foreign_claims: u64,
}

/// Longest pause between two load reports of a worker: the beat by which its router knows that its scheduler runs.
pub const STATUS_BEAT: Span = Span::from_secs(1);
