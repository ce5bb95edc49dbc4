//! Formats of stored keys and values, and their words in a product: as stored, or widened.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::ahead::fetch;
use super::chunk::{Chunk, VECTORS_PER_CHUNK};
use super::tile::QueryTile;
use crate::cpu::lanes::{Format, Lanes, Widen};
use crate::kv::StoredAt;
use crate::numerics::{ATTENTION_CHUNK, LANES};
use crate::{HEAD_DIM_MAX, KvPart, TILE_TOKENS};

/// A vector of positions is one tile.
const _: () = assert!(LANES == TILE_TOKENS);

/// Addresses of the keys, values and scales (if any) of each vector of 16 positions of a chunk.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Places {
    pub(super) keys: [*const u8; VECTORS_PER_CHUNK],
    pub(super) values: [*const u8; VECTORS_PER_CHUNK],
    key_scales: [*const f32; VECTORS_PER_CHUNK],
    value_scales: [*const f32; VECTORS_PER_CHUNK],
}

impl Places {
    /// Looks up the tiles of the chunk, one per vector of positions.
    pub(super) fn new(tile: &QueryTile<'_>, chunk: &Chunk) -> Self {
        let none = [std::ptr::null(); VECTORS_PER_CHUNK];
        let no_scales = [std::ptr::null(); VECTORS_PER_CHUNK];
        let mut places = Self { keys: none, values: none, key_scales: no_scales, value_scales: no_scales };
        let geometry = tile.kv.geometry();
        for i in chunk.vectors() {
            let at = StoredAt::of(chunk.start + i, tile.table, geometry);
            let stored = |part| tile.kv.tile_ptr(at.tile(tile.layer, part, tile.kv_head)).cast_const();
            let (keys, values) = (stored(KvPart::Key), stored(KvPart::Value));
            (places.keys[i / LANES], places.values[i / LANES]) = (keys, values);
            if geometry.dtype.scale_bytes() > 0 {
                let scales = |tile: *const u8| tile.wrapping_add(geometry.scales_offset()).cast::<f32>();
                places.key_scales[i / LANES] = scales(keys);
                places.value_scales[i / LANES] = scales(values);
                fetch(places.key_scales[i / LANES].cast());
                fetch(places.value_scales[i / LANES].cast());
            }
        }
        places
    }
}

/// Words to multiply: the first row of each vector of 16 positions. Rows of keys have 16 words, rows of values one per
/// value of the head.
pub(in crate::cpu) type Words = [*const u32; VECTORS_PER_CHUNK];

#[repr(align(64))]
pub(in crate::cpu) struct Wide([MaybeUninit<u32>; ATTENTION_CHUNK / 2 * HEAD_DIM_MAX]);

impl Wide {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; ATTENTION_CHUNK / 2 * HEAD_DIM_MAX])
    }

    fn vector(&mut self, vector: usize, head_dim: usize) -> *mut u32 {
        self.0[vector * LANES / 2 * head_dim..].as_mut_ptr().cast()
    }
}

/// Format of stored keys and values, as kernels read it.
///
/// # Safety
/// Pointers of places and words must be good for the chunk they were made for; the level's instructions exist.
pub(in crate::cpu) trait Cached {
    type Format: Format;
    /// Bytes of a stored word.
    const WORD_BYTES: usize;

    /// Keys of a chunk, `[word][16]` per vector.
    unsafe fn keys(tile: &QueryTile<'_>, chunk: &Chunk, places: &Places, wide: &mut Wide) -> Words;
    /// Values of a chunk, `[word of positions][head_dim]` per vector.
    unsafe fn values(tile: &QueryTile<'_>, chunk: &Chunk, places: &Places, wide: &mut Wide) -> Words;
    /// Factors on the products of a vector's 16 keys.
    unsafe fn score_scale(tile: &QueryTile<'_>, places: &Places, vector: usize) -> FormatLanes<Self>;
    /// Stores the weights of a vector's 16 values as words; returns the weights to be summed.
    unsafe fn store_weights(
        weights: FormatLanes<Self>,
        places: &Places,
        vector: usize,
        to: *mut u32,
    ) -> FormatLanes<Self>;
}

pub(in crate::cpu) type FormatLanes<C> = <<C as Cached>::Format as Format>::Lanes;

/// Keys and values that are stored as they are multiplied.
pub(in crate::cpu) struct AsStored<F>(PhantomData<F>);

impl<F: Format> Cached for AsStored<F> {
    type Format = F;
    const WORD_BYTES: usize = size_of::<u32>();

    #[inline(always)]
    unsafe fn keys(_: &QueryTile<'_>, _: &Chunk, places: &Places, _: &mut Wide) -> Words {
        places.keys.map(<*const u8>::cast)
    }
    #[inline(always)]
    unsafe fn values(_: &QueryTile<'_>, _: &Chunk, places: &Places, _: &mut Wide) -> Words {
        places.values.map(<*const u8>::cast)
    }
    #[inline(always)]
    unsafe fn score_scale(tile: &QueryTile<'_>, _: &Places, _: usize) -> F::Lanes {
        // SAFETY: the caller's promise.
        unsafe { F::Lanes::splat(tile.log2_scale) }
    }
    #[inline(always)]
    unsafe fn store_weights(weights: F::Lanes, _: &Places, _: usize, to: *mut u32) -> F::Lanes {
        // SAFETY: the caller's promise.
        unsafe { F::store_words(weights, to) }
    }
}

/// Keys and values as integers with a scale per position; a chunk is widened once for all rows of a task.
pub(in crate::cpu) struct Scaled<F>(PhantomData<F>);

impl<F: Widen> Cached for Scaled<F> {
    type Format = F;
    const WORD_BYTES: usize = size_of::<[i8; 2]>();

    #[inline(always)]
    unsafe fn keys(tile: &QueryTile<'_>, chunk: &Chunk, places: &Places, wide: &mut Wide) -> Words {
        let row_bytes = LANES * Self::WORD_BYTES;
        let mut words = [std::ptr::null(); VECTORS_PER_CHUNK];
        for vector in chunk.vectors().map(|i| i / LANES) {
            let (from, to) = (places.keys[vector].cast::<i8>(), wide.vector(vector, tile.head_dim));
            words[vector] = to;
            // A head has an even number of rows, 16 pairs of integers each.
            for row in (0..tile.head_dim / 2).step_by(2) {
                // SAFETY: the rows of 16 positions lie in one tile, `row_bytes` apart; `wide` has room for all of them.
                unsafe {
                    let from = [from.add(row * row_bytes), from.add((row + 1) * row_bytes)];
                    F::widen(from, [to.add(row * LANES), to.add((row + 1) * LANES)]);
                }
            }
        }
        words
    }

    #[inline(always)]
    unsafe fn values(tile: &QueryTile<'_>, chunk: &Chunk, places: &Places, wide: &mut Wide) -> Words {
        let mut words = [std::ptr::null(); VECTORS_PER_CHUNK];
        for vector in chunk.vectors().map(|i| i / LANES) {
            let (from, to) = (places.values[vector].cast::<i8>(), wide.vector(vector, tile.head_dim));
            words[vector] = to;
            // 8 rows of `head_dim` pairs are contiguous; 16 pairs are widened into 16 words.
            for pair in (0..LANES / 2 * tile.head_dim).step_by(2 * LANES) {
                // SAFETY: all pairs of 16 positions lie in one tile; `wide` has room for them.
                unsafe {
                    let from = [from.add(2 * pair), from.add(2 * (pair + LANES))];
                    F::widen(from, [to.add(pair), to.add(pair + LANES)]);
                }
            }
        }
        words
    }

    #[inline(always)]
    unsafe fn score_scale(tile: &QueryTile<'_>, places: &Places, vector: usize) -> F::Lanes {
        // SAFETY: a vector has 16 scales in its tile.
        unsafe { F::Lanes::load(places.key_scales[vector]).mul(F::Lanes::splat(tile.log2_scale)) }
    }

    #[inline(always)]
    unsafe fn store_weights(weights: F::Lanes, places: &Places, vector: usize, to: *mut u32) -> F::Lanes {
        // SAFETY: a vector has 16 scales in its tile.
        unsafe {
            F::store_words(weights.mul(F::Lanes::load(places.value_scales[vector])), to);
        }
        weights
    }
}
