//! Writes random bf16 tensors in the safetensors format; knows the names of published Llama models.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use half::bf16;
use serde_json::{Map, json};

use super::Shape;

/// Largest absolute weight; uniform weights then have a standard deviation of 0.02.
const WEIGHT_MAX: f32 = 0.035;

pub(super) fn write(path: &Path, shape: Shape, seed: u64) -> Result<usize> {
    let tensors = tensors(shape);
    let mut header = Map::new();
    let mut offset = 0;
    for (name, dims) in &tensors {
        let end = offset + 2 * dims.iter().product::<usize>();
        header.insert(name.clone(), json!({"dtype": "BF16", "shape": dims, "data_offsets": [offset, end]}));
        offset = end;
    }
    let mut header = serde_json::to_string(&header)?;
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let file = File::create(path).with_context(|| path.display().to_string())?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    let mut state = seed;
    for (name, dims) in &tensors {
        write_values(&mut out, name.contains("norm"), dims.iter().product(), &mut state)?;
    }
    out.flush()?;
    Ok(offset)
}

fn tensors(shape: Shape) -> Vec<(String, Vec<usize>)> {
    let Shape { hidden, layers, heads, kv_heads, mlp, vocab, .. } = shape;
    let head_dim = hidden / heads;
    let mut all = vec![("model.embed_tokens.weight".to_owned(), vec![vocab, hidden])];
    for layer in 0..layers {
        let mut add =
            |name: &str, dims: &[usize]| all.push((format!("model.layers.{layer}.{name}.weight"), dims.to_vec()));
        add("input_layernorm", &[hidden]);
        add("self_attn.q_proj", &[heads * head_dim, hidden]);
        add("self_attn.k_proj", &[kv_heads * head_dim, hidden]);
        add("self_attn.v_proj", &[kv_heads * head_dim, hidden]);
        add("self_attn.o_proj", &[hidden, heads * head_dim]);
        add("post_attention_layernorm", &[hidden]);
        add("mlp.gate_proj", &[mlp, hidden]);
        add("mlp.up_proj", &[mlp, hidden]);
        add("mlp.down_proj", &[hidden, mlp]);
    }
    all.push(("model.norm.weight".to_owned(), vec![hidden]));
    all.push(("lm_head.weight".to_owned(), vec![vocab, hidden]));
    all
}

fn write_values(out: &mut impl Write, is_norm: bool, count: usize, state: &mut u64) -> Result<()> {
    const CHUNK: usize = 1 << 16;
    let mut bytes = Vec::with_capacity(2 * CHUNK);
    let mut left = count;
    while left > 0 {
        let now = left.min(CHUNK);
        bytes.clear();
        for _ in 0..now {
            let unit = (next(state) >> 40) as f32 / (1 << 23) as f32 - 1.0;
            let value = if is_norm { 1.0 + 0.1 * unit } else { WEIGHT_MAX * unit };
            bytes.extend_from_slice(&bf16::from_f32(value).to_le_bytes());
        }
        out.write_all(&bytes)?;
        left -= now;
    }
    Ok(())
}

/// SplitMix64 (Steele, Lea, Flood, 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
