//! One task: the query rows of a tile walk the chunks of their keys and merge them from left to right.

use std::mem::MaybeUninit;

use super::chunk::{Chunk, Places, Scratch, score, softmax, weigh};
use crate::checks::first_visible;
use crate::cpu::gemm::pack;
use crate::cpu::lanes::{Format, Lanes};
use crate::numerics::{ATTENTION_CHUNK, LANES, exp2};
use crate::{HEAD_DIM_MAX, KvView};

/// Query rows (tokens times heads) of one task.
pub(in crate::cpu) const QUERY_ROWS_MAX: usize = 48;

/// Some tokens of one sequence and the query heads that read one KV head.
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
    /// Block table of the sequence.
    pub(super) table: &'a [u32],
    pub(super) kv: &'a KvView,
    pub(super) layer: usize,
    pub(super) kv_head: usize,
    pub(super) out: *mut f32,
    pub(super) out_columns: usize,
}

impl QueryTile<'_> {
    /// Query row `i` is token `i / heads`, head `i % heads`.
    fn rows(&self) -> usize {
        self.tokens * self.heads
    }

    /// First and last position that query row `i` sees.
    fn visible(&self, i: usize) -> (usize, usize) {
        let position = self.first_position + i / self.heads;
        (first_visible(position, self.sliding_window), position)
    }

    /// The values of query row `i`.
    fn query(&self, i: usize) -> &[f32] {
        let row = &self.qkv[(self.first_row + i / self.heads) * self.qkv_columns..];
        &row[(self.first_head + i % self.heads) * self.head_dim..][..self.head_dim]
    }
}

/// Maximum, sum and weighted values of one query row over the chunks so far.
struct RowState {
    maximum: f32,
    sum: f32,
    /// No chunk had a visible key yet.
    empty: bool,
}

/// Values of all query rows, `[row][dim]`.
type Values = [MaybeUninit<f32>; QUERY_ROWS_MAX * HEAD_DIM_MAX];

/// Computes the tile.
///
/// # Safety
/// The rows, heads, layer and every visible position's block exist; nobody else writes the tile's part of `out`; the
/// visible positions have been stored; the level's instructions exist.
#[inline(always)]
pub(in crate::cpu) unsafe fn attend<F: Format>(tile: &QueryTile<'_>) {
    let mut queries = [const { MaybeUninit::<u32>::uninit() }; QUERY_ROWS_MAX * HEAD_DIM_MAX];
    let mut values: Values = [const { MaybeUninit::uninit() }; QUERY_ROWS_MAX * HEAD_DIM_MAX];
    let mut states = [const { RowState { maximum: 0.0, sum: 0.0, empty: true } }; QUERY_ROWS_MAX];
    let mut scratch = Scratch::new();
    // SAFETY: `pack_queries` writes all words that the chunks read; a row's values are written by its first chunk
    // before any merge or the end reads them; the rest is the caller's promise.
    unsafe {
        pack_queries::<F>(tile, &mut queries);
        let (first, last) = (tile.visible(0).0, tile.visible(tile.rows() - 1).1);
        let places = |chunk| Chunk::new(chunk, first, last).map(|span| Places::new(tile, &span, F::PER_WORD));
        let mut next = places(first / ATTENTION_CHUNK);
        for chunk in first / ATTENTION_CHUNK.. {
            let Some(here) = next else { break };
            next = places(chunk + 1);
            for group in (0..tile.rows()).step_by(F::ROWS_MAX) {
                let rows = F::ROWS_MAX.min(tile.rows() - group);
                let visible = |i: usize| tile.visible(group + i);
                let Some(span) = Chunk::new(chunk, visible(0).0, visible(rows - 1).1) else { continue };
                let query_words = queries.as_ptr().cast::<u32>().add(group * tile.head_dim / F::PER_WORD);
                score::<F>(tile, &span, &here, query_words, rows, &mut scratch);
                softmax::<F>(&span, rows, visible, &mut scratch);
                weigh::<F>(tile, &span, &here, next.as_ref(), rows, &mut scratch);
                for r in 0..rows {
                    let target = values.as_mut_ptr().cast::<f32>().add((group + r) * tile.head_dim);
                    merge::<F::Lanes>(tile.head_dim, &scratch, r, &mut states[group + r], target);
                }
            }
        }
        for (i, state) in states.iter().enumerate().take(tile.rows()) {
            let from = values.as_ptr().cast::<f32>().add(i * tile.head_dim);
            write_out::<F::Lanes>(tile, i, state.sum, from);
        }
    }
}

/// Rounds the queries to words, `[word][row]` per group of tile rows.
#[inline(always)]
unsafe fn pack_queries<F: Format>(tile: &QueryTile<'_>, queries: &mut [MaybeUninit<u32>]) {
    let words_per_row = tile.head_dim / F::PER_WORD;
    for group in (0..tile.rows()).step_by(F::ROWS_MAX) {
        let count = F::ROWS_MAX.min(tile.rows() - group);
        let target = &mut queries[group * words_per_row..][..count * words_per_row];
        target.fill(MaybeUninit::new(0));
        // SAFETY: the words were just initialised, and the level's instructions exist.
        unsafe {
            let target = std::slice::from_raw_parts_mut(target.as_mut_ptr().cast(), target.len());
            pack::<F>(|r| tile.query(group + r), count, target);
        }
    }
}

/// Brings a row's state and its new chunk to their common maximum. The first chunk is copied.
#[inline(always)]
unsafe fn merge<L: Lanes>(head_dim: usize, scratch: &Scratch, r: usize, state: &mut RowState, values: *mut f32) {
    let Some((maximum, sum)) = scratch.row(r) else { return };
    let chunk_values = scratch.values(r);
    // SAFETY: both hold `head_dim` values, a multiple of 16.
    unsafe {
        if state.empty {
            *state = RowState { maximum, sum, empty: false };
            std::ptr::copy_nonoverlapping(chunk_values, values, head_dim);
            return;
        }
        let common = if state.maximum > maximum { state.maximum } else { maximum };
        let (a, b) = (exp2(state.maximum - common), exp2(maximum - common));
        state.sum = state.sum.mul_add(a, sum * b);
        state.maximum = common;
        for dim in (0..head_dim).step_by(LANES) {
            let new = L::load(chunk_values.add(dim)).mul(L::splat(b));
            L::load(values.add(dim)).mul_add(L::splat(a), new).store(values.add(dim));
        }
    }
}

#[inline(always)]
unsafe fn write_out<L: Lanes>(tile: &QueryTile<'_>, i: usize, sum: f32, values: *const f32) {
    let (token, head) = (i / tile.heads, i % tile.heads);
    // SAFETY: the row and the head lie inside `out`, as the caller of `attend` promises.
    unsafe {
        let row = tile.out.add((tile.first_row + token) * tile.out_columns);
        let target = row.add((tile.first_head + head) * tile.head_dim);
        for dim in (0..tile.head_dim).step_by(LANES) {
            L::load(values.add(dim)).div(L::splat(sum)).store(target.add(dim));
        }
    }
}
