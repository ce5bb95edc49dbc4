//! Tools in a request: those offered, the choice among them, and calls in earlier turns; knows no template.

use serde_json::{Map, Value};

use super::ApiError;
use super::fields::{self, Fields};
use crate::model_output::CallsPerTurn;
use crate::text::{Strict, Tool, ToolCall, ToolChoice};

/// Most tools in one request, as in OpenAI's API.
pub(super) const TOOLS_MAX: usize = 128;
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
        let mut tools = take_tools(fields, TOOLS_MAX, ".function", tool)?;
        let choice = take_choice(fields, &mut tools)?;
        ToolUse::of(tools, choice, fields)
    }

    /// Takes `parallel_tool_calls` for these tools.
    pub(super) fn of(tools: Vec<Tool>, choice: ToolChoice, fields: &mut Fields) -> Result<ToolUse, ApiError> {
        let choice = match choice {
            ToolChoice::Required if tools.is_empty() => {
                return Err(ApiError::invalid("tool_choice", "tool_choice is required, but there are no tools"));
            }
            ToolChoice::Auto if tools.is_empty() => ToolChoice::None,
            choice => choice,
        };
        let parallel = fields.flag("parallel_tool_calls")?;
        let limit = if parallel == Some(false) { CallsPerTurn::One } else { CallsPerTurn::Many };
        Ok(ToolUse::new(tools, choice, limit))
    }

    /// Offers these tools. A named one is called once, and a model that must not call any does not see them.
    pub(crate) fn new(mut tools: Vec<Tool>, choice: ToolChoice, limit: CallsPerTurn) -> ToolUse {
        let limit = match &choice {
            ToolChoice::Named(_) => CallsPerTurn::One,
            ToolChoice::Auto | ToolChoice::None | ToolChoice::Required => limit,
        };
        if choice == ToolChoice::None {
            tools.clear();
        }
        ToolUse { tools, choice, limit }
    }
}

/// Takes the list of at most `tools_max` tools, each with `tool`; a name is in the field `of_function` of a tool.
pub(crate) fn take_tools(
    fields: &mut Fields,
    tools_max: usize,
    of_function: &str,
    tool: impl Fn(&str, Value) -> Result<Tool, ApiError>,
) -> Result<Vec<Tool>, ApiError> {
    let list = fields.list("tools")?.unwrap_or_default();
    if list.len() > tools_max {
        let message = format!("tools may have {tools_max} entries at most, but has {}", list.len());
        return Err(ApiError::invalid("tools", message));
    }
    let mut tools: Vec<Tool> = Vec::new();
    for (index, value) in list.into_iter().enumerate() {
        let place = format!("tools[{index}]");
        let tool = tool(&place, value)?;
        if tools.iter().any(|other| other.name == tool.name) {
            let field = format!("{place}{of_function}.name");
            return Err(ApiError::invalid(&field, format!("{field}: {:?} is the name of two tools", tool.name)));
        }
        tools.push(tool);
    }
    Ok(tools)
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
    let Described { name, parameters, strict } = described(&place, function)?;
    Ok(Tool { name, parameters, strict, described: value })
}

/// What is to know of a function beside its description.
pub(super) struct Described {
    pub(super) name: String,
    pub(super) parameters: Map<String, Value>,
    pub(super) strict: Strict,
}

/// Checks the description of a function at `place`.
pub(super) fn described(place: &str, function: &Map<String, Value>) -> Result<Described, ApiError> {
    let name = function_name(&format!("{place}.name"), function.get("name"), NAME_CHARS_MAX)?;
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
    Ok(Described { name, parameters, strict })
}

/// Takes the choice; a choice among allowed tools drops the others.
fn take_choice(fields: &mut Fields, tools: &mut Vec<Tool>) -> Result<ToolChoice, ApiError> {
    const EXPECTED: &str = "auto, none, required, or an object that names a function or allowed tools";
    match fields.take("tool_choice") {
        None => Ok(ToolChoice::Auto),
        Some(Value::String(word)) => mode("tool_choice", EXPECTED, &Value::String(word)),
        Some(Value::Object(map)) => match map.get("type").and_then(Value::as_str) {
            Some("function") => {
                let name = map.get("function").and_then(|function| function.get("name"));
                known("tool_choice.function.name", name, tools).map(ToolChoice::Named)
            }
            Some("allowed_tools") => match map.get("allowed_tools") {
                Some(given) => allowed("tool_choice.allowed_tools", ".function", given, tools),
                None => Err(missing("tool_choice.allowed_tools")),
            },
            Some(_) | None => Err(fields::wrong("tool_choice", EXPECTED, &Value::Object(map))),
        },
        Some(other) => Err(fields::wrong("tool_choice", EXPECTED, &other)),
    }
}

pub(super) fn mode(field: &str, expected: &str, value: &Value) -> Result<ToolChoice, ApiError> {
    match value.as_str() {
        Some("auto") => Ok(ToolChoice::Auto),
        Some("none") => Ok(ToolChoice::None),
        Some("required") => Ok(ToolChoice::Required),
        Some(_) | None => Err(fields::wrong(field, expected, value)),
    }
}

/// Takes a choice among allowed tools, which are at `place`, and drops the others; a name is in the field
/// `of_function` of a tool.
pub(super) fn allowed(
    place: &str,
    of_function: &str,
    allowed: &Value,
    tools: &mut Vec<Tool>,
) -> Result<ToolChoice, ApiError> {
    let Some(list) = allowed.get("tools").and_then(Value::as_array) else {
        return Err(ApiError::invalid(place, format!("{place}.tools must be a list of tools")));
    };
    if list.len() > TOOLS_MAX {
        let message = format!("{place}.tools may have {TOOLS_MAX} entries at most, but has {}", list.len());
        return Err(ApiError::invalid(place, message));
    }
    let names = list.iter().enumerate().map(|(index, tool)| {
        let function = if of_function.is_empty() { Some(tool) } else { tool.get("function") };
        let name = function.and_then(|function| function.get("name"));
        known(&format!("{place}.tools[{index}]{of_function}.name"), name, tools)
    });
    let names = names.collect::<Result<Vec<String>, ApiError>>()?;
    tools.retain(|tool| names.contains(&tool.name));
    let choice = allowed.get("mode").unwrap_or(&Value::Null);
    mode(&format!("{place}.mode"), "auto or required", choice)
}

/// Returns a name that one of the tools has.
pub(crate) fn known(field: &str, name: Option<&Value>, tools: &[Tool]) -> Result<String, ApiError> {
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
    let (arguments, written) = arguments(&format!("{place}.arguments"), function.get("arguments"))?;
    function.insert("arguments".to_owned(), arguments);
    Ok(ToolCall { sent, written })
}

/// Reads the arguments of a call; also returns them as they are written. A text that is no object stays a text: agents
/// send a call that was cut, or that the model got wrong, back as it came.
fn arguments(place: &str, value: Option<&Value>) -> Result<(Value, Option<String>), ApiError> {
    match value {
        None | Some(Value::Null) => Ok((Value::Object(Map::new()), None)),
        Some(Value::Object(arguments)) => Ok((Value::Object(arguments.clone()), None)),
        // A call without arguments, as some clients write it.
        Some(Value::String(text)) if text.trim().is_empty() => Ok((Value::Object(Map::new()), Some("{}".to_owned()))),
        Some(Value::String(text)) => {
            let arguments = serde_json::from_str(text).map(Value::Object);
            Ok((arguments.unwrap_or_else(|_| Value::from(text.as_str())), Some(text.clone())))
        }
        Some(other) => Err(fields::wrong(place, "a JSON object or a string", other)),
    }
}

/// Makes a call of an assistant's turn from an item at `place` that has its parts beside one another.
pub(super) fn call_of(place: &str, id: &str, name: &str, given: Option<&Value>) -> Result<ToolCall, ApiError> {
    let (arguments, written) = arguments(&format!("{place}.arguments"), given)?;
    Ok(ToolCall { written, ..ToolCall::function(id.to_owned(), name.to_owned(), arguments) })
}

/// Returns a name that a function may have.
pub(crate) fn function_name(field: &str, value: Option<&Value>, chars_max: usize) -> Result<String, ApiError> {
    let Some(value) = value else { return Err(missing(field)) };
    let is_name = |name: &&str| {
        (1..=chars_max).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    match value.as_str().filter(is_name) {
        Some(name) => Ok(name.to_owned()),
        None => {
            let expected = format!("1 to {chars_max} letters, digits, underscores and hyphens");
            Err(fields::wrong(field, &expected, value))
        }
    }
}

fn given<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    map.get(name).filter(|value| !value.is_null())
}

/// Error: a required field is not there.
pub(crate) fn missing(field: &str) -> ApiError {
    ApiError::invalid(field, format!("{field} is missing"))
}

fn unsupported_kind(field: &str, kind: &Value) -> ApiError {
    ApiError {
        code: Some("unsupported_value"),
        ..fields::wrong(field, "\"function\", the only kind that this server supports", kind)
    }
}
