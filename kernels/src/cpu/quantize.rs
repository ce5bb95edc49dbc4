//! Weights rounded to int8 for the register tile: `[n / 32][chunk][word][32]` words of bytes `w + 128`, a scale per
//! row.

use std::ops::Range;

use super::gemm::{BLOCK_COLUMNS, INT8_PER_WORD, int8_chunk_words};
use super::words::{Shared, Words};
use crate::numerics::{Int8Scale, k_padded};
use crate::pool::PoolLane;
use crate::{KernelError, MatrixSource, widen};

/// Columns of the source rows that a matrix holds, and the number of their chunks.
pub(super) struct Cut {
    pub(super) columns: Range<usize>,
    pub(super) chunks: usize,
}

impl Cut {
    fn chunk_columns(&self) -> usize {
        k_padded(self.columns.len()) / self.chunks
    }

    fn chunk_words(&self) -> usize {
        int8_chunk_words(self.columns.len(), self.chunks)
    }

    /// Place of column `i`: word of a packed row, and byte of the word.
    pub(super) fn place(&self, i: usize) -> (usize, usize) {
        let (chunk, rest) = (i / self.chunk_columns(), i % self.chunk_columns());
        (chunk * self.chunk_words() + rest / INT8_PER_WORD, rest % INT8_PER_WORD)
    }
}

pub(super) fn stored(byte: u8) -> i8 {
    (byte ^ 0x80).cast_signed()
}

/// Finds the source row of a block and column of the packed matrix; `None` for padding.
pub(super) type SourceRow<'a> = dyn Fn(usize, usize) -> Option<(&'a MatrixSource<'a>, usize)> + Sync + 'a;

/// Rounds all rows, each with the scale of its whole length, and packs their columns.
pub(super) fn fill(
    words: &mut Words,
    scales: &mut Words,
    source: &SourceRow<'_>,
    cut: &Cut,
    pool: &PoolLane,
) -> Result<(), KernelError> {
    let block_words = BLOCK_COLUMNS * cut.chunks * cut.chunk_words();
    let blocks = words.as_slice().len() / block_words;
    let (words, scales) = (Shared::new(words.as_mut_slice()), Shared::new(scales.as_mut_f32()));
    pool.run("int8_matrix", blocks, &|block| {
        // SAFETY: blocks do not overlap.
        let target = unsafe { words.part(block * block_words, block_words) };
        // SAFETY: as above.
        let scales = unsafe { scales.part(block * BLOCK_COLUMNS, BLOCK_COLUMNS) };
        for (column, place) in scales.iter_mut().enumerate() {
            let Some((part, row)) = source(block, column) else { continue };
            let row_bytes = part.k * part.dtype.bytes();
            let values = widen::values(&part.bytes[row * row_bytes..][..row_bytes], part.dtype);
            let scale = Int8Scale::of_values(&values);
            *place = scale.scale;
            write_row(&values[cut.columns.clone()], scale, cut, &mut target[column..]);
        }
    })
}

fn write_row(values: &[f32], scale: Int8Scale, cut: &Cut, target: &mut [u32]) {
    for (chunk, values) in values.chunks(cut.chunk_columns()).enumerate() {
        let first = chunk * cut.chunk_words();
        for (p, quad) in values.chunks(INT8_PER_WORD).enumerate() {
            let mut bytes = [0u8; INT8_PER_WORD];
            for (byte, value) in bytes.iter_mut().zip(quad) {
                *byte = scale.quantize(*value).cast_unsigned() ^ 0x80;
            }
            target[(first + p) * BLOCK_COLUMNS] = u32::from_le_bytes(bytes);
        }
    }
}
