//! Function that a model may call, as far as reading its calls needs it; knows no request.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Name and arguments of a function.
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    /// Name.
    pub name: String,
    /// Arguments that are not simply strings.
    structured: BTreeSet<String>,
}

impl Function {
    /// Takes from the JSON schema of the arguments what reading a call needs.
    #[must_use]
    pub fn new(name: &str, parameters: &Map<String, Value>) -> Function {
        let properties = parameters.get("properties").and_then(Value::as_object);
        let structured = properties.into_iter().flatten().filter(|(_, schema)| is_structured(schema));
        Function { name: name.to_owned(), structured: structured.map(|(key, _)| key.clone()).collect() }
    }

    /// Bytes that are kept.
    pub(super) fn bytes(&self) -> usize {
        self.name.len() + self.structured.iter().map(|key| size_of::<String>() + key.len()).sum::<usize>()
    }

    /// Returns true if the argument `key` is a string: if the schema says so, or nothing. Others are read as JSON if they
    /// are that.
    pub(super) fn is_text(&self, key: &str) -> bool {
        !self.structured.contains(key)
    }
}

fn is_structured(schema: &Value) -> bool {
    match schema.get("type") {
        Some(Value::String(kind)) => kind != "string",
        Some(_) => true,
        None => ["anyOf", "oneOf", "allOf", "$ref"].iter().any(|word| schema.get(word).is_some()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_are_read_as_the_schema_says() {
        let properties =
            json!({"text": {"type": "string"}, "days": {"type": "integer"}, "any": {"anyOf": []}, "bare": {}});
        let function = Function::new("f", json!({"properties": properties}).as_object().unwrap());
        for (key, is_text) in [("text", true), ("days", false), ("any", false), ("bare", true), ("unknown", true)] {
            assert_eq!(function.is_text(key), is_text, "{key}");
        }
    }
}
