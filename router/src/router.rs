//! A router from its configuration to its end.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use node::admin::{Gate, Version, serve_operators, upkeep};
use node::door::{ConnectionLimits, Guard, Phase, ReadingPace, Tls, TlsFiles, connections_within_files, serve};
use node::drain::Cause;
use node::key::KeyDigest;
use node::telemetry::Metrics;
use proto::Secret;
use proto::session::RouterHello;
use sched::Span;
use sched::desk::GateLimits;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, warn};

use crate::admission::Admission;
use crate::clock::{Clock, unix_seconds};
use crate::dispatch::{Dispatcher, Driver, DriverParts, Unread};
use crate::http::{App, Lanes, Reception, operators_routes, routes};
use crate::keys::{KeyConfig, KeySource, Keys, keep_up};
use crate::metrics::RouterMetrics;
use crate::random::Numbers;
use crate::text::ModelText;
use crate::tls;
use crate::traces::Traces;
use crate::worker::{Dialling, Slot, keep_connected};
use crate::{Config, Error, LimitsConfig, Relief};

/// News from workers that may wait; beyond it the sessions' own queues fill.
const NEWS_MAX: usize = 4_096;
/// Time to write answers that were failed at the end of the drain.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A router that is ready to run.
#[derive(Debug)]
pub struct Router {
    config: Config,
    model: ModelText,
    model_names: Vec<String>,
    metrics: Metrics,
    gate: Gate,
    secret: Secret,
    keys: (KeySource, Vec<KeyConfig>),
    tls: Option<(Tls, TlsFiles)>,
    admin_key: Option<KeyDigest>,
    metrics_of: Vec<MetricsSource>,
    numbers: Numbers,
}

/// Other process whose metrics `GET /metrics` includes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsSource {
    /// Name of the process, as the label `worker`.
    pub worker: String,
    /// Address of its metrics, `host:port`.
    pub address: String,
}

impl Router {
    /// Checks the configuration and reads the model's textual files.
    ///
    /// # Errors
    /// When either is wrong; nothing has been opened or started.
    pub fn load(config: Config, metrics: Metrics) -> Result<Router, Error> {
        config.check()?;
        let keys = KeySource::open(&config.keys, &config.slo)?;
        let tls = config.tls.load()?;
        let mut model = ModelText::load(&config.model_dir)?;
        model.control_in_messages = config.text.control_in_messages;
        model.control_in_prompts = config.text.control_in_prompts;
        model.read_answers(config.text.tool_format, config.text.reasoning_format);
        debug!(calls = ?model.tool_calls, thoughts = ?model.thought_tags, "what answers are read for");
        let mut model_names = config.model_names.clone();
        if model_names.is_empty() {
            model_names.push(model_files::served_name(&config.model_dir));
        }
        if let Some(problem) = model.chat_trouble() {
            warn!(
                model = model_names.join(", "),
                problem, "chats may be refused: a plain question cannot be asked as it is"
            );
        }
        if let Some(problem) = model.text_trouble() {
            warn!(model = model_names.join(", "), problem, "prompts may be refused: a plain word has no tokens");
        }
        Ok(Router {
            config,
            model,
            model_names,
            metrics,
            gate: Gate::starting("a worker"),
            secret: Secret::open(),
            keys,
            tls,
            admin_key: None,
            metrics_of: Vec::new(),
            numbers: Numbers::draw()?,
        })
    }

    /// Sets the secret of the workers; without it, only workers without a secret are reached.
    #[must_use]
    pub fn knowing(self, secret: Secret) -> Router {
        Router { secret, ..self }
    }

    /// Sets the key of the operators, who alone may then read metrics.
    #[must_use]
    pub fn with_admin_key(self, admin_key: Option<KeyDigest>) -> Router {
        Router { admin_key, ..self }
    }

    /// Includes the metrics of other processes.
    #[must_use]
    pub fn with_metrics_of(self, metrics_of: Vec<MetricsSource>) -> Router {
        Router { metrics_of, ..self }
    }

    /// Returns the gate that opens when requests can be served.
    #[must_use]
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// Names by which clients may call the model, its own first.
    #[must_use]
    pub fn model_names(&self) -> &[String] {
        &self.model_names
    }

    /// Serves clients on `listener`, and the admin surface on `admin`, until `shutdown`. Then announces for a while
    /// that it leaves (not if a person waits), lets running requests end within the configured time, fails the rest,
    /// and returns. `relief` gives memory back that large requests have freed.
    ///
    /// # Errors
    /// When the listener has no address, or the dispatcher has ended, which is a defect.
    pub async fn run(
        self,
        listener: TcpListener,
        admin: Option<TcpListener>,
        relief: Relief,
        shutdown: impl Future<Output = Cause> + Send + 'static,
    ) -> Result<(), Error> {
        let (drain, lame_duck) = (self.config.drain(), self.config.lame_duck());
        let address =
            listener.local_addr().map_err(|source| Error::Io { operation: "asking for our address", source })?;
        let config = &self.config;
        let guard = Guard::new(address, &config.listen, &config.allowed_hosts, &config.allowed_origins);
        let (gate, metrics, admin_key) = (self.gate.clone(), self.metrics.clone(), self.admin_key);
        let tls = self.tls.as_ref().map(|(tls, _)| tls.clone());
        let (mut tasks, mut driving) = (JoinSet::new(), JoinSet::new());
        tasks.spawn(relief.clone().keep());
        let (app, dispatcher, keys) = self.start(&mut tasks, &mut driving, relief);
        let (door, phase) = watch::channel(Phase::Open);
        if let Some(listener) = admin {
            let routes = operators_routes(Arc::clone(&app));
            tasks.spawn(async move {
                if let Err(error) = serve_operators(routes, admin_key, listener, std::future::pending()).await {
                    tracing::error!(%error, "admin surface has ended");
                }
            });
        }
        tasks.spawn(upkeep(metrics));
        tasks.spawn(async move {
            let cause = shutdown.await;
            gate.drain();
            debug!("router drains");
            if cause.has_a_load_balancer() {
                door.send_replace(Phase::Leaving);
                tokio::time::sleep(lame_duck).await;
            }
            door.send_replace(Phase::Shut);
            tokio::time::sleep(drain).await;
            dispatcher.shut_down();
        });
        let mut shut = phase.clone();
        let overdue = async move {
            // An error says that the task that shuts the door is gone; then nothing is left to wait for either.
            let _ = shut.wait_for(|phase| *phase == Phase::Shut).await;
            tokio::time::sleep(drain + LAST_WORDS).await;
        };
        let limits = connection_limits(&app.config.limits);
        let reception = Reception::new(Arc::clone(&app), guard, keys, routes(app));
        tokio::select! {
            () = serve(listener, (limits, tls), phase, move |request| reception.receive(request)) => Ok(()),
            () = overdue => Ok(()),
            ended = driving.join_next() => Err(dispatcher_ended(ended)),
        }
    }

    fn start(self, tasks: &mut JoinSet<()>, driving: &mut JoinSet<()>, relief: Relief) -> (Arc<App>, Dispatcher, Keys) {
        let clock = Clock::start();
        if let Some(files) = self.tls {
            tasks.spawn(tls::keep_up(files));
        }
        let keys = keys_of(&self.config, self.keys, self.admin_key, (clock, tasks));
        let workers = &self.config.workers;
        let addresses: Vec<String> = workers.prefill.iter().chain(&workers.decode).cloned().collect();
        let (sender, news) = mpsc::channel(NEWS_MAX);
        let hello = RouterHello { router: self.numbers.instance() };
        for (slot, address) in addresses.iter().enumerate() {
            let dialling = Dialling {
                slot: Slot(slot),
                address: address.clone(),
                hello: hello.clone(),
                secret: self.secret.clone(),
                limits: self.config.session_limits(),
                beat: Span::from_ms(self.config.session.beat_ms),
                pause_max: Duration::from_millis(self.config.session.reconnect_ms_max),
                vocab_size: self.model.vocab_size,
            };
            tasks.spawn(keep_connected(dialling, self.numbers.branch(), sender.clone()));
        }
        let gate = self.gate.clone();
        let parts = DriverParts {
            clock,
            news,
            gate: gate.clone(),
            config: self.config.clone(),
            numbers: self.numbers.branch(),
        };
        let (driver, dispatcher) = Driver::new(parts);
        driving.spawn(driver.run());
        let limits = &self.config.limits;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let traces = Traces::start(&self.config.traces, self.numbers.branch(), tasks);
        let model_name = self.model_names.first().cloned().unwrap_or_default();
        let app = App {
            admission: Admission::new(gate_limits(limits), clock, relief.clone()),
            unread: Unread::new(limits, relief.clone()),
            metrics: Arc::new(RouterMetrics::new(&self.config.slo, &model_name, &self.metrics_of, traces)),
            model: self.model,
            model_names: self.model_names,
            dispatcher: dispatcher.clone(),
            recorded: self.metrics,
            metrics_of: self.metrics_of,
            gate,
            version: Version::of_role("router").with("model", model_name),
            clock,
            started: unix_seconds(),
            numbers: self.numbers,
            lanes: Lanes::new(cores, relief),
            config: self.config,
        };
        (Arc::new(app), dispatcher, keys)
    }
}

/// Makes the keys of a router, and lets `tasks` keep them up with their file.
fn keys_of(
    config: &Config,
    (source, keys): (KeySource, Vec<KeyConfig>),
    admin: Option<KeyDigest>,
    (clock, tasks): (Clock, &mut JoinSet<()>),
) -> Keys {
    if !config.keys.is_locked() {
        return Keys::open(admin, clock);
    }
    let keys = Keys::locked(&keys, admin, clock);
    tasks.spawn(keep_up(source, keys.clone()));
    keys
}

fn gate_limits(limits: &LimitsConfig) -> GateLimits {
    GateLimits {
        requests_max: limits.requests_max,
        bytes_max: limits.bytes_max,
        answers_bytes_max: limits.answers_bytes_max,
        answer_bytes_max: limits.answer_bytes_max,
    }
}

fn connection_limits(limits: &LimitsConfig) -> ConnectionLimits {
    ConnectionLimits {
        connections_max: connections_within_files(limits.connections_max),
        head_time_max: Duration::from_millis(limits.head_ms_max),
        reading: ReadingPace {
            behind_max: Duration::from_millis(limits.unread_ms_max),
            bytes_per_s_min: limits.answer_bytes_per_s_min,
        },
    }
}

fn dispatcher_ended(how: Option<Result<(), JoinError>>) -> Error {
    let reason = match how {
        Some(Err(error)) => error.to_string(),
        Some(Ok(())) | None => "it has stopped".to_owned(),
    };
    Error::Io { operation: "running the dispatcher", source: std::io::Error::other(reason) }
}
