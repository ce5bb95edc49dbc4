//! Workers with both sides, and with none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod support;

use decode_server::DecodeRole;
use engine::TransportChoice::Tcp;
use sched::FailureKind;
use sched::message::{ToWorker, Work};
use support::{Process, Router, decode, engine, leg, prefill, request};

const STEP_US: f64 = 1_000.0;

/// The text is the same whichever of the two prefills, also when both do at a time.
#[tokio::test]
async fn two_workers_that_give_and_take_hand_over_in_both_directions() {
    let both = || Process::both(decode(engine("llama", Tcp, STEP_US), &[]));
    let (one, other) = (both().await, both().await);
    let mut there = Router::between(&one, &other).await;
    let mut back = Router::between(&other, &one).await;
    for id in (1..20).step_by(2) {
        let (first, second) = (request(id, 100, 10), request(id + 1, 100, 10));
        let (first, second) = tokio::join!(there.serve(&first), back.serve(&second));
        assert_eq!((first[&0].len(), second[&0].len()), (10, 10));
    }
    for line in [&mut there.prefill, &mut there.decode] {
        line.settled().await;
    }
}

#[tokio::test]
async fn an_offer_to_a_worker_that_takes_none_fails_and_leaves_the_giver_alone() {
    let giver = Process::prefill(prefill(engine("llama", Tcp, STEP_US))).await;
    let aggregated =
        decode_server::Config { role: DecodeRole::Aggregated, ..decode(engine("llama", Tcp, STEP_US), &[]) };
    let aggregated = Process::decode(aggregated).await;
    let mut router = Router::between(&giver, &aggregated).await;
    let asked = request(1, 100, 10);
    router.prefill.send(ToWorker::Submit(asked.clone(), Work::Give));
    let offer = router.offer(&asked).await;
    router.decode.send(ToWorker::Offer(offer));
    let failure = router.decode.failed(leg(1)).await;
    assert_eq!(failure.kind, FailureKind::Internal);
    assert!(failure.detail.contains("takes no offers"), "{failure}");
    router.prefill.committed(leg(1)).await;
    router.prefill.send(ToWorker::Cancel { leg: leg(1), choice: None });
    router.prefill.settled().await;
}
