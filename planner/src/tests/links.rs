//! Links that carry no KV although both ends are up: they must not hit every request, nor cost without bound.

use super::deployments::{deployment, workload};
use crate::{Arrival, BrokenLink, Policy, Report, SimConfig, simulate};
use sched::journey::{Ending, LostHandoffs};
use sched::{FailureKind, Time};

fn broken(giver: usize, reader: usize) -> BrokenLink {
    BrokenLink { giver, reader, from: Time(0), until: None }
}

/// About 40 seconds in which an idle deployment of 4 x 4 takes one request after another.
fn calm_arrivals() -> Vec<Arrival> {
    let mut workload = workload(11, 6.0, 240);
    (workload.choices, workload.output_tokens) = (1..=1, 3..=20);
    workload.arrivals()
}

fn retries(report: &Report) -> u32 {
    report.requests.iter().map(|request| request.retries).sum()
}

fn all_done_as_if_nothing_were_broken(config: &SimConfig, arrivals: &[Arrival]) -> Report {
    let sound = simulate(&deployment("aa", 2_000), arrivals).unwrap();
    let report = simulate(config, arrivals).unwrap();
    for (index, (request, sound)) in report.requests.iter().zip(&sound.requests).enumerate() {
        assert_eq!(request.ending, Ending::Done, "request {index}");
        assert_eq!(request.output_hash, sound.output_hash, "request {index}");
    }
    report
}

/// Equal loads choose the first pair again and again, and that pair is the broken one.
#[test]
fn one_broken_link_hits_a_request_per_pause_and_not_every_request() {
    let arrivals = calm_arrivals();
    for policy in [Policy::LeastLoaded, Policy::RoundRobin] {
        let config = SimConfig { broken_links: vec![broken(0, 4)], policy, ..deployment("ppppdddd", 400) };
        let report = all_done_as_if_nothing_were_broken(&config, &arrivals);
        // With pauses of 0.5, 1, 2, 4, ... s there are about seven tries in forty seconds.
        assert!((1..=10).contains(&retries(&report)), "{policy:?}: {} retries", retries(&report));
        assert!(report.requests.iter().all(|request| request.retries <= 1), "{policy:?}");
    }
}

#[test]
fn a_reader_that_can_read_from_nobody_and_a_giver_that_nobody_can_read_from_are_avoided() {
    let arrivals = calm_arrivals();
    for links in [(0..4).map(|giver| broken(giver, 4)).collect(), (4..8).map(|reader| broken(0, reader)).collect()] {
        let links: Vec<BrokenLink> = links;
        let config = SimConfig { broken_links: links, ..deployment("ppppdddd", 400) };
        let report = all_done_as_if_nothing_were_broken(&config, &arrivals);
        assert!((1..=40).contains(&retries(&report)), "{} retries", retries(&report));
    }
}

#[test]
fn a_link_that_is_mended_is_used_again() {
    let arrivals = calm_arrivals();
    let mended = Time(20_000_000);
    let link = BrokenLink { until: Some(mended), ..broken(0, 4) };
    let config = SimConfig { broken_links: vec![link], ..deployment("ppppdddd", 400) };
    let report = all_done_as_if_nothing_were_broken(&config, &arrivals);
    assert!((1..=7).contains(&retries(&report)), "{} retries", retries(&report));
    let half = arrivals.iter().take_while(|arrival| arrival.at < mended).count();
    assert!(report.requests[half + 1..].iter().all(|request| request.retries == 0));
}

#[test]
fn where_no_link_works_every_request_ends_after_a_bounded_number_of_prefills() {
    let arrivals = calm_arrivals();
    let all = |roles: &str| {
        let (givers, readers) = (roles.matches('p').count(), roles.matches('d').count());
        let pairs = (0..givers).flat_map(|giver| (0..readers).map(move |reader| broken(giver, givers + reader)));
        SimConfig { broken_links: pairs.collect(), ..deployment(roles, 400) }
    };
    for roles in ["pd", "ppdd", "pppdd"] {
        let config = all(roles);
        let report = simulate(&config, &arrivals).unwrap();
        for (index, request) in report.requests.iter().enumerate() {
            let Ending::Failed(failure) = &request.ending else {
                // Prefill alone could finish this: three attempts give three tokens.
                assert!(request.summary.tokens <= 3, "{roles}: request {index}: {:?}", request.summary);
                continue;
            };
            assert_eq!(failure.kind, FailureKind::KvLost, "{roles}: request {index}: {failure}");
            assert!(failure.detail.starts_with("3 attempts in a row were lost"), "{failure}");
            assert_eq!(request.retries, config.journey.attempts_max - 1, "{roles}: request {index}");
        }
        let mut local = all(roles);
        local.journey.lost_handoffs = LostHandoffs::PrefillLocally;
        let report = all_done_as_if_nothing_were_broken(&local, &arrivals);
        assert!(report.requests.iter().all(|request| request.retries < local.journey.attempts_max), "{roles}");
    }
}
