//! The decode section of the configuration; knows no file format.

use sched::Role;
use serde::{Deserialize, Serialize};

/// A decode or aggregated worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What it is for: `decode` takes KV caches over, `aggregated` runs whole requests.
    pub role: DecodeRole,
    /// Where routers connect (gRPC).
    pub listen: String,
    /// What others are told instead of `listen`: a host or host:port; empty is `listen` itself.
    pub advertise: String,
    /// Where health, readiness and metrics are served (HTTP).
    pub admin_listen: String,
    /// Prefill workers to take KV caches from, host:port each. Name all of them: routers use only pairs that are
    /// connected.
    pub peers: Vec<String>,
    /// Most givers to be connected to at once.
    pub peers_max: usize,
    /// How long readiness waits for `peers` to be tried, in milliseconds.
    pub peers_wait_ms: u64,
    /// A giver that cannot be reached for this long is lost, in milliseconds.
    pub giver_lost_ms: u64,
    /// How long running legs may take to end once the process was asked to, in milliseconds.
    pub drain_ms: u64,
    /// What computes and moves KV.
    pub engine: engine::Config,
}

/// What a decode worker is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecodeRole {
    /// Takes KV caches over and generates.
    Decode,
    /// Runs whole requests.
    Aggregated,
}

impl From<DecodeRole> for Role {
    fn from(role: DecodeRole) -> Role {
        match role {
            DecodeRole::Decode => Role::Decode,
            DecodeRole::Aggregated => Role::Aggregated,
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            role: DecodeRole::Decode,
            listen: "127.0.0.1:7421".to_owned(),
            advertise: String::new(),
            admin_listen: "127.0.0.1:7422".to_owned(),
            peers: Vec::new(),
            peers_max: 256,
            peers_wait_ms: 5_000,
            giver_lost_ms: 1_000,
            drain_ms: 30_000,
            engine: engine::Config::default(),
        }
    }
}
