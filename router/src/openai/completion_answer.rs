//! `POST /v1/completions`: the answer, whole or in chunks; knows no request.

use serde::{Serialize, Serializer};

use super::delta::{Ids, SYSTEM_FINGERPRINT, finish_name, stop_reason, token_ids};
use super::logprobs::CompletionLogprobs;
use super::{AnswerForm, ApiError, Choice, Delta, Head, PromptLogprobs, Repeated, StopReason, Usage, sse};

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
    system_fingerprint: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'static str>,
    choices: Vec<BodyChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct BodyChoice<'a> {
    index: u32,
    text: Joined<'a>,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<Option<&'a StopReason>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Ids<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Ids<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<&'a PromptLogprobs>,
}

/// Two texts written as one without a copy, as an echo may be large and is part of each choice.
struct Joined<'a>(&'a str, &'a str);

impl Serialize for Joined<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}{}", self.0, self.1))
    }
}

impl CompletionAnswer {
    /// Starts an answer with this head.
    #[must_use]
    pub fn new(head: Head) -> CompletionAnswer {
        CompletionAnswer { head }
    }

    fn body<'a>(&'a self, choices: Vec<BodyChoice<'a>>, usage: Option<Usage>) -> Body<'a> {
        Body {
            id: &self.head.id,
            object: "text_completion",
            created: self.head.created,
            model: &self.head.model,
            system_fingerprint: SYSTEM_FINGERPRINT,
            service_tier: self.head.service_tier,
            choices,
            usage,
        }
    }
}

impl AnswerForm for CompletionAnswer {
    /// Appends a chunk if the choice repeats the prompt's text or token ids.
    fn open(&mut self, index: u32, prompt: Repeated<'_>, usage: Option<Usage>, out: &mut Vec<u8>) {
        if prompt.is_nothing() {
            return;
        }
        let choice = BodyChoice {
            index,
            text: Joined(prompt.echo, ""),
            logprobs: None,
            finish_reason: None,
            stop_reason: None,
            token_ids: None,
            prompt_token_ids: token_ids(prompt.tokens),
            prompt_logprobs: None,
        };
        sse::event(&self.body(vec![choice], usage), out);
    }

    fn delta(&mut self, delta: &Delta, usage: Option<Usage>, out: &mut Vec<u8>) {
        let choice = BodyChoice {
            index: delta.index,
            text: Joined("", &delta.text),
            logprobs: CompletionLogprobs::of(&delta.logprobs),
            finish_reason: finish_name(delta.finish, delta.next),
            stop_reason: stop_reason(delta.finish, &delta.stop_reason),
            token_ids: token_ids(&delta.tokens),
            prompt_token_ids: None,
            prompt_logprobs: None,
        };
        sse::event(&self.body(vec![choice], usage), out);
    }

    fn end(&mut self, usage: Option<Usage>, out: &mut Vec<u8>) {
        if usage.is_some() {
            sse::event(&self.body(Vec::new(), usage), out);
        }
        out.extend_from_slice(sse::DONE);
    }

    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        sse::error(error, out);
    }

    fn whole(&self, choices: &[(&Choice, Repeated<'_>)], usage: Usage) -> Vec<u8> {
        let choices = (0..)
            .zip(choices)
            .map(|(index, (choice, prompt))| BodyChoice {
                index,
                text: Joined(prompt.echo, &choice.text),
                logprobs: CompletionLogprobs::of(&choice.logprobs),
                finish_reason: finish_name(choice.finish, choice.next),
                stop_reason: Some(choice.stop_reason.as_ref()),
                token_ids: token_ids(&choice.tokens),
                prompt_token_ids: token_ids(prompt.tokens),
                prompt_logprobs: prompt.logprobs,
            })
            .collect();
        sse::json(&self.body(choices, Some(usage)))
    }

    fn repeats(&self, choices: usize) -> usize {
        choices
    }
}
