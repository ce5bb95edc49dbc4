//! Argument checks that every implementation of `Ops` makes before it computes.

use std::ops::Range;

use crate::finite::first_not_finite;
use crate::numerics::K_STEP;
use crate::{
    Arrangement, AttentionSpec, Batch, Dtype, Epilogue, HEAD_DIM_MAX, HEAD_DIM_STEP, HeadShape, KShard, KernelError,
    KvGeometry,
};
use crate::{MatrixSource, VectorSource};

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

/// Rows need at least one column.
pub(crate) fn columns(cols: usize) -> Result<(), KernelError> {
    if cols > 0 { Ok(()) } else { Err(KernelError::Invalid { op: "rows", what: "0 columns".to_owned() }) }
}

/// Gate and up must be two parts of one shape.
pub(crate) fn gate_up_parts(parts: &[MatrixSource<'_>]) -> Result<(), KernelError> {
    same("matrix", "parts of gate|up", 2, parts.len())?;
    same("matrix", "rows of up", parts[0].n, parts[1].n)
}

/// Shape of a stack of parts: (dtype, n of all parts, k).
pub(crate) fn matrix_parts(parts: &[MatrixSource<'_>]) -> Result<(Dtype, usize, usize), KernelError> {
    let op = "matrix";
    let Some(first) = parts.first() else {
        return Err(KernelError::Invalid { op, what: "no parts".to_owned() });
    };
    for part in parts {
        if part.dtype != first.dtype {
            return Err(KernelError::MixedDtypes { op, first: first.dtype, other: part.dtype });
        }
        same(op, "columns of a part", first.k, part.k)?;
        if part.n == 0 || part.k == 0 {
            return Err(KernelError::Invalid {
                op,
                what: format!("a part is [{}, {}], which is empty", part.n, part.k),
            });
        }
        let bytes = part.n.checked_mul(part.k).and_then(|count| count.checked_mul(part.dtype.bytes()));
        same(op, "bytes of a part", bytes.unwrap_or(usize::MAX), part.bytes.len())?;
    }
    Ok((first.dtype, parts.iter().map(|part| part.n).sum(), first.k))
}

/// Every element must be a finite number.
pub(crate) fn finite(op: &'static str, part: usize, bytes: &[u8], dtype: Dtype) -> Result<(), KernelError> {
    match first_not_finite(bytes, dtype) {
        None => Ok(()),
        Some(element) => Err(KernelError::NotFinite { op, part, element }),
    }
}

/// `embed` reads rows of a table or of a stacked matrix.
pub(crate) fn embed_arrangement(op: &'static str, found: Arrangement) -> Result<(), KernelError> {
    match found {
        Arrangement::Stacked | Arrangement::Table => Ok(()),
        Arrangement::GateUp | Arrangement::Partial(_) => {
            Err(KernelError::Arrangement { op, expected: "table", found: found.name() })
        }
    }
}

/// The arrangement that `linear` computes with: a partial product has neither bias nor residual, which come after the
/// sum over all ranks.
pub(crate) fn linear_parts<V>(
    found: Arrangement,
    bias: Option<&V>,
    epilogue: Epilogue,
) -> Result<Arrangement, KernelError> {
    match (found, bias, epilogue) {
        (Arrangement::Partial(_), None, Epilogue::Store) => Ok(found),
        (Arrangement::Partial(_), _, _) => {
            let what = "a partial product is stored as it is: bias and epilogue come after the sum".to_owned();
            Err(KernelError::Invalid { op: "linear", what })
        }
        _ => Ok(Arrangement::Stacked),
    }
}

/// Most columns of an int8 matrix: up to here sums of products fit into i32 and sums of activations are exact in f32.
const INT8_COLUMNS_MAX: usize = 1 << 20;

/// What int8 cannot be.
pub(crate) fn int8_parts(parts: &[MatrixSource<'_>], arrangement: Arrangement) -> Result<(), KernelError> {
    let op = "int8_matrix";
    if arrangement == Arrangement::Table {
        let what = "a table is looked up, not multiplied with: it stays as stored".to_owned();
        return Err(KernelError::Invalid { op, what });
    }
    parts.iter().try_for_each(|part| at_most(op, "columns", part.k, INT8_COLUMNS_MAX))
}

/// The columns of `k` that a shard has.
pub(crate) fn shard_columns(shard: KShard, k: usize) -> Result<Range<usize>, KernelError> {
    let invalid = |what| Err(KernelError::Invalid { op: "matrix", what });
    let KShard { index, of } = shard;
    if !matches!(of, 1 | 2 | 4 | 8) || index >= of {
        return invalid(format!("part {index} of {of} parts of k: there are 1, 2, 4 or 8, counted from 0"));
    }
    if !k.is_multiple_of(K_STEP * of) {
        return invalid(format!("k is {k}, must be a multiple of {} to have {of} parts", K_STEP * of));
    }
    Ok(index * (k / of)..(index + 1) * (k / of))
}

/// A product takes exactly one arrangement.
pub(crate) fn linear_arrangement(
    op: &'static str,
    found: Arrangement,
    expected: Arrangement,
) -> Result<(), KernelError> {
    if found == expected {
        return Ok(());
    }
    Err(KernelError::Arrangement { op, expected: expected.name(), found: found.name() })
}

/// There is one matrix per expert, and all have one shape `(n, k)`, which is returned.
pub(crate) fn expert_shapes(
    op: &'static str,
    experts: usize,
    mut shapes: impl ExactSizeIterator<Item = (usize, usize)>,
) -> Result<(usize, usize), KernelError> {
    same(op, "expert matrices", experts, shapes.len())?;
    let Some((n, k)) = shapes.next() else {
        return Err(KernelError::Invalid { op, what: "no experts".to_owned() });
    };
    for (other_n, other_k) in shapes {
        same(op, "rows of an expert matrix", n, other_n)?;
        same(op, "columns of an expert matrix", k, other_k)?;
    }
    Ok((n, k))
}

/// The arrangement that `expert_down` takes from all experts: that of the first if it is a shard, else stacked.
pub(crate) fn expert_down_parts(mut found: impl Iterator<Item = Arrangement>) -> Arrangement {
    match found.next() {
        Some(Arrangement::Partial(shard)) => Arrangement::Partial(shard),
        Some(Arrangement::Stacked | Arrangement::GateUp | Arrangement::Table) | None => Arrangement::Stacked,
    }
}

/// All parts widened to f32, end to end.
pub(crate) fn vector_parts(parts: &[VectorSource<'_>]) -> Result<Vec<f32>, KernelError> {
    let mut values = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        if !part.bytes.len().is_multiple_of(part.dtype.bytes()) {
            let what = format!("{} bytes are not a whole number of {} values", part.bytes.len(), part.dtype);
            return Err(KernelError::Invalid { op: "vector", what });
        }
        finite("vector", index, part.bytes, part.dtype)?;
        values.extend(crate::widen::values(part.bytes, part.dtype));
    }
    if values.is_empty() {
        return Err(KernelError::Invalid { op: "vector", what: "no values".to_owned() });
    }
    Ok(values)
}

/// Heads must be a shape that the kernels serve and the pool holds.
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

/// Sequences must cover the rows in order, and every position must have a block inside the pool.
/// Blocks before `first_needed(sequence)` are not looked at.
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

/// What appending needs of a step: a block for every position that it writes.
pub(crate) fn append_batch(
    op: &'static str,
    rows: usize,
    step: &Batch<'_>,
    geometry: &KvGeometry,
) -> Result<(), KernelError> {
    batch(op, rows, step, geometry, |first| first)
}

/// What one kind of attention needs of a step: a window that sees something, and a block for every position it reads.
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
