//! The one forward pass of every supported architecture, cut at any layer; knows no file and no sampler.
//!
//! Layer: hidden += Wo · attention(norm(hidden)); hidden += mlp(norm(hidden)).

use kernels::collective::{Alone, Collective};
use kernels::{AttentionSpec, Epilogue, HeadShape, Left, Norm, Ops, QkvSpec, StepInput, StepShape};

use super::mlp::{Mlp, MlpSpace};
use super::projection::Projection;
use super::sum::Summed;
use super::{ExpertCounts, ModelSpec, Part, Tally};
use crate::EngineError;

/// A part of a model (or all of it) whose weights are prepared for one kind of operations.
pub struct Model<O: Ops> {
    /// Spec of the whole model.
    pub(super) spec: ModelSpec,
    pub(super) part: Part,
    /// Spec with the widths of this part's layers.
    pub(super) narrowed: ModelSpec,
    pub(super) weights_dtype: String,
    /// `[vocab, hidden]` of its share of the vocabulary, if the part embeds or embeddings are tied.
    pub(super) embedding: Option<O::Matrix>,
    pub(super) positions: PositionWeights<O>,
    pub(super) layers: Vec<Layer<O>>,
    pub(super) norm: NormWeights<O>,
    /// `[vocab, hidden]` of its share of the vocabulary, if the part makes logits and embeddings are not tied.
    pub(super) head: Option<O::Matrix>,
    pub(super) expert_counts: Option<ExpertCounts>,
}

pub(super) enum PositionWeights<O: Ops> {
    /// Rotation of queries and keys.
    Rope(O::Rope),
    /// Position `p` adds row `p + offset` of the table to the embedding.
    Learned { table: O::Matrix, offset: u32 },
}

/// A norm over the residual stream.
pub(super) struct NormWeights<O: Ops> {
    pub(super) weight: O::Vector,
    pub(super) bias: Option<O::Vector>,
}

pub(super) struct Layer<O: Ops> {
    pub(super) attention_norm: NormWeights<O>,
    pub(super) qkv: Projection<O>,
    pub(super) q_norm: Option<O::Vector>,
    pub(super) k_norm: Option<O::Vector>,
    pub(super) output: Projection<O>,
    pub(super) mlp_norm: NormWeights<O>,
    pub(super) mlp: Mlp<O>,
    pub(super) window: Option<u32>,
}

/// Buffers for the rows of one step. `hidden` outlives a step that ends between layers.
pub struct Activations<O: Ops> {
    hidden: O::Rows,
    qkv: O::Rows,
    attended: O::Rows,
    mlp: MlpSpace<O>,
    /// `[rows, hidden]`: a rank's part of a sum, or the rows that it embeds. Empty unless ranks share layers.
    partial: O::Rows,
    /// Rows that go through the end of the last layer.
    last_hidden: O::Rows,
    last_attended: O::Rows,
    /// `[wanted, vocab]` of the part's share of the vocabulary, if it makes logits.
    logits: O::Rows,
    /// Copy of the logits, if the host cannot read them in place.
    host_logits: Vec<f32>,
    step: O::Step,
    rows: usize,
    wanted: usize,
    /// Rows whose tokens lie in this part's share of the vocabulary, if ranks share it.
    own_rows: Vec<usize>,
}

/// Logits of the wanted rows, `[rows, vocab]`.
pub struct LogitRows<'a> {
    logits: &'a [f32],
    vocab: usize,
}

impl<'a> LogitRows<'a> {
    /// Rows of `vocab` logits, one after the other.
    pub(crate) fn new(logits: &'a [f32], vocab: usize) -> LogitRows<'a> {
        LogitRows { logits, vocab }
    }

    /// Number of rows.
    #[must_use]
    pub fn count(&self) -> usize {
        self.logits.len() / self.vocab
    }

    /// Logits of the `index`th wanted row.
    #[must_use]
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.logits[index * self.vocab..(index + 1) * self.vocab]
    }
}

impl<O: Ops> Activations<O> {
    /// Allocates buffers for steps of up to `rows_max` rows of which up to `wanted_max` want logits.
    pub fn new(ops: &O, model: &Model<O>, rows_max: u32, wanted_max: u32) -> Result<Activations<O>, EngineError> {
        let spec = &model.narrowed;
        let shape = spec.head_shape();
        let rows = |rows: u32, cols: usize| ops.rows(rows as usize, cols);
        let hidden = spec.hidden as usize;
        Ok(Activations {
            hidden: rows(rows_max, hidden)?,
            qkv: rows(rows_max, shape.qkv_cols())?,
            attended: rows(rows_max, shape.out_cols())?,
            mlp: MlpSpace::new(ops, spec, rows_max as usize)?,
            partial: rows(if model.part.is_shared() { rows_max } else { 0 }, hidden)?,
            last_hidden: rows(wanted_max, hidden)?,
            last_attended: rows(wanted_max, shape.out_cols())?,
            logits: rows(if model.part.is_last() { wanted_max } else { 0 }, model.part.vocab(&model.spec).len())?,
            host_logits: Vec::new(),
            step: ops.step(&StepShape {
                rows_max: rows_max as usize,
                wanted_max: wanted_max as usize,
                attentions: model.attentions(),
            })?,
            rows: 0,
            wanted: 0,
            own_rows: Vec::new(),
        })
    }
}

impl<O: Ops> Activations<O> {
    /// Rows of the current step.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }
}

impl ModelSpec {
    /// Head counts and head width of a layer.
    #[must_use]
    pub fn head_shape(&self) -> HeadShape {
        HeadShape { heads: self.heads as usize, kv_heads: self.kv_heads as usize, head_dim: self.head_dim as usize }
    }
}

impl<O: Ops> Model<O> {
    /// Name of the format of the weights in matrix products.
    #[must_use]
    pub fn weights_dtype(&self) -> &str {
        &self.weights_dtype
    }

    /// Shape of the whole model.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Part of the model that this is.
    #[must_use]
    pub fn part(&self) -> &Part {
        &self.part
    }

    /// Distinct kinds of attention in the layers.
    fn attentions(&self) -> Vec<AttentionSpec> {
        let mut kinds = Vec::new();
        for kind in self.layers.iter().map(|layer| self.attention_of(layer)) {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        kinds
    }

    fn attention_of(&self, layer: &Layer<O>) -> AttentionSpec {
        let scale = (self.spec.head_dim as f32).sqrt().recip();
        AttentionSpec { shape: self.narrowed.head_shape(), scale, sliding_window: layer.window }
    }

    /// Takes in a step before any layer runs. `input` has the tokens of all rows; `kv` is the window of this part.
    pub fn begin(
        &self,
        ops: &mut O,
        space: &mut Activations<O>,
        kv: &O::Kv,
        input: StepInput<'_>,
    ) -> Result<(), EngineError> {
        (space.rows, space.wanted) = (input.tokens.len(), input.wanted.len());
        if !self.part.is_shared() {
            return Ok(ops.begin(&mut space.step, kv, input)?);
        }
        let vocab = self.part.vocab(&self.spec);
        let own = input.tokens.iter().enumerate().filter(|(_, token)| vocab.contains(token));
        let (rows, tokens): (Vec<usize>, Vec<u32>) = own.map(|(row, token)| (row, token - vocab.start)).unzip();
        space.own_rows = rows;
        Ok(ops.begin(&mut space.step, kv, StepInput { tokens: &tokens, ..input })?)
    }

    /// Embeds the input tokens of a step, before layer 0. For a part with the whole vocabulary.
    pub fn embed(&self, ops: &mut O, space: &mut Activations<O>) -> Result<(), EngineError> {
        ops.embed(self.table()?, &space.step, &mut space.hidden)?;
        self.add_positions(ops, space)
    }

    /// Embeds the tokens of a step in this part's share of the vocabulary; returns their rows and concatenated values.
    pub fn embed_own<'s>(
        &self,
        ops: &mut O,
        space: &'s mut Activations<O>,
    ) -> Result<(&'s [usize], Vec<f32>), EngineError> {
        ops.embed(self.table()?, &space.step, &mut space.partial)?;
        let mut values = vec![0.0; space.own_rows.len() * self.spec.hidden as usize];
        ops.read_rows(&space.partial, &mut values)?;
        Ok((&space.own_rows, values))
    }

    /// Hidden states of the step's rows, for the next pipeline stage.
    pub fn hidden(&self, ops: &O, space: &Activations<O>) -> Result<Vec<f32>, EngineError> {
        let mut values = vec![0.0; space.rows * self.spec.hidden as usize];
        ops.read_rows(&space.hidden, &mut values)?;
        Ok(values)
    }

    /// Takes over hidden states that were computed elsewhere: by the previous stage, or as embedded tokens.
    pub fn set_hidden(&self, ops: &mut O, space: &mut Activations<O>, values: &[f32]) -> Result<(), EngineError> {
        ops.write_rows(&mut space.hidden, values)?;
        if self.part.is_first() { self.add_positions(ops, space) } else { Ok(()) }
    }

    fn table(&self) -> Result<&O::Matrix, EngineError> {
        self.embedding.as_ref().ok_or_else(|| EngineError::Plan("this part of the model has no embedding".to_owned()))
    }

    fn add_positions(&self, ops: &mut O, space: &mut Activations<O>) -> Result<(), EngineError> {
        match &self.positions {
            PositionWeights::Rope(_) => Ok(()),
            PositionWeights::Learned { table, offset } => {
                Ok(ops.add_positions(table, *offset, &space.step, &mut space.hidden)?)
            }
        }
    }

    /// Rows that each expert has computed; `None` for a model without experts.
    #[must_use]
    pub fn expert_counts(&self) -> Option<&ExpertCounts> {
        self.expert_counts.as_ref()
    }

    /// Counts in `rows` from now on, or not at all if there are none.
    pub(crate) fn count_experts_in(&mut self, rows: Option<Tally>) {
        let counts = self.expert_counts.take().zip(rows);
        self.expert_counts = counts.map(|(counts, rows)| ExpertCounts { rows, ..counts });
    }

    /// Adds the experts' counts since the last call to the totals that others read.
    pub fn take_expert_counts(&self, ops: &mut O, space: &mut Activations<O>) -> Result<(), EngineError> {
        match &self.expert_counts {
            Some(counts) => space.mlp.take_counts(ops, counts),
            None => Ok(()),
        }
    }

    /// Runs layer `layer`, numbered as in the whole model; `ranks` hold the other shares of it. After the last layer,
    /// hidden states exist for the wanted rows only.
    pub fn layer(
        &self,
        ops: &mut O,
        ranks: &mut dyn Collective<O>,
        space: &mut Activations<O>,
        kv: &O::Kv,
        layer: u32,
    ) -> Result<(), EngineError> {
        if !self.part.layers.contains(&layer) {
            let problem = format!("layer {layer} is none of this part's {:?}", self.part.layers);
            return Err(EngineError::Plan(problem));
        }
        let is_last = layer + 1 == self.spec.layers;
        self.attend(ops, space, kv, layer)?;
        if !is_last {
            let Activations { hidden, attended, mlp, partial, rows, .. } = space;
            let mut sum = Summed { ranks, partial, hidden, rows: *rows };
            return self.finish(ops, layer, attended, &mut sum, mlp);
        }
        // Keys and values are stored by now: only rows that want logits need the rest of the last layer.
        if space.wanted == 0 {
            return Ok(());
        }
        ops.gather_wanted(&space.hidden, &space.step, &mut space.last_hidden)?;
        ops.gather_wanted(&space.attended, &space.step, &mut space.last_attended)?;
        let Activations { last_hidden, last_attended, mlp, partial, wanted, .. } = space;
        let mut sum = Summed { ranks, partial, hidden: last_hidden, rows: *wanted };
        self.finish(ops, layer, last_attended, &mut sum, mlp)
    }

    /// Logits of the wanted rows in host memory, after the last layer, for this part's share of the vocabulary.
    pub fn logits<'s>(&self, ops: &mut O, space: &'s mut Activations<O>) -> Result<LogitRows<'s>, EngineError> {
        let Activations { last_hidden, logits, host_logits, .. } = space;
        let left = Left::normed(last_hidden, self.norm(&self.norm));
        let head = self.head.as_ref().map_or_else(|| self.table(), Ok)?;
        ops.linear(left, head, None, Epilogue::Store, logits)?;
        Ok(LogitRows { logits: ops.host_rows(logits, host_logits)?, vocab: self.part.vocab(&self.spec).len() })
    }

    /// Runs all layers of a whole model for all rows of a step.
    pub fn run(
        &self,
        ops: &mut O,
        space: &mut Activations<O>,
        kv: &O::Kv,
        input: StepInput<'_>,
    ) -> Result<(), EngineError> {
        self.begin(ops, space, kv, input)?;
        self.embed(ops, space)?;
        (0..self.spec.layers).try_for_each(|layer| self.layer(ops, &mut Alone, space, kv, layer))
    }

    fn attend(&self, ops: &mut O, space: &mut Activations<O>, kv: &O::Kv, layer: u32) -> Result<(), EngineError> {
        let own_layer = layer - self.part.layers.start;
        let weights = &self.layers[own_layer as usize];
        let Activations { hidden, qkv, attended, step, .. } = space;
        let left = Left::normed(hidden, self.norm(&weights.attention_norm));
        ops.linear(left, &weights.qkv.weight, weights.qkv.bias.as_ref(), Epilogue::Store, qkv)?;
        let finish = QkvSpec {
            shape: self.narrowed.head_shape(),
            rope: match &self.positions {
                PositionWeights::Rope(rope) => Some(rope),
                PositionWeights::Learned { .. } => None,
            },
            q_norm: weights.q_norm.as_ref(),
            k_norm: weights.k_norm.as_ref(),
            norm_eps: self.spec.norm_eps,
        };
        ops.qkv_append(qkv, &finish, step, kv, own_layer)?;
        Ok(ops.attention(qkv, &self.attention_of(weights), step, kv, own_layer, attended)?)
    }

    /// Adds the output projection, then the MLP, to `hidden`.
    fn finish(
        &self,
        ops: &mut O,
        layer: u32,
        attended: &O::Rows,
        sum: &mut Summed<'_, O>,
        space: &mut MlpSpace<O>,
    ) -> Result<(), EngineError> {
        let Layer { output, mlp_norm, mlp, .. } = &self.layers[(layer - self.part.layers.start) as usize];
        sum.add_product(ops, attended, &output.weight, output.bias.as_ref(), self.spec.hidden)?;
        let counted = self.expert_counts.as_ref().and_then(|counts| counts.index_of(layer));
        mlp.add_to(ops, self.norm(mlp_norm), sum, space, counted)
    }

    fn norm<'a>(&self, weights: &'a NormWeights<O>) -> Norm<'a, O> {
        let NormWeights { weight, bias } = weights;
        Norm { kind: self.spec.norm, weight, bias: bias.as_ref(), eps: self.spec.norm_eps }
    }
}
