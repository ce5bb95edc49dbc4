//! Both servers end to end over loopback, with the test as router: hand-offs, cancels, losses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod support;

use engine::TransportChoice::Tcp;
use sched::message::{FromWorker, ToWorker, Work};
use sched::{Choice, ChoiceState, Failure, FailureKind, Request};
use support::{Line, Process, Router, Texts, aggregated, collect, decode, engine, leg, prefill, request};

/// Steps of one millisecond: fast, and slow enough to catch every state.
const STEP_US: f64 = 1_000.0;

async fn pair() -> (Process, Process, Router) {
    let prefill = Process::prefill(prefill(engine("llama", Tcp, STEP_US))).await;
    let decode = Process::decode(decode(engine("llama", Tcp, STEP_US), &[&prefill.started.address])).await;
    let mut router = Router::between(&prefill, &decode).await;
    router.decode.pairs(1).await;
    (prefill, decode, router)
}

async fn expected(requests: &[Request]) -> Vec<Texts> {
    let worker = Process::decode(aggregated(engine("llama", Tcp, STEP_US))).await;
    let mut line = Line::to(&worker.started.address).await;
    let mut all = Vec::new();
    for request in requests {
        line.send(ToWorker::Submit(request.clone(), Work::Whole));
        let mut texts = Texts::new();
        collect(&mut line, request, &mut texts).await;
        all.push(texts);
    }
    line.settled().await;
    all
}

#[tokio::test]
async fn a_handed_over_request_says_what_an_aggregated_worker_says() {
    let mut many = request(3, 37, 9);
    many.choices = (0..3).map(|choice| ChoiceState { choice: Choice(choice), generated: vec![] }).collect();
    let requests = [request(1, 1, 12), request(2, 100, 20), many];
    let (_prefill, decode, mut router) = pair().await;
    assert_eq!(decode.started.pairs.len(), 1);
    assert!(decode.started.pairs[0].bytes_per_second.is_some(), "{:?}", decode.started.pairs);
    let mut said = Vec::new();
    for request in &requests {
        said.push(router.serve(request).await);
    }
    assert_eq!(said, expected(&requests).await);
    router.prefill.settled().await;
    router.decode.settled().await;
}

/// State at which a request is cancelled.
#[derive(Debug, Clone, Copy)]
enum Reached {
    Submitted,
    Offered,
    Committed,
    OfferSent,
    CommitSent,
    Streaming,
}

async fn advance(router: &mut Router, request: &Request, to: Reached) {
    router.prefill.send(ToWorker::Submit(request.clone(), Work::Give));
    match to {
        Reached::Submitted => {}
        Reached::Offered => drop(router.prefill.offered(request.leg).await),
        Reached::Committed => drop(router.prefill.committed(request.leg).await),
        Reached::OfferSent | Reached::CommitSent | Reached::Streaming => {
            let offer = router.offer(request).await;
            router.decode.send(ToWorker::Offer(offer));
            if !matches!(to, Reached::OfferSent) {
                let commit = router.prefill.committed(request.leg).await;
                router.decode.send(ToWorker::Commit(commit));
            }
            if matches!(to, Reached::Streaming) {
                router.decode.token(request.leg, 3).await;
            }
        }
    }
}

const STATES: [Reached; 6] = [
    Reached::Submitted,
    Reached::Offered,
    Reached::Committed,
    Reached::OfferSent,
    Reached::CommitSent,
    Reached::Streaming,
];

#[tokio::test]
async fn a_cancel_frees_everything_in_every_state() {
    let (_prefill, _decode, mut router) = pair().await;
    for (id, state) in (1..).zip(STATES) {
        let request = request(id, 200, 1_000);
        advance(&mut router, &request, state).await;
        for line in [&router.prefill, &router.decode] {
            line.send(ToWorker::Cancel { leg: request.leg, choice: None });
        }
    }
    router.prefill.settled().await;
    router.decode.settled().await;
    router.serve(&request(99, 50, 5)).await;
}

#[tokio::test]
async fn a_lost_router_frees_everything_in_every_state() {
    let (prefill, decode, mut router) = pair().await;
    for (id, state) in (1..).zip(STATES) {
        advance(&mut router, &request(id, 200, 1_000), state).await;
    }
    drop(router);
    let mut next = Router::between(&prefill, &decode).await;
    next.prefill.settled().await;
    next.decode.settled().await;
    next.serve(&request(99, 50, 5)).await;
}

#[tokio::test]
async fn an_unknown_giver_is_met_when_it_offers() {
    let prefill = Process::prefill(prefill(engine("llama", Tcp, STEP_US))).await;
    let decode = Process::decode(decode(engine("llama", Tcp, STEP_US), &[])).await;
    assert!(decode.started.pairs.is_empty());
    let mut router = Router::between(&prefill, &decode).await;
    router.serve(&request(1, 100, 10)).await;
    router.decode.pairs(1).await;
}

#[tokio::test]
async fn an_incompatible_giver_is_refused_with_the_part_that_differs() {
    let prefill = Process::prefill(prefill(engine("llama", Tcp, STEP_US))).await;
    let decode = Process::decode(decode(engine("qwen3", Tcp, STEP_US), &[&prefill.started.address])).await;
    let problem = decode.started.pairs[0].problem.clone().unwrap();
    let expected = "the reader cannot use the giver's KV cache: weights digest differs: ";
    assert!(problem.starts_with(expected), "{problem}");
    let mut router = Router::between(&prefill, &decode).await;
    let request = request(1, 40, 10);
    router.prefill.send(ToWorker::Submit(request.clone(), Work::Give));
    let offer = router.offer(&request).await;
    router.decode.send(ToWorker::Offer(offer));
    let failure = router.decode.failed(request.leg).await;
    assert_eq!((failure.kind, failure.detail), (FailureKind::Incompatible, problem));
    router.decode.settled().await;
}

/// Tiles of 16 tokens move, whatever the sizes of the blocks.
#[tokio::test]
async fn workers_with_blocks_of_other_sizes_hand_over() {
    let requests = [request(1, 100, 20), request(2, 16, 5), request(3, 129, 9)];
    let expected = expected(&requests).await;
    for (given, taken) in [(32, 16), (16, 64), (48, 32)] {
        let engine = |block_tokens| engine::Config { block_tokens, ..engine("llama", Tcp, STEP_US) };
        let prefill = Process::prefill(prefill(engine(given))).await;
        let decode = Process::decode(decode(engine(taken), &[&prefill.started.address])).await;
        let mut router = Router::between(&prefill, &decode).await;
        router.decode.pairs(1).await;
        for (request, expected) in requests.iter().zip(&expected) {
            assert_eq!(router.serve(request).await, *expected, "blocks of {given} read into blocks of {taken}");
        }
        router.prefill.settled().await;
        router.decode.settled().await;
    }
}

#[tokio::test]
async fn another_transport_is_never_used_silently() {
    let prefill = Process::prefill(prefill(engine("llama", Tcp, STEP_US))).await;
    let shm = engine::TransportChoice::Shm;
    let decode = Process::decode(decode(engine("llama", shm, STEP_US), &[&prefill.started.address])).await;
    let address = &prefill.started.address;
    let problem = decode.started.pairs[0].problem.clone().unwrap();
    assert_eq!(problem, format!("the giver at {address} can be read over tcp, this reader uses shm"));
}

#[tokio::test]
async fn a_giver_that_is_not_there_fails_its_offers_at_once() {
    let decode = Process::decode(decode(engine("llama", Tcp, STEP_US), &[])).await;
    let prefill = Process::prefill(prefill(engine("llama", Tcp, STEP_US))).await;
    let mut router = Router::between(&prefill, &decode).await;
    let request = request(1, 40, 10);
    router.prefill.send(ToWorker::Submit(request.clone(), Work::Give));
    let offer = router.offer(&request).await;
    drop(prefill);
    router.decode.send(ToWorker::Offer(offer));
    let failure = router.decode.failed(request.leg).await;
    assert!(failure.may_lead_elsewhere(), "{failure:?}");
    router.decode.settled().await;
}

trait Elsewhere {
    fn may_lead_elsewhere(&self) -> bool;
}

impl Elsewhere for Failure {
    fn may_lead_elsewhere(&self) -> bool {
        matches!(self.kind, FailureKind::WorkerLost | FailureKind::KvLost)
    }
}

#[tokio::test]
async fn a_killed_giver_costs_its_hand_offs_and_nothing_else() {
    let (prefill, decode, mut router) = pair().await;
    let (joined, waiting) = (request(1, 100, 2_000), request(2, 100, 10));
    advance(&mut router, &joined, Reached::Streaming).await;
    advance(&mut router, &waiting, Reached::OfferSent).await;
    let address = prefill.started.address.clone();
    drop(prefill);
    let failure = router.decode.failed(waiting.leg).await;
    // The reader may hear of the loss before it hears of the offer.
    assert!(failure.may_lead_elsewhere(), "{failure:?}");
    router.decode.pairs(0).await;
    router.decode.token(joined.leg, 50).await;
    assert!(
        !router.decode.heard.iter().any(|said| matches!(said, FromWorker::Failed { leg, .. } if *leg == joined.leg))
    );
    router.decode.send(ToWorker::Cancel { leg: joined.leg, choice: None });
    router.decode.settled().await;

    // Another process behind the same address is another giver.
    let config = worker::Config { listen: address, ..support::prefill(engine("llama", Tcp, STEP_US)) };
    let reborn = Process::prefill_again(config).await;
    let mut router = Router::between(&reborn, &decode).await;
    router.decode.pairs(1).await;
    let giver = router.prefill.session.welcome.instance;
    assert_eq!(router.decode.status.as_ref().unwrap().pairs[0].giver, giver);
    router.serve(&request(3, 100, 10)).await;
}

#[tokio::test]
async fn a_worker_that_is_asked_to_end_finishes_what_it_has() {
    let (mut prefill, mut decode, mut router) = pair().await;
    let running = request(1, 50, 300);
    advance(&mut router, &running, Reached::Streaming).await;
    decode.stop();
    router.decode.status(|status| status.phase == proto::session::Phase::Draining).await;
    router.decode.send(ToWorker::Submit(request(2, 10, 5), Work::Whole));
    assert_eq!(router.decode.failed(leg(2)).await.kind, FailureKind::Unavailable);
    router.decode.token(running.leg, 299).await;
    assert_eq!(decode.ended().await, Ok(()));
    prefill.stop();
    assert_eq!(prefill.ended().await, Ok(()));
}

#[tokio::test]
async fn an_offer_to_the_wrong_role_is_refused() {
    let (_prefill, _decode, mut router) = pair().await;
    let request = request(1, 40, 10);
    router.prefill.send(ToWorker::Submit(request.clone(), Work::Give));
    let mut offer = router.offer(&request).await;
    offer.request.leg = leg(2);
    router.prefill.send(ToWorker::Offer(offer));
    assert_eq!(
        router.prefill.failed(leg(2)).await.detail,
        "a worker of role prefill takes no offers, and it was sent one"
    );
    router.prefill.send(ToWorker::Cancel { leg: leg(1), choice: None });
    router.prefill.settled().await;
}
