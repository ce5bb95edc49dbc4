//! Rounding to int8 with a scale, for products with int8 weights.

use super::ROUND_TO_INTEGER;

/// Smallest magnitude (2^-100); smaller ones count as 0, so that no scale or inverse leaves the range of f32.
const MAGNITUDE_MIN: f32 = f32::from_bits((127 - 100) << 23);
/// The largest int8 in use; -128 is not, so that both signs have equal range.
const INT8_MAX: f32 = 127.0;

/// A symmetric scale: `x` is stored as `round(x * inverse)`, a stored `q` means `q * scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Int8Scale {
    /// Value of one step.
    pub scale: f32,
    /// Steps per unit: the inverse of `scale`.
    pub inverse: f32,
}

impl Int8Scale {
    /// Scale for values whose largest magnitude is `magnitude`.
    #[inline(always)]
    pub fn of(magnitude: f32) -> Self {
        if magnitude < MAGNITUDE_MIN {
            return Self { scale: 0.0, inverse: 0.0 };
        }
        Self { scale: magnitude / INT8_MAX, inverse: INT8_MAX / magnitude }
    }

    /// Scale of a row of weights.
    pub fn of_values(values: &[f32]) -> Self {
        Self::of(values.iter().fold(0.0, |largest: f32, v| if v.abs() > largest { v.abs() } else { largest }))
    }

    /// Scale of one chunk of activations. An infinite value or a NaN makes it NaN, and so the whole result: rounding
    /// alone would hide it.
    pub fn of_activations(values: &[f32]) -> Self {
        let scale = Self::of_values(values);
        match values.iter().all(|v| v.is_finite()) {
            true => scale,
            false => Self { scale: f32::NAN, ..scale },
        }
    }

    /// The nearest int8, ties to even.
    #[inline(always)]
    pub fn quantize(self, x: f32) -> i8 {
        // The sum's lowest bits are the integer.
        (x * self.inverse + ROUND_TO_INTEGER).to_bits() as i8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_of_255_steps() {
        let scale = Int8Scale::of_values(&[-0.5, 3.0, 2.0]);
        for step in -3000..=3000 {
            let x = step as f32 / 1000.0;
            let q = scale.quantize(x);
            assert!((f32::from(q) * scale.scale - x).abs() <= scale.scale * 0.500_01, "{x} became {q}");
        }
        assert_eq!((scale.quantize(3.0), scale.quantize(-3.0), scale.quantize(0.0)), (127, -127, 0));
    }

    #[test]
    fn no_magnitude_leaves_the_range() {
        for magnitude in [0.0, 1e-45, 1e-31, 1e-30, 1.0, 1e30, f32::MAX] {
            let scale = Int8Scale::of(magnitude);
            assert!(scale.scale.is_finite() && scale.inverse.is_finite(), "{magnitude}");
            assert!(matches!(scale.quantize(magnitude), 0 | 127), "{magnitude}");
        }
    }

    #[test]
    fn what_is_not_finite_shows() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(Int8Scale::of_activations(&[1.0, value, 2.0]).scale.is_nan());
        }
        assert_eq!(Int8Scale::of_activations(&[1.0, 127.0]).scale, 1.0);
    }
}
