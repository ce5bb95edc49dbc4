//! The prefill section of the configuration; knows no file format.

use serde::{Deserialize, Serialize};

/// A prefill worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where routers and readers connect (gRPC).
    pub listen: String,
    /// What readers on other hosts are told instead of `listen`: a host or host:port; empty is `listen` itself.
    pub advertise: String,
    /// Where health, readiness and metrics are served (HTTP).
    pub admin_listen: String,
    /// How long running legs may take to end once the process was asked to, in milliseconds.
    pub drain_ms: u64,
    /// What computes and moves KV.
    pub engine: engine::Config,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: "127.0.0.1:7411".to_owned(),
            advertise: String::new(),
            admin_listen: "127.0.0.1:7412".to_owned(),
            drain_ms: 30_000,
            engine: engine::Config::default(),
        }
    }
}
