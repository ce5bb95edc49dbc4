//! The giving side of a worker: leases that readers hold, the service that readers call; knows no HTTP.
//!
//! A prefill worker is a worker with this side alone: [`run`].

mod giver;

use std::future::Future;
use std::sync::Arc;

pub use giver::Giver;
use sched::Role;
use worker::started::Report;
use worker::{Config, Error, Process, Sides};

/// Section of the configuration for a prefill worker, for error messages.
pub const SECTION: &str = "prefill";

/// Runs a prefill worker; see [`worker::run`].
///
/// # Errors
/// The worker cannot start or go on; nothing is left running then.
pub async fn run(
    config: Config,
    process: Process,
    report: impl Fn(Report) + Sync,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let sides = Sides { giving: Some(Box::new(|loaded| Arc::new(Giver::of(loaded)))), taking: None };
    worker::run(config.settings(SECTION, Role::Prefill), sides, process, report, shutdown).await
}
