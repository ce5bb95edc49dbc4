//! One interface to the two forms of an answer.

use crate::openai::{ChatAnswer, Choice, CompletionAnswer, Delivery, Delta, Generation, Repeated, TokenIds, Usage};

use super::generate::Tokenized;

/// JSON bytes of a choice in a whole answer besides text and tokens: field names and punctuation.
const CHOICE_BYTES: usize = 128;

/// Form in which an answer is written.
pub(super) struct Form {
    kind: Kind,
    prompts: Vec<Tokenized>,
    n: u32,
    token_ids: TokenIds,
}

enum Kind {
    Chat(ChatAnswer),
    Text(CompletionAnswer),
}

impl Form {
    pub(super) fn chat(answer: ChatAnswer, prompts: Vec<Tokenized>, generation: &Generation) -> Form {
        Form { kind: Kind::Chat(answer), prompts, n: generation.n, token_ids: generation.token_ids }
    }

    pub(super) fn text(answer: CompletionAnswer, prompts: Vec<Tokenized>, generation: &Generation) -> Form {
        Form { kind: Kind::Text(answer), prompts, n: generation.n, token_ids: generation.token_ids }
    }

    /// Choices of all prompts.
    pub(super) fn choices(&self) -> usize {
        self.prompts.len() * self.n as usize
    }

    /// Estimates the bytes of an answer before any token: all prompts that a whole answer repeats, or the largest that
    /// a stream repeats at a time.
    pub(super) fn repeated_bytes(&self, delivery: Delivery) -> usize {
        let each = self.prompts.iter().map(|prompt| self.repeated(prompt).json_bytes());
        match (delivery, &self.kind) {
            (Delivery::Stream(_), _) => each.max().unwrap_or(0),
            (Delivery::Whole, Kind::Chat(_)) => each.sum::<usize>() + CHOICE_BYTES * self.choices(),
            (Delivery::Whole, Kind::Text(_)) => each.sum::<usize>() * self.n as usize + CHOICE_BYTES * self.choices(),
        }
    }

    /// Writes the start of a choice, before its first token.
    pub(super) fn open(&self, index: u32, out: &mut Vec<u8>) {
        let repeated = self.repeated_in(index as usize);
        match &self.kind {
            Kind::Chat(answer) => answer.open(index, repeated.tokens, out),
            Kind::Text(answer) => answer.open(index, repeated, out),
        }
    }

    pub(super) fn delta(&self, delta: &Delta, out: &mut Vec<u8>) {
        match &self.kind {
            Kind::Chat(answer) => answer.delta(delta, out),
            Kind::Text(answer) => answer.delta(delta, out),
        }
    }

    pub(super) fn usage(&self, usage: Usage, out: &mut Vec<u8>) {
        match &self.kind {
            Kind::Chat(answer) => answer.usage(usage, out),
            Kind::Text(answer) => answer.usage(usage, out),
        }
    }

    pub(super) fn whole(&self, choices: &[Choice], usage: Usage) -> Vec<u8> {
        match &self.kind {
            Kind::Chat(answer) => answer.whole(choices, self.repeated_in(0).tokens, usage),
            Kind::Text(answer) => {
                let repeated = |(index, choice)| (choice, self.repeated_in(index));
                answer.whole(choices.iter().enumerate().map(repeated), usage)
            }
        }
    }

    /// Returns what choice `index` repeats of its prompt.
    fn repeated_in(&self, index: usize) -> Repeated<'_> {
        self.prompts.get(index / self.n as usize).map_or(Repeated::NOTHING, |prompt| self.repeated(prompt))
    }

    fn repeated<'a>(&self, prompt: &'a Tokenized) -> Repeated<'a> {
        let tokens: &[sched::TokenId] = match self.token_ids {
            TokenIds::Include => &prompt.tokens,
            TokenIds::Omit => &[],
        };
        Repeated { echo: &prompt.echo, tokens }
    }
}
