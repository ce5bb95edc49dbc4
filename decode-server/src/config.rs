//! The decode section of the configuration; knows no file format.

use std::time::Duration;

use node::bind::addresses_of_others;
use node::config::Fault;
use sched::Role;
use serde::{Deserialize, Serialize};
use worker::{Common, Settings};

const SECTION: &str = "decode";

/// Configuration of a decode or aggregated worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name in logs, metrics and errors; empty is role and address, `decode@host:port`.
    pub name: String,
    /// Role: `decode` takes KV caches over; `aggregated` runs whole requests, chunks of prompts mixed with decodes;
    /// `colocated` runs them in two lanes, one for each phase, that share the device (`baton serve --mode …`).
    pub role: DecodeRole,
    /// Address for routers (gRPC).
    pub listen: String,
    /// Address told to other processes in place of `listen`: a host or host:port; empty is `listen` itself.
    pub advertise: String,
    /// Address of health, readiness and metrics (HTTP).
    pub admin_listen: String,
    /// Prefill workers to take KV caches from, host:port each. Name all of them: routers use only pairs that are
    /// connected.
    pub peers: Vec<String>,
    /// Limit on connected givers.
    pub peers_max: usize,
    /// Longest time that readiness waits for `peers` to be tried, in milliseconds.
    pub peers_wait_ms: u64,
    /// Milliseconds of silence after which a giver's connection is probed; after three times that it is over.
    pub giver_beat_ms: u64,
    /// Milliseconds after which a giver whose connection is over and that cannot be reached is lost.
    pub giver_lost_ms: u64,
    /// Milliseconds without progress after which a start has failed; a start that makes progress may take any time.
    pub start_stall_ms: u64,
    /// Milliseconds that running legs have to end after the process was asked to stop.
    pub drain_ms: u64,
    /// Engine: the backend that computes and the transport that moves KV.
    pub engine: engine::Config,
}

/// Role of a worker that is configured by this section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecodeRole {
    /// Takes KV caches over and generates.
    Decode,
    /// Runs whole requests, chunks of prompts mixed with decodes.
    Aggregated,
    /// Runs whole requests, each phase on its share of the device.
    Colocated,
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
            DecodeRole::Colocated => Role::Colocated,
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
    /// Checks everything that needs no model; errors name keys of the section `decode`.
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
