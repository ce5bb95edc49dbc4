//! Tool calls and thoughts in answers. The parrot says what the user says, so the user says what a model would.

use serde_json::{Value, json};

use super::deployment::{Deployment, Events};
use super::parrot::Parrot;
use super::{FAST, chunks, finishes, texts};
use crate::Config;
use crate::text::samples;

/// Writes the conversation and the end token, and behind it what a parrot does not repeat.
pub(super) const TEMPLATE: &str = "{% for m in messages %}{{ m.content if m.content else '' }}{% for c in m.tool_calls %}<tool_call>\n{{ c.function | tojson }}\n</tool_call>{% endfor %}{% endfor %}<|end|>{% for tool in tools or [] %}{{ tool.function | tojson }}{% endfor %}{% if enable_thinking is defined %}{{ '<think>' if enable_thinking else '<think></think>' }}{% endif %}";

const CHAT: &str = "/v1/chat/completions";

async fn deployment(change: impl FnOnce(&mut Config)) -> (Deployment, Parrot) {
    Deployment::aggregated(FAST, |config| {
        std::fs::write(config.model_dir.join("chat_template.jinja"), TEMPLATE).unwrap();
        change(config);
    })
    .await
}

fn saying(text: &str, more: &Value) -> Value {
    let tool = json!({"type": "function", "function": {"name": "f"}});
    let mut body = json!({"messages": [{"role": "user", "content": text}], "tools": [tool]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// Joins the parts of a streamed choice to the message of a whole answer.
fn message(chunks: &[Value]) -> Value {
    let (mut content, mut reasoning, mut calls) = (String::new(), String::new(), Vec::<Value>::new());
    for delta in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()).map(|choice| &choice["delta"]) {
        content.push_str(delta["content"].as_str().unwrap_or_default());
        assert_eq!(delta.get("reasoning"), delta.get("reasoning_content"));
        reasoning.push_str(delta["reasoning_content"].as_str().unwrap_or_default());
        for piece in delta["tool_calls"].as_array().into_iter().flatten() {
            let index = piece["index"].as_u64().unwrap() as usize;
            if index == calls.len() {
                let whole = json!({"id": piece["id"], "type": "function", "function": piece["function"]});
                assert_eq!((&piece["type"], &piece["function"]["arguments"]), (&json!("function"), &json!("")));
                calls.push(whole);
                continue;
            }
            assert_eq!(piece, &json!({"index": index, "function": {"arguments": piece["function"]["arguments"]}}));
            let joined = calls[index]["function"]["arguments"].as_str().unwrap().to_owned()
                + piece["function"]["arguments"].as_str().unwrap();
            calls[index]["function"]["arguments"] = json!(joined);
        }
    }
    let is_silent = content.is_empty() && !(reasoning.is_empty() && calls.is_empty());
    let mut message =
        json!({"role": "assistant", "content": if is_silent { Value::Null } else { json!(content) }, "refusal": null});
    if !reasoning.is_empty() {
        message["reasoning_content"] = json!(reasoning);
        message["reasoning"] = json!(reasoning);
    }
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    message
}

/// Asks for the answer whole and as a stream, which must agree but for the names of calls; returns choice and usage.
async fn answer(deployment: &Deployment, body: &Value) -> (Value, Value) {
    let whole = deployment.post(CHAT, body).await;
    assert_eq!(whole.status, 200, "{}", whole.body);
    let (mut choice, usage) = (whole.json()["choices"][0].clone(), whole.json()["usage"].clone());
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({"include_usage": true});
    let events = chunks(&Events::open(deployment, CHAT, &streamed).await.all().await);
    let mut joined = message(&events);
    for message in [&mut choice["message"], &mut joined] {
        for call in message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
            let id = call["id"].take();
            assert!(id.as_str().unwrap().len() == 29 && id.as_str().unwrap().starts_with("call_"), "{id}");
        }
    }
    assert_eq!(joined, choice["message"]);
    assert_eq!(finishes(&events, 0), [choice["finish_reason"].as_str().unwrap()]);
    assert_eq!(events.last().unwrap()["usage"], usage);
    (choice, usage)
}

#[tokio::test]
async fn calls_come_whole_and_in_pieces() {
    let (deployment, _parrot) = deployment(|_| {}).await;
    let text = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}é\"}}\n</tool_call>";
    let (choice, usage) = answer(&deployment, &saying(text, &json!({}))).await;
    let call = json!({"id": null, "type": "function", "function": {"name": "f", "arguments": "{\"a\": \"}é\"}"}});
    assert_eq!(choice["message"], json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": [call]}));
    assert_eq!((&choice["finish_reason"], choice.get("stop_reason")), (&json!("tool_calls"), Some(&Value::Null)));
    for details in ["completion_tokens_details", "prompt_tokens_details"] {
        assert!(usage.get(details).is_some(), "{usage}");
    }

    let clock = "<tool_call>{\"name\": \"f\"}</tool_call>";
    let twice = format!("Hm.\n{clock}\n{clock}");
    let (choice, _) = answer(&deployment, &saying(&twice, &json!({}))).await;
    assert_eq!(
        (&choice["message"]["content"], choice["message"]["tool_calls"].as_array().unwrap().len()),
        (&json!("Hm."), 2)
    );

    let (choice, usage) = answer(&deployment, &saying(&twice, &json!({"parallel_tool_calls": false}))).await;
    assert_eq!(
        (choice["message"]["tool_calls"].as_array().unwrap().len(), &choice["finish_reason"]),
        (1, &json!("tool_calls"))
    );
    assert_eq!(choice.get("stop_reason"), Some(&Value::Null));
    assert!(usage["completion_tokens"].as_u64().unwrap() < twice.chars().count() as u64, "the rest is not generated");
    let (choice, _) = answer(&deployment, &saying(&twice, &json!({"stop": ["\n<tool_call>"]}))).await;
    assert_eq!((&choice["finish_reason"], &choice["stop_reason"]), (&json!("stop"), &json!("\n<tool_call>")));

    let named = json!({"tool_choice": {"type": "function", "function": {"name": "f"}}});
    let (choice, _) = answer(&deployment, &saying(clock, &named)).await;
    assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("stop"), &Value::Null));
    deployment.stop().await;
}

#[tokio::test]
async fn what_is_no_call_stays_text() {
    let (deployment, _parrot) = deployment(|_| {}).await;
    let clock = "<tool_call>{\"name\": \"f\"}</tool_call>";
    let (choice, _) = answer(&deployment, &saying(clock, &json!({"tool_choice": "none"}))).await;
    assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!(clock), &json!("stop")));
    let (choice, _) = answer(&deployment, &saying("a <tool_call>{]", &json!({}))).await;
    assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!("a <tool_call>{]"), &json!("stop")));
    let cut = json!({"max_tokens": 40});
    let (choice, _) =
        answer(&deployment, &saying("<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}", &cut)).await;
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(choice["message"]["tool_calls"][0]["function"]["arguments"], "{\"a");
    deployment.stop().await;
}

/// The template writes a call with control tokens, which the parrot repeats.
#[tokio::test]
async fn marks_that_are_control_tokens_are_seen() {
    let (deployment, _parrot) = deployment(|config| {
        let mut tokenizer = samples::byte_level_json();
        let first = tokenizer["model"]["vocab"].as_object().unwrap().len() + 4;
        for (id, content) in (first..).zip(["<tool_call>", "</tool_call>"]) {
            let token = json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
            tokenizer["added_tokens"].as_array_mut().unwrap().push(token);
        }
        std::fs::write(config.model_dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    })
    .await;
    let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}});
    let called =
        json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": null, "tool_calls": [call]}]);
    let (choice, _) = answer(&deployment, &saying("", &json!({"messages": called}))).await;
    assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!("x"), &json!("tool_calls")));
    let function = json!({"name": "f", "arguments": "{\"a\": 1}"});
    assert_eq!(choice["message"]["tool_calls"][0]["function"], function);
    let (choice, _) = answer(&deployment, &json!({"messages": called})).await;
    let hidden = json!("x\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n");
    assert_eq!(choice["message"]["content"], hidden, "without tools, control tokens are hidden as ever");
    deployment.stop().await;
}

#[tokio::test]
async fn log_probabilities_and_token_ids_come_with_calls() {
    let (deployment, _parrot) = deployment(|_| {}).await;
    let text = "<tool_call>{\"name\": \"f\"}</tool_call>";
    let mut body = saying(text, &json!({"logprobs": true, "return_token_ids": true, "stream": true}));
    let events = chunks(&Events::open(&deployment, CHAT, &body).await.all().await);
    let count = |name: &str| -> usize {
        events.iter().filter_map(|chunk| chunk["choices"][0].pointer(name)?.as_array().map(Vec::len)).sum()
    };
    // Two letters, twice, are one token; the end token counts.
    let tokens = text.len() - 2 + 1;
    assert_eq!((count("/logprobs/content"), count("/token_ids")), (tokens, tokens));
    assert_eq!((texts(&events, 0), finishes(&events, 0)), (String::new(), vec!["tool_calls".to_owned()]));
    body["stream"] = json!(false);
    let whole = deployment.post(CHAT, &body).await.json()["choices"][0].clone();
    assert_eq!(whole["logprobs"]["content"].as_array().unwrap().len(), tokens);
    deployment.stop().await;
}

#[tokio::test]
async fn thoughts_come_beside_the_content_or_as_asked() {
    let (deployment, _parrot) = deployment(|_| {}).await;
    let text = "<think>\nhm, é\n</think>\n\nYes.";
    let (choice, usage) = answer(&deployment, &saying(text, &json!({}))).await;
    let message = json!({"role": "assistant", "content": "Yes.", "refusal": null, "reasoning_content": "hm, é", "reasoning": "hm, é"});
    assert_eq!(choice["message"], message);
    let thoughts = "<think>\nhm, é\n</think>".len() - "<think".len();
    assert_eq!(usage["completion_tokens_details"], json!({"reasoning_tokens": thoughts}), "a byte is a token here");

    let (choice, _) = answer(&deployment, &saying(text, &json!({"separate_reasoning": false}))).await;
    assert_eq!(choice["message"]["content"], text);
    let (choice, usage) = answer(&deployment, &saying(text, &json!({"include_reasoning": false}))).await;
    assert_eq!(choice["message"], json!({"role": "assistant", "content": "Yes.", "refusal": null}));
    assert_eq!(usage["completion_tokens_details"], json!({"reasoning_tokens": thoughts}));

    let opened = json!({"chat_template_kwargs": {"enable_thinking": true}});
    let (choice, _) = answer(&deployment, &saying("hm</think>Yes.", &opened)).await;
    assert_eq!((&choice["message"]["reasoning"], &choice["message"]["content"]), (&json!("hm"), &json!("Yes.")));
    let (choice, _) = answer(&deployment, &saying("still thinking", &opened)).await;
    assert_eq!(
        (&choice["message"]["reasoning"], &choice["message"]["content"]),
        (&json!("still thinking"), &Value::Null)
    );
    let closed = json!({"chat_template_kwargs": {"enable_thinking": false}});
    let (choice, _) = answer(&deployment, &saying(text, &closed)).await;
    assert_eq!(choice["message"]["content"], text);
    deployment.stop().await;
}

#[tokio::test]
async fn thoughts_go_on_in_a_message_that_is_continued() {
    let (deployment, _parrot) = deployment(|_| {}).await;
    for (asked, begun, reasoning, content) in [
        (" so</think>\nYes", "<think>hm", json!(" so"), json!("Yes")),
        (" so</think>\nYes", "<think>", json!("so"), json!("Yes")),
        ("<think>so</think>", "<think>hm</think>", Value::Null, json!("<think>so</think>")),
        ("<think>so</think>", "Well, ", Value::Null, json!("<think>so</think>")),
    ] {
        let messages = json!([{"role": "user", "content": asked}, {"role": "assistant", "content": begun}]);
        let length = json!({"messages": messages, "continue_final_message": true, "max_tokens": asked.len()});
        let (choice, _) = answer(&deployment, &saying("", &length)).await;
        let message = &choice["message"];
        assert_eq!((&message["reasoning"], &message["content"]), (&reasoning, &content), "{begun:?}");
    }
    deployment.stop().await;
}

#[tokio::test]
async fn a_prompt_cannot_pretend_to_open_thoughts() {
    let (deployment, _parrot) = deployment(|config| {
        let template = "{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}";
        std::fs::write(config.model_dir.join("chat_template.jinja"), template).unwrap();
    })
    .await;
    let body = json!({"messages": [{"role": "user", "content": "a<think>"}], "max_tokens": 1});
    let answer = deployment.post(CHAT, &body).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "a", "{answer}");
    deployment.stop().await;
}

#[tokio::test]
async fn the_operator_may_leave_calls_and_thoughts_in_the_text() {
    let (deployment, _parrot) = deployment(|config| {
        config.text.tool_format = "none".to_owned().try_into().unwrap();
        config.text.reasoning_format = crate::text::ReasoningFormat::None;
    })
    .await;
    let text = "<think>a</think><tool_call>{\"name\": \"f\"}</tool_call>";
    let (choice, usage) = answer(&deployment, &saying(text, &json!({}))).await;
    assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!(text), &json!("stop")));
    assert!(usage.get("completion_tokens_details").is_none(), "{usage}");
    let refused = deployment.post(CHAT, &saying(text, &json!({"tool_choice": "required"}))).await;
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("tool_choice")));
    deployment.stop().await;
}

#[tokio::test]
async fn what_a_template_cannot_write_is_refused() {
    let (plain, _parrot) = Deployment::aggregated(FAST, |_| {}).await;
    let called = json!([
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
    ]);
    for (body, param, said) in [
        (saying("x", &json!({})), "tools", "no place for tools"),
        (json!({"messages": called}), "messages[1].tool_calls", "no place for tool calls"),
        (json!({"messages": [{"role": "tool", "content": "x"}]}), "messages[0].role", "no place for results"),
    ] {
        for path in [CHAT, "/tokenize"] {
            let answer = plain.post(path, &body).await;
            let error = &answer.json()["error"];
            assert_eq!((answer.status, &error["param"]), (400, &json!(param)), "{error}");
            assert!(error["message"].as_str().unwrap().contains(said), "{error}");
        }
    }
    plain.stop().await;
    let (unknown, _parrot) = deployment(|config| {
        let template = "{{ messages[0].content }}<|end|>{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}";
        std::fs::write(config.model_dir.join("chat_template.jinja"), template).unwrap();
    })
    .await;
    let answer = unknown.post(CHAT, &saying("x", &json!({}))).await;
    assert!(answer.status == 400 && answer.body.contains("router.text.tool_format"), "{}", answer.body);
    unknown.stop().await;
}

/// Found by trying: such a call went on until its length was reached, or the tool at fault was not named.
#[tokio::test]
async fn a_tool_that_nothing_can_call_is_named() {
    let endless = json!({"type": "object", "properties": {"n": {"$ref": "#"}}, "required": ["n"]});
    for (format, parameters, said) in [
        ("hermes", json!({"properties": {}, "required": ["a"], "additionalProperties": false}), "a is required, but"),
        ("qwen3_coder", json!({"properties": {"a": {"enum": []}}, "required": ["a"]}), "a: enum is empty"),
        ("qwen3_coder", endless.clone(), "n: n: # contains itself without end"),
        ("hermes", endless, "n: n: # contains itself without end"),
        (
            "hermes",
            json!({"properties": {"a": {"type": "integer", "multipleOf": 5, "minimum": 1, "maximum": 2}}, "required": ["a"]}),
            "nsatisfiable",
        ),
    ] {
        let (deployment, _parrot) =
            deployment(|config| config.text.tool_format = format.to_owned().try_into().unwrap()).await;
        let tool = |name: &str, parameters: &Value| json!({"type": "function", "function": {"name": name, "strict": true, "parameters": parameters}});
        let tools = json!([tool("fine", &json!({"properties": {}})), tool("broken", &parameters)]);
        let body = saying("x", &json!({"tools": tools, "tool_choice": "required"}));
        let refused = deployment.post(CHAT, &body).await;
        let error = &refused.json()["error"];
        let message = error["message"].as_str().unwrap();
        assert_eq!((refused.status, &error["param"]), (400, &json!("tools")), "{error}");
        assert!(message.contains("of \"broken\"") && message.contains(said), "{format} {parameters}: {message}");
        deployment.stop().await;
    }
}
