//! Phase schedulers on measured lengths: what skip-join MLFQ does to the time to first token, and what it costs.

use std::sync::Arc;

use super::deployments::{deployment, workload};
use crate::{Arrival, Report, SimConfig, simulate};
use sched::cost::{DecodeFit, Fitted, Latency, PrefillFit};
use sched::journey::Ending;
use sched::replica::PrefixCache;
use sched::scheduling::{Admission, DecodeOrder, MlfqConfig, PastFuture, Scheduling};
use sched::{SamplingParams, Span, TokenId, rng};

/// Input and output lengths of ShareGPT conversations; see planner/fixtures/README.md.
const LENGTHS: &str = include_str!("../../fixtures/lengths_sharegpt.csv");
/// Context of OPT: lengths beyond it are left out, as FastServe's and DistServe's evaluations cut them.
const CONTEXT: u32 = 2_048;
/// Sequences per step in FastServe's artifact, and the most prompt tokens beside them.
const BATCH: u32 = 16;
const PROMPT_TOKENS_MAX: u32 = 2_048;

/// OPT-13B on one A100-80G as DistServe published it (`profiler-a100-80g.distserve.json`, Apache-2.0), in microseconds.
/// Of its two regimes for decodes the one for up to 95 sequences.
fn opt_13b() -> Fitted {
    Fitted {
        prefill: PrefillFit {
            step_us: 18_102.546,
            token_us: 101.912_26,
            token_squared_us: 0.007_122_264,
            saturation_share: 1.0,
        },
        decode: DecodeFit {
            step_us: 19_934.703,
            context_token_us: 0.626_935_65,
            sequence_us: 38.506_977,
            saturation_share: 1.0,
        },
        contention: 0.0,
    }
}

/// One aggregated worker. Its pool holds every sequence, as FastServe's host memory does: nobody is preempted, and what
/// swapping would cost is not modelled for either order. Nothing else differs from what serves: same scheduler, router
/// and messages; a step takes what the coefficients say, one with prompts and decodes pays the larger constant once.
fn worker(scheduling: Scheduling, sequences_max: u32) -> SimConfig {
    let mut config = deployment("a", 1 << 17);
    config.itl_quantile = 1.0;
    let worker = &mut config.workers[0];
    worker.cost = opt_13b();
    worker.replica.context_max = CONTEXT + 1;
    worker.replica.prefix_cache = PrefixCache::Off;
    worker.replica.sequences_max = sequences_max;
    worker.replica.lanes[0].step_tokens_max = PROMPT_TOKENS_MAX + BATCH;
    worker.replica.scheduling = scheduling;
    config
}

/// First come, first served until the end, as many at a time as fit into a step.
fn fcfs() -> SimConfig {
    worker(Scheduling::default(), BATCH)
}

/// Many more are inside, of which the queue picks as many for each step as first come, first served has in all.
fn mlfq(latency: Latency) -> SimConfig {
    let decode = DecodeOrder::Mlfq(MlfqConfig::published(BATCH, latency));
    worker(Scheduling { decode, ..Scheduling::default() }, PROMPT_TOKENS_MAX)
}

/// The lengths in their order, with independent arrivals.
fn arrivals(seed: u64, rate_per_second: f64, requests: u32) -> Vec<Arrival> {
    let lengths = LENGTHS.lines().skip(1).map(|line| {
        let (input, output) = line.split_once(',').expect("two columns");
        (input.parse::<u32>().expect("a length"), output.parse::<u32>().expect("a length"))
    });
    let lengths = lengths.filter(|(input, output)| *input > 0 && *output > 0 && input + output <= CONTEXT);
    let shape = workload(seed, rate_per_second, requests);
    let with = |(arrival, (input, output)): (Arrival, (u32, u32))| {
        let token = |position| TokenId(rng::token_hash(arrival.params.seed, position) as u32 >> 12);
        let params = SamplingParams { max_tokens: output, seed: arrival.params.seed, ..SamplingParams::default() };
        let prompt = (0..u64::from(input)).map(token).collect();
        Arrival { prompt, choices: 1, params: Arc::new(params), ..arrival }
    };
    shape.arrivals().into_iter().zip(lengths).map(with).collect()
}

struct Measured {
    ttft_p95: Span,
    /// Mean over requests of the whole time per output token, FastServe's normalised latency, in milliseconds.
    normalised_ms: f64,
    gap_max: Span,
}

fn measured(config: &SimConfig, arrivals: &[Arrival]) -> Measured {
    let Report { requests, .. } = simulate(config, arrivals).expect("the simulation ends well");
    assert!(requests.iter().all(|request| request.ending == Ending::Done), "a request failed");
    let mut ttfts: Vec<Span> = requests.iter().filter_map(|request| Some(request.summary.ttft?.total())).collect();
    ttfts.sort_unstable();
    assert_eq!(ttfts.len(), arrivals.len());
    let per_token = requests.iter().map(|request| request.summary.total.secs_f64() / request.summary.tokens as f64);
    Measured {
        ttft_p95: ttfts[ttfts.len() * 95 / 100],
        normalised_ms: per_token.sum::<f64>() / requests.len() as f64 * 1e3,
        gap_max: requests.iter().filter_map(|request| request.summary.itl_tail).max().unwrap_or(Span::ZERO),
    }
}

/// Requests run to the limits that they name, which conservative admission therefore knows exactly and Past-Future at
/// least bounds; how well past lengths foretell others is not measured here.
#[test]
fn admission_that_looks_ahead_preempts_less() {
    let preemptions = |admission| {
        let mut config = deployment("a", 90);
        config.workers[0].replica.scheduling.admission = admission;
        let report = simulate(&config, &workload(5, 60.0, 600).arrivals()).expect("the simulation ends well");
        assert!(report.requests.iter().all(|request| request.ending == Ending::Done), "a request failed");
        report.preemptions
    };
    let admissions = [Admission::Aggressive, Admission::PastFuture(PastFuture::default()), Admission::Conservative];
    let [aggressive, past_future, conservative] = admissions.map(preemptions);
    println!("{aggressive} preemptions, {past_future} with past-future, {conservative} with conservative admission");
    assert!(past_future < aggressive / 4, "{past_future} and {aggressive}");
    assert_eq!(conservative, 0);
}

/// At 2.5 requests per second this device is overloaded by a batch of 16 (each token takes its sequence's part of a step
/// of 24 ms: 2.5 × 319 tokens × 1.5 ms = 1.2), so the queue of first come, first served grows as long as requests
/// arrive and the ratio with it. At 1.8 the device keeps up. Both are compared, over the same arrivals.
#[test]
fn skip_join_mlfq_cuts_the_time_to_first_token_of_sharegpt_lengths() {
    for (rate, requests) in [(2.5, 500), (1.8, 500)] {
        for seed in [1, 2] {
            let arrivals = arrivals(seed, rate, requests);
            let (before, after) = (measured(&fcfs(), &arrivals), measured(&mlfq(opt_13b().into()), &arrivals));
            let ratio = before.ttft_p95.us() as f64 / after.ttft_p95.us() as f64;
            println!(
                "{rate}/s, seed {seed}: p95 TTFT {} and {}: {ratio:.1} x; {:.1} and {:.1} ms per token; longest gap {} and {}",
                before.ttft_p95,
                after.ttft_p95,
                before.normalised_ms,
                after.normalised_ms,
                before.gap_max,
                after.gap_max
            );
            assert!(ratio >= 5.0, "{rate}/s, seed {seed}: {ratio}");
            assert!(after.gap_max <= Span::from_secs(3), "{rate}/s, seed {seed}: {} without a token", after.gap_max);
        }
    }
}

/// Nobody tells this worker how long its steps take.
#[test]
fn skip_join_mlfq_does_as_well_with_what_it_learns() {
    let arrivals = arrivals(1, 2.5, 500);
    let before = measured(&fcfs(), &arrivals);
    let [given, learned] = [opt_13b().into(), Latency::Learned].map(|latency| measured(&mlfq(latency), &arrivals));
    let ratio = |after: &Measured| before.ttft_p95.us() as f64 / after.ttft_p95.us() as f64;
    println!(
        "p95 TTFT {:.1} x shorter with the given model, {:.1} x with the learned one",
        ratio(&given),
        ratio(&learned)
    );
    assert!(ratio(&learned) >= 5.0, "{}", ratio(&learned));
    assert!(learned.gap_max <= Span::from_secs(3), "{}", learned.gap_max);
}
