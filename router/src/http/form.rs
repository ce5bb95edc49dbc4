//! The two forms of an answer behind one face.

use crate::openai::{ChatAnswer, Choice, CompletionAnswer, Delta, TokenIds, Usage};

use super::generate::Tokenized;

/// How an answer is written.
pub(super) struct Form {
    kind: Kind,
    prompts: Vec<Tokenized>,
    token_ids: TokenIds,
}

enum Kind {
    Chat(ChatAnswer),
    Text(CompletionAnswer),
}

impl Form {
    pub(super) fn chat(answer: ChatAnswer, prompts: Vec<Tokenized>, token_ids: TokenIds) -> Form {
        Form { kind: Kind::Chat(answer), prompts, token_ids }
    }

    pub(super) fn text(answer: CompletionAnswer, prompts: Vec<Tokenized>, token_ids: TokenIds) -> Form {
        Form { kind: Kind::Text(answer), prompts, token_ids }
    }

    /// Choices of the whole answer.
    pub(super) fn choices(&self, n: u32) -> usize {
        self.prompts.len() * n as usize
    }

    /// Writes what comes before the first token of each choice.
    pub(super) fn open(&self, n: u32, out: &mut Vec<u8>) {
        for index in (0..).take(self.choices(n)) {
            let prompt = &self.prompts[(index / n) as usize];
            let tokens = self.wanted(prompt);
            match &self.kind {
                Kind::Chat(answer) => answer.open(index, tokens, out),
                Kind::Text(answer) => answer.open(index, &prompt.echo, tokens, out),
            }
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

    pub(super) fn whole(&self, mut choices: Vec<Choice>, n: u32, usage: Usage) -> Vec<u8> {
        let prompt_of = |index: usize| &self.prompts[index / n as usize];
        match &self.kind {
            Kind::Chat(answer) => answer.whole(&choices, self.wanted(prompt_of(0)), usage),
            Kind::Text(answer) => {
                for (index, choice) in choices.iter_mut().enumerate() {
                    choice.text.insert_str(0, &prompt_of(index).echo);
                }
                let prompts: Vec<_> = (0..choices.len()).map(|index| self.wanted(prompt_of(index))).collect();
                answer.whole(&choices, &prompts, usage)
            }
        }
    }

    /// The prompt's token ids where the client wants them.
    fn wanted<'a>(&self, prompt: &'a Tokenized) -> &'a [sched::TokenId] {
        match self.token_ids {
            TokenIds::Include => &prompt.tokens,
            TokenIds::Omit => &[],
        }
    }
}
