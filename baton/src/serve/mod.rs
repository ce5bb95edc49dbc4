//! `baton serve`: a whole deployment on one host, the router in this process and supervised workers as children.

mod child;
mod compose;
mod error;
mod narrator;
mod relay;
mod run_directory;
mod supervisor;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tracing::warn;

pub use child::EndedEarly;
pub use error::ServeError;
use narrator::Access;
pub use narrator::Narrator;
use node::config::{ConfigError, Fault};
use node::drain::Cause;
use node::telemetry::Metrics;
use proto::Secret;
use router::Router;
pub use run_directory::RunDirectory;
use worker::started::PairBlame;

use crate::admin::key_for;
use crate::bundled::{self, Bundled};
use crate::config::{BatonConfig, Mode};
use crate::ending::Ending;
use crate::role::{admin_listener, relief};
use child::{Child, Launch, WorkerRole};
use compose::{Composer, Places};

const ROUTER_READY_DEADLINE: Duration = Duration::from_secs(20);

/// Running deployment that answers requests.
#[derive(Debug)]
pub struct Deployment {
    /// Address of its router.
    pub address: SocketAddr,
    /// Admin addresses of its workers.
    pub admin_addresses: Vec<String>,
    router: JoinHandle<Result<()>>,
    workers: JoinSet<()>,
    stop_router: watch::Sender<Option<Cause>>,
    stop_workers: watch::Sender<bool>,
    directory: RunDirectory,
    /// The bundled model, if it is served.
    _bundled: Option<Bundled>,
}

/// Serves until asked to end, or until the router fails. A second request ends it at once, children included.
pub async fn run(config: &BatonConfig, ending: &Ending) -> Result<()> {
    tokio::select! {
        cut = ending.insisted() => Err(cut.into()),
        served = serve(config, ending) => served,
    }
}

async fn serve(config: &BatonConfig, ending: &Ending) -> Result<()> {
    match Deployment::start(
        config,
        Metrics::install("router")?.named(config.telemetry.metric_names),
        Narrator::Aloud,
        ending,
    )
    .await
    {
        Ok(deployment) => deployment.run_until(ending.asked()).await,
        // Asked to end during the start, which has stopped all children that were started; no failure.
        Err(_) if ending.is_asked() => Ok(()),
        Err(error) => Err(error),
    }
}

impl Deployment {
    /// Starts every worker and the router, and waits until the deployment answers.
    pub async fn start(
        config: &BatonConfig,
        metrics: Metrics,
        narrator: Narrator,
        ending: &Ending,
    ) -> Result<Deployment> {
        config.check_deployment().map_err(|Fault { key, problem }| ConfigError::Key {
            origin: "configuration".to_owned(),
            key,
            problem,
        })?;
        // Do quick checks first, so that a port in use or a missing tokenizer does not cost a model load.
        let is_told = narrator == Narrator::Aloud;
        let untouched = worker::Config { engine: config.engine.clone(), ..worker::Config::default() };
        if is_told && config.mode() != Mode::Disaggregated && config.prefill != untouched {
            let mode = config.decode.role.label();
            warn!("the settings of [prefill] have no effect in {mode} mode: its workers have those of [decode]");
        }
        config.router.check_files()?;
        let admin_key = key_for(config, "router.admin_listen", &config.router.admin_listen)?;
        let front = node::bind::bind(&config.router.listen, "the OpenAI API").await?;
        let admin = admin_listener(&config.router.admin_listen).await?;
        let bundled = if config.engine.model_dir.as_os_str().is_empty() { Some(bundled::lay_out()?) } else { None };
        let model_dir = bundled.as_ref().map_or(&config.engine.model_dir, |bundled| &bundled.path).clone();
        let config = &config.on_one_host(&model_dir);
        check_model(config, &model_dir)?;
        let directory = RunDirectory::create()?;
        let (config, secret) = &with_secret(config, &directory)?;
        let workers = Workers::start(config, &directory.path, (narrator, ending)).await?;
        let router = Router::load(workers.router_section(config, model_dir), metrics)?.knowing(secret.clone());
        let router = router.with_admin_key(admin_key);
        let router = router.with_metrics_of(workers.metrics());
        let model = router.model_names().first().cloned().unwrap_or_default();
        let gate = router.gate();
        let (stop_router, router_stopped) = watch::channel(None);
        let (stop_workers, workers_stopped) = watch::channel(false);
        let asked = why_stopped(router_stopped);
        let deployment = Deployment {
            address: front.address,
            admin_addresses: workers.admin_addresses(),
            router: tokio::spawn(async move { Ok(router.run(front.listener, admin, relief(), asked).await?) }),
            workers: workers.keep_alive(&workers_stopped, (narrator, ending)),
            stop_router,
            stop_workers,
            directory,
            _bundled: bundled,
        };
        timeout(ROUTER_READY_DEADLINE, gate.opened())
            .await
            .map_err(|_| ServeError::NoWorker { waited: ROUTER_READY_DEADLINE })?;
        let access = if config.router.keys.is_locked() { Access::Keys } else { Access::Open };
        narrator.open(deployment.address, &model, &config.router.tls, access);
        Ok(deployment)
    }

    /// Runs until `shutdown` resolves, or until the router ends, which is an error.
    pub async fn run_until(mut self, shutdown: impl Future<Output = Cause>) -> Result<()> {
        let ended = tokio::select! {
            cause = shutdown => Err(cause),
            ended = &mut self.router => Ok(ended),
        };
        match ended {
            Err(cause) => self.stop(cause).await,
            Ok(ended) => {
                self.stop_workers().await?;
                ended.context("the router panicked")?.context("the router failed")?;
                Err(ServeError::RouterEnded.into())
            }
        }
    }

    /// Stops the router, which lets running requests end, then every worker.
    pub async fn stop(mut self, cause: Cause) -> Result<()> {
        self.stop_router.send_replace(Some(cause));
        let ended = (&mut self.router).await;
        self.stop_workers().await?;
        ended.context("the router panicked")?.context("the router failed")
    }

    async fn stop_workers(mut self) -> Result<()> {
        self.stop_workers.send_replace(true);
        while let Some(ended) = self.workers.join_next().await {
            ended.context("a supervisor panicked")?;
        }
        self.directory.remove()
    }
}

struct Workers {
    children: Vec<(Child, Launch)>,
}

impl Workers {
    async fn start(config: &BatonConfig, directory: &Path, (narrator, ending): (Narrator, &Ending)) -> Result<Workers> {
        let workers = Workers::launch(config, directory, (narrator, ending)).await?;
        if let Some(problem) = workers.unfit_pair() {
            return Err(ServeError::Incompatible { problem }.into());
        }
        if let Some(problem) = workers.broken_pair() {
            let transport = config.decode.engine.transport.kind().label();
            return Err(ServeError::KvCannotMove { transport, problem }.into());
        }
        workers.announce(narrator);
        Ok(workers)
    }

    async fn launch(config: &BatonConfig, directory: &Path, watched: (Narrator, &Ending)) -> Result<Workers> {
        let composer = Composer::new(config, directory);
        let launches = collect(composer.prefill_workers(), |index| composer.prefill(index, &Places::free()))?;
        let prefill = supervisor::start_all(&launches, watched).await?;
        let givers: Vec<String> = prefill.iter().map(|child| child.started.address.clone()).collect();
        let launches = collect(composer.decode_workers(), |index| composer.decode(index, &Places::free(), &givers))?;
        let decode = supervisor::start_all(&launches, watched).await?;
        // From now on children restart at their reported addresses.
        let mut children = Vec::with_capacity(prefill.len() + decode.len());
        for (index, child) in prefill.into_iter().enumerate() {
            let launch = composer.prefill(index, &places_of(&child))?;
            children.push((child, launch));
        }
        for (index, child) in decode.into_iter().enumerate() {
            let launch = composer.decode(index, &places_of(&child), &givers)?;
            children.push((child, launch));
        }
        Ok(Workers { children })
    }

    /// Returns the problem of a pair whose workers do not fit, which no other transport can solve.
    fn unfit_pair(&self) -> Option<String> {
        let pairs = self.children.iter().flat_map(|(child, _)| &child.started.pairs);
        pairs.filter(|pair| pair.blame == PairBlame::Workers).find_map(|pair| pair.problem.clone())
    }

    fn broken_pair(&self) -> Option<String> {
        let pairs = self.children.iter().flat_map(|(child, _)| &child.started.pairs);
        pairs.filter_map(|pair| pair.problem.clone()).next()
    }

    fn announce(&self, narrator: Narrator) {
        for (child, launch) in &self.children {
            narrator.ready(&launch.name, child);
        }
        narrator.pairs(self.children.iter().map(|(child, _)| child));
    }

    fn admin_addresses(&self) -> Vec<String> {
        self.children.iter().map(|(child, _)| child.started.admin_address.clone()).collect()
    }

    fn metrics(&self) -> Vec<router::MetricsSource> {
        let source = |(child, launch): &(Child, Launch)| {
            let (worker, address) = (launch.name.clone(), child.started.admin_address.clone());
            router::MetricsSource { worker, address }
        };
        self.children.iter().map(source).collect()
    }

    fn router_section(&self, config: &BatonConfig, model_dir: PathBuf) -> router::Config {
        let mut section = config.router.clone();
        section.model_dir = model_dir;
        if section.model_names.is_empty() && !config.engine.model_name.is_empty() {
            section.model_names.push(config.engine.model_name.clone());
        }
        for (child, launch) in &self.children {
            let address = child.started.address.clone();
            match launch.role {
                WorkerRole::Prefill => section.workers.prefill.push(address),
                WorkerRole::Decode => section.workers.decode.push(address),
            }
        }
        section
    }

    fn keep_alive(self, stopped: &watch::Receiver<bool>, (narrator, ending): (Narrator, &Ending)) -> JoinSet<()> {
        let mut supervisors = JoinSet::new();
        for (child, launch) in self.children {
            let watched = (narrator, ending.clone());
            supervisors.spawn(supervisor::keep_alive(child, launch, stopped.clone(), watched));
        }
        supervisors
    }
}

/// Resolves when the router must stop; a dropped sender counts as the end of the supervisor.
async fn why_stopped(mut stopped: watch::Receiver<Option<Cause>>) -> Cause {
    let cause = stopped.wait_for(Option::is_some).await.map(|cause| *cause);
    cause.ok().flatten().unwrap_or(Cause::SupervisorGone)
}

/// Writes the secret of the deployment's processes to a file that the children's configuration names: the configured
/// secret, or a new one, so that other users of this host are strangers too.
fn with_secret(config: &BatonConfig, directory: &RunDirectory) -> Result<(BatonConfig, Secret)> {
    let mut config = config.clone();
    let text = match config.plane.text()? {
        Some(text) => text,
        None => Secret::draw().map_err(|failure| anyhow::anyhow!("{failure}"))?.into_bytes(),
    };
    config.plane.secret_file = directory.write_private("plane.secret", &text)?;
    let secret = Secret::new(&text).context("the secret of the deployment")?;
    Ok((config, secret))
}

fn collect(count: usize, launch: impl Fn(usize) -> Result<Launch>) -> Result<Vec<Launch>> {
    (0..count).map(launch).collect()
}

fn places_of(child: &Child) -> Places {
    Places { listen: child.started.address.clone(), admin_listen: child.started.admin_address.clone() }
}

/// Reads the model's files before the workers do, so that one message says what is wrong, not one per worker.
fn check_model(config: &BatonConfig, model_dir: &Path) -> Result<()> {
    if model_dir.to_str().is_none() {
        let (key, problem) = ("engine.model_dir".to_owned(), format!("is {model_dir:?}, which is not UTF-8"));
        return Err(ConfigError::Key { origin: "configuration".to_owned(), key, problem }.into());
    }
    router::text::ModelText::load(model_dir)?;
    engine::model::ModelSpec::read(model_dir)?;
    let computes = |engine: &engine::Config| engine.backend == engine::BackendKind::Cpu;
    let prefills = config.mode() == Mode::Disaggregated && computes(&config.prefill.engine);
    if prefills || computes(&config.decode.engine) {
        engine::model::WeightFiles::open(model_dir)?;
    }
    Ok(())
}
