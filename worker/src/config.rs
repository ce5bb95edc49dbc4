//! The configuration keys that every worker has; knows no file format.

use std::time::Duration;

use node::config::Fault;
use sched::Role;
use serde::{Deserialize, Serialize};

use crate::{Common, Settings};

/// Configuration of a worker without keys of its own, such as a prefill worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name in logs, metrics and errors; empty is role and address, `prefill@host:port`.
    pub name: String,
    /// Address for routers and readers (gRPC).
    pub listen: String,
    /// Address told to readers on other hosts in place of `listen`: a host or host:port; empty is `listen` itself.
    pub advertise: String,
    /// Address of health, readiness and metrics (HTTP).
    pub admin_listen: String,
    /// Milliseconds without progress after which a start has failed; a start that makes progress may take any time.
    pub start_stall_ms: u64,
    /// Milliseconds that running legs have to end after the process was asked to stop.
    pub drain_ms: u64,
    /// Engine: the backend that computes and the transport that moves KV.
    pub engine: engine::Config,
}

impl Default for Config {
    /// Values of a prefill worker, with its ports.
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
    /// Checks everything that needs no model; errors name keys of `section`.
    ///
    /// # Errors
    /// The key that is wrong.
    pub fn check(&self, section: &str) -> Result<(), Fault> {
        let Config { name, listen, admin_listen, start_stall_ms, engine, .. } = self;
        Common { name, listen, admin_listen, start_stall_ms: *start_stall_ms, engine }.check(section)
    }

    /// Converts to the settings of the worker that `section` configures.
    #[must_use]
    pub fn settings(self, section: &'static str, role: Role) -> Settings {
        Settings {
            section,
            role,
            name: self.name,
            engine: self.engine,
            start_stall: Duration::from_millis(self.start_stall_ms),
            drain: Duration::from_millis(self.drain_ms),
            givers_wait: Duration::ZERO,
        }
    }
}
