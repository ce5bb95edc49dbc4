//! Columns of an activation row in one chunk of `k`, read sixteen at a time after a norm.

use super::pack_rows::Change;
use crate::cpu::lanes::Lanes;
use crate::numerics::LANES;

/// Values from column `first` of row `r` of a group on.
pub(in crate::cpu) struct RowPart<'a, C> {
    pub(super) values: &'a [f32],
    pub(super) change: &'a C,
    pub(super) r: usize,
    pub(super) first: usize,
}

impl<C> RowPart<'_, C> {
    /// Sixteen changed values from `at` on; zeros behind the end of the part.
    ///
    /// # Safety
    /// The level's instructions exist.
    #[inline(always)]
    pub(super) unsafe fn sixteen<L: Lanes>(&self, at: usize) -> L
    where
        C: Change<L>,
    {
        let rest = self.values.get(at..).unwrap_or_default();
        // SAFETY: 16 values are read from a row or an array that has them; the caller promises the instructions.
        unsafe {
            if let Some(values) = rest.first_chunk::<LANES>() {
                return self.change.apply(self.r, self.first + at, L::load(values.as_ptr()));
            }
            let mut padded = [0.0f32; LANES];
            for (i, (place, value)) in padded.iter_mut().zip(rest).enumerate() {
                *place = self.change.apply_to_one(self.r, self.first + at + i, *value);
            }
            L::load(padded.as_ptr())
        }
    }
}
