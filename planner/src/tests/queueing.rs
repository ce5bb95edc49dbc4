//! A prefill worker with constant service times and Poisson arrivals is an M/D/1 queue, whose mean is known.

use super::deployments::deployment;
use crate::{Poisson, simulate};
use sched::cost::{CostModel, StepWork};
use sched::replica::PrefixCache;
use sched::{Slo, Span};

const PROMPT_TOKENS: u32 = 200;

/// Mean of service plus waiting time: D + D·ρ / (2·(1 − ρ)) (Pollaczek and Khinchine; DistServe, section 3.1).
fn md1_mean_us(service_us: f64, utilisation: f64) -> f64 {
    service_us + service_us * utilisation / (2.0 * (1.0 - utilisation))
}

#[test]
fn prefill_with_constant_service_times_is_md1() {
    let mut config = deployment("p", 4_000);
    config.hop = Span::ZERO;
    config.workers[0].replica.prefix_cache = PrefixCache::Off;
    // A step takes exactly one prompt, so service times are constant and nothing is batched.
    config.workers[0].replica.lanes[0].step_tokens_max = PROMPT_TOKENS;
    let service = config.workers[0].cost.span_alone(&StepWork::default().with_chunk(0..PROMPT_TOKENS));
    for utilisation in [0.3, 0.6, 0.8] {
        let workload = Poisson {
            seed: 11,
            rate_per_second: utilisation / service.secs_f64(),
            requests: 8_000,
            prompt_tokens: PROMPT_TOKENS..=PROMPT_TOKENS,
            output_tokens: 1..=1,
            choices: 1..=1,
            slo: Slo::default(),
        };
        let report = simulate(&config, &workload.arrivals()).unwrap();
        assert_eq!(report.steps, 8_000);
        let measured = report.ttft_mean().unwrap().us() as f64;
        let wanted = md1_mean_us(service.us() as f64, utilisation);
        let off = (measured / wanted - 1.0).abs();
        assert!(off < 0.05, "utilisation {utilisation}: mean TTFT {measured} us instead of {wanted:.0} us");
    }
}
