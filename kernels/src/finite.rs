//! Search for infinite numbers and NaN in the weights of a model file; knows no shape.

use crate::Dtype;

/// Elements per step of the search: without an early exit the loop over them vectorises.
const BLOCK_ELEMENTS: usize = 4096;

/// Index of the first element of `bytes` that is not finite, that is, whose exponent bits are all ones.
pub(crate) fn first_not_finite(bytes: &[u8], dtype: Dtype) -> Option<usize> {
    match dtype {
        Dtype::Bf16 => first(bytes, |raw| u16::from_le_bytes(raw) & 0x7f80 == 0x7f80),
        Dtype::F16 => first(bytes, |raw| u16::from_le_bytes(raw) & 0x7c00 == 0x7c00),
        Dtype::F32 => first(bytes, |raw| u32::from_le_bytes(raw) & 0x7f80_0000 == 0x7f80_0000),
    }
}

fn first<const BYTES: usize>(bytes: &[u8], is_not_finite: impl Fn([u8; BYTES]) -> bool) -> Option<usize> {
    let blocks = bytes.as_chunks::<BYTES>().0.chunks(BLOCK_ELEMENTS);
    let mut before = 0;
    for block in blocks {
        if block.iter().fold(false, |any, raw| any | is_not_finite(*raw)) {
            return block.iter().position(|raw| is_not_finite(*raw)).map(|index| before + index);
        }
        before += block.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn the_first_one_is_found_in_every_format() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for index in [0, 1, 4095, 4096, 9_998] {
                let mut values = vec![f32::MAX; 10_000];
                values[index] = bad;
                values[9_999] = bad;
                let half_values = values.iter().map(|v| if v.is_finite() { f16::MAX } else { f16::from_f32(*v) });
                let wide: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                let half: Vec<u8> = half_values.flat_map(f16::to_le_bytes).collect();
                let brain: Vec<u8> =
                    values.iter().flat_map(|v| bf16::from_bits((v.to_bits() >> 16) as u16).to_le_bytes()).collect();
                assert_eq!(first_not_finite(&wide, Dtype::F32), Some(index));
                assert_eq!(first_not_finite(&half, Dtype::F16), Some(index));
                assert_eq!(first_not_finite(&brain, Dtype::Bf16), Some(index));
            }
        }
    }

    #[test]
    fn every_finite_number_is_left_alone() {
        let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for raw in all.as_chunks::<2>().0 {
            let (half, brain) = (f16::from_le_bytes(*raw), bf16::from_le_bytes(*raw));
            assert_eq!(first_not_finite(raw, Dtype::F16).is_none(), half.is_finite(), "{half}");
            assert_eq!(first_not_finite(raw, Dtype::Bf16).is_none(), brain.is_finite(), "{brain}");
        }
        assert_eq!(first_not_finite(&[], Dtype::F32), None);
    }
}
