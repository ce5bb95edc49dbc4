//! `POST /v1/chat/completions`: the request; knows no template and no answer.

use serde_json::{Map, Value};

use super::fields::{self, Fields};
use super::generation::LOGPROBS_MAX;
use super::known::note_unknown;
use super::refused::{refuse_for_chat, refuse_in_message};
use super::tools::{ToolUse, calls};
use super::{ApiError, Generation, Limits};
use crate::text::{AddSpecials, Content, GenerationPrompt, Message, Role, SERVER_VARIABLES};

/// A parsed and checked chat request.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatRequest {
    /// Fields that both kinds of completion share.
    pub generation: Generation,
    /// The conversation, at least one message.
    pub conversation: Conversation,
}

/// Input of a chat template.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    /// The turns.
    pub messages: Vec<Message>,
    /// Whether the prompt opens the model's turn.
    pub generation_prompt: GenerationPrompt,
    /// Further variables for the template.
    pub template_variables: Map<String, Value>,
    /// Tools that the model may use.
    pub tool_use: ToolUse,
    /// What becomes of the model's thoughts.
    pub thoughts: Thoughts,
    /// Templates spell out control tokens, so the tokenizer adds none unless told to.
    pub add_specials: AddSpecials,
}

/// What becomes of the model's thoughts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thoughts {
    /// They are sent beside the content.
    Beside,
    /// They are left out (`include_reasoning: false`).
    Omitted,
    /// They stay in the content (`separate_reasoning: false`).
    InContent,
}

impl ChatRequest {
    /// Parses and checks a body.
    ///
    /// # Errors
    /// When anything in it is wrong or asks for a missing feature; the error names the field.
    pub fn parse(body: &[u8], limits: &Limits) -> Result<ChatRequest, ApiError> {
        let (request, rest) = ChatRequest::parse_fields(body, limits)?;
        note_unknown("", &rest);
        Ok(request)
    }

    /// Parses a body; also returns the fields that were not used.
    pub(super) fn parse_fields(body: &[u8], limits: &Limits) -> Result<(ChatRequest, Fields), ApiError> {
        let mut fields = Fields::parse(body)?;
        let conversation = Conversation::take(&mut fields)?;
        let mut generation = Generation::take(&mut fields, limits)?;
        let max_tokens = fields.count("max_tokens", 1..=u32::MAX)?;
        generation.max_tokens = fields.count("max_completion_tokens", 1..=u32::MAX)?.or(max_tokens);
        generation.logprobs = take_logprobs(&mut fields)?;
        Ok((ChatRequest { generation, conversation }, fields))
    }
}

impl Conversation {
    /// Takes the fields that make the prompt, and refuses fields that would make another one.
    pub(super) fn take(fields: &mut Fields) -> Result<Conversation, ApiError> {
        refuse_for_chat(fields)?;
        let messages = fields
            .list("messages")?
            .ok_or_else(|| ApiError::invalid("messages", "messages is missing"))?
            .into_iter()
            .enumerate()
            .map(|(index, value)| message(&format!("messages[{index}]"), value))
            .collect::<Result<Vec<_>, _>>()?;
        if messages.is_empty() {
            return Err(ApiError::invalid("messages", "messages must not be empty"));
        }
        let effort = fields.string("reasoning_effort")?;
        let tool_use = ToolUse::take(fields)?;
        Conversation::with(messages, tool_use, effort, fields)
    }

    /// Takes the fields that say how `messages` become a prompt.
    pub(super) fn with(
        messages: Vec<Message>,
        tool_use: ToolUse,
        reasoning_effort: Option<String>,
        fields: &mut Fields,
    ) -> Result<Conversation, ApiError> {
        let mut template_variables = take_template_variables(fields)?;
        if let Some(effort) = reasoning_effort {
            // Templates with efforts read this variable; the client's own value wins.
            template_variables.entry("reasoning_effort").or_insert(Value::String(effort));
        }
        Ok(Conversation {
            messages,
            generation_prompt: take_generation_prompt(fields)?,
            template_variables,
            tool_use,
            thoughts: take_thoughts(fields)?,
            add_specials: match fields.flag("add_special_tokens")? {
                Some(true) => AddSpecials::Yes,
                Some(false) | None => AddSpecials::No,
            },
        })
    }
}

fn take_thoughts(fields: &mut Fields) -> Result<Thoughts, ApiError> {
    let (include, separate) = (fields.flag("include_reasoning")?, fields.flag("separate_reasoning")?);
    Ok(match (include, separate) {
        (Some(false), _) => Thoughts::Omitted,
        (Some(true) | None, Some(false)) => Thoughts::InContent,
        (Some(true) | None, Some(true) | None) => Thoughts::Beside,
    })
}

fn take_generation_prompt(fields: &mut Fields) -> Result<GenerationPrompt, ApiError> {
    const CONTINUE: &str = "continue_final_message";
    let add = fields.flag("add_generation_prompt")?;
    match (fields.flag(CONTINUE)?.unwrap_or(false), add) {
        (true, Some(true)) => {
            let message = format!("{CONTINUE} and add_generation_prompt must not both be true");
            Err(ApiError::invalid(CONTINUE, message))
        }
        (true, Some(false) | None) => Ok(GenerationPrompt::Continue),
        (false, Some(false)) => Ok(GenerationPrompt::Omit),
        (false, Some(true) | None) => Ok(GenerationPrompt::Add),
    }
}

/// Takes variables for the template; refuses those that the server sets.
pub(crate) fn take_template_variables(fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    let variables = fields.object("chat_template_kwargs")?.unwrap_or_default();
    match SERVER_VARIABLES.into_iter().find(|name| variables.contains_key(*name)) {
        Some(name) => {
            let message = format!("chat_template_kwargs must not have {name:?}, which the server sets itself");
            Err(ApiError::invalid("chat_template_kwargs", message))
        }
        None => Ok(variables),
    }
}

fn message(name: &str, value: Value) -> Result<Message, ApiError> {
    let Value::Object(map) = value else { return Err(fields::wrong(name, "an object", &value)) };
    let mut fields = Fields::of(map);
    refuse_in_message(&mut fields, &format!("{name}."))?;
    let role = role(&format!("{name}.role"), fields.take("role"))?;
    let calls = calls(&format!("{name}.tool_calls"), fields.take("tool_calls"))?;
    if role != Role::Assistant && !calls.is_empty() {
        let message = format!("{name}.tool_calls: only messages of the assistant have calls");
        return Err(ApiError::invalid(&format!("{name}.tool_calls"), message));
    }
    let content = match fields.take("content") {
        None if !calls.is_empty() => Content::Null,
        given => content(&format!("{name}.content"), role, given)?,
    };
    let mut text =
        |field: &str| fields.take(field).map(|value| fields::string(&format!("{name}.{field}"), value)).transpose();
    // Servers use different names; a client that sends both must mean the same.
    let reasoning = match (text("reasoning")?, text("reasoning_content")?) {
        (Some(one), Some(other)) if one != other => {
            let message = format!("{name}: reasoning and reasoning_content are one field, but differ");
            return Err(ApiError::invalid(&format!("{name}.reasoning"), message));
        }
        (one, other) => one.or(other),
    };
    let (speaker, thinking, call_id) = (text("name")?, text("thinking")?, text("tool_call_id")?);
    let message = Message { role, content, name: speaker, reasoning, thinking, calls, call_id };
    note_unknown("messages[].", &fields);
    Ok(message)
}

fn role(name: &str, value: Option<Value>) -> Result<Role, ApiError> {
    let Some(value) = value else { return Err(ApiError::invalid(name, format!("{name} is missing"))) };
    match value.as_str() {
        Some("system") => Ok(Role::System),
        Some("developer") => Ok(Role::Developer),
        Some("user") => Ok(Role::User),
        Some("assistant") => Ok(Role::Assistant),
        Some("tool") => Ok(Role::Tool),
        Some("function") => Err(ApiError {
            code: Some("unsupported_value"),
            ..ApiError::invalid(name, format!("{name}: function is not supported by this server; send the role tool"))
        }),
        Some(_) | None => Err(fields::wrong(name, "one of system, developer, user, assistant, tool", &value)),
    }
}

/// Parses a string, or a list of text parts.
fn content(name: &str, role: Role, value: Option<Value>) -> Result<Content, ApiError> {
    match value {
        Some(Value::String(text)) => Ok(Content::Text(text)),
        Some(Value::Array(parts)) => {
            let parts = parts.into_iter().enumerate();
            let texts = parts.map(|(index, part)| text_part(&format!("{name}[{index}]"), part));
            Ok(Content::Parts(texts.collect::<Result<_, _>>()?))
        }
        Some(other) => Err(fields::wrong(name, "a string or a list of text parts", &other)),
        None if matches!(role, Role::Assistant | Role::Tool) => Ok(Content::Text(String::new())),
        None => Err(ApiError::invalid(name, format!("{name} is missing"))),
    }
}

fn text_part(name: &str, part: Value) -> Result<String, ApiError> {
    let Value::Object(map) = part else { return Err(fields::wrong(name, "an object", &part)) };
    let mut fields = Fields::of(map);
    let kind = fields.take("type").unwrap_or(Value::Null);
    if kind != "text" {
        return Err(ApiError {
            code: Some("unsupported_value"),
            ..fields::wrong(&format!("{name}.type"), "\"text\", the only kind that this server supports", &kind)
        });
    }
    let text = fields.take("text").ok_or_else(|| {
        let field = format!("{name}.text");
        ApiError::invalid(&field, format!("{field} is missing"))
    })?;
    note_unknown("messages[].content[].", &fields);
    fields::string(&format!("{name}.text"), text)
}

/// Takes `logprobs`, which switches them on, and `top_logprobs`, the number of alternatives.
fn take_logprobs(fields: &mut Fields) -> Result<Option<u8>, ApiError> {
    let wanted = fields.flag("logprobs")?.unwrap_or(false);
    let top = fields.count("top_logprobs", 0..=LOGPROBS_MAX)?.unwrap_or(0);
    if top > 0 && !wanted {
        return Err(ApiError::invalid("top_logprobs", "top_logprobs needs logprobs to be true"));
    }
    Ok(wanted.then(|| u8::try_from(top).unwrap_or(u8::MAX)))
}
