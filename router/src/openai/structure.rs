//! Fields that give an answer a structure, under the names of OpenAI and of vLLM; knows no grammar's syntax.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::ApiError;
use super::fields::{self, Fields};
use super::unreadable::explained;
use crate::structure::{self, Keywords, WhiteSpace};

/// Texts of one choice (`structured_outputs.choice`).
const CHOICES_MAX: usize = 1024;

/// Structure that a client wants for its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Field that says so.
    pub field: &'static str,
    /// Grammar of the answer, in llguidance's dialect of Lark.
    pub grammar: Arc<str>,
}

/// Takes the structure that the client wants; fails if it wants two.
pub(super) fn take_structure(fields: &mut Fields) -> Result<Option<Wanted>, ApiError> {
    let mut wanted: Vec<(&'static str, Arc<str>)> = Vec::new();
    if let Some(format) = fields.object("response_format")?
        && let Some(grammar) = of_response_format(format)?
    {
        wanted.push(("response_format", grammar));
    }
    if let Some(outputs) = fields.object("structured_outputs")? {
        wanted.push(("structured_outputs", of_structured_outputs(outputs)?));
    }
    for (field, kind) in
        [("guided_json", "json"), ("guided_regex", "regex"), ("guided_choice", "choice"), ("guided_grammar", "grammar")]
    {
        if let Some(value) = fields.take(field) {
            wanted.push((field, of_kind(field, kind, value, WhiteSpace::Some)?));
        }
    }
    match wanted.as_slice() {
        [] => Ok(None),
        [(field, grammar)] => Ok(Some(Wanted { field, grammar: Arc::clone(grammar) })),
        [(first, _), (second, _), ..] => {
            Err(ApiError::invalid(second, format!("{second} and {first} must not be sent together")))
        }
    }
}

fn of_response_format(format: Map<String, Value>) -> Result<Option<Arc<str>>, ApiError> {
    let mut format = Fields::of(format);
    let kind = format.take("type").unwrap_or(Value::Null);
    match kind.as_str() {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(structure::json_object())),
        Some("json_schema") => {
            let name = "response_format.json_schema";
            let inner = format.object("json_schema").map_err(|error| at(name, error))?;
            let mut inner = Fields::of(inner.ok_or_else(|| missing(name))?);
            of_json_schema(name, &mut inner).map(Some)
        }
        _ => Err(fields::wrong("response_format.type", "one of text, json_object, json_schema", &kind)),
    }
}

/// Takes `schema` and `strict` of the format at `place`.
pub(super) fn of_json_schema(place: &str, format: &mut Fields) -> Result<Arc<str>, ApiError> {
    let (schema_name, strict_name) = (format!("{place}.schema"), format!("{place}.strict"));
    let schema = format.take("schema").ok_or_else(|| missing(&schema_name))?;
    let strict = format.take("strict").map(|value| fields::flag(&strict_name, &value));
    let keywords = if strict.transpose()? == Some(true) { Keywords::AllEnforced } else { Keywords::BestEffort };
    of_schema(&schema_name, schema, keywords)
}

/// Returns the grammar of the JSON texts that match the schema in `field`.
pub(crate) fn of_schema(field: &str, schema: Value, keywords: Keywords) -> Result<Arc<str>, ApiError> {
    Ok(structure::json_schema(schema_of(field, schema)?, keywords, WhiteSpace::Some))
}

/// Takes exactly one of the kinds, beside options.
fn of_structured_outputs(outputs: Map<String, Value>) -> Result<Arc<str>, ApiError> {
    let mut outputs = Fields::of(outputs);
    let name = |field: &str| format!("structured_outputs.{field}");
    let mut flag = |field: &str| outputs.take(field).map(|value| fields::flag(&name(field), &value)).transpose();
    let white_space = match flag("disable_any_whitespace")? {
        Some(true) => WhiteSpace::None,
        Some(false) | None => WhiteSpace::Some,
    };
    let object = flag("json_object")?.unwrap_or(false);
    let mut found = object.then(structure::json_object);
    for kind in ["json", "regex", "choice", "grammar"] {
        let Some(value) = outputs.take(kind) else { continue };
        if found.is_some() {
            let message =
                "structured_outputs must have one of json, regex, choice, grammar, json_object, but has several";
            return Err(ApiError::invalid("structured_outputs", message));
        }
        found = Some(of_kind(&name(kind), kind, value, white_space)?);
    }
    let other = outputs.names().find(|field| !["disable_fallback", "disable_additional_properties"].contains(field));
    if let Some(other) = other {
        return Err(ApiError::unsupported(&name(other)));
    }
    found.ok_or_else(|| {
        let message = "structured_outputs must have one of json, regex, choice, grammar, json_object";
        ApiError::invalid("structured_outputs", message)
    })
}

fn of_kind(field: &str, kind: &str, value: Value, white_space: WhiteSpace) -> Result<Arc<str>, ApiError> {
    match kind {
        "json" => Ok(structure::json_schema(schema_of(field, value)?, Keywords::AllEnforced, white_space)),
        "regex" => Ok(structure::regex(&fields::string(field, value)?)),
        "choice" => choice(field, value),
        _ => structure::grammar(&fields::string(field, value)?).map_err(|problem| ApiError::invalid(field, problem)),
    }
}

fn choice(field: &str, value: Value) -> Result<Arc<str>, ApiError> {
    let Value::Array(list) = value else { return Err(fields::wrong(field, "a list of strings", &value)) };
    if list.is_empty() || list.len() > CHOICES_MAX {
        let message = format!("{field} must have 1 to {CHOICES_MAX} strings, but has {}", list.len());
        return Err(ApiError::invalid(field, message));
    }
    let text = |(place, text)| fields::string(&format!("{field}[{place}]"), text);
    let texts = list.into_iter().enumerate().map(text).collect::<Result<Vec<_>, _>>()?;
    Ok(structure::choice(&texts))
}

/// Reads a JSON schema, which some clients send as text.
fn schema_of(field: &str, value: Value) -> Result<Value, ApiError> {
    let schema = match value {
        Value::String(text) => serde_json::from_str(&text).map_err(|error| {
            let problem = explained(&error).unwrap_or_else(|| format!("is not valid JSON: {error}"));
            ApiError::invalid(field, format!("{field} {problem}"))
        })?,
        other => other,
    };
    if !matches!(schema, Value::Object(_) | Value::Bool(_)) {
        return Err(fields::wrong(field, "a JSON schema", &schema));
    }
    match structure::unmatched(&schema) {
        Some(why) => Err(ApiError::invalid(field, format!("{field} is a schema that no JSON text matches: {why}"))),
        None => Ok(schema),
    }
}

fn missing(name: &str) -> ApiError {
    ApiError::invalid(name, format!("{name} is missing"))
}

fn at(name: &str, error: ApiError) -> ApiError {
    ApiError { param: Some(name.to_owned()), ..error }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::structure::Checked;
    use crate::text::samples;

    fn take(body: Value) -> Result<Option<Wanted>, ApiError> {
        let Value::Object(map) = body else { panic!("no object") };
        take_structure(&mut Fields::of(map))
    }

    /// Returns what is wrong with a body, or with its grammar.
    fn refusal(body: &Value) -> String {
        match take(body.clone()) {
            Err(error) => format!("{}: {}", error.param.unwrap_or_default(), error.message),
            Ok(Some(Wanted { field, grammar })) => {
                let error = Checked::default().check(&grammar, samples::byte_level().pieces());
                format!("{field}: {}", error.expect_err(&format!("{body} is fine: {grammar}")))
            }
            Ok(None) => panic!("{body} has no structure"),
        }
    }

    #[test]
    fn structures_of_all_forms_compile() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
        // What the AI SDK, pydantic and zod write.
        let of_clients = json!({
            "$schema": "http://json-schema.org/draft-07/schema#", "title": "Answer", "description": "x",
            "type": "object", "additionalProperties": false, "required": ["count", "kind", "next"],
            "properties": {
                "count": {"type": "integer", "minimum": -9007199254740991i64, "maximum": 9007199254740991i64, "title": "Count"},
                "kind": {"enum": ["a", "b"], "default": "a"},
                "when": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
                "next": {"$ref": "#/$defs/Node"},
            },
            "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}},
        });
        let checked = Checked::default();
        let tokenizer = samples::byte_level();
        for body in [
            json!({"response_format": {"type": "json_object"}}),
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}),
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": of_clients}}}),
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "array", "uniqueItems": true}}}}),
            json!({"guided_json": schema.to_string()}),
            json!({"guided_json": true}),
            json!({"guided_regex": r"(a|b/)+\d{2}[^x]"}),
            json!({"guided_choice": ["yes", "no \"never\"", "vielleicht …"]}),
            json!({"guided_grammar": "root ::= \"a\" b*\nb ::= [0-9] | \"-\""}),
            json!({"guided_grammar": "start: item+\nitem: \"a\" | /[0-9]/"}),
            json!({"structured_outputs": {"json": schema, "disable_any_whitespace": true}}),
            json!({"structured_outputs": {"choice": ["a"], "json_object": false}}),
        ] {
            let wanted = take(body.clone()).unwrap().unwrap();
            let result = checked.check(&wanted.grammar, tokenizer.pieces());
            assert_eq!(result, Ok(()), "{body}: {}", wanted.grammar);
        }
        for body in [json!({}), json!({"response_format": {"type": "text"}}), json!({"response_format": null})] {
            assert_eq!(take(body), Ok(None));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, said) in [
            (json!({"response_format": {"type": "xml"}}), "response_format.type must be one of"),
            (json!({"response_format": {}}), "response_format.type must be one of"),
            (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema is missing"),
            (json!({"response_format": {"type": "json_schema", "json_schema": 3}}), "json_schema must be an object"),
            (json!({"response_format": {"type": "json_schema", "json_schema": {}}}), "json_schema.schema is missing"),
            (json!({"guided_json": "{"}), "guided_json is not valid JSON"),
            (json!({"guided_json": r#"{"const": "\ud800"}"#}), "guided_json has half of a character"),
            (json!({"guided_json": [1]}), "guided_json must be a JSON schema"),
            (json!({"guided_json": {"type": "array", "uniqueItems": true}}), "uniqueItems"),
            (json!({"guided_json": {"$ref": "http://example.com/x.json"}}), "example.com"),
            (
                json!({"guided_json": {"type": "integer", "minimum": 3, "maximum": 2}}),
                "that no JSON text matches: minimum",
            ),
            (json!({"guided_json": {"type": "integer", "multipleOf": 5, "minimum": 1, "maximum": 2}}), "nsatisfiable"),
            (json!({"guided_regex": "(a"}), "guided_regex: "),
            (json!({"guided_json": {"$ref": "#"}}), "# contains itself without end"),
            (json!({"guided_grammar": "start: start"}), "no text of this grammar can go on here"),
            (json!({"guided_choice": []}), "must have 1 to 1024 strings"),
            (json!({"guided_choice": [1]}), "guided_choice[0] must be a string"),
            (json!({"guided_grammar": "start: nothing"}), "nothing"),
            (json!({"guided_grammar": "a ::= b"}), "there is no rule root"),
            (json!({"guided_json": {}, "guided_regex": "a"}), "guided_regex and guided_json must not be sent together"),
            (json!({"structured_outputs": {}}), "must have one of"),
            (json!({"structured_outputs": {"json": {}, "regex": "a"}}), "has several"),
            (
                json!({"structured_outputs": {"structural_tag": {}}}),
                "structured_outputs.structural_tag is not supported",
            ),
        ] {
            let refusal = refusal(&body);
            assert!(refusal.contains(said), "{body}: {refusal}");
        }
    }
}
