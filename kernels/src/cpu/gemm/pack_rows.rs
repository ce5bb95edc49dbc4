//! Activations as the left side of a product: rounded to the word format, `[group][word][row]`.

use crate::cpu::lanes::{Format, Lanes};
use crate::numerics::LANES;

/// Rows of one group and where their words go.
pub(in crate::cpu) struct PackRows<'a> {
    /// First value of the first row.
    pub(in crate::cpu) rows: &'a [f32],
    /// Distance of rows.
    pub(in crate::cpu) row_stride: usize,
    /// Values of a row that count; the rest up to a multiple of 16 is zero.
    pub(in crate::cpu) columns: usize,
    /// Rows in the group.
    pub(in crate::cpu) count: usize,
}

/// Packs one group into `words`, `[word][row]`.
///
/// # Safety
/// The level's instructions exist.
#[inline(always)]
pub(in crate::cpu) unsafe fn pack_rows<F: Format>(group: &PackRows<'_>, words: &mut [u32]) {
    let words_per_step = LANES / F::PER_WORD;
    for (step, target) in words.chunks_exact_mut(words_per_step * group.count).enumerate() {
        let first = step * LANES;
        let last = (first + LANES).min(group.columns);
        for r in 0..group.count {
            let mut values = [0.0f32; LANES];
            values[..last - first].copy_from_slice(&group.rows[r * group.row_stride..][first..last]);
            let mut packed = [0u32; LANES];
            // SAFETY: both arrays have 16 elements.
            unsafe { F::store_words(F::Lanes::load(values.as_ptr()), packed.as_mut_ptr()) };
            for (p, word) in packed[..words_per_step].iter().enumerate() {
                target[p * group.count + r] = *word;
            }
        }
    }
}
