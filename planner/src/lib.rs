//! Discrete-event simulation of the state machines in `sched`; knows no tokio and no network.
//!
//! [`simulate`] drives the `Replica`s and the `Desk` that serve, over modelled devices and a modelled network. Events
//! are ordered by (time, sequence number), so equal inputs give the same event log, whose hash is in the report.

mod config;
mod error;
mod log;
mod network;
mod queue;
mod report;
mod simulation;
mod workload;

#[cfg(test)]
mod tests;

pub use config::{BrokenLink, Fault, LinkSpec, Policy, SimConfig, WorkerSpec};
pub use error::PlannerError;
pub use report::{Report, RequestReport};
pub use simulation::simulate;
pub use workload::{Arrival, Poisson};
