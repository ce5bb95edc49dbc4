//! Sixteen f32 lanes and the three word formats of each instruction level; knows no operation.
//!
//! Kernels are written once over these traits and compiled once per level (`cpu::table`), so all levels do the same
//! operations in the same order. All functions are `inline(always)`: they only exist inside functions that enable the
//! level's instructions.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
pub(super) mod portable;

use std::marker::PhantomData;

use crate::numerics::{COEFFICIENTS, EXP2_MAX, LANES, LOG2_E, ROUND_TO_INTEGER, ZERO_BELOW, bf16_pair};

/// Defines folds of lanes whose `halves` are two registers, in the order of `numerics::lane_tree_sum`.
#[cfg(target_arch = "x86_64")]
macro_rules! trees {
    ($($name:ident = $eight:ident, $four:ident, $one:ident;)*) => {$(
        #[inline(always)]
        unsafe fn $name(self) -> f32 {
            // SAFETY: the trait's contract is that the caller runs on a processor with these instructions.
            unsafe {
                let (low, high) = self.halves();
                let eight = $eight(low, high);
                let four = $four(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
                let two = $four(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32($one(two, _mm_movehdup_ps(two)))
            }
        }
    )*};
}
#[cfg(target_arch = "x86_64")]
use trees;

/// Sixteen f32.
///
/// # Safety
/// Every function needs a processor with the level's instructions; pointers must be good for 16 values.
pub(super) trait Lanes: Copy {
    /// Rows of the largest register tile.
    const ROWS_MAX: usize;
    /// Vectors of 16 columns in a register tile.
    const VECTORS: usize;

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
    /// Stores the lowest byte of each lane, 16 bytes.
    #[inline(always)]
    unsafe fn store_low_bytes(self, to: *mut u8) {
        let mut plain = [0.0f32; LANES];
        // SAFETY: the array has 16 values, and the caller promises room for 16 bytes.
        unsafe {
            self.store(plain.as_mut_ptr());
            to.cast::<[u8; LANES]>().write_unaligned(plain.map(|value| value.to_bits() as u8));
        }
    }

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

/// Format of factors in a 32-bit word: one f32, or two bf16 that are neighbours along the reduction.
///
/// # Safety
/// As for [`Lanes`].
pub(super) trait Format {
    type Lanes: Lanes;
    /// Sixteen words of the right side, ready to be multiplied.
    type Words: Copy;
    /// Values in a word.
    const PER_WORD: usize;

    unsafe fn load(from: *const u32) -> Self::Words;
    /// `acc + left · right` for one word of the left side against 16 of the right; of a pair, the odd product first.
    unsafe fn mac(acc: Self::Lanes, left: u32, right: Self::Words) -> Self::Lanes;
    /// Stores 16 values as `16 / PER_WORD` words, rounded to the format; returns the rounded values.
    unsafe fn store_words(values: Self::Lanes, to: *mut u32) -> Self::Lanes;
}

/// Single f32. The fused multiply-add is a library call where the target has no such instruction: slow, same bits.
pub(super) struct F32Words<L>(PhantomData<L>);

impl<L: Lanes> Format for F32Words<L> {
    type Lanes = L;
    type Words = L;
    const PER_WORD: usize = 1;

    #[inline(always)]
    unsafe fn load(from: *const u32) -> L {
        // SAFETY: the caller's promise, here and below; words are f32.
        unsafe { L::load(from.cast()) }
    }
    #[inline(always)]
    unsafe fn mac(acc: L, left: u32, right: L) -> L {
        // SAFETY: as above.
        unsafe { L::splat(f32::from_bits(left)).mul_add(right, acc) }
    }
    #[inline(always)]
    unsafe fn store_words(values: L, to: *mut u32) -> L {
        // SAFETY: as above.
        unsafe { values.store(to.cast()) };
        values
    }
}

/// Writes 16 values as 8 pairs of bf16, for levels without an instruction for that.
#[inline(always)]
unsafe fn write_bf16_pairs(values: &[f32; LANES], to: *mut u32) {
    for (i, [even, odd]) in values.as_chunks::<2>().0.iter().enumerate() {
        // SAFETY: the caller promises room for 8 words.
        unsafe { to.add(i).write(bf16_pair(*even, *odd)) };
    }
}

/// A format to which integers of 8 bits can be widened exactly.
///
/// # Safety
/// As for [`Lanes`].
pub(super) trait Widen: Format {
    /// Widens twice 32 integers to twice 16 words: pairs of integers become pairs of values.
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

/// Sums of a product over a chunk of `k`: their beginning, the addition of a word, their value in f32.
///
/// # Safety
/// As for [`Lanes`].
pub(super) trait ChunkFormat {
    type Lanes: Lanes;
    /// Sixteen running sums of one row.
    type Sums: Copy;
    /// Sixteen words of the right side, ready to be multiplied.
    type Words: Copy;
    /// Words of the left side before each chunk of a row.
    const HEAD_WORDS: usize;

    unsafe fn load(from: *const u32) -> Self::Words;
    /// Initial sums of a row; `head` is the first of its head words.
    unsafe fn begin(head: *const u32) -> Self::Sums;
    /// `sums + left · right` for one word of the left side against 16 of the right.
    unsafe fn add(sums: Self::Sums, left: u32, right: Self::Words) -> Self::Sums;
    /// Value of the sums. Head words are `stride` apart; `scales` are those of the 16 columns, if there are any.
    unsafe fn end(sums: Self::Sums, head: *const u32, stride: usize, scales: *const f32) -> Self::Lanes;
}

/// Sums of floating-point formats are their own values.
impl<F: Format> ChunkFormat for F {
    type Lanes = F::Lanes;
    type Sums = F::Lanes;
    type Words = F::Words;
    const HEAD_WORDS: usize = 0;

    #[inline(always)]
    unsafe fn load(from: *const u32) -> F::Words {
        // SAFETY: the caller's promise, here and below.
        unsafe { <F as Format>::load(from) }
    }
    #[inline(always)]
    unsafe fn begin(_: *const u32) -> F::Lanes {
        // SAFETY: as above.
        unsafe { F::Lanes::splat(0.0) }
    }
    #[inline(always)]
    unsafe fn add(sums: F::Lanes, left: u32, right: F::Words) -> F::Lanes {
        // SAFETY: as above.
        unsafe { F::mac(sums, left, right) }
    }
    #[inline(always)]
    unsafe fn end(sums: F::Lanes, _: *const u32, _: usize, _: *const f32) -> F::Lanes {
        sums
    }
}

/// Sums of products of int8, four to a word: exact in i32, whatever the level.
///
/// The right side holds bytes `w + 128`, the left side bytes `q`. The head of a chunk is `-128 · Σ q`, the initial sum,
/// and the scale of the chunk; so the final sum is `Σ w · q`.
///
/// # Safety
/// As for [`Lanes`].
pub(super) trait Int8Sums: Copy {
    type Lanes: Lanes;
    type Words: Copy;

    unsafe fn load(from: *const u32) -> Self::Words;
    unsafe fn splat(value: i32) -> Self;
    /// `self + Σ left[j] · right[j]` over the four bytes of a word; sums wrap around.
    unsafe fn add(self, left: u32, right: Self::Words) -> Self;
    /// Rounds to f32, ties to even.
    unsafe fn to_f32(self) -> Self::Lanes;
}

/// Four int8 in a word.
pub(super) struct Int8Quads<S>(PhantomData<S>);

impl<S: Int8Sums> ChunkFormat for Int8Quads<S> {
    type Lanes = S::Lanes;
    type Sums = S;
    type Words = S::Words;
    const HEAD_WORDS: usize = INT8_HEAD_WORDS;

    #[inline(always)]
    unsafe fn load(from: *const u32) -> S::Words {
        // SAFETY: the caller's promise, here and below.
        unsafe { S::load(from) }
    }
    #[inline(always)]
    unsafe fn begin(head: *const u32) -> S {
        // SAFETY: as above.
        unsafe { S::splat((*head).cast_signed()) }
    }
    #[inline(always)]
    unsafe fn add(sums: S, left: u32, right: S::Words) -> S {
        // SAFETY: as above.
        unsafe { S::add(sums, left, right) }
    }
    #[inline(always)]
    unsafe fn end(sums: S, head: *const u32, stride: usize, scales: *const f32) -> S::Lanes {
        // SAFETY: as above; the head has two words.
        unsafe {
            let of_chunk = S::Lanes::splat(f32::from_bits(*head.add(stride)));
            sums.to_f32().mul(of_chunk).mul(S::Lanes::load(scales))
        }
    }
}

/// Initial sum and scale.
pub(super) const INT8_HEAD_WORDS: usize = 2;
