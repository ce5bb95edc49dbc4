//! Activations as the left side of an int8 product: normed, then rounded chunk by chunk, each with its scale.

use super::pack_rows::{AsIs, Change, Normed, PackRows};
use super::row_part::RowPart;
use crate::cpu::lanes::{INT8_HEAD_WORDS, Lanes};
use crate::numerics::{Int8Scale, LANES, ROUND_TO_INTEGER, k_padded};

/// Values in a word.
pub(in crate::cpu) const PER_WORD: usize = 4;

/// Words of one of `chunks` chunks of `k`; the last word is filled up with zeros.
pub(in crate::cpu) const fn chunk_words(k: usize, chunks: usize) -> usize {
    (k_padded(k) / chunks).div_ceil(PER_WORD)
}

/// Packs a group into `words`, `[chunk][head words, then words][row]`. The head is `-128 · Σ q`, then the scale's bits.
///
/// # Safety
/// The level's instructions exist.
#[inline(always)]
pub(in crate::cpu) unsafe fn pack_int8<L: Lanes>(group: &PackRows<'_>, words: &mut [u32]) {
    // SAFETY: the caller's promise.
    unsafe {
        match group.norm {
            None => pack_after::<L, _>(group, &AsIs, words),
            Some(norm) => pack_after::<L, _>(group, &Normed::new(norm, |r| group.row(r), group.count), words),
        }
    }
}

#[inline(always)]
unsafe fn pack_after<L: Lanes, C: Change<L>>(group: &PackRows<'_>, change: &C, words: &mut [u32]) {
    let chunk_columns = k_padded(group.columns) / group.chunks;
    let chunk_words = INT8_HEAD_WORDS + chunk_words(group.columns, group.chunks);
    for (chunk, target) in words.chunks_exact_mut(chunk_words * group.count).enumerate() {
        // Padding may begin before the last chunk does.
        let first = (chunk * chunk_columns).min(group.columns);
        let end = (first + chunk_columns).min(group.columns);
        for r in 0..group.count {
            let part = RowPart { values: &group.row(r)[first..end], change, r, first };
            let place = |word: usize| (INT8_HEAD_WORDS + word) * group.count + r;
            // Words of padding, whose left side must be 0.
            (0..chunk_words - INT8_HEAD_WORDS).for_each(|word| target[place(word)] = 0);
            // SAFETY: the caller's promise.
            let head = unsafe {
                pack_part::<L, C>(&part, |first, words| {
                    for (word, bytes) in (first..).zip(words) {
                        // The last words may lie beyond the chunk.
                        if let Some(place) = target.get_mut(place(word)) {
                            *place = bytes;
                        }
                    }
                })
            };
            target[r] = head[0];
            target[group.count + r] = head[1];
        }
    }
}

/// Rounds one row of a chunk to bytes and returns its head. `put(word, words)` gets four words at a time, in order,
/// with the index of the first of them in the chunk.
#[inline(always)]
pub(super) unsafe fn pack_part<L: Lanes, C: Change<L>>(
    part: &RowPart<'_, C>,
    mut put: impl FnMut(usize, [u32; LANES / PER_WORD]),
) -> [u32; INT8_HEAD_WORDS] {
    let steps = part.values.len().div_ceil(LANES);
    // SAFETY: the caller's promise; `bytes` has room for 16.
    unsafe {
        let zero = L::splat(0.0);
        let (mut largest, mut poison) = (zero, zero);
        for step in 0..steps {
            let values = part.sixteen::<L>(step * LANES);
            largest = largest.max(values.max(zero.sub(values)));
            poison = poison.add(values.sub(values));
        }
        let scale = Int8Scale::of(largest.tree_max());

        let (inverse, round) = (L::splat(scale.inverse), L::splat(ROUND_TO_INTEGER));
        let mut total = zero;
        for step in 0..steps {
            let rounded = part.sixteen::<L>(step * LANES).mul(inverse).add(round);
            total = total.add(rounded.sub(round));
            let mut bytes = [[0u8; PER_WORD]; LANES / PER_WORD];
            rounded.store_low_bytes(bytes.as_mut_ptr().cast());
            put(step * LANES / PER_WORD, bytes.map(u32::from_le_bytes));
        }
        // A sum of integers below 2^24 is exact in f32; a NaN among the values makes the cast 0 and the scale NaN.
        [(total.tree_sum() as i32 * -128).cast_unsigned(), (scale.scale + poison.tree_sum()).to_bits()]
    }
}
