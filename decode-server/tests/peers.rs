//! Givers that a decode worker meets: made-up addresses, unconfigured ones, one giver behind two, givers that leave.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use engine::TransportChoice::Tcp;
use proto::Secret;
use proto::listen::Services;
use proto::peer::server::{Identity, Listeners, PeerHost, PeerService};
use proto::peer::{PeerHello, PeerWelcome, client};
use proto::session::server::{Refused, SessionHost, Sessions, WorkerService};
use proto::session::{SessionLimits, Welcome};
use sched::layout::{KvLayout, Shape, TileOrder};
use sched::message::{ToGiver, ToWorker, Work};
use sched::{Failure, FailureKind, InstanceId, Span};
use support::{Line, Process, Router, decode, engine, leg, prefill, request, secret};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const STEP_US: f64 = 1_000.0;

async fn giver() -> Process {
    Process::prefill(prefill(engine("llama", Tcp, STEP_US))).await
}

/// Found by reading: after 256 addresses without a listener, a real giver was refused for a minute.
#[tokio::test]
async fn made_up_addresses_keep_no_giver_out() {
    let prefill = giver().await;
    let config = decode_server::Config { peers_max: 4, ..decode(engine("llama", Tcp, STEP_US), &[]) };
    let decode = Process::decode(config).await;
    let mut router = Router::between(&prefill, &decode).await;
    let asked = request(1, 100, 10);
    router.prefill.send(ToWorker::Submit(asked.clone(), Work::Give));
    let offer = router.offer(&asked).await;
    for id in 100..150 {
        let mut made_up = offer.clone();
        made_up.request.leg = leg(id);
        made_up.giver = InstanceId(u128::from(id));
        made_up.giver_address = format!("127.0.0.1:{}", id % 50 + 1).into();
        router.decode.send(ToWorker::Offer(made_up));
    }
    for id in 100..150 {
        router.decode.failed(leg(id)).await;
    }
    router.prefill.send(ToWorker::Cancel { leg: leg(1), choice: None });
    router.serve(&request(2, 100, 10)).await;
}

#[tokio::test]
async fn an_offer_that_cannot_fit_is_refused_before_it_waits() {
    let decode = Process::decode(decode(engine("llama", Tcp, STEP_US), &[])).await;
    let prefill = giver().await;
    let mut router = Router::between(&prefill, &decode).await;
    let asked = request(1, 100, 10);
    router.prefill.send(ToWorker::Submit(asked.clone(), Work::Give));
    let mut offer = router.offer(&asked).await;
    offer.request = request(7, 1 << 19, 10);
    // No host answers or refuses there, so a dial would wait for the whole handshake.
    offer.giver_address = "192.0.2.1:9".into();
    offer.giver = InstanceId(9);
    router.decode.send(ToWorker::Offer(offer));
    assert_eq!(router.decode.failed(leg(7)).await.kind, FailureKind::TooLong);
}

/// Without a secret any process can be the router, so its addresses are not trusted.
#[tokio::test]
async fn without_a_secret_only_configured_givers_are_dialled() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = listener.local_addr().unwrap().to_string();
    let prefill = Process::prefill_knowing(prefill(engine("llama", Tcp, STEP_US)), Secret::open()).await;
    let config = decode(engine("llama", Tcp, STEP_US), &[&prefill.started.address]);
    let decode = Process::decode_knowing(config, Secret::open()).await;
    let mut router = Router::knowing(&prefill, &decode, &Secret::open()).await;
    router.decode.pairs(1).await;
    let asked = request(1, 100, 10);
    router.prefill.send(ToWorker::Submit(asked.clone(), Work::Give));
    let mut offer = router.offer(&asked).await;
    offer.giver = InstanceId(9);
    offer.giver_address = elsewhere.as_str().into();
    router.decode.send(ToWorker::Offer(offer));
    let failure = router.decode.failed(leg(1)).await;
    assert!(failure.detail.contains("none of decode.peers"), "{failure}");
    let dialled = tokio::time::timeout(Duration::from_millis(300), listener.accept()).await;
    assert!(dialled.is_err(), "a stranger made the worker connect to an address of its choice");
    router.serve(&request(2, 100, 10)).await;
}

/// Forwards connections until it is dropped.
async fn proxy(at: &str, to: &str) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind(at).await.unwrap();
    let (address, to) = (listener.local_addr().unwrap().to_string(), to.to_owned());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut from, _)) = listener.accept().await {
            let to = to.clone();
            connections.spawn(async move {
                let mut to = TcpStream::connect(&to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    (address, tasks)
}

/// Suspected by reading: either of two addresses of one giver could declare it lost for both.
#[tokio::test]
async fn a_giver_with_two_addresses_is_lost_when_both_are() {
    let prefill = giver().await;
    let (other, tunnel) = proxy("127.0.0.1:0", &prefill.started.address).await;
    let peers = [prefill.started.address.as_str(), other.as_str()];
    let decode = Process::decode(decode(engine("llama", Tcp, STEP_US), &peers)).await;
    assert!(decode.started.pairs.iter().all(|pair| pair.problem.is_none()), "{:?}", decode.started.pairs);
    let mut router = Router::between(&prefill, &decode).await;
    router.serve(&request(1, 100, 10)).await;
    drop(tunnel);
    // Longer than `giver_lost_ms`.
    let lost_by = tokio::time::Instant::now() + Duration::from_millis(2_500);
    let mut id = 2;
    while tokio::time::Instant::now() < lost_by {
        router.serve(&request(id, 40, 4)).await;
        id += 1;
    }
    router.decode.pairs(1).await;
    drop(prefill);
    router.decode.pairs(0).await;
}

/// Found by trying: a giver whose address another process had taken, which refused the reader, was not lost until its
/// leases ran out.
#[tokio::test]
async fn a_giver_is_lost_when_a_process_at_its_address_refuses() {
    let long_lease = |family| engine::Config { lease_span_ms: 30_000, ..engine(family, Tcp, STEP_US) };
    let former = Process::prefill(prefill(long_lease("llama"))).await;
    let other = Process::prefill(prefill(long_lease("opt"))).await;
    let (address, mut tunnel) = proxy("127.0.0.1:0", &former.started.address).await;
    let patient = decode_server::Config { giver_lost_ms: 30_000, ..decode(long_lease("llama"), &[&address]) };
    let decode = Process::decode(patient).await;
    let mut router = Router::between(&former, &decode).await;
    router.decode.pairs(1).await;
    let asked = request(1, 100, 10);
    router.prefill.send(ToWorker::Submit(asked.clone(), Work::Give));
    let mut offer = router.offer(&asked).await;
    offer.giver_address = address.as_str().into();
    router.decode.send(ToWorker::Offer(offer));
    tunnel.shutdown().await;
    let (_address, _tunnel) = proxy(&address, &other.started.address).await;
    // Far less than a lease, and than the time for which a silent giver is waited for.
    let failure = tokio::time::timeout(Duration::from_secs(15), router.decode.failed(asked.leg)).await.unwrap();
    assert_eq!(failure.kind, FailureKind::KvLost, "{failure:?}");
    router.decode.pairs(0).await;
}

/// Answers as a real giver does, but ends every watch at once, like a giver that leaves.
struct Leaving {
    welcome: PeerWelcome,
    session: Welcome,
    met: AtomicU32,
}

impl PeerHost for Leaving {
    fn identity(&self) -> Identity {
        let PeerWelcome { instance, compat, lease_span, .. } = self.welcome.clone();
        Identity { instance, compat, lease_span }
    }

    fn welcome(&self, _: InstanceId) -> Result<PeerWelcome, Failure> {
        self.met.fetch_add(1, Ordering::Relaxed);
        Ok(self.welcome.clone())
    }

    fn hear(&self, _: InstanceId, _: ToGiver) -> Result<(), Failure> {
        Ok(())
    }

    fn leaving(&self) -> impl Future<Output = ()> + Send + 'static {
        std::future::ready(())
    }
}

impl SessionHost for Leaving {
    fn welcome(&self) -> Welcome {
        self.session.clone()
    }

    fn accept(&self, _: ToWorker) -> Result<(), Refused> {
        Err(Refused::Stopped)
    }
}

/// Starts a copy of a real giver with its welcome altered by `change`; returns it with its address.
async fn stand_in(prefill: &Process, change: impl FnOnce(&mut PeerWelcome)) -> (Arc<Leaving>, String) {
    let session = Line::to(&prefill.started.address).await.session.welcome;
    let (compat, lease_beat) = (session.compat.clone(), Span::from_secs(5));
    let hello = PeerHello { compat, instance: InstanceId(1), name: "reader".to_owned(), lease_beat };
    let limits = SessionLimits::default();
    let (_, mut welcome) = client::connect(&prefill.started.address, &hello, &secret(), &limits).await.unwrap();
    change(&mut welcome);
    let leaving = Arc::new(Leaving { welcome, session, met: AtomicU32::new(0) });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let sessions = WorkerService::new(leaving.clone(), Sessions::new(limits.clone()), secret());
    let services =
        Services::new(sessions, &limits).with_peer(PeerService::new(leaving.clone(), Listeners::default(), secret()));
    tokio::spawn(services.serve(listener, std::future::pending(), Duration::ZERO));
    (leaving, address)
}

/// Control of one process with the bytes of another: leases of the first would be read from the second.
#[tokio::test]
async fn the_endpoint_of_another_process_is_refused_when_it_is_met() {
    let prefill = giver().await;
    let (_stand_in, address) = stand_in(&prefill, |welcome| welcome.instance = InstanceId(99)).await;
    let decode = Process::decode(decode(engine("llama", Tcp, STEP_US), &[&address])).await;
    let problem = decode.started.pairs[0].problem.clone().unwrap();
    assert_eq!(problem, format!("the giver at {address} gives the tcp endpoint of another process"));
}

/// A giver whose KV can never be pulled is refused when it is met, not at each request.
#[tokio::test]
async fn a_giver_whose_tiles_are_others_is_refused_by_name_when_it_is_met() {
    let prefill = giver().await;
    let (_stand_in, address) = stand_in(&prefill, |welcome| {
        let shape = Shape { tile_order: TileOrder("another".into()), ..welcome.layout.shape().clone() };
        welcome.layout = KvLayout::whole(shape).unwrap();
    })
    .await;
    let decode = Process::decode(decode(engine("llama", Tcp, STEP_US), &[&address])).await;
    let problem = decode.started.pairs[0].problem.clone().unwrap();
    let why =
        format!("the giver at {address} cannot be read from: kv layouts differ in tile order: another at the giver");
    assert!(problem.starts_with(&why), "{problem}");
    let mut router = Router::between(&prefill, &decode).await;
    let status = router.decode.status(|status| !status.problems.is_empty()).await;
    assert!(status.pairs.is_empty(), "no request is routed over a pair that is not there: {status:?}");
    assert_eq!(status.problems[0].failure, Failure::new(FailureKind::Incompatible, problem.clone()));
    let asked = request(1, 100, 10);
    router.prefill.send(ToWorker::Submit(asked.clone(), Work::Give));
    let mut offer = router.offer(&asked).await;
    offer.giver_address = address.as_str().into();
    router.decode.send(ToWorker::Offer(offer));
    let failure = router.decode.failed(asked.leg).await;
    assert_eq!((failure.kind, failure.detail), (FailureKind::Incompatible, problem));
    router.decode.settled().await;
}

/// Found by reading: such a giver was greeted and watched in a loop without a pause.
#[tokio::test]
async fn a_giver_that_ends_each_watch_is_met_with_growing_pauses() {
    let prefill = giver().await;
    let (leaving, address) = stand_in(&prefill, |_| {}).await;
    let _decode = Process::decode(decode(engine("llama", Tcp, STEP_US), &[&address])).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let met = leaving.met.load(Ordering::Relaxed);
    assert!((1..=8).contains(&met), "met {met} times in 1.5 s; pauses of 50, 100, 200, 400, 800 ms allow 6");
}
