//! What a worker is told at its start, whatever its role; knows no file format.

use std::time::Duration;

use engine::EngineError;
use node::bind::{check_name, listen_address};
use node::config::Fault;
use sched::Role;

/// What a worker is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The section of the configuration, as problems name it.
    pub section: &'static str,
    /// What its scheduler is for.
    pub role: Role,
    /// Its name in logs, metrics and errors.
    pub name: String,
    /// What computes and moves KV.
    pub engine: engine::Config,
    /// A start that gets no further for this long has failed.
    pub start_stall: Duration,
    /// How long running legs may take to end once the process was asked to.
    pub drain: Duration,
    /// How long readiness waits for configured givers to be tried.
    pub givers_wait: Duration,
}

/// The keys that every section of a worker has.
#[derive(Debug, Clone, Copy)]
pub struct Common<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where routers connect.
    pub listen: &'a str,
    /// Where health, readiness and metrics are served.
    pub admin_listen: &'a str,
    /// A start that gets no further for this long has failed, in milliseconds.
    pub start_stall_ms: u64,
    /// What computes and moves KV.
    pub engine: &'a engine::Config,
}

impl Common<'_> {
    /// Checks what can be said without a model, as keys of `section`.
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
