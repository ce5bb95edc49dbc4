//! What the executor drives: steps, layer by layer up to their samples, on any device; knows no scheduler.

use sched::{LaneId, SampleOutcome, ScoreOutcome, SlotId, SlotInit, TokenId};

use super::input::StepInput;
use super::layers::Layers;
use super::order::Entry;
use crate::EngineError;
use crate::model::ModelSpec;
use crate::sampling::{Choices, Sampler};

/// Runs steps, lane by lane, and samples at their end. Made and used by one thread. See [`Layers`] for methods of both.
pub(crate) trait Forward {
    fn spec(&self) -> &ModelSpec;

    /// Takes in a sequence, and forgets the one that had its slot before.
    fn admit(&mut self, init: &SlotInit) -> Result<(), EngineError>;

    fn copy_blocks(&mut self, pairs: Vec<(u32, u32)>) -> Result<(), EngineError>;

    /// Takes the input for a lane's next layers. The tokens of rows in `from` are the last samples of their slots.
    fn enter(&mut self, lane: LaneId, input: StepInput, from: &[FromSlot], entry: Entry) -> Result<(), EngineError>;

    fn layer(&mut self, lane: LaneId, layer: u32) -> Result<(), EngineError>;

    fn wait(&mut self) -> Result<(), EngineError>;

    /// Samples and scores after the last layer: one outcome per row, so that a row that gives none fails alone.
    fn read(&mut self, lane: LaneId, sample: &[Sampled], score: &[Scored]) -> Result<Outcomes, EngineError>;

    /// Records that the step that should have sampled a slot did not.
    fn void(&mut self, slot: SlotId);
}

/// A row whose token is the last sample of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FromSlot {
    pub(super) row: usize,
    pub(super) slot: SlotId,
}

/// A slot that samples, and the index of its row among the rows that want logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sampled {
    pub(super) slot: SlotId,
    pub(super) index: usize,
}

/// A token to score, and the index of its row among the rows that want logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scored {
    pub(super) index: usize,
    pub(super) token: TokenId,
    pub(super) top: u8,
}

/// What the logits of a step gave.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    pub(super) samples: Vec<SampleOutcome>,
    pub(super) scores: Vec<ScoreOutcome>,
}

/// Layers whose logits are sampled on the host.
pub(crate) struct HostSampled<L> {
    layers: L,
    sampler: Sampler,
}

impl<L: Layers> HostSampled<L> {
    pub(crate) fn new(layers: L, choices: Choices) -> HostSampled<L> {
        HostSampled { layers, sampler: Sampler::new(choices) }
    }
}

impl<L: Layers> Forward for HostSampled<L> {
    fn spec(&self) -> &ModelSpec {
        self.layers.spec()
    }

    fn admit(&mut self, init: &SlotInit) -> Result<(), EngineError> {
        self.sampler.admit(init);
        Ok(())
    }

    fn copy_blocks(&mut self, pairs: Vec<(u32, u32)>) -> Result<(), EngineError> {
        self.layers.copy_blocks(pairs)
    }

    fn enter(
        &mut self,
        lane: LaneId,
        mut input: StepInput,
        from: &[FromSlot],
        entry: Entry,
    ) -> Result<(), EngineError> {
        for FromSlot { row, slot } in from {
            let (token, vocab) = (self.sampler.last_token(*slot)?.0, self.layers.spec().vocab);
            if token >= vocab {
                return Err(EngineError::Plan(format!("row {row} has token {token} of a vocabulary of {vocab}")));
            }
            input.tokens[*row] = token;
        }
        self.layers.enter(lane, input, entry)
    }

    fn layer(&mut self, lane: LaneId, layer: u32) -> Result<(), EngineError> {
        self.layers.layer(lane, layer)
    }

    fn wait(&mut self) -> Result<(), EngineError> {
        self.layers.wait()
    }

    fn read(&mut self, lane: LaneId, sample: &[Sampled], score: &[Scored]) -> Result<Outcomes, EngineError> {
        if sample.is_empty() && score.is_empty() {
            return Ok(Outcomes::default());
        }
        let HostSampled { layers, sampler } = self;
        let logits = layers.logits(lane)?;
        let scores =
            score.iter().map(|Scored { index, token, top }| sampler.score(logits.row(*index), *token, *top)).collect();
        let samples = sample.iter().map(|Sampled { slot, index }| sampler.sample(*slot, logits.row(*index)));
        Ok(Outcomes { samples: samples.collect::<Result<_, _>>()?, scores })
    }

    fn void(&mut self, slot: SlotId) {
        self.sampler.void(slot);
    }
}
