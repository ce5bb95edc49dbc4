//! Shape of one worker's part of a KV cache and the place of every tile in it; knows no other worker.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::{KvDtype, LayoutError, TILE_TOKENS};
use crate::BlockId;

/// Part of every block that one rank holds, and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvLayout {
    shape: Shape,
    rank: Parallel,
    layers: Range<u32>,
    kv_heads: Range<u32>,
}

/// Facts that all ranks of one worker share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Layers of the whole model.
    pub layers_total: u32,
    /// KV heads of the whole model.
    pub kv_heads_total: u32,
    /// Elements per head.
    pub head_dim: u32,
    /// Tokens per block; a multiple of 16, the tokens of a tile.
    pub block_tokens: u32,
    /// Element type.
    pub dtype: KvDtype,
    /// Name of the order of elements inside a tile.
    pub tile_order: TileOrder,
    /// Bytes of one tile (unit of a block, layer, K or V, head), scales and padding included.
    pub tile_bytes: u32,
}

/// Name of the order of elements (and scales) inside a tile. Kernels that agree on the name agree on the bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileOrder(pub Arc<str>);

/// One rank among `size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    /// Number of this rank, from 0.
    pub rank: u32,
    /// Number of ranks.
    pub size: u32,
}

/// Place of a rank in tensor and pipeline parallelism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parallel {
    /// Tensor parallelism: splits or replicates KV heads.
    pub tensor: Rank,
    /// Pipeline parallelism: splits layers.
    pub pipeline: Rank,
}

/// The two halves of a KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Half {
    /// Keys.
    K,
    /// Values.
    V,
}

impl KvLayout {
    /// Layout of a worker that is one process: it holds all layers and heads.
    pub fn whole(shape: Shape) -> Result<KvLayout, LayoutError> {
        KvLayout::of_rank(shape, Parallel::ALONE)
    }

    /// Layout of one rank. Heads are split while there are enough of them, then replicated: rank `r` of `tp` holds the
    /// heads from `r * total / tp` on, at least one (grouped-query attention).
    pub fn of_rank(shape: Shape, rank: Parallel) -> Result<KvLayout, LayoutError> {
        shape.check()?;
        rank.check(&shape)?;
        let (layers, heads) = (shape.layers_total, shape.kv_heads_total);
        let pp_share = |r: u32| (u64::from(r) * u64::from(layers) / u64::from(rank.pipeline.size)) as u32;
        let head = (u64::from(rank.tensor.rank) * u64::from(heads) / u64::from(rank.tensor.size)) as u32;
        let heads_held = (heads / rank.tensor.size).max(1);
        let layout = KvLayout {
            layers: pp_share(rank.pipeline.rank)..pp_share(rank.pipeline.rank + 1),
            kv_heads: head..head + heads_held,
            shape,
            rank,
        };
        let tiles = u64::from(layout.layers_held()) * 2 * u64::from(layout.shape.units()) * u64::from(heads_held);
        let bytes = tiles.saturating_mul(layout.shape.tile_bytes.into());
        bounded("bytes per block", bytes, 1, u64::from(u32::MAX))?;
        Ok(layout)
    }

    /// Facts that all ranks share.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Place of this rank.
    #[must_use]
    pub fn rank(&self) -> Parallel {
        self.rank
    }

    /// Layers held, as numbered in the model.
    #[must_use]
    pub fn layers(&self) -> Range<u32> {
        self.layers.clone()
    }

    /// KV heads held, as numbered in the model.
    #[must_use]
    pub fn kv_heads(&self) -> Range<u32> {
        self.kv_heads.clone()
    }

    /// Number of layers held.
    #[must_use]
    pub fn layers_held(&self) -> u32 {
        self.layers.end - self.layers.start
    }

    /// Number of KV heads held.
    #[must_use]
    pub fn kv_heads_held(&self) -> u32 {
        self.kv_heads.end - self.kv_heads.start
    }

    /// This rank among those that hold the same heads.
    #[must_use]
    pub fn replica(&self) -> Rank {
        let size = (self.rank.tensor.size / self.shape.kv_heads_total).max(1);
        Rank { rank: self.rank.tensor.rank % size, size }
    }

    /// Bytes of one block: all held layers, K and V, all held heads. Fits 32 bits.
    #[must_use]
    pub fn block_bytes(&self) -> u64 {
        u64::from(self.layers_held()) * self.layer_bytes()
    }

    /// Bytes of one layer of one block.
    #[must_use]
    pub fn layer_bytes(&self) -> u64 {
        2 * u64::from(self.shape.units()) * self.unit_bytes()
    }

    /// Bytes of the tiles of one unit, layer and half: one per held head, one after the other.
    #[must_use]
    pub fn unit_bytes(&self) -> u64 {
        u64::from(self.kv_heads_held()) * u64::from(self.shape.tile_bytes)
    }

    /// Bytes of a pool of `blocks` blocks.
    #[must_use]
    pub fn pool_bytes(&self, blocks: u32) -> u64 {
        u64::from(blocks) * self.block_bytes()
    }

    /// Bytes of KV that one token takes here, a full block's bytes divided by its tokens.
    #[must_use]
    pub fn token_bytes(&self) -> u64 {
        self.block_bytes() / u64::from(self.shape.block_tokens)
    }

    /// Byte offset of a block in the pool.
    #[must_use]
    pub fn block_offset(&self, block: BlockId) -> u64 {
        u64::from(block.0) * self.block_bytes()
    }

    /// Byte offset of a tile inside its block, or `None` when this rank does not hold it.
    /// `layer` and `kv_head` are numbered as in the model; `unit` counts 16 positions from the start of the block.
    #[must_use]
    pub fn tile_offset(&self, layer: u32, half: Half, unit: u32, kv_head: u32) -> Option<u64> {
        if !self.layers.contains(&layer) || !self.kv_heads.contains(&kv_head) || unit >= self.shape.units() {
            return None;
        }
        let row = u64::from(layer - self.layers.start) * 2 + half as u64;
        let units = row * u64::from(self.shape.units()) + u64::from(unit);
        let tile = units * u64::from(self.kv_heads_held()) + u64::from(kv_head - self.kv_heads.start);
        Some(tile * u64::from(self.shape.tile_bytes))
    }
}

impl Shape {
    /// Units of 16 positions in a block.
    #[must_use]
    pub fn units(&self) -> u32 {
        self.block_tokens / TILE_TOKENS
    }

    fn check(&self) -> Result<(), LayoutError> {
        bounded("layers", self.layers_total.into(), 1, 1 << 16)?;
        bounded("kv heads", self.kv_heads_total.into(), 1, 1 << 16)?;
        bounded("head dim", self.head_dim.into(), 1, 1 << 16)?;
        bounded("block tokens", self.block_tokens.into(), 1, 1 << 16)?;
        if !self.block_tokens.is_multiple_of(TILE_TOKENS) {
            return Err(invalid("block tokens", self.block_tokens.into(), format!("be a multiple of {TILE_TOKENS}")));
        }
        let elements = u64::from(TILE_TOKENS) * u64::from(self.head_dim);
        bounded("bytes per tile", self.tile_bytes.into(), elements * u64::from(self.dtype.bytes()), u32::MAX.into())
    }
}

impl Parallel {
    /// The only rank there is.
    pub const ALONE: Parallel = Parallel { tensor: Rank { rank: 0, size: 1 }, pipeline: Rank { rank: 0, size: 1 } };

    fn check(self, shape: &Shape) -> Result<(), LayoutError> {
        bounded("tensor-parallel size", self.tensor.size.into(), 1, 1 << 16)?;
        bounded("tensor-parallel rank", self.tensor.rank.into(), 0, u64::from(self.tensor.size) - 1)?;
        bounded("pipeline-parallel size", self.pipeline.size.into(), 1, shape.layers_total.into())?;
        bounded("pipeline-parallel rank", self.pipeline.rank.into(), 0, u64::from(self.pipeline.size) - 1)?;
        let (tp, heads) = (self.tensor.size, shape.kv_heads_total);
        if !tp.is_multiple_of(heads) && !heads.is_multiple_of(tp) {
            return Err(invalid(
                "tensor-parallel size",
                tp.into(),
                format!("divide or be a multiple of {heads} kv heads"),
            ));
        }
        Ok(())
    }
}

impl fmt::Display for TileOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn bounded(what: &'static str, value: u64, min: u64, max: u64) -> Result<(), LayoutError> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(invalid(what, value, format!("lie in {min}..={max}"))) }
}

fn invalid(what: &'static str, value: u64, must: String) -> LayoutError {
    LayoutError::Invalid { what, value, must }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(layers_total: u32, kv_heads_total: u32) -> Shape {
        Shape {
            layers_total,
            kv_heads_total,
            head_dim: 8,
            block_tokens: 16,
            dtype: KvDtype::Bf16,
            tile_order: TileOrder("test".into()),
            tile_bytes: 256,
        }
    }

    fn rank(tensor: (u32, u32), pipeline: (u32, u32)) -> Parallel {
        let of = |(rank, size)| Rank { rank, size };
        Parallel { tensor: of(tensor), pipeline: of(pipeline) }
    }

    #[test]
    fn tiles_lie_layer_by_layer_keys_before_values() {
        let layout = KvLayout::whole(shape(2, 3)).unwrap();
        assert_eq!(layout.block_bytes(), 2 * 2 * 3 * 256);
        assert_eq!(layout.token_bytes(), layout.block_bytes() / 16);
        assert_eq!(layout.tile_offset(0, Half::K, 0, 2), Some(2 * 256));
        assert_eq!(layout.tile_offset(0, Half::V, 0, 0), Some(3 * 256));
        assert_eq!(layout.tile_offset(1, Half::K, 0, 1), Some(7 * 256));
        assert_eq!(layout.tile_offset(2, Half::K, 0, 0), None);
        assert_eq!(layout.tile_offset(0, Half::K, 1, 0), None);
        assert_eq!(layout.block_offset(BlockId(3)), 3 * layout.block_bytes());
    }

    #[test]
    fn a_block_has_the_tiles_of_all_heads_unit_by_unit() {
        let layout = KvLayout::whole(Shape { block_tokens: 48, ..shape(2, 3) }).unwrap();
        assert_eq!(layout.block_bytes(), 2 * 2 * 3 * 3 * 256);
        assert_eq!(layout.token_bytes(), KvLayout::whole(shape(2, 3)).unwrap().token_bytes());
        assert_eq!(layout.tile_offset(0, Half::K, 2, 1), Some(7 * 256));
        assert_eq!(layout.tile_offset(0, Half::V, 0, 0), Some(9 * 256));
        assert_eq!(layout.tile_offset(1, Half::K, 1, 0), Some(21 * 256));
    }

    #[test]
    fn ranks_split_heads_then_replicate_them() {
        let heads = |r, tp| KvLayout::of_rank(shape(2, 4), rank((r, tp), (0, 1))).unwrap().kv_heads();
        assert_eq!([heads(0, 2), heads(1, 2)], [0..2, 2..4]);
        assert_eq!([heads(0, 8), heads(1, 8), heads(2, 8), heads(7, 8)], [0..1, 0..1, 1..2, 3..4]);
        let third = KvLayout::of_rank(shape(2, 4), rank((3, 8), (0, 1))).unwrap();
        assert_eq!(third.replica(), Rank { rank: 1, size: 2 });
    }

    #[test]
    fn uneven_layers_are_all_held_once() {
        let held: Vec<_> =
            (0..3).map(|r| KvLayout::of_rank(shape(7, 4), rank((0, 1), (r, 3))).unwrap().layers()).collect();
        assert_eq!(held, [0..2, 2..4, 4..7]);
    }

    #[test]
    fn impossible_layouts_say_what_is_wrong() {
        let error = |shape, rank| KvLayout::of_rank(shape, rank).unwrap_err().to_string();
        assert_eq!(
            error(shape(2, 4), rank((0, 3), (0, 1))),
            "kv layout has tensor-parallel size 3, which must divide or be a multiple of 4 kv heads"
        );
        assert_eq!(
            error(Shape { block_tokens: 24, ..shape(2, 4) }, Parallel::ALONE),
            "kv layout has block tokens 24, which must be a multiple of 16"
        );
        assert_eq!(
            error(Shape { tile_bytes: 255, ..shape(2, 4) }, Parallel::ALONE),
            "kv layout has bytes per tile 255, which must lie in 256..=4294967295"
        );
        assert_eq!(
            error(shape(2, 4), rank((0, 1), (0, 3))),
            "kv layout has pipeline-parallel size 3, which must lie in 1..=2"
        );
        assert!(KvLayout::whole(Shape { tile_bytes: u32::MAX, ..shape(2, 4) }).is_err());
    }
}
