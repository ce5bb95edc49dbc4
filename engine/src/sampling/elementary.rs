//! exp and ln whose bits depend on the argument only; the platform's libm chooses variants per processor.

/// Arguments below this give 0: the result would be subnormal.
const EXP_ARGUMENT_MIN: f32 = -87.0;

/// e^x for x ≤ 0, within 2 units in the last place; 1 exactly at 0. Written so that the compiler vectorises it.
#[must_use]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding and then subtracting this rounds to a whole number.
    const ROUNDER: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.max(EXP_ARGUMENT_MIN);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUNDER;
    let whole = shifted - ROUNDER;
    let rest = clamped - whole * LN2_HIGH - whole * LN2_LOW;
    let polynomial = TAYLOR.iter().fold(1.388_888_9e-3, |sum, coefficient| sum * rest + coefficient);
    // The low bits of `shifted` hold the whole number, so the power of two needs no conversion.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < EXP_ARGUMENT_MIN { 0.0 } else { polynomial * power }
}

/// 1/5!, 1/4!, ... 1/0!; 1/6! starts the fold.
const TAYLOR: [f32; 6] = [8.333_334e-3, 4.166_666_8e-2, 1.666_666_7e-1, 0.5, 1.0, 1.0];

/// Natural logarithm of a normal number above 0.
#[must_use]
pub(super) fn ln(x: f64) -> f64 {
    const TERMS: u32 = 14;
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) as i64 - 1023) as f64;
    let mut mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1.0;
    }
    // ln m = 2 artanh((m - 1) / (m + 1)), a series in odd powers of a number below 0.172.
    let ratio = (mantissa - 1.0) / (mantissa + 1.0);
    let square = ratio * ratio;
    let series = (0..TERMS).rev().fold(0.0, |sum, term| sum * square + 1.0 / f64::from(2 * term + 1));
    exponent * std::f64::consts::LN_2 + 2.0 * ratio * series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_everywhere_and_exact_at_zero() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!((exp(-88.0), exp(f32::NEG_INFINITY)), (0.0, 0.0));
        for step in 0..87_000 {
            let x = -(step as f32) * 1e-3;
            let expected = f64::from(x).exp();
            assert!((f64::from(exp(x)) / expected - 1.0).abs() < 3e-7, "exp({x}) = {}", exp(x));
        }
    }

    #[test]
    fn ln_is_close_everywhere() {
        for step in 1..100_000 {
            let x = f64::from(step) * 1.7;
            assert!((ln(x) - x.ln()).abs() < 1e-13, "ln({x}) = {}", ln(x));
        }
        assert_eq!(ln(1.0), 0.0);
    }
}
