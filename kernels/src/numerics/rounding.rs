//! Rounding to bf16 and the pairs that bf16 products take.

/// Rounds to bf16, ties to even, and widens again.
#[inline(always)]
pub fn round_to_bf16(x: f32) -> f32 {
    f32::from_bits(bf16_bits(x) << 16)
}

/// Packs two values into one word of bf16, the first in the low half.
#[inline(always)]
pub fn bf16_pair(first: f32, second: f32) -> u32 {
    bf16_bits(first) | bf16_bits(second) << 16
}

/// Bits of `x` rounded to bf16, ties to even; a NaN stays a (quiet) NaN. Without branches, so that loops vectorise.
#[inline(always)]
pub(crate) fn bf16_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if x.is_nan() { bits >> 16 | 0x40 } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_as_the_half_crate_does() {
        for high in 0..=u16::MAX {
            for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let x = f32::from_bits(u32::from(high) << 16 | low);
                assert_eq!(bf16_bits(x), u32::from(half::bf16::from_f32(x).to_bits()), "{x:e}");
            }
        }
        assert_eq!(bf16_pair(1.0, -2.0), 0xc000_3f80);
    }
}
