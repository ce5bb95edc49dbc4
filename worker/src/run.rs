//! The life of a worker: model, sides, sessions, ready, drain, end.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use engine::replica::ReplicaHandle;
use engine::{Progress, Purpose, RankProgram};
use node::admin::{Admin, Gate, Version};
use node::bind::WorkerPorts;
use node::drain::Stop;
use node::telemetry::Metrics;
use proto::Secret;
use proto::listen::Services;
use proto::session::SessionLimits;
use proto::session::server::{Sessions, WorkerService};
use sched::{Failure, FailureKind, Role, Span};
use tokio::sync::oneshot;

use crate::host::Host;
use crate::life::{Life, LifeError, TEARDOWN};
use crate::loading::{Sight, StallMax, Watch};
use crate::metrics::{ExpertTokens, WorkerFacts, WorkerMetrics};
use crate::outlet::WorkerOutlet;
use crate::partition::PartitionKnob;
use crate::sides::{Loaded, Sides};
use crate::started::{Report, Started};
use crate::{Error, Settings};

/// Resources of the process that a worker runs in.
pub struct Process {
    /// Secret that routers, readers and givers must know.
    pub secret: Secret,
    /// Starts the worker's ranks where they are processes.
    pub ranks: Arc<dyn RankProgram>,
    /// Open ports.
    pub ports: WorkerPorts,
    /// Recorder of metrics.
    pub metrics: Metrics,
}

/// Runs a worker until `shutdown` or until it cannot go on. `report` receives the progress of the start, then once that
/// the worker is ready: its configured givers were tried by then, or `givers_wait` has passed.
///
/// # Errors
/// The worker cannot start or go on; nothing is left running then.
pub async fn run(
    settings: Settings,
    sides: Sides,
    process: Process,
    report: impl Fn(Report) + Sync,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let Process { secret, ranks, ports, metrics } = process;
    let version = Version::of_role(settings.role.label()).with("model", settings.engine.served_name());
    let partition = (settings.role == Role::Colocated).then(|| PartitionKnob::new(settings.engine.share.policy));
    let knobs = partition.iter().map(|knob| Arc::new(knob.clone()) as _).collect();
    let mut life = Life::begin(
        Admin { gate: Gate::starting("the model"), metrics, version, key: ports.admin_key, knobs },
        ports.admin.listener,
    );
    let progress = Progress::default();
    let watch = Watch {
        look: &|| Sight { ticks: progress.seen().ticks, doing: progress.seen().to_string() },
        told: &|doing| report(Report::Loading(doing.to_owned())),
        stop: &|| progress.stop(),
        stall: StallMax { section: settings.section, limit: settings.start_stall },
    };
    let mut shutdown = pin!(shutdown);
    let meeting = Meeting { secret, address: ports.advertised, stop: life.stop().clone() };
    let loading = Worker::start(&settings, (sides, partition), meeting, ranks, &progress);
    let Some(worker) = life.load(loading, watch, &mut shutdown).await? else { return Ok(()) };
    let Worker { host, thread, stopped, _ending } = worker?;

    let (loaded, sides) = (host.loaded.clone(), host.sides.clone());
    let sessions = WorkerService::new(Arc::new(host), loaded.sessions.clone(), loaded.secret.clone());
    let services = sides.giving.serve(Services::new(sessions, &SessionLimits::default()));
    let serving = tokio::spawn(services.serve(ports.grpc.listener, life.stop().asked(), TEARDOWN));
    life.waits_for("the configured givers to be tried");
    if tokio::time::timeout(settings.givers_wait, sides.taking.tried()).await.is_err() {
        let waited_ms = settings.givers_wait.as_millis() as u64;
        tracing::warn!(waited_ms, "not every configured giver has answered; ready without them");
    }
    life.open();
    let pairs = sides.taking.reports();
    report(Report::Ready(Box::new(Started { pairs, ..started(&loaded, &settings, ports.admin.address.to_string()) })));

    let lived = life.live(shutdown, stopped, serving).await;
    if lived.is_ok() {
        loaded.sessions.drain();
        life.drain(settings.drain, loaded.sessions.idle()).await;
    }
    sides.giving.leave();
    loaded.replica.shutdown();
    let farewell = Failure::new(FailureKind::WorkerLost, "the worker has shut down");
    life.end(loaded.sessions.end(&farewell), thread).await;
    Ok(lived?)
}

struct Meeting {
    secret: Secret,
    address: String,
    stop: Stop,
}

/// A replica with everything between it and the sockets.
struct Worker {
    host: Host,
    thread: JoinHandle<()>,
    stopped: oneshot::Receiver<Option<Failure>>,
    _ending: Ending,
}

/// Ends the replica when dropped. The sides hold handles to it, so it would not end by itself.
struct Ending {
    replica: ReplicaHandle,
    stop: Stop,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.replica.shutdown();
        self.stop.ask();
    }
}

impl Worker {
    async fn start(
        settings: &Settings,
        (sides, partition): (Sides, Option<PartitionKnob>),
        meeting: Meeting,
        ranks: Arc<dyn RankProgram>,
        progress: &Progress,
    ) -> Result<Worker, Error> {
        let Settings { section, role, name, engine, .. } = settings.clone();
        let sessions = Sessions::new(SessionLimits::default());
        let metrics = WorkerMetrics::new(role, engine.transport.kind().label());
        let (lease_span, lease_beat) = (Span::from_ms(engine.lease_span_ms), Span::from_ms(engine.lease_beat_ms));
        let opened = Arc::new(OnceLock::new());
        let (tell, stopped) = oneshot::channel();
        let outlet = WorkerOutlet::new(sessions.clone(), metrics.clone(), (opened.clone(), partition.clone()), tell);
        let purpose = if sides.giving.is_some() { Purpose::giving(role) } else { Purpose::keeping(role) };
        let progress = progress.clone();
        let loading = tokio::task::spawn_blocking(move || {
            engine::start_watched(&engine, purpose, Box::new(outlet), ranks.as_ref(), &progress)
        });
        let loaded = loading.await.map_err(|error| LifeError::task("loading the model", error))?;
        let started = loaded.map_err(|error| Error::Engine { section, error })?;
        let (replica, info, endpoint) = (started.handle, started.info, started.endpoint);
        if let Some(partition) = &partition {
            partition.runs(&replica);
        }
        metrics.runs(&WorkerFacts {
            model: info.name.clone(),
            backend: info.backend.numerics_id.clone(),
            exact: info.backend.exact,
        });
        if info.capacity_tokens() < u64::from(info.context_max) {
            let (kv_tokens, context_max) = (info.capacity_tokens(), info.context_max);
            tracing::warn!(kv_tokens, context_max, "the KV pool holds less than the model's context");
        }
        if let Some(counts) = started.expert_counts {
            metrics.count_experts(ExpertTokens { layers: counts.layers, experts: counts.experts, tokens: counts.rows });
        }
        let Meeting { secret, address, stop } = meeting;
        let loaded =
            Loaded { name, address, replica, info, endpoint, sessions, metrics, secret, lease_span, lease_beat, stop };
        let ending = Ending { replica: loaded.replica.clone(), stop: loaded.stop.clone() };
        let sides = opened.get_or_init(|| sides.open(&loaded)).clone();
        sides.taking.begin();
        Ok(Worker { host: Host { loaded, sides }, thread: started.join, stopped, _ending: ending })
    }
}

fn started(loaded: &Loaded, settings: &Settings, admin_address: String) -> Started {
    let info = &loaded.info;
    Started {
        role: info.role.label().to_owned(),
        instance: info.instance.to_string(),
        address: loaded.address.clone(),
        admin_address,
        model: info.name.clone(),
        backend: info.backend.numerics_id.clone(),
        transport: info.transport.label().to_owned(),
        ranks: settings.engine.ranks_label(),
        context_max: info.context_max,
        capacity_tokens: info.capacity_tokens(),
        pairs: Vec::new(),
    }
}
