//! What computes steps: the trait that the replica thread drives, and its implementations.
//!
//! A backend never blocks the replica thread: `submit` hands a step over, `poll` brings what has happened since, and
//! a `Notify` wakes the replica when there is something to poll (`docs/adr/0004-backend-wakes.md`).

mod executor;
mod modelled;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sched::replica::Progress;
use sched::{Failure, LaneId, StepId, StepPlan, StepResult};

use crate::EngineError;

pub(crate) use executor::{Built, Described, Forward, Group, HostSampled, Order, Orders, Runner, follow, words_max};
pub use executor::{OpsBackend, StepLimits};
pub use modelled::ModelledBackend;

/// Wakes the replica thread; may be called from any thread, as often as one likes, and never blocks.
pub type Notify = Arc<dyn Fn() + Send + Sync>;

/// What computes steps for one replica.
pub trait Backend: Send {
    /// What it is, for logs, metrics and the compatibility key.
    fn describe(&self) -> &BackendInfo;

    /// Hands a step over and returns at once. Steps of one lane run in the order of their submission; each ends with
    /// exactly one [`BackendEvent::Done`]. Whoever asks for `progress` hears of every layer before the last.
    fn submit(&mut self, lane: LaneId, step: StepId, plan: StepPlan, progress: Progress) -> Result<(), EngineError>;

    /// What has happened, oldest first. The end of a step wakes the replica, and so does progress that was asked for.
    fn poll(&mut self) -> Option<BackendEvent>;

    /// Ends a step at its next layer boundary. Unknown and finished steps are left alone.
    fn cancel(&mut self, step: StepId);

    /// Gives lanes their parts of the device, each in (0, 1], all at once; lanes that were never given one have 1.
    fn set_shares(&mut self, shares: &[(LaneId, f32)]);
}

/// What happened to a step.
#[derive(Debug, Clone, PartialEq)]
pub enum BackendEvent {
    /// Its first `layers_done` planned layers have run: their keys and values are stored. Only where that was asked for.
    Progress {
        /// Lane.
        lane: LaneId,
        /// Step.
        step: StepId,
        /// Layers of the plan that have run for all rows.
        layers_done: u32,
    },
    /// It has ended.
    Done {
        /// Lane.
        lane: LaneId,
        /// Step.
        step: StepId,
        /// When it ran.
        ran: StepSpan,
        /// What it brought, or why it could not run.
        result: Result<StepResult, Failure>,
    },
    /// It can run nothing any more; every step has ended before.
    Stopped(Failure),
}

/// When a step ran: from the first thing that was done for it to the last. What it waited before is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepSpan {
    /// It began.
    pub started: Instant,
    /// It ended.
    pub ended: Instant,
}

impl StepSpan {
    /// A step that ended at once.
    #[must_use]
    pub fn nothing() -> StepSpan {
        let now = Instant::now();
        StepSpan { started: now, ended: now }
    }

    /// How long it took.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.ended.saturating_duration_since(self.started)
    }
}

/// What a backend is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendInfo {
    /// `cpu` or `modelled`.
    pub backend: &'static str,
    /// The instruction level in use, or `none`.
    pub kernel_set: String,
    /// Part of the compatibility key: equal values promise equal bits from equal inputs.
    pub numerics_id: String,
    /// Format of the weights that it computes with.
    pub weights_dtype: String,
    /// Threads that compute.
    pub threads: usize,
    /// Whether tokens and log-probabilities are the same bits in every batch, chunking and role.
    pub exact: bool,
}
