//! Norm and rotation of queries and keys; stores of keys and values.

use super::{ReferenceOps, Vector};
use crate::kv::{Element, TilePlace};
use crate::numerics::{Standardize, quantise};
use crate::{HostRope, KvDtype, KvPart, KvView, QkvSpec, TILE_TOKENS};

pub(super) fn append_row(
    row: &mut [f32],
    spec: &QkvSpec<'_, ReferenceOps>,
    position: usize,
    kv: &KvView,
    tile: impl Fn(KvPart, usize) -> TilePlace,
) {
    let dim = spec.shape.head_dim;
    let (q, rest) = row.split_at_mut(spec.shape.heads * dim);
    let (k, v) = rest.split_at_mut(spec.shape.kv_heads * dim);
    for head in q.chunks_exact_mut(dim) {
        finish(head, spec.q_norm, spec, position);
    }
    for (h, head) in k.chunks_exact_mut(dim).enumerate() {
        finish(head, spec.k_norm, spec, position);
        store(head, position, kv, tile(KvPart::Key, h));
    }
    for (h, head) in v.chunks_exact(dim).enumerate() {
        store(head, position, kv, tile(KvPart::Value, h));
    }
}

fn finish(head: &mut [f32], norm: Option<&Vector>, spec: &QkvSpec<'_, ReferenceOps>, position: usize) {
    if let Some(weight) = norm {
        let standard = Standardize::rms(head, spec.norm_eps);
        head.iter_mut().zip(&weight.0).for_each(|(v, weight)| *v = standard.apply(*v) * weight);
    }
    let Some(HostRope { half, cos, sin, .. }) = spec.rope else { return };
    let (low, high) = head.split_at_mut(*half);
    for i in 0..*half {
        let (c, s) = (cos[position * half + i], sin[position * half + i]);
        let (a, b) = (low[i], high[i]);
        low[i] = a.mul_add(c, -(b * s));
        high[i] = b.mul_add(c, a * s);
    }
}

fn store(values: &[f32], position: usize, kv: &KvView, tile: TilePlace) {
    let slot = position % TILE_TOKENS;
    let set = |token, dim, value| kv.set(Element { tile, token, dim }, value);
    let set_scale = |token, scale| kv.set_scale(Element { tile, token, dim: 0 }, scale);
    if slot == 0 {
        for token in 0..TILE_TOKENS {
            (0..values.len()).for_each(|dim| set(token, dim, 0.0));
            if kv.geometry().dtype.scale_bytes() > 0 {
                set_scale(token, 0.0);
            }
        }
    }
    match kv.geometry().dtype {
        KvDtype::Bf16 | KvDtype::F32 => values.iter().enumerate().for_each(|(dim, &value)| set(slot, dim, value)),
        KvDtype::Int8 => {
            let mut integers = vec![0; values.len()];
            set_scale(slot, quantise(values, &mut integers));
            integers.iter().enumerate().for_each(|(dim, &integer)| set(slot, dim, f32::from(integer)));
        }
    }
}
