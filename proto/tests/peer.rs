//! Readers and givers over real loopback sockets, with a giver that only remembers what it was told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::Secret;
use proto::listen::Services;
use proto::peer::client::{Peer, connect};
use proto::peer::server::{Identity, PeerHost, PeerService};
use proto::peer::{Endpoint, PeerHello, PeerWelcome};
use proto::session::server::{Refused, SessionHost, Sessions, WorkerService};
use proto::session::{Exactness, SessionLimits, Welcome};
use sched::compat::CompatParts;
use sched::layout::{KvDtype, KvLayout, Shape, TileOrder};
use sched::message::{ReleaseAnswer, ToWorker};
use sched::{Failure, FailureKind, InstanceId, LeaseId, Role, Span};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);
const DEAD: LeaseId = LeaseId(13);
const SPAN: Span = Span::from_secs(30);

struct Giver {
    instance: InstanceId,
    met: Mutex<Vec<InstanceId>>,
    aborted: Mutex<Vec<(InstanceId, LeaseId)>>,
    leaving: watch::Sender<bool>,
}

impl Giver {
    fn new(instance: u128) -> Arc<Giver> {
        let leaving = watch::Sender::new(false);
        Arc::new(Giver { instance: InstanceId(instance), met: Mutex::default(), aborted: Mutex::default(), leaving })
    }
}

impl PeerHost for Giver {
    fn identity(&self) -> Identity {
        Identity { instance: self.instance, compat: compat(), lease_span: SPAN }
    }

    fn welcome(&self, reader: InstanceId) -> Result<PeerWelcome, Failure> {
        self.met.lock().unwrap().push(reader);
        let instance = self.instance;
        let endpoints = vec![Endpoint { transport: "tcp".into(), address: b"127.0.0.1:9".to_vec() }];
        let (compat, layout, lease_span) = (compat(), layout(), SPAN);
        let name = "giver".into();
        Ok(PeerWelcome { compat, instance, layout, blocks: 100, endpoints, name, lease_span })
    }

    fn renew(&self, _: InstanceId, leases: Vec<LeaseId>) -> Result<Vec<LeaseId>, Failure> {
        Ok(leases.into_iter().filter(|lease| *lease == DEAD).collect())
    }

    async fn release(&self, _: InstanceId, lease: LeaseId) -> Result<ReleaseAnswer, Failure> {
        match lease {
            DEAD => Ok(ReleaseAnswer::Expired),
            LeaseId(0) => Err(Failure::new(FailureKind::Unavailable, "the replica did not answer")),
            LeaseId(u64::MAX) => std::future::pending().await,
            _ => Ok(ReleaseAnswer::Ok),
        }
    }

    fn abort(&self, reader: InstanceId, lease: LeaseId) -> Result<(), Failure> {
        self.aborted.lock().unwrap().push((reader, lease));
        Ok(())
    }

    fn leaving(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut leaving = self.leaving.subscribe();
        async move {
            let _ = leaving.wait_for(|leaving| *leaving).await;
        }
    }
}

impl SessionHost for Giver {
    fn welcome(&self) -> Welcome {
        Welcome {
            instance: self.instance,
            role: Role::Prefill,
            model: String::new(),
            compat: compat(),
            vocab_size: 1024,
            context_max: 0,
            capacity_tokens: 0,
            block_tokens: 16,
            peer_address: None,
            backend: String::new(),
            exactness: Exactness::Exact,
            transports: vec![],
            name: "giver".into(),
            lease_span: SPAN,
        }
    }

    fn accept(&self, _: ToWorker) -> Result<(), Refused> {
        Err(Refused::Stopped)
    }
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

fn layout() -> KvLayout {
    KvLayout::whole(Shape {
        layers_total: 2,
        kv_heads_total: 2,
        head_dim: 64,
        block_tokens: 16,
        dtype: KvDtype::F32,
        tile_order: TileOrder("k:dim.token,v:token.dim".into()),
        tile_bytes: 64 * 16 * 4,
    })
    .unwrap()
}

/// A giver's process: dropping it breaks its connections, as a kill does.
struct Process(Option<Runtime>);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.take().unwrap().shutdown_background();
    }
}

async fn serve(giver: Arc<Giver>, listener: TcpListener) -> Process {
    let process = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let limits = SessionLimits::default();
    let sessions = WorkerService::new(giver.clone(), Sessions::new(limits.clone()), secret());
    let services = Services::new(sessions, &limits).with_peer(PeerService::new(giver, secret()));
    let listener = listener.into_std().unwrap();
    process.spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        services.serve(listener, std::future::pending(), Duration::ZERO).await.unwrap();
    });
    Process(Some(process))
}

async fn bound() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn secret() -> Secret {
    Secret::new(b"what only this deployment's processes know").unwrap()
}

fn hello() -> PeerHello {
    PeerHello { compat: compat(), instance: InstanceId(2), name: "reader".into(), lease_beat: Span::from_secs(5) }
}

async fn meet(address: &str) -> (Peer, PeerWelcome) {
    connect(address, &hello(), &secret(), &SessionLimits::default()).await.unwrap()
}

#[tokio::test]
async fn a_reader_learns_layout_and_endpoints_and_manages_its_leases() {
    let giver = Giver::new(1);
    let (listener, address) = bound().await;
    let _process = serve(giver.clone(), listener).await;
    let (peer, welcome) = meet(&address).await;
    assert_eq!(*giver.met.lock().unwrap(), [InstanceId(2)]);
    assert_eq!(Ok(welcome), PeerHost::welcome(&*giver, InstanceId(2)));
    assert_eq!(peer.giver(), InstanceId(1));
    assert_eq!(peer.renew(&[LeaseId(1), DEAD]).await, Ok(vec![DEAD]));
    for _ in 0..2 {
        assert_eq!(peer.release(LeaseId(1), PATIENCE).await, Ok(ReleaseAnswer::Ok));
    }
    assert_eq!(peer.release(DEAD, PATIENCE).await, Ok(ReleaseAnswer::Expired));
    peer.abort(LeaseId(5)).await.unwrap();
    assert_eq!(*giver.aborted.lock().unwrap(), [(InstanceId(2), LeaseId(5))], "said by whom");
}

#[tokio::test]
async fn failures_and_deadlines_come_back_as_what_they_are() {
    let (listener, address) = bound().await;
    let _process = serve(Giver::new(1), listener).await;
    let (peer, _) = meet(&address).await;
    let failure = Failure::new(FailureKind::Unavailable, "the replica did not answer");
    assert_eq!(peer.release(LeaseId(0), PATIENCE).await, Err(failure));
    let late = peer.release(LeaseId(u64::MAX), Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(late, Failure::new(FailureKind::WorkerLost, "no answer within 50ms"));
}

#[tokio::test]
async fn an_incompatible_reader_is_told_which_part_differs() {
    let giver = Giver::new(1);
    let (listener, address) = bound().await;
    let _process = serve(giver.clone(), listener).await;
    let compat = CompatParts { numerics: "another kernel set".into(), ..compat() };
    let hello = PeerHello { compat, ..hello() };
    let failure = connect(&address, &hello, &secret(), &SessionLimits::default()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Incompatible);
    let said =
        "the reader cannot use the giver's KV cache: numerics differs: \"another kernel set\" here, \"test\" there";
    assert_eq!(failure.detail, said);
    assert!(giver.met.lock().unwrap().is_empty());
}

#[tokio::test]
async fn another_incarnation_behind_the_same_address_refuses_old_leases() {
    let (listener, address) = bound().await;
    let _process = serve(Giver::new(1), listener).await;
    let (old, _) = meet(&address).await;
    // The old reader's handle now reaches a process that says it is someone else.
    let (listener, address) = bound().await;
    let _other = serve(Giver::new(99), listener).await;
    let (new, _) = meet(&address).await;
    assert_ne!(old.giver(), new.giver());
    let stale = new.as_if_greeted_by(old.giver());
    for outcome in [
        stale.renew(&[LeaseId(1)]).await.map(|_| ()),
        stale.release(LeaseId(1), PATIENCE).await.map(|_| ()),
        stale.abort(LeaseId(1)).await,
        stale.watch().await.map(|_| ()),
    ] {
        assert_eq!(outcome, Err(Failure::new(FailureKind::WorkerLost, "the giver inst1 is gone; this is inst99")));
    }
}

#[tokio::test]
async fn a_watch_ends_when_the_giver_leaves_or_dies() {
    let giver = Giver::new(1);
    let (listener, address) = bound().await;
    let process = serve(giver.clone(), listener).await;
    let (peer, _) = meet(&address).await;
    let mut leaving = peer.watch().await.unwrap();
    assert!(timeout(Duration::from_millis(50), leaving.ended()).await.is_err(), "the giver still lives");
    giver.leaving.send(true).unwrap();
    assert_eq!(timeout(PATIENCE, leaving.ended()).await.unwrap(), "the giver has left");
    giver.leaving.send_replace(false);
    let mut dying = peer.watch().await.unwrap();
    drop(process);
    let said = timeout(PATIENCE, dying.ended()).await.expect("the connection breaks");
    assert_ne!(said, "the giver has left");
    let failure = peer.renew(&[LeaseId(1)]).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::WorkerLost);
}

#[tokio::test]
async fn giver_and_reader_of_different_secrets_do_not_meet() {
    let giver = Giver::new(1);
    let (listener, address) = bound().await;
    let _process = serve(giver.clone(), listener).await;
    for other in [Secret::open(), Secret::new(&[b'x'; 64]).unwrap()] {
        let failure = connect(&address, &hello(), &other, &SessionLimits::default()).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Incompatible);
        assert!(failure.detail.contains("plane.secret"), "{failure}");
    }
    assert!(giver.met.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_reader_that_renews_too_seldom_is_told_both_numbers() {
    let (listener, address) = bound().await;
    let _process = serve(Giver::new(1), listener).await;
    let slow = |seconds| PeerHello { lease_beat: Span::from_secs(seconds), ..hello() };
    let met = async |seconds| connect(&address, &slow(seconds), &secret(), &SessionLimits::default()).await;
    let failure = met(16).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Incompatible);
    assert!(failure.detail.contains("16 s") && failure.detail.contains("30 s"), "{failure}");
    assert!(met(0).await.is_err());
    assert!(met(15).await.is_ok());
}
