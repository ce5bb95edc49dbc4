//! Activations as the left side of an int8 product: normed, then rounded chunk by chunk with a scale of its own.

use super::pack_rows::{AsIs, Change, Normed, PackRows};
use crate::cpu::lanes::{INT8_HEAD_WORDS, Lanes};
use crate::numerics::{Int8Scale, LANES, ROUND_TO_INTEGER, k_padded};

/// Values in a word.
pub(in crate::cpu) const PER_WORD: usize = 4;

/// Words of a chunk of `k`, which has so many columns; the last one is filled up with zeros.
pub(in crate::cpu) const fn chunk_words(k: usize, chunks: usize) -> usize {
    (k_padded(k) / chunks).div_ceil(PER_WORD)
}

/// Packs a group into `words`, `[chunk][head words, then words][row]`. The head is `-128 · Σ q`, then the scale's bits.
///
/// # Safety
/// The level's instructions exist.
#[inline(always)]
pub(in crate::cpu) unsafe fn pack_int8<L: Lanes>(group: &PackRows<'_>, words: &mut [u32]) {
    let row = |r: usize| {
        let r = group.picked.map_or(r, |picked| picked[r] as usize);
        &group.values[r * group.columns..][..group.columns]
    };
    // SAFETY: the caller's promise.
    unsafe {
        match group.norm {
            None => pack_after::<L, _>(row, group, &AsIs, words),
            Some(norm) => pack_after::<L, _>(row, group, &Normed::new(norm, row, group.count), words),
        }
    }
}

#[inline(always)]
unsafe fn pack_after<'a, L: Lanes, C: Change<L>>(
    row: impl Fn(usize) -> &'a [f32],
    group: &PackRows<'_>,
    change: &C,
    words: &mut [u32],
) {
    let chunk_columns = k_padded(group.columns) / group.chunks;
    let chunk_words = INT8_HEAD_WORDS + chunk_words(group.columns, group.chunks);
    for (chunk, target) in words.chunks_exact_mut(chunk_words * group.count).enumerate() {
        // Padding may begin before the last chunk does.
        let first = (chunk * chunk_columns).min(group.columns);
        let end = (first + chunk_columns).min(group.columns);
        for r in 0..group.count {
            let part = RowPart { values: &row(r)[first..end], change, r, first };
            // SAFETY: the caller's promise.
            unsafe { pack_part::<L, C>(&part, &mut target[r..], group.count) };
        }
    }
}

/// The columns `first..` of a row that lie in one chunk.
struct RowPart<'a, C> {
    values: &'a [f32],
    change: &'a C,
    r: usize,
    first: usize,
}

/// Writes head and words of one row of a chunk to every `stride`th word of `target`.
#[inline(always)]
unsafe fn pack_part<L: Lanes, C: Change<L>>(part: &RowPart<'_, C>, target: &mut [u32], stride: usize) {
    let steps = part.values.len().div_ceil(LANES);
    // SAFETY: the caller's promise; `bytes` has room for 16.
    unsafe {
        let zero = L::splat(0.0);
        let (mut largest, mut poison) = (zero, zero);
        for step in 0..steps {
            let values = sixteen::<L, C>(part, step * LANES);
            largest = largest.max(values.max(zero.sub(values)));
            poison = poison.add(values.sub(values));
        }
        let scale = Int8Scale::of(largest.tree_max());

        let (inverse, round) = (L::splat(scale.inverse), L::splat(ROUND_TO_INTEGER));
        let mut total = zero;
        for step in 0..steps {
            let rounded = sixteen::<L, C>(part, step * LANES).mul(inverse).add(round);
            total = total.add(rounded.sub(round));
            let mut bytes = [0u8; LANES];
            rounded.store_low_bytes(bytes.as_mut_ptr());
            let first = INT8_HEAD_WORDS + step * LANES / PER_WORD;
            for (i, word) in bytes.as_chunks::<PER_WORD>().0.iter().enumerate() {
                // The last step may reach beyond the chunk.
                if let Some(place) = target.get_mut((first + i) * stride) {
                    *place = u32::from_le_bytes(*word);
                }
            }
        }
        // Words behind the last value belong to padding, whose left side must be 0.
        let packed = INT8_HEAD_WORDS + steps * LANES / PER_WORD;
        target.iter_mut().step_by(stride).skip(packed).for_each(|place| *place = 0);
        // A sum of integers below 2^24 is exact in f32; a NaN among the values makes the cast 0 and the scale NaN.
        target[0] = (total.tree_sum() as i32 * -128).cast_unsigned();
        target[stride] = (scale.scale + poison.tree_sum()).to_bits();
    }
}

/// Sixteen values of the part from `at` on, changed; zeros behind its end.
#[inline(always)]
unsafe fn sixteen<L: Lanes, C: Change<L>>(part: &RowPart<'_, C>, at: usize) -> L {
    let rest = &part.values[at..];
    // SAFETY: 16 values are read from a row or an array that has them; the caller promises the instructions.
    unsafe {
        if let Some(values) = rest.first_chunk::<LANES>() {
            return part.change.apply(part.r, part.first + at, L::load(values.as_ptr()));
        }
        let mut padded = [0.0f32; LANES];
        for (i, (place, value)) in padded.iter_mut().zip(rest).enumerate() {
            *place = part.change.apply_to_one(part.r, part.first + at + i, *value);
        }
        L::load(padded.as_ptr())
    }
}
