//! The one forward pass of every supported architecture, cut at any layer; knows no file and no sampler.
//!
//! Layer: hidden += Wo · attention(norm(hidden)); hidden += mlp(norm(hidden)).

use std::ops::Range;

use kernels::collective::{Alone, Collective};
use kernels::{AttentionSpec, Batch, BatchSequence, Epilogue, HeadShape, KvView, Left, Norm, Ops, QkvSpec};

use super::mlp::{Mlp, MlpSpace};
use super::sum::Summed;
use super::{ExpertCounts, ModelSpec, Part, Tally};
use crate::EngineError;

/// A part of a model (or all of it) whose weights are prepared for one kind of operations.
pub struct Model<O: Ops> {
    /// Of the whole model.
    pub(super) spec: ModelSpec,
    pub(super) part: Part,
    /// As the layers of this part are.
    pub(super) narrowed: ModelSpec,
    pub(super) weights_dtype: String,
    /// `[vocab, hidden]` of its share of the vocabulary, where the part embeds or embeddings are tied.
    pub(super) embedding: Option<O::Matrix>,
    pub(super) positions: PositionWeights<O>,
    pub(super) layers: Vec<Layer<O>>,
    pub(super) norm: NormWeights<O>,
    /// `[vocab, hidden]` of its share of the vocabulary, where the part makes logits and embeddings are not tied.
    pub(super) head: Option<O::Matrix>,
    pub(super) expert_counts: Option<ExpertCounts>,
}

/// How positions reach the model.
pub(super) enum PositionWeights<O: Ops> {
    /// Queries and keys are rotated.
    Rope(O::Rope),
    /// Position `p` adds row `p + offset` of the table to the embedding.
    Learned { table: O::Matrix, offset: u32 },
}

/// A norm over the residual stream.
pub(super) struct NormWeights<O: Ops> {
    pub(super) weight: O::Vector,
    pub(super) bias: Option<O::Vector>,
}

/// A matrix `[n, k]` with an optional bias.
pub(super) struct Projection<O: Ops> {
    pub(super) weight: O::Matrix,
    pub(super) bias: Option<O::Vector>,
}

/// The weights of one decoder layer.
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

/// Space for the rows of one step. `hidden` outlives a step that ends between layers.
pub struct Activations<O: Ops> {
    hidden: O::Rows,
    qkv: O::Rows,
    attended: O::Rows,
    mlp: MlpSpace<O>,
    /// `[rows, hidden]`: a rank's part of a sum, or the rows that it embeds. Has room only where ranks share layers.
    partial: O::Rows,
    /// The rows that go through the end of the last layer.
    last_hidden: O::Rows,
    last_attended: O::Rows,
    logits: Vec<f32>,
    /// Rows of the table of learned positions.
    positions: Vec<u32>,
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
    /// Where keys and values lie: the window of the part that runs.
    pub kv: &'a KvView,
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

    /// Logits of the `index`th wanted row.
    #[must_use]
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.logits[index * self.vocab..(index + 1) * self.vocab]
    }
}

impl<O: Ops> Activations<O> {
    /// Space for steps of up to `rows_max` rows of which up to `wanted_max` want logits.
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
            logits: Vec::new(),
            positions: Vec::new(),
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
    pub fn weights_dtype(&self) -> &str {
        &self.weights_dtype
    }

    /// The shape of the whole model.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Which part of it this is.
    #[must_use]
    pub fn part(&self) -> &Part {
        &self.part
    }

    /// Embeds the input tokens of a step: what comes before layer 0. For a part that has the whole vocabulary.
    pub fn embed(&self, ops: &mut O, space: &mut Activations<O>, pass: Pass<'_>) -> Result<(), EngineError> {
        ops.embed(self.table()?, pass.tokens, &mut space.hidden)?;
        self.add_positions(ops, space, pass)
    }

    /// Embeds the tokens of a step that are of this part's share of the vocabulary: their rows and the values of those,
    /// one after the other.
    pub fn embed_own(
        &self,
        ops: &mut O,
        space: &mut Activations<O>,
        pass: Pass<'_>,
    ) -> Result<(Vec<usize>, Vec<f32>), EngineError> {
        let vocab = self.part.vocab(&self.spec);
        let own = pass.tokens.iter().enumerate().filter(|(_, token)| vocab.contains(token));
        let (rows, tokens): (Vec<usize>, Vec<u32>) = own.map(|(row, token)| (row, token - vocab.start)).unzip();
        ops.embed(self.table()?, &tokens, &mut space.partial)?;
        let mut values = vec![0.0; rows.len() * self.spec.hidden as usize];
        ops.read_rows(&space.partial, &mut values)?;
        Ok((rows, values))
    }

    /// The hidden states of `rows` rows, as another stage goes on from.
    pub fn hidden(&self, ops: &O, space: &Activations<O>, rows: usize) -> Result<Vec<f32>, EngineError> {
        let mut values = vec![0.0; rows * self.spec.hidden as usize];
        ops.read_rows(&space.hidden, &mut values)?;
        Ok(values)
    }

    /// Goes on from hidden states that were computed elsewhere: those of another stage, or the embedded tokens.
    pub fn set_hidden(
        &self,
        ops: &mut O,
        space: &mut Activations<O>,
        pass: Pass<'_>,
        values: &[f32],
    ) -> Result<(), EngineError> {
        ops.write_rows(&mut space.hidden, values)?;
        if self.part.is_first() { self.add_positions(ops, space, pass) } else { Ok(()) }
    }

    fn table(&self) -> Result<&O::Matrix, EngineError> {
        self.embedding.as_ref().ok_or_else(|| EngineError::Plan("this part of the model has no embedding".to_owned()))
    }

    fn add_positions(&self, ops: &mut O, space: &mut Activations<O>, pass: Pass<'_>) -> Result<(), EngineError> {
        match &self.positions {
            PositionWeights::Rope(_) => Ok(()),
            PositionWeights::Learned { table, offset } => {
                let rows_of = |sequence: &BatchSequence| {
                    let first = sequence.first_position + offset;
                    first..first + sequence.rows.len() as u32
                };
                space.positions.clear();
                space.positions.extend(pass.batch.sequences.iter().flat_map(rows_of));
                Ok(ops.add_embedding(table, &space.positions, &mut space.hidden)?)
            }
        }
    }

    /// How many rows each expert has computed; `None` for a model without experts.
    #[must_use]
    pub fn expert_counts(&self) -> Option<&ExpertCounts> {
        self.expert_counts.as_ref()
    }

    /// Counts in `rows` from now on, and not at all where there are none.
    pub(crate) fn count_experts_in(&mut self, rows: Option<Tally>) {
        let counts = self.expert_counts.take().zip(rows);
        self.expert_counts = counts.map(|(counts, rows)| ExpertCounts { rows, ..counts });
    }

    /// Runs one layer. After the last one, hidden states exist for the wanted rows only.
    /// `layer` is numbered as in the whole model; `ranks` are those who hold the other shares of it.
    pub fn layer(
        &self,
        ops: &mut O,
        ranks: &mut dyn Collective<O>,
        space: &mut Activations<O>,
        pass: Pass<'_>,
        layer: u32,
    ) -> Result<(), EngineError> {
        if !self.part.layers.contains(&layer) {
            let problem = format!("layer {layer} is none of this part's {:?}", self.part.layers);
            return Err(EngineError::Plan(problem));
        }
        let is_last = layer + 1 == self.spec.layers;
        self.attend(ops, space, pass, layer)?;
        if !is_last {
            let Activations { hidden, attended, mlp, partial, .. } = space;
            let mut sum = Summed { ranks, partial, hidden, rows: pass.tokens.len() };
            return self.finish(ops, layer, attended, &mut sum, mlp);
        }
        // Keys and values are stored by now: only rows that want logits need the rest of the last layer.
        if pass.wanted.is_empty() {
            return Ok(());
        }
        ops.gather(&space.hidden, pass.wanted, &mut space.last_hidden)?;
        ops.gather(&space.attended, pass.wanted, &mut space.last_attended)?;
        let Activations { last_hidden, last_attended, mlp, partial, .. } = space;
        let mut sum = Summed { ranks, partial, hidden: last_hidden, rows: pass.wanted.len() };
        self.finish(ops, layer, last_attended, &mut sum, mlp)
    }

    /// Logits of the wanted rows, after the last layer; of this part's share of the vocabulary.
    pub fn logits<'s>(
        &self,
        ops: &mut O,
        space: &'s mut Activations<O>,
        rows: usize,
    ) -> Result<LogitRows<'s>, EngineError> {
        let vocab = self.part.vocab(&self.spec).len();
        let Activations { last_hidden, logits, .. } = space;
        logits.resize(rows * vocab, 0.0);
        let left = Left::normed(last_hidden, self.norm(&self.norm));
        let head = self.head.as_ref().map_or_else(|| self.table(), Ok)?;
        ops.logits(left, head, logits)?;
        Ok(LogitRows { logits, vocab })
    }

    /// The layers of `range` of a whole model for all rows of a step, embedding first where the range begins at 0.
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
        range.into_iter().try_for_each(|layer| self.layer(ops, &mut Alone, space, pass, layer))
    }

    fn attend(&self, ops: &mut O, space: &mut Activations<O>, pass: Pass<'_>, layer: u32) -> Result<(), EngineError> {
        let own_layer = layer - self.part.layers.start;
        let weights = &self.layers[own_layer as usize];
        let shape = self.narrowed.head_shape();
        let Activations { hidden, qkv, attended, .. } = space;
        let left = Left::normed(hidden, self.norm(&weights.attention_norm));
        ops.linear(left, &weights.qkv.weight, weights.qkv.bias.as_ref(), Epilogue::Store, qkv)?;
        let finish = QkvSpec {
            shape,
            rope: match &self.positions {
                PositionWeights::Rope(rope) => Some(rope),
                PositionWeights::Learned { .. } => None,
            },
            q_norm: weights.q_norm.as_ref(),
            k_norm: weights.k_norm.as_ref(),
            norm_eps: self.spec.norm_eps,
        };
        ops.qkv_append(qkv, &finish, &pass.batch, pass.kv, own_layer)?;
        let weigh =
            AttentionSpec { shape, scale: (self.spec.head_dim as f32).sqrt().recip(), sliding_window: weights.window };
        Ok(ops.attention(qkv, &weigh, &pass.batch, pass.kv, own_layer, attended)?)
    }

    /// The output projection and the MLP, both added to `hidden`.
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
        mlp.add_to(ops, self.norm(mlp_norm), sum, space, (self.expert_counts.as_ref(), layer))
    }

    fn norm<'a>(&self, weights: &'a NormWeights<O>) -> Norm<'a, O> {
        let NormWeights { weight, bias } = weights;
        Norm { kind: self.spec.norm, weight, bias: bias.as_ref(), eps: self.spec.norm_eps }
    }
}
