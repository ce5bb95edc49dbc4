//! The keys of a worker that has no more than every worker; knows no file format.

use std::time::Duration;

use node::config::Fault;
use sched::Role;
use serde::{Deserialize, Serialize};

use crate::{Common, Settings};

/// A worker that needs to be told no more than every worker does.
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
    /// At the ports of a prefill worker, which is the one that needs no more.
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
    /// Checks what can be said without a model, as keys of `section`.
    ///
    /// # Errors
    /// The key that is wrong.
    pub fn check(&self, section: &str) -> Result<(), Fault> {
        let Config { name, listen, admin_listen, start_stall_ms, engine, .. } = self;
        Common { name, listen, admin_listen, start_stall_ms: *start_stall_ms, engine }.check(section)
    }

    /// What the worker that `section` is about is told.
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
