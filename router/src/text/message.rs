//! One turn of a conversation, as a client sends it; knows no template.

use serde_json::{Map, Value};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The speaker.
    pub role: Role,
    /// Text of the turn.
    pub content: Content,
    /// The speaker's name, where a client gives one.
    pub name: Option<String>,
    /// The model's thoughts before it spoke (`reasoning_content`, `reasoning`).
    pub reasoning: Option<String>,
    /// The same thoughts under the name that some templates use (`thinking`).
    pub thinking: Option<String>,
    /// Calls that the model made in this turn.
    pub calls: Vec<ToolCall>,
    /// Name of the call of which this turn is the result.
    pub call_id: Option<String>,
}

impl Message {
    /// Makes a turn of text only.
    #[must_use]
    pub fn text(role: Role, content: impl Into<String>) -> Message {
        Message {
            role,
            content: Content::Text(content.into()),
            name: None,
            reasoning: None,
            thinking: None,
            calls: Vec::new(),
            call_id: None,
        }
    }
}

/// Text of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// One text.
    Text(String),
    /// Several parts, each a text.
    Parts(Vec<String>),
    /// None: the turn consists of calls.
    Null,
}

/// Call of a tool in an earlier turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// The call as the client sent it, but with its arguments as an object, unless they are the text of none.
    pub sent: Map<String, Value>,
    /// Arguments as the client wrote them; `None` if it sent an object.
    pub written: Option<String>,
}

impl ToolCall {
    /// Makes a call in the form of OpenAI's API, which is the one that templates are made for.
    #[must_use]
    pub fn function(id: String, name: String, arguments: Value) -> ToolCall {
        let function = object([("name", Value::String(name)), ("arguments", arguments)]);
        let call =
            [("id", Value::String(id)), ("type", Value::from("function")), ("function", Value::Object(function))];
        ToolCall { sent: object(call), written: None }
    }

    /// Returns the name of the call and that of its function, if it has both.
    #[must_use]
    pub fn id_and_name(&self) -> Option<(&str, &str)> {
        let name = self.sent.get("function")?.get("name")?.as_str()?;
        Some((self.sent.get("id")?.as_str()?, name))
    }

    /// Returns the arguments as text.
    #[must_use]
    pub fn arguments_text(&self) -> String {
        let arguments = || self.sent.get("function").and_then(|function| function.get("arguments"));
        self.written.clone().unwrap_or_else(|| arguments().map(Value::to_string).unwrap_or_default())
    }
}

fn object<const FIELDS: usize>(fields: [(&str, Value); FIELDS]) -> Map<String, Value> {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Speaker of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions.
    System,
    /// Instructions, as newer clients call them. Templates that do not know this role get `system`.
    Developer,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// A tool that the model has called.
    Tool,
}

impl Role {
    /// Returns the word that templates compare with.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::Developer => "developer",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}
