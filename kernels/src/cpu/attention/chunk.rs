//! One chunk of keys for one group of query rows: scores, weights, weighted values.

use std::mem::MaybeUninit;

use super::tile::QueryTile;
use crate::cpu::gemm::{Ahead, TILE_ROWS_MAX, accumulate};
use crate::cpu::lanes::{Format, Lanes};
use crate::numerics::{ATTENTION_CHUNK, LANES};
use crate::{HEAD_DIM_MAX, KvPart};

/// The part of a chunk that some row of a group sees, widened to whole vectors of 16 positions where it begins.
pub(super) struct Chunk {
    /// Absolute position of the chunk.
    start: usize,
    /// First and one past the last position that is looked at, relative to the chunk.
    from: usize,
    to: usize,
}

impl Chunk {
    /// `None` if no row sees a position of the chunk.
    pub(super) fn new(chunk: usize, first_visible: usize, last_visible: usize) -> Option<Self> {
        let start = chunk * ATTENTION_CHUNK;
        let from = first_visible.saturating_sub(start) / LANES * LANES;
        let to = (last_visible + 1).saturating_sub(start).min(ATTENTION_CHUNK);
        (from < to).then_some(Self { start, from, to })
    }

    /// The 16-position vectors of the chunk.
    fn vectors(&self) -> impl Iterator<Item = usize> + use<> {
        (self.from..self.to).step_by(LANES)
    }
}

/// What one group of rows needs for one chunk. Nothing is read before the chunk has written it.
pub(super) struct Scratch {
    scores: [[MaybeUninit<f32>; ATTENTION_CHUNK]; TILE_ROWS_MAX],
    weights: [[MaybeUninit<u32>; ATTENTION_CHUNK]; TILE_ROWS_MAX],
    values: [[MaybeUninit<f32>; HEAD_DIM_MAX]; TILE_ROWS_MAX],
    /// Maximum and sum of every row; no maximum where a row sees nothing of the chunk.
    totals: [(f32, f32); TILE_ROWS_MAX],
}

impl Scratch {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self {
            scores: [[const { MaybeUninit::uninit() }; ATTENTION_CHUNK]; TILE_ROWS_MAX],
            weights: [[const { MaybeUninit::uninit() }; ATTENTION_CHUNK]; TILE_ROWS_MAX],
            values: [[const { MaybeUninit::uninit() }; HEAD_DIM_MAX]; TILE_ROWS_MAX],
            totals: [(f32::NEG_INFINITY, 0.0); TILE_ROWS_MAX],
        }
    }

    /// Maximum and sum of row `r`; `None` if it sees nothing of the chunk.
    pub(super) fn row(&self, r: usize) -> Option<(f32, f32)> {
        let total = self.totals[r];
        (total.0 != f32::NEG_INFINITY).then_some(total)
    }

    /// Weighted values of row `r`.
    pub(super) fn values(&self, r: usize) -> *const f32 {
        self.values[r].as_ptr().cast()
    }
}

/// Calls a kernel with the number of rows as a constant.
macro_rules! with_rows {
    ($rows:expr, $function:ident::<$format:ty>($($argument:expr),*)) => {
        if <$format>::VECTORS == 2 {
            match $rows {
                1 => $function::<$format, 1, 2>($($argument),*),
                2 => $function::<$format, 2, 2>($($argument),*),
                3 => $function::<$format, 3, 2>($($argument),*),
                4 => $function::<$format, 4, 2>($($argument),*),
                5 => $function::<$format, 5, 2>($($argument),*),
                6 => $function::<$format, 6, 2>($($argument),*),
                7 => $function::<$format, 7, 2>($($argument),*),
                8 => $function::<$format, 8, 2>($($argument),*),
                9 => $function::<$format, 9, 2>($($argument),*),
                10 => $function::<$format, 10, 2>($($argument),*),
                11 => $function::<$format, 11, 2>($($argument),*),
                _ => $function::<$format, 12, 2>($($argument),*),
            }
        } else {
            match $rows {
                1 => $function::<$format, 1, 1>($($argument),*),
                2 => $function::<$format, 2, 1>($($argument),*),
                3 => $function::<$format, 3, 1>($($argument),*),
                _ => $function::<$format, 4, 1>($($argument),*),
            }
        }
    };
}

/// `scores[r][i] = (query r · key i) * scale` for the positions of the chunk.
#[inline(always)]
pub(super) unsafe fn score<F: Format>(
    tile: &QueryTile<'_>,
    chunk: &Chunk,
    queries: *const u32,
    rows: usize,
    scratch: &mut Scratch,
) {
    // SAFETY: the caller has `rows` packed queries; see `score_rows`.
    unsafe { with_rows!(rows, score_rows::<F>(tile, chunk, queries, scratch)) }
}

#[inline(always)]
unsafe fn score_rows<F: Format, const ROWS: usize, const VECTORS: usize>(
    tile: &QueryTile<'_>,
    chunk: &Chunk,
    queries: *const u32,
    scratch: &mut Scratch,
) {
    let block_tokens = tile.kv.geometry().block_tokens;
    for first in chunk.vectors().step_by(VECTORS) {
        // Past the last vector the first one is read again and its scores are dropped.
        let exists = |v: usize| first + v * LANES < chunk.to;
        // While scores are computed, the values of the same positions are fetched.
        let ahead = Ahead::of_words(tile.stored(KvPart::Value, chunk.start + first, tile.head_dim / F::PER_WORD));
        // SAFETY: 16 positions from a multiple of 16 lie in one block, whose rows of keys are `block_tokens` words apart.
        unsafe {
            let keys = std::array::from_fn(|v| {
                let vector = if exists(v) { first + v * LANES } else { first };
                tile.stored(KvPart::Key, chunk.start + vector, 1)
            });
            let mut acc = [[F::Lanes::splat(0.0); VECTORS]; ROWS];
            let words = tile.head_dim / F::PER_WORD;
            accumulate::<F, ROWS, VECTORS, 1, ROWS>(&mut acc, queries, keys, block_tokens, words, ahead);
            let scale = F::Lanes::splat(tile.log2_scale);
            for (row, scores) in acc.iter().zip(&mut scratch.scores) {
                for (v, score) in row.iter().enumerate().filter(|(v, _)| exists(*v)) {
                    score.mul(scale).store(scores.as_mut_ptr().cast::<f32>().add(first + v * LANES));
                }
            }
        }
    }
}

/// `weights[r][i] = 2^(score − maximum)`, 0 where row `r` does not see position `i`, and their sums in 16 lanes.
#[inline(always)]
pub(super) unsafe fn softmax<F: Format>(
    chunk: &Chunk,
    rows: usize,
    visible: impl Fn(usize) -> (usize, usize),
    scratch: &mut Scratch,
) {
    for r in 0..rows {
        let (first, last) = visible(r);
        let scores = &mut scratch.scores[r];
        let weights = scratch.weights[r].as_mut_ptr().cast::<u32>();
        let end = chunk.to.next_multiple_of(LANES);
        let seen_from = first.saturating_sub(chunk.start).clamp(chunk.from, end);
        let seen_to = (last + 1).saturating_sub(chunk.start).clamp(seen_from, end);
        scores[chunk.from..seen_from].fill(MaybeUninit::new(f32::NEG_INFINITY));
        scores[seen_to..end].fill(MaybeUninit::new(f32::NEG_INFINITY));
        let scores = scores.as_ptr().cast::<f32>();
        // SAFETY: `score` wrote the vectors of the chunk; they lie inside the rows of the scratch, whose words have at
        // least as many places as values.
        unsafe {
            let mut maximum = F::Lanes::splat(f32::NEG_INFINITY);
            for i in chunk.vectors() {
                maximum = F::Lanes::load(scores.add(i)).max(maximum);
            }
            let maximum = maximum.tree_max();
            let mut sum = F::Lanes::splat(0.0);
            for i in chunk.vectors() {
                // A row that sees nothing of the chunk has weights 0, because other rows of its group go on.
                let weight = match maximum == f32::NEG_INFINITY {
                    true => F::Lanes::splat(0.0),
                    false => F::round(F::Lanes::load(scores.add(i)).sub(F::Lanes::splat(maximum)).exp2()),
                };
                F::store_words(weight, weights.add(i / F::PER_WORD));
                sum = sum.add(weight);
            }
            scratch.totals[r] = (maximum, sum.tree_sum());
        }
    }
}

/// `values[r] = Σ weights[r][i] · value i`, from the first position to the last.
#[inline(always)]
pub(super) unsafe fn weigh<F: Format>(tile: &QueryTile<'_>, chunk: &Chunk, rows: usize, scratch: &mut Scratch) {
    // SAFETY: see `weigh_rows`.
    unsafe { with_rows!(rows, weigh_rows::<F>(tile, chunk, scratch)) }
}

#[inline(always)]
unsafe fn weigh_rows<F: Format, const ROWS: usize, const VECTORS: usize>(
    tile: &QueryTile<'_>,
    chunk: &Chunk,
    scratch: &mut Scratch,
) {
    let block_tokens = tile.kv.geometry().block_tokens;
    for first_dim in (0..tile.head_dim).step_by(VECTORS * LANES) {
        // Past the last dimension the first vector is read again and its sums are dropped.
        let exists = |v: usize| first_dim + v * LANES < tile.head_dim;
        // SAFETY: the positions of one block are rows of `head_dim` words, one per `PER_WORD` tokens. Only words of
        // positions below `chunk.to` are read; the slot beside the last one was zeroed when that was stored.
        unsafe {
            let mut acc = [[F::Lanes::splat(0.0); VECTORS]; ROWS];
            let mut from = chunk.from;
            while from < chunk.to {
                let in_block = block_tokens - (chunk.start + from) % block_tokens;
                let to = chunk.to.min(from + in_block);
                let block = tile.stored(KvPart::Value, chunk.start + from, tile.head_dim / F::PER_WORD);
                let right = std::array::from_fn(|v| {
                    block.wrapping_add(if exists(v) { first_dim + v * LANES } else { first_dim })
                });
                let left = scratch.weights.as_ptr().cast::<u32>().add(from / F::PER_WORD);
                let words = (to - from).div_ceil(F::PER_WORD);
                let ahead = Ahead::of_words(next_keys::<F>(tile, chunk.start + from, first_dim));
                accumulate::<F, ROWS, VECTORS, ATTENTION_CHUNK, 1>(&mut acc, left, right, tile.head_dim, words, ahead);
                from = to;
            }
            for (row, values) in acc.iter().zip(&mut scratch.values) {
                for (v, sum) in row.iter().enumerate().filter(|(v, _)| exists(*v)) {
                    sum.store(values.as_mut_ptr().cast::<f32>().add(first_dim + v * LANES));
                }
            }
        }
    }
}

/// While values from `position` on are weighed, the keys one chunk later are fetched, a share with every step of `dim`.
/// In the last chunk that is the values themselves.
#[inline(always)]
fn next_keys<F: Format>(tile: &QueryTile<'_>, position: usize, dim: usize) -> *const u32 {
    let next = position + ATTENTION_CHUNK;
    if !tile.reaches(next) {
        return tile.stored(KvPart::Value, position, tile.head_dim / F::PER_WORD);
    }
    let block_tokens = tile.kv.geometry().block_tokens;
    tile.stored(KvPart::Key, next, 1).wrapping_add(dim * block_tokens / F::PER_WORD)
}
