//! Argument checks of all implementations of `Ops`; in this file, those of sizes and steps.

pub(crate) mod arguments;
pub(crate) mod weights;

use crate::{AttentionSpec, Batch, HEAD_DIM_MAX, HEAD_DIM_STEP, HeadShape, KernelError, KvGeometry};

/// Two sizes must be equal.
pub(crate) fn same(op: &'static str, what: &'static str, expected: usize, found: usize) -> Result<(), KernelError> {
    if expected == found { Ok(()) } else { Err(KernelError::Shape { op, what, expected, found }) }
}

/// `value` must be less than `bound`.
pub(crate) fn below(op: &'static str, what: &'static str, value: usize, bound: usize) -> Result<(), KernelError> {
    if value < bound { Ok(()) } else { Err(KernelError::OutOfRange { op, what, value, bound }) }
}

/// `count` must not be more than `max`.
pub(crate) fn at_most(op: &'static str, what: &'static str, count: usize, max: usize) -> Result<(), KernelError> {
    below(op, what, count, max.saturating_add(1))
}

/// Heads must have a shape that the kernels serve and the pool holds.
pub(crate) fn heads(op: &'static str, shape: &HeadShape, geometry: &KvGeometry) -> Result<(), KernelError> {
    let dim = shape.head_dim;
    if dim == 0 || dim > HEAD_DIM_MAX || !dim.is_multiple_of(HEAD_DIM_STEP) {
        let what = format!("head_dim is {dim}, must be a multiple of {HEAD_DIM_STEP} up to {HEAD_DIM_MAX}");
        return Err(KernelError::Invalid { op, what });
    }
    if shape.kv_heads == 0 || shape.heads == 0 || !shape.heads.is_multiple_of(shape.kv_heads) {
        let what = format!("{} query heads do not divide over {} kv heads", shape.heads, shape.kv_heads);
        return Err(KernelError::Invalid { op, what });
    }
    same(op, "head_dim of the pool", dim, geometry.head_dim)?;
    same(op, "kv heads of the pool", shape.kv_heads, geometry.kv_heads)
}

/// Sequences must cover the rows in order, and every position must have a block inside the pool. Blocks before position
/// `first_needed(first position)` of a sequence are not checked.
fn batch(
    op: &'static str,
    rows: usize,
    batch: &Batch<'_>,
    geometry: &KvGeometry,
    first_needed: impl Fn(usize) -> usize,
) -> Result<(), KernelError> {
    let mut next_row = 0;
    for sequence in batch.sequences {
        same(op, "first row of a sequence", next_row, sequence.rows.start as usize)?;
        next_row = sequence.rows.end as usize;
        if sequence.rows.is_empty() {
            return Err(KernelError::Invalid { op, what: format!("the sequence at row {next_row} has no rows") });
        }
        let first = sequence.first_position as usize;
        let last_block = (first + sequence.rows.len() - 1) / geometry.block_tokens;
        let table = batch.blocks.get(sequence.blocks.start as usize..sequence.blocks.end as usize);
        let Some(table) = table else {
            let what = format!("block range {:?} lies outside {} entries", sequence.blocks, batch.blocks.len());
            return Err(KernelError::Invalid { op, what });
        };
        below(op, "entry of the block table", last_block, table.len())?;
        for &block in &table[first_needed(first) / geometry.block_tokens..=last_block] {
            below(op, "block", block as usize, geometry.blocks)?;
        }
    }
    same(op, "rows covered by sequences", rows, next_row)
}

/// Appending needs a block for every position that the step writes.
pub(crate) fn append_batch(
    op: &'static str,
    rows: usize,
    step: &Batch<'_>,
    geometry: &KvGeometry,
) -> Result<(), KernelError> {
    batch(op, rows, step, geometry, |first| first)
}

/// Attention needs a window of at least one position, and a block for every position that it reads.
pub(crate) fn attention_batch(
    op: &'static str,
    rows: usize,
    spec: &AttentionSpec,
    step: &Batch<'_>,
    geometry: &KvGeometry,
) -> Result<(), KernelError> {
    if spec.sliding_window == Some(0) {
        return Err(KernelError::Invalid { op, what: "a sliding window of 0 positions sees nothing".to_owned() });
    }
    batch(op, rows, step, geometry, |first| first_visible(first, spec.sliding_window))
}

/// First position that the query at `position` sees.
pub(crate) fn first_visible(position: usize, sliding_window: Option<u32>) -> usize {
    match sliding_window {
        Some(window) => (position + 1).saturating_sub(window as usize),
        None => 0,
    }
}
