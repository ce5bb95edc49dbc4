//! `POST /v1/responses`: the request; knows no template and no answer.

use std::sync::Arc;

use serde_json::Value;

use super::super::chat::Conversation;
use super::super::fields::{self, Fields};
use super::super::generation::LOGPROBS_MAX;
use super::super::known::note_unknown;
use super::super::refused::refuse_for_responses;
use super::super::structure::{Wanted, of_json_schema};
use super::super::{ApiError, Delivery, Generation, Head, Limits, UsageChunk};
use super::answer::ResponseAnswer;
use super::asked::{Asked, Shown};
use super::input::take_messages;
use super::tools::take_tool_use;
use crate::structure;

const LOGPROBS: &str = "message.output_text.logprobs";
/// Clients that keep their history themselves ask for this in every request. Thoughts are sent in the clear here.
const ENCRYPTED: &str = "reasoning.encrypted_content";
const FORMAT: &str = "text.format";

/// A parsed and checked request of the Responses API.
#[derive(Debug, Clone)]
pub struct ResponsesRequest {
    /// Fields that all endpoints share.
    pub generation: Generation,
    /// The conversation, at least one message.
    pub conversation: Conversation,
    /// What the answer repeats of the request.
    asked: Arc<Asked>,
    /// How thoughts appear in the answer.
    shown: Shown,
}

impl ResponsesRequest {
    /// Parses and checks a body.
    ///
    /// # Errors
    /// When anything in it is wrong or asks for a missing feature; the error names the field.
    pub fn parse(body: &[u8], limits: &Limits) -> Result<ResponsesRequest, ApiError> {
        let (request, rest) = ResponsesRequest::parse_fields(body, limits)?;
        note_unknown("/v1/responses: ", &rest);
        Ok(request)
    }

    /// Parses a body; also returns the fields that were not used.
    pub(in super::super) fn parse_fields(body: &[u8], limits: &Limits) -> Result<(ResponsesRequest, Fields), ApiError> {
        let mut fields = Fields::parse(body)?;
        refuse_for_responses(&mut fields)?;
        let asked = Arc::new(Asked::of(&fields));
        check_repeated(&mut fields)?;
        let messages = take_messages(&mut fields)?;
        let tool_use = take_tool_use(&mut fields)?;
        let (effort, shown) = take_reasoning(&mut fields)?;
        let logprobs = take_logprobs(&mut fields)?;
        if logprobs.is_some() && !tool_use.tools.is_empty() {
            // Whether a token belongs to the text or to a call is not known.
            return Err(ApiError::unsupported_use("include", &format!("{LOGPROBS} together with tools")));
        }
        let conversation = Conversation::with(messages, tool_use, effort, &mut fields)?;
        let structure = take_structure(&mut fields)?;
        check_stream_options(&mut fields)?;
        let mut generation = Generation::take(&mut fields, limits)?;
        generation.structure = match (structure, generation.structure) {
            (Some(_), Some(Wanted { field, .. })) => {
                return Err(ApiError::invalid(field, format!("{field} and {FORMAT} must not be sent together")));
            }
            (one, other) => one.or(other),
        };
        generation.max_tokens = fields.count("max_output_tokens", 1..=u32::MAX)?;
        generation.logprobs = logprobs;
        if let Delivery::Stream(usage) = &mut generation.delivery {
            // The last event always has the token counts.
            *usage = UsageChunk::Include;
        }
        Ok((ResponsesRequest { generation, conversation, asked, shown }, fields))
    }

    /// Begins the answer.
    #[must_use]
    pub fn answer(&self, head: Head) -> ResponseAnswer {
        ResponseAnswer::new(head, Arc::clone(&self.asked), self.shown)
    }
}

/// Checks the fields that do nothing but appear in the answer, whose readers expect their types.
fn check_repeated(fields: &mut Fields) -> Result<(), ApiError> {
    for name in ["prompt_cache_key", "safety_identifier", "user"] {
        fields.string(name)?;
    }
    fields.count("max_tool_calls", 0..=u32::MAX)?;
    for (key, value) in fields.object("metadata")?.unwrap_or_default() {
        fields::string(&format!("metadata.{key}"), value)?;
    }
    Ok(())
}

/// Takes `include`, which switches log-probabilities on, and `top_logprobs`, the number of alternatives.
fn take_logprobs(fields: &mut Fields) -> Result<Option<u8>, ApiError> {
    let mut wanted = false;
    for (index, part) in fields.list("include")?.unwrap_or_default().into_iter().enumerate() {
        let place = format!("include[{index}]");
        match fields::string(&place, part)?.as_str() {
            LOGPROBS => wanted = true,
            ENCRYPTED => {}
            other => return Err(ApiError::unsupported_use(&place, &format!("{place}: {other:?}"))),
        }
    }
    let top = fields.count("top_logprobs", 0..=LOGPROBS_MAX)?.unwrap_or(0);
    if top > 0 && !wanted {
        return Err(ApiError::invalid("top_logprobs", format!("top_logprobs needs include to have {LOGPROBS:?}")));
    }
    Ok(wanted.then(|| u8::try_from(top).unwrap_or(u8::MAX)))
}

/// Takes `reasoning`: the effort, and how thoughts appear.
fn take_reasoning(fields: &mut Fields) -> Result<(Option<String>, Shown), ApiError> {
    let mut reasoning = Fields::of(fields.object("reasoning")?.unwrap_or_default());
    let mut text =
        |name: &str| reasoning.take(name).map(|value| fields::string(&format!("reasoning.{name}"), value)).transpose();
    let effort = text("effort")?;
    let summary = match text("summary")? {
        Some(summary) => Some(summary),
        // Its older name.
        None => text("generate_summary")?,
    };
    note_unknown("reasoning.", &reasoning);
    match summary.as_deref() {
        None => Ok((effort, Shown::Content)),
        Some("auto" | "concise" | "detailed") => Ok((effort, Shown::Summary)),
        Some(other) => {
            Err(fields::wrong("reasoning.summary", "one of auto, concise, detailed", &Value::String(other.to_owned())))
        }
    }
}

/// Takes `text`, the format of the answer.
fn take_structure(fields: &mut Fields) -> Result<Option<Wanted>, ApiError> {
    let mut text = Fields::of(fields.object("text")?.unwrap_or_default());
    let format = text.take("format");
    if let Some(verbosity) = text.take("verbosity")
        && !matches!(verbosity.as_str(), Some("low" | "medium" | "high"))
    {
        return Err(fields::wrong("text.verbosity", "one of low, medium, high", &verbosity));
    }
    note_unknown("text.", &text);
    let mut format = match format {
        None => return Ok(None),
        Some(Value::Object(format)) => Fields::of(format),
        Some(other) => return Err(fields::wrong(FORMAT, "an object", &other)),
    };
    let kind = format.take("type").unwrap_or(Value::Null);
    let grammar = match kind.as_str() {
        Some("text") => return Ok(None),
        Some("json_object") => structure::json_object(),
        Some("json_schema") => of_json_schema(FORMAT, &mut format)?,
        _ => {
            let expected = "one of text, json_object, json_schema";
            return Err(fields::wrong("text.format.type", expected, &kind));
        }
    };
    Ok(Some(Wanted { field: FORMAT, grammar }))
}

/// Checks `stream_options`, which have no effect: nothing is added to events to hide their sizes.
fn check_stream_options(fields: &mut Fields) -> Result<(), ApiError> {
    let mut options = Fields::of(fields.object("stream_options")?.unwrap_or_default());
    if let Some(value) = options.take("include_obfuscation") {
        fields::flag("stream_options.include_obfuscation", &value)?;
    }
    note_unknown("stream_options.", &options);
    Ok(())
}
