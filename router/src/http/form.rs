//! One interface to the two forms of an answer.

use crate::openai::{
    ChatAnswer, Choice, CompletionAnswer, Delivery, Delta, Generation, PromptLogprobs, Repeated, TokenIds, Usage,
    UsageChunk,
};

use super::generate::Tokenized;

/// JSON bytes of a choice in a whole answer besides text and tokens: field names and punctuation.
const CHOICE_BYTES: usize = 128;

/// Form in which an answer is written.
pub(super) struct Form {
    kind: Kind,
    prompts: Vec<Tokenized>,
    /// Log-probabilities of each prompt; empty unless the client wants a list of them.
    scored: Vec<PromptLogprobs>,
    /// Choices per prompt.
    n: u32,
    /// How many of them are answered.
    answered: u32,
    token_ids: TokenIds,
}

enum Kind {
    Chat(ChatAnswer),
    Text(CompletionAnswer),
}

impl Form {
    pub(super) fn chat(answer: ChatAnswer, prompts: Vec<Tokenized>, generation: &Generation) -> Form {
        Form::new(Kind::Chat(answer), prompts, generation)
    }

    pub(super) fn text(answer: CompletionAnswer, prompts: Vec<Tokenized>, generation: &Generation) -> Form {
        Form::new(Kind::Text(answer), prompts, generation)
    }

    fn new(kind: Kind, prompts: Vec<Tokenized>, generation: &Generation) -> Form {
        let (n, answered) = (generation.candidates, generation.n);
        Form { kind, prompts, scored: Vec::new(), n, answered, token_ids: generation.token_ids }
    }

    /// Keeps the likeliest choices of each prompt, by the mean of their tokens, if more were generated than are answered.
    pub(super) fn best_of(self, choices: Vec<Choice>) -> (Form, Vec<Choice>) {
        if self.n == self.answered {
            return (self, choices);
        }
        let mut kept = Vec::with_capacity(self.prompts.len() * self.answered as usize);
        for candidates in choices.chunks(self.n as usize) {
            let mut candidates: Vec<&Choice> = candidates.iter().collect();
            candidates.sort_by(|one, other| other.mean_logprob().total_cmp(&one.mean_logprob()));
            kept.extend(candidates.into_iter().take(self.answered as usize).cloned());
        }
        (Form { n: self.answered, ..self }, kept)
    }

    /// Adds log-probabilities, one list per prompt.
    pub(super) fn with_scores(self, scored: Vec<PromptLogprobs>) -> Form {
        Form { scored, ..self }
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
    pub(super) fn open(&self, index: u32, usage: UsageChunk, out: &mut Vec<u8>) {
        let repeated = self.repeated_in(index as usize);
        let usage = self.usage_in(index, 0, usage);
        match &self.kind {
            Kind::Chat(answer) => answer.open(index, repeated.tokens, usage, out),
            Kind::Text(answer) => answer.open(index, repeated, usage, out),
        }
    }

    pub(super) fn delta(&self, delta: &Delta, usage: UsageChunk, out: &mut Vec<u8>) {
        let usage = self.usage_in(delta.index, delta.completed, usage);
        match &self.kind {
            Kind::Chat(answer) => answer.delta(delta, usage, out),
            Kind::Text(answer) => answer.delta(delta, usage, out),
        }
    }

    /// Returns the token counts of a chunk of choice `index`, which has `completed` tokens, where chunks have them.
    fn usage_in(&self, index: u32, completed: u64, usage: UsageChunk) -> Option<Usage> {
        match usage {
            UsageChunk::Continuous => {
                let prompt = self.prompts.get((index / self.n) as usize)?;
                let prompt_tokens = prompt.tokens.len() as u64;
                Some(Usage { prompt_tokens, completion_tokens: completed, ..Usage::default() })
            }
            UsageChunk::Include | UsageChunk::Omit => None,
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
            Kind::Chat(answer) => {
                let repeated = self.repeated_in(0);
                answer.whole(choices, repeated.tokens, repeated.logprobs, usage)
            }
            Kind::Text(answer) => {
                let repeated = |(index, choice)| (choice, self.repeated_in(index));
                answer.whole(choices.iter().enumerate().map(repeated), usage)
            }
        }
    }

    /// Returns what choice `index` repeats of its prompt.
    fn repeated_in(&self, index: usize) -> Repeated<'_> {
        let prompt = index / self.n as usize;
        let repeated = self.prompts.get(prompt).map_or(Repeated::NOTHING, |prompt| self.repeated(prompt));
        Repeated { logprobs: self.scored.get(prompt), ..repeated }
    }

    fn repeated<'a>(&self, prompt: &'a Tokenized) -> Repeated<'a> {
        let tokens: &[sched::TokenId] = match self.token_ids {
            TokenIds::Include => &prompt.tokens,
            TokenIds::Omit => &[],
        };
        Repeated { echo: &prompt.echo, tokens, logprobs: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::{CompletionRequest, Head, Limits};

    #[test]
    fn the_best_are_the_likeliest_per_token() {
        let limits = Limits { n_max: 4, prompts_max: 3, stop_max: 4, stop_bytes_max: 16, vocab_size: 300 };
        let request = CompletionRequest::parse(br#"{"prompt": ["a", "b"], "n": 2, "best_of": 3}"#, &limits).unwrap();
        let prompts = vec![Tokenized { tokens: [].into(), echo: String::new(), reading: None, structure: None }; 2];
        let head = Head { id: String::new(), created: 0, model: String::new(), service_tier: None };
        let form = Form::text(CompletionAnswer::new(head), prompts, &request.generation);
        let choice = |(text, completed, logprob_sum): (&str, u64, f64)| Choice {
            text: text.to_owned(),
            completed,
            logprob_sum,
            ..Choice::default()
        };
        let choices = [("a", 1, -3.0), ("b", 4, -4.0), ("c", 2, -4.0), ("d", 1, -1.0), ("e", 0, 0.0), ("f", 1, -2.0)];
        let (form, kept) = form.best_of(choices.map(choice).into());
        let texts: Vec<&str> = kept.iter().map(|choice| choice.text.as_str()).collect();
        assert_eq!((texts, form.choices()), (vec!["b", "c", "e", "d"], 4));
    }
}
