//! Events of a streamed message, and the objects in them; knows no answer's state.

use serde::Serialize;
use serde_json::{Map, Value};

use super::error_body::ErrorBody;
use super::usage::MessageUsage;
use crate::openai::sse;

/// Event of a stream.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Event<'a> {
    MessageStart { message: Message<'a> },
    ContentBlockStart { index: u32, content_block: Block<'a> },
    ContentBlockDelta { index: u32, delta: BlockDelta<'a> },
    ContentBlockStop { index: u32 },
    MessageDelta { delta: End<'a>, usage: MessageUsage },
    MessageStop,
}

/// Answer, without content and end where it only begins.
#[derive(Serialize)]
pub(super) struct Message<'a> {
    pub(super) id: &'a str,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) role: &'static str,
    pub(super) model: &'a str,
    pub(super) content: Vec<Block<'a>>,
    #[serde(flatten)]
    pub(super) end: End<'a>,
    pub(super) usage: MessageUsage,
}

/// Why an answer has ended.
#[derive(Serialize)]
pub(super) struct End<'a> {
    pub(super) stop_reason: Option<&'static str>,
    pub(super) stop_sequence: Option<&'a str>,
}

/// Content block of an answer.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Block<'a> {
    Thinking { thinking: &'a str, signature: &'static str },
    Text { text: &'a str },
    ToolUse { id: &'a str, name: &'a str, input: Map<String, Value> },
}

/// More of a content block.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "the API's own names")]
pub(super) enum BlockDelta<'a> {
    ThinkingDelta { thinking: &'a str },
    SignatureDelta { signature: &'static str },
    TextDelta { text: &'a str },
    InputJsonDelta { partial_json: &'a str },
}

impl Event<'_> {
    /// Appends the event.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let name = match self {
            Event::MessageStart { .. } => "message_start",
            Event::ContentBlockStart { .. } => "content_block_start",
            Event::ContentBlockDelta { .. } => "content_block_delta",
            Event::ContentBlockStop { .. } => "content_block_stop",
            Event::MessageDelta { .. } => "message_delta",
            Event::MessageStop => "message_stop",
        };
        sse::named_event(name, self, out);
    }
}

/// Appends the event that ends a stream after an error.
pub(super) fn write_error(body: &ErrorBody<'_>, out: &mut Vec<u8>) {
    sse::named_event("error", body, out);
}
