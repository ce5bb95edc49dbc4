//! The prefill section of the configuration; knows no file format.

use engine::EngineError;
use node::bind::{check_name, listen_address};
use node::config::Fault;
use serde::{Deserialize, Serialize};

/// A prefill worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Its name in logs, metrics and errors, the same everywhere; empty is its role and address, `prefill@host:port`.
    pub name: String,
    /// Where routers and readers connect (gRPC).
    pub listen: String,
    /// What readers on other hosts are told instead of `listen`: a host or host:port; empty is `listen` itself.
    pub advertise: String,
    /// Where health, readiness and metrics are served (HTTP).
    pub admin_listen: String,
    /// A start that gets no further for this long has failed, in milliseconds; one that does may take as long as it takes.
    pub start_stall_ms: u64,
    /// How long running legs may take to end once the process was asked to, in milliseconds.
    pub drain_ms: u64,
    /// What computes and moves KV.
    pub engine: engine::Config,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            name: String::new(),
            listen: "127.0.0.1:7411".to_owned(),
            advertise: String::new(),
            admin_listen: "127.0.0.1:7412".to_owned(),
            start_stall_ms: 120_000,
            drain_ms: 30_000,
            engine: engine::Config::default(),
        }
    }
}

impl Config {
    /// Checks what can be said without a model, as keys of the section `prefill`.
    ///
    /// # Errors
    /// The key that is wrong.
    pub fn check(&self) -> Result<(), Fault> {
        let fault = |key: &str, problem: String| Fault::of(format!("prefill.{key}"), problem);
        check_name(&self.name).map_err(|problem| fault("name", problem))?;
        for (key, address) in [("listen", &self.listen), ("admin_listen", &self.admin_listen)] {
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
