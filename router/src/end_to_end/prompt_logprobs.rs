//! Log-probabilities of prompts: `prompt_logprobs`, `echo` with `logprobs`, and answers that only repeat the prompt.

use sched::message::ToWorker;
use serde_json::{Value, json};

use super::deployment::{Deployment, Events};
use super::{FAST, chunks, texts};

/// Returns the parallel lists of a choice's chunks as one.
fn lists(chunks: &[Value], index: u64) -> Value {
    let mut joined = json!({"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": []});
    for choice in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()) {
        if choice["index"] == index && choice["logprobs"].is_object() {
            for (name, list) in joined.as_object_mut().unwrap() {
                list.as_array_mut().unwrap().extend(choice["logprobs"][name].as_array().unwrap().clone());
            }
        }
    }
    joined
}

#[tokio::test]
async fn an_echo_has_the_log_probabilities_of_its_prompt() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |_| {}).await;
    let mut body = json!({"prompt": ["xyz", "a"], "n": 2, "max_tokens": 2, "echo": true, "logprobs": 1,
        "add_special_tokens": false});
    let answer = deployment.post("/v1/completions", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    let first = &answer["choices"][1];
    assert_eq!(first["text"], "xyzxy");
    let logprobs = &first["logprobs"];
    assert_eq!(logprobs["tokens"], json!(["x", "y", "z", "x", "y"]));
    assert_eq!(logprobs["text_offset"], json!([0, 1, 2, 3, 4]));
    let numbers = json!([null, -0.25, -0.5, f64::from(-0.1f32), f64::from(-0.1 - 1.0f32 / 3.0)]);
    assert_eq!(logprobs["token_logprobs"], numbers);
    assert_eq!(logprobs["top_logprobs"][0], json!(null));
    let likely = logprobs["top_logprobs"][1].as_object().unwrap();
    assert_eq!((likely.len(), &likely["y"]), (2, &json!(-0.25)));
    let single = &answer["choices"][2];
    assert_eq!((&single["text"], &single["logprobs"]["token_logprobs"][0]), (&json!("aaa"), &json!(null)));

    body["stream"] = json!(true);
    let events = chunks(&Events::open(&deployment, "/v1/completions", &body).await.all().await);
    for index in 0..4 {
        let whole = &answer["choices"][index as usize];
        assert_eq!(texts(&events, index), whole["text"].as_str().unwrap());
        assert_eq!(lists(&events, index), whole["logprobs"], "choice {index}");
    }
    deployment.stop().await;
}

#[tokio::test]
async fn prompt_tokens_are_listed_with_their_ranks() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |_| {}).await;
    let tokens = deployment.post("/tokenize", &json!({"prompt": "xy", "add_special_tokens": false})).await.json();
    let y = tokens["tokens"][1].to_string();
    let body = json!({"prompt": "xy", "max_tokens": 1, "prompt_logprobs": 2, "add_special_tokens": false});
    let answer = deployment.post("/v1/completions", &body).await.json();
    let listed = &answer["choices"][0]["prompt_logprobs"];
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]), (2, &json!(null)));
    assert_eq!(listed[1][&y], json!({"logprob": -0.25, "rank": 1, "decoded_token": "y"}));
    assert_eq!(listed[1]["31"]["rank"], 2);
    assert_eq!(listed[1].as_object().unwrap().len(), 3);

    let chat = json!({"messages": [{"role": "user", "content": "xy"}], "max_tokens": 1, "prompt_logprobs": 0});
    let answer = deployment.post("/v1/chat/completions", &chat).await.json();
    let listed = answer["prompt_logprobs"].as_array().unwrap();
    assert_eq!(listed.len(), answer["usage"]["prompt_tokens"]);
    assert!(listed[1..].iter().all(|token| token.as_object().unwrap().len() == 1), "{listed:?}");
    for refused in [json!({"stream": true}), json!({"prompt_logprobs": -1}), json!({"prompt_logprobs": 21})] {
        let mut body = body.clone();
        body.as_object_mut().unwrap().extend(refused.as_object().unwrap().clone());
        let refused = deployment.post("/v1/completions", &body).await;
        assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("prompt_logprobs")));
    }
    deployment.stop().await;
}

#[tokio::test]
async fn an_answer_without_tokens_only_repeats_its_prompt_and_needs_no_decode_worker() {
    let (deployment, _prefill, decode) = Deployment::disaggregated(FAST).await;
    let mut body = json!({"prompt": "xyz", "max_tokens": 0, "echo": true, "logprobs": 0, "add_special_tokens": false});
    let answer = deployment.post("/v1/completions", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    let choice = &answer["choices"][0];
    assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!("xyz"), &json!("length")));
    assert_eq!(choice["logprobs"]["token_logprobs"], json!([null, -0.25, -0.5]));
    assert_eq!(answer["usage"]["completion_tokens"], 0);
    body["stream"] = json!(true);
    let events = chunks(&Events::open(&deployment, "/v1/completions", &body).await.all().await);
    assert_eq!(texts(&events, 0), "xyz");
    body["logprobs"] = json!(null);
    let events = chunks(&Events::open(&deployment, "/v1/completions", &body).await.all().await);
    assert_eq!(texts(&events, 0), "xyz");
    let works = || decode.told().iter().any(|word| !matches!(word, ToWorker::Renew(_)));
    assert!(!works());

    // A longer answer is handed over, and has its scores all the same.
    let body = json!({"prompt": "xyz", "max_tokens": 3, "echo": true, "logprobs": 0, "add_special_tokens": false});
    let answer = deployment.post("/v1/completions", &body).await.json();
    assert_eq!(answer["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len(), 6);
    assert!(works());
    body_without_echo_is_refused(&deployment).await;
    deployment.stop().await;
}

async fn body_without_echo_is_refused(deployment: &Deployment) {
    let refused = deployment.post("/v1/completions", &json!({"prompt": "xyz", "max_tokens": 0})).await;
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("max_tokens")));
}

#[tokio::test]
async fn an_answer_that_would_be_too_large_is_refused_before_any_work() {
    let (deployment, parrot) = Deployment::aggregated(FAST, |config| config.limits.answer_bytes_max = 64 << 10).await;
    let body = json!({"prompt": "x".repeat(100), "max_tokens": 1, "prompt_logprobs": 20});
    let refused = deployment.post("/v1/completions", &body).await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    assert!(parrot.told().is_empty());
    deployment.stop().await;
}
