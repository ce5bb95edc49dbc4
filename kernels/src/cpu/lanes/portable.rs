//! Plain arrays, which the compiler vectorises for the target.

use super::{Format, Int8Sums, Lanes, Widen, write_bf16_pairs};
use crate::numerics::{LANES, lane_tree_max, lane_tree_sum, round_to_bf16};

#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::cpu) struct F32x16(pub(super) [f32; LANES]);

impl F32x16 {
    #[inline(always)]
    fn zip(mut self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        for (lane, other) in self.0.iter_mut().zip(other.0) {
            *lane = f(*lane, other);
        }
        self
    }
}

/// Defines methods that do the same in each lane.
macro_rules! lane_by_lane {
    ($($name:ident = $of_lane:expr;)*) => {$(
        #[inline(always)]
        unsafe fn $name(self, other: Self) -> Self {
            self.zip(other, $of_lane)
        }
    )*};
}

impl Lanes for F32x16 {
    const ROWS_MAX: usize = 2;
    const VECTORS: usize = 1;

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
    lane_by_lane! {
        add = |a, b| a + b;
        sub = |a, b| a - b;
        mul = |a, b| a * b;
        div = |a, b| a / b;
        max = |a, b| if a > b { a } else { b };
        min = |a, b| if a < b { a } else { b };
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].mul_add(b.0[i], c.0[i])))
    }
    #[inline(always)]
    unsafe fn zero_where_below(self, bound: Self, value: Self) -> Self {
        Self(std::array::from_fn(|i| if self.0[i] < bound.0[i] { 0.0 } else { value.0[i] }))
    }
    #[inline(always)]
    unsafe fn power_of_shifted(self) -> Self {
        self.zip(self, |shifted, _| f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23)))
    }
    #[inline(always)]
    unsafe fn tree_sum(self) -> f32 {
        lane_tree_sum(self.0)
    }
    #[inline(always)]
    unsafe fn tree_max(self) -> f32 {
        lane_tree_max(self.0)
    }
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::cpu) struct I32x16([i32; LANES]);

impl Int8Sums for I32x16 {
    type Lanes = F32x16;
    type Words = [u32; LANES];

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

/// Pairs of bf16. Their products are exact in f32, so separate multiplications and additions round like fused ones.
pub(in crate::cpu) struct Bf16Pairs;

impl Format for Bf16Pairs {
    type Lanes = F32x16;
    type Words = [u32; LANES];
    const PER_WORD: usize = 2;

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
        // SAFETY: the caller promises room for 8 words.
        unsafe { write_bf16_pairs(&values.0, to) };
        values.zip(values, |value, _| round_to_bf16(value))
    }
}

impl Widen for Bf16Pairs {}

pub(in crate::cpu) type F32Words = super::F32Words<F32x16>;
