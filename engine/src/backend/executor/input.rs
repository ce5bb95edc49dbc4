//! Input of one step for every rank of a worker: flat arrays, checked beforehand; knows no plan and no maths.

use kernels::{Batch, BatchSequence};

/// Input of the layers of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StepInput {
    pub(super) tokens: Vec<u32>,
    pub(super) sequences: Vec<BatchSequence>,
    /// Block tables of all sequences.
    pub(super) blocks: Vec<u32>,
    /// Rows that want logits, ascending, each once.
    pub(super) wanted: Vec<u32>,
}

impl StepInput {
    /// The input as operations take it.
    pub(super) fn as_input(&self) -> kernels::StepInput<'_> {
        let batch = Batch { sequences: &self.sequences, blocks: &self.blocks };
        kernels::StepInput { tokens: &self.tokens, batch, wanted: &self.wanted }
    }
}
