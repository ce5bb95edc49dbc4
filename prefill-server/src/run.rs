//! The life of a prefill worker: model, sessions and peers, ready, drain, end.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use engine::{Progress, RankProgram};
use node::admin::{Admin, Gate, Version};
use node::bind::WorkerPorts;
use node::drain::Stop;
use node::life::{Life, LifeError, TEARDOWN};
use node::loading::{Sight, StallMax, Watch};
use node::started::{Report, Started};
use node::telemetry::Metrics;
use node::worker_metrics::{ExpertTokens, WorkerFacts, WorkerMetrics};
use proto::listen::Services;
use proto::peer::server::{Listeners, PeerService};
use proto::session::SessionLimits;
use proto::session::server::{Sessions, WorkerService};
use proto::{Complaints, Secret};
use sched::{Failure, FailureKind, Role, Span};
use tokio::sync::oneshot;

use crate::host::Giver;
use crate::outlet::GiverOutlet;
use crate::{Config, Error};

/// Runs a prefill worker on ports that are open already, until `shutdown` or until it cannot go on. `report` hears how
/// far its start is, and once that it is ready. `ranks` starts the processes of its ranks, where they are processes.
/// Routers and readers must know `secret`.
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
    let version = Version::of_role(Role::Prefill.label()).with("model", config.engine.served_name());
    let admin = Admin { gate: Gate::starting("the model"), metrics, version };
    let mut life = Life::begin(admin, ports.admin.listener);

    let progress = Progress::default();
    let watch = Watch {
        look: &|| Sight { ticks: progress.seen().ticks, doing: progress.seen().to_string() },
        told: &|doing| report(Report::Loading(doing.to_owned())),
        stop: &|| progress.stop(),
        stall: StallMax { key: "prefill.start_stall_ms", limit: Duration::from_millis(config.start_stall_ms) },
    };
    let mut shutdown = pin!(shutdown);
    let loading = Worker::start(&config, ranks, &ports.advertised, &progress);
    let Some(loaded) = life.load(loading, watch, &mut shutdown).await? else { return Ok(()) };
    let Worker { giver, thread, stopped } = loaded?;
    let sessions = giver.sessions.clone();
    let worker = WorkerService::new(giver.clone(), sessions.clone(), secret.clone());
    let readers = PeerService::new(giver.clone(), giver.listeners.clone(), secret);
    let services = Services::new(worker, &SessionLimits::default()).with_peer(readers);
    let serving = tokio::spawn(services.serve(ports.grpc.listener, life.stop().asked(), TEARDOWN));

    life.open();
    report(Report::Ready(Box::new(started(&giver, &config, ports.admin.address.to_string()))));
    let lived = life.live(shutdown, stopped, serving).await;
    if lived.is_ok() {
        sessions.drain();
        life.drain(Duration::from_millis(config.drain_ms), sessions.idle()).await;
    }
    giver.leaving.ask();
    giver.replica.shutdown();
    let farewell = Failure::new(FailureKind::WorkerLost, "the worker has shut down");
    life.end(sessions.end(&farewell), thread).await;
    Ok(lived?)
}

/// A replica with everything that stands between it and the sockets.
struct Worker {
    giver: Arc<Giver>,
    thread: JoinHandle<()>,
    stopped: oneshot::Receiver<Option<Failure>>,
}

impl Worker {
    async fn start(
        config: &Config,
        ranks: Arc<dyn RankProgram>,
        address: &str,
        progress: &Progress,
    ) -> Result<Worker, Error> {
        let sessions = Sessions::new(SessionLimits::default());
        let listeners = Listeners::default();
        let metrics = WorkerMetrics::new(Role::Prefill, config.engine.transport.kind().label());
        let (tell, stopped) = oneshot::channel();
        let outlet = GiverOutlet {
            sessions: sessions.clone(),
            listeners: listeners.clone(),
            metrics: metrics.clone(),
            complaints: Complaints::default(),
            foreign_claims: 0,
            told: Vec::new(),
            stopped: Some(tell),
        };
        let (engine, progress) = (config.engine.clone(), progress.clone());
        let loading = tokio::task::spawn_blocking(move || {
            engine::start_watched(&engine, Role::Prefill, Box::new(outlet), ranks.as_ref(), &progress)
        });
        let started = loading.await.map_err(|error| LifeError::task("loading the model", error))??;
        let info = started.info;
        metrics.runs(&WorkerFacts {
            model: info.name.clone(),
            backend: info.backend.numerics_id.clone(),
            exact: info.backend.exact,
        });
        if let Some(counts) = started.expert_counts {
            metrics.count_experts(ExpertTokens { layers: counts.layers, experts: counts.experts, tokens: counts.rows });
        }
        let (replica, endpoint, address) = (started.handle, started.endpoint, address.to_owned());
        let (name, leaving) = (config.name.clone(), Stop::new());
        let lease_span = Span::from_ms(config.engine.lease_span_ms);
        let giver = Giver { name, replica, info, endpoint, address, sessions, listeners, metrics, lease_span, leaving };
        Ok(Worker { giver: Arc::new(giver), thread: started.join, stopped })
    }
}

fn started(giver: &Giver, config: &Config, admin_address: String) -> Started {
    let info = &giver.info;
    Started {
        role: info.role.label().to_owned(),
        instance: info.instance.to_string(),
        address: giver.address.clone(),
        admin_address,
        model: info.name.clone(),
        backend: info.backend.numerics_id.clone(),
        transport: info.transport.label().to_owned(),
        ranks: config.engine.ranks_label(),
        context_max: info.context_max,
        capacity_tokens: info.capacity_tokens(),
        pairs: Vec::new(),
    }
}
