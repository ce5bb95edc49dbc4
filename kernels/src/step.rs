//! Input of a step, the same for all layers: tokens, sequences, blocks and the rows that want logits; knows no layer.

use std::ops::Range;

use crate::checks::{append_batch, at_most, attention_batch, below, heads, same};
use crate::{AttentionSpec, KernelError, KvGeometry};

/// Input of one step, in host memory.
#[derive(Debug, Clone, Copy)]
pub struct StepInput<'a> {
    /// Tokens to embed, in the order of their rows. A rank with a share of the vocabulary embeds fewer tokens than
    /// there are rows.
    pub tokens: &'a [u32],
    /// Sequences and their rows.
    pub batch: Batch<'a>,
    /// Rows that want logits, ascending.
    pub wanted: &'a [u32],
}

/// Sequences of one step: their rows, positions and blocks.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// In the order of their rows: together they cover every row of the step exactly once.
    pub sequences: &'a [BatchSequence],
    /// Block tables of all sequences; `BatchSequence::blocks` points into it.
    pub blocks: &'a [u32],
}

impl<'a> Batch<'a> {
    /// Each row with its position and its sequence's block table.
    pub(crate) fn rows(self) -> impl Iterator<Item = (usize, usize, &'a [u32])> {
        self.sequences.iter().flat_map(move |sequence| {
            let table = &self.blocks[sequence.blocks.start as usize..];
            let positions = sequence.first_position as usize..;
            sequence.rows.clone().zip(positions).map(move |(row, position)| (row as usize, position, table))
        })
    }
}

/// The part of one sequence in a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchSequence {
    /// Rows of the sequence in the step, one per position.
    pub rows: Range<u32>,
    /// Block table of the sequence in `Batch::blocks`; entry `p / block_tokens` holds position `p`. With a sliding
    /// window, entries wholly before the window of the step's first row are never read.
    pub blocks: Range<u32>,
    /// Absolute position of the first row; every earlier position is stored already.
    pub first_position: u32,
}

/// Largest step of a lane, and the kinds of attention that the model's layers have.
#[derive(Debug, Clone)]
pub struct StepShape {
    /// Most rows of one step.
    pub rows_max: usize,
    /// Most rows of one step that want logits.
    pub wanted_max: usize,
    /// Each kind of attention once: `begin` plans them.
    pub attentions: Vec<AttentionSpec>,
}

/// A checked step in host memory, as operations on host threads read it.
#[derive(Debug, Clone)]
pub struct HostStep {
    shape: StepShape,
    tokens: Vec<u32>,
    sequences: Vec<BatchSequence>,
    blocks: Vec<u32>,
    wanted: Vec<u32>,
    rows: usize,
    /// Shape of the pool that the blocks were checked against; `None` if no step has begun.
    geometry: Option<KvGeometry>,
}

impl HostStep {
    pub(crate) fn new(shape: &StepShape) -> Self {
        let (tokens, blocks, wanted) = (Vec::new(), Vec::new(), Vec::new());
        Self { shape: shape.clone(), tokens, sequences: Vec::new(), blocks, wanted, rows: 0, geometry: None }
    }

    /// Checks and stores a step. After an error there is no step.
    pub(crate) fn begin(&mut self, input: StepInput<'_>, geometry: &KvGeometry) -> Result<(), KernelError> {
        let op = "begin";
        self.forget();
        let rows = input.batch.sequences.last().map_or(0, |last| last.rows.end as usize);
        at_most(op, "rows", rows, self.shape.rows_max)?;
        at_most(op, "tokens", input.tokens.len(), rows)?;
        at_most(op, "rows that want logits", input.wanted.len(), self.shape.wanted_max)?;
        input.wanted.iter().try_for_each(|row| below(op, "row that wants logits", *row as usize, rows))?;
        append_batch(op, rows, &input.batch, geometry)?;
        for spec in &self.shape.attentions {
            heads(op, &spec.shape, geometry)?;
            attention_batch(op, rows, spec, &input.batch, geometry)?;
        }
        self.tokens.extend_from_slice(input.tokens);
        self.sequences.extend_from_slice(input.batch.sequences);
        self.blocks.extend_from_slice(input.batch.blocks);
        self.wanted.extend_from_slice(input.wanted);
        (self.rows, self.geometry) = (rows, Some(*geometry));
        Ok(())
    }

    fn forget(&mut self) {
        let Self { tokens, sequences, blocks, wanted, rows, geometry, .. } = self;
        tokens.clear();
        sequences.clear();
        blocks.clear();
        wanted.clear();
        (*rows, *geometry) = (0, None);
    }

    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    pub(crate) fn wanted(&self) -> &[u32] {
        &self.wanted
    }

    pub(crate) fn positions(&self) -> impl Iterator<Item = u32> {
        self.batch().rows().map(|(_, position, _)| position as u32)
    }

    /// Sequences and their rows.
    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch { sequences: &self.sequences, blocks: &self.blocks }
    }

    /// Index of `spec` among the kinds of attention.
    pub(crate) fn kind_of(&self, spec: &AttentionSpec) -> Result<usize, KernelError> {
        let unplanned =
            || KernelError::Invalid { op: "attention", what: "the step was not made for this kind".to_owned() };
        self.shape.attentions.iter().position(|kind| kind == spec).ok_or_else(unplanned)
    }

    pub(crate) fn attentions(&self) -> &[AttentionSpec] {
        &self.shape.attentions
    }

    /// Checks that the step has begun with a pool of this shape and has as many rows as the activations.
    pub(crate) fn check(&self, op: &'static str, rows: usize, geometry: &KvGeometry) -> Result<(), KernelError> {
        if self.geometry != Some(*geometry) {
            return Err(KernelError::Invalid { op, what: "the step has not begun with this pool".to_owned() });
        }
        same(op, "rows of the step", self.rows, rows)
    }

    pub(crate) fn check_positions(&self, op: &'static str, what: &'static str, max: usize) -> Result<(), KernelError> {
        let end = |sequence: &BatchSequence| sequence.first_position as usize + sequence.rows.len();
        self.sequences.iter().try_for_each(|sequence| at_most(op, what, end(sequence), max))
    }
}
