//! One role as a process: `baton router`, `baton prefill`, `baton decode`; and `baton rank`, a part of a worker.

use std::process::Command;
use std::sync::Arc;

use anyhow::{Result, bail};
use node::bind::{WorkerPorts, bind, check_name};
use node::drain::Supervision;
use node::telemetry::{Metrics, RequestLog, Stream, set_process_name};
use tokio::net::TcpListener;
use worker::Process;
use worker::started::Report;

use crate::admin::key_for;
use crate::cli::{RankArgs, RoleArgs};
use crate::config::{BatonConfig, NotSet, TelemetryConfig};
use crate::ending::Ending;
use crate::key;
use crate::plane;

/// Runs the router alone.
pub async fn router(arguments: &RoleArgs, ending: Ending) -> Result<()> {
    let mut config = arguments.load()?;
    let names = config.telemetry.metric_names;
    config.telemetry.start("router", RequestLog::Auto)?;
    if config.router.model_dir.as_os_str().is_empty() {
        // One file for routers and workers names the model once.
        config.router.model_dir.clone_from(&config.engine.model_dir);
        if config.router.model_names.is_empty() && !config.engine.model_name.is_empty() {
            config.router.model_names.push(config.engine.model_name.clone());
        }
    }
    config.router.keys.list.extend(key::given(&[])?);
    NotSet::check_model("engine.model_dir (or router.model_dir)", &config.router.model_dir)?;
    config.router.check()?;
    let secret = plane::of_router(&config)?;
    let admin_key = key_for(&config, "router.admin_listen", &config.router.admin_listen)?;
    let front = bind(&config.router.listen, "the OpenAI API").await?;
    let admin = admin_listener(&config.router.admin_listen).await?;
    let router = router::Router::load(config.router, Metrics::install("router")?.named(names))?;
    let router = router.knowing(secret).with_admin_key(admin_key);
    tracing::info!(address = %front.address, model = router.model_names().join(", "), "router listens");
    Ok(router.run(front.listener, admin, relief(), async move { ending.asked().await }).await?)
}

/// Binds the address of a router's separate admin surface, if it has one.
pub async fn admin_listener(address: &str) -> Result<Option<TcpListener>> {
    match address {
        "" => Ok(None),
        address => Ok(Some(bind(address, "admin HTTP").await?.listener)),
    }
}

/// Runs one prefill worker.
pub async fn prefill(arguments: &RoleArgs, ending: Ending) -> Result<()> {
    let all = arguments.load()?;
    all.telemetry.start(or(&all.prefill.name, "prefill"), RequestLog::Auto)?;
    let secret = plane::of_prefill(&all)?;
    let admin_key = key_for(&all, "prefill.admin_listen", &all.prefill.admin_listen)?;
    let BatonConfig { telemetry, prefill: mut config, .. } = all;
    NotSet::check_model("engine.model_dir", &config.engine.model_dir)?;
    if arguments.supervision() == Supervision::Child
        && config.engine.transport.kind() == kv_transfer::TransportKind::Ucx
    {
        // Readers are siblings, so this process admits the descendants of their common parent.
        kv_transfer::allow_readers(std::os::unix::process::parent_id())?;
    }
    let ports = WorkerPorts::bind(&config.listen, &config.advertise, &config.admin_listen).await?.guarded_by(admin_key);
    name_by_address(&mut config.name, "prefill", "prefill.name", &ports)?;
    let names = telemetry.metric_names;
    let ranks = Arc::new(OwnBinary { telemetry, worker: config.name.clone() });
    let report = |report: Report| announce(arguments.supervision(), &report);
    let process = Process { secret, ranks, ports, metrics: Metrics::install("prefill")?.named(names) };
    Ok(prefill_server::run(config, process, report, stopped(&ending)).await?)
}

/// Runs one decode or aggregated worker.
pub async fn decode(arguments: &RoleArgs, ending: Ending) -> Result<()> {
    let all = arguments.load()?;
    let role = all.decode.role.label();
    all.telemetry.start(or(&all.decode.name, role), RequestLog::Auto)?;
    let secret = plane::of_decode(&all)?;
    let admin_key = key_for(&all, "decode.admin_listen", &all.decode.admin_listen)?;
    let BatonConfig { telemetry, decode: mut config, .. } = all;
    NotSet::check_model("engine.model_dir", &config.engine.model_dir)?;
    let ports = WorkerPorts::bind(&config.listen, &config.advertise, &config.admin_listen).await?.guarded_by(admin_key);
    name_by_address(&mut config.name, role, "decode.name", &ports)?;
    let names = telemetry.metric_names;
    let ranks = Arc::new(OwnBinary { telemetry, worker: config.name.clone() });
    let report = |report: Report| announce(arguments.supervision(), &report);
    let process = Process { secret, ranks, ports, metrics: Metrics::install(role)?.named(names) };
    Ok(decode_server::run(config, process, report, stopped(&ending)).await?)
}

/// Gives memory that a router's large requests have freed back to the system.
pub fn relief() -> router::Relief {
    router::Relief::with(kv_transfer::give_heap_back)
}

async fn stopped(ending: &Ending) {
    ending.asked().await;
}

/// Runs one rank of a worker: follows its leader and ends with it.
pub fn rank(arguments: &RankArgs) -> Result<()> {
    let telemetry =
        TelemetryConfig { log: arguments.log.clone(), format: arguments.log_format, ..TelemetryConfig::default() };
    telemetry.start(&format!("{}/rank", arguments.worker), RequestLog::Auto)?;
    Ok(engine::serve_rank()?)
}

/// Starts ranks as this binary in another role.
struct OwnBinary {
    telemetry: TelemetryConfig,
    worker: String,
}

impl engine::RankProgram for OwnBinary {
    fn command(&self) -> std::io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["rank", "--worker", &self.worker, "--log", &self.telemetry.log]);
        command.args(["--log-format", self.telemetry.format.label()]);
        command.env_remove(plane::SECRET_VARIABLE).env_remove(key::KEY_VARIABLE);
        Ok(command)
    }
}

fn or<'a>(name: &'a str, other: &'a str) -> &'a str {
    if name.is_empty() { other } else { name }
}

/// Names a worker without a name by its role and its address for others. An address that is too long for a name is
/// refused, as no router could use the worker.
fn name_by_address(name: &mut String, role: &str, key: &str, ports: &WorkerPorts) -> Result<()> {
    if name.is_empty() {
        *name = by_address(role, key, &ports.advertised)?;
        set_process_name(name);
    }
    Ok(())
}

fn by_address(role: &str, key: &str, advertised: &str) -> Result<String> {
    let name = format!("{role}@{advertised}");
    match check_name(&name) {
        Ok(()) => Ok(name),
        Err(problem) => bail!("{key} is not given, and the name by address {problem}; give a shorter {key}"),
    }
}

fn announce(supervision: Supervision, report: &Report) {
    match (supervision, report) {
        (Supervision::Child, report) => Stream::Stdout.line(&report.to_line()),
        (Supervision::Alone, Report::Loading(doing)) => tracing::info!("{doing}"),
        (Supervision::Alone, Report::Ready(started)) => tracing::info!(
            address = started.address,
            model = started.model,
            transport = started.transport,
            backend = started.backend,
            kv_tokens = started.capacity_tokens,
            "ready"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by reading: a worker with such a name started, and no router could use it.
    #[test]
    fn a_name_by_address_is_as_short_as_one_that_is_given() {
        let name = |host: &str| by_address("prefill", "prefill.name", &format!("{host}:7411"));
        assert_eq!(name("10.0.0.1").unwrap(), "prefill@10.0.0.1:7411");
        let longest = "h".repeat(128 - "prefill@:7411".len());
        assert_eq!(name(&longest).unwrap().len(), 128);
        let said = name(&format!("{longest}h")).unwrap_err().to_string();
        assert!(said.starts_with("prefill.name is not given, and the name by address is \"prefill@hhh"), "{said}");
        assert!(said.ends_with("expected at most 128 visible ASCII characters; give a shorter prefill.name"), "{said}");
        assert!(name("höst").is_err(), "a name becomes a label and a word of log lines");
    }
}
