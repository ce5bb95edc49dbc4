//! `POST /v1/messages`: the answer, whole or as events; knows no request.

use sched::FinishReason;
use serde_json::Map;

use super::error_body::ErrorBody;
use super::events::{Block, BlockDelta, End, Event, Message, write_error};
use super::usage::MessageUsage;
use crate::openai::{AnswerForm, ApiError, Choice, Delta, Head, Repeated, StopReason, Usage, WholeCall, sse};

/// Proof of the origin of thoughts, which this server neither gives nor wants. Some clients drop thoughts without one.
const SIGNATURE: &str = "unsigned";

/// Writes one message.
#[derive(Debug)]
pub struct MessagesAnswer {
    head: Head,
    /// Tokens that the client allows.
    max_tokens: u32,
    stream: Progress,
}

/// How far a stream has come.
#[derive(Debug, Default)]
struct Progress {
    /// Block that is being written.
    open: Option<Kind>,
    /// Blocks that are complete, which is the index of the open one.
    complete: u32,
    ending: Ending,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Thinking,
    Text,
    Call,
}

/// What decides the reason why an answer has ended.
#[derive(Debug, Default)]
struct Ending {
    finish: Option<FinishReason>,
    calls: Calls,
    stop: Option<StopReason>,
}

/// Whether an answer calls tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Calls {
    #[default]
    None,
    Some,
}

impl MessagesAnswer {
    /// Starts an answer with this head to a client that allows so many tokens.
    #[must_use]
    pub fn new(head: Head, max_tokens: u32) -> MessagesAnswer {
        MessagesAnswer { head, max_tokens, stream: Progress::default() }
    }

    fn message<'a>(&'a self, content: Vec<Block<'a>>, end: End<'a>, usage: Usage) -> Message<'a> {
        Message {
            id: &self.head.id,
            kind: "message",
            role: "assistant",
            model: &self.head.model,
            content,
            end,
            usage: MessageUsage::of(usage),
        }
    }
}

impl AnswerForm for MessagesAnswer {
    fn open(&mut self, _: u32, _: Repeated<'_>, usage: Option<Usage>, out: &mut Vec<u8>) {
        let not_yet = End { stop_reason: None, stop_sequence: None };
        let message = self.message(Vec::new(), not_yet, usage.unwrap_or_default());
        Event::MessageStart { message }.write(out);
    }

    fn delta(&mut self, delta: &Delta, _: Option<Usage>, out: &mut Vec<u8>) {
        self.stream.add(delta, out);
    }

    fn end(&mut self, usage: Option<Usage>, out: &mut Vec<u8>) {
        let usage = usage.unwrap_or_default();
        self.stream.close(out);
        let delta = self.stream.ending.end(usage, self.max_tokens);
        Event::MessageDelta { delta, usage: MessageUsage::of(usage) }.write(out);
        Event::MessageStop.write(out);
    }

    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        write_error(&ErrorBody::of(error, None), out);
    }

    fn whole(&self, choices: &[(&Choice, Repeated<'_>)], usage: Usage) -> Vec<u8> {
        let silence = Choice::default();
        let choice = choices.first().map_or(&silence, |(choice, _)| *choice);
        let ending = Ending {
            finish: choice.finish,
            calls: if choice.calls.is_empty() { Calls::None } else { Calls::Some },
            stop: choice.stop_reason.clone(),
        };
        sse::json(&self.message(blocks(choice), ending.end(usage, self.max_tokens), usage))
    }

    fn repeats(&self, _: usize) -> usize {
        1
    }
}

impl Ending {
    fn end(&self, usage: Usage, max_tokens: u32) -> End<'_> {
        let (stop_reason, stop_sequence) = match (self.finish, &self.stop, self.calls) {
            (Some(FinishReason::Length), ..) if usage.completion_tokens < max_tokens.into() => {
                ("model_context_window_exceeded", None)
            }
            (Some(FinishReason::Length), ..) => ("max_tokens", None),
            (_, Some(StopReason::Text(stop)), _) => ("stop_sequence", Some(stop.as_str())),
            (_, Some(StopReason::Token(_)) | None, Calls::Some) => ("tool_use", None),
            (_, Some(StopReason::Token(_)) | None, Calls::None) => ("end_turn", None),
        };
        End { stop_reason: Some(stop_reason), stop_sequence }
    }
}

impl Progress {
    fn add(&mut self, delta: &Delta, out: &mut Vec<u8>) {
        if !delta.reasoning.is_empty() {
            self.go_on(Kind::Thinking, Block::Thinking { thinking: "", signature: "" }, out);
            self.write(BlockDelta::ThinkingDelta { thinking: &delta.reasoning }, out);
        }
        let mut said = 0;
        for piece in &delta.calls {
            if let Some(start) = &piece.start {
                self.say(delta.text.get(said..start.content_before).unwrap_or_default(), out);
                said = start.content_before;
                let block = Block::ToolUse { id: &start.id, name: &start.name, input: Map::new() };
                self.begin(Kind::Call, block, out);
                self.ending.calls = Calls::Some;
            }
            if !piece.arguments.is_empty() {
                self.write(BlockDelta::InputJsonDelta { partial_json: &piece.arguments }, out);
            }
        }
        self.say(delta.text.get(said..).unwrap_or_default(), out);
        self.ending.finish = delta.finish;
        self.ending.stop.clone_from(&delta.stop_reason);
    }

    fn say(&mut self, text: &str, out: &mut Vec<u8>) {
        if !text.is_empty() {
            self.go_on(Kind::Text, Block::Text { text: "" }, out);
            self.write(BlockDelta::TextDelta { text }, out);
        }
    }

    /// Goes on with the open block if it is of this kind; else begins one with `block`.
    fn go_on(&mut self, kind: Kind, block: Block<'_>, out: &mut Vec<u8>) {
        if self.open != Some(kind) {
            self.begin(kind, block, out);
        }
    }

    fn begin(&mut self, kind: Kind, content_block: Block<'_>, out: &mut Vec<u8>) {
        self.close(out);
        Event::ContentBlockStart { index: self.complete, content_block }.write(out);
        self.open = Some(kind);
    }

    fn write(&self, delta: BlockDelta<'_>, out: &mut Vec<u8>) {
        Event::ContentBlockDelta { index: self.complete, delta }.write(out);
    }

    /// Ends the open block, if there is one.
    fn close(&mut self, out: &mut Vec<u8>) {
        let Some(kind) = self.open.take() else { return };
        if kind == Kind::Thinking {
            self.write(BlockDelta::SignatureDelta { signature: SIGNATURE }, out);
        }
        Event::ContentBlockStop { index: self.complete }.write(out);
        self.complete += 1;
    }
}

/// Returns what the model said, in its order.
fn blocks(choice: &Choice) -> Vec<Block<'_>> {
    let thoughts = Some(choice.reasoning.as_str()).filter(|thoughts| !thoughts.is_empty());
    let mut blocks = Vec::from_iter(thoughts.map(|thinking| Block::Thinking { thinking, signature: SIGNATURE }));
    let mut said = 0;
    for call in &choice.calls {
        blocks.extend(text_block(choice.text.get(said..call.start.content_before)));
        said = call.start.content_before;
        blocks.push(tool_use(call));
    }
    blocks.extend(text_block(choice.text.get(said..)));
    blocks
}

fn text_block(text: Option<&str>) -> Option<Block<'_>> {
    text.filter(|text| !text.is_empty()).map(|text| Block::Text { text })
}

/// Returns the block of a call. Its input is an object in any case: an empty one where the model wrote something else,
/// or was cut.
fn tool_use(call: &WholeCall) -> Block<'_> {
    let input = serde_json::from_str(&call.arguments).unwrap_or_default();
    Block::ToolUse { id: &call.start.id, name: &call.start.name, input }
}
