//! One task: for the query rows of a tile, chunks of keys are computed and merged from left to right, or stored.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::cached::{Cached, FormatLanes, Places, Wide};
use super::chunk::{Chunk, ChunkState, NextChunk, Scratch, softmax};
use super::products::{GroupChunk, Products};
use crate::checks::first_visible;
use crate::cpu::lanes::Lanes;
use crate::numerics::{LANES, exp2};
use crate::{HEAD_DIM_MAX, KvView};

/// Most query rows (tokens times heads) of a task.
pub(super) const QUERY_ROWS_MAX: usize = 48;

/// Some tokens of one sequence, and the query heads that share a KV head.
pub(in crate::cpu) struct QueryTile<'a> {
    pub(super) qkv: &'a [f32],
    pub(super) qkv_columns: usize,
    pub(super) first_row: usize,
    pub(super) tokens: usize,
    pub(super) first_position: usize,
    pub(super) first_head: usize,
    pub(super) heads: usize,
    pub(super) head_dim: usize,
    /// Scale of scores in units of log2.
    pub(super) log2_scale: f32,
    pub(super) sliding_window: Option<u32>,
    pub(super) table: &'a [u32],
    pub(super) kv: &'a KvView,
    pub(super) layer: usize,
    pub(super) kv_head: usize,
    /// First chunk of the tile that some row sees.
    pub(super) first_chunk: usize,
    pub(super) chunks: Range<usize>,
    pub(super) keep: Keep,
    pub(super) out: *mut f32,
    pub(super) out_columns: usize,
}

/// Use of the states of chunks.
#[derive(Clone, Copy)]
pub(super) enum Keep {
    /// States are merged at once; the task has all chunks of its tile.
    Merged,
    /// States are stored, `[chunk][row]` from the tile's first chunk on.
    Each(*mut f32),
}

/// Size of the state of one row and chunk: weighted values, maximum, sum, and room up to a whole vector.
pub(super) const fn state_values(head_dim: usize) -> usize {
    head_dim + LANES
}

impl QueryTile<'_> {
    /// Number of query rows; row `i` is token `i / heads`, head `i % heads`.
    fn rows(&self) -> usize {
        self.tokens * self.heads
    }

    /// First and last visible position of query row `i`.
    fn visible(&self, i: usize) -> (usize, usize) {
        let position = self.first_position + i / self.heads;
        (first_visible(position, self.sliding_window), position)
    }

    fn query(&self, i: usize) -> &[f32] {
        let row = &self.qkv[(self.first_row + i / self.heads) * self.qkv_columns..];
        &row[(self.first_head + i % self.heads) * self.head_dim..][..self.head_dim]
    }

    fn state(&self, states: *mut f32, chunk: usize, i: usize) -> *mut f32 {
        states.wrapping_add(((chunk - self.first_chunk) * self.rows() + i) * state_values(self.head_dim))
    }
}

/// Maximum and sum of one query row over the chunks so far; `None` before the first with a visible key.
type Total = Option<(f32, f32)>;

#[repr(align(64))]
struct Queries([MaybeUninit<u32>; QUERY_ROWS_MAX * HEAD_DIM_MAX]);

/// Weighted values of all query rows, `[row][dim]`.
type Values = [MaybeUninit<f32>; QUERY_ROWS_MAX * HEAD_DIM_MAX];

/// Computes the task.
///
/// # Safety
/// The rows, heads, layer and every visible position's block exist; nobody else writes the tile's part of `out` or the
/// states of these chunks; the visible positions have been stored; the level's instructions exist.
#[inline(always)]
pub(in crate::cpu) unsafe fn attend<C: Cached, P: Products<C>>(tile: &QueryTile<'_>) {
    let mut queries = Queries([const { MaybeUninit::uninit() }; QUERY_ROWS_MAX * HEAD_DIM_MAX]);
    let mut values: Values = [const { MaybeUninit::uninit() }; QUERY_ROWS_MAX * HEAD_DIM_MAX];
    let mut totals: [Total; QUERY_ROWS_MAX] = [None; QUERY_ROWS_MAX];
    let (mut scratch, mut wide_keys, mut wide_values) = (Scratch::new(), Wide::new(), Wide::new());
    // SAFETY: `pack_queries` writes all words that the chunks read; a row's values are written together with its first
    // total, before any merge or the end reads them; the rest is the caller's promise.
    unsafe {
        pack_queries::<C, P>(tile, &mut queries);
        let mut products = P::new();
        let (first, last) = (tile.visible(0).0, tile.visible(tile.rows() - 1).1);
        let span = |chunk| Chunk::new(chunk, first, last).filter(|_| tile.chunks.contains(&chunk));
        let places = |chunk| span(chunk).map(|span| Places::new(tile, &span));
        let mut next = places(tile.chunks.start);
        for chunk in tile.chunks.clone() {
            let (Some(here), Some(all)) = (next, span(chunk)) else { break };
            next = places(chunk + 1);
            let keys = C::keys(tile, &all, &here, &mut wide_keys);
            let mut stored_values = None;
            for group in (0..tile.rows()).step_by(P::ROWS_MAX) {
                let rows = P::ROWS_MAX.min(tile.rows() - group);
                let visible = |i: usize| tile.visible(group + i);
                scratch.forget();
                if let Some(span) = Chunk::new(chunk, visible(0).0, visible(rows - 1).1) {
                    let query_words = queries.0.as_ptr().cast::<u32>().add(group * P::query_words(tile.head_dim));
                    let next = next.as_ref().map(|next| NextChunk::new::<C>(next));
                    let part = GroupChunk { tile, chunk: &span, places: &here, rows, next };
                    products.score(part, query_words, &keys, &mut scratch);
                    softmax::<C, P>(part, visible, &mut scratch);
                    // Only after the first scores, which fetch the values.
                    let words = match stored_values {
                        Some(words) => words,
                        None => C::values(tile, &all, &here, &mut wide_values),
                    };
                    stored_values = Some(words);
                    products.weigh(part, &words, &mut scratch);
                }
                for r in 0..rows {
                    let (i, state) = (group + r, scratch.state(r));
                    match tile.keep {
                        Keep::Merged => {
                            let target = values.as_mut_ptr().cast::<f32>().add(i * tile.head_dim);
                            merge::<FormatLanes<C>>(tile.head_dim, state, &mut totals[i], target);
                        }
                        Keep::Each(states) => {
                            store_state::<FormatLanes<C>>(tile.head_dim, state, tile.state(states, chunk, i));
                        }
                    }
                }
            }
        }
        if let Keep::Each(_) = tile.keep {
            return;
        }
        for (i, total) in totals.iter().enumerate().take(tile.rows()) {
            let from = values.as_ptr().cast::<f32>().add(i * tile.head_dim);
            write_out::<FormatLanes<C>>(tile, i, *total, from);
        }
    }
}

/// Merges the stored states of all chunks of a cut tile.
///
/// # Safety
/// As for `attend`, and the states of all `chunks` have been stored.
#[inline(always)]
pub(in crate::cpu) unsafe fn join<L: Lanes>(tile: &QueryTile<'_>) {
    let Keep::Each(states) = tile.keep else { return };
    let mut values = [const { MaybeUninit::<f32>::uninit() }; HEAD_DIM_MAX];
    let values = values.as_mut_ptr().cast::<f32>();
    for i in 0..tile.rows() {
        let mut total = None;
        for chunk in tile.chunks.clone() {
            let stored = tile.state(states, chunk, i);
            // SAFETY: the state was stored; the first one that is not empty writes all values.
            unsafe {
                let maximum = stored.add(tile.head_dim).read();
                let state = ChunkState { maximum, sum: stored.add(tile.head_dim + 1).read(), values: stored };
                merge::<L>(tile.head_dim, state, &mut total, values);
            }
        }
        // SAFETY: the caller's promise; a total comes with values.
        unsafe { write_out::<L>(tile, i, total, values) };
    }
}

#[inline(always)]
unsafe fn pack_queries<C: Cached, P: Products<C>>(tile: &QueryTile<'_>, queries: &mut Queries) {
    let words_per_row = P::query_words(tile.head_dim);
    for group in (0..tile.rows()).step_by(P::ROWS_MAX) {
        let count = P::ROWS_MAX.min(tile.rows() - group);
        let target = &mut queries.0[group * words_per_row..][..count * words_per_row];
        target.fill(MaybeUninit::new(0));
        // SAFETY: the words were just initialised, and the level's instructions exist.
        unsafe {
            let target = std::slice::from_raw_parts_mut(target.as_mut_ptr().cast(), target.len());
            P::pack_queries(|r| tile.query(group + r), count, target);
        }
    }
}

/// Merges a new chunk into a row's total at their common maximum. The first chunk is copied; a chunk without a visible
/// key is skipped.
#[inline(always)]
unsafe fn merge<L: Lanes>(head_dim: usize, state: ChunkState, total: &mut Total, values: *mut f32) {
    if state.maximum == f32::NEG_INFINITY {
        return;
    }
    // SAFETY: both hold `head_dim` values, a multiple of 16.
    unsafe {
        let Some((maximum, sum)) = *total else {
            *total = Some((state.maximum, state.sum));
            std::ptr::copy_nonoverlapping(state.values, values, head_dim);
            return;
        };
        let common = if maximum > state.maximum { maximum } else { state.maximum };
        let (a, b) = (exp2(maximum - common), exp2(state.maximum - common));
        *total = Some((common, sum.mul_add(a, state.sum * b)));
        for dim in (0..head_dim).step_by(LANES) {
            let new = L::load(state.values.add(dim)).mul(L::splat(b));
            L::load(values.add(dim)).mul_add(L::splat(a), new).store(values.add(dim));
        }
    }
}

/// Stores the state of a chunk for `join`; without a visible key, values are left as they are.
#[inline(always)]
unsafe fn store_state<L: Lanes>(head_dim: usize, state: ChunkState, to: *mut f32) {
    // SAFETY: a stored state has room for `head_dim` values, the maximum and the sum.
    unsafe {
        to.add(head_dim).write(state.maximum);
        to.add(head_dim + 1).write(state.sum);
        if state.maximum == f32::NEG_INFINITY {
            return;
        }
        for dim in (0..head_dim).step_by(LANES) {
            L::load(state.values.add(dim)).store(to.add(dim));
        }
    }
}

#[inline(always)]
unsafe fn write_out<L: Lanes>(tile: &QueryTile<'_>, i: usize, total: Total, values: *const f32) {
    let (token, head) = (i / tile.heads, i % tile.heads);
    // SAFETY: the row and the head lie inside `out`, as the caller of `attend` promises; a total comes with values.
    unsafe {
        let row = tile.out.add((tile.first_row + token) * tile.out_columns);
        let target = row.add((tile.first_head + head) * tile.head_dim);
        for dim in (0..tile.head_dim).step_by(LANES) {
            // A row sees its own position, so without a total no score was a number: the result is NaN.
            let result = match total {
                Some((_, sum)) => L::load(values.add(dim)).div(L::splat(sum)),
                None => L::splat(f32::NAN),
            };
            result.store(target.add(dim));
        }
    }
}
