//! What can go wrong with a simulation.

use sched::cost::CostError;
use sched::layout::LayoutError;
use sched::{SchedError, Span, Time, WorkerId};
use thiserror::Error;

/// A simulation cannot be set up, or what it shows is a defect.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum PlannerError {
    /// A worker's scheduler refuses its configuration.
    #[error("cannot simulate {worker}")]
    Replica {
        /// The worker.
        worker: WorkerId,
        /// Why.
        #[source]
        source: SchedError,
    },
    /// A worker's latency model is impossible.
    #[error("cannot simulate {worker}")]
    Cost {
        /// The worker.
        worker: WorkerId,
        /// Why.
        #[source]
        source: CostError,
    },
    /// A worker's KV layout is impossible, or two layouts cannot exchange blocks.
    #[error("cannot simulate the kv pool of {worker}")]
    Layout {
        /// The worker.
        worker: WorkerId,
        /// Why.
        #[source]
        source: LayoutError,
    },
    /// A setting of the simulation is out of range.
    #[error("simulation setting {name} is {value}, but it must {must}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// What would be right.
        must: &'static str,
    },
    /// The simulation did not come to an end.
    #[error("the simulation was stopped at {at} after {events} events with {running} requests running")]
    Endless {
        /// Simulated time.
        at: Time,
        /// Events until then.
        events: u64,
        /// Requests that had not ended.
        running: usize,
    },
    /// A worker kept something after the last request had ended, or its accounts do not add up.
    #[error("{worker} leaks at the end: {detail}")]
    Leak {
        /// The worker.
        worker: WorkerId,
        /// What.
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
