//! Writes a Llama-type model directory as a GGUF file for llama.cpp; knows no program.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, version 3. Norms are F32, as llama.cpp wants;
//! matrices are BF16 or `Q8_0` (32 values with one f16 scale). There is no tokenizer: benchmarks draw token ids.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use half::{bf16, f16};
use kernels::memory::MappedFile;
use safetensors::SafeTensors;

use crate::case::Weights;
use crate::generate::Shape;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Bf16,
    Q8,
}

impl Format {
    /// Format of llama.cpp that is compared with ours.
    pub(crate) fn of(weights: Weights) -> Format {
        match weights {
            Weights::Bf16 => Format::Bf16,
            Weights::Int8 => Format::Q8,
        }
    }

    /// `general.file_type` of a file with matrices in this format.
    fn file_type(self) -> u32 {
        match self {
            Format::Bf16 => 32,
            Format::Q8 => 7,
        }
    }
}

const ALIGNMENT: usize = 32;
/// Values that share a scale in `Q8_0`.
const Q8_VALUES: usize = 32;
const Q8_BYTES: usize = 2 + Q8_VALUES;

/// Types of metadata values.
const UINT32: u32 = 4;
const FLOAT32: u32 = 6;
const STRING: u32 = 8;

pub(crate) fn write(path: &Path, directory: &Path, shape: Shape, format: Format) -> Result<()> {
    let source = directory.join("model.safetensors");
    let mapped = MappedFile::open(&source).with_context(|| source.display().to_string())?;
    let tensors = SafeTensors::deserialize(mapped.as_bytes()).with_context(|| source.display().to_string())?;
    let plan = plan(shape, format);
    let file = File::create(path).with_context(|| path.display().to_string())?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    out.write_all(&header(&plan, shape, format))?;
    for target in &plan {
        let view = tensors.tensor(&target.source).with_context(|| target.source.clone())?;
        ensure!(view.dtype() == safetensors::Dtype::BF16, "{} is {:?}, expected BF16", target.source, view.dtype());
        let data = target.encode(view.data());
        ensure!(data.len() == target.bytes(), "{} has another shape than the model's config", target.source);
        out.write_all(&data)?;
        out.write_all(&vec![0; padding(data.len())])?;
    }
    out.flush().with_context(|| path.display().to_string())
}

#[derive(Debug, Clone, Copy)]
enum Rows {
    AsStored,
    /// For this many heads, the halves of each interleaved, because llama.cpp rotates neighbours.
    Interleaved {
        heads: usize,
    },
}

#[derive(Debug, Clone, Copy)]
enum Element {
    F32,
    Bf16,
    Q8,
}

/// A tensor of the file and its source; shape `[rows, cols]`, a vector has one row.
struct Target {
    name: String,
    source: String,
    rows: usize,
    cols: usize,
    order: Rows,
    element: Element,
}

impl Target {
    fn bytes(&self) -> usize {
        match self.element {
            Element::F32 => 4 * self.rows * self.cols,
            Element::Bf16 => 2 * self.rows * self.cols,
            Element::Q8 => self.rows * self.cols / Q8_VALUES * Q8_BYTES,
        }
    }

    fn type_id(&self) -> u32 {
        match self.element {
            Element::F32 => 0,
            Element::Bf16 => 30,
            Element::Q8 => 8,
        }
    }

    /// Encodes the tensor from the bytes of its bf16 source.
    fn encode(&self, source: &[u8]) -> Vec<u8> {
        let row_bytes = 2 * self.cols;
        let mut out = Vec::with_capacity(self.bytes());
        for row in 0..source.len() / row_bytes {
            let row = match self.order {
                Rows::AsStored => row,
                Rows::Interleaved { heads } => interleaved(row, self.rows / heads),
            };
            let row = &source[row * row_bytes..][..row_bytes];
            match self.element {
                Element::F32 => values(row).for_each(|value| out.extend_from_slice(&value.to_le_bytes())),
                Element::Bf16 => out.extend_from_slice(row),
                Element::Q8 => row.chunks(2 * Q8_VALUES).for_each(|block| q8_block(block, &mut out)),
            }
        }
        out
    }
}

/// Source row of `row`, in a head of `head_rows` rows.
fn interleaved(row: usize, head_rows: usize) -> usize {
    let (head, within) = (row / head_rows, row % head_rows);
    head * head_rows + within % 2 * (head_rows / 2) + within / 2
}

fn values(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks::<2>().0.iter().map(|raw| bf16::from_le_bytes(*raw).to_f32())
}

/// One block of `Q8_0`: the scale is the largest magnitude over 127, rounded to f16 only when stored.
fn q8_block(block: &[u8], out: &mut Vec<u8>) {
    let scale = values(block).map(f32::abs).fold(0.0, f32::max) / 127.0;
    let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
    out.extend_from_slice(&f16::from_f32(scale).to_le_bytes());
    out.extend(values(block).map(|value| (value * inverse).round() as i8 as u8));
}

/// Every tensor of the model, in file order.
fn plan(shape: Shape, format: Format) -> Vec<Target> {
    let Shape { hidden, layers, heads, kv_heads, mlp, vocab, .. } = shape;
    let kv_width = kv_heads * (hidden / heads);
    let element = match format {
        Format::Bf16 => Element::Bf16,
        Format::Q8 => Element::Q8,
    };
    let matrix = |name: &str, source: &str, rows: usize, cols: usize, order: Rows| Target {
        name: format!("{name}.weight"),
        source: format!("{source}.weight"),
        rows,
        cols,
        order,
        element,
    };
    let norm =
        |name: &str, source: &str| Target { element: Element::F32, ..matrix(name, source, 1, hidden, Rows::AsStored) };
    let mut all = vec![
        matrix("token_embd", "model.embed_tokens", vocab, hidden, Rows::AsStored),
        norm("output_norm", "model.norm"),
        matrix("output", "lm_head", vocab, hidden, Rows::AsStored),
    ];
    for layer in 0..layers {
        let ours = |name: &str| format!("model.layers.{layer}.{name}");
        let theirs = |name: &str| format!("blk.{layer}.{name}");
        all.push(norm(&theirs("attn_norm"), &ours("input_layernorm")));
        all.push(norm(&theirs("ffn_norm"), &ours("post_attention_layernorm")));
        for (name, source, rows, cols, order) in [
            ("attn_q", "self_attn.q_proj", hidden, hidden, Rows::Interleaved { heads }),
            ("attn_k", "self_attn.k_proj", kv_width, hidden, Rows::Interleaved { heads: kv_heads }),
            ("attn_v", "self_attn.v_proj", kv_width, hidden, Rows::AsStored),
            ("attn_output", "self_attn.o_proj", hidden, hidden, Rows::AsStored),
            ("ffn_gate", "mlp.gate_proj", mlp, hidden, Rows::AsStored),
            ("ffn_up", "mlp.up_proj", mlp, hidden, Rows::AsStored),
            ("ffn_down", "mlp.down_proj", hidden, mlp, Rows::AsStored),
        ] {
            all.push(matrix(&theirs(name), &ours(source), rows, cols, order));
        }
    }
    all
}

/// Everything before the data.
fn header(plan: &[Target], shape: Shape, format: Format) -> Vec<u8> {
    let metadata = metadata(shape, format);
    let mut out = b"GGUF".to_vec();
    out.extend_from_slice(&3u32.to_le_bytes());
    out.extend_from_slice(&(plan.len() as u64).to_le_bytes());
    out.extend_from_slice(&(metadata.len() as u64).to_le_bytes());
    for (key, kind, value) in metadata {
        push_text(&mut out, key);
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&value);
    }
    let mut offset = 0;
    for target in plan {
        push_text(&mut out, &target.name);
        // Dimensions from the innermost outwards.
        let dims: &[usize] = if target.rows == 1 { &[target.cols] } else { &[target.cols, target.rows] };
        out.extend_from_slice(&(dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|dim| out.extend_from_slice(&(*dim as u64).to_le_bytes()));
        out.extend_from_slice(&target.type_id().to_le_bytes());
        out.extend_from_slice(&(offset as u64).to_le_bytes());
        offset += target.bytes() + padding(target.bytes());
    }
    out.resize(out.len() + padding(out.len()), 0);
    out
}

fn metadata(shape: Shape, format: Format) -> Vec<(&'static str, u32, Vec<u8>)> {
    let text = |key, value: &str| {
        let mut bytes = Vec::new();
        push_text(&mut bytes, value);
        (key, STRING, bytes)
    };
    let number = |key, value: usize| (key, UINT32, (value as u32).to_le_bytes().to_vec());
    let real = |key, value: f32| (key, FLOAT32, value.to_le_bytes().to_vec());
    vec![
        text("general.architecture", "llama"),
        text("general.name", "random"),
        number("general.file_type", format.file_type() as usize),
        number("general.alignment", ALIGNMENT),
        number("llama.vocab_size", shape.vocab),
        number("llama.context_length", shape.context),
        number("llama.embedding_length", shape.hidden),
        number("llama.block_count", shape.layers),
        number("llama.feed_forward_length", shape.mlp),
        number("llama.attention.head_count", shape.heads),
        number("llama.attention.head_count_kv", shape.kv_heads),
        number("llama.rope.dimension_count", shape.hidden / shape.heads),
        real("llama.rope.freq_base", 10_000.0),
        real("llama.attention.layer_norm_rms_epsilon", 1e-5),
        text("tokenizer.ggml.model", "no_vocab"),
    ]
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn padding(len: usize) -> usize {
    len.next_multiple_of(ALIGNMENT) - len
}
