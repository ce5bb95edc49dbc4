//! Activations as the left side of a product: rounded to the word format, `[group][word][row]`.

use crate::cpu::lanes::{Format, Lanes};
use crate::numerics::LANES;

/// Rows of one group, row-major.
pub(in crate::cpu) struct PackRows<'a> {
    pub(in crate::cpu) values: &'a [f32],
    pub(in crate::cpu) columns: usize,
    pub(in crate::cpu) count: usize,
}

/// Packs a group as [`pack`] does.
///
/// # Safety
/// As for `pack`.
#[inline(always)]
pub(in crate::cpu) unsafe fn pack_rows<F: Format>(group: &PackRows<'_>, words: &mut [u32]) {
    let row = |r: usize| &group.values[r * group.columns..][..group.columns];
    // SAFETY: the caller's promise.
    unsafe { pack::<F>(row, group.count, words) }
}

/// Packs `count` rows into `words`, `[word][row]`; columns up to a multiple of 16 are filled with zeros.
///
/// # Safety
/// The level's instructions exist.
#[inline(always)]
pub(in crate::cpu) unsafe fn pack<'a, F: Format>(row: impl Fn(usize) -> &'a [f32], count: usize, words: &mut [u32]) {
    let words_per_step = LANES / F::PER_WORD;
    for (step, target) in words.chunks_exact_mut(words_per_step * count).enumerate() {
        for r in 0..count {
            let rest = &row(r)[step * LANES..];
            let mut packed = [0u32; LANES];
            // SAFETY: 16 values are read from a row or an array that has them; the target has 16 words.
            unsafe {
                let values = match rest.first_chunk::<LANES>() {
                    Some(values) => F::Lanes::load(values.as_ptr()),
                    None => {
                        let mut padded = [0.0f32; LANES];
                        padded[..rest.len()].copy_from_slice(rest);
                        F::Lanes::load(padded.as_ptr())
                    }
                };
                F::store_words(values, packed.as_mut_ptr());
            }
            for (p, word) in packed[..words_per_step].iter().enumerate() {
                target[p * count + r] = *word;
            }
        }
    }
}
