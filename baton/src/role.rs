//! One role as a process of its own: `baton router`, `baton prefill`, `baton decode`; and `baton rank`, part of a worker.

use std::process::Command;
use std::sync::Arc;

use anyhow::Result;
use node::bind::{WorkerPorts, bind};
use node::drain::Supervision;
use node::started::Started;
use node::telemetry::{Metrics, log_to_stderr};

use crate::cli::{RankArgs, RoleArgs};
use crate::stop_asked;

/// The router alone.
pub async fn router(arguments: &RoleArgs) -> Result<()> {
    let config = arguments.load()?;
    log_to_stderr(&config.telemetry.log)?;
    let front = bind(&config.router.listen, "the OpenAI API").await?;
    let admin = match config.router.admin_listen.as_str() {
        "" => None,
        address => Some(bind(address, "admin HTTP").await?.listener),
    };
    let router = router::Router::load(config.router, Metrics::install()?)?;
    tracing::info!(address = %front.address, models = ?router.model_names(), "router listens");
    Ok(router.run(front.listener, admin, relief(), stop_asked(arguments.supervision())).await?)
}

/// One prefill worker.
pub async fn prefill(arguments: &RoleArgs) -> Result<()> {
    let config = arguments.load()?;
    log_to_stderr(&config.telemetry.log)?;
    let ranks = Arc::new(OwnBinary { log: config.telemetry.log });
    let config = config.prefill;
    if arguments.supervision() == Supervision::Child {
        // The readers are siblings: their common parent is whom this process may admit.
        kv_transfer::allow_readers(std::os::unix::process::parent_id())?;
    }
    let ports = WorkerPorts::bind(&config.listen, &config.advertise, &config.admin_listen).await?;
    let supervision = arguments.supervision();
    let started = |started: &Started| announce(supervision, started);
    Ok(prefill_server::run(config, ranks, ports, Metrics::install()?, started, stopped(supervision)).await?)
}

/// One decode or aggregated worker.
pub async fn decode(arguments: &RoleArgs) -> Result<()> {
    let config = arguments.load()?;
    log_to_stderr(&config.telemetry.log)?;
    let ranks = Arc::new(OwnBinary { log: config.telemetry.log });
    let config = config.decode;
    let ports = WorkerPorts::bind(&config.listen, &config.advertise, &config.admin_listen).await?;
    let supervision = arguments.supervision();
    let started = |started: &Started| announce(supervision, started);
    Ok(decode_server::run(config, ranks, ports, Metrics::install()?, started, stopped(supervision)).await?)
}

/// A router's large requests leave memory behind that this allocator gives back when told to.
pub fn relief() -> router::Relief {
    router::Relief::with(kv_transfer::give_heap_back)
}

/// Resolves when a worker shall end; why is nothing to it.
async fn stopped(supervision: Supervision) {
    stop_asked(supervision).await;
}

/// One rank of a worker: follows its leader and ends with it.
pub fn rank(arguments: &RankArgs) -> Result<()> {
    log_to_stderr(&arguments.log)?;
    Ok(engine::serve_rank()?)
}

/// Ranks are this very binary in another role.
struct OwnBinary {
    log: String,
}

impl engine::RankProgram for OwnBinary {
    fn command(&self) -> std::io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["rank", "--log", &self.log]);
        Ok(command)
    }
}

fn announce(supervision: Supervision, started: &Started) {
    match supervision {
        Supervision::Child => println!("{}", started.to_line()),
        Supervision::Alone => tracing::info!(?started, "ready"),
    }
}
