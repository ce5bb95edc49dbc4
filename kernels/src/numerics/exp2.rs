//! An exp2 of our own and functions built on it: results do not depend on a maths library.

/// Coefficients of f¹ to f⁶ in 2^f ≈ 1 + …, |f| ≤ 1/2: interpolation of (2^f − 1)/f at Chebyshev nodes, so that
/// 2^0 is exactly 1. Relative error below 1e-8 before rounding.
pub(crate) const COEFFICIENTS: [f32; 6] =
    [std::f32::consts::LN_2, 0.240_226_5, 0.055_503_57, 0.009_618_083, 0.001_339_086_3, 0.000_154_531_63];
/// Adding and subtracting 1.5 · 2^23 rounds to the nearest integer, ties to even.
pub(crate) const ROUND_TO_INTEGER: f32 = 12_582_912.0;
/// Below this exponent the result is 0, so that no weight is subnormal.
pub(crate) const ZERO_BELOW: f32 = -100.0;
/// Largest exponent; larger ones are clamped to it.
pub(crate) const EXP2_MAX: f32 = 127.0;
pub(crate) const LOG2_E: f32 = std::f32::consts::LOG2_E;

/// 2^t; 0 below −100, 2^127 above 127, exactly 1 at 0; NaN stays NaN.
#[inline(always)]
pub fn exp2(t: f32) -> f32 {
    let t = if EXP2_MAX < t { EXP2_MAX } else { t };
    let shifted = t + ROUND_TO_INTEGER;
    let f = t - (shifted - ROUND_TO_INTEGER);
    let mut p = COEFFICIENTS[5];
    for i in (0..5).rev() {
        p = p.mul_add(f, COEFFICIENTS[i]);
    }
    p = p.mul_add(f, 1.0);
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    let result = p * power;
    if t < ZERO_BELOW { 0.0 } else { result }
}

/// x / (1 + e^−x).
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp2(x * -LOG2_E))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp2_is_close_everywhere_and_exact_at_integers() {
        for n in -100..=127 {
            assert_eq!(exp2(n as f32), (n as f32).exp2(), "2^{n}");
        }
        for step in 0..100_000 {
            let t = -100.0 + step as f32 * 0.002;
            let relative = (f64::from(exp2(t)) / f64::from(t).exp2() - 1.0).abs();
            assert!(relative < 2e-7, "2^{t}: off by {relative}");
        }
    }

    #[test]
    fn exp2_at_the_edges() {
        assert_eq!(exp2(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp2(-100.5), 0.0);
        assert_eq!(exp2(f32::INFINITY), 127f32.exp2());
        assert!(exp2(f32::NAN).is_nan());
        assert_eq!(exp2(-0.0), 1.0);
    }

    #[test]
    fn silu_is_close() {
        for step in 0..20_000 {
            let x = -50.0 + step as f32 * 0.005;
            let exact = f64::from(x) / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(silu(x)) - exact).abs() < 1e-6 * exact.abs().max(1e-3), "silu({x})");
        }
    }
}
