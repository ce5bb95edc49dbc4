//! The fixed orders and elementary functions that every implementation shares; knows no shape and no thread.
//!
//! Every function here is the definition that vector code repeats lane by lane, operation by operation.

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

/// A product over `k` is summed in this many equal chunks of `k`, which meet in a binary tree.
pub const K_CHUNKS: usize = 8;
/// `k` is padded with zeros to a multiple of this, so that every chunk is a whole number of bf16 pairs.
pub const K_STEP: usize = 2 * K_CHUNKS;
/// Attention walks stored keys in chunks of this many absolute positions.
pub const ATTENTION_CHUNK: usize = 128;
/// Interleaved lanes of the sums in norms and softmax.
pub const LANES: usize = 16;
