//! A sequence that cannot be computed changes no bit of others: neither beside it, nor after it in its blocks.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use engine::{Config, KvDtypeChoice, WeightsDtype};
use sched::{FailureKind, Request, SamplingParams, TokenId};

use support::damaged::Damaged;
use support::requests::{mix, request, tokens};
use support::workers::{Workers, assert_equal, config};

const VOCAB: u32 = 384;
const BAD: TokenId = TokenId(Damaged::TOKEN);

/// Requests that neither contain nor generate the damaged token.
fn healthy() -> Vec<Request> {
    let heal = |mut request: Request| {
        request.prompt = request.prompt.iter().map(|token| if *token == BAD { TokenId(78) } else { *token }).collect();
        let mut params = SamplingParams::clone(&request.params);
        params.logit_bias.push((BAD, -100.0));
        request.params = Arc::new(params);
        request
    };
    mix(VOCAB).into_iter().map(heal).collect()
}

/// Requests with the damaged token: at the start, at the end, at block edges, or generated. Some begin like healthy
/// ones, so they share blocks with them.
fn damaged() -> Vec<Request> {
    let params = SamplingParams { max_tokens: 12, ..SamplingParams::default() };
    let forced = SamplingParams { logit_bias: vec![(BAD, 100.0)], ..params.clone() };
    let shared = healthy()[9].prompt.to_vec();
    let mut requests = Vec::new();
    for (id, (length, at)) in (100..).zip([(1, 0), (20, 19), (33, 0), (48, 16), (130, 64)]) {
        let mut prompt = tokens(id, length, VOCAB);
        prompt[at] = BAD;
        requests.push(request(id, prompt, 1 + (id % 2) as u32 * 2, params.clone()));
    }
    let mut prompt = shared.clone();
    prompt.push(BAD);
    requests.push(request(200, prompt, 1, params));
    requests.push(request(201, shared, 2, forced.clone()));
    requests.push(request(202, tokens(5, 40, VOCAB), 1, forced));
    requests
}

fn run(mut workers: Workers, context: &str) -> Result<()> {
    let expected = workers.run(&healthy())?;
    workers.may_fail = damaged().iter().map(|request| request.leg.request.0).collect();
    // In the second round, their blocks have been freed with whatever is in them.
    for round in ["beside", "after"] {
        let all: Vec<Request> = damaged().into_iter().chain(healthy()).collect();
        let mut found = workers.run(&all)?;
        found.retain(|(id, _), _| !workers.may_fail.contains(id));
        assert_equal(&expected, &found, &format!("{context}, {round}"));
        let failures = std::mem::take(&mut workers.failures);
        assert_eq!(failures.keys().collect::<Vec<_>>(), workers.may_fail.iter().collect::<Vec<_>>(), "{context}");
        for (id, failure) in failures {
            assert_eq!(failure.kind, FailureKind::Internal, "{context}: {id}: {failure}");
            assert!(failure.detail.contains("no token can be sampled from"), "{context}: {id}: {failure}");
        }
        workers.settle()?;
        assert_equal(&expected, &workers.run(&healthy())?, &format!("{context}, once more"));
    }
    Ok(())
}

#[test]
fn rows_that_are_no_numbers_stay_alone_in_every_format() -> Result<()> {
    for (name, dtype, kv_dtype) in [
        ("llama", WeightsDtype::Auto, KvDtypeChoice::Auto),
        ("mistral", WeightsDtype::Bf16, KvDtypeChoice::Auto),
        ("qwen3", WeightsDtype::Int8, KvDtypeChoice::Int8),
        ("mixtral", WeightsDtype::Bf16, KvDtypeChoice::Auto),
        ("qwen3moe", WeightsDtype::Auto, KvDtypeChoice::Int8),
        ("qwen3moe", WeightsDtype::Int8, KvDtypeChoice::Auto),
    ] {
        let model = Damaged::of(name, "alone")?;
        let base = Config { dtype, kv_dtype, kv_pool: engine::KvPool::Blocks(160), ..config(&model.0) };
        run(Workers::aggregated(&base)?, &format!("{name} {dtype:?} {kv_dtype:?}"))?;
        let chunked = Config { step_tokens_max: 32, ..base };
        run(Workers::aggregated(&chunked)?, &format!("{name} {dtype:?} {kv_dtype:?}, chunks"))?;
    }
    Ok(())
}

#[test]
fn a_hand_off_of_what_is_damaged_ends_its_own_request() -> Result<()> {
    let model = Damaged::of("llama", "handoff")?;
    let base = Config { kv_pool: engine::KvPool::Blocks(160), ..config(&model.0) };
    run(Workers::disaggregated(&base, &base)?, "disaggregated")
}

#[test]
fn several_ranks_keep_rows_apart_as_well() -> Result<()> {
    let model = Damaged::of("qwen3", "ranks")?;
    for (tp, pp) in [(2, 1), (1, 2)] {
        let base = Config { tp, pp, kv_pool: engine::KvPool::Blocks(160), ..config(&model.0) };
        run(Workers::aggregated(&base)?, &format!("tp {tp} pp {pp}"))?;
    }
    Ok(())
}

/// Parameters of every kind, far outside what a router admits: each request fails alone or is served.
#[test]
fn hostile_parameters_cost_nobody_else_a_bit() -> Result<()> {
    let mut workers = Workers::aggregated(&config(&support::family("llama")))?;
    let expected = workers.run(&healthy())?;
    let odd = [0.0, 1e-45, 1e-40, 1e-38, 1e38, f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -1.0];
    let base = SamplingParams { max_tokens: 20, temperature: 0.7, ..SamplingParams::default() };
    let mut hostile = BTreeMap::new();
    for (id, value) in (1_000_u64..).step_by(10).zip(odd) {
        let kinds = [
            SamplingParams { repetition_penalty: value, ..base.clone() },
            SamplingParams { temperature: value, ..base.clone() },
            SamplingParams { top_p: value, ..base.clone() },
            SamplingParams { min_p: value, ..base.clone() },
            SamplingParams { presence_penalty: value, ..base.clone() },
            SamplingParams { frequency_penalty: value, ..base.clone() },
            SamplingParams { logit_bias: vec![(TokenId(1), value), (TokenId(2), -value)], ..base.clone() },
        ];
        for (id, params) in (id..).zip(kinds) {
            hostile.insert(id, request(id, tokens(id, 9, VOCAB), 1, params));
        }
    }
    workers.may_fail = hostile.keys().copied().collect();
    let all: Vec<Request> = hostile.values().cloned().chain(healthy()).collect();
    let mut found = workers.run(&all)?;
    found.retain(|(id, _), _| !workers.may_fail.contains(id));
    assert_equal(&expected, &found, "beside hostile parameters");
    for (id, failure) in &workers.failures {
        assert_eq!(failure.kind, FailureKind::InvalidRequest, "{:?}: {failure}", hostile[id].params);
    }
    assert!(workers.failures.len() > 30 && workers.failures.len() < hostile.len(), "{}", workers.failures.len());
    Ok(())
}
