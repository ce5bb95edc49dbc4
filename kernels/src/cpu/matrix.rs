//! Weights packed for the register tile: `[n / 32][k / words][32]` words, zero-padded; or plain rows for `embed`.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::gemm::BLOCK_COLUMNS;
use super::packed::PackedWords;
use super::words::{Shared, Words};
use crate::checks::{gate_up_parts, matrix_parts, shard_columns};
use crate::finite::first_not_finite;
use crate::numerics::{K_CHUNKS, K_STEP, LANES, k_padded};
use crate::pool::Pool;
use crate::{Arrangement, Dtype, KernelError, MappedImage, MatrixImage, MatrixSource, widen};

/// Rows and columns of any real matrix are fewer; their product with an element's size can be addressed.
const SIZE_MAX: usize = 1 << 30;

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

    /// As images say it.
    fn code(self) -> u64 {
        match self {
            WordFormat::Bf16Pairs => 1,
            WordFormat::F32 => 2,
        }
    }

    fn of_code(code: u64) -> Option<Self> {
        [WordFormat::Bf16Pairs, WordFormat::F32].into_iter().find(|format| format.code() == code)
    }
}

/// A matrix prepared for the CPU.
pub struct Matrix {
    pub(super) arrangement: Arrangement,
    pub(super) format: WordFormat,
    pub(super) n: usize,
    /// Columns held: all, or a shard's.
    pub(super) k: usize,
    /// Chunks of `k` held, of eight.
    pub(super) chunks: usize,
    /// Words of a row along `k`, padding included; not padded in a table.
    pub(super) k_words: usize,
    pub(super) words: PackedWords,
}

impl Matrix {
    /// Packs `parts` as `arrangement` says.
    pub(super) fn new(parts: &[MatrixSource<'_>], arrangement: Arrangement, pool: &Pool) -> Result<Self, KernelError> {
        let (dtype, n, k_whole) = matrix_parts(parts)?;
        let format = WordFormat::of(dtype);
        if arrangement == Arrangement::GateUp {
            gate_up_parts(parts)?;
        }
        all_finite(parts, pool)?;
        let columns = match arrangement {
            Arrangement::Stacked | Arrangement::GateUp | Arrangement::Table => 0..k_whole,
            Arrangement::Partial(shard) => shard_columns(shard, k_whole)?,
        };
        let (k, chunks) = (columns.len(), chunks_held(arrangement));
        let (k_words, rows) = packed_shape(arrangement, format, n, k);
        let mut words = Words::zeroed(rows * k_words)?;
        fill(&mut words, parts, arrangement, &columns, k_words, pool)?;
        Ok(Self { arrangement, format, n, k, chunks, k_words, words: PackedWords::Own(words) })
    }

    /// Its form is its fields, in the order of [`Matrix::from_image`].
    pub(super) fn image(&self) -> MatrixImage<'_> {
        let codes = [self.arrangement.code(), self.format.code()];
        let sizes = [self.n, self.k, self.k_words].map(|size| size as u64);
        MatrixImage { form: codes.into_iter().chain(sizes).collect(), sections: vec![self.words.as_bytes()] }
    }

    pub(super) fn from_image(image: MappedImage<'_>) -> Result<Self, KernelError> {
        let invalid = || KernelError::Invalid {
            op: "matrix_from_image",
            what: format!("form {:?} with {} sections is no matrix", image.form, image.sections.len()),
        };
        let ([arrangement, format, n, k, k_words], [section]) = (image.form, image.sections) else {
            return Err(invalid());
        };
        let arrangement = Arrangement::of_code(*arrangement).ok_or_else(invalid)?;
        let format = WordFormat::of_code(*format).ok_or_else(invalid)?;
        let size = |size: u64| usize::try_from(size).ok().filter(|size| (1..=SIZE_MAX).contains(size));
        let (n, k) = (size(*n).ok_or_else(invalid)?, size(*k).ok_or_else(invalid)?);
        let is_cut_well = !matches!(arrangement, Arrangement::Partial(_)) || k.is_multiple_of(K_STEP);
        let (k_words_expected, rows) = packed_shape(arrangement, format, n, k);
        if *k_words != k_words_expected as u64 || !is_cut_well {
            return Err(invalid());
        }
        let words = PackedWords::mapped(image.file, section, rows.saturating_mul(k_words_expected))?;
        let chunks = chunks_held(arrangement);
        Ok(Self { arrangement, format, n, k, chunks, k_words: k_words_expected, words })
    }

    /// Widens row `n` into `out`, which has `k` values.
    pub(super) fn read_row(&self, n: usize, out: &mut [f32]) {
        self.for_row(n, out, |place, value| *place = value);
    }

    /// Adds row `n` to `out`, which has `k` values.
    pub(super) fn add_row(&self, n: usize, out: &mut [f32]) {
        self.for_row(n, out, |place, value| *place += value);
    }

    /// Calls `put` with each place of `out` and its value of row `n`.
    fn for_row(&self, n: usize, out: &mut [f32], put: impl Fn(&mut f32, f32)) {
        let words = self.words.as_slice();
        let (first, stride) = match self.arrangement {
            Arrangement::Table => (n * self.k_words, 1),
            Arrangement::Stacked | Arrangement::GateUp | Arrangement::Partial(_) => {
                (n / BLOCK_COLUMNS * BLOCK_COLUMNS * self.k_words + n % BLOCK_COLUMNS, BLOCK_COLUMNS)
            }
        };
        match self.format {
            WordFormat::Bf16Pairs => {
                for (p, pair) in out.chunks_mut(2).enumerate() {
                    let word = words[first + p * stride];
                    put(&mut pair[0], f32::from_bits(word << 16));
                    if let Some(odd) = pair.get_mut(1) {
                        put(odd, f32::from_bits(word & 0xffff_0000));
                    }
                }
            }
            WordFormat::F32 => {
                for (p, value) in out.iter_mut().enumerate() {
                    put(value, f32::from_bits(words[first + p * stride]));
                }
            }
        }
    }
}

/// How many of the eight chunks of `k` a matrix has.
fn chunks_held(arrangement: Arrangement) -> usize {
    match arrangement {
        Arrangement::Stacked | Arrangement::GateUp | Arrangement::Table => K_CHUNKS,
        Arrangement::Partial(shard) => K_CHUNKS / shard.of,
    }
}

/// (words of a row along `k`, rows with padding) of a packed matrix.
fn packed_shape(arrangement: Arrangement, format: WordFormat, n: usize, k: usize) -> (usize, usize) {
    match arrangement {
        Arrangement::Table => (k.div_ceil(format.per_word()), n),
        Arrangement::Stacked | Arrangement::Partial(_) => {
            (k_padded(k) / format.per_word(), n.next_multiple_of(BLOCK_COLUMNS))
        }
        Arrangement::GateUp => (k_padded(k) / format.per_word(), 2 * (n / 2).next_multiple_of(LANES)),
    }
}

/// Writes the `columns` of the rows of `parts` to their places.
fn fill(
    words: &mut Words,
    parts: &[MatrixSource<'_>],
    arrangement: Arrangement,
    columns: &Range<usize>,
    k_words: usize,
    pool: &Pool,
) -> Result<(), KernelError> {
    let n = parts.iter().map(|part| part.n).sum();
    let block_words = BLOCK_COLUMNS * k_words;
    let total = words.as_slice().len();
    let words = Shared::new(words.as_mut_slice());
    pool.run("matrix", total.div_ceil(block_words), &|block| {
        let first = block * block_words;
        // SAFETY: blocks do not overlap.
        let target = unsafe { words.part(first, block_words.min(total - first)) };
        for column in 0..BLOCK_COLUMNS {
            let Some((part, row)) = source_row(parts, arrangement, n, block, column) else { continue };
            let byte = |column: usize| (row * part.k + column) * part.dtype.bytes();
            let source = RowWords { bytes: &part.bytes[byte(columns.start)..byte(columns.end)], dtype: part.dtype };
            match arrangement {
                Arrangement::Table => source.write(&mut target[column * k_words..], 1),
                Arrangement::Stacked | Arrangement::GateUp | Arrangement::Partial(_) => {
                    source.write(&mut target[column..], BLOCK_COLUMNS);
                }
            }
        }
    })
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
        Arrangement::Stacked | Arrangement::Table | Arrangement::Partial(_) => block * BLOCK_COLUMNS + column,
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
