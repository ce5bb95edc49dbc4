//! Answer to be written: its form, and what it repeats of its prompts; knows no API.

use crate::openai::{
    AnswerForm, ApiError, Choice, Delivery, Delta, Generation, PromptLogprobs, Repeated, TokenIds, Usage, UsageChunk,
};

use super::generate::Tokenized;

/// JSON bytes of a choice in a whole answer besides text and tokens: field names and punctuation.
const CHOICE_BYTES: usize = 128;

/// Answer to be written.
pub(super) struct Form {
    form: Box<dyn AnswerForm>,
    prompts: Prompts,
    /// Choices of a prompt that are answered; as many as are generated, or fewer.
    answered: u32,
}

/// Prompts of an answer.
struct Prompts {
    each: Vec<Tokenized>,
    /// Log-probabilities of each prompt; empty unless the client wants a list of them.
    scored: Vec<PromptLogprobs>,
    /// Choices per prompt.
    n: u32,
    token_ids: TokenIds,
}

impl Form {
    pub(super) fn new(form: impl AnswerForm + 'static, prompts: Vec<Tokenized>, generation: &Generation) -> Form {
        let (n, token_ids) = (generation.candidates, generation.token_ids);
        let prompts = Prompts { each: prompts, scored: Vec::new(), n, token_ids };
        Form { form: Box::new(form), prompts, answered: generation.n }
    }

    /// Keeps the likeliest choices of each prompt, by the mean of their tokens, if more were generated than are answered.
    pub(super) fn best_of(mut self, choices: Vec<Choice>) -> (Form, Vec<Choice>) {
        let n = self.prompts.n;
        if n == self.answered {
            return (self, choices);
        }
        let mut kept = Vec::with_capacity(self.prompts.each.len() * self.answered as usize);
        for candidates in choices.chunks(n as usize) {
            let mut candidates: Vec<&Choice> = candidates.iter().collect();
            candidates.sort_by(|one, other| other.mean_logprob().total_cmp(&one.mean_logprob()));
            kept.extend(candidates.into_iter().take(self.answered as usize).cloned());
        }
        self.prompts.n = self.answered;
        (self, kept)
    }

    /// Adds log-probabilities, one list per prompt.
    pub(super) fn with_scores(mut self, scored: Vec<PromptLogprobs>) -> Form {
        self.prompts.scored = scored;
        self
    }

    /// Choices of all prompts.
    pub(super) fn choices(&self) -> usize {
        self.prompts.each.len() * self.prompts.n as usize
    }

    /// Estimates the bytes of an answer before any token: all prompts that a whole answer repeats, or the largest that
    /// a stream repeats at a time.
    pub(super) fn repeated_bytes(&self, delivery: Delivery) -> usize {
        let Prompts { each, n, .. } = &self.prompts;
        let each = each.iter().map(|prompt| self.prompts.repeated(prompt).json_bytes());
        let repeated = match delivery {
            Delivery::Stream(_) => each.max().unwrap_or(0),
            Delivery::Whole => each.sum::<usize>() * self.form.repeats(*n as usize) + CHOICE_BYTES * self.choices(),
        };
        repeated + self.form.asked_bytes()
    }

    /// Estimates the bytes that a stream keeps of these deltas until its end.
    pub(super) fn kept_bytes(&self, deltas: &[Delta]) -> usize {
        deltas.iter().map(|delta| self.form.kept_bytes(delta)).sum()
    }

    /// Writes the start of a choice, before its first token.
    pub(super) fn open(&mut self, index: u32, usage: UsageChunk, out: &mut Vec<u8>) {
        let usage = self.prompts.usage_in(index, 0, usage);
        self.form.open(index, self.prompts.repeated_in(index as usize), usage, out);
    }

    pub(super) fn delta(&mut self, delta: &Delta, usage: UsageChunk, out: &mut Vec<u8>) {
        let usage = self.prompts.usage_in(delta.index, delta.completed, usage);
        self.form.delta(delta, usage, out);
    }

    /// Writes the end of a stream that went well.
    pub(super) fn end(&mut self, usage: Usage, wanted: UsageChunk, out: &mut Vec<u8>) {
        let usage = match wanted {
            UsageChunk::Include | UsageChunk::Continuous => Some(usage),
            UsageChunk::Omit => None,
        };
        self.form.end(usage, out);
    }

    /// Writes the end of a stream that failed.
    pub(super) fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        self.form.fail(error, out);
    }

    pub(super) fn whole(&self, choices: &[Choice], usage: Usage) -> Vec<u8> {
        let repeated = |(index, choice)| (choice, self.prompts.repeated_in(index));
        let choices: Vec<_> = choices.iter().enumerate().map(repeated).collect();
        self.form.whole(&choices, usage)
    }
}

impl Prompts {
    /// Returns the token counts of a chunk of choice `index`, which has `completed` tokens, where chunks have them.
    fn usage_in(&self, index: u32, completed: u64, usage: UsageChunk) -> Option<Usage> {
        match usage {
            UsageChunk::Continuous => {
                let prompt = self.each.get((index / self.n) as usize)?;
                let prompt_tokens = prompt.tokens.len() as u64;
                Some(Usage { prompt_tokens, completion_tokens: completed, ..Usage::default() })
            }
            UsageChunk::Include | UsageChunk::Omit => None,
        }
    }

    /// Returns what choice `index` repeats of its prompt.
    fn repeated_in(&self, index: usize) -> Repeated<'_> {
        let prompt = index / self.n as usize;
        let repeated = self.each.get(prompt).map_or(Repeated::NOTHING, |prompt| self.repeated(prompt));
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
    use crate::openai::{CompletionAnswer, CompletionRequest, Head, Limits};

    #[test]
    fn the_best_are_the_likeliest_per_token() {
        let limits = Limits { n_max: 4, prompts_max: 3, stop_max: 4, stop_bytes_max: 16, vocab_size: 300 };
        let request = CompletionRequest::parse(br#"{"prompt": ["a", "b"], "n": 2, "best_of": 3}"#, &limits).unwrap();
        let prompts = vec![Tokenized { tokens: [].into(), echo: String::new(), reading: None, structure: None }; 2];
        let head = Head { id: String::new(), created: 0, model: String::new(), service_tier: None };
        let form = Form::new(CompletionAnswer::new(head), prompts, &request.generation);
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
