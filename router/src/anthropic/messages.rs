//! `POST /v1/messages`: the request; knows no template and no answer.

use serde_json::Value;

use super::known::{drop_ignored, refuse_for_messages};
use super::output::Output;
use super::thinking::take_thinking;
use super::tools::take_tool_use;
use super::turns::Turns;
use crate::openai::chat::take_template_variables;
use crate::openai::fields::Fields;
use crate::openai::generation::take_stops;
use crate::openai::known::note_unknown;
use crate::openai::tools::missing;
use crate::openai::{ApiError, BeyondContext, Conversation, Delivery, Generation, Limits, UsageChunk};
use crate::text::AddSpecials;

/// A parsed and checked request for a message.
#[derive(Debug, Clone, PartialEq)]
pub struct MessagesRequest {
    /// How the tokens are chosen and sent.
    pub generation: Generation,
    /// The conversation, at least one message.
    pub conversation: Conversation,
    /// Tokens that the client allows the answer.
    pub max_tokens: u32,
}

impl MessagesRequest {
    /// Parses and checks a body.
    ///
    /// # Errors
    /// When anything in it is wrong or asks for a missing feature; the error names the field.
    pub fn parse(body: &[u8], limits: &Limits) -> Result<MessagesRequest, ApiError> {
        let (request, rest) = MessagesRequest::parse_fields(body, limits)?;
        note_unknown("/v1/messages: ", &rest);
        Ok(request)
    }

    /// Parses a body; also returns the fields that were not used.
    pub(super) fn parse_fields(body: &[u8], limits: &Limits) -> Result<(MessagesRequest, Fields), ApiError> {
        let mut fields = Fields::parse(body)?;
        let max_tokens = fields.count("max_tokens", 1..=u32::MAX)?;
        let stops = take_stops("stop_sequences", &mut fields, limits)?;
        let (conversation, output) = take_conversation(&mut fields)?;
        let max_tokens = max_tokens.ok_or_else(|| missing("max_tokens"))?;
        let mut generation = Generation::take(&mut fields, limits)?;
        generation.max_tokens = Some(max_tokens);
        generation.beyond_context = BeyondContext::Cut;
        generation.stops = stops;
        generation.structure = output.structure_beside(generation.structure.take())?;
        if generation.delivery != Delivery::Whole {
            // The first event and the last have token counts.
            generation.delivery = Delivery::Stream(UsageChunk::Continuous);
        }
        Ok((MessagesRequest { generation, conversation, max_tokens }, fields))
    }
}

/// Takes the fields that make the prompt, and what they say about the answer; refuses fields that would make another.
pub(super) fn take_conversation(fields: &mut Fields) -> Result<(Conversation, Output), ApiError> {
    let mut variables = take_template_variables(fields)?;
    let thoughts = take_thinking(fields, &mut variables)?;
    let output = Output::take(fields)?;
    if let Some(effort) = output.effort() {
        // Templates with efforts read this variable; the client's own value wins.
        variables.entry("reasoning_effort").or_insert_with(|| Value::String(effort.to_owned()));
    }
    drop_ignored(fields);
    refuse_for_messages(fields)?;
    let Turns { messages, generation_prompt } = Turns::take(fields)?;
    let tool_use = take_tool_use(fields)?;
    let add_specials = match fields.flag("add_special_tokens")? {
        Some(true) => AddSpecials::Yes,
        Some(false) | None => AddSpecials::No,
    };
    let template_variables = variables;
    Ok((Conversation { messages, generation_prompt, template_variables, tool_use, thoughts, add_specials }, output))
}
