//! How full a worker is, as it says itself; knows no session.

use crate::Span;

/// How full a worker is, for routing and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Sequences in the running batch.
    pub running: u32,
    /// Legs that wait for their first chunk, for blocks or for their giver.
    pub waiting: u32,
    /// Prompt tokens that still have to be prefilled.
    pub waiting_tokens: u64,
    /// Legs whose KV is held for a reader.
    pub held: u32,
    /// Blocks that nobody uses and that hold nothing.
    pub blocks_free: u32,
    /// Blocks that nobody uses and that hold reusable content.
    pub blocks_cached: u32,
    /// Blocks with references.
    pub blocks_in_use: u32,
    /// Blocks without references that a writer may still touch.
    pub blocks_quarantined: u32,
    /// Since the start: prompt tokens whose KV was found in the prefix cache. For this worker's metrics; not told to
    /// routers.
    pub cached_tokens: u64,
    /// Since the start: sequences that lost their blocks to older ones. For this worker's metrics; not told to routers.
    pub preemptions: u64,
    /// Since the start: words of readers about leases that are another reader's. For this worker's metrics; not told to
    /// routers.
    pub foreign_claims: u64,
}

/// How often a worker says at least how full it is: the beat by which its router knows that its scheduler runs.
pub const STATUS_BEAT: Span = Span::from_secs(1);
