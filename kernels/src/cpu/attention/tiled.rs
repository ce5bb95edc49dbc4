//! Products of attention on tile registers: 16 query rows against 64 keys, or against 64 columns of values.

use super::cached::{Cached, FormatLanes, Words};
use super::chunk::Scratch;
use super::products::{GroupChunk, Products};
use crate::HEAD_DIM_MAX;
use crate::cpu::amx::{
    TILE_ROWS, TILE_WORDS, TileScores, TileValues, Tiles, scores_of_whole_steps, scores_with_half_a_step, values_of_16,
    values_of_64,
};
use crate::cpu::lanes::avx512::{Bf16Pairs, F32x16};
use crate::cpu::lanes::{Format, Lanes};
use crate::numerics::{ATTENTION_CHUNK, LANES};

/// Vectors of 16 keys or 16 columns that are multiplied at a time.
const QUAD: usize = 4;
const VECTOR_WORDS: usize = LANES / 2;
const WORD_BYTES: usize = size_of::<u32>();

/// A copy of a chunk's last vector of values without what is stored behind the last position.
#[repr(align(64))]
struct LastValues([[u32; HEAD_DIM_MAX]; VECTOR_WORDS]);

/// Sums in tile registers, in steps of 16 words, or of 8 for values. The keys of the next chunk are fetched while
/// scores are computed, its values with the weights: the products themselves are too short to hide fetches.
pub(in crate::cpu) struct InTiles {
    tiles: Tiles,
    last: LastValues,
}

impl<C> Products<C> for InTiles
where
    C: Cached<Format = Bf16Pairs>,
{
    const ROWS_MAX: usize = TILE_ROWS;

    fn query_words(head_dim: usize) -> usize {
        (head_dim / 2).next_multiple_of(TILE_WORDS)
    }

    #[inline(always)]
    unsafe fn new() -> Self {
        Self { tiles: Tiles::new(), last: LastValues([[0; HEAD_DIM_MAX]; VECTOR_WORDS]) }
    }

    /// `[step][row][16 words]`. If a head ends with 8 words, the other 8 are not written.
    #[inline(always)]
    unsafe fn pack_queries<'a>(query: impl Fn(usize) -> &'a [f32], count: usize, words: &mut [u32]) {
        let rows = words.as_chunks_mut::<TILE_WORDS>().0;
        for (step, rows) in rows.chunks_exact_mut(count).enumerate() {
            for (r, words) in rows.iter_mut().enumerate() {
                let values = &query(r)[2 * TILE_WORDS * step..];
                for (half, values) in values.as_chunks::<LANES>().0.iter().take(2).enumerate() {
                    // SAFETY: half a step has room for 8 words; the caller promises the instructions.
                    unsafe {
                        let to = words[half * VECTOR_WORDS..].as_mut_ptr();
                        Bf16Pairs::store_words(F32x16::load(values.as_ptr()), to);
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn score(&mut self, group: GroupChunk<'_>, queries: *const u32, keys: &Words, scratch: &mut Scratch) {
        let GroupChunk { tile, chunk, places, rows, .. } = group;
        let (first, last) = chunk.vector_range();
        // SAFETY: the caller's promise; vectors outside the chunk get scores of another vector, which nobody reads.
        unsafe {
            self.tiles.shape_for_attention(rows);
            for quad in first / QUAD..=last / QUAD {
                let vector = |v: usize| (quad * QUAD + v).clamp(first, last);
                let sides = TileScores {
                    queries,
                    queries_step_bytes: rows * TILE_WORDS * WORD_BYTES,
                    keys: [0, 1, 2, 3].map(|v| keys[vector(v)]),
                    keys_stride_bytes: LANES * WORD_BYTES,
                    whole_steps: tile.head_dim / 2 / TILE_WORDS,
                    scores: scratch.scores.as_mut_ptr().cast::<f32>().add(quad * QUAD * LANES),
                    scores_stride_bytes: size_of::<[f32; ATTENTION_CHUNK]>(),
                };
                if (tile.head_dim / 2).is_multiple_of(TILE_WORDS) {
                    scores_of_whole_steps(&sides);
                } else {
                    scores_with_half_a_step(&sides);
                }
            }
            for v in first..=last {
                let scale = C::score_scale(tile, places, v);
                for scores in &mut scratch.scores[..rows] {
                    let place = scores.as_mut_ptr().cast::<f32>().add(v * LANES);
                    FormatLanes::<C>::load(place).mul(scale).store(place);
                }
            }
        }
    }

    #[inline(always)]
    fn fetch_with_weights(group: GroupChunk<'_>, vector: usize, r: usize) {
        if let Some(next) = group.next {
            let lines = group.tile.head_dim / 2;
            let of_row = lines.div_ceil(group.rows);
            next.fetch_keys(vector, r * of_row..lines.min((r + 1) * of_row));
        }
    }
    #[inline(always)]
    fn fetch_with_sums(group: GroupChunk<'_>, vector: usize, r: usize) {
        if let Some(next) = group.next {
            let lines = (LANES * group.tile.head_dim / 2 * C::WORD_BYTES).div_ceil(64);
            let of_row = lines.div_ceil(group.rows);
            next.fetch_values(vector, r * of_row..lines.min((r + 1) * of_row));
        }
    }

    #[inline(always)]
    unsafe fn weigh(&mut self, group: GroupChunk<'_>, stored: &Words, scratch: &mut Scratch) {
        let GroupChunk { tile, chunk, rows, .. } = group;
        let (first, last) = chunk.vector_range();
        let mut vectors = *stored;
        let behind = chunk.to - last * LANES;
        // SAFETY: the caller's promise. Of the last vector only words of positions below `chunk.to` are read; the slot
        // beside the last one was zeroed when that was stored.
        unsafe {
            if behind < LANES {
                vectors[last] = self.last.copy(stored[last], behind.div_ceil(2), tile.head_dim);
                for weights in &mut scratch.weights[..rows] {
                    let words = weights.as_mut_ptr().cast::<u32>().add(last * VECTOR_WORDS);
                    (behind.div_ceil(2)..VECTOR_WORDS).for_each(|word| words.add(word).write(0));
                }
            }
            let sums = scratch.values.as_mut_ptr().cast::<f32>();
            let sides = |dim: usize| TileValues {
                weights: scratch.weights.as_ptr().cast::<u32>().add(first * VECTOR_WORDS),
                weights_stride_bytes: size_of::<[u32; ATTENTION_CHUNK]>(),
                values: &vectors[first..=last],
                values_stride_bytes: tile.head_dim * WORD_BYTES,
                column_bytes: dim * WORD_BYTES,
                sums: sums.add(dim),
                sums_stride_bytes: size_of::<[f32; HEAD_DIM_MAX]>(),
            };
            let quads = tile.head_dim / (QUAD * LANES) * (QUAD * LANES);
            (0..quads).step_by(QUAD * LANES).for_each(|dim| values_of_64(&sides(dim)));
            (quads..tile.head_dim).step_by(LANES).for_each(|dim| values_of_16(&sides(dim)));
        }
    }
}

impl LastValues {
    /// Copies the first `words` words of each column and zeroes the others.
    #[inline(always)]
    unsafe fn copy(&mut self, from: *const u32, words: usize, head_dim: usize) -> *const u32 {
        let to = self.0.as_mut_ptr().cast::<u32>();
        // SAFETY: the caller has so many words, `head_dim` apart; there is room for 8 of them of the largest head.
        unsafe {
            std::ptr::copy_nonoverlapping(from, to, words * head_dim);
            std::ptr::write_bytes(to.add(words * head_dim), 0, (VECTOR_WORDS - words) * head_dim);
        }
        to
    }
}
