//! Places of KV tiles in a worker's pool, and the copies that move them between two pools; knows no byte itself.
//!
//! A pool is block-major: `[block][layer][K, V][unit][kv head]` tiles, where a unit is 16 positions of the block. A
//! tile is the unit of resharding; the order inside it belongs to the kernels and has only a name here. A block of 64
//! holds, of every layer and half, what four blocks of 16 would, one after the other.

mod dtype;
mod geometry;
mod plan;

pub use dtype::KvDtype;
pub use geometry::{Half, KvLayout, Parallel, Rank, Shape, TileOrder};
pub use plan::{PullBlocks, Resharding, TileCopy};

use thiserror::Error;

/// Tokens of a tile: a unit of content hashes, so that each name stands for whole tiles.
pub const TILE_TOKENS: u32 = crate::block::HASH_UNIT_TOKENS;

/// Reason why a layout cannot exist, or why two layouts cannot exchange these blocks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// A size is zero, does not divide, or is out of range.
    #[error("kv layout has {what} {value}, which must {must}")]
    Invalid {
        /// Number that is wrong.
        what: &'static str,
        /// Its value.
        value: u64,
        /// Rule that it breaks.
        must: String,
    },
    /// The two sides do not hold the same kind of KV cache.
    #[error("kv layouts differ in {what}: {src} at the giver, {dst} at the reader")]
    Differs {
        /// Property that differs.
        what: &'static str,
        /// The giver's value.
        src: String,
        /// The reader's value.
        dst: String,
    },
    /// A token range is not covered by the block tables, or does not begin at a tile.
    #[error("cannot pull tokens {start}..{end}: {why}")]
    Range {
        /// First token.
        start: u32,
        /// End of the tokens.
        end: u32,
        /// Reason.
        why: String,
    },
}
