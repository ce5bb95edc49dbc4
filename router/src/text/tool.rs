//! Tool that a model may call, as a client describes it; knows no template and no answer.

use serde_json::{Map, Value, json};

/// A function that a client offers to the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Name of the function.
    pub name: String,
    /// JSON schema of the arguments; empty where the client gives none.
    pub parameters: Map<String, Value>,
    /// Whether the arguments must follow the schema.
    pub strict: Strict,
    /// Description as the client sent it, which templates write.
    pub described: Value,
}

impl Tool {
    /// Describes a function as OpenAI's API does, which is the form that templates are made for.
    #[must_use]
    pub fn function(name: String, description: Option<String>, parameters: Map<String, Value>, strict: Strict) -> Tool {
        let mut function = Map::new();
        function.insert("name".to_owned(), Value::String(name.clone()));
        if let Some(description) = description {
            function.insert("description".to_owned(), Value::String(description));
        }
        function.insert("parameters".to_owned(), Value::Object(parameters.clone()));
        let described = json!({"type": "function", "function": function});
        Tool { name, parameters, strict, described }
    }
}

/// Whether the arguments of a call must follow the function's schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strict {
    /// They must.
    Yes,
    /// They should.
    No,
}

/// Whether the model calls tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model decides.
    Auto,
    /// It must not.
    None,
    /// It must call at least one.
    Required,
    /// It must call the tool of this name.
    Named(String),
}
