//! `POST /v1/completions`: the answer, whole or in chunks; knows no request.

use serde::{Serialize, Serializer};

use super::delta::{Ids, finish_name, token_ids};
use super::logprobs::CompletionLogprobs;
use super::{Choice, Delta, Head, Repeated, Usage, sse};

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
    text: Joined<'a>,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Ids<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Ids<'a>>,
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

    /// Appends the chunk that opens choice `index`, if it repeats the prompt's text or token ids.
    pub fn open(&self, index: u32, prompt: Repeated<'_>, out: &mut Vec<u8>) {
        if prompt == Repeated::NOTHING {
            return;
        }
        let choice = BodyChoice {
            index,
            text: Joined(prompt.echo, ""),
            logprobs: None,
            finish_reason: None,
            token_ids: None,
            prompt_token_ids: token_ids(prompt.tokens),
        };
        sse::event(&self.body(vec![choice], None), out);
    }

    /// Appends the chunk for `delta`.
    pub fn delta(&self, delta: &Delta, out: &mut Vec<u8>) {
        let choice = BodyChoice {
            index: delta.index,
            text: Joined("", &delta.text),
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

    /// Returns the whole answer: every choice with what it repeats of its prompt.
    #[must_use]
    pub fn whole<'a>(&self, choices: impl Iterator<Item = (&'a Choice, Repeated<'a>)>, usage: Usage) -> Vec<u8> {
        let choices = (0..)
            .zip(choices)
            .map(|(index, (choice, prompt))| BodyChoice {
                index,
                text: Joined(prompt.echo, &choice.text),
                logprobs: CompletionLogprobs::of(&choice.logprobs),
                finish_reason: finish_name(choice.finish),
                token_ids: token_ids(&choice.tokens),
                prompt_token_ids: token_ids(prompt.tokens),
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
