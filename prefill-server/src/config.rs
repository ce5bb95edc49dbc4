//! The prefill section of the configuration; knows no file format.

use std::time::Duration;

use node::config::Fault;
use sched::Role;
use serde::{Deserialize, Serialize};
use worker::{Common, Settings};

/// The section, as problems name it.
const SECTION: &str = "prefill";

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
        let Config { name, listen, admin_listen, start_stall_ms, engine, .. } = self;
        Common { name, listen, admin_listen, start_stall_ms: *start_stall_ms, engine }.check(SECTION)
    }
}

impl From<Config> for Settings {
    fn from(config: Config) -> Settings {
        Settings {
            section: SECTION,
            role: Role::Prefill,
            name: config.name,
            engine: config.engine,
            start_stall: Duration::from_millis(config.start_stall_ms),
            drain: Duration::from_millis(config.drain_ms),
            givers_wait: Duration::ZERO,
        }
    }
}
