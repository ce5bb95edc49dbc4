//! Causal attention over the paged cache: runs the tasks of a step and merges tiles that were cut along the keys.

mod ahead;
mod cached;
mod chunk;
mod plan;
mod products;
mod tile;
#[cfg(target_arch = "x86_64")]
mod tiled;

pub(super) use cached::{AsStored, Scaled};
pub(super) use products::InVectors;
pub(super) use tile::{QueryTile, attend, join};
#[cfg(target_arch = "x86_64")]
pub(super) use tiled::InTiles;

use std::sync::atomic::{AtomicUsize, Ordering};

use super::words::Shared;
use crate::numerics::LOG2_E;
use crate::pool::PoolLane;
use crate::{AttentionSpec, KernelError, KvView};
pub(super) use plan::Plan;
use plan::RowTile;
use tile::Keep;

/// Arguments that all tasks of a call share.
pub(super) struct Attention<'a> {
    /// Queries, keys and values of the step, row-major.
    pub(super) qkv: &'a [f32],
    pub(super) spec: &'a AttentionSpec,
    /// Tasks, planned when the step began.
    pub(super) plan: &'a Plan,
    pub(super) blocks: &'a [u32],
    pub(super) kv: &'a KvView,
    pub(super) layer: usize,
}

#[derive(Clone, Copy)]
pub(super) struct AttentionKernels {
    /// As `tile::attend`.
    pub(super) attend: unsafe fn(&QueryTile<'_>),
    /// As `tile::join`.
    pub(super) join: unsafe fn(&QueryTile<'_>),
}

/// Computes all rows into `out`, `[rows, heads * head_dim]`, from checked arguments.
///
/// The pieces of a cut tile store the states of their chunks, and the piece that ends last merges all of them from left
/// to right: the same operations in the same order as in one task.
pub(super) fn attention(
    call: &Attention<'_>,
    kernels: AttentionKernels,
    pool: &PoolLane,
    out: &mut [f32],
) -> Result<(), KernelError> {
    let plan = call.plan;
    let mut states = vec![0.0; plan.states];
    let unfinished: Vec<AtomicUsize> = plan.tiles.iter().map(|_| AtomicUsize::new(0)).collect();
    for piece in &plan.pieces {
        unfinished[piece.tile].fetch_add(1, Ordering::Relaxed);
    }
    let (states, out) = (Shared::new(&mut states), Shared::new(out));
    pool.run("attention", plan.pieces.len(), &|task| {
        let piece = &plan.pieces[task];
        let tile = &plan.tiles[piece.tile];
        let keep = match piece.states {
            None => Keep::Merged,
            // SAFETY: the plan counted the states of all cut tiles, and they do not overlap.
            Some(first) => Keep::Each(unsafe { states.as_mut_ptr().add(first) }),
        };
        let mut query_tile = query_tile(call, tile, out.as_mut_ptr());
        query_tile.keep = keep;
        query_tile.chunks = piece.chunks.clone();
        // SAFETY: tiles have disjoint rows or columns of `out`, pieces disjoint chunks; the arguments were checked; the
        // kernels were chosen for this processor.
        unsafe { (kernels.attend)(&query_tile) };
        // The last piece sees the states that the others have stored.
        if unfinished[piece.tile].fetch_sub(1, Ordering::AcqRel) == 1 && piece.states.is_some() {
            query_tile.chunks = tile.chunks.clone();
            // SAFETY: as above, and every chunk of the tile has been stored.
            unsafe { (kernels.join)(&query_tile) };
        }
    })
}

fn query_tile<'a>(call: &Attention<'a>, tile: &RowTile, out: *mut f32) -> QueryTile<'a> {
    let shape = call.spec.shape;
    QueryTile {
        qkv: call.qkv,
        qkv_columns: shape.qkv_cols(),
        first_row: tile.first_row,
        tokens: tile.tokens,
        first_position: tile.first_position,
        first_head: tile.first_head,
        heads: tile.heads,
        head_dim: shape.head_dim,
        log2_scale: call.spec.scale * LOG2_E,
        sliding_window: call.spec.sliding_window,
        table: &call.blocks[tile.table.clone()],
        kv: call.kv,
        layer: call.layer,
        kv_head: tile.kv_head,
        first_chunk: tile.chunks.start,
        chunks: tile.chunks.clone(),
        keep: Keep::Merged,
        out,
        out_columns: shape.out_cols(),
    }
}
