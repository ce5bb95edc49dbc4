//! A worker for tests: repeats its prompt over real sessions, and remembers what it was told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::Secret;
use proto::listen::Services;
use proto::session::server::{Refused, SessionHost, Sessions, WorkerService};
use proto::session::{Exactness, Pair, SessionLimits, Welcome};
use sched::compat::CompatParts;
use sched::layout::KvDtype;
use sched::message::{
    Commit, FirstTiming, FirstToken, FromWorker, JoinTiming, Load, Offer, STATUS_BEAT, ToWorker, TokenTiming, Work,
};
use sched::{
    BlockId, Choice, Failure, FailureKind, FinishReason, InstanceId, LeaseId, Leg, Request, Role, SampledToken, Score,
    Scores, Span, TokenId,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Tokens of every prompt that it says to have had in its cache.
pub(super) const CACHED_TOKENS: u32 = 2;

pub(super) struct Parrot {
    pub(super) address: String,
    pub(super) instance: InstanceId,
    pub(super) state: Arc<State>,
    sessions: Sessions,
    stop: Option<oneshot::Sender<()>>,
}

pub(super) struct State {
    role: Role,
    instance: InstanceId,
    pace: Duration,
    context_max: u32,
    vocab_size: AtomicU32,
    told: Mutex<Vec<ToWorker>>,
    offers: Mutex<BTreeMap<Leg, Offer>>,
    /// Cancelled legs, and cancelled choices of legs.
    cancelled: Mutex<BTreeSet<(Leg, Option<Choice>)>>,
    /// Whether the worker sends its status, as a running scheduler does.
    voice: Mutex<Voice>,
    health: Mutex<Health>,
    sessions: Sessions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Well,
    /// Fails every leg.
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voice {
    Heard,
    Lost,
}

impl Parrot {
    /// Starts a worker that takes `pace` per token.
    pub(super) async fn start(role: Role, instance: u128, pace: Duration) -> Parrot {
        Parrot::start_at("127.0.0.1:0", role, instance, pace).await
    }

    pub(super) async fn start_at(address: &str, role: Role, instance: u128, pace: Duration) -> Parrot {
        let limits = SessionLimits::default();
        let sessions = Sessions::new(limits.clone());
        let instance = InstanceId(instance);
        let state = Arc::new(State {
            role,
            instance,
            pace,
            context_max: 512,
            vocab_size: AtomicU32::new(280),
            told: Mutex::default(),
            offers: Mutex::default(),
            cancelled: Mutex::default(),
            voice: Mutex::new(Voice::Heard),
            health: Mutex::new(Health::Well),
            sessions: sessions.clone(),
        });
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let services = Services::new(
            WorkerService::new(Arc::new(Host(Arc::clone(&state))), sessions.clone(), Secret::open()),
            &limits,
        );
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = services.serve(listener, async { stopped.await.unwrap_or(()) }, Duration::ZERO);
        let beating = beat(Arc::clone(&state));
        tokio::spawn(async move {
            tokio::select! {
                served = serving => served.unwrap(),
                () = beating => {}
            }
        });
        Parrot { address, instance, state, sessions, stop: Some(stop) }
    }

    /// Sets the size of the model's vocabulary.
    pub(super) fn knows(&self, vocab_size: u32) {
        self.state.vocab_size.store(vocab_size, Ordering::Relaxed);
    }

    pub(super) fn pair_with(&self, givers: &[InstanceId]) {
        let pair = |&giver| Pair { giver, transport: "tcp".to_owned(), bytes_per_second: 1e9 };
        self.sessions.pairs(givers.iter().map(pair).collect(), Vec::new());
    }

    /// Fails every leg from now on, as a worker does whose device is broken.
    pub(super) fn breaks(&self) {
        *self.state.health.lock().unwrap() = Health::Broken;
    }

    /// Stops sending its status, as if its scheduler stood still; its connections still answer.
    pub(super) fn hush(&self) {
        *self.state.voice.lock().unwrap() = Voice::Lost;
    }

    /// Sends its status again.
    pub(super) fn speak(&self) {
        *self.state.voice.lock().unwrap() = Voice::Heard;
    }

    pub(super) fn legs(&self) -> usize {
        self.sessions.legs()
    }

    /// Returns all messages that it was sent.
    pub(super) fn told(&self) -> Vec<ToWorker> {
        self.state.told.lock().unwrap().clone()
    }

    pub(super) async fn crash(&mut self) {
        self.stop.take();
        self.sessions.end(&Failure::new(FailureKind::WorkerLost, "crashed")).await;
    }
}

async fn beat(state: Arc<State>) {
    loop {
        tokio::time::sleep(Duration::from_micros(STATUS_BEAT.us())).await;
        let voice = *state.voice.lock().unwrap();
        if voice == Voice::Heard {
            state.sessions.load(Load::default());
        }
    }
}

struct Host(Arc<State>);

impl SessionHost for Host {
    fn welcome(&self) -> Welcome {
        Welcome {
            instance: self.0.instance,
            role: self.0.role,
            model: "parrot".into(),
            compat: compat(),
            vocab_size: self.0.vocab_size.load(Ordering::Relaxed),
            context_max: self.0.context_max,
            capacity_tokens: 4096,
            sequences_max: 64,
            block_tokens: 16,
            peer_address: Some("127.0.0.1:1".into()),
            backend: "test".into(),
            exactness: Exactness::Exact,
            transports: vec!["tcp".into()],
            name: String::new(),
            lease_span: Span::from_secs(30),
        }
    }

    fn accept(&self, message: ToWorker) -> Result<(), Refused> {
        self.0.told.lock().unwrap().push(message.clone());
        let state = Arc::clone(&self.0);
        match message {
            ToWorker::Submit(request, _) if *state.health.lock().unwrap() == Health::Broken => {
                let (leg, failure) = (request.leg, Failure::new(FailureKind::Internal, "the device is broken"));
                tokio::spawn(async move {
                    state.sessions.tell([FromWorker::Failed { leg, failure }]);
                    state.sessions.over([leg]);
                });
            }
            ToWorker::Submit(request, Work::Whole) => {
                tokio::spawn(async move { state.speak(&request, 0, None).await });
            }
            ToWorker::Submit(request, Work::Give) => {
                tokio::spawn(async move { state.give(&request).await });
            }
            ToWorker::Offer(offer) => {
                state.offers.lock().unwrap().insert(offer.request.leg, offer);
            }
            ToWorker::Commit(commit) => {
                let offer = state.offers.lock().unwrap().remove(&commit.leg).unwrap();
                let timing = JoinTiming { transfer: Span(300), step: Span(500), ..JoinTiming::default() };
                tokio::spawn(async move { state.speak(&offer.request, 1, Some(TokenTiming::Joined(timing))).await });
            }
            ToWorker::Cancel { leg, choice } => {
                state.cancelled.lock().unwrap().insert((leg, choice));
                if choice.is_none() {
                    state.sessions.over([leg]);
                }
            }
            ToWorker::Renew(_) => {}
        }
        Ok(())
    }
}

impl State {
    /// Prefills: sends an offer at once and the first tokens after a while; then the reader takes over.
    async fn give(&self, request: &Request) {
        let leg = request.leg;
        self.sessions.tell([FromWorker::Offered { leg, lease: LeaseId(1), blocks: vec![BlockId(0)] }]);
        self.sessions.tell(scored(request));
        tokio::time::sleep(self.pace).await;
        let firsts = request
            .choices
            .iter()
            .map(|choice| {
                let (token, ended) = said(request, choice.generated.len());
                FirstToken { choice: choice.choice, token, ended }
            })
            .collect();
        let timing = FirstTiming { queue: Span(100), prefill: Span(700), cached_tokens: CACHED_TOKENS };
        self.sessions.tell([FromWorker::Committed { commit: Commit { leg, firsts }, timing }]);
        tokio::time::sleep(self.pace).await;
        self.sessions.tell([FromWorker::HandedOver { leg }]);
        self.sessions.over([leg]);
    }

    fn wants(&self, leg: Leg, choice: Choice) -> bool {
        let cancelled = self.cancelled.lock().unwrap();
        !cancelled.contains(&(leg, None)) && !cancelled.contains(&(leg, Some(choice)))
    }

    /// Generates every choice from token `skip` of the leg on, until all have ended or nobody listens.
    async fn speak(&self, request: &Request, skip: usize, mut timing: Option<TokenTiming>) {
        let leg = request.leg;
        if skip == 0 {
            self.sessions.tell(scored(request));
        }
        if timing.is_none() {
            timing = Some(TokenTiming::First(FirstTiming {
                queue: Span(100),
                prefill: Span(700),
                cached_tokens: CACHED_TOKENS,
            }));
        }
        let mut open: Vec<(Choice, usize)> =
            request.choices.iter().map(|choice| (choice.choice, choice.generated.len() + skip)).collect();
        if skip > 0 {
            open.retain(|(_, next)| said(request, next - 1).1.is_none());
        }
        loop {
            open.retain(|(choice, _)| self.wants(leg, *choice));
            if open.is_empty() {
                return self.sessions.over([leg]);
            }
            tokio::time::sleep(self.pace).await;
            let mut news = Vec::new();
            open.retain_mut(|(choice, next)| {
                let (token, ended) = said(request, *next);
                let index = *next as u32;
                news.push(FromWorker::Token { leg, choice: *choice, index, token, ended, timing });
                *next += 1;
                ended.is_none()
            });
            timing = None;
            self.sessions.tell(news);
        }
    }
}

/// Returns the scores of a prompt, if they are wanted, in two portions: token `p` has the logarithm `-p / 4` and the rank
/// `p`, and the likeliest tokens are those from 30 on.
fn scored(request: &Request) -> Vec<FromWorker> {
    let Some(top) = request.params.prompt_logprobs else { return Vec::new() };
    let score = |position: u32| Score {
        logprob: -(position as f32) / 4.0,
        rank: position,
        top: (0..top).map(|rank| (TokenId(30 + u32::from(rank)), -0.5 - f32::from(rank))).collect(),
    };
    let (end, leg) = (request.prompt.len() as u32, request.leg);
    let portions = [1..end.div_ceil(2), end.div_ceil(2).max(1)..end].into_iter().filter(|portion| !portion.is_empty());
    let told = |portion: std::ops::Range<u32>| FromWorker::Scored {
        leg,
        scores: Scores { first: portion.start, scores: portion.map(score).collect() },
    };
    portions.map(told).collect()
}

/// Returns token `index` of an answer: the prompt's tokens repeated; an end token in the prompt ends the answer.
fn said(request: &Request, index: usize) -> (SampledToken, Option<FinishReason>) {
    let token = request.prompt[index % request.prompt.len()];
    let stops = request.params.stop_tokens.binary_search(&token).is_ok();
    let ended = if stops && index as u32 >= request.params.min_tokens {
        Some(FinishReason::Stop)
    } else {
        (index as u32 + 1 == request.params.max_tokens).then_some(FinishReason::Length)
    };
    let logprob = request.params.logprobs.map(|_| -0.1 - index as f32 / 3.0);
    let top = (0..request.params.logprobs.unwrap_or(0)).map(|rank| (token, -0.1 - f32::from(rank))).collect();
    (SampledToken { token, logprob, top }, ended)
}

fn compat() -> CompatParts {
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
