//! The conversation of a request as turns that a chat template knows; knows no template.
//!
//! As Anthropic's API does, it makes one turn of several messages of one speaker. Results of tools become turns of their
//! own. Instructions inside the conversation join the turn before them, because few templates have a place for them and
//! a prompt must go on as it began for its prefix to be found again.

use std::collections::BTreeMap;

use serde_json::Value;

use super::blocks::{ModelBlock, UserBlock, of_model, of_user, texts};
use crate::openai::ApiError;
use crate::openai::fields::{Fields, wrong};
use crate::openai::known::note_unknown;
use crate::openai::tools::missing;
use crate::text::{Content, GenerationPrompt, Message, Role};

/// Line that Claude Code puts before its instructions. It differs from request to request, so no prefix would be found
/// behind it.
const BILLING: &str = "x-anthropic-billing-header";

/// Turns of a conversation.
#[derive(Debug, PartialEq)]
pub(super) struct Turns {
    pub(super) messages: Vec<Message>,
    pub(super) generation_prompt: GenerationPrompt,
}

/// Turns as they are put together.
#[derive(Debug, Default)]
struct Draft {
    turns: Vec<Message>,
    /// Instructions that wait for the results of the calls before them.
    waiting: Vec<String>,
    /// Names of the functions that were called, by the name of the call.
    called: BTreeMap<String, String>,
}

impl Turns {
    /// Takes `system` and `messages`.
    pub(super) fn take(fields: &mut Fields) -> Result<Turns, ApiError> {
        let mut draft = Draft::default();
        let system = fields.take("system");
        if system.is_some() {
            draft.instruct(texts("system", system)?);
        }
        let list = fields.list("messages")?.ok_or_else(|| missing("messages"))?;
        let last = list.len().checked_sub(1);
        let last = last.ok_or_else(|| ApiError::invalid("messages", "messages must not be empty"))?;
        for (index, value) in list.into_iter().enumerate() {
            draft.add(&format!("messages[{index}]"), value)?;
        }
        draft.settle();
        let messages: Vec<Message> = draft.turns.into_iter().map(finished).collect();
        let generation_prompt = match messages.last() {
            Some(turn) if turn.role == Role::Assistant && !turn.calls.is_empty() => {
                let field = format!("messages[{last}]");
                let message =
                    format!("{field}: the last message calls tools, so a message with their results must follow");
                return Err(ApiError::invalid(&field, message));
            }
            Some(turn) if turn.role == Role::Assistant => GenerationPrompt::Continue,
            Some(_) | None => GenerationPrompt::Add,
        };
        Ok(Turns { messages, generation_prompt })
    }
}

impl Draft {
    fn add(&mut self, place: &str, value: Value) -> Result<(), ApiError> {
        let Value::Object(map) = value else { return Err(wrong(place, "an object", &value)) };
        let mut fields = Fields::of(map);
        let speaker = speaker(&format!("{place}.role"), fields.take("role"))?;
        let place = format!("{place}.content");
        let given = fields.take("content");
        match speaker {
            Speaker::System => self.instruct(texts(&place, given)?),
            Speaker::Assistant => self.assistant(of_model(&place, given)?),
            Speaker::User => self.user(of_user(&place, given)?),
        }
        note_unknown("messages[].", &fields);
        Ok(())
    }

    fn user(&mut self, blocks: Vec<UserBlock>) {
        if blocks.is_empty() {
            self.turn(Role::User);
        }
        for block in blocks {
            match block {
                UserBlock::Text(text) => say(self.turn(Role::User), text),
                UserBlock::Result { call_id, texts } => {
                    // Some templates write the name of the function, which clients of this API do not send again.
                    let (content, name) = (Content::Parts(texts), self.called.get(&call_id).cloned());
                    self.turns.push(Message { content, name, call_id: Some(call_id), ..Message::text(Role::Tool, "") });
                }
            }
        }
        self.settle();
    }

    fn assistant(&mut self, blocks: Vec<ModelBlock>) {
        for block in &blocks {
            if let ModelBlock::Call(call) = block
                && let Some((id, name)) = call.id_and_name()
            {
                self.called.insert(id.to_owned(), name.to_owned());
            }
        }
        let turn = self.turn(Role::Assistant);
        for block in blocks {
            match block {
                ModelBlock::Text(text) => say(turn, text),
                ModelBlock::Thinking(thoughts) => turn.reasoning.get_or_insert_default().push_str(&thoughts),
                ModelBlock::Call(call) => turn.calls.push(call),
                ModelBlock::Redacted => {}
            }
        }
    }

    /// Adds instructions: to those at the start, or to the turn before them.
    fn instruct(&mut self, texts: Vec<String>) {
        let texts = texts.into_iter().filter(|text| !text.is_empty() && !text.starts_with(BILLING));
        for text in texts {
            match self.turns.last().map(|turn| (turn.role, turn.calls.is_empty())) {
                None => say(self.turn(Role::System), text),
                Some((Role::Assistant, false)) => self.waiting.push(text),
                Some((Role::Assistant, true)) => say(self.turn(Role::User), text),
                Some((role, _)) => say(self.turn(role), text),
            }
        }
    }

    /// Adds the instructions that have waited.
    fn settle(&mut self) {
        for text in std::mem::take(&mut self.waiting) {
            let role = self.turns.last().map_or(Role::User, |turn| turn.role);
            say(self.turn(if role == Role::Assistant { Role::User } else { role }), text);
        }
    }

    /// Returns the turn of `role` that is going on, or begins one.
    fn turn(&mut self, role: Role) -> &mut Message {
        if self.turns.last().is_none_or(|turn| turn.role != role) {
            self.turns.push(Message { content: Content::Parts(Vec::new()), ..Message::text(role, "") });
        }
        // There is one by now.
        let last = self.turns.len() - 1;
        &mut self.turns[last]
    }
}

fn say(turn: &mut Message, text: String) {
    match &mut turn.content {
        Content::Parts(parts) => parts.push(text),
        Content::Text(_) | Content::Null => turn.content = Content::Parts(vec![text]),
    }
}

/// Gives a turn its simplest content. Instructions are one text, as most templates expect.
fn finished(mut turn: Message) -> Message {
    let parts = match turn.content {
        Content::Parts(parts) => parts,
        content @ (Content::Text(_) | Content::Null) => return Message { content, ..turn },
    };
    turn.content = match <[String; 1]>::try_from(parts) {
        Ok([text]) => Content::Text(text),
        Err(none) if none.is_empty() && !turn.calls.is_empty() => Content::Null,
        Err(none) if none.is_empty() => Content::Text(String::new()),
        Err(parts) if turn.role == Role::System => Content::Text(parts.join("\n")),
        Err(parts) => Content::Parts(parts),
    };
    turn
}

/// Speaker of a message, as Anthropic's API names it.
#[derive(Debug, Clone, Copy)]
enum Speaker {
    System,
    User,
    Assistant,
}

fn speaker(field: &str, value: Option<Value>) -> Result<Speaker, ApiError> {
    let value = value.ok_or_else(|| missing(field))?;
    match value.as_str() {
        Some("user") => Ok(Speaker::User),
        Some("assistant") => Ok(Speaker::Assistant),
        Some("system") => Ok(Speaker::System),
        Some(_) | None => Err(wrong(field, "one of user, assistant, system", &value)),
    }
}
