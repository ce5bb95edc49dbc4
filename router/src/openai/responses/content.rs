//! Content of an item: one text or a list of parts; knows no turn.

use serde_json::Value;

use super::super::ApiError;
use super::super::fields::{self, Fields};
use super::super::known::note_unknown;
use super::super::tools::missing;

/// Reads a text, or a list of parts of the kinds `texts`.
pub(super) fn texts_of(place: &str, value: Option<Value>, texts: &[&str]) -> Result<Vec<String>, ApiError> {
    match value {
        Some(Value::String(text)) => Ok(vec![text]),
        Some(Value::Array(parts)) => {
            let parts = parts.into_iter().enumerate();
            parts.map(|(index, part)| text_of(&format!("{place}[{index}]"), part, texts)).collect()
        }
        Some(other) => Err(fields::wrong(place, "a string or a list of text parts", &other)),
        None => Err(missing(place)),
    }
}

fn text_of(place: &str, part: Value, texts: &[&str]) -> Result<String, ApiError> {
    let Value::Object(map) = part else { return Err(fields::wrong(place, "an object", &part)) };
    let mut fields = Fields::of(map);
    let kind = fields.take("type").unwrap_or(Value::Null);
    if !kind.as_str().is_some_and(|kind| texts.contains(&kind)) {
        let expected = format!("one of {}, the only kinds that this server supports here", texts.join(", "));
        let field = format!("{place}.type");
        return Err(ApiError { code: Some("unsupported_value"), ..fields::wrong(&field, &expected, &kind) });
    }
    let name = if kind == "refusal" { "refusal" } else { "text" };
    let field = format!("{place}.{name}");
    let text = fields.take(name).ok_or_else(|| missing(&field))?;
    // Answers have these, and clients send them back.
    for name in ["annotations", "logprobs"] {
        fields.take(name);
    }
    note_unknown("input[].content[].", &fields);
    fields::string(&field, text)
}
