//! `POST /v1/chat/completions`: the answer, whole or in chunks; knows no request.

use sched::TokenId;
use serde::Serialize;

use super::delta::{Ids, finish_name, token_ids};
use super::logprobs::ChatLogprobs;
use super::{Choice, Delta, Head, Usage, sse};

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
    token_ids: Option<Ids<'a>>,
}

/// Clients reject `role: null`, so absent fields are left out.
#[derive(Serialize)]
struct ChunkDelta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

#[derive(Serialize)]
struct Whole<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<WholeChoice<'a>>,
    usage: Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Ids<'a>>,
}

#[derive(Serialize)]
struct WholeChoice<'a> {
    index: usize,
    message: WholeMessage<'a>,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Ids<'a>>,
}

#[derive(Serialize)]
struct WholeMessage<'a> {
    role: &'static str,
    content: &'a str,
    refusal: Option<&'static str>,
}

impl ChatAnswer {
    /// Starts an answer with this head.
    #[must_use]
    pub fn new(head: Head) -> ChatAnswer {
        ChatAnswer { head }
    }

    /// Appends the chunk that opens choice `index`: the role, and with the first choice the prompt's token ids.
    pub fn open(&self, index: u32, prompt: &[TokenId], out: &mut Vec<u8>) {
        let choice = ChunkChoice {
            index,
            delta: ChunkDelta { role: Some("assistant"), content: Some("") },
            logprobs: None,
            finish_reason: None,
            token_ids: None,
        };
        let prompt = if index == 0 { token_ids(prompt) } else { None };
        self.chunk(&[choice], prompt, None, out);
    }

    /// Appends the chunk for `delta`.
    pub fn delta(&self, delta: &Delta, out: &mut Vec<u8>) {
        let silent_end = delta.text.is_empty() && delta.finish.is_some();
        let choice = ChunkChoice {
            index: delta.index,
            delta: ChunkDelta { role: None, content: (!silent_end).then_some(&delta.text) },
            logprobs: ChatLogprobs::of(&delta.logprobs),
            finish_reason: finish_name(delta.finish),
            token_ids: token_ids(&delta.tokens),
        };
        self.chunk(&[choice], None, None, out);
    }

    /// Appends the chunk of token counts.
    pub fn usage(&self, usage: Usage, out: &mut Vec<u8>) {
        self.chunk(&[], None, Some(usage), out);
    }

    fn chunk(&self, choices: &[ChunkChoice], prompt: Option<Ids<'_>>, usage: Option<Usage>, out: &mut Vec<u8>) {
        let chunk = Chunk {
            id: &self.head.id,
            object: "chat.completion.chunk",
            created: self.head.created,
            model: &self.head.model,
            choices,
            prompt_token_ids: prompt,
            usage,
        };
        sse::event(&chunk, out);
    }

    /// Returns the whole answer; `prompt` is empty unless the client wants token ids.
    #[must_use]
    pub fn whole(&self, choices: &[Choice], prompt: &[TokenId], usage: Usage) -> Vec<u8> {
        let choices = choices
            .iter()
            .enumerate()
            .map(|(index, choice)| WholeChoice {
                index,
                message: WholeMessage { role: "assistant", content: &choice.text, refusal: None },
                logprobs: ChatLogprobs::of(&choice.logprobs),
                finish_reason: finish_name(choice.finish),
                token_ids: token_ids(&choice.tokens),
            })
            .collect();
        sse::json(&Whole {
            id: &self.head.id,
            object: "chat.completion",
            created: self.head.created,
            model: &self.head.model,
            choices,
            usage,
            prompt_token_ids: token_ids(prompt),
        })
    }
}
