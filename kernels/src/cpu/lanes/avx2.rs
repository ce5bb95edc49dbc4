//! AVX2 with FMA: two registers hold 16 lanes; bf16 is widened on the way.

use std::arch::x86_64::*;

use super::{Format, Int8Sums, Lanes, Widen, trees, write_bf16_pairs};
use crate::numerics::round_to_bf16;

#[derive(Clone, Copy)]
pub(in crate::cpu) struct F32x16(__m256, __m256);

impl F32x16 {
    #[inline(always)]
    fn halves(self) -> (__m256, __m256) {
        (self.0, self.1)
    }
}

/// Defines methods of one 8-lane instruction each, applied to both halves.
macro_rules! instructions {
    ($($name:ident($($argument:ident),*) = $instruction:ident;)*) => {$(
        #[inline(always)]
        unsafe fn $name(self, $($argument: Self),*) -> Self {
            // SAFETY: as below.
            unsafe { Self($instruction(self.0, $($argument.0),*), $instruction(self.1, $($argument.1),*)) }
        }
    )*};
}

// SAFETY of every block below: the trait's contract is that the caller runs on a processor with these instructions and
// that pointers are good for 16 values; the instructions themselves have no other precondition.
impl Lanes for F32x16 {
    const ROWS_MAX: usize = 4;
    const VECTORS: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: see above.
        let half = unsafe { _mm256_set1_ps(value) };
        Self(half, half)
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe {
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.add(8), self.1);
        }
    }
    instructions! {
        add(other) = _mm256_add_ps;
        sub(other) = _mm256_sub_ps;
        mul(other) = _mm256_mul_ps;
        div(other) = _mm256_div_ps;
        mul_add(b, c) = _mm256_fmadd_ps;
        max(other) = _mm256_max_ps;
        min(other) = _mm256_min_ps;
    }
    #[inline(always)]
    unsafe fn zero_where_below(self, bound: Self, value: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let low = _mm256_and_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(self.0, bound.0), value.0);
            let high = _mm256_and_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(self.1, bound.1), value.1);
            Self(low, high)
        }
    }
    #[inline(always)]
    unsafe fn power_of_shifted(self) -> Self {
        // SAFETY: see above.
        unsafe { Self(power_of_half(self.0), power_of_half(self.1)) }
    }
    trees! {
        tree_sum = _mm256_add_ps, _mm_add_ps, _mm_add_ss;
        tree_max = _mm256_max_ps, _mm_max_ps, _mm_max_ss;
    }
}

#[inline(always)]
unsafe fn power_of_half(shifted: __m256) -> __m256 {
    // SAFETY: called where the level's instructions are promised.
    unsafe {
        let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
        _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(127 << 23)))
    }
}

/// Sixteen i32 in two registers. Bytes are widened to i16 first: `VPMADDUBSW` would saturate.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct I32x16(__m256i, __m256i);

/// The bytes 0 and 2 of 16 words, and the bytes 1 and 3, each as i16.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct WidenedQuads {
    even: (__m256i, __m256i),
    odd: (__m256i, __m256i),
}

impl Int8Sums for I32x16 {
    type Lanes = F32x16;
    type Words = WidenedQuads;

    #[inline(always)]
    unsafe fn load(from: *const u32) -> WidenedQuads {
        // SAFETY: see above.
        unsafe {
            let low_bytes = _mm256_set1_epi16(0xff);
            let (low, high) = (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(8).cast()));
            WidenedQuads {
                even: (_mm256_and_si256(low, low_bytes), _mm256_and_si256(high, low_bytes)),
                odd: (_mm256_srli_epi16::<8>(low), _mm256_srli_epi16::<8>(high)),
            }
        }
    }
    #[inline(always)]
    unsafe fn splat(value: i32) -> Self {
        // SAFETY: see above.
        let half = unsafe { _mm256_set1_epi32(value) };
        Self(half, half)
    }
    #[inline(always)]
    unsafe fn add(self, left: u32, right: WidenedQuads) -> Self {
        let [b0, b1, b2, b3] = left.to_le_bytes().map(|byte| i32::from(byte.cast_signed()));
        // SAFETY: see above.
        unsafe {
            let (even, odd) = (_mm256_set1_epi32(b0 & 0xffff | b2 << 16), _mm256_set1_epi32(b1 & 0xffff | b3 << 16));
            let add = |sum, evens, odds| {
                let pairs = _mm256_add_epi32(_mm256_madd_epi16(evens, even), _mm256_madd_epi16(odds, odd));
                _mm256_add_epi32(sum, pairs)
            };
            Self(add(self.0, right.even.0, right.odd.0), add(self.1, right.even.1, right.odd.1))
        }
    }
    #[inline(always)]
    unsafe fn to_f32(self) -> F32x16 {
        // SAFETY: see above.
        unsafe { F32x16(_mm256_cvtepi32_ps(self.0), _mm256_cvtepi32_ps(self.1)) }
    }
}

/// Pairs of bf16, widened when they are loaded. Their products are exact, so the fused instruction rounds only the sum.
pub(in crate::cpu) struct Bf16Pairs;

#[derive(Clone, Copy)]
pub(in crate::cpu) struct Widened {
    even: F32x16,
    odd: F32x16,
}

impl Format for Bf16Pairs {
    type Lanes = F32x16;
    type Words = Widened;
    const PER_WORD: usize = 2;

    #[inline(always)]
    unsafe fn load(from: *const u32) -> Widened {
        // SAFETY: see above.
        unsafe {
            let odd_bits = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
            let (low, high) = (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(8).cast()));
            let even_low = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low));
            let even_high = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high));
            let odd_low = _mm256_castsi256_ps(_mm256_and_si256(low, odd_bits));
            let odd_high = _mm256_castsi256_ps(_mm256_and_si256(high, odd_bits));
            Widened { even: F32x16(even_low, even_high), odd: F32x16(odd_low, odd_high) }
        }
    }
    #[inline(always)]
    unsafe fn mac(acc: F32x16, left: u32, right: Widened) -> F32x16 {
        // SAFETY: see above.
        unsafe {
            let sum = F32x16::splat(f32::from_bits(left & 0xffff_0000)).mul_add(right.odd, acc);
            F32x16::splat(f32::from_bits(left << 16)).mul_add(right.even, sum)
        }
    }
    #[inline(always)]
    unsafe fn store_words(values: F32x16, to: *mut u32) -> F32x16 {
        let mut plain = [0.0f32; 16];
        // SAFETY: see above; the array has 16 values.
        unsafe {
            values.store(plain.as_mut_ptr());
            write_bf16_pairs(&plain, to);
            plain.iter_mut().for_each(|value| *value = round_to_bf16(*value));
            F32x16::load(plain.as_ptr())
        }
    }
}

impl Widen for Bf16Pairs {}

pub(in crate::cpu) type F32Words = super::F32Words<F32x16>;
