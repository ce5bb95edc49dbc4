//! The taking side of a worker: the givers that it reads from, and the links to them; knows no HTTP.
//!
//! A decode worker is a worker with this side alone; an aggregated or co-located worker has no side and gets whole requests: [`run`].

mod config;
mod peers;

use std::future::Future;
use std::sync::Arc;

pub use config::{Config, DecodeRole};
pub use peers::{Peers, PeersConfig};
use worker::started::Report;
use worker::{Error, Process, Sides};

/// Runs a decode, aggregated or co-located worker; see [`worker::run`].
///
/// # Errors
/// The worker cannot start or go on; nothing is left running then.
pub async fn run(
    config: Config,
    process: Process,
    report: impl Fn(Report) + Sync,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let peers = PeersConfig::from(&config);
    let sides = match config.role {
        DecodeRole::Decode => {
            Sides { giving: None, taking: Some(Box::new(|loaded| Arc::new(Peers::of(loaded, peers)))) }
        }
        DecodeRole::Aggregated | DecodeRole::Colocated => {
            if !config.peers.is_empty() {
                let role = config.role.label();
                tracing::warn!("decode.peers has no effect: a worker of role {role} takes from nobody");
            }
            Sides::default()
        }
    };
    worker::run(config.into(), sides, process, report, shutdown).await
}
