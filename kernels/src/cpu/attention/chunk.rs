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

/// Where the keys and values of each vector of 16 positions of a chunk begin.
#[derive(Clone, Copy)]
pub(super) struct Places {
    keys: [*const u32; VECTORS_PER_CHUNK],
    values: [*const u32; VECTORS_PER_CHUNK],
}

const VECTORS_PER_CHUNK: usize = ATTENTION_CHUNK / LANES;

impl Places {
    /// Looks up the blocks of the chunk. A block holds whole vectors of positions.
    pub(super) fn new(tile: &QueryTile<'_>, chunk: &Chunk, per_word: usize) -> Self {
        let mut places = Self { keys: [std::ptr::null(); _], values: [std::ptr::null(); _] };
        let block_tokens = tile.kv.geometry().block_tokens;
        for i in chunk.vectors() {
            let position = chunk.start + i;
            let block = tile.table[position / block_tokens] as usize;
            let slot = position % block_tokens;
            let words = |part| tile.kv.tile_ptr(block, tile.layer, part, tile.kv_head).cast_const().cast::<u32>();
            places.keys[i / LANES] = words(KvPart::Key).wrapping_add(slot);
            places.values[i / LANES] = words(KvPart::Value).wrapping_add(slot / per_word * tile.head_dim);
        }
        places
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

/// `scores[r][i] = (query r · key i) * scale` for the positions of the chunk. Meanwhile its values are fetched.
#[inline(always)]
pub(super) unsafe fn score<F: Format>(
    tile: &QueryTile<'_>,
    chunk: &Chunk,
    places: &Places,
    queries: *const u32,
    rows: usize,
    scratch: &mut Scratch,
) {
    // SAFETY: the caller has `rows` packed queries; see `score_rows`.
    unsafe { with_rows!(rows, score_rows::<F>(tile, chunk, places, queries, scratch)) }
}

#[inline(always)]
unsafe fn score_rows<F: Format, const ROWS: usize, const VECTORS: usize>(
    tile: &QueryTile<'_>,
    chunk: &Chunk,
    places: &Places,
    queries: *const u32,
    scratch: &mut Scratch,
) {
    let block_tokens = tile.kv.geometry().block_tokens;
    for first in chunk.vectors().step_by(VECTORS) {
        // Past the last vector the first one is read again and its scores are dropped.
        let exists = |v: usize| first + v * LANES < chunk.to;
        let vector = |v: usize| if exists(v) { first / LANES + v } else { first / LANES };
        let ahead = Ahead { starts: [places.values[vector(0)], places.values[vector(VECTORS - 1)]], step: LANES };
        // SAFETY: 16 positions lie in one block, whose rows of keys are `block_tokens` words apart.
        unsafe {
            let keys = std::array::from_fn(|v| places.keys[vector(v)]);
            let mut acc = [[F::Lanes::splat(0.0); VECTORS]; ROWS];
            let words = tile.head_dim / F::PER_WORD;
            accumulate::<F, ROWS, VECTORS, 1, ROWS>(&mut acc, queries, keys, block_tokens, words, ahead);
            let scale = F::Lanes::splat(tile.log2_scale);
            for (row, scores) in acc.iter().zip(&mut scratch.scores) {
                for (v, score) in row.iter().enumerate() {
                    if exists(v) {
                        score.mul(scale).store(scores.as_mut_ptr().cast::<f32>().add(first + v * LANES));
                    }
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

/// `values[r] = Σ weights[r][i] · value i`, from the first position to the last. Meanwhile the keys of the next chunk,
/// if there is one, are fetched.
#[inline(always)]
pub(super) unsafe fn weigh<F: Format>(
    tile: &QueryTile<'_>,
    chunk: &Chunk,
    places: &Places,
    next: Option<&Places>,
    rows: usize,
    scratch: &mut Scratch,
) {
    // SAFETY: see `weigh_rows`.
    unsafe { with_rows!(rows, weigh_rows::<F>(tile, chunk, places, next, scratch)) }
}

#[inline(always)]
unsafe fn weigh_rows<F: Format, const ROWS: usize, const VECTORS: usize>(
    tile: &QueryTile<'_>,
    chunk: &Chunk,
    places: &Places,
    next: Option<&Places>,
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
            for i in chunk.vectors() {
                let values = places.values[i / LANES];
                let right = std::array::from_fn(|v| {
                    values.wrapping_add(if exists(v) { first_dim + v * LANES } else { first_dim })
                });
                let left = scratch.weights.as_ptr().cast::<u32>().add(i / F::PER_WORD);
                let words = (chunk.to - i).min(LANES).div_ceil(F::PER_WORD);
                // Two rows of keys with every word, which brings all rows once all dimensions are done.
                let key_row = |row: usize| match next {
                    Some(next) => next.keys[i / LANES].wrapping_add((first_dim / F::PER_WORD + row) * block_tokens),
                    None => values,
                };
                let ahead = Ahead { starts: [key_row(0), key_row(1)], step: 2 * block_tokens };
                accumulate::<F, ROWS, VECTORS, ATTENTION_CHUNK, 1>(&mut acc, left, right, tile.head_dim, words, ahead);
            }
            for (row, values) in acc.iter().zip(&mut scratch.values) {
                for (v, sum) in row.iter().enumerate() {
                    if exists(v) {
                        sum.store(values.as_mut_ptr().cast::<f32>().add(first_dim + v * LANES));
                    }
                }
            }
        }
    }
}
