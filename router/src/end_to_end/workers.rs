//! Tests with workers: hand-offs, cancellations, losses, leases, and their metrics.

use std::time::Duration;

use sched::Role;
use sched::message::{ToWorker, Work};
use serde_json::json;

use super::deployment::{Deployment, Events, PATIENCE, metric, until};
use super::parrot::Parrot;
use super::{FAST, chunks, finishes, texts};
use crate::Workers;

const SLOW: Duration = Duration::from_millis(20);

fn cancels(parrot: &Parrot) -> usize {
    parrot.told().iter().filter(|message| matches!(message, ToWorker::Cancel { .. })).count()
}

#[tokio::test]
async fn a_prompt_is_handed_over_and_the_client_sees_one_stream() {
    let (deployment, prefill, decode) = Deployment::disaggregated(FAST).await;
    let body = json!({"prompt": "abc", "max_tokens": 8, "add_special_tokens": false, "stream": true, "n": 2});
    let events = chunks(&Events::open(&deployment, "/v1/completions", &body).await.all().await);
    for index in 0..2 {
        assert_eq!(texts(&events, index), "abcabcab");
        assert_eq!(finishes(&events, index), ["length"]);
    }
    assert!(matches!(prefill.told()[0], ToWorker::Submit(_, Work::Give)));
    let told = decode.told();
    assert!(matches!((&told[0], &told[1]), (ToWorker::Offer(_), ToWorker::Commit(_))), "{told:?}");
    until("both sides are free", || prefill.legs() + decode.legs() == 0).await;
    deployment.stop().await;
}

#[tokio::test]
async fn one_token_binds_no_decode_worker() {
    let (deployment, prefill, decode) = Deployment::disaggregated(FAST).await;
    let body = json!({"prompt": "abc", "max_tokens": 1, "add_special_tokens": false, "n": 3});
    let answer = deployment.post("/v1/completions", &body).await.json();
    assert_eq!(answer["usage"]["completion_tokens"], 3);
    assert!(matches!(prefill.told()[0], ToWorker::Submit(_, Work::Whole)));
    assert!(decode.told().iter().all(|message| matches!(message, ToWorker::Renew(_))));
    deployment.stop().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_frees_both_sides() {
    let (deployment, prefill, decode) = Deployment::disaggregated(SLOW).await;
    let body = json!({"prompt": "abc", "max_tokens": 200, "add_special_tokens": false, "stream": true});
    let mut events = Events::open(&deployment, "/v1/completions", &body).await;
    for _ in 0..3 {
        events.next().await.unwrap();
    }
    drop(events);
    until("both sides are free", || prefill.legs() + decode.legs() == 0).await;
    assert!(cancels(&decode) > 0);
    deployment.stop().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_before_the_first_byte_frees_the_worker() {
    let (deployment, parrot) = Deployment::aggregated(Duration::from_millis(500), |_| {}).await;
    let body = json!({"prompt": "abc", "max_tokens": 200});
    let waiting = tokio::time::timeout(Duration::from_millis(200), deployment.post("/v1/completions", &body)).await;
    assert!(waiting.is_err(), "the first token takes longer");
    until("the worker was told", || cancels(&parrot) > 0).await;
    deployment.stop().await;
}

#[tokio::test]
async fn a_lost_worker_is_a_pause_and_no_token_is_lost_or_repeated() {
    let (first, second) =
        (Parrot::start(Role::Aggregated, 1, SLOW).await, Parrot::start(Role::Aggregated, 2, FAST).await);
    let workers = Workers { prefill: vec![], decode: vec![first.address.clone(), second.address.clone()] };
    let deployment = Deployment::start(workers, |_| {}).await;
    let body = json!({"prompt": "abcdefg", "max_tokens": 40, "add_special_tokens": false, "stream": true});
    let mut events = Events::open(&deployment, "/v1/completions", &body).await;
    let mut payloads = Vec::new();
    for _ in 0..3 {
        payloads.push(events.next().await.unwrap());
    }
    let (mut busy, idle) = if first.legs() > 0 { (first, second) } else { (second, first) };
    busy.crash().await;
    payloads.extend(events.all().await);
    let events = chunks(&payloads);
    assert_eq!(texts(&events, 0), "abcdefg".repeat(6)[..40]);
    assert_eq!(finishes(&events, 0), ["length"]);
    until("the other has ended", || idle.legs() == 0).await;
    deployment.stop().await;
}

#[tokio::test]
async fn without_workers_requests_fail_cleanly_and_the_router_recovers() {
    let (deployment, mut parrot) = Deployment::aggregated(FAST, |config| config.request.worker_wait_ms = 100).await;
    let body = json!({"prompt": "abc", "max_tokens": 2});
    parrot.crash().await;
    let mut status = deployment.get("/ready").await.status;
    for _ in 0..1_000 {
        if status == 503 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        status = deployment.get("/ready").await.status;
    }
    let ready = deployment.get("/ready").await;
    assert_eq!(ready.json()["error"]["message"], "the router waits for a worker");
    let failed = deployment.post("/v1/completions", &body).await;
    assert_eq!((failed.status, failed.json()["error"]["code"].as_str()), (503, Some("unavailable")));
    assert!(!failed.header("retry-after").is_empty());

    let _again = Parrot::start_at(&parrot.address, Role::Aggregated, 3, FAST).await;
    let mut served = deployment.post("/v1/completions", &body).await;
    for _ in 0..100 {
        if served.status == 200 {
            break;
        }
        served = deployment.post("/v1/completions", &body).await;
    }
    assert_eq!(served.status, 200, "{}", served.body);
    deployment.stop().await;
}

#[tokio::test]
async fn leases_of_running_requests_are_renewed() {
    let (deployment, parrot) = Deployment::aggregated(SLOW, |config| config.session.beat_ms = 30).await;
    let body = json!({"prompt": "abc", "max_tokens": 100, "stream": true});
    let mut events = Events::open(&deployment, "/v1/completions", &body).await;
    events.next().await.unwrap();
    until("two beats", || {
        parrot.told().iter().filter(|message| matches!(message, ToWorker::Renew(legs) if legs.len() == 1)).count() >= 2
    })
    .await;
    deployment.stop().await;
}

#[tokio::test]
async fn stopping_drains_and_then_fails_what_is_left_with_a_clean_error() {
    let (deployment, _parrot) = Deployment::aggregated(SLOW, |_| {}).await;
    let body = json!({"prompt": "abc", "max_tokens": 200, "stream": true});
    let mut events = Events::open(&deployment, "/v1/completions", &body).await;
    events.next().await.unwrap();
    let stopping = tokio::spawn(deployment.stop());
    let last = tokio::time::timeout(PATIENCE, events.all()).await.unwrap().pop().unwrap();
    assert!(last.contains(r#""message":"the router is shutting down""#), "{last}");
    stopping.await.unwrap();
}

#[tokio::test]
async fn parts_of_ttft_and_of_the_handoff_gap_sum_to_the_whole() {
    let (deployment, _prefill, _decode) = Deployment::disaggregated(FAST).await;
    let class = r#"class="batch""#;
    for _ in 0..5 {
        let body = json!({"prompt": "abc", "max_tokens": 5, "slo_class": "batch"});
        assert_eq!(deployment.post("/v1/completions", &body).await.status, 200);
    }
    // Other tests of this process record too, so the counts are lower bounds.
    assert!(metric("baton_ttft_seconds_count", &[class]) >= 5.0);
    assert!(metric("baton_goodput_requests_total", &[class]) >= 5.0);
    assert!(metric("baton_slo_attained_total", &[class, r#"target="ttft""#]) >= 5.0);
    assert!(metric("baton_requests_total", &[class, r#"outcome="ok""#]) >= 5.0);
    assert!(metric("baton_itl_seconds_count", &[class]) >= 20.0);
    assert!(metric("baton_handoff_gap_seconds_count", &[]) >= 5.0);
    let text = deployment.get("/metrics").await;
    assert!(text.header("content-type").starts_with("text/plain"));
    assert!(text.body.contains("# TYPE baton_ttft_seconds histogram"), "{}", text.body);
    for (whole, parts) in [
        ("baton_ttft_seconds_sum", "baton_ttft_part_seconds_sum"),
        ("baton_handoff_gap_seconds_sum", "baton_handoff_gap_part_seconds_sum"),
    ] {
        // Another test may record while the text is rendered; the sums agree as soon as none does.
        until(whole, || {
            let (whole, parts) = (metric(whole, &[]), metric(parts, &[]));
            whole > 0.0 && (whole - parts).abs() < 1e-9 * whole.max(1.0)
        })
        .await;
    }
    deployment.stop().await;
}

/// The worker's connections answer, but its scheduler stands still.
#[tokio::test]
async fn a_worker_that_says_nothing_gets_no_new_work_and_is_given_up() {
    const TOKENS: usize = 198;
    // The whole stream takes longer than it takes to give the worker up.
    const PACE: Duration = Duration::from_millis(50);
    let first = Parrot::start(Role::Aggregated, 1, PACE).await;
    let second = Parrot::start(Role::Aggregated, 2, PACE).await;
    let workers = Workers { prefill: vec![], decode: vec![first.address.clone(), second.address.clone()] };
    let change = |config: &mut crate::Config| {
        (config.session.alive_beat_ms, config.route.policy) = (1_000, crate::config::PolicyName::RoundRobin);
    };
    let deployment = Deployment::start(workers, change).await;
    let body = json!({"prompt": "abc", "max_tokens": TOKENS, "add_special_tokens": false, "stream": true});
    let mut events = Events::open(&deployment, "/v1/completions", &body).await;
    let head = events.next().await.unwrap();
    let (silent, other) = if first.legs() == 1 { (&first, &second) } else { (&second, &first) };
    silent.hush();
    let submitted =
        |parrot: &Parrot| parrot.told().iter().filter(|message| matches!(message, ToWorker::Submit(..))).count();
    let short = json!({"prompt": "abc", "max_tokens": 1, "add_special_tokens": false});
    let misses = |count: usize| {
        let (deployment, short) = (&deployment, &short);
        async move {
            let before = submitted(silent);
            for _ in 0..count {
                assert_eq!(deployment.post("/v1/completions", short).await.status, 200);
            }
            submitted(silent) == before
        }
    };
    assert!(!misses(2).await, "in turn, both have new work");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !misses(2).await {
        assert!(tokio::time::Instant::now() < deadline, "new work still goes there");
        tokio::time::sleep(SLOW).await;
    }
    // The worker is given up during its stream, which goes on at the other.
    let before = submitted(other);
    let mut all = vec![head];
    all.extend(events.all().await);
    assert_eq!(texts(&chunks(&all), 0), "abc".repeat(TOKENS / 3));
    assert!(submitted(other) > before);
    silent.speak();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while misses(2).await {
        assert!(tokio::time::Instant::now() < deadline, "it is heard, but gets no new work");
        tokio::time::sleep(SLOW).await;
    }
    deployment.stop().await;
}

/// Found by reading: a worker that fails at once has the shortest queue, so it got every request, and each one failed.
#[tokio::test]
async fn a_worker_that_fails_everything_costs_no_client_its_answer() {
    let (broken, sound) =
        (Parrot::start(Role::Aggregated, 1, FAST).await, Parrot::start(Role::Aggregated, 2, FAST).await);
    broken.breaks();
    let workers = Workers { prefill: vec![], decode: vec![broken.address.clone(), sound.address.clone()] };
    let deployment = Deployment::start(workers, |config| {
        config.route.policy = crate::config::PolicyName::RoundRobin;
        (config.route.pair_pause_ms, config.route.pair_pause_ms_max) = (60_000, 60_000);
    })
    .await;
    until("both are up", || {
        metric("baton_worker_up", &[&sound.address]) + metric("baton_worker_up", &[&broken.address]) > 1.5
    })
    .await;
    let body = json!({"prompt": "abc", "max_tokens": 2, "add_special_tokens": false});
    for _ in 0..12 {
        assert_eq!(deployment.post("/v1/completions", &body).await.status, 200);
    }
    let submitted = broken.told().iter().filter(|message| matches!(message, ToWorker::Submit(..))).count();
    assert_eq!(submitted, 3, "after three failures in a row it is left alone");
    assert!((metric("baton_worker_avoided_total", &[&broken.address]) - 1.0).abs() < 0.5);
    deployment.stop().await;
}
