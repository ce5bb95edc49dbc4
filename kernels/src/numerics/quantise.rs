//! A vector as int8 with one scale, the format of stored keys and values.

use super::Int8Scale;

/// Writes the nearest integers of `values / scale` (ties to even) and returns the scale: the largest magnitude divided
/// by 127. A vector of zeros has scale 0. A vector with an infinite value or a NaN becomes zeros with an infinite or
/// NaN scale, which spreads to its products.
#[inline(always)]
pub fn quantise(values: &[f32], integers: &mut [i8]) -> f32 {
    // The bits of magnitudes are ordered like the magnitudes, infinity and NaN above all numbers.
    let largest = values.iter().fold(0, |largest: u32, value| largest.max(value.to_bits() & 0x7fff_ffff));
    let largest = f32::from_bits(largest);
    let rule = if largest.is_finite() { Int8Scale::of(largest) } else { Int8Scale { scale: largest, inverse: 0.0 } };
    for (integer, value) in integers.iter_mut().zip(values) {
        *integer = if largest.is_finite() { rule.quantize(*value) } else { 0 };
    }
    rule.scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantised(values: &[f32]) -> (Vec<i8>, f32) {
        let mut integers = vec![1; values.len()];
        let scale = quantise(values, &mut integers);
        (integers, scale)
    }

    #[test]
    fn integers_times_the_scale_are_close() {
        let values: Vec<f32> = (0..1000).map(|i| (i * 7919 % 1999) as f32 / 999.0 - 1.0).collect();
        let (integers, scale) = quantised(&values);
        assert_eq!(integers.iter().map(|i| i.unsigned_abs()).max(), Some(127));
        for (value, integer) in values.iter().zip(integers) {
            assert!((value - f32::from(integer) * scale).abs() <= scale * 0.500_1, "{value} became {integer}");
        }
    }

    #[test]
    fn ties_go_to_the_even_integer() {
        assert_eq!(quantised(&[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -127.0]), (vec![127, 0, 2, 2, 0, -2, -127], 1.0));
    }

    #[test]
    fn vectors_without_a_scale_become_zeros() {
        assert_eq!(quantised(&[0.0, -0.0]), (vec![0, 0], 0.0));
        assert_eq!(quantised(&[1e-40, -1e-41]), (vec![0, 0], 0.0));
        assert_eq!(quantised(&[1.0, f32::NEG_INFINITY]), (vec![0, 0], f32::INFINITY));
        let (integers, scale) = quantised(&[f32::NAN, f32::INFINITY, 3.0]);
        assert!(integers == [0, 0, 0] && scale.is_nan());
        assert_eq!(quantised(&[f32::MAX, -f32::MAX]).0, [127, -127]);
    }
}
