//! Tests of all modes through the HTTP API: odd shapes that break disaggregation, streamed and not.

use std::time::Duration;

use anyhow::{Context, Result};
use baton_tests::deployment::Deployment;
use baton_tests::http;
use serde_json::{Value, json};

const MODES: [&str; 3] = ["disaggregated", "aggregated", "colocated"];

fn each_mode(check: impl Fn(&Deployment) -> Result<()>) -> Result<()> {
    for mode in MODES {
        let mut deployment = Deployment::start(&["--mode", mode])?;
        check(&deployment).with_context(|| format!("in mode {mode}; log:\n{}", deployment.log()))?;
        assert!(deployment.stop()?.success(), "{mode}: Ctrl-C is a clean end:\n{}", deployment.log());
    }
    Ok(())
}

fn completion(deployment: &Deployment, body: &Value) -> Result<Value> {
    let answer = http::post(deployment.address, "/v1/completions", body)?;
    assert_eq!(answer.status, 200, "{body}: {}", answer.body);
    answer.json()
}

#[test]
fn odd_shapes_work_in_all_modes() -> Result<()> {
    each_mode(|deployment| {
        one_prompt_token(deployment)?;
        one_output_token(deployment)?;
        several_choices(deployment)?;
        shorter_than_a_block_and_longer(deployment)?;
        chat_streams(deployment)?;
        everything_is_given_back(deployment)
    })
}

fn one_prompt_token(deployment: &Deployment) -> Result<()> {
    let answer =
        completion(deployment, &json!({"prompt": [5], "max_tokens": 4, "ignore_eos": true, "temperature": 0}))?;
    assert_eq!(answer["usage"]["prompt_tokens"], 1);
    assert_eq!(answer["usage"]["completion_tokens"], 4);
    Ok(())
}

fn one_output_token(deployment: &Deployment) -> Result<()> {
    for n in [1, 3] {
        let body = json!({"prompt": "Tell me", "max_tokens": 1, "n": n, "logprobs": 2, "ignore_eos": true, "seed": 1});
        let answer = completion(deployment, &body)?;
        assert_eq!(answer["usage"]["completion_tokens"], n);
        let choices = answer["choices"].as_array().context("choices")?;
        assert_eq!(choices.len(), n);
        for choice in choices {
            assert_eq!(choice["finish_reason"], "length");
            assert_eq!(choice["logprobs"]["token_logprobs"].as_array().map(Vec::len), Some(1), "{choice}");
        }
    }
    Ok(())
}

fn several_choices(deployment: &Deployment) -> Result<()> {
    let body =
        json!({"prompt": "Once upon a time", "max_tokens": 12, "n": 4, "seed": 7, "ignore_eos": true, "stream": true});
    let mut texts = vec![String::new(); 4];
    let mut ends = vec![0; 4];
    for event in http::stream(deployment.address, "/v1/completions", &body)?.collect()? {
        for choice in event["choices"].as_array().context("choices")? {
            let index = choice["index"].as_u64().context("index")? as usize;
            texts[index].push_str(choice["text"].as_str().context("text")?);
            ends[index] += usize::from(!choice["finish_reason"].is_null());
        }
    }
    assert_eq!(ends, [1; 4], "each choice ends exactly once");
    let whole = completion(deployment, &{
        let mut body = body.clone();
        body["stream"] = json!(false);
        body
    })?;
    for (index, text) in texts.iter().enumerate() {
        assert_eq!(whole["choices"][index]["text"], text.as_str(), "streamed and whole answers are the same");
    }
    assert!(texts[1..].iter().any(|text| *text != texts[0]), "the choices are drawn independently: {texts:?}");
    Ok(())
}

fn shorter_than_a_block_and_longer(deployment: &Deployment) -> Result<()> {
    for length in [2, 15, 16, 17, 31, 32, 33, 700] {
        let prompt: Vec<u32> = (0..length).map(|i| 300 + (i * 7) % 900).collect();
        let body = json!({"prompt": prompt, "max_tokens": 20, "ignore_eos": true, "temperature": 0});
        let answer = completion(deployment, &body)?;
        assert_eq!(answer["usage"]["prompt_tokens"], length);
        assert_eq!(answer["usage"]["completion_tokens"], 20);
        // The repeated request hits the prefix cache and must have the same text.
        assert_eq!(completion(deployment, &body)?["choices"], answer["choices"], "length {length}");
    }
    Ok(())
}

fn chat_streams(deployment: &Deployment) -> Result<()> {
    let body = json!({
        "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 24,
        "stream": true, "stream_options": {"include_usage": true}, "logprobs": true, "top_logprobs": 2,
    });
    let events = http::stream(deployment.address, "/v1/chat/completions", &body)?.collect()?;
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let usage = events.last().context("no events")?;
    assert_eq!(usage["choices"], json!([]));
    let tokens = usage["usage"]["completion_tokens"].as_u64().context("usage")?;
    let logprobs: usize =
        events.iter().filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array()).map(Vec::len).sum();
    assert_eq!(logprobs as u64, tokens, "every token has its log-probability, the first one too");
    Ok(())
}

fn everything_is_given_back(deployment: &Deployment) -> Result<()> {
    deployment.wait_until("no block in use, nothing running", Duration::from_secs(10), |deployment| {
        let in_use = deployment.metric("baton_kv_blocks", &["state=\"in_use\""])?;
        let quarantined = deployment.metric("baton_kv_blocks", &["state=\"quarantined\""])?;
        Ok(in_use + quarantined + deployment.metric("baton_running_sequences", &[])? == 0.0)
    })
}

#[test]
fn the_kv_cache_really_moves_over_each_transport() -> Result<()> {
    for transport in ["ucx", "tcp", "shm"] {
        let deployment = Deployment::start(&["--set", &format!("engine.transport={transport:?}")])?;
        let prompt: Vec<u32> = (0..320).map(|i| 300 + i % 500).collect();
        completion(&deployment, &json!({"prompt": prompt, "max_tokens": 4, "ignore_eos": true}))?;
        let label = format!("transport=\"{transport}\"");
        deployment.wait_until(&format!("KV bytes over {transport}"), Duration::from_secs(10), |deployment| {
            Ok(deployment.metric("baton_kv_transfer_bytes_total", &[&label])? > 100_000.0)
        })?;
        let measured = deployment.metric("baton_kv_transfer_bytes_per_second", &[&label])?;
        assert!(measured > 1e6, "{transport}: measured {measured} bytes/s at connect");
    }
    Ok(())
}
