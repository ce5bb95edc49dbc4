//! The one forward pass of every supported architecture, cut at any layer; knows no file and no sampler.
//!
//! Layer: hidden += Wo · attention(norm(hidden)); hidden += Wdown · (silu(gate) * up)(norm(hidden)).

use std::ops::Range;

use kernels::{AttentionSpec, Batch, Epilogue, HeadShape, KvView, Left, Norm, NormKind, Ops, QkvSpec};

use super::ModelSpec;
use crate::EngineError;

/// A model whose weights are prepared for one kind of operations.
pub struct Model<O: Ops> {
    pub(super) spec: ModelSpec,
    pub(super) weights_dtype: kernels::Dtype,
    /// `[vocab, hidden]`; also the output projection where embeddings are tied.
    pub(super) embedding: O::Matrix,
    pub(super) layers: Vec<Layer<O>>,
    pub(super) norm: O::Vector,
    /// `[vocab, hidden]`, where embeddings are not tied.
    pub(super) head: Option<O::Matrix>,
    pub(super) rope: O::Rope,
}

/// A matrix `[n, k]` with an optional bias.
pub(super) struct Projection<O: Ops> {
    pub(super) weight: O::Matrix,
    pub(super) bias: Option<O::Vector>,
}

/// The weights of one decoder layer.
pub(super) struct Layer<O: Ops> {
    pub(super) attention_norm: O::Vector,
    pub(super) qkv: Projection<O>,
    pub(super) q_norm: Option<O::Vector>,
    pub(super) k_norm: Option<O::Vector>,
    pub(super) output: Projection<O>,
    pub(super) mlp_norm: O::Vector,
    pub(super) gate_up: O::Matrix,
    pub(super) down: O::Matrix,
    pub(super) window: Option<u32>,
}

/// Space for the rows of one step. `hidden` outlives a step that ends between layers.
pub struct Activations<O: Ops> {
    hidden: O::Rows,
    qkv: O::Rows,
    attended: O::Rows,
    gated: O::Rows,
    /// The rows that go through the end of the last layer.
    last_hidden: O::Rows,
    last_attended: O::Rows,
    logits: Vec<f32>,
}

/// One step as the model sees it.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// Input token of every row.
    pub tokens: &'a [u32],
    /// Which rows are whose.
    pub batch: Batch<'a>,
    /// Rows that want logits, ascending.
    pub wanted: &'a [u32],
    /// Where keys and values lie.
    pub kv: &'a KvView,
}

/// Logits of the wanted rows, `[rows, vocab]`.
pub struct LogitRows<'a> {
    logits: &'a [f32],
    vocab: usize,
}

impl<'a> LogitRows<'a> {
    /// Logits of the `index`th wanted row.
    #[must_use]
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.logits[index * self.vocab..(index + 1) * self.vocab]
    }
}

impl<O: Ops> Activations<O> {
    /// Space for steps of up to `rows_max` rows of which up to `wanted_max` want logits.
    pub fn new(ops: &O, spec: &ModelSpec, rows_max: u32, wanted_max: u32) -> Result<Activations<O>, EngineError> {
        let shape = spec.head_shape();
        let rows = |rows: u32, cols: usize| ops.rows(rows as usize, cols);
        let hidden = spec.hidden as usize;
        Ok(Activations {
            hidden: rows(rows_max, hidden)?,
            qkv: rows(rows_max, shape.qkv_cols())?,
            attended: rows(rows_max, shape.out_cols())?,
            gated: rows(rows_max, spec.mlp as usize)?,
            last_hidden: rows(wanted_max, hidden)?,
            last_attended: rows(wanted_max, shape.out_cols())?,
            logits: Vec::new(),
        })
    }
}

impl ModelSpec {
    /// Heads of one layer.
    #[must_use]
    pub fn head_shape(&self) -> HeadShape {
        HeadShape { heads: self.heads as usize, kv_heads: self.kv_heads as usize, head_dim: self.head_dim as usize }
    }
}

impl<O: Ops> Model<O> {
    /// The format of the weights that its matrices are computed with.
    #[must_use]
    pub fn weights_dtype(&self) -> kernels::Dtype {
        self.weights_dtype
    }

    /// Its shape.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Embeds the input tokens of a step: what comes before layer 0.
    pub fn embed(&self, ops: &mut O, space: &mut Activations<O>, pass: Pass<'_>) -> Result<(), EngineError> {
        Ok(ops.embed(&self.embedding, pass.tokens, &mut space.hidden)?)
    }

    /// Runs one layer. After the last one, hidden states exist for the wanted rows only.
    pub fn layer(
        &self,
        ops: &mut O,
        space: &mut Activations<O>,
        pass: Pass<'_>,
        layer: u32,
    ) -> Result<(), EngineError> {
        let weights = &self.layers[layer as usize];
        let is_last = layer + 1 == self.spec.layers;
        self.attend(ops, space, pass, layer)?;
        if !is_last {
            let Activations { hidden, attended, gated, .. } = space;
            return self.finish(ops, weights, attended, hidden, gated);
        }
        // Keys and values are stored by now: only rows that want logits need the rest of the last layer.
        if pass.wanted.is_empty() {
            return Ok(());
        }
        ops.gather(&space.hidden, pass.wanted, &mut space.last_hidden)?;
        ops.gather(&space.attended, pass.wanted, &mut space.last_attended)?;
        let Activations { last_hidden, last_attended, gated, .. } = space;
        self.finish(ops, weights, last_attended, last_hidden, gated)
    }

    /// Logits of the wanted rows, after the last layer.
    pub fn logits<'s>(
        &self,
        ops: &mut O,
        space: &'s mut Activations<O>,
        rows: usize,
    ) -> Result<LogitRows<'s>, EngineError> {
        let vocab = self.spec.vocab as usize;
        let Activations { last_hidden, logits, .. } = space;
        logits.resize(rows * vocab, 0.0);
        let left = self.normed(last_hidden, &self.norm);
        ops.logits(left, self.head.as_ref().unwrap_or(&self.embedding), logits)?;
        Ok(LogitRows { logits, vocab })
    }

    /// The layers of `range` for all rows of a step, embedding first where the range begins at 0.
    pub fn run(
        &self,
        ops: &mut O,
        space: &mut Activations<O>,
        pass: Pass<'_>,
        range: Range<u32>,
    ) -> Result<(), EngineError> {
        if range.start == 0 {
            self.embed(ops, space, pass)?;
        }
        range.into_iter().try_for_each(|layer| self.layer(ops, space, pass, layer))
    }

    fn attend(&self, ops: &mut O, space: &mut Activations<O>, pass: Pass<'_>, layer: u32) -> Result<(), EngineError> {
        let weights = &self.layers[layer as usize];
        let shape = self.spec.head_shape();
        let Activations { hidden, qkv, attended, .. } = space;
        let left = self.normed(hidden, &weights.attention_norm);
        ops.linear(left, &weights.qkv.weight, weights.qkv.bias.as_ref(), Epilogue::Store, qkv)?;
        let finish = QkvSpec {
            shape,
            rope: Some(&self.rope),
            q_norm: weights.q_norm.as_ref(),
            k_norm: weights.k_norm.as_ref(),
            norm_eps: self.spec.norm_eps,
        };
        ops.qkv_append(qkv, &finish, &pass.batch, pass.kv, layer)?;
        let weigh =
            AttentionSpec { shape, scale: (self.spec.head_dim as f32).sqrt().recip(), sliding_window: weights.window };
        Ok(ops.attention(qkv, &weigh, &pass.batch, pass.kv, layer, attended)?)
    }

    /// The output projection and the MLP, both added to `hidden`.
    fn finish(
        &self,
        ops: &mut O,
        weights: &Layer<O>,
        attended: &O::Rows,
        hidden: &mut O::Rows,
        gated: &mut O::Rows,
    ) -> Result<(), EngineError> {
        let output = &weights.output;
        ops.linear(Left::plain(attended), &output.weight, output.bias.as_ref(), Epilogue::AddTo, hidden)?;
        ops.gate_up(self.normed(hidden, &weights.mlp_norm), &weights.gate_up, gated)?;
        Ok(ops.linear(Left::plain(gated), &weights.down, None, Epilogue::AddTo, hidden)?)
    }

    /// `rows` as a left side that is normed with `weight`.
    fn normed<'a>(&self, rows: &'a O::Rows, weight: &'a O::Vector) -> Left<'a, O> {
        Left::normed(rows, Norm { kind: NormKind::Rms, weight, bias: None, eps: self.spec.norm_eps })
    }
}
