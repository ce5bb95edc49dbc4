//! Sixteen f32 lanes and the two word formats, once per instruction level; knows no operation.
//!
//! Kernels are written once over these traits and compiled once per level (`cpu::table`), so that all levels do the
//! same operations in the same order. Everything is `inline(always)`: the code only exists inside functions that
//! enable the level's instructions.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
pub(super) mod portable;

use crate::numerics::{COEFFICIENTS, EXP2_MAX, LOG2_E, ROUND_TO_INTEGER, ZERO_BELOW};

/// Sixteen f32.
///
/// # Safety
/// Every function needs a processor with the level's instructions; pointers must be good for 16 values.
pub(super) trait Lanes: Copy {
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// `self * b + c`, rounded once.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// `self` where it is larger than `other`, else `other`.
    unsafe fn max(self, other: Self) -> Self;
    /// `self` where it is smaller than `other`, else `other`.
    unsafe fn min(self, other: Self) -> Self;
    /// 0 where `self < bound`, else `value`.
    unsafe fn zero_where_below(self, bound: Self, value: Self) -> Self;
    /// 2^n for lanes that hold n + `ROUND_TO_INTEGER`.
    unsafe fn power_of_shifted(self) -> Self;
    /// As `numerics::lane_tree_sum`.
    unsafe fn tree_sum(self) -> f32;
    /// As `numerics::lane_tree_max`.
    unsafe fn tree_max(self) -> f32;

    /// As `numerics::exp2`.
    #[inline(always)]
    unsafe fn exp2(self) -> Self {
        // SAFETY: the caller promises the level's instructions, here and below.
        unsafe {
            let t = Self::splat(EXP2_MAX).min(self);
            let shift = Self::splat(ROUND_TO_INTEGER);
            let shifted = t.add(shift);
            let f = t.sub(shifted.sub(shift));
            let mut p = Self::splat(COEFFICIENTS[5]);
            for i in (0..5).rev() {
                p = p.mul_add(f, Self::splat(COEFFICIENTS[i]));
            }
            p = p.mul_add(f, Self::splat(1.0));
            t.zero_where_below(Self::splat(ZERO_BELOW), p.mul(shifted.power_of_shifted()))
        }
    }

    /// As `numerics::silu`.
    #[inline(always)]
    unsafe fn silu(self) -> Self {
        // SAFETY: as in `exp2`.
        unsafe { self.div(Self::splat(1.0).add(self.mul(Self::splat(-LOG2_E)).exp2())) }
    }
}

/// How a 32-bit word holds what is multiplied: one f32, or two bf16 that lie next to each other along the reduction.
///
/// # Safety
/// As for [`Lanes`].
pub(super) trait Format {
    type Lanes: Lanes;
    /// Sixteen words of the right-hand side, ready to be multiplied.
    type Words: Copy;
    /// Values in a word.
    const PER_WORD: usize;
    /// Rows of the largest register tile.
    const ROWS_MAX: usize;
    /// Vectors of 16 columns in a register tile.
    const VECTORS: usize;

    unsafe fn load(from: *const u32) -> Self::Words;
    /// `acc + left · right` for one word of the left side against 16 of the right; of a pair, the odd product first.
    unsafe fn mac(acc: Self::Lanes, left: u32, right: Self::Words) -> Self::Lanes;
    /// Stores 16 values as `16 / PER_WORD` words, rounded to the format; returns them as rounded.
    unsafe fn store_words(values: Self::Lanes, to: *mut u32) -> Self::Lanes;
}

/// A format whose words can also be made of integers of 8 bits, exactly.
///
/// # Safety
/// As for [`Lanes`].
pub(super) trait Widen: Format {
    /// Twice 32 integers become twice 16 words: pairs of integers become pairs of values.
    #[inline(always)]
    unsafe fn widen(from: [*const i8; 2], to: [*mut u32; 2]) {
        for (from, to) in from.into_iter().zip(to) {
            // SAFETY: the caller promises 32 integers and 16 words.
            unsafe {
                let integers = from.cast::<[i8; 32]>().read_unaligned();
                let mut words = [0; 32];
                for (word, integer) in words.iter_mut().zip(integers) {
                    *word = (f32::from(integer).to_bits() >> 16) as u16;
                }
                to.cast::<[u16; 32]>().write_unaligned(words);
            }
        }
    }
}
