//! Tests of Anthropic's Messages over the whole router: answers whole and streamed, errors in their own form.

use std::time::Duration;

use node::key::KeyDigest;
use serde_json::{Value, json};

use super::FAST;
use super::deployment::{Answer, Deployment, Events, post, until};
use super::parrot::{CACHED_TOKENS, Parrot};
use super::tools::TEMPLATE;
use crate::{Config, KeyConfig};

const MESSAGES: &str = "/v1/messages";
const COUNT: &str = "/v1/messages/count_tokens";

async fn deployment(pace: Duration, change: impl FnOnce(&mut Config)) -> (Deployment, Parrot) {
    Deployment::aggregated(pace, |config| {
        std::fs::write(config.model_dir.join("chat_template.jinja"), TEMPLATE).unwrap();
        change(config);
    })
    .await
}

fn saying(text: &str, more: &Value) -> Value {
    let tool = json!({"name": "f", "input_schema": {"type": "object"}});
    let mut body = json!({"max_tokens": 200, "messages": [{"role": "user", "content": text}], "tools": [tool]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// Puts the events of a stream together to a message, as Anthropic's clients do.
fn message(events: &[String]) -> Value {
    let events: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    assert_eq!(events.last().unwrap(), &json!({"type": "message_stop"}));
    let mut message = events[0]["message"].clone();
    let mut inputs: Vec<String> = Vec::new();
    for event in &events[1..events.len() - 1] {
        let index = event["index"].as_u64().unwrap_or_default() as usize;
        let content = message["content"].as_array_mut().unwrap();
        match event["type"].as_str().unwrap() {
            "content_block_start" => {
                assert_eq!((index, inputs.len()), (content.len(), index), "{event}");
                content.push(event["content_block"].clone());
                inputs.push(String::new());
            }
            "content_block_delta" => {
                assert_eq!(index + 1, content.len(), "only the last block is open: {event}");
                let delta = event["delta"].as_object().unwrap();
                for (name, more) in delta.iter().filter(|(name, _)| *name != "type") {
                    let more = more.as_str().unwrap();
                    if name == "partial_json" {
                        inputs[index].push_str(more);
                    } else {
                        let joined = content[index][name].as_str().unwrap().to_owned() + more;
                        content[index][name] = json!(joined);
                    }
                }
            }
            "content_block_stop" if content[index]["type"] == "tool_use" => {
                content[index]["input"] = serde_json::from_str(&inputs[index]).unwrap_or(json!({}));
            }
            "content_block_stop" => {}
            "message_delta" => {
                for (name, value) in event["delta"].as_object().unwrap() {
                    message[name] = value.clone();
                }
                message["usage"] = event["usage"].clone();
            }
            other => panic!("{other}"),
        }
    }
    message
}

/// Asks for the answer whole and as a stream, which must agree but for the names of answer and calls.
async fn answer(deployment: &Deployment, body: &Value) -> Value {
    let whole = deployment.post(MESSAGES, body).await;
    assert_eq!(whole.status, 200, "{}", whole.body);
    let mut whole = whole.json();
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let mut joined = message(&Events::open(deployment, MESSAGES, &streamed).await.all().await);
    for message in [&mut whole, &mut joined] {
        let id = message["id"].take();
        assert!(id.as_str().unwrap().starts_with("msg_"), "{id}");
        for block in message["content"].as_array_mut().unwrap().iter_mut().filter(|block| block["type"] == "tool_use") {
            assert!(block["id"].take().as_str().unwrap().len() > 8);
        }
    }
    assert_eq!(joined, whole);
    whole
}

fn text(text: &str) -> Value {
    json!([{"type": "text", "text": text}])
}

#[tokio::test]
async fn a_message_is_answered_whole_and_streamed() {
    let (deployment, _parrot) = deployment(FAST, |_| {}).await;
    let body = json!({"model": "parrot", "max_tokens": 50, "system": [{"type": "text", "text": "ab"}],
        "messages": [{"role": "user", "content": "hello ☃"}]});
    let answer = answer(&deployment, &body).await;
    assert_eq!(
        (&answer["type"], &answer["role"], &answer["model"]),
        (&json!("message"), &json!("assistant"), &json!("parrot"))
    );
    assert_eq!((&answer["content"], &answer["stop_reason"]), (&text("abhello ☃"), &json!("end_turn")));
    assert_eq!(answer.get("stop_sequence"), Some(&Value::Null));
    let count = deployment.post(COUNT, &body).await.json()["input_tokens"].as_u64().unwrap();
    let cached = u64::from(CACHED_TOKENS);
    let usage = json!({"input_tokens": count - cached, "cache_creation_input_tokens": 0, "cache_read_input_tokens": cached,
        "output_tokens": count, "output_tokens_details": {"thinking_tokens": 0}});
    assert_eq!(answer["usage"], usage, "the parrot says the prompt and its end token");

    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let first = Events::open(&deployment, MESSAGES, &streamed).await.next().await.unwrap();
    let first: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(first["message"]["usage"]["input_tokens"], count, "{first}");
    deployment.stop().await;
}

#[tokio::test]
async fn calls_are_made_and_their_results_come_back() {
    let (deployment, _parrot) = deployment(FAST, |_| {}).await;
    let call = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}é\"}}\n</tool_call>";
    let called = answer(&deployment, &saying(call, &json!({}))).await;
    let block = json!({"type": "tool_use", "id": null, "name": "f", "input": {"a": "}é"}});
    assert_eq!((&called["content"], &called["stop_reason"]), (&json!([block]), &json!("tool_use")));
    let clock = "<tool_call>{\"name\": \"f\"}</tool_call>";
    let twice = answer(&deployment, &saying(&format!("Hm.\n{clock}\n{clock}"), &json!({}))).await;
    let empty = json!({"type": "tool_use", "id": null, "name": "f", "input": {}});
    assert_eq!(twice["content"], json!([{"type": "text", "text": "Hm."}, empty, empty]));

    for choice in [json!({"type": "tool", "name": "f"}), json!({"type": "any", "disable_parallel_tool_use": true})] {
        let one = answer(&deployment, &saying(&format!("{call}{call}"), &json!({"tool_choice": choice}))).await;
        assert_eq!((&one["content"], &one["stop_reason"]), (&json!([block]), &json!("tool_use")), "{choice}");
    }
    let none = answer(&deployment, &saying(call, &json!({"tool_choice": {"type": "none"}}))).await;
    assert_eq!((&none["content"], &none["stop_reason"]), (&text(call), &json!("end_turn")));
    let cut = answer(&deployment, &saying(call, &json!({"max_tokens": 46}))).await;
    assert_eq!((&cut["content"][0]["input"], &cut["stop_reason"]), (&json!({}), &json!("max_tokens")));

    // The parrot says what it has read, which shows the turns in the prompt.
    let turns = json!([
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [{"type": "text", "text": "y"}, {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "7"}, {"type": "text", "text": "z"}]},
    ]);
    let again = answer(&deployment, &saying("", &json!({"messages": turns, "tools": null}))).await;
    let said = "xy<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>7z";
    assert_eq!(again["content"], text(said));
    deployment.stop().await;
}

#[tokio::test]
async fn thoughts_are_blocks_for_those_who_ask() {
    let (deployment, _parrot) = deployment(FAST, |_| {}).await;
    let thought = "<think>\nhm, é\n</think>\n\nYes.";
    let silent = answer(&deployment, &saying(thought, &json!({}))).await;
    assert_eq!(silent["content"], text("Yes."));
    let tokens = "<think>\nhm, é\n</think>".len() - "<think".len();
    assert_eq!(silent["usage"]["output_tokens_details"], json!({"thinking_tokens": tokens}), "a byte is a token here");

    let asked = json!({"thinking": {"type": "enabled", "budget_tokens": 1024}});
    let shown = answer(&deployment, &saying("hm</think>Yes.", &asked)).await;
    let block = |thinking: &str| json!({"type": "thinking", "thinking": thinking, "signature": "unsigned"});
    assert_eq!(shown["content"], json!([block("hm"), {"type": "text", "text": "Yes."}]));
    let shown = answer(&deployment, &saying("still thinking", &asked)).await;
    assert_eq!(shown["content"], json!([block("still thinking")]));
    let off = answer(&deployment, &saying(thought, &json!({"thinking": {"type": "disabled"}}))).await;
    assert_eq!(off["content"], text(thought), "the template has closed the thoughts");
    deployment.stop().await;
}

#[tokio::test]
async fn a_stream_begins_while_thoughts_are_left_out() {
    let (deployment, parrot) = deployment(Duration::from_millis(5), |_| {}).await;
    let body = saying("<think>hm", &json!({"stream": true, "ignore_eos": true}));
    let mut events = Events::open(&deployment, MESSAGES, &body).await;
    assert!(events.next().await.unwrap().contains("message_start"));
    assert_eq!(parrot.legs(), 1, "the model still thinks");
    deployment.stop().await;
}

#[tokio::test]
async fn an_answer_ends_where_it_must() {
    let (deployment, _parrot) = deployment(FAST, |_| {}).await;
    let stopped = answer(&deployment, &saying("one, two", &json!({"stop_sequences": [", t"]}))).await;
    assert_eq!(
        (&stopped["content"], &stopped["stop_reason"], &stopped["stop_sequence"]),
        (&text("one"), &json!("stop_sequence"), &json!(", t"))
    );
    let begun = json!([{"role": "user", "content": "xy"}, {"role": "assistant", "content": "z"}]);
    let goes_on = answer(&deployment, &saying("", &json!({"messages": begun, "max_tokens": 3, "tools": null}))).await;
    assert_eq!((&goes_on["content"], &goes_on["stop_reason"]), (&text("xyz"), &json!("max_tokens")));
    let endless = json!({"max_tokens": 1_000_000, "ignore_eos": true, "tools": null});
    let cut = answer(&deployment, &saying("xy", &endless)).await;
    let count = |name: &str| cut["usage"][name].as_u64().unwrap();
    let tokens = count("input_tokens") + count("cache_read_input_tokens") + count("output_tokens");
    assert_eq!((tokens, &cut["stop_reason"]), (256, &json!("model_context_window_exceeded")));
    let nothing = answer(&deployment, &saying("", &json!({"tools": null}))).await;
    assert_eq!((&nothing["content"], &nothing["stop_reason"]), (&json!([]), &json!("end_turn")));
    deployment.stop().await;
}

fn error(answer: &Answer) -> (u16, String) {
    let body = answer.json();
    assert_eq!((&body["type"], body["error"].as_object().unwrap().len()), (&json!("error"), 2), "{body}");
    assert_eq!(body["request_id"], answer.header("request-id"), "{body}");
    assert_eq!(answer.header("request-id"), answer.header("x-request-id"));
    (answer.status, body["error"]["type"].as_str().unwrap().to_owned())
}

fn said(answer: &Answer) -> String {
    answer.json()["error"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn errors_have_a_form_of_their_own() {
    let (deployment, _parrot) = deployment(FAST, |config| config.limits.body_bytes_max = 20_000).await;
    let invalid = "invalid_request_error".to_owned();
    for path in [MESSAGES, COUNT] {
        let wrong = json!({"max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "image"}]}]});
        let wrong = deployment.post(path, &wrong).await;
        assert_eq!(error(&wrong), (400, invalid.clone()));
        assert!(said(&wrong).starts_with("messages[0].content[0].type must be a kind that"), "{}", wrong.body);
        let unknown = deployment.post(path, &saying("x", &json!({"model": "claude"}))).await;
        assert_eq!(error(&unknown), (404, "not_found_error".to_owned()));
        assert_eq!(error(&deployment.get(path).await), (405, invalid.clone()));
        let large = deployment.post(path, &saying(&"x".repeat(20_000), &json!({}))).await;
        assert_eq!(error(&large), (413, "request_too_large".to_owned()));
        let mut text = post(path, &json!({}));
        text.headers_mut().insert("content-type", "text/plain".parse().unwrap());
        assert_eq!(error(&deployment.call(text).await), (415, invalid.clone()));
        let mut foreign = post(path, &json!({}));
        foreign.headers_mut().insert("origin", "https://evil.example".parse().unwrap());
        assert_eq!(error(&deployment.call(foreign).await), (403, "permission_error".to_owned()));
    }
    assert_eq!(error(&deployment.post("/v1/messages/batches", &json!({})).await), (404, "not_found_error".to_owned()));
    let long = deployment.post(MESSAGES, &saying(&"x".repeat(300), &json!({}))).await;
    assert_eq!(error(&long), (400, invalid));
    assert!(said(&long).starts_with("prompt is too long: This model's maximum context length is 256"), "{}", long.body);
    let neighbour = deployment.get("/v1/messagesx").await;
    assert_eq!(neighbour.json()["error"]["code"], "not_found", "others keep theirs: {}", neighbour.body);
    let embeddings = deployment.post("/v1/embeddings", &json!({"model": "parrot", "input": "x"})).await;
    assert_eq!((embeddings.status, &embeddings.json()["error"]["code"]), (400, &json!("unsupported_endpoint")));
    deployment.stop().await;
}

#[tokio::test]
async fn the_door_speaks_the_same_form() {
    let digest = KeyDigest::of(b"sk-ann").unwrap();
    let limited = KeyConfig { requests_per_minute: 1, ..KeyConfig::unlimited("ann", digest) };
    let (deployment, _parrot) = deployment(FAST, |config| config.keys.list = vec![limited]).await;
    let stranger = deployment.post(MESSAGES, &saying("x", &json!({}))).await;
    assert_eq!(error(&stranger), (401, "authentication_error".to_owned()));
    let mut answers = Vec::new();
    for _ in 0..2 {
        let mut request = post(MESSAGES, &saying("x", &json!({})));
        request.headers_mut().insert("x-api-key", "sk-ann".parse().unwrap());
        request.headers_mut().insert("anthropic-version", "2023-06-01".parse().unwrap());
        answers.push(deployment.call(request).await);
    }
    assert_eq!((answers[0].status, answers[0].header("request-id").is_empty()), (200, false));
    assert_eq!(error(&answers[1]), (429, "rate_limit_error".to_owned()));
    assert!(answers[1].header("retry-after").parse::<u64>().unwrap() > 0);
    deployment.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_message() {
    let (deployment, parrot) = deployment(Duration::from_millis(5), |_| {}).await;
    let body = saying("ab", &json!({"stream": true, "ignore_eos": true}));
    let mut events = Events::open(&deployment, MESSAGES, &body).await;
    events.next().await.unwrap();
    assert_eq!(parrot.legs(), 1);
    drop(events);
    until("the worker has stopped", || parrot.legs() == 0).await;
    deployment.stop().await;
}
