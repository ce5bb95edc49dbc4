//! Activations as the left side of a product: normed, rounded to the word format, `[group][word][row]`.

use crate::NormKind;
use crate::cpu::lanes::{Format, Lanes};
use crate::numerics::{LANES, Standardize};

/// Rows of the largest group of any level.
const GROUP_ROWS_MAX: usize = 32;

/// Rows of one group out of a row-major matrix.
pub(in crate::cpu) struct PackRows<'a> {
    pub(in crate::cpu) values: &'a [f32],
    pub(in crate::cpu) columns: usize,
    /// Chunks of `k` in `columns`.
    pub(in crate::cpu) chunks: usize,
    /// Rows of `values`; `None` for the first `count`.
    pub(in crate::cpu) picked: Option<&'a [u32]>,
    /// At most [`GROUP_ROWS_MAX`].
    pub(in crate::cpu) count: usize,
    pub(in crate::cpu) norm: Option<RowNorm<'a>>,
}

impl<'a> PackRows<'a> {
    #[inline(always)]
    pub(super) fn row(&self, r: usize) -> &'a [f32] {
        let r = self.picked.map_or(r, |picked| picked[r] as usize);
        &self.values[r * self.columns..][..self.columns]
    }
}

/// Norm with weight and bias padded with zeros to a multiple of 16.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct RowNorm<'a> {
    pub(in crate::cpu) kind: NormKind,
    pub(in crate::cpu) weight: &'a [f32],
    pub(in crate::cpu) bias: Option<&'a [f32]>,
    pub(in crate::cpu) eps: f32,
}

/// Packs a group as [`pack`] does, after its norm.
///
/// # Safety
/// As for `pack`.
#[inline(always)]
pub(in crate::cpu) unsafe fn pack_rows<F: Format>(group: &PackRows<'_>, words: &mut [u32]) {
    let row = |r: usize| &group.values[r * group.columns..][..group.columns];
    // SAFETY: the caller's promise.
    unsafe {
        match group.picked {
            None => pack_normed::<F>(row, group, words),
            Some(picked) => pack_normed::<F>(|r| row(picked[r] as usize), group, words),
        }
    }
}

#[inline(always)]
unsafe fn pack_normed<'a, F: Format>(row: impl Fn(usize) -> &'a [f32], group: &PackRows<'_>, words: &mut [u32]) {
    // SAFETY: the caller's promise.
    unsafe {
        match group.norm {
            None => pack::<F>(row, group.count, words),
            Some(norm) => pack_after::<F, _>(&row, group.count, &Normed::new(norm, &row, group.count), words),
        }
    }
}

/// Packs `count` rows into `words`, `[word][row]`; columns up to a multiple of 16 are filled with zeros.
///
/// # Safety
/// The level's instructions exist.
#[inline(always)]
pub(in crate::cpu) unsafe fn pack<'a, F: Format>(row: impl Fn(usize) -> &'a [f32], count: usize, words: &mut [u32]) {
    // SAFETY: the caller's promise.
    unsafe { pack_after::<F, _>(row, count, &AsIs, words) }
}

#[inline(always)]
unsafe fn pack_after<'a, F: Format, C: Change<F::Lanes>>(
    row: impl Fn(usize) -> &'a [f32],
    count: usize,
    change: &C,
    words: &mut [u32],
) {
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
                F::store_words(change.apply(r, step * LANES, values), packed.as_mut_ptr());
            }
            for (p, word) in packed[..words_per_step].iter().enumerate() {
                target[p * count + r] = *word;
            }
        }
    }
}

/// Change of values before they are rounded.
pub(in crate::cpu) trait Change<L: Lanes> {
    /// Changes the 16 values from column `first` of row `r` on.
    ///
    /// # Safety
    /// The level's instructions exist.
    unsafe fn apply(&self, r: usize, first: usize, values: L) -> L;
    fn apply_to_one(&self, r: usize, column: usize, value: f32) -> f32;
}

pub(super) struct AsIs;

impl<L: Lanes> Change<L> for AsIs {
    #[inline(always)]
    unsafe fn apply(&self, _: usize, _: usize, values: L) -> L {
        values
    }
    #[inline(always)]
    fn apply_to_one(&self, _: usize, _: usize, value: f32) -> f32 {
        value
    }
}

/// A norm with the shift and scale of each row of a group.
pub(super) struct Normed<'a> {
    norm: RowNorm<'a>,
    rows: [Standardize; GROUP_ROWS_MAX],
}

impl<'a> Normed<'a> {
    #[inline(always)]
    pub(super) fn new<'r>(norm: RowNorm<'a>, row: impl Fn(usize) -> &'r [f32], count: usize) -> Self {
        let mut rows = [Standardize::IDENTITY; GROUP_ROWS_MAX];
        for (r, standard) in rows.iter_mut().enumerate().take(count) {
            *standard = match norm.kind {
                NormKind::Rms => Standardize::rms(row(r), norm.eps),
                NormKind::Layer => Standardize::layer(row(r), norm.eps),
            };
        }
        Self { norm, rows }
    }
}

impl<L: Lanes> Change<L> for Normed<'_> {
    #[inline(always)]
    unsafe fn apply(&self, r: usize, first: usize, values: L) -> L {
        let standard = self.rows[r];
        // SAFETY: the caller promises the instructions, and the slices are cut to 16 values.
        unsafe {
            let weight = L::load(self.norm.weight[first..][..LANES].as_ptr());
            let weighted = values.sub(L::splat(standard.shift)).mul(L::splat(standard.scale)).mul(weight);
            match self.norm.bias {
                None => weighted,
                Some(bias) => weighted.add(L::load(bias[first..][..LANES].as_ptr())),
            }
        }
    }
    #[inline(always)]
    fn apply_to_one(&self, r: usize, column: usize, value: f32) -> f32 {
        let weighted = self.rows[r].apply(value) * self.norm.weight[column];
        self.norm.bias.map_or(weighted, |bias| weighted + bias[column])
    }
}
