//! The Responses API. The parrot says what the user says, so the user says what a model would.

use std::time::Duration;

use sched::message::ToWorker;
use serde_json::{Value, json};

use super::FAST;
use super::deployment::{Deployment, Events};
use super::parrot::Parrot;
use super::tools::TEMPLATE;
use crate::Config;

const PATH: &str = "/v1/responses";

async fn deployment(pace: Duration, change: impl FnOnce(&mut Config)) -> (Deployment, Parrot) {
    Deployment::aggregated(pace, |config| {
        std::fs::write(config.model_dir.join("chat_template.jinja"), TEMPLATE).unwrap();
        change(config);
    })
    .await
}

fn saying(text: &str, more: &Value) -> Value {
    let mut body = json!({"input": text, "tools": [{"type": "function", "name": "f"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

async fn events(deployment: &Deployment, body: &Value) -> Vec<Value> {
    let mut body = body.clone();
    body["stream"] = json!(true);
    let events = Events::open(deployment, PATH, &body).await.all().await;
    events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

/// Takes the names out, which are drawn, and checks their form.
fn nameless(mut response: Value) -> Value {
    assert!(response["id"].take().as_str().unwrap().starts_with("resp_") && response["created_at"].take().is_u64());
    for item in response["output"].as_array_mut().unwrap() {
        let prefix = match item["type"].as_str().unwrap() {
            "message" => "msg_",
            "reasoning" => "rs_",
            _ => "fc_",
        };
        assert!(item["id"].take().as_str().unwrap().starts_with(prefix));
        if let Some(call) = item.get_mut("call_id") {
            assert!(call.take().as_str().unwrap().starts_with("call_"));
        }
    }
    response
}

/// Asks for the answer whole and as a stream, whose end and whose joined deltas must agree with it; returns it.
async fn answer(deployment: &Deployment, body: &Value) -> Value {
    let whole = deployment.post(PATH, body).await;
    assert_eq!(whole.status, 200, "{}", whole.body);
    let events = events(deployment, body).await;
    let numbers: Vec<u64> = events.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>());
    let last = events.last().unwrap();
    let status = last["response"]["status"].as_str().unwrap();
    assert_eq!(last["type"], format!("response.{status}"));
    for (index, item) in last["response"]["output"].as_array().unwrap().iter().enumerate() {
        let of_item = || events.iter().filter(|event| event["item_id"] == item["id"] && event["output_index"] == index);
        let joined: String = of_item().filter_map(|event| event["delta"].as_str()).collect();
        let said = item.get("arguments").unwrap_or(&item["content"][0]["text"]);
        assert_eq!(joined, said.as_str().unwrap());
        let done = events.iter().filter(|event| event["type"] == "response.output_item.done" && event["item"] == *item);
        assert_eq!(done.count(), 1, "{item}");
    }
    let whole = nameless(whole.json());
    assert_eq!(nameless(last["response"].clone()), whole);
    whole
}

#[tokio::test]
async fn everything_that_a_model_says_is_an_item_in_its_order() {
    for pace in [Duration::ZERO, FAST] {
        let (deployment, _parrot) = deployment(pace, |config| {
            let roomy = r#"{"model_type": "llama", "vocab_size": 280, "max_position_embeddings": 512}"#;
            std::fs::write(config.model_dir.join("config.json"), roomy).unwrap();
        })
        .await;
        let call = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"é\"}}\n</tool_call>";
        let text = format!("<think>hm</think>Look. {call}{call} And. {call}\nBye.");
        let answer = answer(&deployment, &saying(&text, &json!({}))).await;
        let called = json!({"type": "function_call", "id": null, "status": "completed", "call_id": null, "name": "f", "arguments": "{\"a\": \"é\"}"});
        let message = |text: &str| json!({"type": "message", "id": null, "status": "completed", "role": "assistant", "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]});
        let thoughts = json!({"type": "reasoning", "id": null, "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}], "status": "completed"});
        assert_eq!(
            answer["output"],
            json!([thoughts, message("Look."), called, called, message(" And."), called, message("\nBye.")])
        );
        let usage = &answer["usage"];
        assert_eq!(usage["input_tokens_details"], json!({"cached_tokens": 2, "cache_write_tokens": 0}));
        assert!(usage["output_tokens_details"]["reasoning_tokens"].as_u64().unwrap() > 0, "{usage}");
        deployment.stop().await;
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_is_incomplete() {
    let (deployment, _parrot) = deployment(FAST, |_| {}).await;
    let cut = answer(&deployment, &saying("Hello", &json!({"max_output_tokens": 3}))).await;
    assert_eq!(
        (&cut["status"], &cut["incomplete_details"]),
        (&json!("incomplete"), &json!({"reason": "max_output_tokens"}))
    );
    assert_eq!((&cut["output"][0]["status"], &cut["max_output_tokens"]), (&json!("incomplete"), &json!(3)));
    let call = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1";
    let cut = answer(&deployment, &saying(call, &json!({"max_output_tokens": call.len() - 1}))).await;
    let item = json!({"type": "function_call", "id": null, "status": "incomplete", "call_id": null, "name": "f", "arguments": "{\"a\": 1"});
    assert_eq!(cut["output"], json!([item]));
    deployment.stop().await;
}

#[tokio::test]
async fn calls_come_back_with_their_results() {
    let (deployment, parrot) = deployment(FAST, |_| {}).await;
    let first = deployment
        .post(PATH, &saying("<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>", &json!({})))
        .await
        .json();
    let mut input = vec![json!({"role": "user", "content": "x"})];
    input.extend(first["output"].as_array().unwrap().iter().cloned());
    input.push(json!({"type": "function_call_output", "call_id": first["output"][0]["call_id"], "output": "7"}));
    let second = deployment.post(PATH, &saying("", &json!({"input": input}))).await.json();
    let text = "x<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>7";
    assert_eq!(second["output"][1]["name"], "f", "the parrot repeats {text}: {second}");
    assert_eq!(second["output"][2]["content"][0]["text"], "7", "{second}");
    let format = json!({"type": "json_schema", "name": "n", "schema": {"type": "integer"}});
    let body = json!({"input": "x", "text": {"format": format}, "include": ["message.output_text.logprobs"], "top_logprobs": 1});
    let answer = answer(&deployment, &body).await;
    assert_eq!(answer["text"]["format"], format);
    assert_eq!(answer["output"][0]["content"][0]["logprobs"].as_array().unwrap().len(), 2, "{answer}");
    let structured =
        |message: &ToWorker| matches!(message, ToWorker::Submit(request, _) if request.params.structure.is_some());
    assert!(structured(parrot.told().iter().rfind(|message| matches!(message, ToWorker::Submit(..))).unwrap()));
    deployment.stop().await;
}

#[tokio::test]
async fn a_stream_that_cannot_go_on_says_so() {
    let (narrow, parrot) = deployment(FAST, |config| config.limits.answer_bytes_max = 2_000).await;
    let body = json!({"input": "Hello, who is there?", "max_output_tokens": 220, "ignore_eos": true, "logprobs": null,
        "include": ["message.output_text.logprobs"], "stream": true});
    let rest = Events::open(&narrow, PATH, &body).await.all().await;
    check_failure(&rest, "answer_too_large", "invalid_prompt");
    super::deployment::until("the worker has stopped", || parrot.legs() == 0).await;
    narrow.stop().await;
}

fn check_failure(events: &[String], code: &str, status: &str) {
    let parsed = |event: &String| serde_json::from_str::<Value>(event).unwrap();
    let [.., error, failed] = events else { panic!("{events:?}") };
    let (error, failed) = (parsed(error), parsed(failed));
    assert_eq!(
        (&error["type"], &error["code"], &error["error"]["code"]),
        (&json!("error"), &json!(code), &json!(code))
    );
    assert_eq!((&failed["type"], &failed["response"]["status"]), (&json!("response.failed"), &json!("failed")));
    assert_eq!(failed["response"]["error"], json!({"code": status, "message": error["message"]}));
    assert!(!failed["response"]["output"][0]["content"][0]["text"].as_str().unwrap().is_empty());
    assert_eq!(failed["sequence_number"].as_u64(), error["sequence_number"].as_u64().map(|number| number + 1));
}

#[tokio::test]
async fn errors_are_in_the_words_of_this_api() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |_| {}).await;
    for (body, param, said) in [
        (
            json!({"input": "x", "max_output_tokens": 999}),
            "max_output_tokens",
            "'max_output_tokens' is too large: 999. This model's maximum context length is 256",
        ),
        (json!({"input": "x", "instructions": "y"}), "input", "no system prompts here"),
        (
            json!({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}),
            "input",
            "the chat template of this model has no place for results",
        ),
        (json!({"input": "x".repeat(600)}), "input_tokens", "This model's maximum context length is 256"),
        (json!({"input": "x", "stream": true, "tools": [{"type": "mcp"}]}), "tools[0].type", "mcp"),
        (json!({"input": "x", "model": "gpt-9"}), "model", "gpt-9"),
    ] {
        let answer = deployment.post(PATH, &body).await;
        let error = &answer.json()["error"];
        assert!(answer.status == 400 || answer.status == 404, "{error}");
        assert_eq!(error["param"], param, "{error}");
        assert!(error["message"].as_str().unwrap().starts_with(said) || !said.starts_with("the "), "{error}");
        assert!(error["message"].as_str().unwrap().contains(said), "{error}");
    }
    assert_eq!(deployment.get("/v1/responses/resp_1").await.status, 404);
    assert_eq!((deployment.get(PATH).await.status, deployment.get(PATH).await.header("allow")), (405, "POST"));
    deployment.stop().await;
}
