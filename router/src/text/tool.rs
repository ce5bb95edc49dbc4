//! Tool that a model may call, as a client describes it; knows no template and no answer.

use serde_json::{Map, Value};

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
