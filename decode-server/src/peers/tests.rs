//! Givers whose pulls fail, and givers that are lost.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use engine::replica::{Outbound, Outlet};
use engine::{BackendKind, ModelInfo, NoRankProgram, Progress, TransportChoice};
use node::drain::Stop;
use proto::Secret;
use proto::listen::Services;
use proto::peer::client::connect;
use proto::peer::server::{Identity, Listeners, PeerHost, PeerService};
use proto::peer::{Endpoint, PeerWelcome};
use proto::session::Welcome;
use proto::session::server::{Refused, SessionHost, Sessions, WorkerService};
use sched::message::{Envelope, FromWorker, Offer, ToGiver, ToWorker};
use sched::{Attempt, BlockId, Choice, ChoiceState, LeaseId, Leg, Request, RequestId, Role, Slo, Span, TokenId};
use tokio::net::TcpListener;
use worker::metrics::WorkerMetrics;

use super::{Arc, Duration, Event, Failure, FailureKind, InstanceId, Loaded, Peers, PeersConfig, SessionLimits};
use super::{Taking, TransferEnd};

const GIVER: InstanceId = InstanceId(7);
const PATIENCE: Duration = Duration::from_secs(30);

struct ToChannel(Sender<Outbound>);

impl Outlet for ToChannel {
    fn put(&mut self, out: Outbound) {
        let _the_test_has_ended = self.0.send(out);
    }

    fn flush(&mut self) {}
}

/// A reader's replica without maths, and its givers.
struct Reader {
    peers: Peers,
    info: ModelInfo,
    said: Receiver<Outbound>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    async fn start() -> Reader {
        let family = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/families/llama");
        let config = engine::Config {
            model_dir: family.into(),
            backend: BackendKind::Modelled,
            kv_pool: engine::KvPool::Blocks(64),
            transport: TransportChoice::Tcp,
            ..engine::Config::default()
        };
        let (say, said) = channel();
        let start = move || {
            let outlet = Box::new(ToChannel(say));
            engine::start_watched(&config, Role::Decode.into(), outlet, &NoRankProgram, &Progress::default())
        };
        let started = tokio::task::spawn_blocking(start).await.unwrap().unwrap();
        let engine::Started { handle: replica, info, endpoint, join, .. } = started;
        let config =
            PeersConfig { addresses: vec![], links_max: 4, lost_after: PATIENCE, limits: SessionLimits::default() };
        let loaded = Loaded {
            name: "reader".into(),
            address: "reader:1".into(),
            replica,
            info: info.clone(),
            endpoint,
            sessions: Sessions::new(SessionLimits::default()),
            metrics: WorkerMetrics::new(Role::Decode, "tcp"),
            secret: Secret::open(),
            lease_span: Span::from_secs(30),
            lease_beat: Span::from_secs(5),
            stop: Stop::new(),
        };
        Reader { peers: Peers::of(&loaded, config), info, said, thread: Some(join) }
    }

    /// Returns the replica's next message to a router.
    fn tells(&self) -> FromWorker {
        loop {
            if let Outbound::Say(Envelope::Router(message)) = self.said.recv_timeout(PATIENCE).unwrap() {
                return message;
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.peers.shared.worker.replica.shutdown();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A giver that only answers a reader's greeting.
struct Greeter {
    info: ModelInfo,
}

impl PeerHost for Greeter {
    fn identity(&self) -> Identity {
        Identity { instance: GIVER, compat: self.info.compat.clone(), lease_span: Span::from_secs(30) }
    }

    fn welcome(&self, _: InstanceId) -> Result<PeerWelcome, Failure> {
        let Identity { instance, compat, lease_span } = self.identity();
        let endpoints = vec![Endpoint { transport: "tcp".into(), address: vec![] }];
        let (layout, name) = (self.info.layout.clone(), "giver".into());
        Ok(PeerWelcome { compat, instance, layout, blocks: 64, endpoints, name, lease_span })
    }

    fn hear(&self, _: InstanceId, _: ToGiver) -> Result<(), Failure> {
        Ok(())
    }

    fn leaving(&self) -> impl Future<Output = ()> + Send + 'static {
        std::future::pending()
    }
}

impl SessionHost for Greeter {
    fn welcome(&self) -> Welcome {
        unreachable!("no router comes")
    }

    fn accept(&self, _: ToWorker) -> Result<(), Refused> {
        Err(Refused::Stopped)
    }
}

/// Found by reading: pulls failed one after another over a path that the transport called up, until the deadline of
/// each request.
#[tokio::test]
async fn a_giver_whose_pulls_fail_in_a_row_is_taken_down() {
    let reader = Reader::start().await;
    let greeter = Arc::new(Greeter { info: reader.info.clone() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let limits = SessionLimits::default();
    let sessions = WorkerService::new(greeter.clone(), Sessions::new(limits.clone()), Secret::open());
    let services =
        Services::new(sessions, &limits).with_peer(PeerService::new(greeter, Listeners::default(), Secret::open()));
    tokio::spawn(services.serve(listener, std::future::pending(), Duration::ZERO));
    let peers = &reader.peers;
    let (peer, _) = connect(&address, &peers.shared.hello, &Secret::open(), &limits).await.unwrap();
    peers.table().greet(&address, peer, "giver");
    peers.wire_up(GIVER, 1e9);
    let fail = |ends: &[TransferEnd]| ends.iter().for_each(|end| peers.pull_ended(GIVER, *end));
    use super::TransferEnd::{Aborted, Done, Failed, Refused};
    fail(&[Failed, Failed, Done, Failed, Refused, Aborted, Failed]);
    assert!(peers.table().is_up(GIVER), "one that succeeds shows that the path is well; a refusal is no sign of it");
    fail(&[Failed]);
    assert!(!peers.table().is_up(GIVER));
}

/// Found by reading: a leg that renewed at a lost giver got no answer, and waited for the end of the request.
#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_for_a_lost_giver_ends_the_hand_off() {
    let reader = Reader::start().await;
    let leg = Leg { request: RequestId(1), attempt: Attempt(0) };
    let request = Request {
        leg,
        prompt: vec![TokenId(1); 20].into(),
        choices: vec![ChoiceState { choice: Choice(0), generated: vec![] }],
        params: Arc::default(),
        slo: Slo::default(),
        deadline_in: Span::from_secs(600),
    };
    let (giver_address, blocks) = ("giver:1".into(), vec![BlockId(0), BlockId(1)]);
    let offer = Offer { request, giver: GIVER, giver_address, lease: LeaseId(3), blocks };
    reader.peers.shared.worker.replica.send(Event::GiverUp(GIVER)).unwrap();
    reader.peers.shared.worker.replica.send(Event::Router(ToWorker::Offer(offer))).unwrap();
    reader.peers.say(GIVER, ToGiver::Renew(vec![LeaseId(3)]));
    let said = reader.tells();
    assert!(
        matches!(&said, FromWorker::Failed { leg: of, failure } if *of == leg && failure.kind == FailureKind::KvLost),
        "{said:?}"
    );
}
