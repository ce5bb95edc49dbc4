//! Shape of a model as data, read from config.json; knows no weights and no numeric operations.
//!
//! One forward pass serves every supported architecture: what differs between them is a value here.

mod architecture;
#[cfg(test)]
mod classes_tests;
#[cfg(test)]
mod keys_tests;
mod read;
#[cfg(test)]
mod tests;
mod windows;

use std::path::Path;

pub use architecture::Architecture;
pub(super) use architecture::ExpertNames;

use super::WeightFiles;
use super::rope::RopeSpec;
use crate::EngineError;
use kernels::{Dtype, NormKind, Routing};
use model_files::{Generation, ModelConfig};

/// Everything that the forward pass needs to know about a decoder-only transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// Architecture that the model was published as.
    pub architecture: &'static Architecture,
    /// Size of the vocabulary: rows of the embedding.
    pub vocab: u32,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Decoder layers.
    pub layers: u32,
    /// Query heads.
    pub heads: u32,
    /// Key/value heads; `heads` is a multiple of this.
    pub kv_heads: u32,
    /// Width of one head, a multiple of 16.
    pub head_dim: u32,
    /// MLP of each layer. Dense MLPs all have one shape, and so have MLPs of experts.
    pub mlps: Vec<MlpSpec>,
    /// Norm before attention, MLP and output; a layer norm has biases.
    pub norm: NormKind,
    /// Epsilon of every norm.
    pub norm_eps: f32,
    /// Encoding of positions.
    pub positions: Positions,
    /// Longest sequence that the model was made for, in tokens.
    pub context_max: u32,
    /// Positions that a query sees in each layer, its own included; `None`: all.
    pub windows: Vec<Option<u32>>,
    /// Attention projections that have a bias.
    pub attention_bias: AttentionBias,
    /// True if queries and keys are RMS-normed per head before the rotation.
    pub qk_norm: bool,
    /// True if the output projection is the embedding.
    pub tied_embeddings: bool,
    /// Tokens that end an output, sorted: from generation_config.json, else config.json.
    pub eos: Vec<u32>,
}

/// MLP of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MlpSpec {
    /// `down · (silu(gate) * up)`.
    Gated {
        /// Rows of gate and of up.
        width: u32,
    },
    /// `down · relu(up)`, with biases.
    Relu {
        /// Rows of up.
        width: u32,
    },
    /// Gated MLPs, of which a router chooses some for each row.
    Experts {
        /// Rows of gate and of up of one expert.
        width: u32,
        /// How the router chooses.
        routing: Routing,
    },
}

/// Encoding of positions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Positions {
    /// Rotation of queries and keys.
    Rope(RopeSpec),
    /// A table of `context_max + offset` rows, added to the embedding.
    Learned {
        /// Row of position 0.
        offset: u32,
    },
}

/// Attention projections that have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionBias {
    /// No projection.
    None,
    /// Queries, keys and values.
    Qkv,
    /// Queries, keys, values and output.
    QkvOutput,
}

impl ModelSpec {
    /// Reads config.json and, if present, generation_config.json of `directory`.
    pub fn read(directory: &Path) -> Result<ModelSpec, EngineError> {
        let folder = model_files::open(directory)?;
        let config = ModelConfig::read(&folder)?;
        let generation = Generation::read(&folder, &config)?;
        read::spec(&config, &generation)
    }

    /// Adapts the spec to the weight files: if they hold a separate output projection, it replaces the tied embedding,
    /// whatever config.json says. transformers does the same.
    pub fn as_stored(self, weights: &WeightFiles) -> Result<ModelSpec, EngineError> {
        let (served, stored) = (self.layers, self.layers_stored(weights));
        if stored > served {
            tracing::warn!(served, stored, "the weight files have more layers than config.json: those are not read");
        }
        let names = &self.architecture.tensors;
        let head = format!("{}.weight", names.head);
        if !self.tied_embeddings || !weights.contains(&head) {
            return Ok(self);
        }
        let (_, _, embedding) = weights.whole(&format!("{}{}.weight", self.prefix(weights), names.embedding))?;
        let (file, _, own) = weights.whole(&head)?;
        if embedding.bytes == own.bytes {
            return Ok(self);
        }
        tracing::warn!(file = %file.display(), tensor = head, "is not the embedding, though tie_word_embeddings says so: it counts");
        Ok(ModelSpec { tied_embeddings: false, ..self })
    }

    /// Layers in the weight files, which may be more than in config.json: some hold an extra one that drafts tokens.
    #[must_use]
    pub fn layers_stored(&self, weights: &WeightFiles) -> u32 {
        let start = format!("{}layers.", self.prefix(weights));
        let of_layer = |name: &str| name.strip_prefix(&start)?.split('.').next()?.parse::<u32>().ok();
        weights.names().filter_map(of_layer).max().map_or(0, |last| last.saturating_add(1))
    }

    /// Format of the first layer's query projection in the weight files, taken for the whole model.
    pub fn stored_dtype(&self, weights: &WeightFiles) -> Result<Dtype, EngineError> {
        weights.dtype(&format!("{}layers.0.{}.weight", self.prefix(weights), self.architecture.tensors.qkv[0]))
    }

    /// Prefix of the names of all tensors but the head.
    pub(super) fn prefix(&self, weights: &WeightFiles) -> &'static str {
        let names = &self.architecture.tensors;
        let has_embedding = |prefix: &&&str| weights.contains(&format!("{prefix}{}.weight", names.embedding));
        names.prefixes.iter().find(has_embedding).unwrap_or(&names.prefixes[0])
    }

    /// Width of the dense MLPs, if any.
    #[must_use]
    pub fn dense_width(&self) -> Option<u32> {
        self.mlps.iter().find_map(|mlp| match mlp {
            MlpSpec::Gated { width } | MlpSpec::Relu { width } => Some(*width),
            MlpSpec::Experts { .. } => None,
        })
    }

    /// Width of one expert and the routing, if there are experts.
    #[must_use]
    pub fn experts(&self) -> Option<(u32, Routing)> {
        self.mlps.iter().find_map(|mlp| match mlp {
            MlpSpec::Experts { width, routing } => Some((*width, *routing)),
            MlpSpec::Gated { .. } | MlpSpec::Relu { .. } => None,
        })
    }

    /// Total width of all query heads.
    #[must_use]
    pub fn q_width(&self) -> u32 {
        self.heads * self.head_dim
    }

    /// Total width of all key (or value) heads.
    #[must_use]
    pub fn kv_width(&self) -> u32 {
        self.kv_heads * self.head_dim
    }

    /// Parameters that a token is multiplied with, without the embedding look-up.
    #[must_use]
    pub fn multiplied_parameters(&self) -> u64 {
        let [hidden, q, kv] = [self.hidden, self.q_width(), self.kv_width()].map(u64::from);
        let attention = u64::from(self.layers) * (hidden * (q + 2 * kv) + q * hidden);
        let mlps = self.mlps.iter().map(|mlp| match mlp {
            MlpSpec::Gated { width } => 3 * hidden * u64::from(*width),
            MlpSpec::Relu { width } => 2 * hidden * u64::from(*width),
            MlpSpec::Experts { width, routing } => {
                hidden * routing.experts as u64 + routing.per_row as u64 * 3 * hidden * u64::from(*width)
            }
        });
        attention + mlps.sum::<u64>() + hidden * u64::from(self.vocab)
    }
}
