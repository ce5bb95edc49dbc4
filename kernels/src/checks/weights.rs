//! Checks of the weights of model files before they are prepared.

use std::ops::Range;

use super::{at_most, same};
use crate::finite::first_not_finite;
use crate::numerics::K_STEP;
use crate::{Arrangement, Dtype, KShard, KernelError, MatrixSource, VectorSource, widen};

/// Returns dtype, rows and held columns of a matrix. `not_finite` finds the first element of a part that is not finite.
pub(crate) fn matrix(
    parts: &[MatrixSource<'_>],
    arrangement: Arrangement,
    not_finite: impl Fn(&MatrixSource<'_>) -> Result<Option<usize>, KernelError>,
) -> Result<(Dtype, usize, Range<usize>), KernelError> {
    let op = "matrix";
    let (dtype, n, k) = stack(parts)?;
    if arrangement == Arrangement::GateUp {
        same(op, "parts of gate|up", 2, parts.len())?;
        same(op, "rows of up", parts[0].n, parts[1].n)?;
    }
    for (index, part) in parts.iter().enumerate() {
        if let Some(element) = not_finite(part)? {
            return Err(KernelError::NotFinite { op, part: index, element });
        }
    }
    match arrangement {
        Arrangement::Stacked | Arrangement::GateUp | Arrangement::Table => Ok((dtype, n, 0..k)),
        Arrangement::Partial(shard) => Ok((dtype, n, shard_columns(shard, k)?)),
    }
}

/// Returns the shape of a stack of parts: (dtype, n of all parts, k).
fn stack(parts: &[MatrixSource<'_>]) -> Result<(Dtype, usize, usize), KernelError> {
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

fn shard_columns(shard: KShard, k: usize) -> Result<Range<usize>, KernelError> {
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

/// Most columns of an int8 matrix: up to here sums of products fit into i32 and sums of activations are exact in f32.
const INT8_COLUMNS_MAX: usize = 1 << 20;

/// Refuses what int8 cannot be; [`matrix`] checks the rest.
pub(crate) fn int8_matrix(parts: &[MatrixSource<'_>], arrangement: Arrangement) -> Result<(), KernelError> {
    let op = "int8_matrix";
    if arrangement == Arrangement::Table {
        let what = "a table is looked up, not multiplied with: it stays as stored".to_owned();
        return Err(KernelError::Invalid { op, what });
    }
    parts.iter().try_for_each(|part| at_most(op, "columns", part.k, INT8_COLUMNS_MAX))
}

/// All parts widened to f32, end to end.
pub(crate) fn vector(parts: &[VectorSource<'_>]) -> Result<Vec<f32>, KernelError> {
    let (op, mut values) = ("vector", Vec::new());
    for (part, source) in parts.iter().enumerate() {
        let VectorSource { bytes, dtype } = *source;
        if !bytes.len().is_multiple_of(dtype.bytes()) {
            let what = format!("{} bytes are not a whole number of {dtype} values", bytes.len());
            return Err(KernelError::Invalid { op, what });
        }
        if let Some(element) = first_not_finite(bytes, dtype) {
            return Err(KernelError::NotFinite { op, part, element });
        }
        values.extend(widen::values(bytes, dtype));
    }
    if values.is_empty() {
        return Err(KernelError::Invalid { op, what: "no values".to_owned() });
    }
    Ok(values)
}
