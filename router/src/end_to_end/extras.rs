//! Fields that vLLM added to the API and clients use.

use sched::TokenId;
use sched::message::ToWorker;
use serde_json::{Value, json};

use super::deployment::{Deployment, Events};
use super::parrot::Parrot;
use super::{FAST, chunks};

async fn tokens_of(deployment: &Deployment, text: &str) -> Vec<Value> {
    let body = json!({"prompt": text, "add_special_tokens": false});
    deployment.post("/tokenize", &body).await.json()["tokens"].as_array().unwrap().clone()
}

/// Returns prompts and parameters of the requests that the worker was sent.
fn submitted(parrot: &Parrot) -> Vec<sched::Request> {
    let requests = parrot.told().into_iter().filter_map(|word| match word {
        ToWorker::Submit(request, _) => Some(request),
        _ => None,
    });
    requests.collect()
}

#[tokio::test]
async fn the_client_learns_which_of_its_stops_ended_a_choice() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |_| {}).await;
    let (z, end) = (tokens_of(&deployment, "z").await[0].clone(), tokens_of(&deployment, "<|end|>").await[0].clone());
    let base = json!({"prompt": "xyz<|end|>", "max_tokens": 9, "add_special_tokens": false});
    let cases = [
        (json!({"stop": ["q", "y"]}), "x", "stop", json!("y")),
        (json!({"stop": ["q", "y"], "include_stop_str_in_output": true}), "xy", "stop", json!("y")),
        (json!({"stop_token_ids": [z]}), "xy", "stop", z.clone()),
        (json!({"stop_token_ids": [z], "include_stop_str_in_output": true}), "xyz", "stop", z.clone()),
        (json!({}), "xyz", "stop", json!(null)),
        (json!({"ignore_eos": true, "stop_token_ids": [end]}), "xyz", "stop", end.clone()),
        (json!({"max_tokens": 2}), "xy", "length", json!(null)),
    ];
    for (fields, text, finish, reason) in cases {
        let mut body = base.clone();
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let choice = deployment.post("/v1/completions", &body).await.json()["choices"][0].clone();
        let seen = (&choice["text"], &choice["finish_reason"], &choice["stop_reason"]);
        assert_eq!(seen, (&json!(text), &json!(finish), &reason), "{body}");
        body["stream"] = json!(true);
        let events = chunks(&Events::open(&deployment, "/v1/completions", &body).await.all().await);
        let (last, rest) = events.split_last().unwrap();
        assert_eq!(last["choices"][0].get("stop_reason"), Some(&reason), "{body}");
        assert!(rest.iter().all(|chunk| chunk["choices"][0].get("stop_reason").is_none()), "{body}");
    }
    deployment.stop().await;
}

#[tokio::test]
async fn every_chunk_has_the_counts_of_its_choice_if_wanted() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |_| {}).await;
    let base = json!({"stream": true, "max_tokens": 3, "n": 2,
        "stream_options": {"include_usage": true, "continuous_usage_stats": true}});
    let own = [
        ("/v1/completions", json!({"prompt": ["ab", "c"], "add_special_tokens": false})),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "ab"}]})),
    ];
    for (path, fields) in own {
        let mut body = base.clone();
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let events = chunks(&Events::open(&deployment, path, &body).await.all().await);
        let (total, chunks) = events.split_last().unwrap();
        let mut completed = 0;
        for index in 0..total["usage"]["completion_tokens"].as_u64().unwrap() / 3 {
            let of_choice = chunks.iter().filter(|chunk| chunk["choices"][0]["index"] == index);
            let counts: Vec<u64> =
                of_choice.map(|chunk| chunk["usage"]["completion_tokens"].as_u64().unwrap()).collect();
            assert!(counts.is_sorted() && counts.last() == Some(&3), "{counts:?}");
            completed += 3;
        }
        assert_eq!(total["usage"]["completion_tokens"], completed);
    }
    deployment.stop().await;
}

#[tokio::test]
async fn a_long_prompt_is_cut_and_keeps_its_frame() {
    let (deployment, parrot) = Deployment::aggregated(FAST, |_| {}).await;
    let long = "ab".repeat(400);
    let mut cases = vec![
        (json!({"prompt": "abcd", "truncate_prompt_tokens": 3}), "<|begin|>cd".to_owned()),
        (json!({"prompt": "abcd", "truncate_prompt_tokens": 3, "add_special_tokens": false}), "bcd".to_owned()),
        (json!({"prompt": tokens_of(&deployment, "abcd").await, "truncate_prompt_tokens": 1}), "d".to_owned()),
        (json!({"prompt": "abcd", "truncate_prompt_tokens": 9}), "<|begin|>abcd".to_owned()),
    ];
    let fitting = format!("b{}", "ab".repeat(126));
    cases.push((
        json!({"prompt": long, "truncate_prompt_tokens": -1, "add_special_tokens": false, "max_tokens": 3}),
        fitting,
    ));
    for (body, kept) in cases {
        let mut body = body;
        body["echo"] = json!(true);
        let answer = deployment.post("/v1/completions", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let prompt = submitted(&parrot).pop().unwrap().prompt.to_vec();
        let ids: Vec<u32> = prompt.iter().map(|token| token.0).collect();
        let text = deployment.post("/detokenize", &json!({"tokens": ids})).await.json();
        assert_eq!(text["prompt"], kept, "{body}");
        let shown = kept.trim_start_matches("<|begin|>");
        assert!(answer.json()["choices"][0]["text"].as_str().unwrap().starts_with(shown), "{body}");
        assert_eq!(answer.json()["usage"]["prompt_tokens"], ids.len(), "{body}");
    }
    let chat = json!({"messages": [{"role": "user", "content": long}], "truncate_prompt_tokens": 4, "max_tokens": 2});
    assert_eq!(deployment.post("/v1/chat/completions", &chat).await.json()["usage"]["prompt_tokens"], 4);
    deployment.stop().await;
}

#[tokio::test]
async fn allowed_and_forbidden_tokens_reach_the_worker() {
    let (deployment, parrot) = Deployment::aggregated(FAST, |_| {}).await;
    let body = json!({
        "prompt": "x", "max_tokens": 1, "allowed_token_ids": [9, 4, 9], "bad_words": ["hello", " zq"],
    });
    let answer = deployment.post("/v1/completions", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let params = submitted(&parrot).pop().unwrap().params;
    assert_eq!(params.allowed_tokens, [TokenId(4), TokenId(9)]);
    let mut expected = Vec::new();
    for word in ["hello", " hello", "zq"] {
        let ids = tokens_of(&deployment, word).await;
        expected.push(ids.iter().map(|id| TokenId(id.as_u64().unwrap() as u32)).collect::<Vec<TokenId>>());
    }
    assert_eq!(params.bad_words, expected, "\" zq\" is longer than \"zq\" and ends with it");
    deployment.stop().await;
}

#[tokio::test]
async fn answers_name_tokens_tier_and_software_as_asked() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |_| {}).await;
    let x = tokens_of(&deployment, "x").await[0].clone();
    let name = format!("token_id:{x}");
    let mut body = json!({"prompt": "x", "max_tokens": 1, "logprobs": 1, "return_tokens_as_token_ids": true,
        "add_special_tokens": false, "service_tier": "priority"});
    let answer = deployment.post("/v1/completions", &body).await.json();
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!((&logprobs["tokens"], &answer["service_tier"]), (&json!([name]), &json!("default")));
    assert_eq!(logprobs["top_logprobs"][0].as_object().unwrap().keys().collect::<Vec<_>>(), [&name]);
    body["service_tier"] = json!(null);
    let answer = deployment.post("/v1/completions", &body).await.json();
    assert!(answer.get("service_tier").is_none());
    let fingerprint = answer["system_fingerprint"].as_str().unwrap();
    assert!(fingerprint.starts_with("baton-"), "{fingerprint}");
    let chat = json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 1, "logprobs": true,
        "return_tokens_as_token_ids": true});
    let answer = deployment.post("/v1/chat/completions", &chat).await.json();
    let token = &answer["choices"][0]["logprobs"]["content"][0];
    assert!(token["token"].as_str().unwrap().starts_with("token_id:") && token["bytes"].is_array(), "{token}");
    deployment.stop().await;
}

#[tokio::test]
async fn the_last_message_is_continued() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |_| {}).await;
    let mut body = json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        "continue_final_message": true, "return_token_strs": true});
    let tokens = deployment.post("/tokenize", &body).await.json()["token_strs"].clone();
    assert_eq!(tokens.as_array().unwrap().last(), Some(&json!("b")));
    assert_eq!(deployment.post("/v1/chat/completions", &body).await.status, 200);
    body["add_generation_prompt"] = json!(true);
    let refused = deployment.post("/v1/chat/completions", &body).await;
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("continue_final_message")));
    deployment.stop().await;
}

#[tokio::test]
async fn the_likeliest_candidates_are_answered() {
    let (deployment, parrot) = Deployment::aggregated(FAST, |_| {}).await;
    let body = json!({"prompt": ["ab", "c"], "max_tokens": 3, "n": 2, "best_of": 4, "add_special_tokens": false});
    let answer = deployment.post("/v1/completions", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    let indexes: Vec<&Value> = answer["choices"].as_array().unwrap().iter().map(|choice| &choice["index"]).collect();
    assert_eq!(indexes, [0, 1, 2, 3]);
    assert_eq!((&answer["choices"][1]["text"], &answer["choices"][2]["text"]), (&json!("aba"), &json!("ccc")));
    assert!(answer["choices"][0]["logprobs"].is_null());
    assert_eq!(answer["usage"]["completion_tokens"], 24, "all candidates were generated");
    let requests = submitted(&parrot);
    assert!(requests.iter().all(|request| request.choices.len() == 4 && request.params.logprobs == Some(0)));
    deployment.stop().await;
}
