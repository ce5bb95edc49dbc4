//! What an answer repeats of its request; knows neither the conversation nor the answer.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::super::fields::Fields;

/// Fields of a request that its answer repeats, with OpenAI's defaults where the client sent none. Their types are
/// checked when the request is read. They are kept as JSON, because a parsed tree takes many times its bytes.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Asked {
    background: bool,
    instructions: Option<Box<RawValue>>,
    max_output_tokens: Option<Box<RawValue>>,
    max_tool_calls: Option<Box<RawValue>>,
    metadata: Box<RawValue>,
    parallel_tool_calls: Box<RawValue>,
    previous_response_id: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_cache_key: Option<Box<RawValue>>,
    reasoning: Reasoning,
    #[serde(skip_serializing_if = "Option::is_none")]
    safety_identifier: Option<Box<RawValue>>,
    store: bool,
    temperature: Option<Box<RawValue>>,
    text: Text,
    tool_choice: Box<RawValue>,
    tools: Vec<Box<RawValue>>,
    top_logprobs: Box<RawValue>,
    top_p: Option<Box<RawValue>>,
    truncation: &'static str,
    user: Option<Box<RawValue>>,
}

#[derive(Debug, Clone, Serialize)]
struct Reasoning {
    effort: Option<Box<RawValue>>,
    summary: Option<Box<RawValue>>,
}

#[derive(Debug, Clone, Serialize)]
struct Text {
    format: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verbosity: Option<Box<RawValue>>,
}

/// How thoughts appear in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// As content of the item of thoughts.
    Content,
    /// As its summary, which some clients show instead (`reasoning.summary`).
    Summary,
}

impl Asked {
    /// Looks at the fields of a request.
    pub(super) fn of(fields: &Fields) -> Asked {
        let given = |name: &str| fields.look(name).map(raw);
        let or = |name: &str, default: Value| raw(fields.look(name).unwrap_or(&default));
        let within = |object: &str, name: &str| {
            let value = fields.look(object).and_then(|object| object.get(name));
            value.filter(|value| !value.is_null()).map(raw)
        };
        Asked {
            background: false,
            instructions: given("instructions"),
            max_output_tokens: given("max_output_tokens"),
            max_tool_calls: given("max_tool_calls"),
            metadata: or("metadata", json!({})),
            parallel_tool_calls: or("parallel_tool_calls", json!(true)),
            previous_response_id: None,
            prompt_cache_key: given("prompt_cache_key"),
            reasoning: Reasoning { effort: within("reasoning", "effort"), summary: within("reasoning", "summary") },
            safety_identifier: given("safety_identifier"),
            store: false,
            temperature: given("temperature"),
            text: Text {
                format: within("text", "format").unwrap_or_else(|| raw(&json!({"type": "text"}))),
                verbosity: within("text", "verbosity"),
            },
            tool_choice: or("tool_choice", json!("auto")),
            tools: tools(fields),
            top_logprobs: or("top_logprobs", json!(0)),
            top_p: given("top_p"),
            truncation: "disabled",
            user: given("user"),
        }
    }

    /// Bytes of JSON.
    pub(super) fn json_bytes(&self) -> usize {
        super::super::sse::json(self).len()
    }
}

/// Returns the tools; typed clients expect their schema and strictness, if only null.
fn tools(fields: &Fields) -> Vec<Box<RawValue>> {
    let tool = |tool: &Value| match tool.as_object() {
        Some(map) if ["parameters", "strict"].iter().any(|name| !map.contains_key(*name)) => {
            let mut map = map.clone();
            for name in ["parameters", "strict"] {
                map.entry(name).or_insert(Value::Null);
            }
            raw(&Value::Object(map))
        }
        Some(_) | None => raw(tool),
    };
    fields.look("tools").and_then(Value::as_array).into_iter().flatten().map(tool).collect()
}

#[expect(clippy::expect_used, reason = "a parsed value can be written as JSON")]
fn raw(value: &Value) -> Box<RawValue> {
    to_raw_value(value).expect("a parsed value can be written as JSON")
}
