//! Plan of the attention tasks of a step: rows, KV head and chunks of keys of each; computes nothing.

use std::cmp::Reverse;
use std::ops::Range;

use super::tile::{QUERY_ROWS_MAX, state_values};
use crate::checks::first_visible;
use crate::numerics::ATTENTION_CHUNK;
use crate::{AttentionSpec, Batch};

/// Least chunks of a piece: fewer are done before another thread has begun.
const PIECE_CHUNKS_MIN: usize = 2;
/// Query rows that are multiplied in the time of reading their keys and values.
const ROWS_PER_READ: usize = 8;

/// Consecutive rows of one sequence, and the query heads that share a KV head.
#[derive(Debug, Clone)]
pub(super) struct RowTile {
    pub(super) first_row: usize,
    pub(super) tokens: usize,
    pub(super) first_position: usize,
    /// Range of the sequence's block table in `Batch::blocks`.
    pub(super) table: Range<usize>,
    pub(super) kv_head: usize,
    pub(super) first_head: usize,
    pub(super) heads: usize,
    pub(super) chunks: Range<usize>,
}

/// One task: a tile, or some chunks of a tile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) tile: usize,
    pub(super) chunks: Range<usize>,
    /// Offset of the tile's states, in values, if the tile is cut.
    pub(super) states: Option<usize>,
}

/// All tasks of one kind of attention in a step, the same for every layer.
pub(in crate::cpu) struct Plan {
    pub(super) tiles: Vec<RowTile>,
    /// Longest first, so that the run ends with short tasks.
    pub(super) pieces: Vec<Piece>,
    /// Number of values in the states of all cut tiles.
    pub(super) states: usize,
}

impl RowTile {
    pub(super) fn rows(&self) -> usize {
        self.tokens * self.heads
    }

    /// Time of one chunk, in rows.
    fn chunk_cost(&self) -> usize {
        self.rows().max(ROWS_PER_READ)
    }
}

impl Plan {
    /// Cuts tiles that take longer than the fair share of a thread into pieces of half a share. Other tiles stay whole,
    /// because the chunks of a piece must be stored and merged.
    pub(in crate::cpu) fn new(spec: &AttentionSpec, batch: &Batch<'_>, threads: usize) -> Self {
        let tiles = row_tiles(spec, batch);
        let cost = |tile: &RowTile| tile.chunks.len() * tile.chunk_cost();
        let share = tiles.iter().map(cost).sum::<usize>().div_ceil(threads);
        let (mut pieces, mut states) = (Vec::new(), 0);
        for (index, tile) in tiles.iter().enumerate() {
            let chunks = tile.chunks.clone();
            if cost(tile) <= share || chunks.len() < 2 * PIECE_CHUNKS_MIN {
                pieces.push(Piece { tile: index, chunks, states: None });
                continue;
            }
            let step = (share / (2 * tile.chunk_cost())).max(PIECE_CHUNKS_MIN);
            for start in chunks.clone().step_by(step) {
                let chunks = start..chunks.end.min(start + step);
                pieces.push(Piece { tile: index, chunks, states: Some(states) });
            }
            states += tile.chunks.len() * tile.rows() * state_values(spec.shape.head_dim);
        }
        pieces.sort_by_key(|piece| Reverse(piece.chunks.len() * tiles[piece.tile].chunk_cost()));
        Self { tiles, pieces, states }
    }
}

/// Cuts every sequence into tiles of as many rows as a task takes; larger groups of query heads are cut too.
fn row_tiles(spec: &AttentionSpec, batch: &Batch<'_>) -> Vec<RowTile> {
    let shape = spec.shape;
    let group_heads = shape.heads / shape.kv_heads;
    let tokens_max = (QUERY_ROWS_MAX / group_heads).max(1);
    let mut tiles = Vec::new();
    for sequence in batch.sequences {
        let table = sequence.blocks.start as usize..sequence.blocks.end as usize;
        for start in (0..sequence.rows.len()).step_by(tokens_max) {
            let tokens = tokens_max.min(sequence.rows.len() - start);
            let first_position = sequence.first_position as usize + start;
            let first_seen = first_visible(first_position, spec.sliding_window);
            let chunks = first_seen / ATTENTION_CHUNK..(first_position + tokens - 1) / ATTENTION_CHUNK + 1;
            for kv_head in 0..shape.kv_heads {
                for first in (0..group_heads).step_by(QUERY_ROWS_MAX) {
                    tiles.push(RowTile {
                        first_row: sequence.rows.start as usize + start,
                        tokens,
                        first_position,
                        table: table.clone(),
                        kv_head,
                        first_head: kv_head * group_heads + first,
                        heads: QUERY_ROWS_MAX.min(group_heads - first),
                        chunks: chunks.clone(),
                    });
                }
            }
        }
    }
    tiles
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchSequence, HeadShape};

    fn pieces(
        kv_heads: usize,
        window: Option<u32>,
        contexts: &[u32],
        threads: usize,
    ) -> Vec<(usize, Range<usize>, bool)> {
        let shape = HeadShape { heads: 8 * kv_heads, kv_heads, head_dim: 16 };
        let spec = AttentionSpec { shape, scale: 1.0, sliding_window: window };
        let sequences: Vec<BatchSequence> = (0..)
            .zip(contexts)
            .map(|(row, context)| BatchSequence { rows: row..row + 1, blocks: 0..0, first_position: context - 1 })
            .collect();
        let batch = Batch { sequences: &sequences, blocks: &[] };
        let plan = Plan::new(&spec, &batch, threads);
        plan.pieces.into_iter().map(|piece| (piece.tile, piece.chunks, piece.states.is_some())).collect()
    }

    #[test]
    fn enough_tasks_are_not_cut() {
        assert_eq!(pieces(2, None, &[4096], 2), [(0, 0..32, false), (1, 0..32, false)]);
        assert_eq!(pieces(1, None, &[4096], 1), [(0, 0..32, false)]);
        assert_eq!(pieces(1, None, &[300], 8), [(0, 0..3, false)]);
    }

    #[test]
    fn one_long_task_is_cut_into_halves_of_a_share() {
        let quarters = [0..8, 8..16, 16..24, 24..32].map(|chunks| (0, chunks, true));
        assert_eq!(pieces(1, None, &[4096], 2), quarters);
        assert_eq!(pieces(1, Some(256), &[4096], 8), [(0, 30..32, false)]);
        assert_eq!(pieces(1, Some(600), &[4096], 8), [(0, 27..29, true), (0, 29..31, true), (0, 31..32, true)]);
    }

    #[test]
    fn a_long_sequence_beside_short_ones_is_shared_out() {
        let found = pieces(1, None, &[256, 12_800, 256], 2);
        assert_eq!(found[..4], [0..26, 26..52, 52..78, 78..100].map(|chunks| (1, chunks, true)));
        assert_eq!(found[4..], [(0, 0..2, false), (2, 0..2, false)]);
    }
}
