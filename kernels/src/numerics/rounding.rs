//! Rounding to bf16 and the pairs that bf16 products take.

use half::bf16;

/// Rounds to bf16, ties to even, and widens again.
#[inline(always)]
pub fn round_to_bf16(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

/// Two values as one word of bf16, the first in the low half.
#[inline(always)]
pub fn bf16_pair(first: f32, second: f32) -> u32 {
    u32::from(bf16::from_f32(first).to_bits()) | u32::from(bf16::from_f32(second).to_bits()) << 16
}
