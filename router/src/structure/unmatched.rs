//! JSON schemas that no JSON text matches, and why; knows no grammar.
//!
//! A grammar of such a schema is refused by the library only in part: where parts of a schema become rules of their own, or
//! a schema contains itself without end, an answer would go on until its length is reached.

use serde_json::{Map, Value};

/// Parts of a schema that are looked at; a larger one counts as one that something matches.
const PARTS_MAX: usize = 20_000;
/// Parts inside one another that are looked at.
const DEPTH_MAX: usize = 256;

/// Returns why nothing matches `schema`. `None` if something may: not every such schema is found.
pub(crate) fn unmatched(schema: &Value) -> Option<String> {
    Look { root: schema, open: Vec::new(), parts: 0, depth: 0 }.at(schema)
}

struct Look<'a> {
    root: &'a Value,
    /// References on the way here. One that comes again leads to no finite text.
    open: Vec<&'a str>,
    parts: usize,
    depth: usize,
}

impl<'a> Look<'a> {
    fn at(&mut self, schema: &'a Value) -> Option<String> {
        self.parts += 1;
        if self.parts > PARTS_MAX || self.depth == DEPTH_MAX {
            return None;
        }
        self.depth += 1;
        let why = match schema {
            Value::Bool(false) => Some("the schema false matches nothing".to_owned()),
            Value::Object(map) => self.referred(map).or_else(|| self.combined(map)).or_else(|| self.typed(map)),
            Value::Bool(true) | Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
        };
        self.depth -= 1;
        why
    }

    fn referred(&mut self, map: &'a Map<String, Value>) -> Option<String> {
        let reference = map.get("$ref")?.as_str()?;
        // What is not found here is the library's to refuse.
        let target = self.root.pointer(reference.strip_prefix('#')?)?;
        if self.open.contains(&reference) {
            return Some(format!("{reference} contains itself without end"));
        }
        self.open.push(reference);
        let why = self.at(target);
        self.open.pop();
        why
    }

    fn combined(&mut self, map: &'a Map<String, Value>) -> Option<String> {
        if let Some(parts) = map.get("allOf").and_then(Value::as_array)
            && let Some(why) = parts.iter().find_map(|part| self.at(part))
        {
            return Some(why);
        }
        for word in ["anyOf", "oneOf"] {
            let Some(parts) = map.get(word).and_then(Value::as_array) else { continue };
            let Some(first) = parts.first() else { return Some(format!("{word} is empty")) };
            if let Some(why) = self.at(first)
                && parts[1..].iter().all(|part| self.at(part).is_some())
            {
                return Some(why);
            }
        }
        None
    }

    /// Looks at what holds for a single type, if the schema has one, and at the values that it names.
    fn typed(&mut self, map: &'a Map<String, Value>) -> Option<String> {
        let kind = map.get("type").and_then(Value::as_str);
        let fits = |value: &Value| kind.is_none_or(|kind| is_of(kind, value));
        if let Some(values) = map.get("enum").and_then(Value::as_array)
            && !values.iter().any(fits)
        {
            let why = if values.is_empty() { "enum is empty" } else { "no value of enum is of the type" };
            return Some(why.to_owned());
        }
        if map.get("const").is_some_and(|value| !fits(value)) {
            return Some("const is not of the type".to_owned());
        }
        match kind? {
            "integer" | "number" => reversed(map, "minimum", "maximum"),
            "string" => reversed(map, "minLength", "maxLength"),
            "array" => reversed(map, "minItems", "maxItems").or_else(|| self.items(map)),
            "object" => reversed(map, "minProperties", "maxProperties").or_else(|| self.required(map)),
            _ => None,
        }
    }

    fn items(&mut self, map: &'a Map<String, Value>) -> Option<String> {
        let least = map.get("minItems")?.as_u64()?;
        let first = map.get("prefixItems").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let in_first = first.iter().zip(0..least).find_map(|(schema, _)| self.at(schema));
        if in_first.is_some() || least <= first.len() as u64 {
            return in_first.map(|why| format!("items: {why}"));
        }
        self.at(map.get("items")?).map(|why| format!("items: {why}"))
    }

    fn required(&mut self, map: &'a Map<String, Value>) -> Option<String> {
        let names = map.get("required")?.as_array()?;
        let properties = map.get("properties").and_then(Value::as_object);
        names.iter().filter_map(Value::as_str).find_map(|name| {
            let described = properties.and_then(|properties| properties.get(name));
            let others = map.get("additionalProperties").filter(|_| !map.contains_key("patternProperties"));
            match (described, others) {
                (Some(schema), _) => self.at(schema).map(|why| format!("{name}: {why}")),
                (None, Some(Value::Bool(false))) => Some(format!("{name} is required, but is no property")),
                (None, Some(schema)) => self.at(schema).map(|why| format!("{name}: {why}")),
                (None, None) => None,
            }
        })
    }
}

/// Returns true if `value` is of the type; of a type that is not known, every value is.
fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "string" => value.is_string(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    }
}

/// Says that a lower bound is above its upper bound, if it is.
fn reversed(map: &Map<String, Value>, low: &str, high: &str) -> Option<String> {
    let (least, most) = (map.get(low)?.as_f64()?, map.get(high)?.as_f64()?);
    (least > most).then(|| format!("{low} ({least}) is above {high} ({most})"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_nothing_matches_is_explained() {
        let endless = json!({"type": "object", "required": ["next"], "properties": {"next": {"$ref": "#/$defs/n"}}});
        for (schema, why) in [
            (json!(false), "the schema false matches nothing"),
            (json!({"enum": []}), "enum is empty"),
            (json!({"type": "string", "enum": [1, null]}), "no value of enum is of the type"),
            (json!({"type": "integer", "const": 1.5}), "const is not of the type"),
            (json!({"type": "number", "minimum": 3, "maximum": 2.5}), "minimum (3) is above maximum (2.5)"),
            (json!({"type": "string", "minLength": 3, "maxLength": 2}), "minLength (3) is above maxLength (2)"),
            (json!({"type": "array", "minItems": 1, "items": false}), "items: the schema false matches nothing"),
            (json!({"type": "array", "minItems": 1, "prefixItems": [{"enum": []}]}), "items: enum is empty"),
            (
                json!({"type": "object", "required": ["a"], "properties": {}, "additionalProperties": false}),
                "a is required, but is no property",
            ),
            (
                json!({"type": "object", "required": ["a"], "properties": {"a": {"anyOf": [false, {"enum": []}]}}}),
                "a: the schema false matches nothing",
            ),
            (json!({"allOf": [{}, {"anyOf": []}]}), "anyOf is empty"),
            (json!({"$ref": "#"}), "# contains itself without end"),
            (json!({"$ref": "#/$defs/n", "$defs": {"n": endless}}), "next: #/$defs/n contains itself without end"),
        ] {
            assert_eq!(unmatched(&schema).as_deref(), Some(why), "{schema}");
        }
    }

    #[test]
    fn what_something_matches_is_left_alone() {
        let list = json!({"type": "object", "required": ["next"],
            "properties": {"next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}, "x": {"enum": []}}});
        for schema in [
            json!({"$ref": "#/$defs/n", "$defs": {"n": list}}),
            json!({"type": "object", "required": ["a"], "properties": {}}),
            json!({"required": ["a"], "properties": {}, "additionalProperties": false}),
            json!({"type": "object", "required": ["ab"], "patternProperties": {"^a": {}}, "additionalProperties": false}),
            json!({"type": "array", "items": false, "maxItems": 0}),
            json!({"type": ["integer", "null"], "minimum": 3, "maximum": 2}),
            json!({"type": "integer", "enum": [1.0]}),
            json!({"$ref": "http://example.com/x.json"}),
        ] {
            assert_eq!(unmatched(&schema), None, "{schema}");
        }
    }

    /// Each schema refers to the next one twice, so that there are more ways than anybody can go.
    #[test]
    fn a_schema_with_many_ways_costs_little() {
        let part = |index: u32| {
            let next = json!({"$ref": format!("#/$defs/{}", index + 1)});
            json!({"type": "object", "required": ["a", "b"], "properties": {"a": next, "b": next}})
        };
        let parts: Map<String, Value> = (0..4_000).map(|index| (index.to_string(), part(index))).collect();
        assert_eq!(unmatched(&json!({"$ref": "#/$defs/0", "$defs": parts})), None);
    }
}
