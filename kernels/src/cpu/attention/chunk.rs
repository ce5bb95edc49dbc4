//! One chunk of keys and values for one group of query rows: scores, weights, weighted values.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::ahead::{Ahead, fetch};
use super::cached::{Cached, FormatLanes, Places, Words};
use super::products::{GroupChunk, Products};
use super::tile::QueryTile;
use crate::HEAD_DIM_MAX;
use crate::cpu::gemm::accumulate;
use crate::cpu::lanes::{Format, Lanes};
use crate::numerics::{ATTENTION_CHUNK, LANES};

/// The part of a chunk that some row of a group sees; it begins with a whole vector of 16 positions.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Chunk {
    /// Absolute position at which the chunk begins.
    pub(super) start: usize,
    /// First and one past the last position used, relative to the chunk.
    from: usize,
    pub(super) to: usize,
}

impl Chunk {
    /// `None` if no row sees a position of the chunk.
    pub(super) fn new(chunk: usize, first_visible: usize, last_visible: usize) -> Option<Self> {
        let start = chunk * ATTENTION_CHUNK;
        let from = first_visible.saturating_sub(start) / LANES * LANES;
        let to = (last_visible + 1).saturating_sub(start).min(ATTENTION_CHUNK);
        (from < to).then_some(Self { start, from, to })
    }

    /// Indices of the first and the last vector.
    pub(super) fn vector_range(&self) -> (usize, usize) {
        (self.from / LANES, (self.to - 1) / LANES)
    }

    /// First positions of the vectors.
    pub(super) fn vectors(&self) -> impl Iterator<Item = usize> + use<> {
        (self.from..self.to).step_by(LANES)
    }
}

pub(super) const VECTORS_PER_CHUNK: usize = ATTENTION_CHUNK / LANES;

/// The next chunk of a task, which is fetched while the current one is computed.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct NextChunk<'a> {
    places: &'a Places,
    keys_row_bytes: usize,
}

impl<'a> NextChunk<'a> {
    pub(super) fn new<C: Cached>(places: &'a Places) -> Self {
        Self { places, keys_row_bytes: LANES * C::WORD_BYTES }
    }

    pub(super) fn fetch_keys(self, vector: usize, rows: Range<usize>) {
        rows.for_each(|row| fetch(self.keys_row(vector, row)));
    }

    pub(super) fn fetch_values(self, vector: usize, lines: Range<usize>) {
        lines.for_each(|line| fetch(self.places.values[vector].wrapping_add(line * 64)));
    }

    /// Memory to fetch with the weighted values from `first_dim` on: two rows of keys with each word, which makes all
    /// rows.
    fn keys_with_values<C: Cached>(self, vector: usize, first_dim: usize) -> Ahead {
        let first = first_dim / C::Format::PER_WORD;
        Ahead { starts: [0, 1].map(|row| self.keys_row(vector, first + row)), step: 2 * self.keys_row_bytes }
    }

    fn keys_row(self, vector: usize, row: usize) -> *const u8 {
        self.places.keys[vector].wrapping_add(row * self.keys_row_bytes)
    }
}

/// Maximum, sum and weighted values of one row and chunk. The maximum is −∞ if the row sees nothing of the chunk.
#[derive(Clone, Copy)]
pub(super) struct ChunkState {
    pub(super) maximum: f32,
    pub(super) sum: f32,
    pub(super) values: *const f32,
}

pub(super) const GROUP_ROWS_MAX: usize = 16;

/// Scratch memory of a group of rows for one chunk. Nothing is read before the chunk has written it.
#[repr(align(64))]
pub(in crate::cpu) struct Scratch {
    pub(super) scores: [[MaybeUninit<f32>; ATTENTION_CHUNK]; GROUP_ROWS_MAX],
    pub(super) weights: [[MaybeUninit<u32>; ATTENTION_CHUNK]; GROUP_ROWS_MAX],
    pub(super) values: [[MaybeUninit<f32>; HEAD_DIM_MAX]; GROUP_ROWS_MAX],
    totals: [(f32, f32); GROUP_ROWS_MAX],
}

impl Scratch {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self {
            scores: [[const { MaybeUninit::uninit() }; ATTENTION_CHUNK]; GROUP_ROWS_MAX],
            weights: [[const { MaybeUninit::uninit() }; ATTENTION_CHUNK]; GROUP_ROWS_MAX],
            values: [[const { MaybeUninit::uninit() }; HEAD_DIM_MAX]; GROUP_ROWS_MAX],
            totals: [(f32::NEG_INFINITY, 0.0); GROUP_ROWS_MAX],
        }
    }

    pub(super) fn forget(&mut self) {
        self.totals = [(f32::NEG_INFINITY, 0.0); GROUP_ROWS_MAX];
    }

    pub(super) fn state(&self, r: usize) -> ChunkState {
        let (maximum, sum) = self.totals[r];
        ChunkState { maximum, sum, values: self.values[r].as_ptr().cast() }
    }
}

/// Calls a kernel with the number of rows as a constant.
macro_rules! with_rows {
    ($rows:expr, $function:ident::<$cached:ty>($($argument:expr),*)) => {
        if FormatLanes::<$cached>::VECTORS == 2 {
            match $rows {
                1 => $function::<$cached, 1, 2>($($argument),*),
                2 => $function::<$cached, 2, 2>($($argument),*),
                3 => $function::<$cached, 3, 2>($($argument),*),
                4 => $function::<$cached, 4, 2>($($argument),*),
                5 => $function::<$cached, 5, 2>($($argument),*),
                6 => $function::<$cached, 6, 2>($($argument),*),
                7 => $function::<$cached, 7, 2>($($argument),*),
                8 => $function::<$cached, 8, 2>($($argument),*),
                9 => $function::<$cached, 9, 2>($($argument),*),
                10 => $function::<$cached, 10, 2>($($argument),*),
                11 => $function::<$cached, 11, 2>($($argument),*),
                _ => $function::<$cached, 12, 2>($($argument),*),
            }
        } else {
            match $rows {
                1 => $function::<$cached, 1, 1>($($argument),*),
                2 => $function::<$cached, 2, 1>($($argument),*),
                3 => $function::<$cached, 3, 1>($($argument),*),
                _ => $function::<$cached, 4, 1>($($argument),*),
            }
        }
    };
}

/// As `Products::score`, in vector registers.
#[inline(always)]
pub(super) unsafe fn score<C: Cached>(group: GroupChunk<'_>, queries: *const u32, keys: &Words, scratch: &mut Scratch) {
    let GroupChunk { tile, chunk, places, rows, .. } = group;
    // SAFETY: the caller has `rows` packed queries; see `score_rows`.
    unsafe { with_rows!(rows, score_rows::<C>(tile, chunk, places, keys, queries, scratch)) }
}

#[inline(always)]
unsafe fn score_rows<C: Cached, const ROWS: usize, const VECTORS: usize>(
    tile: &QueryTile<'_>,
    chunk: &Chunk,
    places: &Places,
    keys: &Words,
    queries: *const u32,
    scratch: &mut Scratch,
) {
    for first in chunk.vectors().step_by(VECTORS) {
        // Past the last vector, the first vector is read again and its scores are dropped.
        let exists = |v: usize| first + v * LANES < chunk.to;
        let vector = |v: usize| if exists(v) { first / LANES + v } else { first / LANES };
        // The values of 16 positions have as many bytes as their keys: a row of 16 words per word of the head.
        let starts = [places.values[vector(0)], places.values[vector(VECTORS - 1)]];
        let ahead = Ahead { starts, step: LANES * C::WORD_BYTES };
        // SAFETY: the keys of 16 positions are `head_dim / PER_WORD` rows of 16 words.
        unsafe {
            let right = std::array::from_fn(|v| keys[vector(v)]);
            let mut acc = [[FormatLanes::<C>::splat(0.0); VECTORS]; ROWS];
            let words = tile.head_dim / C::Format::PER_WORD;
            accumulate::<C::Format, ROWS, VECTORS, 1, ROWS>(&mut acc, queries, right, LANES, words, ahead);
            for v in (0..VECTORS).filter(|v| exists(*v)) {
                let scale = C::score_scale(tile, places, vector(v));
                for (row, scores) in acc.iter().zip(&mut scratch.scores) {
                    row[v].mul(scale).store(scores.as_mut_ptr().cast::<f32>().add(first + v * LANES));
                }
            }
        }
    }
}

/// `weights[r][i] = 2^(score − maximum)`, 0 where row `r` does not see position `i`, and their sums in 16 lanes.
#[inline(always)]
pub(super) unsafe fn softmax<C: Cached, P: Products<C>>(
    group: GroupChunk<'_>,
    visible: impl Fn(usize) -> (usize, usize),
    scratch: &mut Scratch,
) {
    let GroupChunk { chunk, places, rows, .. } = group;
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
            let mut maximum = FormatLanes::<C>::splat(f32::NEG_INFINITY);
            for i in chunk.vectors() {
                P::fetch_with_weights(group, i / LANES, r);
                maximum = FormatLanes::<C>::load(scores.add(i)).max(maximum);
            }
            let maximum = maximum.tree_max();
            let mut sum = FormatLanes::<C>::splat(0.0);
            for i in chunk.vectors() {
                P::fetch_with_sums(group, i / LANES, r);
                // A row that sees nothing of the chunk gets weights 0, as other rows of its group see something.
                let weight = match maximum == f32::NEG_INFINITY {
                    true => FormatLanes::<C>::splat(0.0),
                    false => FormatLanes::<C>::load(scores.add(i)).sub(FormatLanes::<C>::splat(maximum)).exp2(),
                };
                let to = weights.add(i / C::Format::PER_WORD);
                sum = sum.add(C::store_weights(weight, places, i / LANES, to));
            }
            scratch.totals[r] = (maximum, sum.tree_sum());
        }
    }
}

/// As `Products::weigh`, in vector registers.
#[inline(always)]
pub(super) unsafe fn weigh<C: Cached>(group: GroupChunk<'_>, stored: &Words, scratch: &mut Scratch) {
    let GroupChunk { tile, chunk, rows, next, .. } = group;
    // SAFETY: see `weigh_rows`.
    unsafe { with_rows!(rows, weigh_rows::<C>(tile, chunk, stored, next, scratch)) }
}

#[inline(always)]
unsafe fn weigh_rows<C: Cached, const ROWS: usize, const VECTORS: usize>(
    tile: &QueryTile<'_>,
    chunk: &Chunk,
    stored: &Words,
    next: Option<NextChunk<'_>>,
    scratch: &mut Scratch,
) {
    let per_word = C::Format::PER_WORD;
    for first_dim in (0..tile.head_dim).step_by(VECTORS * LANES) {
        // Past the last dimension, the first vector is read again and its sums are dropped.
        let exists = |v: usize| first_dim + v * LANES < tile.head_dim;
        // SAFETY: the positions of one block are rows of `head_dim` words, one per `PER_WORD` tokens. Only words of
        // positions below `chunk.to` are read; the slot beside the last one was zeroed when that was stored.
        unsafe {
            let mut acc = [[FormatLanes::<C>::splat(0.0); VECTORS]; ROWS];
            for i in chunk.vectors() {
                let values = stored[i / LANES];
                let right = std::array::from_fn(|v| {
                    values.wrapping_add(if exists(v) { first_dim + v * LANES } else { first_dim })
                });
                let left = scratch.weights.as_ptr().cast::<u32>().add(i / per_word);
                let words = (chunk.to - i).min(LANES).div_ceil(per_word);
                let ahead = match next {
                    Some(next) => next.keys_with_values::<C>(i / LANES, first_dim),
                    None => Ahead { starts: [values.cast(); 2], step: 0 },
                };
                accumulate::<C::Format, ROWS, VECTORS, ATTENTION_CHUNK, 1>(
                    &mut acc,
                    left,
                    right,
                    tile.head_dim,
                    words,
                    ahead,
                );
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
