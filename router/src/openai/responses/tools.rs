//! Tools of the Responses API, whose functions have their fields beside the type; knows no item.

use serde_json::{Map, Value, json};

use super::super::ApiError;
use super::super::fields::{self, Fields};
use super::super::tools::{Described, TOOLS_MAX, ToolUse, allowed, described, known, missing, mode, take_tools};
use crate::text::{Tool, ToolChoice};

/// Takes `tools`, `tool_choice` and `parallel_tool_calls`.
pub(super) fn take_tool_use(fields: &mut Fields) -> Result<ToolUse, ApiError> {
    let mut tools = take_tools(fields, TOOLS_MAX, "", tool)?;
    let choice = take_choice(fields, &mut tools)?;
    ToolUse::of(tools, choice, fields)
}

/// Reads a function, and describes it to templates as chat completions do.
fn tool(place: &str, value: Value) -> Result<Tool, ApiError> {
    let Value::Object(mut function) = value else { return Err(fields::wrong(place, "an object", &value)) };
    let kind = function.shift_remove("type").unwrap_or(Value::Null);
    if kind != "function" {
        return Err(other_kind(&format!("{place}.type"), &kind));
    }
    let Described { name, parameters, strict } = described(place, &function)?;
    Ok(Tool { name, parameters, strict, described: json!({"type": "function", "function": function}) })
}

/// Error: OpenAI's own servers run such tools, or read what they return.
fn other_kind(field: &str, kind: &Value) -> ApiError {
    let message = match kind.as_str() {
        Some(kind) => format!(
            "{field}: tools of the type {kind:?} are not supported by this server, which runs none itself; send functions"
        ),
        None => fields::wrong(field, "\"function\"", kind).message,
    };
    ApiError { code: Some("unsupported_value"), ..ApiError::invalid(field, message) }
}

/// Takes the choice; a choice among allowed tools drops the others.
fn take_choice(fields: &mut Fields, tools: &mut Vec<Tool>) -> Result<ToolChoice, ApiError> {
    const NAME: &str = "tool_choice";
    const EXPECTED: &str = "auto, none, required, or an object that names a function or allowed tools";
    match fields.take(NAME) {
        None => Ok(ToolChoice::Auto),
        Some(word @ Value::String(_)) => mode(NAME, EXPECTED, &word),
        Some(Value::Object(map)) => of_object(&map, EXPECTED, tools),
        Some(other) => Err(fields::wrong(NAME, EXPECTED, &other)),
    }
}

fn of_object(map: &Map<String, Value>, expected: &str, tools: &mut Vec<Tool>) -> Result<ToolChoice, ApiError> {
    match map.get("type").and_then(Value::as_str) {
        Some("function") => known("tool_choice.name", map.get("name"), tools).map(ToolChoice::Named),
        Some("allowed_tools") => allowed("tool_choice", "", &Value::Object(map.clone()), tools),
        Some(kind) => {
            let message = format!("tool_choice must be {expected}, but is of the type {kind:?}");
            Err(ApiError { code: Some("unsupported_value"), ..ApiError::invalid("tool_choice.type", message) })
        }
        None => Err(missing("tool_choice.type")),
    }
}
