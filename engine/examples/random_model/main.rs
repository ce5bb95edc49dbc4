//! Writes a model directory with random weights, for timing: a real shape whose answers are noise.
//!
//! usage: random_model DIR [shape=134m|1.1b] [tokenizer=DIR] [seed=N] [hidden=N layers=N heads=N kv_heads=N mlp=N vocab=N context=N]

mod tokenizer;
mod weights;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;

/// Numbers of a Llama-type model.
#[derive(Debug, Clone, Copy)]
struct Shape {
    hidden: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    mlp: usize,
    vocab: usize,
    context: usize,
}

const SHAPE_134M: Shape =
    Shape { hidden: 768, layers: 12, heads: 12, kv_heads: 12, mlp: 2048, vocab: 32_000, context: 4096 };
const SHAPE_1_1B: Shape =
    Shape { hidden: 2048, layers: 22, heads: 32, kv_heads: 4, mlp: 5632, vocab: 32_000, context: 4096 };

struct Options {
    directory: PathBuf,
    shape: Shape,
    tokenizer: Option<PathBuf>,
    seed: u64,
}

fn main() -> Result<()> {
    let options = parse(std::env::args().skip(1))?;
    let Options { directory, shape, tokenizer, seed } = options;
    std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    write_json(&directory.join("config.json"), &config(shape))?;
    write_json(&directory.join("generation_config.json"), &json!({"bos_token_id": 0, "eos_token_id": 1}))?;
    let bytes = weights::write(&directory.join("model.safetensors"), shape, seed)?;
    match tokenizer {
        Some(source) => tokenizer::copy(&source, &directory, shape.vocab)?,
        None => tokenizer::byte_level(&directory, shape.vocab)?,
    }
    println!("{}: {:.1} M parameters, {bytes} bytes of bf16", directory.display(), bytes as f64 / 2e6);
    Ok(())
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Options> {
    let mut arguments = arguments.peekable();
    let Some(directory) = arguments.next().filter(|first| !first.contains('=')) else {
        bail!("usage: random_model DIR [shape=134m|1.1b] [tokenizer=DIR] [seed=N] [hidden=N layers=N ...]");
    };
    let mut options = Options { directory: directory.into(), shape: SHAPE_134M, tokenizer: None, seed: 1 };
    for argument in arguments {
        let (key, value) = argument.split_once('=').with_context(|| format!("{argument:?} is not key=value"))?;
        set(&mut options, key, value)?;
    }
    Ok(options)
}

fn set(options: &mut Options, key: &str, value: &str) -> Result<()> {
    let number = || value.parse::<usize>().with_context(|| format!("{key}={value:?} is not a number"));
    let shape = &mut options.shape;
    match key {
        "shape" => match value {
            "134m" => *shape = SHAPE_134M,
            "1.1b" => *shape = SHAPE_1_1B,
            other => bail!("unknown shape {other:?}: 134m or 1.1b"),
        },
        "tokenizer" => options.tokenizer = Some(value.into()),
        "seed" => options.seed = number()? as u64,
        "hidden" => shape.hidden = number()?,
        "layers" => shape.layers = number()?,
        "heads" => shape.heads = number()?,
        "kv_heads" => shape.kv_heads = number()?,
        "mlp" => shape.mlp = number()?,
        "vocab" => shape.vocab = number()?,
        "context" => shape.context = number()?,
        other => bail!("unknown key {other:?}"),
    }
    Ok(())
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
