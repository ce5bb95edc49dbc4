//! Tools in a request: those offered, the choice among them, and calls in earlier turns; knows no template.

use serde_json::{Map, Value};

use super::ApiError;
use super::fields::{self, Fields};
use crate::model_output::CallsPerTurn;
use crate::text::{Strict, Tool, ToolCall, ToolChoice};

/// Most tools in one request, as in OpenAI's API.
const TOOLS_MAX: usize = 128;
/// Longest name of a function, as in OpenAI's API.
const NAME_CHARS_MAX: usize = 64;

/// Tools that the model may use in its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolUse {
    /// The tools; none if the model must not call any.
    pub tools: Vec<Tool>,
    /// Whether it calls them.
    pub choice: ToolChoice,
    /// Number of calls in one turn.
    pub limit: CallsPerTurn,
}

impl ToolUse {
    /// Takes `tools`, `tool_choice` and `parallel_tool_calls`.
    pub(super) fn take(fields: &mut Fields) -> Result<ToolUse, ApiError> {
        let list = fields.list("tools")?.unwrap_or_default();
        if list.len() > TOOLS_MAX {
            let message = format!("tools may have {TOOLS_MAX} entries at most, but has {}", list.len());
            return Err(ApiError::invalid("tools", message));
        }
        let mut tools: Vec<Tool> = Vec::new();
        for (index, value) in list.into_iter().enumerate() {
            let place = format!("tools[{index}]");
            let tool = tool(&place, value)?;
            if tools.iter().any(|other| other.name == tool.name) {
                let field = format!("{place}.function.name");
                return Err(ApiError::invalid(&field, format!("{field}: {:?} is the name of two tools", tool.name)));
            }
            tools.push(tool);
        }
        let parallel = fields.flag("parallel_tool_calls")?;
        let choice = take_choice(fields, &mut tools)?;
        let limit = match (&choice, parallel) {
            (ToolChoice::Named(_), _) | (_, Some(false)) => CallsPerTurn::One,
            (ToolChoice::Auto | ToolChoice::None | ToolChoice::Required, Some(true) | None) => CallsPerTurn::Many,
        };
        if choice == ToolChoice::None {
            tools.clear();
        }
        Ok(ToolUse { tools, choice, limit })
    }
}

fn tool(place: &str, value: Value) -> Result<Tool, ApiError> {
    let Value::Object(map) = &value else { return Err(fields::wrong(place, "an object", &value)) };
    let kind = map.get("type").unwrap_or(&Value::Null);
    if kind != "function" {
        return Err(unsupported_kind(&format!("{place}.type"), kind));
    }
    let place = format!("{place}.function");
    let function = match map.get("function") {
        Some(Value::Object(function)) => function,
        Some(other) => return Err(fields::wrong(&place, "an object", other)),
        None => return Err(missing(&place)),
    };
    let name = function_name(&format!("{place}.name"), function.get("name"))?;
    if let Some(description) = given(function, "description").filter(|description| !description.is_string()) {
        return Err(fields::wrong(&format!("{place}.description"), "a string", description));
    }
    let parameters = match given(function, "parameters") {
        None => Map::new(),
        Some(Value::Object(parameters)) => parameters.clone(),
        Some(other) => return Err(fields::wrong(&format!("{place}.parameters"), "an object", other)),
    };
    let strict = match given(function, "strict") {
        None | Some(Value::Bool(false)) => Strict::No,
        Some(Value::Bool(true)) => Strict::Yes,
        Some(other) => return Err(fields::wrong(&format!("{place}.strict"), "true or false", other)),
    };
    Ok(Tool { name, parameters, strict, described: value })
}

/// Takes the choice; a choice among allowed tools drops the others.
fn take_choice(fields: &mut Fields, tools: &mut Vec<Tool>) -> Result<ToolChoice, ApiError> {
    const EXPECTED: &str = "auto, none, required, or an object that names a function or allowed tools";
    let choice = match fields.take("tool_choice") {
        None if tools.is_empty() => ToolChoice::None,
        None => ToolChoice::Auto,
        Some(Value::String(word)) => mode("tool_choice", EXPECTED, &Value::String(word))?,
        Some(Value::Object(map)) => match map.get("type").and_then(Value::as_str) {
            Some("function") => {
                let name = map.get("function").and_then(|function| function.get("name"));
                ToolChoice::Named(known("tool_choice.function.name", name, tools)?)
            }
            Some("allowed_tools") => allowed(&map, tools)?,
            Some(_) | None => return Err(fields::wrong("tool_choice", EXPECTED, &Value::Object(map))),
        },
        Some(other) => return Err(fields::wrong("tool_choice", EXPECTED, &other)),
    };
    match choice {
        ToolChoice::Required if tools.is_empty() => {
            Err(ApiError::invalid("tool_choice", "tool_choice is required, but there are no tools"))
        }
        ToolChoice::Auto if tools.is_empty() => Ok(ToolChoice::None),
        choice => Ok(choice),
    }
}

fn mode(field: &str, expected: &str, value: &Value) -> Result<ToolChoice, ApiError> {
    match value.as_str() {
        Some("auto") => Ok(ToolChoice::Auto),
        Some("none") => Ok(ToolChoice::None),
        Some("required") => Ok(ToolChoice::Required),
        Some(_) | None => Err(fields::wrong(field, expected, value)),
    }
}

fn allowed(choice: &Map<String, Value>, tools: &mut Vec<Tool>) -> Result<ToolChoice, ApiError> {
    let place = "tool_choice.allowed_tools";
    let Some(allowed) = choice.get("allowed_tools") else { return Err(missing(place)) };
    let Some(list) = allowed.get("tools").and_then(Value::as_array) else {
        return Err(ApiError::invalid(place, format!("{place}.tools must be a list of tools")));
    };
    if list.len() > TOOLS_MAX {
        let message = format!("{place}.tools may have {TOOLS_MAX} entries at most, but has {}", list.len());
        return Err(ApiError::invalid(place, message));
    }
    let names = list.iter().enumerate().map(|(index, tool)| {
        let name = tool.get("function").and_then(|function| function.get("name"));
        known(&format!("{place}.tools[{index}].function.name"), name, tools)
    });
    let names = names.collect::<Result<Vec<String>, ApiError>>()?;
    tools.retain(|tool| names.contains(&tool.name));
    let choice = allowed.get("mode").unwrap_or(&Value::Null);
    mode(&format!("{place}.mode"), "auto or required", choice)
}

/// Returns a name that one of the tools has.
fn known(field: &str, name: Option<&Value>, tools: &[Tool]) -> Result<String, ApiError> {
    let Some(name) = name else { return Err(missing(field)) };
    match tools.iter().find(|tool| *name == tool.name.as_str()) {
        Some(tool) => Ok(tool.name.clone()),
        None => Err(fields::wrong(field, "the name of one of the tools", name)),
    }
}

/// Takes the calls of an assistant's turn.
pub(super) fn calls(place: &str, value: Option<Value>) -> Result<Vec<ToolCall>, ApiError> {
    match value {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => {
            let calls = list.into_iter().enumerate();
            calls.map(|(index, value)| call(&format!("{place}[{index}]"), value)).collect()
        }
        Some(other) => Err(fields::wrong(place, "a list of tool calls", &other)),
    }
}

fn call(place: &str, value: Value) -> Result<ToolCall, ApiError> {
    let Value::Object(mut sent) = value else { return Err(fields::wrong(place, "an object", &value)) };
    if let Some(kind) = given(&sent, "type").filter(|kind| *kind != "function") {
        return Err(unsupported_kind(&format!("{place}.type"), kind));
    }
    if let Some(id) = given(&sent, "id").filter(|id| !id.is_string()) {
        return Err(fields::wrong(&format!("{place}.id"), "a string", id));
    }
    let place = format!("{place}.function");
    let Some(function) = sent.get_mut("function") else { return Err(missing(&place)) };
    let Value::Object(function) = function else { return Err(fields::wrong(&place, "an object", function)) };
    match function.get("name") {
        Some(Value::String(name)) if !name.is_empty() => {}
        Some(other) => return Err(fields::wrong(&format!("{place}.name"), "the name of a function", other)),
        None => return Err(missing(&format!("{place}.name"))),
    }
    let place = format!("{place}.arguments");
    let (arguments, written) = match function.get("arguments") {
        None | Some(Value::Null) => (Map::new(), None),
        Some(Value::Object(arguments)) => (arguments.clone(), None),
        // A call without arguments, as some clients write it.
        Some(Value::String(text)) if text.trim().is_empty() => (Map::new(), Some("{}".to_owned())),
        Some(Value::String(text)) => match serde_json::from_str(text) {
            Ok(arguments) => (arguments, Some(text.clone())),
            Err(error) => {
                let message = format!("{place} must be a JSON object, or one written as a string: {error}");
                return Err(ApiError::invalid(&place, message));
            }
        },
        Some(other) => return Err(fields::wrong(&place, "a JSON object, or one written as a string", other)),
    };
    function.insert("arguments".to_owned(), Value::Object(arguments));
    Ok(ToolCall { sent, written })
}

fn function_name(field: &str, value: Option<&Value>) -> Result<String, ApiError> {
    const EXPECTED: &str = "1 to 64 letters, digits, underscores and hyphens";
    let Some(value) = value else { return Err(missing(field)) };
    let is_name = |name: &&str| {
        (1..=NAME_CHARS_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    match value.as_str().filter(is_name) {
        Some(name) => Ok(name.to_owned()),
        None => Err(fields::wrong(field, EXPECTED, value)),
    }
}

fn given<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    map.get(name).filter(|value| !value.is_null())
}

fn missing(field: &str) -> ApiError {
    ApiError::invalid(field, format!("{field} is missing"))
}

fn unsupported_kind(field: &str, kind: &Value) -> ApiError {
    ApiError {
        code: Some("unsupported_value"),
        ..fields::wrong(field, "\"function\", the only kind that this server supports", kind)
    }
}
