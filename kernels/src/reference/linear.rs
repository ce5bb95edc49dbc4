//! Rows and elements of products with weights, in the documented order.

use super::{Matrix, ReferenceOps};
use crate::numerics::{Int8Scale, K_CHUNKS, STEP_PRODUCTS, Standardize, k_padded, round_to_bf16, tree_of_chunks};
use crate::{Dtype, Left, Norm, NormKind};

pub(super) fn row(left: Left<'_, ReferenceOps>, r: usize) -> Vec<f32> {
    let x = left.rows.row(r);
    left.norm.map_or_else(|| x.to_vec(), |norm| normed(x, norm))
}

fn normed(x: &[f32], norm: Norm<'_, ReferenceOps>) -> Vec<f32> {
    let standard = match norm.kind {
        NormKind::Rms => Standardize::rms(x, norm.eps),
        NormKind::Layer => Standardize::layer(x, norm.eps),
    };
    let weighted = x.iter().zip(&norm.weight.0).map(|(v, weight)| standard.apply(*v) * weight);
    match norm.bias {
        None => weighted.collect(),
        Some(bias) => weighted.zip(&bias.0).map(|(v, bias)| v + bias).collect(),
    }
}

/// Computes one output element: chunk sums from left to right, eight or a shard's share, then the tree.
pub(super) fn dot(x: &[f32], w: &Matrix, n: usize) -> f32 {
    let w_row = &w.data[n * w.k..][..w.k];
    let at = |values: &[f32], i: usize| values.get(i).copied().unwrap_or(0.0);
    let chunks = w.arrangement.chunks();
    let chunk = k_padded(w.k) / chunks;
    let sum_of_chunk = |c: usize| {
        let range = c * chunk..(c + 1) * chunk;
        if let Some(scales) = &w.scales {
            let x: Vec<f32> = range.clone().map(|i| at(x, i)).collect();
            let scale = Int8Scale::of_activations(&x);
            // At most 2^17 products of at most 127²: exact.
            let sum: i32 = x.iter().zip(range).map(|(x, i)| i32::from(scale.quantize(*x)) * at(w_row, i) as i32).sum();
            return (sum as f32 * scale.scale) * scales[n];
        }
        match w.dtype {
            Dtype::Bf16 => w
                .pairs
                .sum(chunk, STEP_PRODUCTS, |i| round_to_bf16(at(x, range.start + i)) * at(w_row, range.start + i)),
            Dtype::F16 | Dtype::F32 => range.fold(0.0f32, |sum, i| at(x, i).mul_add(at(w_row, i), sum)),
        }
    };
    let sums: [f32; K_CHUNKS] = std::array::from_fn(|c| if c < chunks { sum_of_chunk(c) } else { 0.0 });
    tree_of_chunks(&sums[..chunks])
}
