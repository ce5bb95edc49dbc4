//! Keeps one session with one worker alive; knows nothing of the words in it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use node::backoff::Backoff;
use proto::Secret;
use proto::session::client::{self, Commands, Session, Updates};
use proto::session::{RouterHello, SessionEnded, SessionLimits, Welcome, WorkerUpdate};
use sched::Span;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::random::Numbers;

/// First pause between two attempts to reach a worker.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Life after which a session counts as steady, not as one that breaks at once.
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// Most reasons that are remembered; after that none counts as new.
const REASONS_MAX: usize = 16;

/// Configured worker, by its place in the list of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(pub(crate) usize);

/// News of the session with a worker.
#[derive(Debug)]
pub(crate) enum News {
    /// The session has begun. Dropping the sender ends it.
    Up(Box<Welcome>, Commands),
    /// The worker said something.
    Update(WorkerUpdate),
    /// The session is over; the next one is being tried.
    Down,
}

#[derive(Debug, Clone)]
pub(crate) struct Dialling {
    pub(crate) slot: Slot,
    pub(crate) address: String,
    pub(crate) hello: RouterHello,
    pub(crate) secret: Secret,
    pub(crate) limits: SessionLimits,
    /// Time between two renewals of the leases of running requests.
    pub(crate) beat: Span,
    pub(crate) pause_max: Duration,
    /// Entries of the vocabulary that the router uses.
    pub(crate) vocab_size: u32,
}

/// Reason why there is no session with a worker.
#[derive(Debug)]
enum NoSession {
    /// The peer does not answer as a worker does.
    OutOfReach(String),
    /// The peer is a worker that does not fit this router.
    Unfit(String),
}

/// Connects, reports the news and connects again, until the receiver of the news is gone.
pub(crate) async fn keep_connected(dialling: Dialling, numbers: Numbers, news: mpsc::Sender<(Slot, News)>) {
    let mut pause = Pause::new(dialling.pause_max, numbers);
    let mut troubles = Troubles::default();
    // The worker's own name, once known.
    let mut name = dialling.address.clone();
    loop {
        match dial(&dialling).await {
            Ok(session) => {
                if !session.welcome.name.is_empty() {
                    name.clone_from(&session.welcome.name);
                }
                let role = session.welcome.role.label();
                match troubles.over() {
                    Told::Before => {
                        debug!(worker = name, address = dialling.address, role, "session with worker is up");
                    }
                    Told::First => {
                        info!(worker = name, address = dialling.address, role, "session with worker is up again");
                    }
                }
                let began = Instant::now();
                let up = News::Up(Box::new(session.welcome), session.commands);
                if news.send((dialling.slot, up)).await.is_err() {
                    return;
                }
                let Ok(reason) = relay(dialling.slot, session.updates, &news).await else { return };
                let lived = began.elapsed();
                pause.ended_after(lived);
                if lived >= STEADY_AFTER {
                    troubles = Troubles::default();
                }
                match troubles.add(&reason) {
                    Told::First => {
                        warn!(worker = name, address = dialling.address, reason, "session with worker is over");
                    }
                    Told::Before => {
                        debug!(worker = name, address = dialling.address, reason, "session with worker is over again");
                    }
                }
            }
            Err(NoSession::OutOfReach(reason)) => match troubles.add(&reason) {
                Told::First => info!(worker = name, address = dialling.address, reason, "worker is out of reach"),
                Told::Before => {
                    debug!(worker = name, address = dialling.address, reason, "worker is still out of reach");
                }
            },
            Err(NoSession::Unfit(reason)) => match troubles.add(&reason) {
                Told::First => warn!(worker = name, address = dialling.address, reason, "worker cannot be used"),
                Told::Before => {
                    debug!(worker = name, address = dialling.address, reason, "worker still cannot be used");
                }
            },
        }
        tokio::select! {
            () = tokio::time::sleep(pause.next()) => {}
            () = news.closed() => return,
        }
    }
}

/// Begins a session with a worker that fits this router.
async fn dial(dialling: &Dialling) -> Result<Session, NoSession> {
    let Dialling { address, hello, secret, limits, beat, vocab_size, .. } = dialling;
    let session = client::connect(address, hello, secret, limits).await;
    let session = session.map_err(|SessionEnded { reason }| NoSession::OutOfReach(reason.to_string()))?;
    let Welcome { lease_span, model, vocab_size: theirs, .. } = &session.welcome;
    if theirs != vocab_size {
        return Err(NoSession::Unfit(format!(
            "it serves {model} with {theirs} tokens in its vocabulary, the model of this router (router.model_dir) has \
             {vocab_size}"
        )));
    }
    if beat.us().saturating_mul(2) > lease_span.us() {
        return Err(NoSession::Unfit(format!(
            "it ends requests that are not renewed for {} s (engine.lease_span_ms), we renew every {} s (session.beat_ms)",
            lease_span.secs_f64(),
            beat.secs_f64()
        )));
    }
    Ok(session)
}

/// The receiver of the news is gone.
struct Unwanted;

/// Passes all updates on until the session ends, and returns why it ended.
async fn relay(slot: Slot, mut updates: Updates, news: &mpsc::Sender<(Slot, News)>) -> Result<String, Unwanted> {
    loop {
        let update = tokio::select! {
            update = updates.next() => update,
            () = news.closed() => return Err(Unwanted),
        };
        let (what, over) = match update {
            WorkerUpdate::Ended(ended) => (News::Down, Some(ended.reason.to_string())),
            WorkerUpdate::Messages(_) | WorkerUpdate::Status(_) => (News::Update(update), None),
        };
        news.send((slot, what)).await.map_err(|_| Unwanted)?;
        if let Some(reason) = over {
            return Ok(reason);
        }
    }
}

/// Reasons why a worker was unusable since it was last steady; repeating one every second would flood the log.
#[derive(Debug, Default)]
struct Troubles {
    reasons: BTreeSet<String>,
    /// True if a reason was logged as new since the worker was up.
    said: bool,
}

/// Whether a reason is told for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    First,
    Before,
}

impl Troubles {
    fn add(&mut self, reason: &str) -> Told {
        if self.reasons.len() >= REASONS_MAX || !self.reasons.insert(reason.to_owned()) {
            return Told::Before;
        }
        self.said = true;
        Told::First
    }

    fn over(&mut self) -> Told {
        if std::mem::take(&mut self.said) { Told::First } else { Told::Before }
    }
}

/// Pauses that double up to a limit, each up to a half shorter, so that routers do not redial a worker in step.
struct Pause {
    backoff: Backoff,
    max: Duration,
    numbers: Numbers,
}

impl Pause {
    fn new(max: Duration, numbers: Numbers) -> Pause {
        Pause { backoff: Backoff::from(PAUSE_MIN), max, numbers }
    }

    fn next(&mut self) -> Duration {
        let pause = self.backoff.next_up_to(self.max);
        let jitter_us_max = u64::try_from(pause.as_micros() / 2).unwrap_or(u64::MAX);
        pause.saturating_sub(Duration::from_micros(self.numbers.scattered() % jitter_us_max.saturating_add(1)))
    }

    /// Resets the pause after a session that lived, not after one that broke at once.
    fn ended_after(&mut self, lived: Duration) {
        if lived > self.max {
            self.backoff.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proto::listen::Services;
    use proto::session::Exactness;
    use proto::session::server::{Refused, SessionHost, Sessions, WorkerService};
    use sched::compat::CompatParts;
    use sched::layout::KvDtype;
    use sched::message::ToWorker;
    use sched::{InstanceId, Role};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_start_again_after_a_session_that_lived() {
        let mut pause = Pause::new(Duration::from_millis(100), Numbers::draw().unwrap());
        let mut lies_below = |whole_ms: u64| {
            let (drawn, whole) = (pause.next(), Duration::from_millis(whole_ms));
            assert!((whole / 2..=whole).contains(&drawn), "{drawn:?} of {whole:?}");
        };
        [20, 40, 80, 100, 100].into_iter().for_each(&mut lies_below);
        pause.ended_after(Duration::from_millis(5));
        assert!(pause.next() >= Duration::from_millis(50));
        pause.ended_after(Duration::from_secs(5));
        assert!(pause.next() <= Duration::from_millis(20));
    }

    #[test]
    fn two_routers_do_not_dial_in_step() {
        let drawn = || {
            let mut pause = Pause::new(Duration::from_secs(1), Numbers::draw().unwrap());
            (0..20).map(|_| pause.next()).collect::<Vec<_>>()
        };
        assert_ne!(drawn(), drawn());
    }

    #[test]
    fn what_comes_back_again_and_again_is_told_once() {
        let mut troubles = Troubles::default();
        assert_eq!(troubles.over(), Told::Before, "it was never away");
        for told in [Told::First, Told::Before, Told::Before] {
            assert_eq!((troubles.add("it is over"), troubles.add("nobody answers")), (told, told));
            assert_eq!((troubles.over(), troubles.over()), (told, Told::Before));
        }
        let told = (0..100).filter(|number| troubles.add(&number.to_string()) == Told::First).count();
        assert_eq!(told, REASONS_MAX - 2);
    }

    /// Worker with a name, whose legs live for 30 s without a renewal.
    struct Worker;

    impl SessionHost for Worker {
        fn welcome(&self) -> Welcome {
            let compat = CompatParts {
                weights_digest: 1,
                layers: 2,
                kv_heads: 2,
                head_dim: 64,
                rope: "base 10000".into(),
                kv_dtype: KvDtype::F32,
                scale_rule: "none".into(),
                numerics: "test".into(),
                wire_version: 1,
            };
            Welcome {
                instance: InstanceId(7),
                role: Role::Aggregated,
                model: "demo".into(),
                compat,
                vocab_size: 280,
                context_max: 512,
                capacity_tokens: 4096,
                sequences_max: 64,
                block_tokens: 16,
                peer_address: None,
                backend: "test".into(),
                exactness: Exactness::Exact,
                transports: vec![],
                name: "worker".into(),
                lease_span: Span::from_secs(30),
            }
        }

        fn accept(&self, _: ToWorker) -> Result<(), Refused> {
            Ok(())
        }
    }

    /// Found by reading: a worker whose leases end between two renewals ended every request that ran for longer. Found
    /// by trying: a worker with another model answered with other words, or called clients' prompts wrong.
    #[tokio::test]
    async fn a_worker_that_does_not_go_together_with_the_router_is_not_used() {
        let limits = SessionLimits::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let service = WorkerService::new(Arc::new(Worker), Sessions::new(limits.clone()), Secret::open());
        tokio::spawn(Services::new(service, &limits).serve(listener, std::future::pending(), Duration::ZERO));
        let dialling = |beat, vocab_size| Dialling {
            slot: Slot(0),
            address: address.clone(),
            hello: RouterHello { router: InstanceId(1) },
            secret: Secret::open(),
            limits: limits.clone(),
            beat,
            pause_max: Duration::from_secs(1),
            vocab_size,
        };
        assert!(dial(&dialling(Span::from_secs(15), 280)).await.is_ok(), "one renewal may be lost");
        for (beat, vocab_size, said) in [
            (16, 280, "30 s (engine.lease_span_ms), we renew every 16 s (session.beat_ms)"),
            (
                15,
                400,
                "it serves demo with 280 tokens in its vocabulary, the model of this router (router.model_dir) has 400",
            ),
        ] {
            match dial(&dialling(Span::from_secs(beat), vocab_size)).await {
                Err(NoSession::Unfit(refused)) => assert!(refused.contains(said), "{refused}"),
                Err(NoSession::OutOfReach(reason)) => panic!("out of reach: {reason}"),
                Ok(_) => panic!("used"),
            }
        }
    }
}
