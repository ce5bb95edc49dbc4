//! What the executor drives: steps through their layers to their samples, wherever they run; knows no scheduler.

use sched::{LaneId, SampleOutcome, SlotId, SlotInit};

use super::input::StepInput;
use super::layers::Layers;
use super::order::Entry;
use crate::EngineError;
use crate::model::ModelSpec;
use crate::sampling::Sampler;

/// Runs steps, lane by lane, and samples at their end. It is made and used by one thread.
pub(crate) trait Forward {
    /// The shape of the whole model.
    fn spec(&self) -> &ModelSpec;

    /// Takes a sequence in, and forgets the one that had its slot before.
    fn admit(&mut self, init: &SlotInit) -> Result<(), EngineError>;

    /// Copies whole blocks, (from, to) each, in order.
    fn copy_blocks(&mut self, pairs: Vec<(u32, u32)>) -> Result<(), EngineError>;

    /// Takes the input of a lane's next layers. The tokens of some rows are those that slots have sampled last.
    fn enter(&mut self, lane: LaneId, input: StepInput, from: &[FromSlot], entry: Entry) -> Result<(), EngineError>;

    /// Asks for one layer of the lane's input; it may still run when this returns.
    fn layer(&mut self, lane: LaneId, layer: u32) -> Result<(), EngineError>;

    /// Waits until the keys and values of all layers that were asked for are stored.
    fn wait(&mut self) -> Result<(), EngineError>;

    /// Samples after the last layer: one outcome per row, so that a row that cannot be sampled fails alone.
    fn sample(&mut self, lane: LaneId, rows: &[Sampled]) -> Result<Vec<SampleOutcome>, EngineError>;

    /// The step that should have sampled a slot did not.
    fn void(&mut self, slot: SlotId);
}

/// A row whose token is what a slot has sampled last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FromSlot {
    pub(super) row: usize,
    pub(super) slot: SlotId,
}

/// A slot that samples, and which of the rows that want logits is its.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sampled {
    pub(super) slot: SlotId,
    pub(super) index: usize,
}

/// Layers whose logits the host samples from.
pub(crate) struct HostSampled<L> {
    layers: L,
    sampler: Sampler,
}

impl<L: Layers> HostSampled<L> {
    pub(crate) fn new(layers: L) -> HostSampled<L> {
        HostSampled { layers, sampler: Sampler::new() }
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

    fn sample(&mut self, lane: LaneId, rows: &[Sampled]) -> Result<Vec<SampleOutcome>, EngineError> {
        let HostSampled { layers, sampler } = self;
        let logits = layers.logits(lane)?;
        rows.iter().map(|Sampled { slot, index }| sampler.sample(*slot, logits.row(*index))).collect()
    }

    fn void(&mut self, slot: SlotId) {
        self.sampler.void(slot);
    }
}
