//! JSON schemas as clients send them; knows no document.

use serde_json::{Map, Value, json};

use super::documents;

/// Schema of the objects that have these properties and no others.
pub(super) fn closed(properties: Value) -> Value {
    let names: Vec<&String> = properties.as_object().into_iter().flat_map(Map::keys).collect();
    let mut schema = json!({"type": "object", "required": names, "additionalProperties": false});
    schema["properties"] = properties;
    schema
}

pub(super) fn all() -> Vec<(&'static str, Value)> {
    let text = json!({"type": "string"});
    let whole = json!({"type": "integer", "minimum": -9007199254740991_i64, "maximum": 9007199254740991_i64});
    let mut of_sdk = closed(json!({"name": text, "age": whole, "tags": {"type": "array", "items": text}}));
    of_sdk["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    let mut nested = closed(json!({"leaf": text, "count": {"type": "integer"}}));
    for _ in 0..5 {
        nested = closed(json!({"title": text, "inner": nested, "done": {"type": "boolean"}}));
    }
    let words: Vec<String> = (0..1000).map(|number| format!("{}_{number}", documents::WORDS[number % 40])).collect();
    let line = closed(json!({"article": text, "amount": {"type": "integer"}, "price": {"type": "number"}}));
    let shape = |kind: &str, size: &str| closed(json!({"kind": {"const": kind}, size: {"type": "number"}}));
    let patterns = closed(json!({
        "id": {"type": "string", "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}$", "examples": ["0a1b2c3d-4e5f-6071"]},
        "phone": {"type": "string", "pattern": "^\\+[0-9]{1,3} [0-9]{4,12}$", "examples": ["+49 73112345"]},
        "at": {"type": "string", "format": "date-time", "examples": ["2026-11-30T12:34:56Z"]},
        "mail": {"type": "string", "format": "email", "examples": ["ada@example.org"]},
    }));
    let many = (0..100).map(|number| (format!("{}_{number}", documents::WORDS[number % 40]), text.clone()));
    let many = closed(Value::Object(many.collect()));
    let node =
        closed(json!({"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}}));
    let mut tree = node.clone();
    tree["$defs"] = json!({"node": node});
    vec![
        ("AI SDK: $schema, ±2^53", of_sdk),
        ("6 objects nested", nested),
        ("enum of 1,000", closed(json!({"word": {"enum": words}, "other": {"enum": words}}))),
        ("list of objects", closed(json!({"lines": {"type": "array", "items": line, "minItems": 5, "maxItems": 20}}))),
        ("list of numbers", json!({"type": "array", "items": {"type": "number"}, "minItems": 40, "maxItems": 80})),
        (
            "anyOf of objects",
            closed(json!({"shapes": {"type": "array", "minItems": 4, "items": {"anyOf": [
                shape("circle", "radius"), shape("square", "side"), shape("line", "length"), {"type": "null"},
            ]}}})),
        ),
        ("patterns and formats", patterns),
        (
            "strings of bounded length",
            closed(json!({
                "short": {"type": "string", "maxLength": 20}, "long": {"type": "string", "minLength": 5, "maxLength": 400},
            })),
        ),
        ("100 properties", many),
        ("recursive", tree),
        ("short strings", short_strings()),
        ("form", form()),
        (
            "map of free keys",
            json!({"type": "object", "additionalProperties": {"type": "integer"}, "examples": [
                {"river": 1, "blue window": 22, "theory": -3}, {"naïve": 0, "a longer key, with a comma": 7},
            ]}),
        ),
        ("oneOf with a tag", json!({"type": "array", "minItems": 2, "maxItems": 6, "items": {"anyOf": tagged()}})),
        ("all formats", formats()),
    ]
}

/// Strings that end soon.
fn short_strings() -> Value {
    let most = |length: u32| json!({"type": "string", "maxLength": length});
    closed(json!({"code": most(3), "city": most(8), "street": most(30), "note": most(100)}))
}

/// What extraction asks for: enums, ranges, nullable parts, a list of bounded length.
fn form() -> Value {
    let person = closed(json!({
        "name": {"type": "string", "minLength": 1, "maxLength": 60},
        "role": {"enum": ["author", "editor", "reviewer", "reader"]},
        "age": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 130, "examples": [7, 41, 99]}, {"type": "null"}]},
        "score": {"type": "number", "minimum": 0, "maximum": 1, "examples": [0.25, 0.875]},
    }));
    closed(json!({
        "people": {"type": "array", "items": person, "minItems": 1, "maxItems": 5},
        "language": {"enum": ["en", "de", "fr", "it", "es"]},
        "zip": {"type": "string", "pattern": "^[0-9]{5}$", "examples": ["89073", "10115"]},
        "is_draft": {"type": "boolean"},
    }))
}

fn tagged() -> Vec<Value> {
    let text = json!({"type": "string"});
    let part = |tag: &str, name: &str, value: Value| closed(json!({"type": {"const": tag}, name: value, "note": text}));
    vec![
        part("text", "text", json!({"type": "string"})),
        part("number", "value", json!({"type": "number"})),
        part("list", "items", json!({"type": "array", "items": {"type": "integer"}, "maxItems": 4})),
    ]
}

fn formats() -> Value {
    let format = |name: &str, example: &str| json!({"type": "string", "format": name, "examples": [example]});
    closed(json!({
        "date": format("date", "2026-11-30"),
        "time": format("time", "12:34:56Z"),
        "uuid": format("uuid", "123e4567-e89b-12d3-a456-426614174000"),
        "ipv4": format("ipv4", "192.168.17.4"),
        "uri": format("uri", "https://www.example.org/a/path?with=query#part"),
        "hostname": format("hostname", "www.example.org"),
    }))
}
