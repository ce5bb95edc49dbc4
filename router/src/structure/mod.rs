//! Grammars for structured answers, written in llguidance's dialect of Lark; knows no request.

mod checked;
mod gbnf;

use std::sync::Arc;

use serde_json::{Map, Value, json};

pub(crate) use checked::Checked;

/// White space between two parts of a JSON text: a space, or a new line with its indentation. Without a bound, models
/// that are unsure go on with it for ever.
const WHITE_SPACE: &str = r"\x20|\x0A\x20{0,16}";

/// How a JSON schema is read where it has keywords that cannot be enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keywords {
    /// They make the schema an error.
    AllEnforced,
    /// They have no effect on the answer.
    BestEffort,
}

/// White space between the parts of a JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhiteSpace {
    /// As the model likes, within bounds.
    Some,
    /// None.
    None,
}

/// Grammar of the JSON texts that match `schema`.
pub(crate) fn json_schema(schema: Value, keywords: Keywords, white_space: WhiteSpace) -> Arc<str> {
    format!("start: {}", json_part(schema, keywords, white_space)).into()
}

/// Grammar of any JSON object.
pub(crate) fn json_object() -> Arc<str> {
    json_schema(json!({"type": "object"}), Keywords::AllEnforced, WhiteSpace::Some)
}

/// Part of a grammar: the JSON texts that match `schema`.
pub(crate) fn json_part(schema: Value, keywords: Keywords, white_space: WhiteSpace) -> String {
    let mut schema = match schema {
        Value::Object(map) => map,
        // A schema may be true or false; the options need an object.
        other => Map::from_iter([("allOf".to_owned(), json!([other]))]),
    };
    let options = match white_space {
        WhiteSpace::Some => json!({"whitespace_pattern": WHITE_SPACE, "lenient": keywords == Keywords::BestEffort}),
        WhiteSpace::None => json!({"whitespace_flexible": false, "lenient": keywords == Keywords::BestEffort}),
    };
    // The client's own options would change bounds that are ours.
    schema.insert("x-guidance".to_owned(), options);
    format!("%json {}", Value::Object(schema))
}

/// Grammar of the texts that `pattern` matches as a whole.
pub(crate) fn regex(pattern: &str) -> Arc<str> {
    format!("start: /{}/", vocabulary::regex_to_lark(pattern)).into()
}

/// Grammar of one of `texts`.
pub(crate) fn choice(texts: &[String]) -> Arc<str> {
    let alternatives: Vec<String> = texts.iter().map(|text| Value::from(text.as_str()).to_string()).collect();
    format!("start: {}", alternatives.join(" | ")).into()
}

/// Grammar that a client writes: Lark, or GBNF, which is told from its `::=`.
///
/// # Errors
/// When it is GBNF and cannot be read.
pub(crate) fn grammar(text: &str) -> Result<Arc<str>, String> {
    if gbnf::is_gbnf(text) { gbnf::to_lark(text).map(Arc::from) } else { Ok(text.into()) }
}
