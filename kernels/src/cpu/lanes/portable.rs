//! Plain arrays that the compiler vectorises for whatever the target has.

use super::{Format, Int8Sums, Lanes, Widen};
use crate::numerics::{LANES, bf16_pair, lane_tree_max, lane_tree_sum, round_to_bf16};

/// Sixteen f32 in an array.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::cpu) struct F32x16(pub(super) [f32; LANES]);

impl F32x16 {
    #[inline(always)]
    fn map(mut self, f: impl Fn(f32) -> f32) -> Self {
        for lane in &mut self.0 {
            *lane = f(*lane);
        }
        self
    }

    #[inline(always)]
    fn zip(mut self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        for (lane, other) in self.0.iter_mut().zip(other.0) {
            *lane = f(*lane, other);
        }
        self
    }
}

impl Lanes for F32x16 {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; LANES])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller promises 16 values.
        Self(unsafe { from.cast::<[f32; LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller promises room for 16 values.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].mul_add(b.0[i], c.0[i])))
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn zero_where_below(self, bound: Self, value: Self) -> Self {
        Self(std::array::from_fn(|i| if self.0[i] < bound.0[i] { 0.0 } else { value.0[i] }))
    }
    #[inline(always)]
    unsafe fn power_of_shifted(self) -> Self {
        self.map(|shifted| f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23)))
    }
    #[inline(always)]
    unsafe fn tree_sum(self) -> f32 {
        lane_tree_sum(self.0)
    }
    #[inline(always)]
    unsafe fn tree_max(self) -> f32 {
        lane_tree_max(self.0)
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

/// Sixteen i32 in an array.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::cpu) struct I32x16([i32; LANES]);

impl Int8Sums for I32x16 {
    type Lanes = F32x16;
    type Words = [u32; LANES];
    const ROWS_MAX: usize = 2;
    const VECTORS: usize = 1;

    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self::Words {
        // SAFETY: the caller promises 16 words.
        unsafe { from.cast::<Self::Words>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn splat(value: i32) -> Self {
        Self([value; LANES])
    }
    #[inline(always)]
    unsafe fn add(mut self, left: u32, right: Self::Words) -> Self {
        for (sum, word) in self.0.iter_mut().zip(right) {
            for shift in [0, 8, 16, 24] {
                let (q, w) = ((left >> shift) as i8, (word >> shift) as u8);
                *sum = sum.wrapping_add(i32::from(q) * i32::from(w));
            }
        }
        self
    }
    #[inline(always)]
    unsafe fn to_f32(self) -> F32x16 {
        F32x16(self.0.map(|sum| sum as f32))
    }
}

/// Pairs of bf16. Their products are exact in f32, so multiplying and adding apart is the same as together.
pub(in crate::cpu) struct Bf16Pairs;

impl Format for Bf16Pairs {
    type Lanes = F32x16;
    type Words = [u32; LANES];
    const PER_WORD: usize = 2;
    const ROWS_MAX: usize = 2;
    const VECTORS: usize = 1;

    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self::Words {
        // SAFETY: the caller promises 16 words.
        unsafe { from.cast::<Self::Words>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn mac(mut acc: F32x16, left: u32, right: Self::Words) -> F32x16 {
        let (even, odd) = (f32::from_bits(left << 16), f32::from_bits(left & 0xffff_0000));
        for (sum, pair) in acc.0.iter_mut().zip(right) {
            *sum += odd * f32::from_bits(pair & 0xffff_0000);
            *sum += even * f32::from_bits(pair << 16);
        }
        acc
    }
    #[inline(always)]
    unsafe fn store_words(values: F32x16, to: *mut u32) -> F32x16 {
        let (pairs, _) = values.0.as_chunks::<2>();
        for (i, [even, odd]) in pairs.iter().enumerate() {
            // SAFETY: the caller promises room for 8 words.
            unsafe { to.add(i).write(bf16_pair(*even, *odd)) };
        }
        values.map(round_to_bf16)
    }
}

impl Widen for Bf16Pairs {}

/// Single f32. The fused multiply-add is a library call where the target has no such instruction: slow, same bits.
pub(in crate::cpu) struct F32Words;

impl Format for F32Words {
    type Lanes = F32x16;
    type Words = F32x16;
    const PER_WORD: usize = 1;
    const ROWS_MAX: usize = 2;
    const VECTORS: usize = 1;

    #[inline(always)]
    unsafe fn load(from: *const u32) -> F32x16 {
        // SAFETY: the caller promises 16 words, which are f32.
        unsafe { F32x16::load(from.cast()) }
    }
    #[inline(always)]
    unsafe fn mac(acc: F32x16, left: u32, right: F32x16) -> F32x16 {
        // SAFETY: plain code needs no instructions.
        unsafe { F32x16::splat(f32::from_bits(left)).mul_add(right, acc) }
    }
    #[inline(always)]
    unsafe fn store_words(values: F32x16, to: *mut u32) -> F32x16 {
        // SAFETY: the caller promises room for 16 words.
        unsafe { values.store(to.cast()) };
        values
    }
}
