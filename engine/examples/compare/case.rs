//! Measured cases and their least cost, in bytes to read and operations; knows no program.

use anyhow::{Context, Result};

use crate::generate::Shape;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weights {
    Bf16,
    /// Ours has a scale per row; llama.cpp's `Q8_0` a scale per 32 values.
    Int8,
}

/// Work of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// One prompt, in chunks; the last one samples.
    Prefill { tokens: u32 },
    /// Steps of one token for each of `batch` sequences, which begin with `context` tokens.
    Decode { batch: u32, context: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) phase: Phase,
    pub(crate) weights: Weights,
}

/// Context of decode cases in which attention costs little beside the weights.
pub(crate) const SHORT_CONTEXT: u32 = 256;
const LONG_CONTEXT: u32 = 4096;

impl Case {
    pub(crate) const ALL: [Case; 7] = [
        Case::prefill("prefill-512", 512),
        Case::prefill("prefill-2048", 2048),
        Case::decode("decode-1", 1, SHORT_CONTEXT, Weights::Bf16),
        Case::decode("decode-8", 8, SHORT_CONTEXT, Weights::Bf16),
        Case::decode("decode-16", 16, SHORT_CONTEXT, Weights::Bf16),
        Case::decode("decode-8-4k", 8, LONG_CONTEXT, Weights::Bf16),
        Case::decode("int8-decode-1", 1, SHORT_CONTEXT, Weights::Int8),
    ];

    const fn prefill(name: &'static str, tokens: u32) -> Case {
        Case { name, phase: Phase::Prefill { tokens }, weights: Weights::Bf16 }
    }

    const fn decode(name: &'static str, batch: u32, context: u32, weights: Weights) -> Case {
        Case { name, phase: Phase::Decode { batch, context }, weights }
    }

    pub(crate) fn named(name: &str) -> Result<Case> {
        let known = || Self::ALL.map(|case| case.name).join(", ");
        let found = Self::ALL.into_iter().find(|case| case.name == name);
        found.with_context(|| format!("unknown case {name:?}; known: {}", known()))
    }

    /// Tokens in a sample of `steps` decode steps.
    pub(crate) fn tokens(&self, steps: u32) -> u32 {
        match self.phase {
            Phase::Prefill { tokens } => tokens,
            Phase::Decode { batch, .. } => batch * steps,
        }
    }

    /// Least cost of a sample of `steps` decode steps.
    pub(crate) fn cost(&self, shape: Shape, steps: u32) -> Cost {
        match self.phase {
            Phase::Prefill { tokens } => Cost::of_prompt(shape, f64::from(tokens)),
            Phase::Decode { batch, context } => {
                // The middle step stands for all, because contexts grow by one per step.
                let middle = f64::from(context + steps.div_ceil(2));
                let step = Cost::of_step(shape, self.weights, f64::from(batch), middle);
                let steps = f64::from(steps);
                Cost {
                    weight_bytes: steps * step.weight_bytes,
                    kv_bytes: steps * step.kv_bytes,
                    product_flops: steps * step.product_flops,
                    attention_flops: steps * step.attention_flops,
                }
            }
        }
    }
}

impl Weights {
    fn bytes(self) -> f64 {
        match self {
            Weights::Bf16 => 2.0,
            Weights::Int8 => 1.0,
        }
    }

    /// Name of the format in `engine.dtype`.
    pub(crate) fn dtype(self) -> &'static str {
        match self {
            Weights::Bf16 => "bf16",
            Weights::Int8 => "int8",
        }
    }
}

/// Work that no program can avoid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cost {
    /// Weights to read, once per step; 0 for prompts, whose chunks read them as often as the program likes.
    pub(crate) weight_bytes: f64,
    /// Keys and values to read, bf16.
    pub(crate) kv_bytes: f64,
    /// Operations of matrix products.
    pub(crate) product_flops: f64,
    /// Operations of scores and weighted values, the causal half only.
    pub(crate) attention_flops: f64,
}

impl Cost {
    /// Prompt whose last row samples: only that row goes through the end of the last layer and the output projection.
    fn of_prompt(shape: Shape, tokens: f64) -> Cost {
        let parts = Parts::of(shape);
        let rows = tokens * (parts.layers * parts.qkv + (parts.layers - 1.0) * parts.rest);
        let last_row = parts.rest + parts.head;
        let visible = tokens * (tokens + 1.0) / 2.0;
        Cost {
            weight_bytes: 0.0,
            kv_bytes: 0.0,
            product_flops: 2.0 * (rows + last_row),
            attention_flops: parts.attention_flops * visible,
        }
    }

    /// Cost of one token for each of `batch` sequences of `context` tokens.
    fn of_step(shape: Shape, weights: Weights, batch: f64, context: f64) -> Cost {
        let parts = Parts::of(shape);
        let values = parts.layers * (parts.qkv + parts.rest) + parts.head;
        Cost {
            weight_bytes: values * weights.bytes(),
            kv_bytes: batch * context * parts.kv_bytes,
            product_flops: 2.0 * batch * values,
            attention_flops: parts.attention_flops * batch * context,
        }
    }
}

struct Parts {
    layers: f64,
    /// Weights of a layer's query, key and value projections.
    qkv: f64,
    /// Weights of a layer's output projection and MLP.
    rest: f64,
    /// Weights of the output projection to the vocabulary.
    head: f64,
    /// Bytes of a token's keys and values in all layers.
    kv_bytes: f64,
    /// Operations for one query and one key in all layers and heads.
    attention_flops: f64,
}

impl Parts {
    fn of(shape: Shape) -> Parts {
        let [hidden, layers, heads, kv_heads, mlp, vocab] =
            [shape.hidden, shape.layers, shape.heads, shape.kv_heads, shape.mlp, shape.vocab].map(|size| size as f64);
        let head_dim = hidden / heads;
        Parts {
            layers,
            qkv: hidden * head_dim * (heads + 2.0 * kv_heads),
            rest: hidden * hidden + 3.0 * hidden * mlp,
            head: hidden * vocab,
            kv_bytes: layers * 2.0 * kv_heads * head_dim * 2.0,
            attention_flops: layers * 4.0 * heads * head_dim,
        }
    }
}
