//! `instructions` and `input`, a list of items, as the turns of a conversation; knows no template.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::ApiError;
use super::super::fields::{self, Fields};
use super::super::known::note_unknown;
use super::super::refused::STATELESS;
use super::super::tools::{call_of, missing};
use super::content::texts_of;
use crate::text::{Content, Message, Role};

/// Kinds of text parts in messages and in results of calls.
const TEXTS: [&str; 4] = ["input_text", "output_text", "text", "refusal"];

/// Takes the conversation, at least one message.
pub(super) fn take_messages(fields: &mut Fields) -> Result<Vec<Message>, ApiError> {
    let mut turns = Turns::default();
    if let Some(instructions) = fields.string("instructions")? {
        turns.push(Message::text(Role::System, instructions));
    }
    match fields.take("input") {
        Some(Value::String(text)) => turns.push(Message::text(Role::User, text)),
        Some(Value::Array(items)) if items.is_empty() => {
            return Err(ApiError::invalid("input", "input must not be empty"));
        }
        Some(Value::Array(items)) => {
            for (index, item) in items.into_iter().enumerate() {
                turns.take(&format!("input[{index}]"), item)?;
            }
        }
        Some(other) => return Err(fields::wrong("input", "a string or a list of items", &other)),
        None => return Err(missing("input")),
    }
    Ok(turns.end())
}

/// Turns so far. Items of the assistant that follow one another are one turn, which begins with its thoughts.
#[derive(Default)]
struct Turns {
    messages: Vec<Message>,
    /// The assistant's turn in progress.
    assistant: Option<Message>,
    /// Names of the functions that were called, by the name of the call.
    called: BTreeMap<String, String>,
}

impl Turns {
    fn take(&mut self, place: &str, item: Value) -> Result<(), ApiError> {
        let Value::Object(map) = item else { return Err(fields::wrong(place, "an object", &item)) };
        let mut item = Fields::of(map);
        let kind_field = format!("{place}.type");
        let kind = item.take("type").map(|kind| fields::string(&kind_field, kind)).transpose()?;
        match kind.as_deref() {
            Some("message") => self.message(place, &mut item)?,
            // Short form of a message.
            None if item.look("role").is_some() => self.message(place, &mut item)?,
            None => return Err(missing(&kind_field)),
            Some("function_call") => self.call(place, &mut item)?,
            Some("function_call_output") => self.result(place, &mut item)?,
            Some("reasoning") => self.thoughts(place, &mut item)?,
            Some("item_reference") => return Err(unsupported(&kind_field, "item_reference", STATELESS)),
            Some(other) => {
                let instead = "send messages, function_call, function_call_output and reasoning";
                return Err(unsupported(&kind_field, other, instead));
            }
        }
        // Answers have these, and clients send them back.
        for name in ["id", "status", "phase"] {
            item.take(name);
        }
        note_unknown("input[].", &item);
        Ok(())
    }

    fn message(&mut self, place: &str, item: &mut Fields) -> Result<(), ApiError> {
        let field = format!("{place}.role");
        let role = item.take("role").ok_or_else(|| missing(&field))?;
        let role = match role.as_str() {
            Some("user") => Role::User,
            Some("system") => Role::System,
            Some("developer") => Role::Developer,
            Some("assistant") => Role::Assistant,
            Some(_) | None => return Err(fields::wrong(&field, "one of user, assistant, system, developer", &role)),
        };
        let more = texts_of(&format!("{place}.content"), item.take("content"), &TEXTS)?;
        if role == Role::Assistant {
            let turn = self.assistant();
            let mut texts = texts(std::mem::replace(&mut turn.content, Content::Null));
            texts.extend(more);
            turn.content = content(texts);
        } else {
            self.push(Message { content: content(more), ..Message::text(role, "") });
        }
        Ok(())
    }

    fn call(&mut self, place: &str, item: &mut Fields) -> Result<(), ApiError> {
        let (id, name) = (required(place, "call_id", item)?, required(place, "name", item)?);
        let call = call_of(place, &id, &name, item.take("arguments").as_ref())?;
        self.called.insert(id, name);
        self.assistant().calls.push(call);
        Ok(())
    }

    fn result(&mut self, place: &str, item: &mut Fields) -> Result<(), ApiError> {
        let id = required(place, "call_id", item)?;
        let texts = texts_of(&format!("{place}.output"), item.take("output"), &TEXTS)?;
        // Some templates write the name of the function, which clients of this API do not send again.
        let name = self.called.get(&id).cloned();
        self.push(Message { content: content(texts), name, call_id: Some(id), ..Message::text(Role::Tool, "") });
        Ok(())
    }

    fn thoughts(&mut self, place: &str, item: &mut Fields) -> Result<(), ApiError> {
        let mut texts = |name: &str, kinds: &[&str]| match item.take(name) {
            None => Ok(Vec::new()),
            value => texts_of(&format!("{place}.{name}"), value, kinds),
        };
        let content = texts("content", &["reasoning_text", "text"])?;
        let summary = texts("summary", &["summary_text"])?;
        let thoughts = if content.is_empty() { summary.join("\n\n") } else { content.concat() };
        // Only OpenAI's servers can read it.
        item.take("encrypted_content");
        if !thoughts.is_empty() {
            self.end_assistant();
            self.assistant().reasoning = Some(thoughts);
        }
        Ok(())
    }

    /// Returns the assistant's turn in progress, or begins one.
    fn assistant(&mut self) -> &mut Message {
        let begin = || Message { content: Content::Null, ..Message::text(Role::Assistant, "") };
        self.assistant.get_or_insert_with(begin)
    }

    fn end_assistant(&mut self) {
        let Some(mut turn) = self.assistant.take() else { return };
        if turn.calls.is_empty() && turn.content == Content::Null {
            turn.content = Content::Text(String::new());
        }
        self.messages.push(turn);
    }

    fn push(&mut self, message: Message) {
        self.end_assistant();
        self.messages.push(message);
    }

    fn end(mut self) -> Vec<Message> {
        self.end_assistant();
        self.messages
    }
}

fn texts(content: Content) -> Vec<String> {
    match content {
        Content::Null => Vec::new(),
        Content::Text(text) => vec![text],
        Content::Parts(parts) => parts,
    }
}

/// One part is as good as a text, which every template can write.
fn content(mut texts: Vec<String>) -> Content {
    match texts.len() {
        1 => Content::Text(texts.swap_remove(0)),
        0 => Content::Text(String::new()),
        _ => Content::Parts(texts),
    }
}

fn required(place: &str, name: &str, item: &mut Fields) -> Result<String, ApiError> {
    let field = format!("{place}.{name}");
    match fields::string(&field, item.take(name).ok_or_else(|| missing(&field))?)? {
        text if text.is_empty() => Err(ApiError::invalid(&field, format!("{field} must not be empty"))),
        text => Ok(text),
    }
}

fn unsupported(field: &str, kind: &str, instead: &str) -> ApiError {
    let message = format!("{field}: items of the type {kind:?} are not supported by this server; {instead}");
    ApiError { code: Some("unsupported_value"), ..ApiError::invalid(field, message) }
}
