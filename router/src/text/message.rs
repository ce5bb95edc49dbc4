//! One turn of a conversation, as a client sends it; knows no template.

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Content,
    /// The speaker's name, where a client gives one.
    pub name: Option<String>,
    /// What the model thought before it spoke (`reasoning_content`, `reasoning`).
    pub reasoning: Option<String>,
    /// The same under the name that some templates have for it (`thinking`).
    pub thinking: Option<String>,
}

impl Message {
    /// A turn that is only text.
    #[must_use]
    pub fn text(role: Role, content: impl Into<String>) -> Message {
        Message { role, content: Content::Text(content.into()), name: None, reasoning: None, thinking: None }
    }
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// One text.
    Text(String),
    /// Several parts, each a text.
    Parts(Vec<String>),
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions.
    System,
    /// Instructions, by the name that newer clients give them. Templates that do not know it are told `system`.
    Developer,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The word that templates compare with.
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
