//! `thinking`: whether the model is to think, and whether the client sees it; knows no template's marks.

use serde_json::{Map, Value};

use crate::openai::fields::{Fields, string, wrong};
use crate::openai::known::note_unknown;
use crate::openai::{ApiError, Thoughts};

/// Variables with which templates switch thoughts on and off, under their different names.
const SWITCHES: [&str; 2] = ["enable_thinking", "thinking"];

/// Takes the field, and sets the switches of the template; the client's own variables win. Without the field the model
/// thinks as it does by itself, and the client sees nothing of it, as it would not know what to do with it.
pub(super) fn take_thinking(fields: &mut Fields, variables: &mut Map<String, Value>) -> Result<Thoughts, ApiError> {
    const TYPE: &str = "thinking.type";
    let Some(config) = fields.object("thinking")? else { return Ok(Thoughts::Omitted) };
    let mut config = Fields::of(config);
    let kind = config.take("type").unwrap_or(Value::Null);
    let thinks = match kind.as_str() {
        Some("enabled" | "adaptive" | "between_tools") => true,
        Some("disabled") => false,
        Some(_) | None => return Err(wrong(TYPE, "one of enabled, adaptive, between_tools, disabled", &kind)),
    };
    // Nothing limits the length of thoughts but `max_tokens`.
    if let Some(budget) = config.take("budget_tokens").filter(|budget| budget.as_u64().is_none()) {
        return Err(wrong("thinking.budget_tokens", "a number of tokens", &budget));
    }
    let display = config.take("display").map(|display| string("thinking.display", display)).transpose()?;
    note_unknown("thinking.", &config);
    for switch in SWITCHES {
        variables.entry(switch).or_insert(Value::Bool(thinks));
    }
    Ok(if thinks && display.as_deref() != Some("omitted") { Thoughts::Beside } else { Thoughts::Omitted })
}
