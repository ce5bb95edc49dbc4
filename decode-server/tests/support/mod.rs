//! Prefill and decode workers on real loopback sockets, and a router played by the test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    unreachable_pub,
    reason = "helpers of several tests"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use decode_server::{DecodeRole, Peers, PeersConfig};
use engine::{BackendKind, ModelledConfig, NoRankProgram, TransportChoice};
use node::bind::WorkerPorts;
use node::telemetry::Metrics;
use prefill_server::Giver;
use proto::Secret;
use proto::session::client::{Session, connect};
use proto::session::{RouterHello, SessionLimits, WorkerStatus, WorkerUpdate};
use sched::message::{Commit, FromWorker, Offer, ToWorker, Work};
use sched::{
    Attempt, Choice, ChoiceState, Failure, InstanceId, Leg, Request, RequestId, SamplingParams, Slo, Span, TokenId,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use worker::Sides;
use worker::started::{Report, Started};

pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn secret() -> Secret {
    Secret::new(b"what only this deployment's processes know").unwrap()
}

/// Returns a model directory of the fixtures; the modelled backend reads only the shape.
pub fn model(family: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/families").join(family)
}

pub fn engine(family: &str, transport: TransportChoice, step_us: f64) -> engine::Config {
    engine::Config {
        model_dir: model(family),
        backend: BackendKind::Modelled,
        kv_pool: engine::KvPool::Blocks(256),
        transport,
        modelled: ModelledConfig {
            prefill_step_us: step_us,
            prefill_token_us: 1.0,
            prefill_token_squared_us: 0.001,
            decode_step_us: step_us,
            decode_context_token_us: 0.01,
            decode_sequence_us: 1.0,
            output_tokens: 0,
            ..ModelledConfig::default()
        },
        ..engine::Config::default()
    }
}

pub fn prefill(engine: engine::Config) -> worker::Config {
    let any = "127.0.0.1:0".to_owned();
    worker::Config { listen: any.clone(), admin_listen: any, engine, ..worker::Config::default() }
}

pub fn decode(engine: engine::Config, peers: &[&str]) -> decode_server::Config {
    let any = "127.0.0.1:0".to_owned();
    decode_server::Config {
        listen: any.clone(),
        admin_listen: any,
        peers: peers.iter().map(|peer| (*peer).to_owned()).collect(),
        engine,
        ..decode_server::Config::default()
    }
}

/// A worker in a runtime of its own: dropping it breaks everything at once, as a kill does.
pub struct Process {
    pub started: Started,
    stop: Option<oneshot::Sender<()>>,
    ended: Option<oneshot::Receiver<Result<(), String>>>,
    runtime: Option<Runtime>,
}

/// Passes on only the report that a worker is ready.
fn once_ready(tell: oneshot::Sender<Started>) -> impl Fn(Report) {
    let tell = std::sync::Mutex::new(Some(tell));
    move |report| match report {
        Report::Ready(started) => tell.lock().unwrap().take().unwrap().send(*started).unwrap(),
        Report::Loading(_) => {}
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Process {
    pub async fn prefill(config: worker::Config) -> Process {
        Process::prefill_with(config, Metrics::detached()).await
    }

    pub async fn prefill_with(config: worker::Config, metrics: Metrics) -> Process {
        Process::start_prefill(config, metrics, secret()).await
    }

    pub async fn prefill_knowing(config: worker::Config, secret: Secret) -> Process {
        Process::start_prefill(config, Metrics::detached(), secret).await
    }

    /// Starts a prefill worker at the address of one that was dropped, as soon as that one's sockets are closed.
    pub async fn prefill_again(config: worker::Config) -> Process {
        let until = Instant::now() + PATIENCE;
        loop {
            match Process::try_prefill(config.clone(), Metrics::detached(), secret()).await {
                Err(error) if error.contains("in use") && Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                started => return started.unwrap(),
            }
        }
    }

    async fn start_prefill(config: worker::Config, metrics: Metrics, secret: Secret) -> Process {
        Process::try_prefill(config, metrics, secret).await.unwrap()
    }

    async fn try_prefill(config: worker::Config, metrics: Metrics, secret: Secret) -> Result<Process, String> {
        Process::launch(|tell, stopped| async move {
            let ports = WorkerPorts::bind(&config.listen, &config.advertise, &config.admin_listen).await;
            let ports = ports.map_err(|error| error.to_string())?;
            let tell = once_ready(tell);
            let process = worker::Process { secret, ranks: Arc::new(NoRankProgram), ports, metrics };
            prefill_server::run(config, process, tell, stopped).await.map_err(|error| error.to_string())
        })
        .await
    }

    pub async fn decode(config: decode_server::Config) -> Process {
        Process::decode_with(config, Metrics::detached()).await
    }

    pub async fn decode_with(config: decode_server::Config, metrics: Metrics) -> Process {
        Process::start_decode(config, metrics, secret()).await
    }

    pub async fn decode_knowing(config: decode_server::Config, secret: Secret) -> Process {
        Process::start_decode(config, Metrics::detached(), secret).await
    }

    async fn start_decode(config: decode_server::Config, metrics: Metrics, secret: Secret) -> Process {
        Process::launch(|tell, stopped| async move {
            let ports = WorkerPorts::bind(&config.listen, &config.advertise, &config.admin_listen).await;
            let ports = ports.map_err(|error| error.to_string())?;
            let tell = once_ready(tell);
            let process = worker::Process { secret, ranks: Arc::new(NoRankProgram), ports, metrics };
            decode_server::run(config, process, tell, stopped).await.map_err(|error| error.to_string())
        })
        .await
        .unwrap()
    }

    pub async fn both(config: decode_server::Config) -> Process {
        Process::launch(|tell, stopped| async move {
            let ports = WorkerPorts::bind(&config.listen, &config.advertise, &config.admin_listen).await;
            let ports = ports.map_err(|error| error.to_string())?;
            let (metrics, ranks, tell) = (Metrics::detached(), Arc::new(NoRankProgram), once_ready(tell));
            let process = worker::Process { secret: secret(), ranks, ports, metrics };
            let peers = PeersConfig::from(&config);
            let sides = Sides {
                giving: Some(Box::new(|loaded| Arc::new(Giver::of(loaded)))),
                taking: Some(Box::new(|loaded| Arc::new(Peers::of(loaded, peers)))),
            };
            worker::run(config.into(), sides, process, tell, stopped).await.map_err(|error| error.to_string())
        })
        .await
        .unwrap()
    }

    async fn launch<F>(
        run: impl FnOnce(oneshot::Sender<Started>, std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) -> F,
    ) -> Result<Process, String>
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, started) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let stopped = Box::pin(async move {
            let _ = stopped.await;
        });
        let life = run(tell, stopped);
        runtime.spawn(async move {
            let _ = end.send(life.await);
        });
        match timeout(PATIENCE, started).await.expect("a worker starts in time") {
            Ok(started) => Ok(Process { started, stop: Some(stop), ended: Some(ended), runtime: Some(runtime) }),
            Err(_) => {
                runtime.shutdown_background();
                Err(ended.await.unwrap().unwrap_err())
            }
        }
    }

    pub fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub async fn ended(&mut self) -> Result<(), String> {
        timeout(PATIENCE, self.ended.take().unwrap()).await.expect("the worker ends").unwrap()
    }
}

/// A session, with its received messages and last status.
pub struct Line {
    pub session: Session,
    pub heard: Vec<FromWorker>,
    pub status: Option<WorkerStatus>,
}

impl Line {
    pub async fn to(address: &str) -> Line {
        Line::knowing(address, &secret()).await
    }

    pub async fn knowing(address: &str, secret: &Secret) -> Line {
        let session = connect(address, &RouterHello { router: InstanceId(1) }, secret, &SessionLimits::default()).await;
        let session = session.unwrap();
        Line { session, heard: Vec::new(), status: None }
    }

    pub fn send(&self, message: ToWorker) {
        self.session.commands.send(message).unwrap();
    }

    async fn hear(&mut self) {
        let update = timeout(PATIENCE, self.session.updates.next()).await;
        match update.unwrap_or_else(|_| panic!("nothing more than {:?}", self.heard)) {
            WorkerUpdate::Messages(messages) => self.heard.extend(messages),
            WorkerUpdate::Status(status) => self.status = Some(status),
            WorkerUpdate::Ended(ended) => panic!("{ended}, after {:?}", self.heard),
        }
    }

    /// Waits for the first message that fits.
    pub async fn first<T>(&mut self, fits: impl Fn(&FromWorker) -> Option<T>) -> T {
        loop {
            if let Some(found) = self.heard.iter().find_map(&fits) {
                return found;
            }
            self.hear().await;
        }
    }

    pub async fn status(&mut self, fits: impl Fn(&WorkerStatus) -> bool) -> WorkerStatus {
        loop {
            if let Some(status) = self.status.as_ref().filter(|status| fits(status)) {
                return status.clone();
            }
            self.hear().await;
        }
    }

    pub async fn pairs(&mut self, count: usize) {
        self.status(|status| status.pairs.len() == count).await;
    }

    /// Waits for a status, sent some time after now, that shows no leg and no block in use.
    pub async fn settled(&mut self) {
        let told_by_now = Instant::now() + Duration::from_millis(300);
        while Instant::now() < told_by_now {
            let _ = timeout(Duration::from_millis(50), self.hear()).await;
        }
        self.status = None;
        self.status(|status| {
            let load = status.load;
            load.blocks_in_use + load.blocks_quarantined + load.held + load.running + load.waiting == 0
        })
        .await;
    }

    pub async fn failed(&mut self, leg: Leg) -> Failure {
        self.first(|message| match message {
            FromWorker::Failed { leg: of, failure } if *of == leg => Some(failure.clone()),
            _ => None,
        })
        .await
    }

    pub async fn offered(&mut self, leg: Leg) -> (sched::LeaseId, Vec<sched::BlockId>) {
        self.first(|message| match message {
            FromWorker::Offered { leg: of, lease, blocks } if *of == leg => Some((*lease, blocks.clone())),
            _ => None,
        })
        .await
    }

    pub async fn committed(&mut self, leg: Leg) -> Commit {
        self.first(|message| match message {
            FromWorker::Committed { commit, .. } if commit.leg == leg => Some(commit.clone()),
            _ => None,
        })
        .await
    }

    pub async fn token(&mut self, leg: Leg, at_least: u32) {
        self.first(|message| match message {
            FromWorker::Token { leg: of, index, .. } if *of == leg && *index >= at_least => Some(()),
            _ => None,
        })
        .await;
    }
}

/// A router with one prefill and one decode worker.
pub struct Router {
    pub prefill: Line,
    pub decode: Line,
    giver_address: Arc<str>,
}

pub type Texts = BTreeMap<u32, Vec<u32>>;

impl Router {
    pub async fn between(prefill: &Process, decode: &Process) -> Router {
        Router::knowing(prefill, decode, &secret()).await
    }

    pub async fn knowing(prefill: &Process, decode: &Process, secret: &Secret) -> Router {
        let giver_address = prefill.started.address.as_str().into();
        let prefill = Line::knowing(&prefill.started.address, secret).await;
        let decode = Line::knowing(&decode.started.address, secret).await;
        Router { prefill, decode, giver_address }
    }

    pub async fn offer(&mut self, request: &Request) -> Offer {
        let (lease, blocks) = self.prefill.offered(request.leg).await;
        let giver = self.prefill.session.welcome.instance;
        Offer { request: request.clone(), giver, giver_address: self.giver_address.clone(), lease, blocks }
    }

    /// Runs a whole request: prefill on one worker, decode on the other.
    pub async fn serve(&mut self, request: &Request) -> Texts {
        self.prefill.send(ToWorker::Submit(request.clone(), Work::Give));
        let offer = self.offer(request).await;
        self.decode.send(ToWorker::Offer(offer));
        let commit = self.prefill.committed(request.leg).await;
        self.decode.send(ToWorker::Commit(commit.clone()));
        let mut texts: Texts = commit.firsts.iter().map(|first| (first.choice.0, vec![first.token.token.0])).collect();
        collect(&mut self.decode, request, &mut texts).await;
        self.prefill
            .first(|message| match message {
                FromWorker::HandedOver { leg } if *leg == request.leg => Some(()),
                _ => None,
            })
            .await;
        texts
    }
}

/// Collects the tokens of a leg until all its choices have ended.
pub async fn collect(line: &mut Line, request: &Request, texts: &mut Texts) {
    let (mut open, mut seen) = (request.choices.len(), 0);
    while open > 0 {
        while seen == line.heard.len() {
            line.hear().await;
        }
        match &line.heard[seen] {
            FromWorker::Token { leg, choice, index, token, ended, .. } if *leg == request.leg => {
                let text = texts.entry(choice.0).or_default();
                assert_eq!(*index as usize, text.len(), "tokens come in order, none twice");
                text.push(token.token.0);
                open -= usize::from(ended.is_some());
            }
            FromWorker::Failed { leg, failure } if *leg == request.leg => panic!("{leg} failed: {failure}"),
            _ => {}
        }
        seen += 1;
    }
}

pub fn leg(id: u64) -> Leg {
    Leg { request: RequestId(id), attempt: Attempt(0) }
}

pub fn request(id: u64, prompt_tokens: u32, max_tokens: u32) -> Request {
    let params = SamplingParams { max_tokens, min_tokens: max_tokens, seed: id, ..SamplingParams::default() };
    Request {
        leg: leg(id),
        prompt: (0..prompt_tokens).map(|position| TokenId((id as u32 * 31 + position) % 300)).collect(),
        choices: vec![ChoiceState { choice: Choice(0), generated: vec![] }],
        params: Arc::new(params),
        slo: Slo::default(),
        deadline_in: Span::from_secs(60),
    }
}

pub fn aggregated(engine: engine::Config) -> decode_server::Config {
    decode_server::Config { role: DecodeRole::Aggregated, ..decode(engine, &[]) }
}
