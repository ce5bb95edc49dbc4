//! The life of a decode or aggregated worker: model, givers, sessions, ready, drain, end.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use engine::{ModelInfo, Progress, RankProgram};
use node::admin::{Admin, Gate, Version};
use node::bind::WorkerPorts;
use node::drain::Stop;
use node::life::{Life, LifeError, TEARDOWN};
use node::loading::{Sight, StallMax, Watch};
use node::started::{Report, Started};
use node::telemetry::Metrics;
use node::worker_metrics::{ExpertTokens, WorkerFacts, WorkerMetrics};
use proto::Secret;
use proto::listen::Services;
use proto::peer::PeerHello;
use proto::session::SessionLimits;
use proto::session::server::{Sessions, WorkerService};
use sched::{Failure, FailureKind, Role, Span};
use tokio::sync::oneshot;

use crate::host::Taker;
use crate::outlet::TakerOutlet;
use crate::peers::{Peers, PeersConfig, Surroundings};
use crate::{Config, Error};

/// Runs a decode or aggregated worker on ports that are open already, until `shutdown` or until it cannot go on.
/// `report` hears how far its start is, and once that it is ready: its configured givers were tried by then. `ranks`
/// starts the processes of its ranks, where they are processes. Routers and givers must know `secret`.
///
/// # Errors
/// Whatever keeps it from starting or going on; nothing is left running then.
pub async fn run(
    config: Config,
    secret: Secret,
    ranks: Arc<dyn RankProgram>,
    ports: WorkerPorts,
    metrics: Metrics,
    report: impl Fn(Report) + Sync,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let role = Role::from(config.role);
    let version = Version::of_role(role.label()).with("model", config.engine.served_name());
    let admin = Admin { gate: Gate::starting("the model"), metrics, version };
    let mut life = Life::begin(admin, ports.admin.listener);

    let progress = Progress::default();
    let watch = Watch {
        look: &|| Sight { ticks: progress.seen().ticks, doing: progress.seen().to_string() },
        told: &|doing| report(Report::Loading(doing.to_owned())),
        stop: &|| progress.stop(),
        stall: StallMax { key: "decode.start_stall_ms", limit: Duration::from_millis(config.start_stall_ms) },
    };
    let mut shutdown = pin!(shutdown);
    let loading = Worker::start(&config, &secret, ranks, life.stop(), &progress);
    let Some(loaded) = life.load(loading, watch, &mut shutdown).await? else { return Ok(()) };
    let Worker { taker, sessions, thread, stopped } = loaded?;
    let taker = Arc::new(taker);
    let worker = WorkerService::new(taker.clone(), sessions.clone(), secret);
    let services = Services::new(worker, &SessionLimits::default());
    let serving = tokio::spawn(services.serve(ports.grpc.listener, life.stop().asked(), TEARDOWN));

    life.waits_for("the configured givers to be tried");
    let peers_wait = Duration::from_millis(config.peers_wait_ms);
    if tokio::time::timeout(peers_wait, taker.peers.tried()).await.is_err() {
        let waited_ms = peers_wait.as_millis() as u64;
        tracing::warn!(waited_ms, "not every configured giver has answered; ready without them");
    }
    life.open();
    report(Report::Ready(Box::new(started(&taker, &config, ports.advertised, ports.admin.address.to_string()))));
    let lived = life.live(shutdown, stopped, serving).await;
    if lived.is_ok() {
        sessions.drain();
        life.drain(Duration::from_millis(config.drain_ms), sessions.idle()).await;
    }
    taker.replica.shutdown();
    let farewell = Failure::new(FailureKind::WorkerLost, "the worker has shut down");
    life.end(sessions.end(&farewell), thread).await;
    Ok(lived?)
}

/// A replica with everything that stands between it and the sockets.
struct Worker {
    taker: Taker,
    sessions: Sessions,
    thread: JoinHandle<()>,
    stopped: oneshot::Receiver<Option<Failure>>,
}

impl Worker {
    async fn start(
        config: &Config,
        secret: &Secret,
        ranks: Arc<dyn RankProgram>,
        stop: &Stop,
        progress: &Progress,
    ) -> Result<Worker, Error> {
        let role = Role::from(config.role);
        let sessions = Sessions::new(SessionLimits::default());
        let metrics = WorkerMetrics::new(role, config.engine.transport.kind().label());
        let peers = Arc::new(OnceLock::new());
        let (tell, stopped) = oneshot::channel();
        let outlet = TakerOutlet {
            sessions: sessions.clone(),
            peers: peers.clone(),
            metrics: metrics.clone(),
            told: Vec::new(),
            stopped: Some(tell),
        };
        let (engine, progress) = (config.engine.clone(), progress.clone());
        let loading = tokio::task::spawn_blocking(move || {
            engine::start_watched(&engine, role, Box::new(outlet), ranks.as_ref(), &progress)
        });
        let started = loading.await.map_err(|error| LifeError::task("loading the model", error))??;
        let (replica, info) = (started.handle, started.info);
        metrics.runs(&WorkerFacts {
            model: info.name.clone(),
            backend: info.backend.numerics_id.clone(),
            exact: info.backend.exact,
        });
        if let Some(counts) = started.expert_counts {
            metrics.count_experts(ExpertTokens { layers: counts.layers, experts: counts.experts, tokens: counts.rows });
        }
        let (name, lease_beat) = (config.name.clone(), Span::from_ms(config.engine.lease_beat_ms));
        let hello = PeerHello { compat: info.compat.clone(), instance: info.instance, name, lease_beat };
        let (sessions_too, metrics_too) = (sessions.clone(), metrics.clone());
        let surroundings =
            Surroundings { replica: replica.clone(), sessions: sessions_too, metrics: metrics_too, stop: stop.clone() };
        let givers = Peers::new(peers_config(config, secret, &info), hello, surroundings);
        let givers = peers.get_or_init(|| givers).clone();
        config.peers.iter().for_each(|address| givers.know(address));
        let (name, lease_span) = (config.name.clone(), Span::from_ms(config.engine.lease_span_ms));
        let taker = Taker { name, replica, info, peers: givers, metrics, lease_span };
        Ok(Worker { taker, sessions, thread: started.join, stopped })
    }
}

fn peers_config(config: &Config, secret: &Secret, info: &ModelInfo) -> PeersConfig {
    PeersConfig {
        secret: secret.clone(),
        layout: info.layout.clone(),
        transport: config.engine.transport.kind().label(),
        links_max: config.peers_max.max(config.peers.len()),
        context_max: info.context_max,
        capacity_tokens: info.capacity_tokens(),
        lost_after: Duration::from_millis(config.giver_lost_ms),
        lease_beat: Duration::from_millis(config.engine.lease_beat_ms),
        limits: SessionLimits::default().probed_every(Duration::from_millis(config.giver_beat_ms)),
    }
}

fn started(taker: &Taker, config: &Config, address: String, admin_address: String) -> Started {
    let info = &taker.info;
    Started {
        role: info.role.label().to_owned(),
        instance: info.instance.to_string(),
        address,
        admin_address,
        model: info.name.clone(),
        backend: info.backend.numerics_id.clone(),
        transport: info.transport.label().to_owned(),
        ranks: config.engine.ranks_label(),
        context_max: info.context_max,
        capacity_tokens: info.capacity_tokens(),
        pairs: taker.peers.reports(),
    }
}
