//! Makes a model directory with random weights: a real shape whose answers are noise; knows no command line.

mod tokenizer;
mod weights;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

/// Sizes of a Llama-type model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) mlp: usize,
    pub(crate) vocab: usize,
    pub(crate) context: usize,
}

impl Shape {
    pub(crate) const NAMED: [(&'static str, Shape); 2] = [
        ("134m", Shape { hidden: 768, layers: 12, heads: 12, kv_heads: 12, mlp: 2048, vocab: 32_000, context: 8192 }),
        ("1.1b", Shape { hidden: 2048, layers: 22, heads: 32, kv_heads: 4, mlp: 5632, vocab: 32_000, context: 8192 }),
    ];

    pub(crate) fn named(name: &str) -> Result<Shape> {
        let found = Self::NAMED.iter().find(|(known, _)| *known == name);
        let known = || Self::NAMED.map(|(name, _)| name).join(", ");
        found.map(|(_, shape)| *shape).with_context(|| format!("unknown shape {name:?}; known: {}", known()))
    }
}

/// Recipe of a model: equal recipes give equal files.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub(crate) shape: Shape,
    pub(crate) seed: u64,
    /// Directory of a tokenizer to copy; `None` makes one of plain bytes.
    pub(crate) tokenizer: Option<PathBuf>,
}

pub(crate) fn write(directory: &Path, recipe: &Recipe) -> Result<usize> {
    let shape = recipe.shape;
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    write_json(&directory.join("config.json"), &config(shape))?;
    write_json(&directory.join("generation_config.json"), &json!({"bos_token_id": 0, "eos_token_id": 1}))?;
    match &recipe.tokenizer {
        Some(source) => tokenizer::copy(source, directory, shape.vocab)?,
        None => tokenizer::byte_level(directory, shape.vocab)?,
    }
    weights::write(&directory.join("model.safetensors"), shape, recipe.seed)
}

fn config(shape: Shape) -> serde_json::Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocab,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "tie_word_embeddings": false,
        "bos_token_id": 0,
        "eos_token_id": 1,
    })
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    std::fs::write(path, serde_json::to_string_pretty(value)?).with_context(|| path.display().to_string())
}
