//! Orders of reduction: the tree over chunks of k and the tree over lanes.

use super::{K_STEP, LANES};

/// `k` with padding; a chunk has `k_padded(k) / K_CHUNKS` elements.
pub const fn k_padded(k: usize) -> usize {
    k.next_multiple_of(K_STEP)
}

/// Adds chunk sums in pairs, then pairs of pairs: `((a + b) + (c + d)) + ((e + f) + (g + h))`. A rank that owns
/// consecutive chunks owns a sub-tree.
pub fn tree_of_chunks(sums: &[f32]) -> f32 {
    match sums {
        [] => 0.0,
        [sum] => *sum,
        _ => {
            let (low, high) = sums.split_at(sums.len() / 2);
            tree_of_chunks(low) + tree_of_chunks(high)
        }
    }
}

/// Adds lane `j + 8` to lane `j`, then `j + 4`, `j + 2`, `j + 1`.
#[inline(always)]
pub fn lane_tree_sum(mut lanes: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for j in 0..half {
            lanes[j] += lanes[j + half];
        }
    }
    lanes[0]
}

/// Largest lane, compared in the order of [`lane_tree_sum`].
#[inline(always)]
pub fn lane_tree_max(mut lanes: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for j in 0..half {
            lanes[j] = if lanes[j] > lanes[j + half] { lanes[j] } else { lanes[j + half] };
        }
    }
    lanes[0]
}

/// Σ x² with element `i` in lane `i % 16`, each lane from left to right, then the lane tree.
#[inline(always)]
pub fn sum_of_squares(x: &[f32]) -> f32 {
    lane_fold(x, |sum, v| v.mul_add(v, sum))
}

/// Folds element `i` into lane `i % 16`, each lane from left to right, then the lane tree of the sums.
#[inline(always)]
pub(super) fn lane_fold(x: &[f32], add: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (rows, rest) = x.as_chunks::<LANES>();
    for row in rows {
        for (lane, v) in lanes.iter_mut().zip(row) {
            *lane = add(*lane, *v);
        }
    }
    for (lane, v) in lanes.iter_mut().zip(rest) {
        *lane = add(*lane, *v);
    }
    lane_tree_sum(lanes)
}
