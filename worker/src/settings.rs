//! Settings of a worker of any role; knows no file format.

use std::time::Duration;

use engine::EngineError;
use node::bind::{check_name, listen_address};
use node::config::Fault;
use sched::Role;

/// Settings with which a worker starts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Section of the configuration, for error messages.
    pub section: &'static str,
    /// Role of the worker's scheduler.
    pub role: Role,
    /// Name in logs, metrics and errors.
    pub name: String,
    /// Engine: the backend that computes and the transport that moves KV.
    pub engine: engine::Config,
    /// Time without progress after which a start has failed.
    pub start_stall: Duration,
    /// Time that running legs have to end after the process was asked to stop.
    pub drain: Duration,
    /// Longest time that readiness waits for configured givers to be tried.
    pub givers_wait: Duration,
}

/// Keys that every worker's section has.
#[derive(Debug, Clone, Copy)]
pub struct Common<'a> {
    /// Name in logs, metrics and errors.
    pub name: &'a str,
    /// Address for routers.
    pub listen: &'a str,
    /// Address of health, readiness and metrics.
    pub admin_listen: &'a str,
    /// Milliseconds without progress after which a start has failed.
    pub start_stall_ms: u64,
    /// Engine: the backend that computes and the transport that moves KV.
    pub engine: &'a engine::Config,
}

impl Common<'_> {
    /// Checks everything that needs no model; errors name keys of `section`.
    ///
    /// # Errors
    /// The key that is wrong.
    pub fn check(&self, section: &str) -> Result<(), Fault> {
        let fault = |key: &str, problem: String| Fault::of(format!("{section}.{key}"), problem);
        check_name(self.name).map_err(|problem| fault("name", problem))?;
        for (key, address) in [("listen", self.listen), ("admin_listen", self.admin_listen)] {
            listen_address(address).map_err(|problem| fault(key, problem))?;
        }
        if self.start_stall_ms == 0 {
            return Err(fault("start_stall_ms", "must be above 0".to_owned()));
        }
        self.engine.check().map_err(|error| match error {
            EngineError::Config { key, problem } => fault(&format!("engine.{key}"), problem),
            other => fault("engine", other.to_string()),
        })
    }
}
