//! AVX2 with FMA: two registers hold 16 lanes; bf16 is widened on the way.

use std::arch::x86_64::*;

use super::{Format, Int8Sums, Lanes, Widen};
use crate::numerics::bf16_pair;

/// Sixteen f32 in two registers.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct F32x16(__m256, __m256);

/// Applies one 8-lane instruction to both halves.
macro_rules! halves {
    ($f:ident, $a:expr, $b:expr) => {
        // SAFETY: the trait's contract is that the caller runs on a processor with AVX2 and FMA.
        unsafe { F32x16($f($a.0, $b.0), $f($a.1, $b.1)) }
    };
}

// SAFETY of every block below: the trait's contract is that the caller runs on a processor with these instructions and
// that pointers are good for 16 values; the instructions themselves have no other precondition.
impl Lanes for F32x16 {
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
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        halves!(_mm256_add_ps, self, other)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        halves!(_mm256_sub_ps, self, other)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        halves!(_mm256_mul_ps, self, other)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        halves!(_mm256_div_ps, self, other)
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1)) }
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        halves!(_mm256_max_ps, self, other)
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        halves!(_mm256_min_ps, self, other)
    }
    #[inline(always)]
    unsafe fn zero_where_below(self, bound: Self, value: Self) -> Self {
        // SAFETY: see above.
        let keep = unsafe {
            Self(_mm256_cmp_ps::<_CMP_NLT_UQ>(self.0, bound.0), _mm256_cmp_ps::<_CMP_NLT_UQ>(self.1, bound.1))
        };
        halves!(_mm256_and_ps, keep, value)
    }
    #[inline(always)]
    unsafe fn power_of_shifted(self) -> Self {
        // SAFETY: see above.
        unsafe { Self(power_of_half(self.0), power_of_half(self.1)) }
    }
    #[inline(always)]
    unsafe fn tree_sum(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let eight = _mm256_add_ps(self.0, self.1);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    unsafe fn tree_max(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let eight = _mm256_max_ps(self.0, self.1);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    unsafe fn store_low_bytes(self, to: *mut u8) {
        let mut plain = [0.0f32; 16];
        // SAFETY: the array has 16 values, and the caller promises room for 16 bytes.
        unsafe {
            self.store(plain.as_mut_ptr());
            to.cast::<[u8; 16]>().write_unaligned(plain.map(|value| value.to_bits() as u8));
        }
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
    const ROWS_MAX: usize = 4;
    const VECTORS: usize = 1;

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

/// The even and the odd values of 16 pairs.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Widened {
    even: F32x16,
    odd: F32x16,
}

impl Format for Bf16Pairs {
    type Lanes = F32x16;
    type Words = Widened;
    const PER_WORD: usize = 2;
    const ROWS_MAX: usize = 4;
    const VECTORS: usize = 1;

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
        unsafe { values.store(plain.as_mut_ptr()) };
        let (pairs, _) = plain.as_chunks::<2>();
        for (i, [even, odd]) in pairs.iter().enumerate() {
            // SAFETY: the caller promises room for 8 words.
            unsafe { to.add(i).write(bf16_pair(*even, *odd)) };
        }
        for value in &mut plain {
            *value = crate::numerics::round_to_bf16(*value);
        }
        // SAFETY: see above; the array has 16 values.
        unsafe { F32x16::load(plain.as_ptr()) }
    }
}

impl Widen for Bf16Pairs {}

/// Single f32.
pub(in crate::cpu) struct F32Words;

impl Format for F32Words {
    type Lanes = F32x16;
    type Words = F32x16;
    const PER_WORD: usize = 1;
    const ROWS_MAX: usize = 4;
    const VECTORS: usize = 1;

    #[inline(always)]
    unsafe fn load(from: *const u32) -> F32x16 {
        // SAFETY: see above.
        unsafe { F32x16::load(from.cast()) }
    }
    #[inline(always)]
    unsafe fn mac(acc: F32x16, left: u32, right: F32x16) -> F32x16 {
        // SAFETY: see above.
        unsafe { F32x16::splat(f32::from_bits(left)).mul_add(right, acc) }
    }
    #[inline(always)]
    unsafe fn store_words(values: F32x16, to: *mut u32) -> F32x16 {
        // SAFETY: see above.
        unsafe { values.store(to.cast()) };
        values
    }
}
