//! What operations are told of a step, once: its tokens, sequences, blocks and the rows that want logits; knows no layer.

use std::ops::Range;

use crate::checks::{append_batch, at_most, attention_batch, below, heads, same};
use crate::{AttentionSpec, KernelError, KvGeometry};

/// One step, as the host knows it.
#[derive(Debug, Clone, Copy)]
pub struct StepInput<'a> {
    /// Tokens to embed, in the order of their rows. A rank that holds a share of the vocabulary embeds fewer than there are
    /// rows.
    pub tokens: &'a [u32],
    /// Which rows are whose.
    pub batch: Batch<'a>,
    /// Rows that want logits, ascending.
    pub wanted: &'a [u32],
}

/// The sequences of one step: which rows are whose, at which positions, in which blocks.
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
    /// Its rows, consecutive positions.
    pub rows: Range<u32>,
    /// Its block table in `Batch::blocks`, from its first block on; entry `p / block_tokens` holds position `p`.
    /// With a sliding window, entries wholly before the window of the step's first row are never looked at.
    pub blocks: Range<u32>,
    /// Absolute position of its first row; every earlier position is stored already.
    pub first_position: u32,
}

/// What the steps of a lane can be at most, and the kinds of attention that its layers have.
#[derive(Debug, Clone)]
pub struct StepShape {
    /// Rows of one step.
    pub rows_max: usize,
    /// Rows of one step that want logits.
    pub wanted_max: usize,
    /// Each kind of attention once: a device plans them when a step begins.
    pub attentions: Vec<AttentionSpec>,
}

/// A step in host memory, checked: what operations of host threads read.
#[derive(Debug, Clone)]
pub struct HostStep {
    shape: StepShape,
    tokens: Vec<u32>,
    sequences: Vec<BatchSequence>,
    blocks: Vec<u32>,
    wanted: Vec<u32>,
    rows: usize,
    /// Of the pool that the blocks were checked against; none before the first step.
    geometry: Option<KvGeometry>,
}

impl HostStep {
    /// No step yet.
    pub(crate) fn new(shape: &StepShape) -> Self {
        let (tokens, blocks, wanted) = (Vec::new(), Vec::new(), Vec::new());
        Self { shape: shape.clone(), tokens, sequences: Vec::new(), blocks, wanted, rows: 0, geometry: None }
    }

    /// Takes a step in. What does not fit is an error, and then there is no step.
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

    /// Tokens to embed.
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Rows that want logits.
    pub(crate) fn wanted(&self) -> &[u32] {
        &self.wanted
    }

    /// Positions of all rows.
    pub(crate) fn positions(&self) -> impl Iterator<Item = u32> {
        self.batch().rows().map(|(_, position, _)| position as u32)
    }

    /// Which rows are whose.
    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch { sequences: &self.sequences, blocks: &self.blocks }
    }

    /// Which of the shape's kinds of attention `spec` is.
    pub(crate) fn kind_of(&self, spec: &AttentionSpec) -> Result<usize, KernelError> {
        let unplanned =
            || KernelError::Invalid { op: "attention", what: "the step was not made for this kind".to_owned() };
        self.shape.attentions.iter().position(|kind| kind == spec).ok_or_else(unplanned)
    }

    /// The kinds of attention that it was made for.
    pub(crate) fn attentions(&self) -> &[AttentionSpec] {
        &self.shape.attentions
    }

    /// The step must have begun with a pool of this shape and have as many rows as the activations.
    pub(crate) fn check(&self, op: &'static str, rows: usize, geometry: &KvGeometry) -> Result<(), KernelError> {
        if self.geometry != Some(*geometry) {
            return Err(KernelError::Invalid { op, what: "the step has not begun with this pool".to_owned() });
        }
        same(op, "rows of the step", self.rows, rows)
    }

    /// Every position must have an entry in a table of so many.
    pub(crate) fn check_positions(&self, op: &'static str, what: &'static str, max: usize) -> Result<(), KernelError> {
        let end = |sequence: &BatchSequence| sequence.first_position as usize + sequence.rows.len();
        self.sequences.iter().try_for_each(|sequence| at_most(op, what, end(sequence), max))
    }
}
