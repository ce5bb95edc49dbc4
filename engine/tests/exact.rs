//! Equal requests give the same bits of tokens and log-probabilities, however they are run.

mod support;

use anyhow::Result;
use engine::{Config, KvDtypeChoice, PrefixCacheChoice, WeightsDtype};
use sched::{Request, SamplingParams, TokenId};

use support::family;
use support::requests::{mix, request, tokens};
use support::workers::{Exact, PROMPT, Texts, Workers, assert_equal, config};

const VOCAB: u32 = 384;

fn aggregated(config: &Config) -> Result<Texts> {
    let mut workers = Workers::aggregated(config)?;
    let texts = workers.run(&mix(VOCAB))?;
    workers.settle()?;
    Ok(texts)
}

/// Runs one request at a time, one step at a time, whole prompts, without reuse.
fn plain(base: &Config) -> Result<Texts> {
    let config = Config { prefix_cache: PrefixCacheChoice::Off, steps_in_flight: 1, ..base.clone() };
    Workers::aggregated(&config)?.run_alone(&mix(VOCAB))
}

#[test]
fn batches_chunks_blocks_and_threads_change_nothing() -> Result<()> {
    let families = [
        ("llama-bf16", WeightsDtype::Auto, KvDtypeChoice::Auto),
        ("llama-bf16", WeightsDtype::Auto, KvDtypeChoice::Int8),
        ("mistral", WeightsDtype::Auto, KvDtypeChoice::Auto),
        ("mixtral", WeightsDtype::Bf16, KvDtypeChoice::Auto),
        ("qwen3moe", WeightsDtype::Auto, KvDtypeChoice::Auto),
        ("opt", WeightsDtype::Bf16, KvDtypeChoice::Int8),
        ("llama-bf16", WeightsDtype::Int8, KvDtypeChoice::Auto),
        ("qwen3", WeightsDtype::Int8, KvDtypeChoice::Int8),
    ];
    for (name, dtype, kv_dtype) in families {
        let base = Config { dtype, kv_dtype, ..config(&family(name)) };
        let expected = plain(&base)?;
        one_row_per_step(&base, &expected)?;
        for (step_tokens_max, sequences_max) in [(3, 3), (7, 5), (16, 16), (64, 3), (512, 32)] {
            let config = Config { step_tokens_max, sequences_max, ..base.clone() };
            assert_equal(&expected, &aggregated(&config)?, &format!("{name}, steps of {step_tokens_max} rows"));
        }
        for block_tokens in [32, 64] {
            let config = Config { block_tokens, kv_pool: engine::KvPool::Blocks(200), ..base.clone() };
            assert_equal(&expected, &aggregated(&config)?, &format!("{name}, blocks of {block_tokens} tokens"));
        }
        let config = Config { threads: 2, ..base };
        assert_equal(&expected, &aggregated(&config)?, &format!("{name}, two threads"));
    }
    Ok(())
}

/// Prompts token by token; a single row has room only for requests with one choice.
fn one_row_per_step(base: &Config, expected: &Texts) -> Result<()> {
    let single: Vec<Request> = mix(VOCAB).into_iter().filter(|request| request.choices.len() == 1).collect();
    let ids: Vec<u64> = single.iter().map(|request| request.leg.request.0).collect();
    let expected = expected.iter().filter(|((id, _), _)| ids.contains(id));
    let expected = expected.map(|(key, text)| (*key, text.clone())).collect();
    let config = Config { step_tokens_max: 1, sequences_max: 1, ..base.clone() };
    assert_equal(&expected, &Workers::aggregated(&config)?.run(&single)?, "steps of one row");
    Ok(())
}

/// Eight requests that begin with 7 blocks and end with 12 or 13; a pool of 30 admits four at once but cannot finish
/// all four, so one of them is preempted and computed again.
fn growing() -> Vec<Request> {
    let params = |seed| SamplingParams {
        max_tokens: 90,
        logprobs: Some(2),
        repetition_penalty: 1.1,
        seed,
        ..SamplingParams::default()
    };
    (0..8).map(|id| request(id, tokens(id, 100 + id as usize, VOCAB), 1, params(id))).collect()
}

#[test]
fn preemption_and_recomputation_change_nothing() -> Result<()> {
    let off = PrefixCacheChoice::Off;
    let base = Config { prefix_cache: off, ..config(&family("qwen3")) };
    let alone = Config { steps_in_flight: 1, ..base.clone() };
    let expected = Workers::aggregated(&alone)?.run_alone(&growing())?;
    let config = Config { kv_pool: engine::KvPool::Blocks(30), filling_share: 1.0, ..base };
    let mut workers = Workers::aggregated(&config)?;
    assert_equal(&expected, &workers.run(&growing())?, "30 blocks");
    workers.settle()
}

/// Requests that begin alike and end everywhere: at a stop token, where it first occurs in the longest text, or at a
/// limit.
fn ends_everywhere(longest: &[u32], params: &SamplingParams, prompt: &[TokenId]) -> Vec<Request> {
    let first_there = |at: &usize| !longest[..*at].contains(&longest[*at]);
    let ends = (0..longest.len()).filter(first_there);
    let stopping = |at: usize| SamplingParams { stop_tokens: vec![TokenId(longest[at])], ..params.clone() };
    let limited = |tokens| SamplingParams { max_tokens: tokens, ..params.clone() };
    let kinds = ends.map(stopping).chain((1..=longest.len() as u32).map(limited));
    (1..).zip(kinds).map(|(id, params)| request(id, prompt.to_vec(), 1, params)).collect()
}

#[test]
fn an_end_that_is_noticed_a_step_late_changes_nothing() -> Result<()> {
    let base = config(&family("llama-bf16"));
    let params = SamplingParams { max_tokens: 20, logprobs: Some(1), seed: 3, ..SamplingParams::default() };
    let prompt = tokens(9, 27, VOCAB);
    let one_at_a_time = Config { steps_in_flight: 1, ..base.clone() };
    let mut alone = Workers::aggregated(&one_at_a_time)?;
    let whole = alone.run(&[request(1, prompt.clone(), 1, params.clone())])?;
    let longest: Vec<u32> = whole[&(1, 0)].iter().map(|exact| exact.token).collect();
    let requests = ends_everywhere(&longest, &params, &prompt);
    assert!(requests.len() > 30, "{longest:?} ends at {} places", requests.len());
    let expected = alone.run_alone(&requests)?;
    for (step_tokens_max, kv_blocks) in [(512, 512), (33, 40), (32, 9)] {
        let config =
            Config { step_tokens_max, kv_pool: engine::KvPool::Blocks(kv_blocks), filling_share: 1.0, ..base.clone() };
        let mut workers = Workers::aggregated(&config)?;
        let context = format!("{step_tokens_max} rows, {kv_blocks} blocks");
        assert_equal(&expected, &workers.run(&requests)?, &context);
        workers.settle()?;
    }
    let mut workers = Workers::disaggregated(&base, &Config { kv_pool: engine::KvPool::Blocks(30), ..base.clone() })?;
    assert_equal(&expected, &workers.run(&requests)?, "handed over");
    workers.settle()
}

#[test]
fn reused_prefixes_change_nothing() -> Result<()> {
    let base = config(&family("llama3rope"));
    let expected = plain(&base)?;
    let mut workers = Workers::aggregated(&base)?;
    for round in 0..3 {
        assert_equal(&expected, &workers.run(&mix(VOCAB))?, &format!("round {round}"));
    }
    Ok(())
}

/// A token has the same log-probability when it is generated and as a part of a prompt, whatever the chunks.
#[test]
fn a_prompt_is_scored_as_it_would_be_generated() -> Result<()> {
    let base = config(&family("llama-bf16"));
    let params = SamplingParams { max_tokens: 90, logprobs: Some(3), temperature: 0.0, ..SamplingParams::default() };
    let prompt = tokens(5, 20, VOCAB);
    let generated = Workers::aggregated(&base)?.run(&[request(1, prompt.clone(), 1, params.clone())])?;
    let generated = &generated[&(1, 0)];
    let whole = prompt.iter().copied().chain(generated.iter().map(|exact| TokenId(exact.token))).collect::<Vec<_>>();
    let scored = SamplingParams { max_tokens: 1, prompt_logprobs: Some(3), ..params };
    for (step_tokens_max, sequences_max) in [(512, 32), (64, 7), (5, 5)] {
        let mut workers = Workers::aggregated(&Config { step_tokens_max, sequences_max, ..base.clone() })?;
        // The prefix is in the cache the second time.
        for round in 0..2 {
            let texts = workers.run(&[request(2, whole.clone(), 1, scored.clone())])?;
            let scores = &texts[&(2, PROMPT)];
            assert_eq!(scores.len(), whole.len() - 1, "every token but the first has a score");
            for (score, expected) in scores[prompt.len() - 1..].iter().zip(generated) {
                assert_eq!(score.rank, Some(1), "it is the most likely token");
                let unranked = Exact { rank: None, ended: expected.ended, ..score.clone() };
                assert_eq!(&unranked, expected, "{step_tokens_max} rows, round {round}");
            }
        }
    }
    Ok(())
}
