//! Grammars for structured answers, written in llguidance's dialect of Lark; knows no request.

mod checked;
mod gbnf;
mod unmatched;

use std::sync::Arc;

use serde_json::{Map, Value, json};

pub(crate) use checked::Checked;
pub(crate) use unmatched::unmatched;

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
pub(crate) fn json_part(mut schema: Value, keywords: Keywords, white_space: WhiteSpace) -> String {
    if !combines(&schema) {
        close(&mut schema);
    }
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

/// Keywords by which one object has to match several schemas, so that none of them can be closed.
const COMBINING: [&str; 5] = ["allOf", "dependentSchemas", "if", "not", "unevaluatedProperties"];

/// Returns true if a part of the schema combines schemas.
fn combines(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.iter().any(|(key, value)| COMBINING.contains(&key.as_str()) || combines(value)),
        Value::Array(list) => list.iter().any(combines),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Forbids properties that an object's schema does not name, where it says nothing about others: a model that is unsure
/// would make up properties without end. What is left matches the schema all the same.
fn close(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    let names_properties = map.get("properties").is_some_and(Value::is_object);
    let says_more = ["additionalProperties", "patternProperties", "$ref", "anyOf", "oneOf"];
    if names_properties && !says_more.iter().any(|key| map.contains_key(*key)) {
        describe_required(map);
        map.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    for (key, value) in map.iter_mut() {
        match (key.as_str(), value) {
            ("properties" | "$defs" | "definitions", Value::Object(parts)) => parts.values_mut().for_each(close),
            ("items", part) => close(part),
            ("prefixItems", Value::Array(parts)) => parts.iter_mut().for_each(close),
            ("anyOf" | "oneOf", Value::Array(parts)) if !names_properties => parts.iter_mut().for_each(close),
            _ => {}
        }
    }
}

/// Adds the properties that must be there, but are not described: they may be anything.
fn describe_required(map: &mut Map<String, Value>) {
    let required = map.get("required").and_then(Value::as_array);
    let names: Vec<String> = required.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        for name in names {
            properties.entry(name).or_insert(Value::Bool(true));
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(mut schema: Value) -> Value {
        close(&mut schema);
        schema
    }

    #[test]
    fn objects_have_the_properties_that_are_named() {
        let inner = json!({"properties": {"b": {}}});
        let shut = json!({"properties": {"b": {}}, "additionalProperties": false});
        assert_eq!(closed(json!({"type": "object"})), json!({"type": "object"}), "any object");
        assert_eq!(
            closed(
                json!({"properties": {"a": {"items": inner}}, "$defs": {"d": {"anyOf": [inner, {"type": "null"}]}}})
            ),
            json!({
                "properties": {"a": {"items": shut}}, "additionalProperties": false,
                "$defs": {"d": {"anyOf": [shut, {"type": "null"}]}},
            })
        );
        assert_eq!(
            closed(json!({"properties": {"a": {}}, "required": ["a", "b"]})),
            json!({"properties": {"a": {}, "b": true}, "required": ["a", "b"], "additionalProperties": false}),
            "what must be there may be there"
        );
        for open in [
            json!({"properties": {"a": {}}, "additionalProperties": {"type": "string"}}),
            json!({"properties": {"a": {}}, "patternProperties": {"^x": {}}}),
            json!({"properties": {"a": {}}, "anyOf": [inner, {"properties": {"c": {}}}]}),
        ] {
            assert_eq!(closed(open.clone()), open);
        }
        assert!(
            combines(&json!({"properties": {"a": {"allOf": [inner, {"$ref": "#/$defs/x"}]}}})) && !combines(&inner)
        );
    }
}
