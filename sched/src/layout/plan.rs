//! Copies that move KV from one pool to another; pure arithmetic over two layouts, knows no transport.

use std::ops::Range;

use super::{Half, KvLayout, LayoutError, TILE_TOKENS};
use crate::BlockId;

/// Copy of `bytes` bytes from `src_offset` of the giver's pool to `dst_offset` of the reader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileCopy {
    /// Offset to read from, in bytes from the start of the giver's pool.
    pub src_offset: u64,
    /// Offset to write to, in bytes from the start of the reader's pool.
    pub dst_offset: u64,
    /// Length of the copy.
    pub bytes: u64,
}

/// Blocks to pull: two block tables over the same positions, from position 0 on.
#[derive(Debug, Clone)]
pub struct PullBlocks<'a> {
    /// The giver's block table, in blocks of the giver's size.
    pub src: &'a [BlockId],
    /// The reader's block table, in blocks of the reader's size.
    pub dst: &'a [BlockId],
    /// Positions to pull, from the start of a tile; a partly filled last tile moves as a whole.
    pub positions: Range<u32>,
    /// Layers to pull; those that either side does not hold are left out.
    pub layers: Range<u32>,
}

/// Way of KV from one giver rank to one reader rank: worked out once, when the two meet.
///
/// Summed over all giver ranks, every tile of the reader is written exactly once: where several giver ranks hold the
/// same heads, reader rank `r` reads from replica `r mod replicas`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resharding {
    src: KvLayout,
    dst: KvLayout,
    /// Heads that move; empty where another replica gives them.
    heads: Range<u32>,
}

impl Resharding {
    /// Pairs two ranks that hold the same kind of KV cache; block sizes and ranks may differ. The error names the first
    /// part of the layouts that keeps them apart, with both values.
    pub fn between(src: &KvLayout, dst: &KvLayout) -> Result<Resharding, LayoutError> {
        let (s, d) = (src.shape(), dst.shape());
        same("layers", &s.layers_total, &d.layers_total)?;
        same("kv heads", &s.kv_heads_total, &d.kv_heads_total)?;
        same("head dim", &s.head_dim, &d.head_dim)?;
        same("dtype", &s.dtype.label(), &d.dtype.label())?;
        same("tile order", &s.tile_order, &d.tile_order)?;
        same("bytes per tile", &s.tile_bytes, &d.tile_bytes)?;
        let heads = match src.replica().rank == wanted_replica(src, dst) {
            true => overlap(src.kv_heads(), dst.kv_heads()),
            false => 0..0,
        };
        Ok(Resharding { src: src.clone(), dst: dst.clone(), heads })
    }

    /// Like `between`, with the same errors, but the giver must also hold all that the reader needs. Used when two
    /// workers meet, so that a pair that is up can hand over.
    pub fn of_all(src: &KvLayout, dst: &KvLayout) -> Result<Resharding, LayoutError> {
        let resharding = Resharding::between(src, dst)?;
        covers("the layers held", src.layers(), dst.layers())?;
        covers("the kv heads held", src.kv_heads(), dst.kv_heads())?;
        same("the replica of kv heads", &src.replica().rank, &wanted_replica(src, dst))?;
        Ok(resharding)
    }

    /// Returns the copies that bring the reader what it lacks, in the order of positions. Each is as long as both
    /// layouts allow: where they are equal, a run of consecutive blocks is one copy.
    pub fn copies(&self, pull: &PullBlocks<'_>) -> Result<Vec<TileCopy>, LayoutError> {
        self.check(pull)?;
        let layers = overlap(pull.layers.clone(), overlap(self.src.layers(), self.dst.layers()));
        let mut copies = Vec::new();
        let end = pull.positions.end.div_ceil(TILE_TOKENS);
        let mut unit = pull.positions.start / TILE_TOKENS;
        while unit < end && !self.heads.is_empty() && !layers.is_empty() {
            let (from, to) = (Place::of(unit, pull.src, &self.src), Place::of(unit, pull.dst, &self.dst));
            let units = from.units_left.min(to.units_left).min(end - unit);
            self.copy_units((from, to), units, &layers, &mut copies);
            unit += units;
        }
        Ok(copies)
    }

    /// Most copies that 16 positions can take, for any giver and any block tables.
    #[must_use]
    pub fn copies_per_unit(reader: &KvLayout) -> u32 {
        2 * reader.layers_held()
    }

    /// Copies units that follow each other in one block of either side.
    fn copy_units(&self, (from, to): (Place, Place), units: u32, layers: &Range<u32>, copies: &mut Vec<TileCopy>) {
        let unit_bytes = u64::from(self.heads.end - self.heads.start) * u64::from(self.src.shape().tile_bytes);
        let all_heads = unit_bytes == self.src.unit_bytes() && unit_bytes == self.dst.unit_bytes();
        let whole_blocks = units == self.src.shape().units() && units == self.dst.shape().units();
        let mut copy = |layer, half, unit, bytes| {
            // Both sides hold the layers and heads that move, and their blocks the units.
            let inside =
                |layout: &KvLayout, at: Place| layout.tile_offset(layer, half, at.unit + unit, self.heads.start);
            if let Some((src, dst)) = inside(&self.src, from).zip(inside(&self.dst, to)) {
                let (src_offset, dst_offset) = (from.block_offset + src, to.block_offset + dst);
                push_joined(copies, TileCopy { src_offset, dst_offset, bytes });
            }
        };
        if all_heads && whole_blocks {
            let layer_bytes = self.src.layer_bytes();
            return copy(layers.start, Half::K, 0, u64::from(layers.end - layers.start) * layer_bytes);
        }
        for (layer, half) in layers.clone().flat_map(|layer| [(layer, Half::K), (layer, Half::V)]) {
            if all_heads {
                copy(layer, half, 0, u64::from(units) * unit_bytes);
            } else {
                (0..units).for_each(|unit| copy(layer, half, unit, unit_bytes));
            }
        }
    }

    fn check(&self, pull: &PullBlocks<'_>) -> Result<(), LayoutError> {
        let Range { start, end } = pull.positions;
        let refuse = |why: String| Err(LayoutError::Range { start, end, why });
        if start > end {
            return refuse("the range ends before it begins".into());
        }
        if !start.is_multiple_of(TILE_TOKENS) {
            return refuse(format!("it must begin at a multiple of {TILE_TOKENS}"));
        }
        for (whose, table, layout) in [("giver", pull.src, &self.src), ("reader", pull.dst, &self.dst)] {
            let block_tokens = layout.shape().block_tokens;
            if (table.len() as u64) < u64::from(end.div_ceil(block_tokens)) {
                return refuse(format!("the {whose}'s table has {} blocks of {block_tokens}", table.len()));
            }
        }
        Ok(())
    }
}

/// Place of a unit of a sequence in a pool.
#[derive(Debug, Clone, Copy)]
struct Place {
    block_offset: u64,
    unit: u32,
    /// Units from this one to the block's end.
    units_left: u32,
}

impl Place {
    fn of(unit: u32, table: &[BlockId], layout: &KvLayout) -> Place {
        let units = layout.shape().units();
        let block_offset = layout.block_offset(table[(unit / units) as usize]);
        Place { block_offset, unit: unit % units, units_left: units - unit % units }
    }
}

/// Number of the giver's replica of the same heads that this reader reads from.
fn wanted_replica(src: &KvLayout, dst: &KvLayout) -> u32 {
    dst.rank().tensor.rank % src.replica().size
}

fn covers(what: &'static str, src: Range<u32>, dst: Range<u32>) -> Result<(), LayoutError> {
    if src.start <= dst.start && dst.end <= src.end {
        return Ok(());
    }
    Err(LayoutError::Differs { what, src: format!("{src:?}"), dst: format!("{dst:?}") })
}

fn same<T: PartialEq + ToString>(what: &'static str, src: &T, dst: &T) -> Result<(), LayoutError> {
    if src == dst {
        return Ok(());
    }
    Err(LayoutError::Differs { what, src: src.to_string(), dst: dst.to_string() })
}

fn overlap(a: Range<u32>, b: Range<u32>) -> Range<u32> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

/// Appends a copy, or lengthens the last one when both its sides go on without a gap.
fn push_joined(copies: &mut Vec<TileCopy>, next: TileCopy) {
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

    fn copies(src: &KvLayout, dst: &KvLayout, pull: &PullBlocks<'_>) -> Vec<TileCopy> {
        Resharding::between(src, dst).unwrap().copies(pull).unwrap()
    }

    #[test]
    fn equal_layouts_copy_runs_of_blocks() {
        let layout = KvLayout::whole(shape(3, 2)).unwrap();
        let (src, dst) = (ids(&[4, 5, 6, 9]), ids(&[0, 1, 2, 3]));
        let copies =
            |positions, layers| copies(&layout, &layout, &PullBlocks { src: &src, dst: &dst, positions, layers });
        let block = layout.block_bytes();
        assert_eq!(
            copies(0..50, 0..3),
            [
                TileCopy { src_offset: 4 * block, dst_offset: 0, bytes: 3 * block },
                TileCopy { src_offset: 9 * block, dst_offset: 3 * block, bytes: block },
            ]
        );
        assert_eq!(copies(32..48, 0..3), [TileCopy { src_offset: 6 * block, dst_offset: 2 * block, bytes: block }]);
        let layer = layout.layer_bytes();
        let one_layer = TileCopy { src_offset: 6 * block + layer, dst_offset: 2 * block + layer, bytes: layer };
        assert_eq!(copies(32..48, 1..2), [one_layer]);
        assert_eq!(copies(16..16, 0..3), []);
    }

    #[test]
    fn a_partly_filled_block_moves_only_its_filled_tiles() {
        let layout = KvLayout::whole(Shape { block_tokens: 64, ..shape(1, 2) }).unwrap();
        let pull = PullBlocks { src: &ids(&[1]), dst: &ids(&[0]), positions: 0..20, layers: 0..1 };
        let (block, half, filled) = (layout.block_bytes(), layout.layer_bytes() / 2, 2 * layout.unit_bytes());
        let keys = TileCopy { src_offset: block, dst_offset: 0, bytes: filled };
        let values = TileCopy { src_offset: block + half, dst_offset: half, bytes: filled };
        assert_eq!(copies(&layout, &layout, &pull), [keys, values]);
    }

    #[test]
    fn what_cannot_be_pulled_says_why() {
        let narrow = KvLayout::whole(shape(3, 2)).unwrap();
        let wide = KvLayout::whole(Shape { block_tokens: 32, ..shape(3, 2) }).unwrap();
        let blocks = ids(&[0, 1]);
        let error = |src: &KvLayout, dst: &KvLayout, positions| {
            let pull = PullBlocks { src: &blocks, dst: &blocks, positions, layers: 0..3 };
            Resharding::between(src, dst).unwrap().copies(&pull).unwrap_err().to_string()
        };
        assert_eq!(error(&narrow, &narrow, 8..16), "cannot pull tokens 8..16: it must begin at a multiple of 16");
        assert_eq!(error(&narrow, &wide, 0..33), "cannot pull tokens 0..33: the giver's table has 2 blocks of 16");
        assert_eq!(error(&wide, &narrow, 16..33), "cannot pull tokens 16..33: the reader's table has 2 blocks of 16");
    }

    #[test]
    fn what_can_be_pulled_is_known_before_anything_is() {
        let whole = KvLayout::whole(shape(4, 2)).unwrap();
        let of_all = |src: &KvLayout, dst: &KvLayout| Resharding::of_all(src, dst).map(|_| ());
        let refused = |src: &KvLayout, dst: &KvLayout| of_all(src, dst).unwrap_err().to_string();
        let changed = |change: &dyn Fn(&mut Shape)| {
            let mut other = shape(4, 2);
            change(&mut other);
            refused(&KvLayout::whole(other).unwrap(), &whole)
        };
        assert_eq!(
            changed(&|other| other.tile_order = TileOrder("other".into())),
            "kv layouts differ in tile order: other at the giver, test at the reader"
        );
        assert!(changed(&|other| other.tile_bytes += 64).contains("bytes per tile"));
        assert!(changed(&|other| other.layers_total = 5).contains("layers"));
        assert!(changed(&|other| other.kv_heads_total = 4).contains("kv heads"));
        assert!(changed(&|other| (other.head_dim, other.tile_bytes) = (4, 2 * TILE_BYTES)).contains("head dim"));
        let wide = KvLayout::whole(Shape { block_tokens: 48, ..shape(4, 2) }).unwrap();
        assert_eq!([of_all(&whole, &whole), of_all(&wide, &whole), of_all(&whole, &wide)], [Ok(()), Ok(()), Ok(())]);
        let halves = ranks(&shape(4, 2), 2, 2);
        assert_eq!(of_all(&whole, &halves[3]), Ok(()), "a rank reads its part of a whole");
        assert_eq!(
            refused(&halves[0], &whole),
            "kv layouts differ in the layers held: 0..2 at the giver, 0..4 at the reader"
        );
        assert!(refused(&halves[0], &halves[1]).contains("the kv heads held"));
        let replicas = ranks(&shape(4, 1), 2, 1);
        assert!(refused(&replicas[1], &replicas[0]).contains("the replica of kv heads"));
    }

    /// Number of a byte: it names its tile (unit of the sequence, layer, half, head) and its place in the tile.
    fn numbered(unit: u32, layer: u32, half: Half, head: u32, byte: u64) -> u64 {
        let tile = ((u64::from(unit) * 64 + u64::from(layer)) * 2 + half as u64) * 64 + u64::from(head);
        tile * 1_000 + byte + 1
    }

    /// Writes the numbers of some units and layers of a sequence into a pool.
    fn fill(pool: &mut [u64], layout: &KvLayout, table: &[BlockId], (units, layers): (Range<u32>, Range<u32>)) {
        let per_block = layout.shape().units();
        for (unit, layer) in units.flat_map(|unit| layout.layers().map(move |layer| (unit, layer))) {
            let block = layout.block_offset(table[(unit / per_block) as usize]);
            for (half, head) in
                [Half::K, Half::V].into_iter().flat_map(|half| layout.kv_heads().map(move |h| (half, h)))
            {
                let at = block + layout.tile_offset(layer, half, unit % per_block, head).unwrap();
                for byte in (0..u64::from(layout.shape().tile_bytes)).filter(|_| layers.contains(&layer)) {
                    pool[(at + byte) as usize] = numbered(unit, layer, half, head, byte);
                }
            }
        }
    }

    /// Copies between pools of numbered bytes; each reader must get what it would have written itself, and no more.
    fn check_against_gather(
        (from, src): (&[KvLayout], &[BlockId]),
        (to, dst): (&[KvLayout], &[BlockId]),
        (tokens, layers): (Range<u32>, Range<u32>),
    ) {
        let pull = PullBlocks { src, dst, positions: tokens.clone(), layers: layers.clone() };
        for reader in to {
            let mut written = vec![0_u64; reader.pool_bytes(64) as usize];
            for giver in from {
                let mut pool = vec![u64::MAX; giver.pool_bytes(64) as usize];
                fill(&mut pool, giver, src, (0..UNITS, giver.layers()));
                let copies = copies(giver, reader, &pull);
                let units = tokens.end.div_ceil(TILE_TOKENS) - tokens.start / TILE_TOKENS;
                assert!(copies.len() as u32 <= units * Resharding::copies_per_unit(reader));
                for copy in copies {
                    let (s, d, n) = (copy.src_offset as usize, copy.dst_offset as usize, copy.bytes as usize);
                    assert!(written[d..d + n].iter().all(|byte| *byte == 0), "a byte was written twice");
                    written[d..d + n].copy_from_slice(&pool[s..s + n]);
                }
            }
            let mut wanted = vec![0_u64; written.len()];
            let units = tokens.start / TILE_TOKENS..tokens.end.div_ceil(TILE_TOKENS);
            fill(&mut wanted, reader, dst, (units, layers.clone()));
            assert!(written == wanted, "rank {:?} got other bytes", reader.rank());
        }
    }

    /// Units of the sequence whose blocks the tables hold.
    const UNITS: u32 = 12;

    /// As many distinct blocks as 12 units need at most.
    fn table() -> impl Strategy<Value = Vec<BlockId>> {
        Just((0..64).collect::<Vec<u32>>()).prop_shuffle().prop_map(|all| ids(&all[..UNITS as usize]))
    }

    proptest! {
        #[test]
        fn every_pair_of_ranks_moves_what_a_gather_would(
            layers in 1_u32..5, heads_log in 0_u32..3, tp_from in 0_u32..4, tp_to in 0_u32..4,
            pp_from in 1_u32..4, pp_to in 1_u32..4, src in table(), dst in table(),
            units_from in 1_u32..5, units_to in 1_u32..5,
            start in 0_u32..UNITS, length in 0_u32..200, first_layer in 0_u32..5, some_layers in 0_u32..5,
        ) {
            let sized = |units| Shape { block_tokens: units * TILE_TOKENS, ..shape(layers, 1 << heads_log) };
            let from = ranks(&sized(units_from), 1 << tp_from, pp_from.min(layers));
            let to = ranks(&sized(units_to), 1 << tp_to, pp_to.min(layers));
            let start = start * TILE_TOKENS;
            let wanted = (start..(start + length).min(UNITS * TILE_TOKENS), first_layer..first_layer + some_layers);
            check_against_gather((&from, &src), (&to, &dst), wanted);
        }

        #[test]
        fn copies_are_never_longer_in_number_than_needed(src in table(), dst in table()) {
            let layout = KvLayout::whole(shape(4, 2)).unwrap();
            let pull = PullBlocks { src: &src, dst: &dst, positions: 0..UNITS * TILE_TOKENS, layers: 0..4 };
            let breaks = (1..UNITS as usize).filter(|i| src[*i].0 != src[i - 1].0 + 1 || dst[*i].0 != dst[i - 1].0 + 1);
            prop_assert_eq!(copies(&layout, &layout, &pull).len(), breaks.count() + 1);
        }
    }
}
