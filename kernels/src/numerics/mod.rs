//! The fixed orders and elementary functions that every implementation shares; knows no shape and no thread.

/// A product over `k` is summed in this many equal chunks of `k`, which meet in a binary tree.
pub const K_CHUNKS: usize = 8;
/// `k` is padded with zeros to a multiple of this, so that every chunk is a whole number of bf16 pairs.
pub const K_STEP: usize = 2 * K_CHUNKS;
/// Attention walks stored keys in chunks of this many absolute positions.
pub const ATTENTION_CHUNK: usize = 128;
/// Interleaved lanes of the sums in norms and softmax.
pub const LANES: usize = 16;
