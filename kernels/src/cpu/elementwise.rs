//! Norms, rotations and sums of single heads and rows, in place; the same source for every instruction level.

use crate::numerics::Standardize;

/// `x = x / sqrt(mean(x²) + eps) * weight`.
#[inline(always)]
pub(super) fn rms_norm_in_place(x: &mut [f32], weight: &[f32], eps: f32) {
    let standard = Standardize::rms(x, eps);
    for (x, weight) in x.iter_mut().zip(weight) {
        *x = standard.apply(*x) * weight;
    }
}

/// `out = out + (x (+ bias))`.
#[inline(always)]
pub(super) fn add(x: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
    match bias {
        None => out.iter_mut().zip(x).for_each(|(out, x)| *out += x),
        Some(bias) => out.iter_mut().zip(x).zip(bias).for_each(|((out, x), bias)| *out += x + bias),
    }
}

/// Rotates the pairs (i, i + half) of one head by the angles of one position.
#[inline(always)]
pub(super) fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (low, high) = head.split_at_mut(head.len() / 2);
    for (((a, b), c), s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
        let (x, y) = (*a, *b);
        *a = x.mul_add(*c, -(y * *s));
        *b = y.mul_add(*c, x * *s);
    }
}
