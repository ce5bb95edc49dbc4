//! Plan of a step, from a scheduler to a backend, and its result; flat arrays, no pointers into the scheduler.

use std::ops::Range;
use std::sync::Arc;

use crate::{BlockId, Failure, SampledToken, SamplingParams, Score, SlotId, TokenId};

/// One step of one lane. Rows are grouped by sequence.
///
/// Order of effects: `admit`, `copies`, then `layers` over all tokens, then `sample` and `score`; all of it after the lane's step
/// before. Slots are admitted and blocks are copied even in a step that fails or is cancelled before its first layer.
/// After such a step the slots that should have sampled are *void* until they are admitted again, and so is a slot
/// whose row could not be sampled: the next step may still have rows of them, whose samples are discarded and which
/// must not disturb the other rows.
///
/// Lanes share the blocks and the slots. No step of one touches what a step of another one touches, reads or names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepPlan {
    /// Sampler slots that begin here; their former state is dropped.
    pub admit: Vec<SlotInit>,
    /// Blocks to copy before the first layer (a shared, partly filled block that is about to be written).
    pub copies: Vec<BlockCopy>,
    /// Sequences of the step, in the order of their tokens.
    pub sequences: Vec<SequenceRows>,
    /// Input tokens of all sequences, one after the other. Meaningless where `SequenceRows::input` is `FromSlot`.
    pub tokens: Vec<TokenId>,
    /// Block tables of all sequences, one after the other, from the sequence's first block on.
    pub blocks: Vec<BlockId>,
    /// Layers to run: all of them unless a step is cut by layers.
    pub layers: Range<u32>,
    /// Rows whose logits are wanted, with the slots that sample from them. One row may serve several slots (choices).
    pub sample: Vec<SampleRow>,
    /// Rows whose logits score the prompt token that follows them.
    pub score: Vec<ScoreRow>,
}

/// Rows of one sequence in a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceRows {
    /// Its rows in `StepPlan::tokens`.
    pub rows: Range<u32>,
    /// Its block table in `StepPlan::blocks`; covers every position up to the last row's.
    pub blocks: Range<u32>,
    /// Absolute position of its first row. Positions below it already have their KV stored.
    pub first_position: u32,
    /// Source of the input tokens.
    pub input: Input,
}

/// Source of input tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// `StepPlan::tokens` holds the input tokens.
    Given,
    /// The one input token is the last token sampled into this slot, which the scheduler does not know yet.
    FromSlot(SlotId),
}

/// Row whose logits are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleRow {
    /// Index into `StepPlan::tokens`.
    pub row: u32,
    /// Slot that samples and remembers the token.
    pub slot: SlotId,
}

/// Row whose logits score a known token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScoreRow {
    /// Index into `StepPlan::tokens`.
    pub row: u32,
    /// Token that follows the row's.
    pub token: TokenId,
    /// Number of alternatives to report.
    pub top: u8,
}

/// Everything that a backend needs to sample for a choice from now on.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotInit {
    /// Slot of the choice.
    pub slot: SlotId,
    /// Sampling parameters.
    pub params: Arc<SamplingParams>,
    /// Seed of this choice: `rng::choice_seed(params.seed, choice)`.
    pub seed: u64,
    /// The prompt, for the repetition penalty.
    pub prompt: Arc<[TokenId]>,
    /// Tokens generated before; their number is the sampling position of the next token.
    pub generated: Vec<TokenId>,
}

/// Copy of a whole block inside one pool, in all layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockCopy {
    /// Block that is read.
    pub from: BlockId,
    /// Block that is written.
    pub to: BlockId,
}

/// Outcome of one `StepPlan::sample` entry: its token, or why this row has none. A failure is the entry's alone: its
/// slot is void until it is admitted again, and every other entry of the step has its token. `InvalidRequest` says that
/// the sampling parameters are at fault; anything else leaves the KV cache that the row was computed from in doubt.
pub type SampleOutcome = Result<SampledToken, Failure>;

/// Outcome of one `StepPlan::score` entry: its score, or why its row has none.
pub type ScoreOutcome = Result<Score, Failure>;

/// Result of a step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepResult {
    /// One outcome per `StepPlan::sample` entry, in that order; empty if the step was cancelled before its last layer.
    pub samples: Vec<SampleOutcome>,
    /// One outcome per `StepPlan::score` entry, in that order; empty if the step was cancelled before its last layer.
    pub scores: Vec<ScoreOutcome>,
    /// Layers that ran for all rows; less than planned only after a cancel.
    pub layers_done: u32,
}
