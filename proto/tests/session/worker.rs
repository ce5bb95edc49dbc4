//! A worker that only records the messages it gets, and the messages that tests send it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::listen::Services;
use proto::session::client::{Session, connect};
use proto::session::server::{Refused, SessionHost, Sessions, WorkerService};
use proto::session::{EndReason, Exactness, RouterHello, SessionLimits, Welcome, WorkerUpdate};
use proto::{Secret, TurnedAway};
use sched::compat::CompatParts;
use sched::layout::KvDtype;
use sched::message::{Commit, FirstToken, FromWorker, ToWorker, Work};
use sched::{
    Attempt, Choice, ChoiceState, FinishReason, InstanceId, Leg, Request, RequestId, Role, SampledToken, Slo, Span,
    TokenId,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;

pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Records messages; answers `Busy` as often as told.
#[derive(Default)]
pub(super) struct Host {
    pub(super) taken: Mutex<Vec<ToWorker>>,
    pub(super) busy: Mutex<u32>,
    pub(super) turned_away: Mutex<Vec<TurnedAway>>,
}

impl Host {
    pub(super) fn taken(&self) -> Vec<ToWorker> {
        self.taken.lock().unwrap().clone()
    }

    pub(super) async fn until(&self, reached: impl Fn(&[ToWorker]) -> bool) -> Vec<ToWorker> {
        let wait = async {
            loop {
                let taken = self.taken();
                if reached(&taken) {
                    return taken;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("the worker got only {:?}", self.taken()))
    }
}

impl SessionHost for Host {
    fn welcome(&self) -> Welcome {
        Welcome {
            instance: InstanceId(7),
            role: Role::Prefill,
            model: "demo".into(),
            compat: compat(),
            vocab_size: 1024,
            context_max: 4096,
            capacity_tokens: 65536,
            sequences_max: 64,
            block_tokens: 16,
            peer_address: Some("127.0.0.1:1".into()),
            backend: "test".into(),
            exactness: Exactness::Exact,
            transports: vec!["tcp".into()],
            name: "prefill-0".into(),
            lease_span: Span::from_secs(30),
        }
    }

    fn accept(&self, message: ToWorker) -> Result<(), Refused> {
        let mut busy = self.busy.lock().unwrap();
        if *busy > 0 {
            *busy -= 1;
            return Err(Refused::Busy(Box::new(message)));
        }
        self.taken.lock().unwrap().push(message);
        Ok(())
    }

    fn turned_away(&self, why: TurnedAway) {
        self.turned_away.lock().unwrap().push(why);
    }
}

pub(super) fn compat() -> CompatParts {
    CompatParts {
        weights_digest: 1,
        layers: 2,
        kv_heads: 2,
        head_dim: 64,
        rope: "base 10000".into(),
        kv_dtype: KvDtype::F32,
        scale_rule: "none".into(),
        numerics: "test".into(),
        wire_version: 1,
    }
}

pub(super) struct Worker {
    pub(super) address: String,
    pub(super) host: Arc<Host>,
    pub(super) sessions: Sessions,
    _stop: oneshot::Sender<()>,
}

pub(super) fn secret() -> Secret {
    Secret::new(b"what only this deployment's processes know").unwrap()
}

pub(super) async fn worker(limits: SessionLimits) -> Worker {
    let host = Arc::new(Host::default());
    let sessions = Sessions::new(limits.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let services = Services::new(WorkerService::new(host.clone(), sessions.clone(), secret()), &limits);
    tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        services.serve(listener, stopped, Duration::ZERO).await.unwrap();
    });
    Worker { address, host, sessions, _stop: stop }
}

pub(super) async fn router(worker: &Worker) -> Session {
    connect(&worker.address, &RouterHello { router: InstanceId(1) }, &secret(), &SessionLimits::default())
        .await
        .unwrap()
}

pub(super) fn leg(request: u64) -> Leg {
    Leg { request: RequestId(request), attempt: Attempt(0) }
}

pub(super) fn request(id: u64, choices: u32) -> Request {
    Request {
        leg: leg(id),
        prompt: vec![TokenId(1), TokenId(2)].into(),
        choices: (0..choices).map(|choice| ChoiceState { choice: Choice(choice), generated: vec![] }).collect(),
        params: Arc::default(),
        slo: Slo::default(),
        deadline_in: Span::from_secs(10),
    }
}

pub(super) fn submit(id: u64) -> ToWorker {
    ToWorker::Submit(request(id, 1), Work::Whole)
}

pub(super) fn token(id: u64, choice: u32, ended: Option<FinishReason>) -> FromWorker {
    let token = SampledToken { token: TokenId(9), logprob: Some(-0.5), top: vec![] };
    FromWorker::Token { leg: leg(id), choice: Choice(choice), index: 0, token, ended, timing: None }
}

pub(super) fn commit(id: u64, choice: u32, ended: Option<FinishReason>) -> ToWorker {
    let token = SampledToken { token: TokenId(9), logprob: None, top: vec![] };
    ToWorker::Commit(Commit { leg: leg(id), firsts: vec![FirstToken { choice: Choice(choice), token, ended }] })
}

pub(super) async fn next(session: &mut Session) -> WorkerUpdate {
    timeout(PATIENCE, session.updates.next()).await.expect("an update")
}

pub(super) async fn messages(session: &mut Session, count: usize) -> Vec<FromWorker> {
    let mut all = Vec::new();
    while all.len() < count {
        match next(session).await {
            WorkerUpdate::Messages(messages) => all.extend(messages),
            WorkerUpdate::Status(_) => {}
            WorkerUpdate::Ended(ended) => panic!("{ended}, after {all:?}"),
        }
    }
    all
}

pub(super) async fn end(session: &mut Session) -> EndReason {
    loop {
        if let WorkerUpdate::Ended(ended) = next(session).await {
            return ended.reason;
        }
    }
}
