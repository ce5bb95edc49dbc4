//! The decode section of the configuration; knows no file format.

use std::time::Duration;

use node::bind::addresses_of_others;
use node::config::Fault;
use sched::Role;
use serde::{Deserialize, Serialize};
use worker::{Common, Settings};

/// The section, as problems name it.
const SECTION: &str = "decode";

/// A decode or aggregated worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Its name in logs, metrics and errors, the same everywhere; empty is its role and address, `decode@host:port`.
    pub name: String,
    /// What it is for: `decode` takes KV caches over, `aggregated` runs whole requests (`baton serve --mode aggregated`).
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
    /// Milliseconds between two signs of life of a giver, at most; after three without one its connection is over.
    pub giver_beat_ms: u64,
    /// A giver whose connection is over and that cannot be reached for this long is lost, in milliseconds.
    pub giver_lost_ms: u64,
    /// A start that gets no further for this long has failed, in milliseconds; one that does may take as long as it takes.
    pub start_stall_ms: u64,
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

impl DecodeRole {
    /// Metric label and configuration value.
    #[must_use]
    pub fn label(self) -> &'static str {
        Role::from(self).label()
    }
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
            name: String::new(),
            role: DecodeRole::Decode,
            listen: "127.0.0.1:7421".to_owned(),
            advertise: String::new(),
            admin_listen: "127.0.0.1:7422".to_owned(),
            peers: Vec::new(),
            peers_max: 256,
            peers_wait_ms: 5_000,
            giver_beat_ms: 2_000,
            giver_lost_ms: 1_000,
            start_stall_ms: 120_000,
            drain_ms: 30_000,
            engine: engine::Config::default(),
        }
    }
}

impl Config {
    /// Checks what can be said without a model, as keys of the section `decode`.
    ///
    /// # Errors
    /// The key that is wrong.
    pub fn check(&self) -> Result<(), Fault> {
        let fault = |key: &str, problem: String| Fault::of(format!("{SECTION}.{key}"), problem);
        addresses_of_others(self.peers.iter().map(String::as_str))
            .map_err(|(place, problem)| fault(&format!("peers[{place}]"), problem))?;
        if self.peers_max == 0 {
            return Err(fault("peers_max", "must be above 0".to_owned()));
        }
        if self.giver_beat_ms == 0 {
            return Err(fault("giver_beat_ms", "must be above 0".to_owned()));
        }
        let Config { name, listen, admin_listen, start_stall_ms, engine, .. } = self;
        Common { name, listen, admin_listen, start_stall_ms: *start_stall_ms, engine }.check(SECTION)
    }
}

impl From<Config> for Settings {
    fn from(config: Config) -> Settings {
        Settings {
            section: SECTION,
            role: config.role.into(),
            name: config.name,
            engine: config.engine,
            start_stall: Duration::from_millis(config.start_stall_ms),
            drain: Duration::from_millis(config.drain_ms),
            givers_wait: Duration::from_millis(config.peers_wait_ms),
        }
    }
}
