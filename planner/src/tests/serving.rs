//! The serving state machines, driven by the simulator: same inputs, same log; every request ends; nothing leaks.

use super::deployments::{deployment, workload};
use crate::{Arrival, Fault, PlannerError, Policy, Report, SimConfig, simulate};
use sched::journey::Ending;
use sched::replica::Reading;
use sched::{FailureKind, Span, Time};

fn outputs(report: &Report) -> Vec<u64> {
    report.requests.iter().map(|request| request.output_hash).collect()
}

fn all_done(config: &SimConfig, arrivals: &[Arrival]) -> Report {
    let report = simulate(config, arrivals).unwrap();
    for (index, request) in report.requests.iter().enumerate() {
        assert_eq!(request.ending, Ending::Done, "request {index}");
        let wanted = u64::from(arrivals[index].choices * arrivals[index].params.max_tokens);
        assert_eq!(request.summary.tokens, wanted, "request {index}");
    }
    assert_eq!(report.requests.len(), arrivals.len());
    report
}

#[test]
fn the_same_inputs_give_the_same_log() {
    let arrivals = workload(1, 20.0, 200).arrivals();
    let config = SimConfig { faults: vec![Fault { at: Time(3_000_000), worker: 1 }], ..deployment("ppdd", 400) };
    let report = simulate(&config, &arrivals).unwrap();
    assert_eq!(simulate(&config, &arrivals).unwrap(), report);
    let others = workload(2, 20.0, 200).arrivals();
    assert_ne!(simulate(&config, &others).unwrap().log_hash, report.log_hash);
}

#[test]
fn every_mode_gives_the_same_tokens() {
    let arrivals = workload(3, 20.0, 200).arrivals();
    let disaggregated = all_done(&deployment("ppdd", 400), &arrivals);
    let aggregated = all_done(&deployment("aa", 400), &arrivals);
    assert_eq!(outputs(&disaggregated), outputs(&aggregated));
    assert_eq!(aggregated.moved_bytes, 0);
    assert!(disaggregated.moved_bytes > 0);
}

#[test]
fn steps_in_flight_change_no_token() {
    let arrivals = workload(8, 40.0, 200).arrivals();
    for roles in ["pd", "a"] {
        let ahead = all_done(&deployment(roles, 120), &arrivals);
        let mut config = deployment(roles, 120);
        config.workers.iter_mut().for_each(|worker| worker.replica.lanes[0].steps_in_flight = 1);
        assert_eq!(outputs(&ahead), outputs(&all_done(&config, &arrivals)), "{roles}");
    }
}

/// KV that is read while the prompt is computed costs no wait afterwards.
#[test]
fn reading_while_a_prompt_is_computed_changes_no_token_and_hides_its_transfer() {
    let mut workload = workload(9, 2.0, 100);
    (workload.prompt_tokens, workload.choices, workload.output_tokens) = (600..=1_200, 1..=1, 2..=20);
    let arrivals = workload.arrivals();
    let run = |reading| {
        let mut config = deployment("pd", 400);
        config.link.bytes_per_second = 200_000_000;
        config.workers.iter_mut().for_each(|worker| worker.replica.reading = reading);
        all_done(&config, &arrivals)
    };
    let (after, during) = (run(Reading::WhenComplete), run(Reading::WhileFilling));
    assert_eq!(outputs(&after), outputs(&during));
    assert_eq!(after.moved_bytes, during.moved_bytes);
    let (after, during) = (after.tpot_mean().unwrap(), during.tpot_mean().unwrap());
    assert!(during.us() * 20 < after.us() * 19, "{during} instead of {after}");
}

#[test]
fn small_pools_and_full_load_only_delay() {
    // 60 blocks hold 960 tokens: at most a few sequences at a time, so preemption and full queues are the rule.
    let arrivals = workload(4, 60.0, 200).arrivals();
    let roomy = all_done(&deployment("aa", 2_000), &arrivals);
    for roles in ["pd", "pdd", "a"] {
        let report = all_done(&deployment(roles, 60), &arrivals);
        assert_eq!(outputs(&report), outputs(&roomy), "{roles}");
        assert!(report.ended_at > roomy.ended_at, "{roles}");
    }
}

#[test]
fn losing_workers_costs_time_but_no_token() {
    let arrivals = workload(5, 20.0, 150).arrivals();
    let calm = all_done(&deployment("aa", 2_000), &arrivals);
    for lost in 0..4 {
        let faults = vec![Fault { at: Time(4_000_000), worker: lost }];
        let mut config = SimConfig { faults, policy: Policy::RoundRobin, ..deployment("ppdd", 400) };
        // Prefill so slow that prompts queue, so every worker is busy when it dies.
        config.workers.iter_mut().for_each(|worker| worker.cost.prefill.token_us = 500.0);
        let report = all_done(&config, &arrivals);
        assert_eq!(outputs(&report), outputs(&calm), "worker {lost} was lost");
        assert!(report.requests.iter().any(|request| request.retries > 0), "worker {lost} was lost");
    }
}

#[test]
fn without_any_worker_left_requests_fail_at_their_deadline() {
    let arrivals = workload(6, 20.0, 100).arrivals();
    let mut config = deployment("pd", 400);
    config.journey.deadline = Span::from_secs(20);
    config.faults = vec![Fault { at: Time(2_000_000), worker: 1 }];
    let report = simulate(&config, &arrivals).unwrap();
    let (done, failed): (Vec<_>, Vec<_>) = report.requests.iter().partition(|r| r.ending == Ending::Done);
    assert!(!done.is_empty() && !failed.is_empty());
    for request in failed {
        let Ending::Failed(failure) = &request.ending else { unreachable!() };
        assert!(matches!(failure.kind, FailureKind::DeadlineExceeded | FailureKind::Unavailable), "{failure:?}");
    }
    assert_eq!(report.classes[&0].arrivals, 100);
    assert!(report.classes[&0].ratio() < 1.0);
}

#[test]
fn parts_of_latencies_sum_to_the_whole() {
    let arrivals = workload(7, 10.0, 100).arrivals();
    let report = all_done(&deployment("pd", 400), &arrivals);
    for request in &report.requests {
        let parts = request.summary.ttft.unwrap();
        let sum: u64 = parts.named().iter().map(|(_, span)| span.us()).sum();
        assert_eq!(sum, parts.total().us());
        assert!(parts.prefill > Span::ZERO && parts.relay >= Span(400), "two hops: {parts:?}");
        assert!(parts.total() <= request.summary.total);
    }
}

#[test]
fn impossible_settings_are_named() {
    let mut config = deployment("p", 10);
    config.workers[0].replica.block_tokens = 32;
    let error = simulate(&config, &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "simulation setting block_tokens is 16 in the cache of worker0, but it must be its scheduler's"
    );
    let mut config = deployment("p", 10);
    config.workers[0].cost.prefill.step_us = 0.0;
    assert!(matches!(simulate(&config, &[]), Err(PlannerError::Cost { .. })));
    let config = SimConfig { events_max: 10, ..deployment("a", 400) };
    let endless = simulate(&config, &workload(1, 10.0, 10).arrivals());
    assert!(matches!(endless, Err(PlannerError::Endless { events: 10, .. })), "{endless:?}");
}
