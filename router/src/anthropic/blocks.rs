//! Content blocks of messages: those of the user and those of the model; knows no conversation.

use serde_json::Value;

use crate::openai::ApiError;
use crate::openai::fields::{Fields, string, wrong};
use crate::openai::known::note_unknown;
use crate::openai::tools::missing;
use crate::text::ToolCall;

/// Fields of blocks that change nothing: equal prefixes are always reused, and thoughts need no proof of their origin.
const WITHOUT_EFFECT: [&str; 5] = ["cache_control", "citations", "caller", "signature", "toolset_name"];
/// Kinds of blocks that Anthropic's API has, and that this server cannot show to a model.
const UNSUPPORTED: [&str; 8] = [
    "compaction",
    "container_upload",
    "document",
    "image",
    "search_result",
    "server_tool_use",
    "tool_reference",
    "web_search_tool_result",
];

/// Part of what the user sends.
#[derive(Debug, PartialEq)]
pub(super) enum UserBlock {
    Text(String),
    /// Result of the call of this name.
    Result {
        call_id: String,
        texts: Vec<String>,
    },
}

/// Part of what the model has said.
#[derive(Debug, PartialEq)]
pub(super) enum ModelBlock {
    Text(String),
    Thinking(String),
    /// Thoughts that only another server could read.
    Redacted,
    Call(ToolCall),
}

/// Reads what the user sends: a text, or a list of blocks.
pub(super) fn of_user(place: &str, value: Option<Value>) -> Result<Vec<UserBlock>, ApiError> {
    list(place, value, UserBlock::Text, user_block)
}

/// Reads what the model has said: a text, or a list of blocks.
pub(super) fn of_model(place: &str, value: Option<Value>) -> Result<Vec<ModelBlock>, ApiError> {
    list(place, value, ModelBlock::Text, model_block)
}

/// Reads a text, or a list of text blocks.
pub(super) fn texts(place: &str, value: Option<Value>) -> Result<Vec<String>, ApiError> {
    list(place, value, |text| text, text_block)
}

fn list<T>(
    place: &str,
    value: Option<Value>,
    plain: fn(String) -> T,
    read: fn(&str, &Value, &mut Fields) -> Result<T, ApiError>,
) -> Result<Vec<T>, ApiError> {
    match value {
        Some(Value::String(text)) => Ok(vec![plain(text)]),
        Some(Value::Array(list)) => {
            let list = list.into_iter().enumerate();
            list.map(|(index, value)| block(&format!("{place}[{index}]"), value, read)).collect()
        }
        Some(other) => Err(wrong(place, "a string or a list of content blocks", &other)),
        None => Err(missing(place)),
    }
}

/// Reads a block with `read`, which gets its place, its kind and its other fields.
fn block<T>(
    place: &str,
    value: Value,
    read: fn(&str, &Value, &mut Fields) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let Value::Object(map) = value else { return Err(wrong(place, "an object", &value)) };
    let mut fields = Fields::of(map);
    let kind = fields.take("type").unwrap_or(Value::Null);
    let block = read(place, &kind, &mut fields)?;
    for name in WITHOUT_EFFECT {
        fields.take(name);
    }
    note_unknown("messages[].content[].", &fields);
    Ok(block)
}

fn user_block(place: &str, kind: &Value, fields: &mut Fields) -> Result<UserBlock, ApiError> {
    match kind.as_str() {
        Some("text") => text(place, fields, "text").map(UserBlock::Text),
        Some("tool_result") => result(place, fields),
        _ => Err(unexpected(place, kind, "text or tool_result in a message of the user")),
    }
}

fn model_block(place: &str, kind: &Value, fields: &mut Fields) -> Result<ModelBlock, ApiError> {
    match kind.as_str() {
        Some("text") => text(place, fields, "text").map(ModelBlock::Text),
        Some("thinking") => text(place, fields, "thinking").map(ModelBlock::Thinking),
        Some("redacted_thinking") => {
            fields.take("data");
            Ok(ModelBlock::Redacted)
        }
        Some("tool_use") => call(place, fields).map(ModelBlock::Call),
        _ => {
            let expected = "text, thinking, redacted_thinking or tool_use in a message of the assistant";
            Err(unexpected(place, kind, expected))
        }
    }
}

fn text_block(place: &str, kind: &Value, fields: &mut Fields) -> Result<String, ApiError> {
    if kind == "text" { text(place, fields, "text") } else { Err(unexpected(place, kind, "text")) }
}

fn call(place: &str, fields: &mut Fields) -> Result<ToolCall, ApiError> {
    let id = text(place, fields, "id")?;
    let name = text(place, fields, "name")?;
    let field = format!("{place}.input");
    match fields.take("input") {
        Some(input @ Value::Object(_)) => Ok(ToolCall::function(id, name, input)),
        Some(other) => Err(wrong(&field, "an object", &other)),
        None => Err(missing(&field)),
    }
}

/// Reads the result of a call. Templates have no place for `is_error`: the text says what went wrong.
fn result(place: &str, fields: &mut Fields) -> Result<UserBlock, ApiError> {
    let call_id = text(place, fields, "tool_use_id")?;
    if let Some(other) = fields.take("is_error").filter(|value| !value.is_boolean()) {
        return Err(wrong(&format!("{place}.is_error"), "true or false", &other));
    }
    let texts = match fields.take("content") {
        None => Vec::new(),
        content => texts(&format!("{place}.content"), content)?,
    };
    Ok(UserBlock::Result { call_id, texts })
}

/// Takes a text that must be there.
fn text(place: &str, fields: &mut Fields, name: &str) -> Result<String, ApiError> {
    let field = format!("{place}.{name}");
    fields.take(name).ok_or_else(|| missing(&field)).and_then(|value| string(&field, value))
}

/// Error: there is no such block here.
fn unexpected(place: &str, kind: &Value, expected: &str) -> ApiError {
    let field = format!("{place}.type");
    if kind.as_str().is_some_and(|kind| UNSUPPORTED.contains(&kind)) {
        let expected = "a kind that this server supports, which are texts and tools";
        return ApiError { code: Some("unsupported_value"), ..wrong(&field, expected, kind) };
    }
    wrong(&field, expected, kind)
}
