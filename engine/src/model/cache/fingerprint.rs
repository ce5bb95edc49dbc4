//! Fingerprint of how operations lay out matrices: a changed layout changes it, so no version number is needed.

use half::{bf16, f16};
use kernels::{Arrangement, Dtype, KShard, MatrixSource, Ops};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::EngineError;

/// Odd sizes, where the arrangement allows them, so that padding counts.
const ROWS: usize = 53;
const LAYOUTS: [(Arrangement, usize); 4] = [
    (Arrangement::Stacked, 75),
    (Arrangement::GateUp, 75),
    (Arrangement::Table, 75),
    (Arrangement::Partial(KShard { index: 1, of: 2 }), 96),
];

/// Digest of how `ops` lays out matrices of every format and arrangement; `None` if they cannot be mapped.
pub(super) fn of<O: Ops>(ops: &O) -> Result<Option<u128>, EngineError> {
    let mut hasher = Xxh3::new();
    for dtype in [Dtype::Bf16, Dtype::F16, Dtype::F32] {
        for (arrangement, columns) in LAYOUTS {
            let bytes = numbers(dtype, ROWS * columns);
            let source = MatrixSource { bytes: &bytes, dtype, n: ROWS, k: columns };
            let mut matrices = vec![ops.matrix(&[source, source], arrangement)?];
            if arrangement != Arrangement::Table {
                matrices.push(ops.int8_matrix(&[source, source], arrangement)?);
            }
            for matrix in &matrices {
                let Some(image) = ops.image(matrix) else { return Ok(None) };
                image.form.iter().for_each(|number| hasher.update(&number.to_le_bytes()));
                image.sections.iter().for_each(|section| hasher.update(&xxh3_64(section).to_le_bytes()));
            }
        }
    }
    Ok(Some(hasher.digest128()))
}

/// Numbers that differ from their neighbours.
fn numbers(dtype: Dtype, count: usize) -> Vec<u8> {
    let value = |index: usize| (index % 251) as f32 - (index % 7) as f32 / 8.0;
    let values = (0..count).map(value);
    match dtype {
        Dtype::Bf16 => values.flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect(),
        Dtype::F16 => values.flat_map(|value| f16::from_f32(value).to_le_bytes()).collect(),
        Dtype::F32 => values.flat_map(f32::to_le_bytes).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kernels::reference::ReferenceOps;
    use kernels::{CpuOps, KernelSet, Placement, Pool};

    use super::*;

    #[test]
    fn the_same_operations_have_the_same_fingerprint() {
        let of_threads = |threads| {
            let pool = Pool::new(&Placement::Floating(threads)).unwrap();
            of(&CpuOps::new(Arc::new(pool), KernelSet::best()).unwrap()).unwrap()
        };
        assert!(of_threads(1).is_some());
        assert_eq!(of_threads(1), of_threads(2));
        assert_eq!(of(&ReferenceOps::default()).unwrap(), None);
    }
}
