//! More requests than the router lets in, and more workers than anybody can look at one by one.

use super::deployments::{deployment, workload};
use crate::{SimConfig, simulate};
use sched::FailureKind;
use sched::journey::Ending;

#[test]
fn what_finds_no_place_is_refused_at_once_and_counts_as_missed() {
    let mut burst = workload(5, 2_000.0, 200);
    burst.choices = 1..=1;
    let arrivals = burst.arrivals();
    let free = simulate(&deployment("pd", 2_000), &arrivals).unwrap();
    let config = SimConfig { requests_max: 20, ..deployment("pd", 2_000) };
    let report = simulate(&config, &arrivals).unwrap();
    let refused = |ending: &Ending| match ending {
        Ending::Failed(failure) => {
            assert_eq!(
                (failure.kind, failure.detail.as_str()),
                (FailureKind::Overloaded, "20 requests are being served")
            );
            true
        }
        Ending::Done => false,
    };
    let turned_away = report.requests.iter().filter(|request| refused(&request.ending)).count();
    assert!((50..180).contains(&turned_away), "{turned_away} of 200");
    for (request, free) in report.requests.iter().zip(&free.requests) {
        assert!(refused(&request.ending) || request.output_hash == free.output_hash);
    }
    assert_eq!(report.classes[&0].refused, turned_away as u64);
    assert!(report.ended_at < free.ended_at);
}

#[test]
fn a_thousand_workers_serve_as_a_few_do() {
    let arrivals = workload(6, 3_000.0, 1_500).arrivals();
    let config = deployment(&format!("{}{}", "p".repeat(500), "d".repeat(500)), 200);
    let began = std::time::Instant::now();
    let report = simulate(&config, &arrivals).unwrap();
    println!("{} events in {:?}", report.events, began.elapsed());
    assert!(report.requests.iter().all(|request| request.ending == Ending::Done));
    let few = simulate(&deployment("aa", 20_000), &arrivals).unwrap();
    for (many, few) in report.requests.iter().zip(&few.requests) {
        assert_eq!(many.output_hash, few.output_hash);
    }
}
