//! `POST /v1/completions`: the answer, whole or in chunks; knows no request.

use sched::TokenId;
use serde::Serialize;

use super::delta::{finish_name, token_ids};
use super::logprobs::CompletionLogprobs;
use super::{Choice, Delta, Head, Usage, sse};

/// Writes one text completion.
#[derive(Debug, Clone)]
pub struct CompletionAnswer {
    head: Head,
}

#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<BodyChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct BodyChoice<'a> {
    index: u32,
    text: &'a str,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Vec<u32>>,
}

impl CompletionAnswer {
    /// An answer with this head.
    #[must_use]
    pub fn new(head: Head) -> CompletionAnswer {
        CompletionAnswer { head }
    }

    /// Appends the chunk that opens choice `index`, where there is something to open it with: the echoed prompt or the
    /// prompt's token ids.
    pub fn open(&self, index: u32, echo: &str, prompt: &[TokenId], out: &mut Vec<u8>) {
        if echo.is_empty() && prompt.is_empty() {
            return;
        }
        let choice = BodyChoice {
            index,
            text: echo,
            logprobs: None,
            finish_reason: None,
            token_ids: None,
            prompt_token_ids: token_ids(prompt),
        };
        sse::event(&self.body(vec![choice], None), out);
    }

    /// Appends the chunk for `delta`.
    pub fn delta(&self, delta: &Delta, out: &mut Vec<u8>) {
        let choice = BodyChoice {
            index: delta.index,
            text: &delta.text,
            logprobs: CompletionLogprobs::of(&delta.logprobs),
            finish_reason: finish_name(delta.finish),
            token_ids: token_ids(&delta.tokens),
            prompt_token_ids: None,
        };
        sse::event(&self.body(vec![choice], None), out);
    }

    /// Appends the chunk of token counts.
    pub fn usage(&self, usage: Usage, out: &mut Vec<u8>) {
        sse::event(&self.body(Vec::new(), Some(usage)), out);
    }

    /// The whole answer; `prompts` has the prompt of every choice, empty unless the client wants token ids.
    #[must_use]
    pub fn whole(&self, choices: &[Choice], prompts: &[&[TokenId]], usage: Usage) -> Vec<u8> {
        let choices = (0..)
            .zip(choices)
            .map(|(index, choice)| BodyChoice {
                index,
                text: &choice.text,
                logprobs: CompletionLogprobs::of(&choice.logprobs),
                finish_reason: finish_name(choice.finish),
                token_ids: token_ids(&choice.tokens),
                prompt_token_ids: prompts.get(index as usize).and_then(|prompt| token_ids(prompt)),
            })
            .collect();
        sse::json(&self.body(choices, Some(usage)))
    }

    fn body<'a>(&'a self, choices: Vec<BodyChoice<'a>>, usage: Option<Usage>) -> Body<'a> {
        Body {
            id: &self.head.id,
            object: "text_completion",
            created: self.head.created,
            model: &self.head.model,
            choices,
            usage,
        }
    }
}
