//! The input of one step as every rank of a worker gets it: flat arrays, checked before; knows no plan and no maths.

use kernels::{Batch, BatchSequence};

/// What the layers of a step need to know.
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
    /// The step as operations take it.
    pub(super) fn as_input(&self) -> kernels::StepInput<'_> {
        let batch = Batch { sequences: &self.sequences, blocks: &self.blocks };
        kernels::StepInput { tokens: &self.tokens, batch, wanted: &self.wanted }
    }
}
