//! The shape of a model as data, read from config.json; knows no weights and no numeric operations.
//!
//! One forward pass serves every supported architecture: what differs between them is a value here.

mod architecture;
mod read;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use architecture::Architecture;

use super::WeightFiles;
use super::json::Fields;
use super::rope::RopeSpec;
use crate::EngineError;

/// What the forward pass needs to know about a decoder-only transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// What it was published as.
    pub architecture: &'static Architecture,
    /// Entries of the vocabulary, as the embedding has rows.
    pub vocab: u32,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Decoder layers.
    pub layers: u32,
    /// Query heads.
    pub heads: u32,
    /// Key/value heads; `heads` is a multiple of it.
    pub kv_heads: u32,
    /// Width of one head, a multiple of 16.
    pub head_dim: u32,
    /// Width of the gated MLP.
    pub mlp: u32,
    /// Epsilon of every RMS norm.
    pub norm_eps: f32,
    /// Rotary position embedding.
    pub rope: RopeSpec,
    /// Longest sequence the model was made for, in tokens.
    pub context_max: u32,
    /// Per layer: how many positions a query sees, its own included; `None` is all.
    pub windows: Vec<Option<u32>>,
    /// Which attention projections have a bias.
    pub attention_bias: AttentionBias,
    /// Whether queries and keys are RMS-normed per head before the rotation.
    pub qk_norm: bool,
    /// Whether the output projection is the embedding.
    pub tied_embeddings: bool,
    /// Tokens that end a text: generation_config.json, else config.json. Sorted.
    pub eos: Vec<u32>,
}

/// Which attention projections carry a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionBias {
    /// None of them.
    None,
    /// Queries, keys and values.
    Qkv,
    /// Queries, keys, values and the output.
    QkvOutput,
}

impl ModelSpec {
    /// Reads config.json and, where present, generation_config.json of `directory`.
    pub fn read(directory: &Path) -> Result<ModelSpec, EngineError> {
        let config = Fields::read(&directory.join("config.json"))?;
        let generation_file = directory.join("generation_config.json");
        let generation = if generation_file.exists() { Some(Fields::read(&generation_file)?) } else { None };
        read::spec(&config, generation.as_ref())
    }

    /// The format of the first layer's queries in the weight files, which stands for the whole model's.
    pub fn stored_dtype(&self, weights: &WeightFiles) -> Result<kernels::Dtype, EngineError> {
        let names = &self.architecture.tensors;
        weights.dtype(&format!("{}layers.0.{}.weight", names.prefix, names.qkv[0]))
    }

    /// Width of all query heads together.
    #[must_use]
    pub fn q_width(&self) -> u32 {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    #[must_use]
    pub fn kv_width(&self) -> u32 {
        self.kv_heads * self.head_dim
    }

    /// Parameters that a token is multiplied with, the embedding look-up not counted.
    #[must_use]
    pub fn multiplied_parameters(&self) -> u64 {
        let [hidden, q, kv, mlp] = [self.hidden, self.q_width(), self.kv_width(), self.mlp].map(u64::from);
        let layer = hidden * (q + 2 * kv) + q * hidden + 3 * hidden * mlp;
        u64::from(self.layers) * layer + hidden * u64::from(self.vocab)
    }
}
