//! Weights packed for the register tile: `[n / 32][k / words][32]` words, zero-padded; or plain rows for `embed`.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::gemm::{BLOCK_COLUMNS, INT8_PER_WORD, Part, int8_chunk_words};
use super::packed::PackedWords;
use super::quantize;
use super::words::{Shared, Words};
use crate::checks::weights;
use crate::finite::first_not_finite;
use crate::numerics::{K_STEP, LANES, k_padded};
use crate::pool::PoolLane;
use crate::{Arrangement, Dtype, KernelError, MappedImage, MatrixImage, MatrixShape, MatrixSize, MatrixSource, widen};

/// Bound on rows and columns: any real matrix is smaller, and sizes in bytes do not overflow.
const SIZE_MAX: usize = 1 << 30;

/// Content of a word of a packed matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WordFormat {
    /// Two bf16 that are neighbours along `k`.
    Bf16Pairs,
    /// One f32.
    F32,
    /// Four int8 that are neighbours along `k` within one chunk, as bytes `w + 128`.
    Int8Quads,
}

impl WordFormat {
    fn of(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Bf16 => WordFormat::Bf16Pairs,
            Dtype::F16 | Dtype::F32 => WordFormat::F32,
        }
    }

    /// Words of a row of `k` columns, as the register tile reads it.
    fn row_words(self, k: usize, chunks: usize) -> usize {
        match self {
            WordFormat::Bf16Pairs => k_padded(k) / 2,
            WordFormat::F32 => k_padded(k),
            WordFormat::Int8Quads => chunks * int8_chunk_words(k, chunks),
        }
    }

    fn table_row_words(self, k: usize) -> usize {
        match self {
            WordFormat::Bf16Pairs => k.div_ceil(2),
            WordFormat::F32 => k,
            WordFormat::Int8Quads => k.div_ceil(INT8_PER_WORD),
        }
    }

    fn code(self) -> u64 {
        match self {
            WordFormat::Bf16Pairs => 1,
            WordFormat::F32 => 2,
            WordFormat::Int8Quads => 3,
        }
    }

    fn of_code(code: u64) -> Option<Self> {
        let all = [WordFormat::Bf16Pairs, WordFormat::F32, WordFormat::Int8Quads];
        all.into_iter().find(|format| format.code() == code)
    }
}

/// A matrix prepared for the CPU.
pub struct Matrix {
    pub(super) arrangement: Arrangement,
    pub(super) format: WordFormat,
    pub(super) n: usize,
    pub(super) k: usize,
    /// Words of a row, with padding except in a table.
    pub(super) k_words: usize,
    pub(super) words: PackedWords,
    /// Scale of each packed row, in int8 only.
    scales: Option<PackedWords>,
}

impl Matrix {
    pub(super) fn new(
        parts: &[MatrixSource<'_>],
        arrangement: Arrangement,
        pool: &PoolLane,
    ) -> Result<Self, KernelError> {
        let (dtype, n, columns) = weights::matrix(parts, arrangement, |part| not_finite(part, pool))?;
        let (format, k) = (WordFormat::of(dtype), columns.len());
        let (k_words, rows) = packed_shape(arrangement, format, n, k);
        let mut words = Words::zeroed(rows * k_words)?;
        fill(&mut words, parts, arrangement, &columns, k_words, pool)?;
        Ok(Self { arrangement, format, n, k, k_words, words: PackedWords::Own(words), scales: None })
    }

    pub(super) fn int8(
        parts: &[MatrixSource<'_>],
        arrangement: Arrangement,
        pool: &PoolLane,
    ) -> Result<Self, KernelError> {
        weights::int8_matrix(parts, arrangement)?;
        let (_, n, columns) = weights::matrix(parts, arrangement, |part| not_finite(part, pool))?;
        let (format, k, chunks) = (WordFormat::Int8Quads, columns.len(), arrangement.chunks());
        let (k_words, rows) = packed_shape(arrangement, format, n, k);
        let (mut words, mut scales) = (Words::zeroed(rows * k_words)?, Words::zeroed(rows)?);
        let source = |block, column| source_row(parts, arrangement, n, block, column);
        quantize::fill(&mut words, &mut scales, &source, &quantize::Cut { columns, chunks }, pool)?;
        let (words, scales) = (PackedWords::Own(words), Some(PackedWords::Own(scales)));
        Ok(Self { arrangement, format, n, k, k_words, words, scales })
    }

    /// The weights, for a product with `rows` rows.
    pub(super) fn part(&self, rows: usize) -> Part<'_> {
        Part { rows, right: self.words.as_slice(), scales: self.scales.as_ref().map(PackedWords::as_f32) }
    }

    /// The form lists the fields in the order in which [`Matrix::from_image`] reads them.
    pub(super) fn image(&self) -> MatrixImage<'_> {
        let codes = [self.arrangement.code(), self.format.code()];
        let sizes = [self.n, self.k, self.k_words].map(|size| size as u64);
        let sections = [Some(&self.words), self.scales.as_ref()].into_iter().flatten().map(PackedWords::as_bytes);
        MatrixImage { form: codes.into_iter().chain(sizes).collect(), sections: sections.collect() }
    }

    pub(super) fn from_image(image: MappedImage<'_>) -> Result<Self, KernelError> {
        let invalid = || KernelError::Invalid {
            op: "matrix_from_image",
            what: format!("form {:?} with {} sections is no matrix", image.form, image.sections.len()),
        };
        let ([arrangement, format, n, k, k_words], [section, scales @ ..]) = (image.form, image.sections) else {
            return Err(invalid());
        };
        let arrangement = Arrangement::of_code(*arrangement).ok_or_else(invalid)?;
        let format = WordFormat::of_code(*format).ok_or_else(invalid)?;
        let scales = match (format, scales) {
            (WordFormat::Bf16Pairs | WordFormat::F32, []) => None,
            (WordFormat::Int8Quads, [scales]) if arrangement != Arrangement::Table => Some(scales),
            (WordFormat::Bf16Pairs | WordFormat::F32 | WordFormat::Int8Quads, _) => return Err(invalid()),
        };
        let size = |size: u64| usize::try_from(size).ok().filter(|size| (1..=SIZE_MAX).contains(size));
        let (n, k) = (size(*n).ok_or_else(invalid)?, size(*k).ok_or_else(invalid)?);
        let is_cut_well = !matches!(arrangement, Arrangement::Partial(_)) || k.is_multiple_of(K_STEP);
        let (k_words_expected, rows) = packed_shape(arrangement, format, n, k);
        if *k_words != k_words_expected as u64 || !is_cut_well {
            return Err(invalid());
        }
        let words = PackedWords::mapped(image.file, section, rows.saturating_mul(k_words_expected))?;
        let scales = scales.map(|scales| PackedWords::mapped(image.file, scales, rows)).transpose()?;
        Ok(Self { arrangement, format, n, k, k_words: k_words_expected, words, scales })
    }

    pub(super) fn read_row(&self, n: usize, out: &mut [f32]) {
        self.for_row(n, out, |place, value| *place = value);
    }

    pub(super) fn add_row(&self, n: usize, out: &mut [f32]) {
        self.for_row(n, out, |place, value| *place += value);
    }

    /// Calls `put` with each of the `k` places of `out` and its value of row `n`.
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
            WordFormat::Int8Quads => {
                let cut = quantize::Cut { columns: 0..self.k, chunks: self.arrangement.chunks() };
                let scale = self.scales.as_ref().map_or(0.0, |scales| scales.as_f32()[n]);
                for (i, place) in out.iter_mut().enumerate() {
                    let (word, byte) = cut.place(i);
                    let q = quantize::stored(words[first + word * stride].to_le_bytes()[byte]);
                    put(place, f32::from(q) * scale);
                }
            }
        }
    }
}

impl MatrixSize for Matrix {
    fn shape(&self) -> MatrixShape {
        MatrixShape { n: self.n, k: self.k, arrangement: self.arrangement }
    }
}

/// Size of a packed matrix: (words of a row, rows with padding).
fn packed_shape(arrangement: Arrangement, format: WordFormat, n: usize, k: usize) -> (usize, usize) {
    let row_words = format.row_words(k, arrangement.chunks());
    match arrangement {
        Arrangement::Table => (format.table_row_words(k), n),
        Arrangement::Stacked | Arrangement::Partial(_) => (row_words, n.next_multiple_of(BLOCK_COLUMNS)),
        Arrangement::GateUp => (row_words, 2 * (n / 2).next_multiple_of(LANES)),
    }
}

fn fill(
    words: &mut Words,
    parts: &[MatrixSource<'_>],
    arrangement: Arrangement,
    columns: &Range<usize>,
    k_words: usize,
    pool: &PoolLane,
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

/// Index of the first element of a part that is not finite; all threads search.
fn not_finite(part: &MatrixSource<'_>, pool: &PoolLane) -> Result<Option<usize>, KernelError> {
    const TASK_BYTES: usize = 1 << 20;
    let task_elements = TASK_BYTES / part.dtype.bytes();
    let first = AtomicUsize::new(usize::MAX);
    pool.run("matrix", part.bytes.len().div_ceil(TASK_BYTES), &|task| {
        let end = ((task + 1) * TASK_BYTES).min(part.bytes.len());
        if let Some(element) = first_not_finite(&part.bytes[task * TASK_BYTES..end], part.dtype) {
            first.fetch_min(task * task_elements + element, Ordering::Relaxed);
        }
    })?;
    Ok(Some(first.into_inner()).filter(|element| *element != usize::MAX))
}

/// Source row of column `column` of block `block`; `None` for padding.
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
