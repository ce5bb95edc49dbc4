//! Which bytes of one pool go where in another; pure arithmetic over two layouts, knows no transport.

use std::ops::Range;

use super::{Half, KvLayout, LayoutError};
use crate::BlockId;

/// Copy `bytes` bytes from `src_offset` of the giver's pool to `dst_offset` of the reader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileCopy {
    /// Where to read, in bytes from the start of the giver's pool.
    pub src_offset: u64,
    /// Where to write, in bytes from the start of the reader's pool.
    pub dst_offset: u64,
    /// How much.
    pub bytes: u64,
}

/// What to pull: two block tables over the same positions, from position 0 on.
#[derive(Debug, Clone)]
pub struct PullBlocks<'a> {
    /// The giver's block table.
    pub src: &'a [BlockId],
    /// The reader's block table.
    pub dst: &'a [BlockId],
    /// Positions to pull. The start is a block boundary; a partly filled last block moves as whole tiles.
    pub positions: Range<u32>,
    /// Layers to pull; those that either side does not hold are left out.
    pub layers: Range<u32>,
}

/// The copies that bring the reader rank what it lacks from this giver rank, in order of giver offsets per block.
///
/// Summed over all giver ranks, every tile of the reader is written exactly once: where several giver ranks hold the
/// same heads, reader rank `r` reads from replica `r mod replicas`. Copies are as long as both layouts allow; when the
/// two hold the same layers and heads, a run of consecutive blocks is one copy.
pub fn plan(src: &KvLayout, dst: &KvLayout, pull: &PullBlocks<'_>) -> Result<Vec<TileCopy>, LayoutError> {
    check_same_kind(src, dst)?;
    let blocks = block_range(src.shape().block_tokens, pull)?;
    let inside = copies_inside_block(src, dst, &pull.layers);
    let mut copies = Vec::new();
    for (from, to) in pull.src[blocks.clone()].iter().zip(&pull.dst[blocks]) {
        for copy in &inside {
            let src_offset = src.block_offset(*from) + copy.src_offset;
            let dst_offset = dst.block_offset(*to) + copy.dst_offset;
            push_joined(&mut copies, TileCopy { src_offset, dst_offset, bytes: copy.bytes });
        }
    }
    Ok(copies)
}

/// Whether the reader can ever pull what it lacks from this giver alone: asked when the two meet, so that a pair that is
/// up can also hand over.
///
/// # Errors
/// The first part of the layouts that keeps them apart, with both values.
pub fn can_pull(src: &KvLayout, dst: &KvLayout) -> Result<(), LayoutError> {
    check_same_kind(src, dst)?;
    covers("the layers held", src.layers(), dst.layers())?;
    covers("the kv heads held", src.kv_heads(), dst.kv_heads())?;
    let (src_replica, wanted) = (src.replica().rank, dst.rank().tensor.rank % src.replica().size);
    same("the replica of kv heads", &src_replica, &wanted)
}

fn covers(what: &'static str, src: Range<u32>, dst: Range<u32>) -> Result<(), LayoutError> {
    if src.start <= dst.start && dst.end <= src.end {
        return Ok(());
    }
    Err(LayoutError::Differs { what, src: format!("{src:?}"), dst: format!("{dst:?}") })
}

fn check_same_kind(src: &KvLayout, dst: &KvLayout) -> Result<(), LayoutError> {
    let (s, d) = (src.shape(), dst.shape());
    same("layers", &s.layers_total, &d.layers_total)?;
    same("kv heads", &s.kv_heads_total, &d.kv_heads_total)?;
    same("head dim", &s.head_dim, &d.head_dim)?;
    same("dtype", &s.dtype.label(), &d.dtype.label())?;
    same("block tokens", &s.block_tokens, &d.block_tokens)?;
    same("tile order", &s.tile_order, &d.tile_order)?;
    same("bytes per tile", &s.tile_bytes, &d.tile_bytes)
}

fn same<T: PartialEq + ToString>(what: &'static str, src: &T, dst: &T) -> Result<(), LayoutError> {
    if src == dst {
        return Ok(());
    }
    Err(LayoutError::Differs { what, src: src.to_string(), dst: dst.to_string() })
}

/// Indices into both block tables that cover the tokens.
fn block_range(block_tokens: u32, pull: &PullBlocks<'_>) -> Result<Range<usize>, LayoutError> {
    let Range { start, end } = pull.positions;
    let refuse = |why: String| Err(LayoutError::Range { start, end, block_tokens, why });
    if start > end {
        return refuse("the range ends before it begins".into());
    }
    if !start.is_multiple_of(block_tokens) {
        return refuse("it must begin at a block".into());
    }
    let blocks = (start / block_tokens) as usize..end.div_ceil(block_tokens) as usize;
    if pull.src.len() < blocks.end || pull.dst.len() < blocks.end {
        let (src, dst) = (pull.src.len(), pull.dst.len());
        return refuse(format!("the giver's table has {src} blocks and the reader's {dst}"));
    }
    Ok(blocks)
}

/// The copies of one block, offsets relative to it.
fn copies_inside_block(src: &KvLayout, dst: &KvLayout, layers: &Range<u32>) -> Vec<TileCopy> {
    let mut copies = Vec::new();
    if src.replica().rank != dst.rank().tensor.rank % src.replica().size {
        return copies;
    }
    let heads = overlap(src.kv_heads(), dst.kv_heads());
    let bytes = u64::from(heads.end - heads.start) * u64::from(src.shape().tile_bytes);
    for layer in overlap(layers.clone(), overlap(src.layers(), dst.layers())) {
        for half in [Half::K, Half::V] {
            let offsets = src.tile_offset(layer, half, heads.start).zip(dst.tile_offset(layer, half, heads.start));
            if let Some((src_offset, dst_offset)) = offsets {
                push_joined(&mut copies, TileCopy { src_offset, dst_offset, bytes });
            }
        }
    }
    copies
}

fn overlap(a: Range<u32>, b: Range<u32>) -> Range<u32> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

/// Appends a copy, or lengthens the last one when both its sides go on without a gap.
fn push_joined(copies: &mut Vec<TileCopy>, next: TileCopy) {
    if next.bytes == 0 {
        return;
    }
    match copies.last_mut() {
        Some(last)
            if last.src_offset + last.bytes == next.src_offset && last.dst_offset + last.bytes == next.dst_offset =>
        {
            last.bytes += next.bytes;
        }
        _ => copies.push(next),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{KvDtype, Parallel, Rank, Shape, TileOrder};
    use super::*;
    use proptest::prelude::*;

    const TILE_BYTES: u32 = 16 * 2 * 2;

    fn shape(layers_total: u32, kv_heads_total: u32) -> Shape {
        Shape {
            layers_total,
            kv_heads_total,
            head_dim: 2,
            block_tokens: 16,
            dtype: KvDtype::Bf16,
            tile_order: TileOrder("test".into()),
            tile_bytes: TILE_BYTES,
        }
    }

    fn ranks(shape: &Shape, tp: u32, pp: u32) -> Vec<KvLayout> {
        let of = |rank, size| Rank { rank, size };
        let all = (0..pp).flat_map(|p| (0..tp).map(move |t| Parallel { tensor: of(t, tp), pipeline: of(p, pp) }));
        all.map(|rank| KvLayout::of_rank(shape.clone(), rank).unwrap()).collect()
    }

    fn ids(blocks: &[u32]) -> Vec<BlockId> {
        blocks.iter().copied().map(BlockId).collect()
    }

    #[test]
    fn equal_layouts_copy_runs_of_blocks() {
        let layout = KvLayout::whole(shape(3, 2)).unwrap();
        let (src, dst) = (ids(&[4, 5, 6, 9]), ids(&[0, 1, 2, 3]));
        let copies =
            plan(&layout, &layout, &PullBlocks { src: &src, dst: &dst, positions: 0..50, layers: 0..3 }).unwrap();
        let block = layout.block_bytes();
        assert_eq!(
            copies,
            [
                TileCopy { src_offset: 4 * block, dst_offset: 0, bytes: 3 * block },
                TileCopy { src_offset: 9 * block, dst_offset: 3 * block, bytes: block },
            ]
        );
        let rest =
            plan(&layout, &layout, &PullBlocks { src: &src, dst: &dst, positions: 32..48, layers: 0..3 }).unwrap();
        assert_eq!(rest, [TileCopy { src_offset: 6 * block, dst_offset: 2 * block, bytes: block }]);
        assert_eq!(
            plan(&layout, &layout, &PullBlocks { src: &src, dst: &dst, positions: 16..16, layers: 0..3 }).unwrap(),
            []
        );
    }

    #[test]
    fn what_cannot_be_pulled_says_why() {
        let layout = KvLayout::whole(shape(3, 2)).unwrap();
        let blocks = ids(&[0, 1]);
        let error = |src: &KvLayout, dst: &KvLayout, positions| {
            plan(src, dst, &PullBlocks { src: &blocks, dst: &blocks, positions, layers: 0..3 }).unwrap_err().to_string()
        };
        let wide = KvLayout::whole(Shape { block_tokens: 32, tile_bytes: 2 * TILE_BYTES, ..shape(3, 2) }).unwrap();
        let other = KvLayout::whole(Shape { tile_order: TileOrder("other".into()), ..shape(3, 2) }).unwrap();
        assert_eq!(
            error(&layout, &wide, 0..16),
            "kv layouts differ in block tokens: 16 at the giver, 32 at the reader"
        );
        assert_eq!(
            error(&layout, &other, 0..16),
            "kv layouts differ in tile order: test at the giver, other at the reader"
        );
        assert_eq!(
            error(&layout, &layout, 8..16),
            "cannot pull tokens 8..16 in blocks of 16: it must begin at a block"
        );
        assert_eq!(
            error(&layout, &layout, 0..33),
            "cannot pull tokens 0..33 in blocks of 16: the giver's table has 2 blocks and the reader's 2"
        );
    }

    #[test]
    fn what_can_be_pulled_is_known_before_anything_is() {
        let whole = KvLayout::whole(shape(4, 2)).unwrap();
        assert_eq!(can_pull(&whole, &whole), Ok(()));
        let refused = |src: &KvLayout, dst: &KvLayout| can_pull(src, dst).unwrap_err().to_string();
        let changed = |change: &dyn Fn(&mut Shape)| {
            let mut other = shape(4, 2);
            change(&mut other);
            refused(&KvLayout::whole(other).unwrap(), &whole)
        };
        assert_eq!(
            changed(&|other| (other.block_tokens, other.tile_bytes) = (32, 2 * TILE_BYTES)),
            "kv layouts differ in block tokens: 32 at the giver, 16 at the reader"
        );
        assert!(changed(&|other| other.tile_order = TileOrder("other".into())).contains("tile order"));
        assert!(changed(&|other| other.tile_bytes += 64).contains("bytes per tile"));
        assert!(changed(&|other| other.layers_total = 5).contains("layers"));
        assert!(changed(&|other| other.kv_heads_total = 4).contains("kv heads"));
        assert!(changed(&|other| (other.head_dim, other.tile_bytes) = (4, 2 * TILE_BYTES)).contains("head dim"));
        let halves = ranks(&shape(4, 2), 2, 2);
        assert_eq!(can_pull(&whole, &halves[3]), Ok(()), "a rank reads its part of a whole");
        assert_eq!(
            refused(&halves[0], &whole),
            "kv layouts differ in the layers held: 0..2 at the giver, 0..4 at the reader"
        );
        assert!(refused(&halves[0], &halves[1]).contains("the kv heads held"));
        let replicas = ranks(&shape(4, 1), 2, 1);
        assert!(refused(&replicas[1], &replicas[0]).contains("the replica of kv heads"));
    }

    /// Fills the tiles of a pool by (block position, layer, half, head), copies by plan, and compares with a gather.
    fn check_against_gather(
        shape: &Shape,
        from: &[KvLayout],
        to: &[KvLayout],
        src: &[BlockId],
        dst: &[BlockId],
        (tokens, layers): (Range<u32>, Range<u32>),
    ) {
        let pull = PullBlocks { src, dst, positions: tokens.clone(), layers: layers.clone() };
        for reader in to {
            let mut written = vec![0_u64; reader.pool_bytes(64) as usize];
            for giver in from {
                let pool = filled_pool(shape, giver, src);
                for copy in plan(giver, reader, &pull).unwrap() {
                    let (s, d, n) = (copy.src_offset as usize, copy.dst_offset as usize, copy.bytes as usize);
                    for byte in 0..n {
                        assert_eq!(written[d + byte], 0, "a byte was written twice");
                        written[d + byte] = pool[s + byte];
                    }
                }
            }
            let full = filled_pool(shape, reader, dst);
            let block_bytes = reader.block_bytes() as usize;
            let pulled = (tokens.start / 16) as usize..tokens.end.div_ceil(16) as usize;
            let mut wanted = vec![0_u64; written.len()];
            for block in &dst[pulled] {
                let at = block.0 as usize * block_bytes;
                let layer_bytes = block_bytes / reader.layers().len().max(1);
                for (place, _) in reader.layers().enumerate().filter(|(_, layer)| layers.contains(layer)) {
                    let tiles = at + place * layer_bytes..at + (place + 1) * layer_bytes;
                    wanted[tiles.clone()].copy_from_slice(&full[tiles]);
                }
            }
            assert!(written == wanted, "rank {:?} got other bytes", reader.rank());
        }
    }

    /// Each byte is a number that names its tile and place; blocks outside the table hold a poison.
    fn filled_pool(shape: &Shape, layout: &KvLayout, table: &[BlockId]) -> Vec<u64> {
        let mut pool = vec![u64::MAX; layout.pool_bytes(64) as usize];
        for (position, block) in table.iter().enumerate() {
            for layer in layout.layers() {
                for (h, half) in [Half::K, Half::V].into_iter().enumerate() {
                    for head in layout.kv_heads() {
                        let at = layout.block_offset(*block) + layout.tile_offset(layer, half, head).unwrap();
                        let tile = ((position as u64 * 64 + u64::from(layer)) * 2 + h as u64) * 64 + u64::from(head);
                        for byte in 0..u64::from(shape.tile_bytes) {
                            pool[(at + byte) as usize] = tile * 1_000 + byte + 1;
                        }
                    }
                }
            }
        }
        pool
    }

    fn table() -> impl Strategy<Value = Vec<BlockId>> {
        Just((0..64).collect::<Vec<u32>>()).prop_shuffle().prop_map(|all| ids(&all[..6]))
    }

    proptest! {
        #[test]
        fn every_pair_of_ranks_moves_what_a_gather_would(
            layers in 1_u32..6, heads_log in 0_u32..3, tp_from in 0_u32..4, tp_to in 0_u32..4,
            pp_from in 1_u32..4, pp_to in 1_u32..4, src in table(), dst in table(),
            start_block in 0_u32..6, length in 0_u32..96, first_layer in 0_u32..6, some_layers in 0_u32..6,
        ) {
            let shape = shape(layers, 1 << heads_log);
            let from = ranks(&shape, 1 << tp_from, pp_from.min(layers));
            let to = ranks(&shape, 1 << tp_to, pp_to.min(layers));
            let start = start_block * 16;
            let wanted = (start..(start + length).min(96), first_layer..first_layer + some_layers);
            check_against_gather(&shape, &from, &to, &src, &dst, wanted);
        }

        #[test]
        fn copies_are_never_longer_in_number_than_needed(src in table(), dst in table()) {
            let layout = KvLayout::whole(shape(4, 2)).unwrap();
            let copies = plan(&layout, &layout, &PullBlocks { src: &src, dst: &dst, positions: 0..96, layers: 0..4 }).unwrap();
            let breaks = (1..6).filter(|i| src[*i].0 != src[i - 1].0 + 1 || dst[*i].0 != dst[i - 1].0 + 1).count();
            prop_assert_eq!(copies.len(), breaks + 1);
        }
    }
}
