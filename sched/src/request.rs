//! A client's request, after the router has parsed it; knows no JSON and no text.

use std::sync::Arc;

use crate::{Choice, Leg, Span, TokenId};

/// A leg of work as a worker receives it: (some choices of) one request, ready to run.
///
/// A fresh request carries all `n` choices with nothing generated. After a loss each unfinished choice is a leg
/// of its own that carries the tokens the client has already got; they are prefilled like prompt tokens, but count
/// as generated for sampling positions, penalties and limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Name of the leg.
    pub leg: Leg,
    /// Prompt token ids, at least one; shared, never changed.
    pub prompt: Arc<[TokenId]>,
    /// Choices that this leg produces; if there is more than one, none has generated anything yet.
    pub choices: Vec<ChoiceState>,
    /// Sampling parameters, with the limits and stop tokens that end generation.
    pub params: Arc<SamplingParams>,
    /// Latency targets that the request is counted against.
    pub slo: Slo,
    /// Time left until the request must have ended, relative so that no two clocks are compared.
    pub deadline_in: Span,
}

impl Request {
    /// Number of tokens whose KV must exist before the next can be sampled: prompt and, after a loss, generated ones.
    #[must_use]
    pub fn prefill_tokens(&self) -> usize {
        self.prompt.len() + self.choices.first().map_or(0, |choice| choice.generated.len())
    }
}

/// One choice in the making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChoiceState {
    /// Index of the choice, as the client sees it.
    pub choice: Choice,
    /// Tokens generated and delivered so far.
    pub generated: Vec<TokenId>,
}

/// Sampling parameters. Defaults are those of the OpenAI API; the router resolves `None`s before this point.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Most tokens to generate per choice, at least 1; the router has clipped it to the context length.
    pub max_tokens: u32,
    /// Tokens before which no stop token may end the choice; the logits of stop tokens are masked until then.
    pub min_tokens: u32,
    /// Divisor of logits; 0 is greedy.
    pub temperature: f32,
    /// Nucleus mass in (0, 1]; 1 is off.
    pub top_p: f32,
    /// Number of most likely tokens to keep; 0 is off.
    pub top_k: u32,
    /// Fraction of the most likely token's probability that a token needs to be kept; 0 is off.
    pub min_p: f32,
    /// Factor that divides positive and multiplies negative logits of tokens seen in prompt or output; 1 is off.
    pub repetition_penalty: f32,
    /// Amount subtracted once from the logits of tokens that were generated.
    pub presence_penalty: f32,
    /// Amount subtracted per occurrence from the logits of tokens that were generated.
    pub frequency_penalty: f32,
    /// Key of the counter-based generator; choice `i` uses `rng::choice_seed(seed, i)`.
    pub seed: u64,
    /// Token ids that end a choice (the model's own end tokens unless `ignore_eos`, and the client's). Sorted.
    pub stop_tokens: Vec<TokenId>,
    /// Number of alternatives to report per token: `None` no log-probabilities, `Some(0)` only the chosen token's.
    pub logprobs: Option<u8>,
    /// Amounts added to the logits of these tokens before everything else. Sorted by token, no repeats.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Grammar that the text follows, if it must follow one.
    pub structure: Option<Arc<Structure>>,
    /// Tokens that may be generated, sorted; empty allows all.
    pub allowed_tokens: Vec<TokenId>,
    /// Sequences of tokens that must not be generated, none of them empty: the last token of one is masked where the
    /// generated tokens end with those before it.
    pub bad_words: Vec<Vec<TokenId>>,
    /// Number of alternatives to report per prompt token: `None` no scores, `Some(0)` only the prompt's own tokens.
    pub prompt_logprobs: Option<u8>,
}

/// Grammar of a structured answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Structure {
    /// The grammar, in llguidance's dialect of Lark; read by workers, not here.
    pub grammar: Arc<str>,
    /// Tokens that may follow a complete text.
    pub ends: Vec<TokenId>,
}

impl SamplingParams {
    /// Checks that tokens can be sampled with these values. The error names the first that is not finite or has no
    /// meaning. Narrower ranges are the API's affair.
    pub fn check(&self) -> Result<(), String> {
        let positive = |value: f32| value > 0.0 && value.is_finite();
        let part = |value: f32| (0.0..=1.0).contains(&value);
        let checks = [
            ("temperature", self.temperature, self.temperature >= 0.0 && self.temperature.is_finite()),
            ("top_p", self.top_p, part(self.top_p) && self.top_p > 0.0),
            ("min_p", self.min_p, part(self.min_p)),
            ("repetition_penalty", self.repetition_penalty, positive(self.repetition_penalty)),
            ("presence_penalty", self.presence_penalty, self.presence_penalty.is_finite()),
            ("frequency_penalty", self.frequency_penalty, self.frequency_penalty.is_finite()),
        ];
        let biases = self.logit_bias.iter().map(|(_, bias)| ("logit_bias", *bias, bias.is_finite()));
        match checks.into_iter().chain(biases).find(|(_, _, holds)| !holds) {
            Some((name, value, _)) => Err(format!("no token can be sampled with a {name} of {value}")),
            None => Ok(()),
        }
    }
}

impl Default for SamplingParams {
    fn default() -> Self {
        SamplingParams {
            max_tokens: 16,
            min_tokens: 0,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
            stop_tokens: Vec::new(),
            logprobs: None,
            logit_bias: Vec::new(),
            structure: None,
            allowed_tokens: Vec::new(),
            bad_words: Vec::new(),
            prompt_logprobs: None,
        }
    }
}

/// Latency targets of a request; `None` is no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slo {
    /// Index of the class in the router's configuration; the label of its metrics.
    pub class: u16,
    /// Time to first token, as the client sees it.
    pub ttft: Option<Span>,
    /// Mean time per output token after the first.
    pub tpot: Option<Span>,
    /// Largest allowed gap between two tokens at the class's tail quantile.
    pub itl_tail: Option<Span>,
}

/// A token as it leaves the sampler.
#[derive(Debug, Clone, PartialEq)]
pub struct SampledToken {
    /// The chosen token.
    pub token: TokenId,
    /// Natural log-probability of the token under the raw distribution (no temperature, no penalties), if asked for.
    pub logprob: Option<f32>,
    /// Most likely alternatives with their log-probabilities, most likely first.
    pub top: Vec<(TokenId, f32)>,
}

/// Log-probability of a prompt token, given the tokens before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// Natural log-probability of the token under the raw distribution.
    pub logprob: f32,
    /// Number of tokens that are at least as likely, itself included.
    pub rank: u32,
    /// Most likely tokens in its place with their log-probabilities, most likely first.
    pub top: Vec<(TokenId, f32)>,
}

/// Scores of consecutive prompt tokens. The first token of a prompt has none.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Position of the first token that is scored, at least 1.
    pub first: u32,
    /// One score per token.
    pub scores: Vec<Score>,
}

/// Reason why a choice ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token was generated (it is the last token delivered) or the router found a stop string.
    Stop,
    /// `max_tokens` or the context length was reached.
    Length,
}
