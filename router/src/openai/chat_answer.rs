//! `POST /v1/chat/completions`: the answer, whole or in chunks; knows no request.

use serde::Serialize;

use super::delta::{Ids, SYSTEM_FINGERPRINT, finish_name, stop_reason, token_ids};
use super::logprobs::ChatLogprobs;
use super::{AnswerForm, ApiError, Choice, Delta, Head, PromptLogprobs, Repeated, StopReason, Usage, WholeCall, sse};

/// Writes one chat answer.
#[derive(Debug, Clone)]
pub struct ChatAnswer {
    head: Head,
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'static str>,
    choices: &'a [ChunkChoice<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Ids<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: u32,
    delta: ChunkDelta<'a>,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<Option<&'a StopReason>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Ids<'a>>,
}

/// Clients reject `role: null`, so absent fields are left out.
#[derive(Serialize)]
struct ChunkDelta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    /// Servers use different names; clients know one or the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[ChunkCall<'a>; 1]>,
}

/// Part of a call: the first has everything but arguments, the others have nothing but arguments.
#[derive(Serialize)]
struct ChunkCall<'a> {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: ChunkFunction<'a>,
}

#[derive(Serialize)]
struct ChunkFunction<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

#[derive(Serialize)]
struct Whole<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'static str>,
    choices: Vec<WholeChoice<'a>>,
    usage: Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<&'a PromptLogprobs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Ids<'a>>,
}

#[derive(Serialize)]
struct WholeChoice<'a> {
    index: usize,
    message: WholeMessage<'a>,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
    stop_reason: Option<&'a StopReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Ids<'a>>,
}

#[derive(Serialize)]
struct WholeMessage<'a> {
    role: &'static str,
    content: Option<&'a str>,
    refusal: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<MessageCall<'a>>,
}

#[derive(Serialize)]
struct MessageCall<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    function: MessageFunction<'a>,
}

#[derive(Serialize)]
struct MessageFunction<'a> {
    name: &'a str,
    arguments: &'a str,
}

impl<'a> WholeMessage<'a> {
    fn of(choice: &'a Choice) -> WholeMessage<'a> {
        let is_silent = choice.text.is_empty() && !(choice.reasoning.is_empty() && choice.calls.is_empty());
        let reasoning = (!choice.reasoning.is_empty()).then_some(choice.reasoning.as_str());
        let call = |call: &'a WholeCall| MessageCall {
            id: &call.start.id,
            kind: "function",
            function: MessageFunction { name: &call.start.name, arguments: &call.arguments },
        };
        WholeMessage {
            role: "assistant",
            content: (!is_silent).then_some(&choice.text),
            refusal: None,
            reasoning_content: reasoning,
            reasoning,
            tool_calls: choice.calls.iter().map(call).collect(),
        }
    }
}

impl<'a> ChunkChoice<'a> {
    /// Part of a choice that goes on.
    fn unfinished(index: u32, delta: ChunkDelta<'a>) -> ChunkChoice<'a> {
        ChunkChoice { index, delta, logprobs: None, finish_reason: None, stop_reason: None, token_ids: None }
    }
}

impl<'a> ChunkDelta<'a> {
    const NOTHING: ChunkDelta<'static> =
        ChunkDelta { role: None, content: None, reasoning_content: None, reasoning: None, tool_calls: None };

    /// Cuts a delta into parts of one kind each, as clients expect them; one at least.
    fn parts_of(delta: &'a Delta) -> Vec<ChunkDelta<'a>> {
        let mut parts = Vec::new();
        if !delta.reasoning.is_empty() {
            let thoughts = Some(delta.reasoning.as_str());
            parts.push(ChunkDelta { reasoning_content: thoughts, reasoning: thoughts, ..ChunkDelta::NOTHING });
        }
        if !delta.text.is_empty() {
            parts.push(ChunkDelta { content: Some(&delta.text), ..ChunkDelta::NOTHING });
        }
        for piece in &delta.calls {
            let call = |call| ChunkDelta { tool_calls: Some([call]), ..ChunkDelta::NOTHING };
            if let Some(start) = &piece.start {
                let function = ChunkFunction { name: Some(&start.name), arguments: "" };
                let (id, kind) = (Some(start.id.as_str()), Some("function"));
                parts.push(call(ChunkCall { index: piece.index, id, kind, function }));
            }
            if !piece.arguments.is_empty() {
                let function = ChunkFunction { name: None, arguments: &piece.arguments };
                parts.push(call(ChunkCall { index: piece.index, id: None, kind: None, function }));
            }
        }
        parts
    }
}

impl ChatAnswer {
    /// Starts an answer with this head.
    #[must_use]
    pub fn new(head: Head) -> ChatAnswer {
        ChatAnswer { head }
    }

    fn chunk(&self, choices: &[ChunkChoice], prompt: Option<Ids<'_>>, usage: Option<Usage>, out: &mut Vec<u8>) {
        let chunk = Chunk {
            id: &self.head.id,
            object: "chat.completion.chunk",
            created: self.head.created,
            model: &self.head.model,
            system_fingerprint: SYSTEM_FINGERPRINT,
            service_tier: self.head.service_tier,
            choices,
            prompt_token_ids: prompt,
            usage,
        };
        sse::event(&chunk, out);
    }
}

impl AnswerForm for ChatAnswer {
    /// Appends the role, and with the first choice the prompt's token ids.
    fn open(&mut self, index: u32, prompt: Repeated<'_>, usage: Option<Usage>, out: &mut Vec<u8>) {
        let role = ChunkDelta { role: Some("assistant"), content: Some(""), ..ChunkDelta::NOTHING };
        let choice = ChunkChoice::unfinished(index, role);
        let prompt = if index == 0 { token_ids(prompt.tokens) } else { None };
        self.chunk(&[choice], prompt, usage, out);
    }

    /// Appends one chunk, or one for each part of the delta; the last has what belongs to all of them.
    fn delta(&mut self, delta: &Delta, usage: Option<Usage>, out: &mut Vec<u8>) {
        let last = if delta.is_plain() {
            let silent_end = delta.text.is_empty() && delta.finish.is_some();
            ChunkDelta { content: (!silent_end).then_some(&delta.text), ..ChunkDelta::NOTHING }
        } else {
            let mut parts = ChunkDelta::parts_of(delta);
            let last = parts.pop().unwrap_or(ChunkDelta::NOTHING);
            for part in parts {
                self.chunk(&[ChunkChoice::unfinished(delta.index, part)], None, usage, out);
            }
            last
        };
        let choice = ChunkChoice {
            index: delta.index,
            delta: last,
            logprobs: ChatLogprobs::of(&delta.logprobs),
            finish_reason: finish_name(delta.finish, delta.next),
            stop_reason: stop_reason(delta.finish, &delta.stop_reason),
            token_ids: token_ids(&delta.tokens),
        };
        self.chunk(&[choice], None, usage, out);
    }

    fn end(&mut self, usage: Option<Usage>, out: &mut Vec<u8>) {
        if usage.is_some() {
            self.chunk(&[], None, usage, out);
        }
        out.extend_from_slice(sse::DONE);
    }

    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        sse::error(error, out);
    }

    fn whole(&self, choices: &[(&Choice, Repeated<'_>)], usage: Usage) -> Vec<u8> {
        let prompt = choices.first().map_or(Repeated::NOTHING, |(_, prompt)| *prompt);
        let choices = choices
            .iter()
            .enumerate()
            .map(|(index, (choice, _))| WholeChoice {
                index,
                message: WholeMessage::of(choice),
                logprobs: ChatLogprobs::of(&choice.logprobs),
                finish_reason: finish_name(choice.finish, choice.next),
                stop_reason: choice.stop_reason.as_ref(),
                token_ids: token_ids(&choice.tokens),
            })
            .collect();
        sse::json(&Whole {
            id: &self.head.id,
            object: "chat.completion",
            created: self.head.created,
            model: &self.head.model,
            system_fingerprint: SYSTEM_FINGERPRINT,
            service_tier: self.head.service_tier,
            choices,
            usage,
            prompt_logprobs: prompt.logprobs,
            prompt_token_ids: token_ids(prompt.tokens),
        })
    }

    fn repeats(&self, _: usize) -> usize {
        1
    }
}
