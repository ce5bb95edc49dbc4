//! Causal attention over the paged cache: cuts a step into tasks of some query rows and one KV head.

mod chunk;
mod tile;

pub(super) use tile::{QUERY_ROWS_MAX, QueryTile, attend};

use super::table::FormatKernels;
use super::words::Shared;
use crate::numerics::LOG2_E;
use crate::pool::Pool;
use crate::{AttentionSpec, Batch, KernelError, KvView};

/// Everything the tasks of one call share.
pub(super) struct Attention<'a> {
    /// Queries, keys and values of the step, row-major.
    pub(super) qkv: &'a [f32],
    pub(super) spec: &'a AttentionSpec,
    pub(super) batch: &'a Batch<'a>,
    pub(super) kv: &'a KvView,
    pub(super) layer: usize,
}

/// Computes all rows into `out`, `[rows, heads * head_dim]`. The arguments have been checked.
pub(super) fn attention(
    call: &Attention<'_>,
    kernels: &FormatKernels,
    pool: &Pool,
    out: &mut [f32],
) -> Result<(), KernelError> {
    let shape = call.spec.shape;
    let group_heads = shape.heads / shape.kv_heads;
    let tiles = row_tiles(call.batch, (QUERY_ROWS_MAX / group_heads).max(1));
    let out = Shared::new(out);
    pool.run("attention", tiles.len() * shape.kv_heads, &|task| {
        let tile = &tiles[task / shape.kv_heads];
        let kv_head = task % shape.kv_heads;
        // Groups of more query heads than a tile has rows are cut too.
        for first_head in (0..group_heads).step_by(QUERY_ROWS_MAX) {
            let heads = QUERY_ROWS_MAX.min(group_heads - first_head);
            let query_tile = QueryTile {
                qkv: call.qkv,
                qkv_columns: shape.qkv_cols(),
                first_row: tile.first_row,
                tokens: tile.tokens,
                first_position: tile.first_position,
                first_head: kv_head * group_heads + first_head,
                heads,
                head_dim: shape.head_dim,
                log2_scale: call.spec.scale * LOG2_E,
                sliding_window: call.spec.sliding_window,
                table: tile.table,
                kv: call.kv,
                layer: call.layer,
                kv_head,
                out: out.as_mut_ptr(),
                out_columns: shape.out_cols(),
            };
            // SAFETY: tiles have disjoint rows, KV heads disjoint columns of `out`; the arguments were checked; the
            // kernels were chosen for this processor.
            unsafe { (kernels.attend)(&query_tile) };
        }
    })
}

/// Consecutive rows of one sequence.
struct RowTile<'a> {
    first_row: usize,
    tokens: usize,
    first_position: usize,
    table: &'a [u32],
}

/// Cuts every sequence into tiles, the last rows first: they see most keys, so the run ends with short tasks.
fn row_tiles<'a>(batch: &Batch<'a>, tokens_max: usize) -> Vec<RowTile<'a>> {
    let mut tiles = Vec::new();
    for sequence in batch.sequences {
        let table = &batch.blocks[sequence.blocks.start as usize..sequence.blocks.end as usize];
        let first_row = sequence.rows.start as usize;
        for start in (0..sequence.rows.len()).step_by(tokens_max) {
            let tokens = tokens_max.min(sequence.rows.len() - start);
            let first_position = sequence.first_position as usize + start;
            tiles.push(RowTile { first_row: first_row + start, tokens, first_position, table });
        }
    }
    tiles.sort_by_key(|tile| std::cmp::Reverse(tile.first_position));
    tiles
}
