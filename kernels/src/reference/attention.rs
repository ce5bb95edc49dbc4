//! Causal attention over stored keys and values, one query head and one position at a time.

use crate::kv::{Element, StoredAt};
use crate::numerics::{ATTENTION_CHUNK, LANES, PairOrder, STEP_PRODUCTS, exp2, lane_tree_sum, round_to_bf16};
use crate::{KvDtype, KvPart, KvView};

pub(super) struct Query<'a> {
    pub(super) values: &'a [f32],
    pub(super) visible: (usize, usize),
    /// Scale of scores, in units of log2.
    pub(super) scale: f32,
}

/// Stored keys and values of one sequence, layer and head.
pub(super) struct Stored<'a> {
    pub(super) kv: &'a KvView,
    pub(super) table: &'a [u32],
    pub(super) layer: usize,
    pub(super) kv_head: usize,
    pub(super) pairs: PairOrder,
}

impl Stored<'_> {
    /// Stored element, without its scale.
    fn at(&self, part: KvPart, position: usize, dim: usize) -> f32 {
        self.kv.get(self.element(part, position, dim))
    }

    fn scale(&self, part: KvPart, position: usize) -> f32 {
        self.kv.scale(self.element(part, position, 0))
    }

    fn element(&self, part: KvPart, position: usize, dim: usize) -> Element {
        let stored = StoredAt::of(position, self.table, self.kv.geometry());
        Element { tile: stored.tile(self.layer, part, self.kv_head), token: stored.token, dim }
    }

    /// Rounds a query value or a weight to the format in which it is multiplied.
    fn round(&self, value: f32) -> f32 {
        match self.kv.geometry().dtype {
            KvDtype::Bf16 | KvDtype::Int8 => round_to_bf16(value),
            KvDtype::F32 => value,
        }
    }

    /// A weight in the sum of weights, and in the product with the values of its position. They differ only for scaled
    /// values: then the weight is multiplied by the scale before it is rounded.
    fn weight(&self, position: usize, weight: f32) -> (f32, f32) {
        match self.kv.geometry().dtype {
            KvDtype::Bf16 | KvDtype::F32 => (self.round(weight), self.round(weight)),
            KvDtype::Int8 => (weight, self.round(weight * self.scale(KvPart::Value, position))),
        }
    }

    /// Σ left(i) · right(i) over `count` elements, in the order of the stored dtype; `step` as in [`PairOrder::sum`].
    fn dot(&self, count: usize, step: usize, left: impl Fn(usize) -> f32, right: impl Fn(usize) -> f32) -> f32 {
        match self.kv.geometry().dtype {
            KvDtype::Bf16 | KvDtype::Int8 => self.pairs.sum(count, step, |i| left(i) * right(i)),
            KvDtype::F32 => (0..count).fold(0.0f32, |sum, i| left(i).mul_add(right(i), sum)),
        }
    }
}

/// Maximum score, sum of weights and weighted values of the chunks so far.
struct State {
    maximum: f32,
    sum: f32,
    values: Vec<f32>,
}

pub(super) fn attend(query: &Query<'_>, stored: &Stored<'_>) -> Vec<f32> {
    let (first, last) = query.visible;
    let chunks = first / ATTENTION_CHUNK..=last / ATTENTION_CHUNK;
    let merged = chunks.map(|chunk| attend_chunk(query, stored, chunk)).reduce(merge);
    let Some(state) = merged else {
        return vec![0.0; query.values.len()];
    };
    state.values.iter().map(|value| value / state.sum).collect()
}

/// Attention to one chunk: its own maximum, weights 2^(score − maximum), sums in 16 lanes.
fn attend_chunk(query: &Query<'_>, stored: &Stored<'_>, chunk: usize) -> State {
    let start = chunk * ATTENTION_CHUNK;
    let visible = |i: usize| (query.visible.0..=query.visible.1).contains(&(start + i));
    let score = |i: usize| {
        let q = |dim| stored.round(query.values[dim]);
        let product = stored.dot(query.values.len(), STEP_PRODUCTS, q, |dim| stored.at(KvPart::Key, start + i, dim));
        product * (stored.scale(KvPart::Key, start + i) * query.scale)
    };
    let scores: Vec<f32> =
        (0..ATTENTION_CHUNK).map(|i| if visible(i) { score(i) } else { f32::NEG_INFINITY }).collect();
    let maximum = scores.iter().copied().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b });
    let weight = |i: usize| if visible(i) { stored.weight(start + i, exp2(scores[i] - maximum)) } else { (0.0, 0.0) };
    let (summed, weights): (Vec<f32>, Vec<f32>) = (0..ATTENTION_CHUNK).map(weight).unzip();

    let mut lanes = [0.0; LANES];
    summed.iter().enumerate().for_each(|(i, weight)| lanes[i % LANES] += weight);
    let value = |i, dim| {
        if visible(i) { stored.at(KvPart::Value, start + i, dim) } else { 0.0 }
    };
    let values = (0..query.values.len())
        .map(|dim| stored.dot(ATTENTION_CHUNK, LANES, |i| weights[i], |i| value(i, dim)))
        .collect();
    State { maximum, sum: lane_tree_sum(lanes), values }
}

fn merge(left: State, right: State) -> State {
    let maximum = if left.maximum > right.maximum { left.maximum } else { right.maximum };
    let (a, b) = (exp2(left.maximum - maximum), exp2(right.maximum - maximum));
    let mix = |l: f32, r: f32| l.mul_add(a, r * b);
    State {
        maximum,
        sum: mix(left.sum, right.sum),
        values: left.values.iter().zip(&right.values).map(|(l, r)| mix(*l, *r)).collect(),
    }
}
