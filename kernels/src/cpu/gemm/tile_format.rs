//! Word formats on tile registers: packing of the left side, sums, and the value of a sum. Knows no product.

use super::pack_int8::pack_part;
use super::pack_rows::{AsIs, Change, Normed, PackRows};
use super::row_part::RowPart;
use crate::cpu::amx::{TILE_ROWS, TILE_WORDS, TileChunk, bf16_one, bf16_two, int8_one, int8_two};
use crate::cpu::lanes::avx512::{Bf16Pairs, F32x16, I32x16};
use crate::cpu::lanes::{Format, INT8_HEAD_WORDS, Int8Sums, Lanes};
use crate::numerics::{LANES, k_padded};

/// Words of a row of the packed left side in a chunk of `words` words, head words included.
pub(in crate::cpu) const fn left_chunk_words<T: TileFormat>(words: usize) -> usize {
    T::HEAD_WORDS + words.next_multiple_of(TILE_WORDS)
}

/// Packing, sums and values of one word format on tile registers.
///
/// # Safety
/// Tiles are available, and so are the instructions of the AVX-512 level.
pub(in crate::cpu) trait TileFormat {
    /// Words of the left side before each row of a chunk, `[row][HEAD_WORDS]`; whole cache lines.
    const HEAD_WORDS: usize;
    /// True if the raw sums are f32 values already.
    const SUMS_ARE_F32: bool;

    /// Packs one row of a chunk: its head, and 16 words of each step.
    unsafe fn pack<C: Change<F32x16>>(part: &RowPart<'_, C>, head: &mut [u32], steps: &mut StepsOfRow<'_>);
    unsafe fn sum(chunk: &TileChunk, rows: usize);
    /// Values of 16 sums in f32, with the `head` of their row and the `scales` of their columns.
    unsafe fn worth(sums: *const u32, head: *const u32, scales: *const f32) -> F32x16;
}

/// Places of one row of a chunk: 16 words in each step.
pub(in crate::cpu) struct StepsOfRow<'a> {
    steps: &'a mut [u32],
    row: usize,
    rows: usize,
}

impl StepsOfRow<'_> {
    fn count(&self) -> usize {
        self.steps.len() / (self.rows * TILE_WORDS)
    }

    fn step(&mut self, step: usize) -> &mut [u32; TILE_WORDS] {
        &mut self.steps.as_chunks_mut::<TILE_WORDS>().0[step * self.rows + self.row]
    }
}

pub(in crate::cpu) struct Bf16Tiles;

impl TileFormat for Bf16Tiles {
    const HEAD_WORDS: usize = 0;
    const SUMS_ARE_F32: bool = true;

    #[inline(always)]
    unsafe fn pack<C: Change<F32x16>>(part: &RowPart<'_, C>, _: &mut [u32], steps: &mut StepsOfRow<'_>) {
        for step in 0..steps.count() {
            let words = steps.step(step).as_mut_ptr();
            // SAFETY: a step has room for two times 8 words; the rest is the caller's promise.
            unsafe {
                for half in 0..2 {
                    let values = part.sixteen::<F32x16>((2 * step + half) * LANES);
                    Bf16Pairs::store_words(values, words.add(half * LANES / 2));
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn sum(chunk: &TileChunk, rows: usize) {
        // SAFETY: the caller's promise, here and below.
        unsafe { if rows <= TILE_ROWS { bf16_one(chunk) } else { bf16_two(chunk) } }
    }
    #[inline(always)]
    unsafe fn worth(sums: *const u32, _: *const u32, _: *const f32) -> F32x16 {
        // SAFETY: as above.
        unsafe { F32x16::load(sums.cast()) }
    }
}

/// Quads of int8. Adding the head to a sum gives the sum of the other levels: both are exact.
pub(in crate::cpu) struct Int8Tiles;

impl TileFormat for Int8Tiles {
    const HEAD_WORDS: usize = TILE_WORDS;
    const SUMS_ARE_F32: bool = false;

    #[inline(always)]
    unsafe fn pack<C: Change<F32x16>>(part: &RowPart<'_, C>, head: &mut [u32], steps: &mut StepsOfRow<'_>) {
        for step in 0..steps.count() {
            *steps.step(step) = [0; TILE_WORDS];
        }
        // SAFETY: the caller's promise.
        let [zero_point, scale] = unsafe {
            pack_part::<F32x16, C>(part, |first, words| {
                steps.step(first / TILE_WORDS)[first % TILE_WORDS..][..words.len()].copy_from_slice(&words);
            })
        };
        head[..INT8_HEAD_WORDS].copy_from_slice(&[zero_point, scale]);
    }
    #[inline(always)]
    unsafe fn sum(chunk: &TileChunk, rows: usize) {
        // SAFETY: the caller's promise, here and below.
        unsafe { if rows <= TILE_ROWS { int8_one(chunk) } else { int8_two(chunk) } }
    }
    #[inline(always)]
    unsafe fn worth(sums: *const u32, head: *const u32, scales: *const f32) -> F32x16 {
        // SAFETY: as above; the head has two words.
        unsafe {
            let of_chunk = F32x16::splat(f32::from_bits(*head.add(1)));
            I32x16::load_sums(sums).plus((*head).cast_signed()).to_f32().mul(of_chunk).mul(F32x16::load(scales))
        }
    }
}

/// Packs a group as `[chunk]`, each `[row][head words]`, then `[step][row][16 words]`; padding is zero.
///
/// # Safety
/// The instructions of the AVX-512 level exist.
#[inline(always)]
pub(in crate::cpu) unsafe fn pack_tiles<T: TileFormat>(group: &PackRows<'_>, words: &mut [u32]) {
    // SAFETY: the caller's promise.
    unsafe {
        match group.norm {
            None => pack_after::<T, _>(group, &AsIs, words),
            Some(norm) => pack_after::<T, _>(group, &Normed::new(norm, |r| group.row(r), group.count), words),
        }
    }
}

#[inline(always)]
unsafe fn pack_after<T: TileFormat, C: Change<F32x16>>(group: &PackRows<'_>, change: &C, words: &mut [u32]) {
    let chunk_columns = k_padded(group.columns) / group.chunks;
    let chunk_words = words.len() / group.chunks;
    for (chunk, target) in words.chunks_exact_mut(chunk_words).enumerate() {
        let (heads, steps) = target.split_at_mut(T::HEAD_WORDS * group.count);
        let first = (chunk * chunk_columns).min(group.columns);
        let end = (first + chunk_columns).min(group.columns);
        for r in 0..group.count {
            let part = RowPart { values: &group.row(r)[first..end], change, r, first };
            let head = &mut heads[r * T::HEAD_WORDS..][..T::HEAD_WORDS];
            // SAFETY: the caller's promise.
            unsafe { T::pack(&part, head, &mut StepsOfRow { steps, row: r, rows: group.count }) };
        }
    }
}
