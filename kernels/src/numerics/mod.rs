//! Fixed orders of reduction and elementary functions of all implementations; knows no shape and no thread. Vector code
//! repeats each function lane by lane, operation by operation.

mod exp2;
mod int8;
mod norms;
mod pairs;
mod quantise;
mod rounding;
mod trees;

pub(crate) use exp2::{COEFFICIENTS, EXP2_MAX, LOG2_E, ROUND_TO_INTEGER, ZERO_BELOW};
pub use exp2::{exp2, silu};
pub use int8::Int8Scale;
pub use norms::Standardize;
pub use pairs::{PairOrder, STEP_PRODUCTS};
pub use quantise::quantise;
pub(crate) use rounding::bf16_bits;
pub use rounding::{bf16_pair, round_to_bf16};
pub use trees::{k_padded, lane_tree_max, lane_tree_sum, sum_of_squares, tree_of_chunks};

/// Number of equal chunks of `k` in a product, whose sums are added in a binary tree.
pub const K_CHUNKS: usize = 8;
/// Step of `k`, which is padded with zeros to a multiple, so that every chunk is a whole number of bf16 pairs.
pub const K_STEP: usize = 2 * K_CHUNKS;
/// Absolute positions in one chunk of attention.
pub const ATTENTION_CHUNK: usize = 128;
/// Interleaved lanes of the sums in norms and softmax.
pub const LANES: usize = 16;
