//! One turn of a conversation, as a client sends it; knows no template.

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
}

impl Message {
    /// Makes a turn of text only.
    #[must_use]
    pub fn text(role: Role, content: impl Into<String>) -> Message {
        Message { role, content: Content::Text(content.into()), name: None, reasoning: None, thinking: None }
    }
}

/// Text of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// One text.
    Text(String),
    /// Several parts, each a text.
    Parts(Vec<String>),
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
        }
    }
}
