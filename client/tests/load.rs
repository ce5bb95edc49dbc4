//! The load generator against servers of known timing and servers that misbehave: relations, no absolute speed.

#![allow(clippy::unwrap_used, reason = "a test")]

mod server;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use client::http::{Client, Deadlines};
use client::report::{Measured, Report, SloClass, SloClasses, html, summary};
use client::run::{Api, BodySettings, Endpoint, Extra, FailureKind, Limits, OptionalField, Pace, Stopper, SweepBounds};
use client::session::{Outcome, Session, SweepSettings, WarmUp};
use client::workload::{ArrivalProcess, Arrivals, LengthSource, Lengths, Synthetic, TokenRange};
use server::{Behaviour, GAP, Server, TTFT};

const TOKENS: u32 = 8;

fn endpoint(name: &str, address: &str) -> Endpoint {
    let deadlines = Deadlines { silence: Duration::from_millis(700), ..Deadlines::default() };
    let client = Client::new(address).unwrap().with_deadlines(deadlines);
    let sends = vec![OptionalField::IncludeUsage, OptionalField::IgnoreEos, OptionalField::MinTokens];
    let body = BodySettings { api: Api::Completions, model: "m".to_owned(), sends, extra: Extra::default() };
    Endpoint { name: name.to_owned(), client, body }
}

fn session(endpoints: Vec<Endpoint>, rate_per_s: f64, requests: usize) -> Session {
    let synthetic = Synthetic {
        seed: 1,
        arrivals: Arrivals { process: ArrivalProcess::Constant, rate_per_s },
        lengths: LengthSource::Independent { input: Lengths::Fixed(20), output: Lengths::Fixed(TOKENS) },
        prefix: None,
        requests,
        duration_us: None,
    };
    Session {
        endpoints,
        workload: synthetic.workload(),
        pace: Pace::Open,
        limits: Limits { in_flight_max: 1000, deadline: Duration::from_secs(20), drain: Duration::from_secs(20) },
        warm_up: WarmUp::default(),
        slos: SloClasses::new(vec![SloClass::parse("ttft_ms:10000,tpot_ms:10000").unwrap()]).unwrap(),
        slices: 3,
        sweep: None,
        token_range: TokenRange::default(),
        seed: 1,
        progress: Arc::default(),
    }
}

async fn run(session: &Session) -> Outcome {
    let (_stopper, stop) = Stopper::new();
    session.run(&stop).await.unwrap()
}

async fn against(behaviour: Behaviour, requests: usize) -> Measured {
    let server = Server::start(behaviour).await;
    let session = session(vec![endpoint("a", &server.address.to_string())], 50.0, requests);
    run(&session).await.report.targets.remove(0).measured
}

fn failures(measured: &Measured) -> Vec<(String, usize)> {
    measured.failures.iter().map(|failure| (failure.kind.label(), failure.count)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn latencies_are_those_of_the_server() {
    let server = Server::start(Behaviour::Good).await;
    let mut session = session(vec![endpoint("a", &server.address.to_string())], 40.0, 60);
    session.warm_up = WarmUp { requests: 10, us: 0 };
    let outcome = run(&session).await;
    let measured = &outcome.report.targets[0].measured;
    let requests = measured.requests;
    assert_eq!((requests.due, requests.ok, requests.failed, requests.warm_up), (50, 50, 0, 10), "{measured:?}");
    assert_eq!((measured.tokens.input, measured.tokens.output), (50 * 20, 50 * u64::from(TOKENS)));
    let latency = measured.latency;
    let (ttft, gap) = (TTFT.as_secs_f64() * 1e3, GAP.as_secs_f64() * 1e3);
    assert!(latency.ttft_ms.p50 >= ttft, "{latency:?}");
    // Sleeps never end early, but a busy machine may deliver two events at once: single gaps may be short, means not.
    assert!(latency.tpot_ms.mean >= gap * 0.9 && latency.itl_ms.mean >= gap * 0.9, "{latency:?}");
    assert!(latency.e2e_ms.p50 >= ttft + gap * f64::from(TOKENS - 1), "{latency:?}");
    assert!((latency.itl_ms.mean / latency.tpot_ms.mean - 1.0).abs() < 0.01, "equal lengths: equal means");
    assert_eq!((latency.itl_ms.count, measured.attainment), (50 * u64::from(TOKENS - 1), 1.0));
    let connections = server.connections.load(Ordering::SeqCst);
    assert!(connections < 60, "connections are used again: {connections}");
    for record in &outcome.records[0].records {
        assert!(record.sent_us >= record.planned_us, "no request is early: {record:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_generator_does_not_wait_for_slow_answers() {
    // Answers take 80 ms and more, requests come every 5 ms.
    let server = Server::start(Behaviour::Good).await;
    let session = session(vec![endpoint("a", &server.address.to_string())], 200.0, 100);
    let outcome = run(&session).await;
    let sent: Vec<u64> = outcome.records[0].records.iter().map(|record| record.sent_us).collect();
    // One after the other they would take more than 8 s.
    assert!(sent[99] < 4_000_000, "the last request does not wait for the others: {}", sent[99]);
    assert_eq!(outcome.report.targets[0].measured.requests.ok, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_counts_are_said() {
    let measured = against(Behaviour::WithoutUsage, 10).await;
    assert_eq!((measured.tokens.without_usage, measured.tokens.output), (10, 10 * u64::from(TOKENS)));
    let measured = against(Behaviour::TwoPerEvent, 10).await;
    assert_eq!((measured.tokens.packed_events, measured.tokens.output), (10, 10 * u64::from(TOKENS)));
    assert!(measured.latency.tpot_ms.mean < measured.latency.e2e_ms.mean);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_without_text_arrive_with_the_end_of_their_answer() {
    let measured = against(Behaviour::WithoutText, 5).await;
    assert_eq!((measured.requests.ok, measured.tokens.output), (5, 5 * u64::from(TOKENS)));
    assert!(measured.latency.ttft_ms.p50 >= TTFT.as_secs_f64() * 1e3, "{:?}", measured.latency);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_counted_by_kind() {
    for (behaviour, kind, example) in [
        (Behaviour::Fails, "status_500", "/v1/completions: 500: out of order"),
        (Behaviour::RefusesIgnoreEos, "status_400", "/v1/completions: 400: ignore_eos is not known"),
        (Behaviour::FallsSilent, "stalled", "/v1/completions: nothing arrived for 700ms"),
        (Behaviour::SendsError, "error_event", "the stream ended with an error: the worker was lost"),
        (Behaviour::SaysNothing, "no_tokens", "the stream ended without a token"),
        (Behaviour::HangsUp, "broken", ""),
    ] {
        let measured = against(behaviour, 5).await;
        assert_eq!(failures(&measured), [(kind.to_owned(), 5)], "{behaviour:?}");
        assert!(measured.failures[0].example.starts_with(example), "{}", measured.failures[0].example);
        assert_eq!((measured.requests.ok, measured.attainment), (0, 0.0));
    }
    let down = session(vec![endpoint("a", "127.0.0.1:9")], 50.0, 5);
    let report = run(&down).await.report;
    assert_eq!(failures(&report.targets[0].measured), [("refused".to_owned(), 5)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_field_is_named() {
    let server = Server::start(Behaviour::RefusesIgnoreEos).await;
    let mut session = session(vec![endpoint("a", &server.address.to_string())], 50.0, 3);
    let refused = run(&session).await.report.warnings;
    assert_eq!(refused, ["a: the server seems to refuse ignore_eos: leave it out with --without ignore-eos"]);
    session.endpoints[0].body.sends = vec![OptionalField::IncludeUsage];
    assert_eq!(run(&session).await.report.targets[0].measured.requests.ok, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_without_end_do_not_keep_the_run() {
    let server = Server::start(Behaviour::Endless).await;
    let mut session = session(vec![endpoint("a", &server.address.to_string())], 50.0, 5);
    session.limits.drain = Duration::from_millis(300);
    let begun = Instant::now();
    assert_eq!(failures(&run(&session).await.report.targets[0].measured), [("cut".to_owned(), 5)]);
    session.limits = Limits { deadline: Duration::from_millis(200), drain: Duration::from_secs(20), ..session.limits };
    assert_eq!(failures(&run(&session).await.report.targets[0].measured), [("deadline".to_owned(), 5)]);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_bound_are_counted_as_not_sent() {
    let server = Server::start(Behaviour::Good).await;
    let mut session = session(vec![endpoint("a", &server.address.to_string())], 1000.0, 30);
    session.limits.in_flight_max = 4;
    let measured = run(&session).await.report.targets.remove(0).measured;
    let not_sent = measured.requests.due - measured.requests.sent;
    assert!(not_sent >= 10 && measured.requests.sent >= 4, "{measured:?}");
    assert_eq!(failures(&measured), [("not_sent".to_owned(), not_sent)]);
    assert_eq!(server.requests.load(Ordering::SeqCst), measured.requests.sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_loop_keeps_its_number_in_flight() {
    let server = Server::start(Behaviour::Good).await;
    let mut session = session(vec![endpoint("a", &server.address.to_string())], 1000.0, 12);
    session.pace = Pace::Closed { concurrency: NonZeroUsize::new(3).unwrap(), duration: None };
    let outcome = run(&session).await;
    let records = &outcome.records[0].records;
    assert_eq!(outcome.report.targets[0].measured.requests.ok, 12);
    for moment in records.iter().map(|record| record.sent_us) {
        let runs = |r: &&client::run::Record| r.sent_us <= moment && moment < r.sent_us + u64::from(r.end_us);
        assert!(records.iter().filter(runs).count() <= 3);
    }
    assert!(server.connections.load(Ordering::SeqCst) <= 4, "{:?}", server.connections);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_by_the_user_reports_what_was_done() {
    let server = Server::start(Behaviour::Good).await;
    let session = session(vec![endpoint("a", &server.address.to_string())], 20.0, 1000);
    let (stopper, stop) = Stopper::new();
    let ends = async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        stopper.stop();
        std::future::pending::<()>().await;
    };
    let outcome = tokio::select! { outcome = session.run(&stop) => outcome.unwrap(), () = ends => unreachable!() };
    let measured = &outcome.report.targets[0].measured;
    assert!(outcome.report.interrupted && measured.requests.ok >= 1 && measured.requests.due < 100, "{measured:?}");
    assert_eq!((measured.requests.failed, measured.attainment), (0, 1.0), "what was broken off is no failure");
    assert!(measured.failures.iter().all(|failure| failure.kind == FailureKind::Interrupted));
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_take_turns_with_the_same_rows() {
    let (first, second) = (Server::start(Behaviour::Good).await, Server::start(Behaviour::TwoPerEvent).await);
    let endpoints = vec![endpoint("a", &first.address.to_string()), endpoint("b", &second.address.to_string())];
    let outcome = run(&session(endpoints, 50.0, 30)).await;
    let Report { targets, ratios, .. } = &outcome.report;
    assert!(targets.iter().all(|target| target.measured.requests.ok == 30));
    let lengths =
        |place: usize| outcome.records[place].records.iter().map(|r| (r.row, r.input_tokens)).collect::<Vec<_>>();
    assert_eq!(lengths(0), lengths(1));
    let tpot = ratios.iter().find(|ratio| ratio.number == "tpot_ms.p50").unwrap().ratio.unwrap();
    assert!(tpot < 0.9, "two tokens per event take half the time: {tpot}");
    let text = summary(&outcome.report);
    assert!(text.contains("side by side") && text.contains("ratio"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_reports_every_point() {
    let server = Server::start(Behaviour::Good).await;
    let mut session = session(vec![endpoint("a", &server.address.to_string())], 50.0, 100);
    let bounds = SweepBounds { rate_min: 20.0, rate_max: 60.0, points_max: 5 };
    session.sweep = Some(SweepSettings { bounds, duration_us: 400_000 });
    let outcome = run(&session).await;
    let sweep = outcome.report.sweep.as_ref().unwrap();
    let rates: Vec<f64> = sweep.points.iter().map(|point| point.rate_per_s).collect();
    assert_eq!(rates, [20.0, 40.0, 60.0]);
    assert_eq!(sweep.best[1].rate_per_s, Some(60.0));
    assert_eq!(outcome.records.len(), 3);
    assert!(summary(&outcome.report).contains("highest rate with 99 % attainment: 60.00 requests/s (no rate missed)"));
    let records: Vec<_> = outcome.records.iter().map(|recorded| recorded.records.as_slice()).collect();
    assert!(html(&outcome.report, &records).len() < 1 << 20);
}
