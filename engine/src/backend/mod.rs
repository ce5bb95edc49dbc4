//! Backends: the trait that the replica thread drives to compute steps, and its implementations.
//!
//! A backend never blocks the replica thread: `submit` hands a step over, `poll` returns what has happened since, and a
//! `Notify` wakes the replica when there is something to poll (`docs/adr/0004-backend-wakes.md`).

mod executor;
mod modelled;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sched::replica::Progress;
use sched::{Failure, LaneId, StepId, StepPlan, StepResult};

use crate::EngineError;

pub(crate) use executor::{
    Built, Described, Forward, Group, HostSampled, Order, Orders, Plan, Runner, follow, words_max,
};
pub use executor::{OpsBackend, StepLimits};
pub use modelled::ModelledBackend;

/// Wakes the replica thread; may be called from any thread, any number of times, and never blocks.
pub type Notify = Arc<dyn Fn() + Send + Sync>;

/// Computes steps for one replica.
pub trait Backend: Send {
    /// Describes the backend for logs, metrics and the compatibility key.
    fn describe(&self) -> &BackendInfo;

    /// Hands a step over and returns at once. Steps of one lane run in order of submission; each ends with exactly one
    /// [`BackendEvent::Done`]. With `progress` by layer, every layer before the last is reported.
    fn submit(&mut self, lane: LaneId, step: StepId, plan: StepPlan, progress: Progress) -> Result<(), EngineError>;

    /// Returns the oldest event not yet returned. The end of a step wakes the replica, and so does progress.
    fn poll(&mut self) -> Option<BackendEvent>;

    /// Ends a step at its next layer boundary. Unknown and ended steps are ignored.
    fn cancel(&mut self, step: StepId);

    /// Sets the shares of the device of all lanes, each in (0, 1], at once, without stopping a step. Shares that sum to
    /// more than 1 divide nothing: each lane uses what it gets. The default share is 1.
    fn set_shares(&mut self, shares: &[(LaneId, f32)]);

    /// Device time that each lane has used so far, summed over threads; nothing where the device does not count it.
    fn used(&self) -> Vec<(LaneId, Duration)> {
        Vec::new()
    }
}

/// Event of a backend.
#[derive(Debug, Clone, PartialEq)]
pub enum BackendEvent {
    /// The first `layers_done` planned layers have run and their KV is stored. Only for steps that asked for progress.
    Progress {
        /// Lane of the step.
        lane: LaneId,
        /// The step.
        step: StepId,
        /// Layers of the plan that have run for all rows.
        layers_done: u32,
    },
    /// The step has ended.
    Done {
        /// Lane of the step.
        lane: LaneId,
        /// The step.
        step: StepId,
        /// Time span in which the step ran.
        ran: StepSpan,
        /// Samples, or the reason why the step could not run.
        result: Result<StepResult, Failure>,
    },
    /// The backend can run no more steps; every step has ended before.
    Stopped(Failure),
}

/// Time span of a step: from the first work on it to the last, without the wait before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepSpan {
    /// Beginning of the work.
    pub started: Instant,
    /// End of the work.
    pub ended: Instant,
}

impl StepSpan {
    /// Span of a step that ended at once.
    #[must_use]
    pub fn nothing() -> StepSpan {
        let now = Instant::now();
        StepSpan { started: now, ended: now }
    }

    /// Duration of the span.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.ended.saturating_duration_since(self.started)
    }
}

/// Description of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendInfo {
    /// `cpu` or `modelled`.
    pub backend: &'static str,
    /// Instruction level in use, or `none`.
    pub kernel_set: String,
    /// Part of the compatibility key: equal values promise equal bits from equal inputs.
    pub numerics_id: String,
    /// Format of the weights in matrix products.
    pub weights_dtype: String,
    /// Threads that compute.
    pub threads: usize,
    /// True if tokens and log-probabilities are the same bits in every batch, chunking and role.
    pub exact: bool,
}
