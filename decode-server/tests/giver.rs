//! A prefill worker, and a reader played by the test: leases, heartbeats, repeated releases, aborts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod support;

use engine::TransportChoice::Tcp;
use proto::peer::PeerHello;
use proto::peer::client::{Peer, Watch, connect};
use proto::session::SessionLimits;
use sched::message::{FromWorker, ReleaseAnswer, ToGiver, ToReader, ToWorker, Work};
use sched::{InstanceId, LeaseId, Leg, Span};
use support::{Line, PATIENCE, Process, engine, prefill, request, secret};
use tokio::time::timeout;

/// A lease that no giver draws, so a heartbeat that names it is always answered.
const NOBODYS: LeaseId = LeaseId(1);

struct Reader {
    peer: Peer,
    watch: Watch,
}

impl Reader {
    async fn new(process: &Process, line: &Line, instance: u128) -> Reader {
        let compat = line.session.welcome.compat.clone();
        let hello =
            PeerHello { compat, instance: InstanceId(instance), name: "reader".into(), lease_beat: Span::from_secs(5) };
        let met = connect(&process.started.address, &hello, &secret(), &SessionLimits::default()).await;
        let (peer, welcome) = met.unwrap();
        assert_eq!(welcome.instance, line.session.welcome.instance);
        assert_eq!(welcome.endpoints[0].transport, "tcp");
        let watch = peer.watch().await.unwrap();
        Reader { peer, watch }
    }

    async fn say(&self, word: ToGiver) {
        self.peer.say(&word, PATIENCE).await.unwrap();
    }

    async fn hear(&mut self) -> ToReader {
        timeout(PATIENCE, self.watch.next()).await.unwrap().unwrap()
    }

    /// Renews leases and returns those that are gone.
    async fn renew(&mut self, leases: &[LeaseId]) -> Vec<LeaseId> {
        self.say(ToGiver::Renew([leases, &[NOBODYS]].concat())).await;
        match self.hear().await {
            ToReader::Gone(mut gone) => {
                assert_eq!(gone.pop(), Some(NOBODYS));
                gone
            }
            other => panic!("{other:?}"),
        }
    }

    async fn release(&mut self, lease: LeaseId) -> ReleaseAnswer {
        self.say(ToGiver::Release(lease)).await;
        match self.hear().await {
            ToReader::Released { lease: of, answer } if of == lease => answer,
            other => panic!("{other:?}"),
        }
    }
}

async fn giver() -> (Process, Line, Reader) {
    let process = Process::prefill(prefill(engine("llama", Tcp, 1_000.0))).await;
    let line = Line::to(&process.started.address).await;
    let reader = Reader::new(&process, &line, 5).await;
    (process, line, reader)
}

async fn complete(line: &mut Line, id: u64) -> (Leg, LeaseId) {
    let request = request(id, 100, 10);
    line.send(ToWorker::Submit(request.clone(), Work::Give));
    let (lease, blocks) = line.offered(request.leg).await;
    assert_eq!(blocks.len(), 7, "100 tokens in blocks of 16");
    line.committed(request.leg).await;
    (request.leg, lease)
}

#[tokio::test]
async fn a_repeated_release_gets_the_same_answer() {
    let (_process, mut line, mut reader) = giver().await;
    let (leg, lease) = complete(&mut line, 1).await;
    assert_eq!(reader.renew(&[lease]).await, []);
    for _ in 0..3 {
        assert_eq!(reader.release(lease).await, ReleaseAnswer::Ok);
    }
    line.first(|said| matches!(said, FromWorker::HandedOver { leg: of } if *of == leg).then_some(())).await;
    assert_eq!(reader.renew(&[lease]).await, [lease], "a released lease is gone");
    assert_eq!(reader.release(NOBODYS).await, ReleaseAnswer::Expired, "nobody drew this lease");
    line.settled().await;
}

/// Found by reading: any reader that knew a lease's id could use it, and a remembered `Ok` was told to any reader.
#[tokio::test]
async fn a_lease_is_its_readers_alone() {
    let (process, mut line, mut reader) = giver().await;
    let mut thief = Reader::new(&process, &line, 6).await;
    let (leg, lease) = complete(&mut line, 1).await;
    assert_eq!(reader.renew(&[lease]).await, []);
    assert_eq!(thief.renew(&[lease]).await, [lease], "gone, as far as it is concerned");
    thief.say(ToGiver::Abort(lease)).await;
    assert_eq!(thief.release(lease).await, ReleaseAnswer::Expired);
    assert_eq!(reader.release(lease).await, ReleaseAnswer::Ok, "its reader has noticed nothing");
    line.first(|said| matches!(said, FromWorker::HandedOver { leg: of } if *of == leg).then_some(())).await;
    assert_eq!(thief.release(lease).await, ReleaseAnswer::Expired, "the answer was not meant for it");
    assert_eq!(reader.release(lease).await, ReleaseAnswer::Ok);
    line.settled().await;
}

#[tokio::test]
async fn an_aborted_or_cancelled_lease_is_gone() {
    let (_process, mut line, mut reader) = giver().await;
    let (aborted, lease) = complete(&mut line, 1).await;
    reader.say(ToGiver::Abort(lease)).await;
    line.first(|said| matches!(said, FromWorker::ReaderLost { leg } if *leg == aborted).then_some(())).await;
    assert_eq!(reader.release(lease).await, ReleaseAnswer::Expired);

    let (cancelled, lease) = complete(&mut line, 2).await;
    line.send(ToWorker::Cancel { leg: cancelled, choice: None });
    line.settled().await;
    assert_eq!(reader.renew(&[lease]).await, [lease]);
    assert_eq!(reader.release(lease).await, ReleaseAnswer::Expired);
}

#[tokio::test]
async fn a_silent_reader_loses_its_lease() {
    let mut config = prefill(engine("llama", Tcp, 1_000.0));
    (config.engine.lease_span_ms, config.engine.lease_beat_ms) = (400, 100);
    let process = Process::prefill(config).await;
    let mut line = Line::to(&process.started.address).await;
    let (leg, _) = complete(&mut line, 1).await;
    // The router keeps the request alive, but the reader does not renew its lease.
    for _ in 0..30 {
        line.send(ToWorker::Renew(vec![leg]));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    line.first(|said| matches!(said, FromWorker::ReaderLost { leg: of } if *of == leg).then_some(())).await;
    line.settled().await;
}

#[tokio::test]
async fn a_prefill_worker_answers_one_token_requests_alone() {
    let (_process, mut line, _reader) = giver().await;
    let request = request(1, 20, 1);
    line.send(ToWorker::Submit(request.clone(), Work::Whole));
    let mut texts = support::Texts::new();
    support::collect(&mut line, &request, &mut texts).await;
    assert_eq!(texts[&0].len(), 1);
    line.settled().await;
}
