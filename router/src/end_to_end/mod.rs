//! Tests of the whole router over real sockets, between clients and workers that parrot.

mod accounts;
mod connections;
mod deployment;
mod door;
mod errors;
mod extras;
mod keys;
mod messages;
mod pages;
mod parrot;
mod prompt_logprobs;
mod request_log;
mod responses;
mod tools;
#[cfg(feature = "otlp")]
mod traces;
mod vocabulary;
mod workers;

use std::time::Duration;

use serde_json::{Value, json};

use deployment::{Deployment, Events};
use parrot::CACHED_TOKENS;

const FAST: Duration = Duration::from_millis(1);

/// Returns the chunks of an event stream without its `[DONE]`.
fn chunks(payloads: &[String]) -> Vec<Value> {
    let (last, chunks) = payloads.split_last().expect("a stream has events");
    assert_eq!(last, "[DONE]");
    chunks.iter().map(|payload| serde_json::from_str(payload).unwrap()).collect()
}

fn texts(chunks: &[Value], index: u64) -> String {
    let mut text = String::new();
    for choice in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()) {
        if choice["index"] == index {
            text.push_str(choice["text"].as_str().or(choice["delta"]["content"].as_str()).unwrap_or_default());
        }
    }
    text
}

fn finishes(chunks: &[Value], index: u64) -> Vec<String> {
    let choices = chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap());
    choices
        .filter(|choice| choice["index"] == index)
        .filter_map(|choice| choice["finish_reason"].as_str().map(str::to_owned))
        .collect()
}

#[tokio::test]
async fn a_chat_is_answered_whole_and_streamed() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |_| {}).await;
    let mut body = json!({"model": "parrot", "messages": [{"role": "user", "content": "hello ☃ world"}]});
    let whole = deployment.post("/v1/chat/completions", &body).await;
    assert_eq!(whole.status, 200, "{}", whole.body);
    let answer = whole.json();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "parrot");
    assert_eq!(answer["choices"][0]["message"]["content"], "hello ☃ world");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let tokens = answer["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(answer["usage"]["completion_tokens"], tokens, "the parrot says the prompt and its end token");

    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    body["logprobs"] = json!(true);
    let events = Events::open(&deployment, "/v1/chat/completions", &body).await.all().await;
    let chunks = chunks(&events);
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert!(chunks[1..].iter().all(|chunk| chunk["choices"][0]["delta"].get("role").is_none()));
    assert_eq!(texts(&chunks, 0), "hello ☃ world");
    assert_eq!(finishes(&chunks, 0), ["stop"]);
    let (usage, rest) = chunks.split_last().unwrap();
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(tokens)));
    assert!(rest.iter().all(|chunk| chunk.get("usage").is_none()));
    let logprobs: Vec<f64> = rest
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array())
        .flatten()
        .map(|token| token["logprob"].as_f64().unwrap())
        .collect();
    let expected: Vec<f64> = (0..tokens).map(|index| f64::from(-0.1 - index as f32 / 3.0)).collect();
    assert_eq!(logprobs, expected, "each token has its number, bit for bit, the first one too");
    deployment.stop().await;
}

#[tokio::test]
async fn several_prompts_and_choices_are_indexed_by_prompt_and_choice() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |_| {}).await;
    let mut body = json!({
        "prompt": ["a", "bc"], "n": 2, "max_tokens": 4, "add_special_tokens": false, "echo": true,
        "return_token_ids": true,
    });
    let answer = deployment.post("/v1/completions", &body).await.json();
    let shown: Vec<&str> =
        answer["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect();
    assert_eq!(shown, ["aaaaa", "aaaaa", "bcbcbc", "bcbcbc"]);
    let details = json!({"cached_tokens": 2 * CACHED_TOKENS});
    let usage =
        json!({"prompt_tokens": 3, "completion_tokens": 16, "total_tokens": 19, "prompt_tokens_details": details});
    assert_eq!(answer["usage"], usage, "each prompt counts once, whatever its choices");
    assert_eq!(answer["choices"][3]["token_ids"].as_array().unwrap().len(), 4);
    assert_eq!(answer["choices"][3]["prompt_token_ids"].as_array().unwrap().len(), 2);

    body["stream"] = json!(true);
    let events = chunks(&Events::open(&deployment, "/v1/completions", &body).await.all().await);
    for (index, text) in (0..).zip(shown) {
        assert_eq!(texts(&events, index), text);
        assert_eq!(finishes(&events, index), ["length"]);
    }
    deployment.stop().await;
}

#[tokio::test]
async fn a_stop_string_over_two_tokens_ends_the_choice_here_and_at_the_worker() {
    let (deployment, parrot) = Deployment::aggregated(FAST, |_| {}).await;
    let body = json!({
        "prompt": "xyz", "max_tokens": 200, "add_special_tokens": false, "stop": ["zx"], "stream": true,
        "logprobs": 0, "stream_options": {"include_usage": true},
    });
    let events = chunks(&Events::open(&deployment, "/v1/completions", &body).await.all().await);
    assert_eq!(texts(&events, 0), "xy");
    assert_eq!(finishes(&events, 0), ["stop"]);
    let logprobs: usize =
        events.iter().filter_map(|chunk| chunk["choices"][0]["logprobs"]["tokens"].as_array()).map(Vec::len).sum();
    assert_eq!(events.last().unwrap()["usage"]["completion_tokens"], logprobs);
    deployment::until("the worker has stopped", || parrot.legs() == 0).await;
    deployment.stop().await;
}

/// The parrot repeats the prompt from its start: an `a` breaks off the snowman, of which the prompt has two bytes.
#[tokio::test]
async fn a_prompt_that_ends_inside_a_character_is_shown_with_its_answer_as_one_text() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |_| {}).await;
    let tokens = deployment.post("/tokenize", &json!({"prompt": "a☃", "add_special_tokens": false})).await.json();
    let tokens = tokens["tokens"].as_array().unwrap().clone();
    let body = json!({"prompt": tokens[..3], "max_tokens": 2, "echo": true, "return_token_ids": true});
    let choice = deployment.post("/v1/completions", &body).await.json()["choices"][0].clone();
    let all = [&tokens[..3], choice["token_ids"].as_array().unwrap()].concat();
    let whole = deployment.post("/detokenize", &json!({"tokens": all})).await.json();
    assert_eq!(choice["text"], whole["prompt"], "{choice}");
    deployment.stop().await;
}

#[tokio::test]
async fn control_tokens_of_a_text_show_unless_the_client_says_otherwise() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |_| {}).await;
    let tokens = deployment.post("/tokenize", &json!({"prompt": "a"})).await.json()["tokens"].clone();
    for (skip, text) in [(json!(null), "<|begin|>a"), (json!(false), "<|begin|>a"), (json!(true), "a")] {
        let body = json!({"tokens": tokens, "skip_special_tokens": skip});
        assert_eq!(deployment.post("/detokenize", &body).await.json()["prompt"], text, "{skip}");
    }
    deployment.stop().await;
}

#[tokio::test]
async fn control_tokens_of_the_prompt_are_as_asked() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |_| {}).await;
    let mut body = json!({"prompt": "a", "max_tokens": 3, "skip_special_tokens": false});
    let answer = deployment.post("/v1/completions", &body).await.json();
    assert_eq!(answer["choices"][0]["text"], "<|begin|>a<|begin|>");
    body["add_special_tokens"] = json!(false);
    let answer = deployment.post("/v1/completions", &body).await.json();
    assert_eq!(answer["choices"][0]["text"], "aaa");
    deployment.stop().await;
}

#[tokio::test]
async fn models_tokens_and_health() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |_| {}).await;
    let models = deployment.get("/v1/models").await.json();
    assert_eq!(models["data"][0]["id"], "parrot");
    assert_eq!(models["data"][0]["max_model_len"], 256);
    assert_eq!(deployment.get("/v1/models/org/parrot").await.json()["id"], "org/parrot");
    assert_eq!(deployment.get("/v1/models/other").await.status, 404);

    let tokenized = deployment.post("/tokenize", &json!({"prompt": "hello", "return_token_strs": true})).await.json();
    assert_eq!(tokenized["token_strs"], json!(["<|begin|>", "hello"]));
    assert_eq!((&tokenized["count"], &tokenized["max_model_len"]), (&json!(2), &json!(256)));
    let text = deployment.post("/detokenize", &json!({"tokens": tokenized["tokens"]})).await.json();
    assert_eq!(text["prompt"], "<|begin|>hello");
    let chat = json!({"messages": [{"role": "user", "content": "hello"}], "return_token_strs": true});
    let tokenized = deployment.post("/tokenize", &chat).await.json();
    assert_eq!(tokenized["token_strs"], json!(["hello", "<|end|>"]));

    assert_eq!(deployment.get("/health").await.body, "ok\n");
    assert_eq!(deployment.get("/ready").await.body, "ready\n");
    assert_eq!(deployment.get("/version").await.json()["role"], "router");
    deployment.stop().await;
}
