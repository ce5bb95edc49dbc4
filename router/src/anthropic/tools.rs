//! Tools in a request for a message: those offered, and the choice among them; knows no template.

use serde_json::{Map, Value};

use crate::model_output::CallsPerTurn;
use crate::openai::fields::{Fields, flag, string, wrong};
use crate::openai::known::note_unknown;
use crate::openai::tools::{function_name, known, missing, take_tools};
use crate::openai::{ApiError, ToolUse};
use crate::text::{Strict, Tool, ToolChoice};

/// Most tools in one request. Agents with several MCP servers offer hundreds.
const TOOLS_MAX: usize = 512;
/// Longest name of a tool, as in Anthropic's API; those of MCP servers begin with the server's name.
const NAME_CHARS_MAX: usize = 128;

/// Takes `tools` and `tool_choice`.
pub(super) fn take_tool_use(fields: &mut Fields) -> Result<ToolUse, ApiError> {
    let tools = take_tools(fields, TOOLS_MAX, "", tool)?;
    let (choice, limit) = take_choice(fields, &tools)?;
    Ok(ToolUse::new(tools, choice, limit))
}

fn tool(place: &str, value: Value) -> Result<Tool, ApiError> {
    let Value::Object(map) = value else { return Err(wrong(place, "an object", &value)) };
    if let Some(kind) = map.get("type").filter(|kind| !kind.is_null() && *kind != "custom") {
        return Err(unsupported_tool(place, kind, map.get("name")));
    }
    let name = function_name(&format!("{place}.name"), map.get("name"), NAME_CHARS_MAX)?;
    let mut fields = Fields::of(map);
    for without_effect in ["type", "name", "cache_control", "eager_input_streaming", "allowed_callers"] {
        fields.take(without_effect);
    }
    let field = |name: &str| format!("{place}.{name}");
    let description = fields.take("description").map(|text| string(&field("description"), text)).transpose()?;
    let parameters = match fields.take("input_schema") {
        Some(Value::Object(schema)) => schema,
        Some(other) => return Err(wrong(&field("input_schema"), "a JSON schema, which is an object", &other)),
        None => return Err(missing(&field("input_schema"))),
    };
    let strict = fields.take("strict").map(|strict| flag(&field("strict"), &strict)).transpose()?;
    note_unknown("tools[].", &fields);
    let strict = if strict == Some(true) { Strict::Yes } else { Strict::No };
    Ok(Tool::function(name, description, parameters, strict))
}

/// Error: Anthropic runs or defines this tool, and models served here do not know it.
fn unsupported_tool(place: &str, kind: &Value, name: Option<&Value>) -> ApiError {
    let named = name.and_then(Value::as_str).map(|name| format!(" (tool {name:?})")).unwrap_or_default();
    let field = format!("{place}.type");
    let error = wrong(&field, "\"custom\" or absent: this server knows no other kinds of tools", kind);
    ApiError { code: Some("unsupported_value"), message: error.message.clone() + &named, ..error }
}

/// Takes the choice among the tools and the number of calls in one turn.
fn take_choice(fields: &mut Fields, tools: &[Tool]) -> Result<(ToolChoice, CallsPerTurn), ApiError> {
    const TYPE: &str = "tool_choice.type";
    let choice = fields.object("tool_choice")?;
    let given = choice.unwrap_or_else(|| Map::from_iter([("type".to_owned(), Value::from("auto"))]));
    let mut choice = Fields::of(given);
    let only_one = choice.take("disable_parallel_tool_use");
    let only_one = only_one.map(|value| flag("tool_choice.disable_parallel_tool_use", &value)).transpose()?;
    let limit = if only_one == Some(true) { CallsPerTurn::One } else { CallsPerTurn::Many };
    let kind = choice.take("type").unwrap_or(Value::Null);
    let must_call = matches!(kind.as_str(), Some("any" | "tool"));
    if must_call && tools.is_empty() {
        return Err(ApiError::invalid("tool_choice", "tool_choice asks for a call, but there are no tools"));
    }
    let choice = match kind.as_str() {
        Some("auto") if !tools.is_empty() => ToolChoice::Auto,
        Some("auto" | "none") => ToolChoice::None,
        Some("any") => ToolChoice::Required,
        Some("tool") => ToolChoice::Named(known("tool_choice.name", choice.take("name").as_ref(), tools)?),
        Some(_) | None => return Err(wrong(TYPE, "one of auto, any, tool, none", &kind)),
    };
    Ok((choice, limit))
}
