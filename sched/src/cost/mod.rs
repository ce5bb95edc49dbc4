//! Latency models of steps; knows quantities of work, not who asked for it.
//!
//! A model gives a step's *work* (microseconds on the whole device, alone) and its *speed* under given shares and
//! neighbours, so that a running step can be re-timed when either changes: see [`StepClock`].

mod budget;
mod clock;
mod fitted;
mod latency;
mod learner;
mod least_squares;
mod own_steps;
mod work;

pub use budget::{ChunkBudget, StepBudget, saturating_tokens, step_tokens_max};
pub use clock::StepClock;
pub use fitted::{CostError, DecodeFit, Fitted, PrefillFit};
pub use latency::Latency;
pub(crate) use learner::{Learner, Sharing};
pub use own_steps::OwnSteps;
pub use work::StepWork;

use crate::Span;

/// Microseconds that a step takes on the whole device with no neighbours.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Work(pub f64);

/// Use of the device by a lane that runs a step, as its neighbours feel it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LaneUse {
    /// Part of the device it may use, in (0, 1].
    pub share: f64,
    /// Phase of its step.
    pub phase: Phase,
}

/// Resource that bounds a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Compute: some of its rows are chunks of prompts.
    Prefill,
    /// Memory bandwidth: all of its rows are decodes.
    Decode,
}

impl Phase {
    /// The phase of the other lane.
    #[must_use]
    pub const fn other(self) -> Phase {
        match self {
            Phase::Prefill => Phase::Decode,
            Phase::Decode => Phase::Prefill,
        }
    }
}

/// A latency model of one kind of device.
pub trait CostModel {
    /// Returns the work of a step. More rows or longer contexts never take less.
    fn work(&self, step: &StepWork) -> Work;

    /// Returns the work done per microsecond, in (0, 1], by a lane beside these others.
    fn speed(&self, own: LaneUse, others: &[LaneUse]) -> f64;

    /// Returns the time that a step takes on the whole device, alone.
    fn span_alone(&self, step: &StepWork) -> Span {
        Span(self.work(step).0.ceil() as u64)
    }
}
