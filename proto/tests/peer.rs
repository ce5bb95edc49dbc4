//! Readers and givers over real loopback sockets, with a giver that only records the words it gets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::Secret;
use proto::listen::Services;
use proto::peer::client::{Peer, connect};
use proto::peer::server::{Identity, Listeners, PeerHost, PeerService};
use proto::peer::{Endpoint, PeerHello, PeerWelcome};
use proto::session::server::{Refused, SessionHost, Sessions, WorkerService};
use proto::session::{Exactness, SessionLimits, Welcome};
use sched::compat::CompatParts;
use sched::layout::{KvDtype, KvLayout, Shape, TileOrder};
use sched::message::{ReleaseAnswer, ToGiver, ToReader, ToWorker};
use sched::{Failure, FailureKind, InstanceId, LeaseId, Role, Span};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);
const DEAD: LeaseId = LeaseId(13);
/// Lease that makes the test's giver pause when a word names it.
const SLOW: LeaseId = LeaseId(14);
const SPAN: Span = Span::from_secs(30);

struct Giver {
    instance: InstanceId,
    met: Mutex<Vec<InstanceId>>,
    heard: Mutex<Vec<(InstanceId, ToGiver)>>,
    listeners: Listeners,
    leaving: watch::Sender<bool>,
}

impl Giver {
    fn new(instance: u128) -> Arc<Giver> {
        let leaving = watch::Sender::new(false);
        Arc::new(Giver {
            instance: InstanceId(instance),
            met: Mutex::default(),
            heard: Mutex::default(),
            listeners: Listeners::default(),
            leaving,
        })
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

    fn hear(&self, reader: InstanceId, word: ToGiver) -> Result<(), Failure> {
        self.heard.lock().unwrap().push((reader, word.clone()));
        let released = |lease, answer| self.listeners.say(reader, &ToReader::Released { lease, answer });
        match word {
            ToGiver::Release(LeaseId(0)) => {
                return Err(Failure::new(FailureKind::Unavailable, "the replica cannot hear it"));
            }
            ToGiver::Renew(leases) if leases.contains(&DEAD) => self.listeners.say(reader, &ToReader::Gone(vec![DEAD])),
            ToGiver::Release(DEAD) => released(DEAD, ReleaseAnswer::Expired),
            ToGiver::Release(lease) => released(lease, ReleaseAnswer::Ok),
            ToGiver::Abort(SLOW) => std::thread::sleep(Duration::from_secs(1)),
            ToGiver::Renew(_) | ToGiver::Follow(_) | ToGiver::Abort(_) => {}
        }
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
            sequences_max: 64,
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

/// A runtime in place of a giver's process: dropping it breaks the connections, as a kill does.
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
    let services =
        Services::new(sessions, &limits).with_peer(PeerService::new(giver.clone(), giver.listeners.clone(), secret()));
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
    let mut watch = peer.watch().await.unwrap();
    let words = [
        ToGiver::Renew(vec![LeaseId(1), DEAD]),
        ToGiver::Release(LeaseId(1)),
        ToGiver::Release(LeaseId(1)),
        ToGiver::Release(DEAD),
        ToGiver::Abort(LeaseId(5)),
    ];
    for word in &words {
        peer.say(word, PATIENCE).await.unwrap();
    }
    peer.ping(PATIENCE).await.unwrap();
    assert_eq!(*giver.heard.lock().unwrap(), words.map(|word| (InstanceId(2), word)), "said by whom; no ping");
    let released = |lease, answer| ToReader::Released { lease, answer };
    let ok = released(LeaseId(1), ReleaseAnswer::Ok);
    for word in [ToReader::Gone(vec![DEAD]), ok.clone(), ok, released(DEAD, ReleaseAnswer::Expired)] {
        assert_eq!(timeout(PATIENCE, watch.next()).await.unwrap(), Ok(word));
    }
}

#[tokio::test]
async fn a_long_heartbeat_is_told_in_parts() {
    let giver = Giver::new(1);
    let (listener, address) = bound().await;
    let _process = serve(giver.clone(), listener).await;
    let (peer, _) = meet(&address).await;
    let leases: Vec<LeaseId> = (100..5_000).map(LeaseId).collect();
    peer.say(&ToGiver::Renew(leases.clone()), PATIENCE).await.unwrap();
    let heard = giver.heard.lock().unwrap();
    let parts = heard.iter().map(|(_, word)| match word {
        ToGiver::Renew(leases) => leases.clone(),
        other => panic!("{other:?}"),
    });
    assert!(heard.len() > 1);
    assert_eq!(parts.flatten().collect::<Vec<_>>(), leases);
}

#[tokio::test]
async fn failures_and_deadlines_come_back_as_what_they_are() {
    let (listener, address) = bound().await;
    let _process = serve(Giver::new(1), listener).await;
    let (peer, _) = meet(&address).await;
    let failure = Failure::new(FailureKind::Unavailable, "the replica cannot hear it");
    assert_eq!(peer.say(&ToGiver::Release(LeaseId(0)), PATIENCE).await, Err(failure));
    let late = peer.say(&ToGiver::Abort(SLOW), Duration::from_millis(50)).await.unwrap_err();
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
    // The old reader's handle now reaches another instance.
    let (listener, address) = bound().await;
    let _other = serve(Giver::new(99), listener).await;
    let (new, _) = meet(&address).await;
    assert_ne!(old.giver(), new.giver());
    let stale = new.as_if_greeted_by(old.giver());
    for outcome in [
        stale.say(&ToGiver::Renew(vec![LeaseId(1)]), PATIENCE).await,
        stale.say(&ToGiver::Release(LeaseId(1)), PATIENCE).await,
        stale.ping(PATIENCE).await,
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
    assert!(timeout(Duration::from_millis(50), leaving.next()).await.is_err(), "the giver still lives");
    giver.leaving.send(true).unwrap();
    assert_eq!(timeout(PATIENCE, leaving.next()).await.unwrap(), Err("the giver has left".to_owned()));
    giver.leaving.send_replace(false);
    let mut dying = peer.watch().await.unwrap();
    drop(process);
    let said = timeout(PATIENCE, dying.next()).await.expect("the connection breaks").unwrap_err();
    assert_ne!(said, "the giver has left");
    let failure = peer.say(&ToGiver::Renew(vec![LeaseId(1)]), PATIENCE).await.unwrap_err();
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
