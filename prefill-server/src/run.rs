//! The life of a prefill worker: model, sessions and peers, ready, drain, end.

use std::future::Future;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use node::admin::{Admin, Gate, Version};
use node::bind::WorkerPorts;
use node::drain::{Drained, Stop, drain};
use node::started::Started;
use node::telemetry::Metrics;
use node::worker_metrics::{WorkerFacts, WorkerMetrics};
use proto::listen::Services;
use proto::peer::server::PeerService;
use proto::session::SessionLimits;
use proto::session::server::{Sessions, WorkerService};
use sched::{Failure, FailureKind, Role};
use tokio::sync::oneshot;

use crate::book::LeaseBook;
use crate::host::Giver;
use crate::outlet::GiverOutlet;
use crate::{Config, Error};

/// How long sessions, streams and the replica thread may take to end after draining.
const TEARDOWN: Duration = Duration::from_secs(5);

/// Runs a prefill worker on ports that are open already, until `shutdown` or until it cannot go on. `started` hears
/// once that it is ready.
///
/// # Errors
/// Whatever keeps it from starting or going on; nothing is left running then.
pub async fn run(
    config: Config,
    ports: WorkerPorts,
    metrics: Metrics,
    started: impl FnOnce(&Started),
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let (gate, stop) = (Gate::starting("the model"), Stop::new());
    let version = Version::of_role(Role::Prefill.label()).with("model", config.engine.served_name());
    let admin = Admin { gate: gate.clone(), metrics, version };
    let mut admin = tokio::spawn(admin.run(ports.admin.listener, stop.asked()));

    let mut worker = Worker::start(&config, &ports.advertised).await?;
    let giver = &worker.giver;
    let limits = SessionLimits::default();
    let sessions = WorkerService::new(giver.clone(), giver.sessions.clone());
    let services = Services::new(sessions, &limits).with_peer(PeerService::new(giver.clone()));
    let mut serving = tokio::spawn(services.serve(ports.grpc.listener, stop.asked(), TEARDOWN));

    gate.open();
    started(&worker.report(ports.admin.address.to_string()));
    let ended = tokio::select! {
        () = shutdown => Ok(()),
        stopped = &mut worker.stopped => Err(Error::Replica(failure_of(stopped))),
        served = &mut serving => Err(serve_error("gRPC", served)),
        served = &mut admin => Err(serve_error("admin HTTP", served)),
    };
    if ended.is_ok() {
        worker.drain(&gate, Duration::from_millis(config.drain_ms)).await;
    }
    worker.end(&stop).await;
    ended
}

/// A replica with everything that stands between it and the sockets.
struct Worker {
    giver: Arc<Giver>,
    thread: JoinHandle<()>,
    stopped: oneshot::Receiver<Option<Failure>>,
}

impl Worker {
    async fn start(config: &Config, address: &str) -> Result<Worker, Error> {
        let sessions = Sessions::new(SessionLimits::default());
        let book = Arc::new(LeaseBook::default());
        let metrics = WorkerMetrics::new(Role::Prefill, config.engine.transport.kind().label());
        let (tell, stopped) = oneshot::channel();
        let outlet = GiverOutlet {
            sessions: sessions.clone(),
            book: book.clone(),
            metrics: metrics.clone(),
            told: Vec::new(),
            stopped: Some(tell),
        };
        let engine = config.engine.clone();
        let loading = tokio::task::spawn_blocking(move || engine::start(&engine, Role::Prefill, Box::new(outlet)));
        let started = loading.await.map_err(|error| panicked("loading the model", &error))??;
        metrics.runs(&facts_of(&started.info));
        let (replica, info, endpoint, address) = (started.handle, started.info, started.endpoint, address.to_owned());
        let leaving = Stop::new();
        let giver = Giver { replica, info, endpoint, address, sessions, book, metrics, leaving };
        Ok(Worker { giver: Arc::new(giver), thread: started.join, stopped })
    }

    fn report(&self, admin_address: String) -> Started {
        let info = &self.giver.info;
        Started {
            role: info.role.label().to_owned(),
            instance: info.instance.to_string(),
            address: self.giver.address.clone(),
            admin_address,
            model: info.name.clone(),
            backend: info.backend.numerics_id.clone(),
            transport: info.transport.label().to_owned(),
            context_max: info.context_max,
            capacity_tokens: info.capacity_tokens(),
        }
    }

    /// Takes nothing new and lets what runs end.
    async fn drain(&self, gate: &Gate, limit: Duration) {
        let sessions = &self.giver.sessions;
        sessions.drain();
        match drain(gate, limit, sessions.idle()).await {
            Drained::Empty => tracing::info!("drained"),
            Drained::CutOff => {
                tracing::warn!(legs = sessions.legs(), ?limit, "legs are cut off: draining took too long")
            }
        }
    }

    async fn end(self, stop: &Stop) {
        self.giver.leaving.ask();
        let farewell = Failure::new(FailureKind::WorkerLost, "the worker has shut down");
        if tokio::time::timeout(TEARDOWN, self.giver.sessions.end(&farewell)).await.is_err() {
            tracing::warn!("a session did not end in time");
        }
        stop.ask();
        self.giver.replica.shutdown();
        let thread = self.thread;
        let joined = tokio::time::timeout(TEARDOWN, tokio::task::spawn_blocking(move || thread.join()));
        match joined.await {
            Ok(Ok(Ok(()))) => {}
            Ok(_) => tracing::error!("the replica thread has panicked"),
            Err(_) => tracing::error!("the replica thread did not end in time"),
        }
    }
}

fn facts_of(info: &engine::ModelInfo) -> WorkerFacts {
    WorkerFacts { model: info.name.clone(), backend: info.backend.numerics_id.clone(), exact: info.backend.exact }
}

fn failure_of(stopped: Result<Option<Failure>, oneshot::error::RecvError>) -> Failure {
    stopped.ok().flatten().unwrap_or_else(|| Failure::new(FailureKind::Internal, "its thread has ended"))
}

fn serve_error<E: std::fmt::Display>(
    purpose: &'static str,
    served: Result<Result<(), E>, tokio::task::JoinError>,
) -> Error {
    let reason = match served {
        Ok(Ok(())) => "it ended by itself".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    Error::Serve { purpose, reason }
}

fn panicked(purpose: &'static str, error: &tokio::task::JoinError) -> Error {
    Error::Serve { purpose, reason: error.to_string() }
}
