//! Layers of a step up to their logits, on one rank or several; knows no slot and no sampler.

use kernels::Ops;
use sched::LaneId;

use super::input::StepInput;
use super::order::Entry;
use super::runner::Runner;
use crate::EngineError;
use crate::model::{LogitRows, ModelSpec};

/// Runs the layers of steps, lane by lane.
pub(crate) trait Layers {
    fn spec(&self) -> &ModelSpec;

    /// Copies whole blocks, each (from, to), in order.
    fn copy_blocks(&mut self, pairs: Vec<(u32, u32)>) -> Result<(), EngineError>;

    /// Takes the input for a lane's next layers.
    fn enter(&mut self, lane: LaneId, input: StepInput, entry: Entry) -> Result<(), EngineError>;

    /// Asks for one layer of the lane's input; the layer may still run when this returns.
    fn layer(&mut self, lane: LaneId, layer: u32) -> Result<(), EngineError>;

    /// Waits until the keys and values of all layers that were asked for are stored.
    fn wait(&mut self) -> Result<(), EngineError>;

    /// Returns logits of the wanted rows in host memory, after the last layer.
    fn logits(&mut self, lane: LaneId) -> Result<LogitRows<'_>, EngineError>;
}

/// A single rank runs everything itself.
impl<O: Ops> Layers for Runner<O> {
    fn spec(&self) -> &ModelSpec {
        self.model().spec()
    }

    fn copy_blocks(&mut self, pairs: Vec<(u32, u32)>) -> Result<(), EngineError> {
        Runner::copy_blocks(self, &pairs)
    }

    fn enter(&mut self, lane: LaneId, input: StepInput, entry: Entry) -> Result<(), EngineError> {
        Runner::enter(self, lane, &input, entry)
    }

    fn layer(&mut self, lane: LaneId, layer: u32) -> Result<(), EngineError> {
        Runner::layer(self, lane, layer)
    }

    fn wait(&mut self) -> Result<(), EngineError> {
        Runner::wait(self)
    }

    fn logits(&mut self, lane: LaneId) -> Result<LogitRows<'_>, EngineError> {
        Runner::logits(self, lane)
    }
}
