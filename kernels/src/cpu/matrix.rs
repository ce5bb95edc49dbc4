//! Weights packed for the register tile: `[n / 32][k / words][32]` words, zero-padded; or plain rows for `embed`.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::gemm::BLOCK_COLUMNS;
use super::words::{Shared, Words};
use crate::checks::{gate_up_parts, matrix_parts};
use crate::finite::first_not_finite;
use crate::numerics::{LANES, k_padded};
use crate::pool::Pool;
use crate::{Arrangement, Dtype, KernelError, MatrixSource, widen};

/// What a word of a packed matrix holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WordFormat {
    /// Two bf16 that are neighbours along `k`.
    Bf16Pairs,
    /// One f32.
    F32,
}

impl WordFormat {
    fn of(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Bf16 => WordFormat::Bf16Pairs,
            Dtype::F16 | Dtype::F32 => WordFormat::F32,
        }
    }

    fn per_word(self) -> usize {
        match self {
            WordFormat::Bf16Pairs => 2,
            WordFormat::F32 => 1,
        }
    }
}

/// A matrix prepared for the CPU.
pub struct Matrix {
    pub(super) arrangement: Arrangement,
    pub(super) format: WordFormat,
    pub(super) n: usize,
    pub(super) k: usize,
    /// Words of a row along `k`, padding included; not padded in a table.
    pub(super) k_words: usize,
    pub(super) words: Words,
}

impl Matrix {
    /// Packs `parts` as `arrangement` says.
    pub(super) fn new(parts: &[MatrixSource<'_>], arrangement: Arrangement, pool: &Pool) -> Result<Self, KernelError> {
        let (dtype, n, k) = matrix_parts(parts)?;
        let format = WordFormat::of(dtype);
        let (k_words, rows) = match arrangement {
            Arrangement::Table => (k.div_ceil(format.per_word()), n),
            Arrangement::Stacked => (k_padded(k) / format.per_word(), n.next_multiple_of(BLOCK_COLUMNS)),
            Arrangement::GateUp => {
                gate_up_parts(parts)?;
                (k_padded(k) / format.per_word(), 2 * (n / 2).next_multiple_of(LANES))
            }
        };
        all_finite(parts, pool)?;
        let mut matrix = Self { arrangement, format, n, k, k_words, words: Words::zeroed(rows * k_words) };
        matrix.fill(parts, pool)?;
        Ok(matrix)
    }

    fn fill(&mut self, parts: &[MatrixSource<'_>], pool: &Pool) -> Result<(), KernelError> {
        let (arrangement, n, k_words) = (self.arrangement, self.n, self.k_words);
        let block_words = BLOCK_COLUMNS * k_words;
        let blocks = self.words.as_slice().len().div_ceil(block_words);
        let total = self.words.as_slice().len();
        let words = Shared::new(self.words.as_mut_slice());
        pool.run("matrix", blocks, &|block| {
            let first = block * block_words;
            // SAFETY: blocks do not overlap.
            let target = unsafe { words.part(first, block_words.min(total - first)) };
            for column in 0..BLOCK_COLUMNS {
                let Some((part, row)) = source_row(parts, arrangement, n, block, column) else { continue };
                let row_bytes = part.k * part.dtype.bytes();
                let source = RowWords { bytes: &part.bytes[row * row_bytes..][..row_bytes], dtype: part.dtype };
                match arrangement {
                    Arrangement::Table => source.write(&mut target[column * k_words..], 1),
                    Arrangement::Stacked | Arrangement::GateUp => source.write(&mut target[column..], BLOCK_COLUMNS),
                }
            }
        })
    }

    /// Widens row `n` into `out`, which has `k` values.
    pub(super) fn read_row(&self, n: usize, out: &mut [f32]) {
        let words = self.words.as_slice();
        let (first, stride) = match self.arrangement {
            Arrangement::Table => (n * self.k_words, 1),
            Arrangement::Stacked | Arrangement::GateUp => {
                (n / BLOCK_COLUMNS * BLOCK_COLUMNS * self.k_words + n % BLOCK_COLUMNS, BLOCK_COLUMNS)
            }
        };
        match self.format {
            WordFormat::Bf16Pairs => {
                for (p, pair) in out.chunks_mut(2).enumerate() {
                    let word = words[first + p * stride];
                    pair[0] = f32::from_bits(word << 16);
                    if let Some(odd) = pair.get_mut(1) {
                        *odd = f32::from_bits(word & 0xffff_0000);
                    }
                }
            }
            WordFormat::F32 => {
                for (p, value) in out.iter_mut().enumerate() {
                    *value = f32::from_bits(words[first + p * stride]);
                }
            }
        }
    }
}

/// Every element of the parts must be a finite number; all threads look. Says the first one that is not.
fn all_finite(parts: &[MatrixSource<'_>], pool: &Pool) -> Result<(), KernelError> {
    const TASK_BYTES: usize = 1 << 20;
    for (index, part) in parts.iter().enumerate() {
        let task_elements = TASK_BYTES / part.dtype.bytes();
        let first = AtomicUsize::new(usize::MAX);
        pool.run("matrix", part.bytes.len().div_ceil(TASK_BYTES), &|task| {
            let end = ((task + 1) * TASK_BYTES).min(part.bytes.len());
            if let Some(element) = first_not_finite(&part.bytes[task * TASK_BYTES..end], part.dtype) {
                first.fetch_min(task * task_elements + element, Ordering::Relaxed);
            }
        })?;
        match first.into_inner() {
            usize::MAX => {}
            element => return Err(KernelError::NotFinite { op: "matrix", part: index, element }),
        }
    }
    Ok(())
}

/// The row of the sources that becomes column `column` of block `block`; `None` for padding.
fn source_row<'a>(
    parts: &'a [MatrixSource<'a>],
    arrangement: Arrangement,
    n: usize,
    block: usize,
    column: usize,
) -> Option<(&'a MatrixSource<'a>, usize)> {
    let mut row = match arrangement {
        Arrangement::Stacked | Arrangement::Table => block * BLOCK_COLUMNS + column,
        Arrangement::GateUp => {
            let row = block * LANES + column % LANES;
            if row >= n / 2 {
                return None;
            }
            column / LANES * (n / 2) + row
        }
    };
    for part in parts {
        if row < part.n {
            return Some((part, row));
        }
        row -= part.n;
    }
    None
}

/// One row of a source, read as words.
struct RowWords<'a> {
    bytes: &'a [u8],
    dtype: Dtype,
}

impl RowWords<'_> {
    /// Writes word `p` to `target[p * stride]`.
    fn write(&self, target: &mut [u32], stride: usize) {
        match self.dtype {
            Dtype::Bf16 => {
                let (pairs, rest) = self.bytes.as_chunks::<4>();
                for (p, pair) in pairs.iter().enumerate() {
                    target[p * stride] = u32::from_le_bytes(*pair);
                }
                if let [low, high] = rest {
                    target[pairs.len() * stride] = u32::from(u16::from_le_bytes([*low, *high]));
                }
            }
            Dtype::F16 | Dtype::F32 => {
                for (p, value) in widen::values(self.bytes, self.dtype).into_iter().enumerate() {
                    target[p * stride] = value.to_bits();
                }
            }
        }
    }
}
