//! Products with weights, element by element in the documented order.

use super::{Matrix, ReferenceOps, Rows, Vector};
use crate::checks::{linear_arrangement, linear_parts, same};
use crate::numerics::{Int8Scale, K_CHUNKS, STEP_PRODUCTS, Standardize, k_padded, round_to_bf16, silu, tree_of_chunks};
use crate::{Arrangement, Dtype, Epilogue, KernelError, Left, Norm, NormKind};

pub(super) fn linear(
    left: Left<'_, ReferenceOps>,
    w: &Matrix,
    bias: Option<&Vector>,
    epilogue: Epilogue,
    out: &mut Rows,
) -> Result<(), KernelError> {
    let op = "linear";
    product_arguments(op, left, w, linear_parts(w.arrangement, bias, epilogue)?)?;
    same(op, "columns of out", w.n, out.cols)?;
    if let Some(bias) = bias {
        same(op, "biases", w.n, bias.0.len())?;
    }
    match epilogue {
        Epilogue::Store | Epilogue::Relu => out.set_count(op, left.rows.count())?,
        Epilogue::AddTo => same(op, "rows of the residual", left.rows.count(), out.count())?,
    }
    for r in 0..left.rows.count() {
        let x = row(left, r);
        for n in 0..w.n {
            let product = dot(&x, w, n);
            let y = bias.map_or(product, |bias| product + bias.0[n]);
            let element = &mut out.row_mut(r)[n];
            *element = match epilogue {
                Epilogue::Store => y,
                Epilogue::AddTo => *element + y,
                Epilogue::Relu if 0.0 > y => 0.0,
                Epilogue::Relu => y,
            };
        }
    }
    Ok(())
}

pub(super) fn gate_up(left: Left<'_, ReferenceOps>, w: &Matrix, out: &mut Rows) -> Result<(), KernelError> {
    product_arguments("gate_up", left, w, Arrangement::GateUp)?;
    same("gate_up", "columns of out", w.n / 2, out.cols)?;
    out.set_count("gate_up", left.rows.count())?;
    for r in 0..left.rows.count() {
        let x = row(left, r);
        for n in 0..w.n / 2 {
            out.row_mut(r)[n] = silu(dot(&x, w, n)) * dot(&x, w, w.n / 2 + n);
        }
    }
    Ok(())
}

/// What every product checks about its sides.
pub(super) fn product_arguments(
    op: &'static str,
    left: Left<'_, ReferenceOps>,
    w: &Matrix,
    arrangement: Arrangement,
) -> Result<(), KernelError> {
    linear_arrangement(op, w.arrangement, arrangement)?;
    same(op, "columns of the left side", w.k, left.rows.cols)?;
    let Some(norm) = left.norm else { return Ok(()) };
    same(op, "weights of the norm", w.k, norm.weight.0.len())?;
    norm.bias.map_or(Ok(()), |bias| same(op, "biases of the norm", w.k, bias.0.len()))
}

/// Row `r` of the left side, after its norm.
fn row(left: Left<'_, ReferenceOps>, r: usize) -> Vec<f32> {
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

pub(super) fn add(x: &Rows, bias: Option<&Vector>, out: &mut Rows) -> Result<(), KernelError> {
    let op = "add";
    same(op, "columns of out", x.cols, out.cols)?;
    same(op, "rows of out", x.count(), out.count())?;
    if let Some(bias) = bias {
        same(op, "biases", x.cols, bias.0.len())?;
    }
    for r in 0..x.count() {
        for (n, element) in out.row_mut(r).iter_mut().enumerate() {
            *element += bias.map_or(x.row(r)[n], |bias| x.row(r)[n] + bias.0[n]);
        }
    }
    Ok(())
}

/// One output element: the chunk sums from left to right, eight or a shard's share of them, then the tree.
fn dot(x: &[f32], w: &Matrix, n: usize) -> f32 {
    let w_row = &w.data[n * w.k..][..w.k];
    let at = |values: &[f32], i: usize| values.get(i).copied().unwrap_or(0.0);
    let chunk = k_padded(w.k) / w.chunks;
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
    let sums: [f32; K_CHUNKS] = std::array::from_fn(|c| if c < w.chunks { sum_of_chunk(c) } else { 0.0 });
    tree_of_chunks(&sums[..w.chunks])
}
