//! Orders and budgets of an aggregated worker that learns the times of its steps, beside one to which they are given.

use sched::cost::{Fitted, Latency, StepBudget};
use sched::scheduling::{PrefillOrder, Scheduling};
use sched::{Slo, Span, Time};

use super::deployments::{deployment, workload};
use crate::{Arrival, Poisson, simulate};

/// Time in which a worker learns; what arrives before does not count.
const LEARNING: Time = Time(10_000_000);

/// Part of the requests that met their targets.
fn attained(scheduling: Scheduling, arrivals: &[Arrival]) -> f64 {
    let mut config = deployment("a", 4_000);
    config.workers[0].replica.scheduling = scheduling;
    let report = simulate(&config, arrivals).expect("the simulation ends well");
    let settled = report.requests.iter().zip(arrivals).filter(|(_, arrival)| arrival.at >= LEARNING);
    let met: Vec<f64> = settled.map(|(request, _)| f64::from(u8::from(request.summary.met()))).collect();
    met.iter().sum::<f64>() / met.len() as f64
}

/// Attainment by default, with the true model, and with what the worker learns.
fn compared(arrivals: &[Arrival], with: impl Fn(Latency) -> Scheduling) -> [f64; 3] {
    let [given, learned] = [Latency::Given(Fitted::example()), Latency::Learned].map(with);
    let all = [Scheduling::default(), given, learned].map(|scheduling| attained(scheduling, arrivals));
    println!(
        "attained by default {:.3}, with the given model {:.3}, with the learned one {:.3}",
        all[0], all[1], all[2]
    );
    all
}

fn slo(ttft_ms: u64, tpot_ms: u64) -> Slo {
    Slo { class: 0, ttft: Some(Span::from_ms(ttft_ms)), tpot: Some(Span::from_ms(tpot_ms)), itl_tail: None }
}

/// A step that takes on all the prompt tokens that it has rows for takes more than 20 ms. Budgets go by the stricter of
/// the two targets, here that of TPOT; almost every gap must meet the other one.
#[test]
fn the_learned_budget_keeps_the_time_between_tokens() {
    for seed in [1, 2] {
        let shape = Poisson { prompt_tokens: 600..=900, output_tokens: 30..=60, ..workload(seed, 6.0, 400) };
        let arrivals =
            Poisson { choices: 1..=1, slo: Slo { itl_tail: Some(Span::from_ms(15)), ..slo(5_000, 12) }, ..shape }
                .arrivals();
        let [constant, given, learned] =
            compared(&arrivals, |latency| Scheduling { budget: StepBudget::Auto(latency), ..Scheduling::default() });
        assert!(constant < 0.8 && given > 0.95, "the test can fail: {constant} {given}");
        assert!(learned > given - 0.02, "{learned}");
    }
}

/// Every fourth request is in a hurry.
#[test]
fn the_learned_slack_serves_those_in_a_hurry_first() {
    for seed in [1, 2] {
        let shape = Poisson { prompt_tokens: 300..=700, output_tokens: 2..=4, ..workload(seed, 36.0, 2_000) };
        let mut arrivals = Poisson { choices: 1..=1, slo: slo(4_000, 500), ..shape }.arrivals();
        arrivals.iter_mut().step_by(4).for_each(|arrival| arrival.slo = slo(150, 500));
        let [fcfs, given, learned] = compared(&arrivals, |latency| Scheduling {
            prefill: PrefillOrder::SlackFirst(latency),
            ..Scheduling::default()
        });
        assert!(fcfs < 0.9 && given > fcfs + 0.05, "the test can fail: {fcfs} {given}");
        assert!(learned > given - 0.02, "{learned}");
    }
}
