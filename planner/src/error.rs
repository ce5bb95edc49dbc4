//! Errors of a simulation.

use sched::cost::CostError;
use sched::layout::LayoutError;
use sched::share::ShareError;
use sched::{SchedError, Span, Time, WorkerId};
use thiserror::Error;

/// A simulation cannot be set up, or it shows a defect.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum PlannerError {
    /// A worker's scheduler refuses its configuration.
    #[error("cannot simulate {worker}")]
    Replica {
        /// Worker with the refused scheduler.
        worker: WorkerId,
        /// Reason of the refusal.
        #[source]
        source: SchedError,
    },
    /// A worker's latency model is impossible.
    #[error("cannot simulate {worker}")]
    Cost {
        /// Worker with the impossible model.
        worker: WorkerId,
        /// What is impossible.
        #[source]
        source: CostError,
    },
    /// The division of a worker's device cannot be.
    #[error("cannot divide the device of {worker}")]
    Share {
        /// Worker with the impossible division.
        worker: WorkerId,
        /// What is impossible.
        #[source]
        source: ShareError,
    },
    /// A worker's KV layout is impossible, or two layouts cannot exchange blocks.
    #[error("cannot simulate the kv pool of {worker}")]
    Layout {
        /// Worker with the impossible layout.
        worker: WorkerId,
        /// What is impossible.
        #[source]
        source: LayoutError,
    },
    /// A setting of the simulation is out of range.
    #[error("simulation setting {name} is {value}, but it must {must}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// Value of the setting.
        value: String,
        /// What the value must be.
        must: &'static str,
    },
    /// The simulation did not end.
    #[error("the simulation was stopped at {at} after {events} events with {running} requests running")]
    Endless {
        /// Simulated time of the stop.
        at: Time,
        /// Events until the stop.
        events: u64,
        /// Requests that had not ended.
        running: usize,
    },
    /// A worker still held something after the last request had ended, or its accounts are inconsistent.
    #[error("{worker} leaks at the end: {detail}")]
    Leak {
        /// Worker that leaks.
        worker: WorkerId,
        /// What it still holds, or which account is wrong.
        detail: String,
    },
}

impl PlannerError {
    pub(crate) fn positive(name: &'static str, span: Span) -> Result<(), PlannerError> {
        if span > Span::ZERO {
            return Ok(());
        }
        Err(PlannerError::Setting { name, value: span.to_string(), must: "be above 0" })
    }
}
