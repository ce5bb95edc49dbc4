//! What an answer repeats of its request; knows neither the conversation nor the answer.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::fields::Fields;

/// Fields of a request that its answer repeats, with OpenAI's defaults where the client sent none. Their types are
/// checked when the request is read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Asked {
    background: bool,
    instructions: Option<Value>,
    max_output_tokens: Option<Value>,
    max_tool_calls: Option<Value>,
    metadata: Value,
    parallel_tool_calls: Value,
    previous_response_id: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_cache_key: Option<Value>,
    reasoning: Reasoning,
    #[serde(skip_serializing_if = "Option::is_none")]
    safety_identifier: Option<Value>,
    store: bool,
    temperature: Option<Value>,
    text: Map<String, Value>,
    tool_choice: Value,
    tools: Vec<Value>,
    top_logprobs: Value,
    top_p: Option<Value>,
    truncation: &'static str,
    user: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Reasoning {
    effort: Option<Value>,
    summary: Option<Value>,
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
        let given = |name: &str| fields.look(name).cloned();
        let reasoning = |name: &str| fields.look("reasoning").and_then(|reasoning| reasoning.get(name)).cloned();
        Asked {
            background: false,
            instructions: given("instructions"),
            max_output_tokens: given("max_output_tokens"),
            max_tool_calls: given("max_tool_calls"),
            metadata: given("metadata").unwrap_or_else(|| json!({})),
            parallel_tool_calls: given("parallel_tool_calls").unwrap_or(Value::Bool(true)),
            previous_response_id: None,
            prompt_cache_key: given("prompt_cache_key"),
            reasoning: Reasoning { effort: reasoning("effort"), summary: reasoning("summary") },
            safety_identifier: given("safety_identifier"),
            store: false,
            temperature: given("temperature"),
            text: text(fields),
            tool_choice: given("tool_choice").unwrap_or_else(|| json!("auto")),
            tools: tools(fields),
            top_logprobs: given("top_logprobs").unwrap_or_else(|| json!(0)),
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

fn text(fields: &Fields) -> Map<String, Value> {
    let mut text = fields.look("text").and_then(Value::as_object).cloned().unwrap_or_default();
    let format = text.entry("format").or_insert(Value::Null);
    if format.is_null() {
        *format = json!({"type": "text"});
    }
    text
}

/// Returns the tools; typed clients expect their schema and strictness, if only null.
fn tools(fields: &Fields) -> Vec<Value> {
    let mut tools = fields.look("tools").and_then(Value::as_array).cloned().unwrap_or_default();
    for tool in tools.iter_mut().filter_map(Value::as_object_mut) {
        for name in ["parameters", "strict"] {
            tool.entry(name).or_insert(Value::Null);
        }
    }
    tools
}
