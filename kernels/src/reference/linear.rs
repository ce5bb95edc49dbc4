//! Products with weights, element by element in the documented order.

use super::{Matrix, Rows, Vector};
use crate::checks::{linear_arrangement, same};
use crate::numerics::{K_CHUNKS, k_padded, round_to_bf16, silu, tree_of_chunks};
use crate::{Arrangement, Dtype, Epilogue, KernelError};

pub(super) fn linear(
    x: &Rows,
    w: &Matrix,
    bias: Option<&Vector>,
    epilogue: Epilogue,
    out: &mut Rows,
) -> Result<(), KernelError> {
    linear_arrangement("linear", w.arrangement, Arrangement::Stacked)?;
    same("linear", "columns of x", w.k, x.cols)?;
    same("linear", "columns of out", w.n, out.cols)?;
    if let Some(bias) = bias {
        same("linear", "biases", w.n, bias.0.len())?;
    }
    match epilogue {
        Epilogue::Store => out.set_count("linear", x.count())?,
        Epilogue::AddTo => same("linear", "rows of the residual", x.count(), out.count())?,
    }
    for r in 0..x.count() {
        for n in 0..w.n {
            let product = dot(x.row(r), w, n);
            let y = bias.map_or(product, |bias| product + bias.0[n]);
            let element = &mut out.row_mut(r)[n];
            *element = match epilogue {
                Epilogue::Store => y,
                Epilogue::AddTo => *element + y,
            };
        }
    }
    Ok(())
}

pub(super) fn gate_up(x: &Rows, w: &Matrix, out: &mut Rows) -> Result<(), KernelError> {
    linear_arrangement("gate_up", w.arrangement, Arrangement::GateUp)?;
    same("gate_up", "columns of x", w.k, x.cols)?;
    same("gate_up", "columns of out", w.n / 2, out.cols)?;
    out.set_count("gate_up", x.count())?;
    for r in 0..x.count() {
        for n in 0..w.n / 2 {
            out.row_mut(r)[n] = silu(dot(x.row(r), w, n)) * dot(x.row(r), w, w.n / 2 + n);
        }
    }
    Ok(())
}

pub(super) fn logits(x: &Rows, w: &Matrix, out: &mut [f32]) -> Result<(), KernelError> {
    linear_arrangement("logits", w.arrangement, Arrangement::Stacked)?;
    same("logits", "columns of x", w.k, x.cols)?;
    same("logits", "values of out", x.count() * w.n, out.len())?;
    for r in 0..x.count() {
        for n in 0..w.n {
            out[r * w.n + n] = dot(x.row(r), w, n);
        }
    }
    Ok(())
}

/// One output element: eight chunk sums from left to right, then the tree.
fn dot(x: &[f32], w: &Matrix, n: usize) -> f32 {
    let w_row = &w.data[n * w.k..][..w.k];
    let at = |values: &[f32], i: usize| values.get(i).copied().unwrap_or(0.0);
    let chunk = k_padded(w.k) / K_CHUNKS;
    tree_of_chunks(std::array::from_fn(|c| {
        let range = c * chunk..(c + 1) * chunk;
        match w.dtype {
            // A product of two bf16 is exact in f32; of each pair the odd one is added first, as VDPBF16PS does.
            Dtype::Bf16 => range.step_by(2).fold(0.0, |sum, i| {
                let odd = round_to_bf16(at(x, i + 1)) * at(w_row, i + 1);
                let even = round_to_bf16(at(x, i)) * at(w_row, i);
                (sum + odd) + even
            }),
            Dtype::F16 | Dtype::F32 => range.fold(0.0f32, |sum, i| at(x, i).mul_add(at(w_row, i), sum)),
        }
    }))
}
