//! Fields that chat and text completions share: how tokens are chosen, when they end, how they are sent.

use std::sync::Arc;

use sched::{SamplingParams, Structure, TokenId};
use serde_json::Value;

use super::fields::{self, Fields};
use super::known::note_unknown;
use super::masks::{take_allowed, take_bad_words};
use super::structure::{Wanted, take_structure};
use super::tier::take_service_tier;
use super::{ApiError, Limits, PromptReport, TokenNames, Truncation};
use crate::text::sampling_defaults::{MIN_P, REPETITION_PENALTY, TEMPERATURE, TOP_K, TOP_P};
use crate::text::{Length, ModelText, SpecialText, StopText};

/// Most alternatives per token that a client may ask for.
pub(super) const LOGPROBS_MAX: u32 = 20;
/// Temperature below which decoding is greedy, as dividing by it would overflow.
const TEMPERATURE_MIN: f32 = 1e-5;
const PENALTY_MAX: f32 = 2.0;
const LOGIT_BIAS_MAX: f32 = 100.0;
const LOGIT_BIAS_ENTRIES_MAX: usize = 1024;
const STOP_TOKENS_MAX: usize = 256;

/// Wishes of a client for the tokens to generate. `None` means not set: the model's defaults apply.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// Model that the client names.
    pub model: Option<String>,
    /// Most tokens per choice.
    pub max_tokens: Option<u32>,
    /// What becomes of a request for more tokens than the context has left.
    pub beyond_context: BeyondContext,
    /// Whether anything is generated.
    pub amount: Amount,
    /// Tokens before which nothing ends a choice.
    pub min_tokens: Option<u32>,
    /// Temperature; 0 is greedy.
    pub temperature: Option<f32>,
    /// Nucleus probability mass in (0, 1].
    pub top_p: Option<f32>,
    /// Number of most likely tokens to keep; 0 is off.
    pub top_k: Option<u32>,
    /// Smallest fraction of the highest probability to keep, in [0, 1].
    pub min_p: Option<f32>,
    /// Penalty on tokens that have occurred, in [0.01, 100].
    pub repetition_penalty: Option<f32>,
    /// Penalty on tokens that the answer has, in [-2, 2].
    pub presence_penalty: f32,
    /// Penalty per occurrence of a token in the answer, in [-2, 2].
    pub frequency_penalty: f32,
    /// Seed, if the client wants the same tokens again.
    pub seed: Option<u64>,
    /// Strings that end a choice.
    pub stops: Vec<String>,
    /// Tokens that end a choice.
    pub stop_tokens: Vec<TokenId>,
    /// Whether the model's own end tokens end a choice.
    pub end_tokens: EndTokens,
    /// Choices per prompt.
    pub n: u32,
    /// Choices that are generated per prompt; the `n` likeliest of them are answered (`best_of`).
    pub candidates: u32,
    /// Way in which the answer is sent.
    pub delivery: Delivery,
    /// Additions to logits, sorted by token.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Whether token ids are sent beside the text.
    pub token_ids: TokenIds,
    /// Whether control tokens show in the text.
    pub special_text: SpecialText,
    /// Whether a text ends with the stop string or token that ended it.
    pub stop_text: StopText,
    /// Tokens that may be generated, sorted; empty allows all.
    pub allowed_tokens: Vec<TokenId>,
    /// Words that must not be generated.
    pub bad_words: Vec<String>,
    /// Names of tokens in log-probabilities.
    pub token_names: TokenNames,
    /// How much of a long prompt is kept; `None` refuses it.
    pub truncation: Option<Truncation>,
    /// Tier that the answer names, if the client asked for one.
    pub service_tier: Option<&'static str>,
    /// Name of the latency class.
    pub slo_class: Option<String>,
    /// Alternatives per token to report; `None` for no log-probabilities.
    pub logprobs: Option<u8>,
    /// Structure of the answer.
    pub structure: Option<Wanted>,
    /// Log-probabilities of the prompt to report.
    pub prompt_report: PromptReport,
}

/// Whether an answer has tokens of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// Has some.
    Tokens,
    /// Only repeats its prompt (`echo` with `max_tokens: 0`). A worker generates one token, which nobody sees.
    Nothing,
}

/// What becomes of a request for more tokens than the context has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeyondContext {
    /// It is refused, as OpenAI's API does.
    Refuse,
    /// Its answers end with the context, as in Anthropic's API.
    Cut,
}

/// Answer tokens of a choice where the client sets no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnnamedLength {
    /// Operator's setting, which precedes the recommendation of the model's authors.
    pub configured: Option<u32>,
    /// API's default, where no length is recommended; `None` for the rest of the context.
    pub default: Option<u32>,
    /// Share of each choice in the tokens that one request may ask for, an upper bound for any of these lengths.
    pub share: u32,
}

/// Whether the model's own end tokens end a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndTokens {
    /// End tokens end a choice.
    Honour,
    /// End tokens do not (`ignore_eos`), for outputs of a fixed length.
    Ignore,
}

/// Way in which an answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// One JSON object.
    Whole,
    /// Server-sent events.
    Stream(UsageChunk),
}

/// Whether a stream ends with a chunk of token counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageChunk {
    /// Ends with it (`stream_options.include_usage`).
    Include,
    /// Ends with it, and every chunk has the counts of its choice (`stream_options.continuous_usage_stats`).
    Continuous,
    /// Ends without it.
    Omit,
}

/// Whether token ids are sent beside the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenIds {
    /// Sends ids (`return_token_ids`).
    Include,
    /// Sends text only.
    Omit,
}

impl Generation {
    /// Takes the shared fields; the endpoints set `max_tokens` and `logprobs`, which differ.
    pub(crate) fn take(fields: &mut Fields, limits: &Limits) -> Result<Generation, ApiError> {
        let delivery = take_delivery(fields)?;
        let n = fields.count("n", 1..=limits.n_max)?.unwrap_or(1);
        Ok(Generation {
            model: fields.string("model")?,
            max_tokens: None,
            beyond_context: BeyondContext::Refuse,
            amount: Amount::Tokens,
            min_tokens: fields.count("min_tokens", 0..=u32::MAX)?,
            temperature: fields.number("temperature", TEMPERATURE)?,
            top_p: positive("top_p", fields.number("top_p", TOP_P)?)?,
            top_k: fields.integer("top_k", TOP_K)?.map(|k| u32::try_from(k).unwrap_or(0)),
            min_p: fields.number("min_p", MIN_P)?,
            repetition_penalty: fields.number("repetition_penalty", REPETITION_PENALTY)?,
            presence_penalty: fields.number("presence_penalty", -PENALTY_MAX..=PENALTY_MAX)?.unwrap_or(0.0),
            frequency_penalty: fields.number("frequency_penalty", -PENALTY_MAX..=PENALTY_MAX)?.unwrap_or(0.0),
            seed: take_seed(fields)?,
            stops: take_stops("stop", fields, limits)?,
            stop_tokens: take_stop_tokens(fields, limits)?,
            end_tokens: match fields.flag("ignore_eos")? {
                Some(true) => EndTokens::Ignore,
                Some(false) | None => EndTokens::Honour,
            },
            n,
            candidates: n,
            delivery,
            logit_bias: take_logit_bias(fields, limits)?,
            token_ids: match fields.flag("return_token_ids")? {
                Some(true) => TokenIds::Include,
                Some(false) | None => TokenIds::Omit,
            },
            special_text: match fields.flag("skip_special_tokens")? {
                Some(false) => SpecialText::Show,
                Some(true) | None => SpecialText::Skip,
            },
            stop_text: match fields.flag("include_stop_str_in_output")? {
                Some(true) => StopText::Include,
                Some(false) | None => StopText::Omit,
            },
            allowed_tokens: take_allowed(fields, limits)?,
            bad_words: take_bad_words(fields)?,
            token_names: match fields.flag("return_tokens_as_token_ids")? {
                Some(true) => TokenNames::Ids,
                Some(false) | None => TokenNames::Texts,
            },
            truncation: Truncation::take(fields)?,
            service_tier: take_service_tier(fields)?,
            slo_class: fields.string("slo_class")?,
            logprobs: None,
            structure: take_structure(fields)?,
            prompt_report: PromptReport::take(fields, delivery)?,
        })
    }

    /// Returns the parameters for a prompt of `prompt_tokens`, without forbidden words. Fields that the client did not
    /// set take the recommendation of the model's authors, or else the API's defaults.
    ///
    /// # Errors
    /// When prompt and answer do not fit the context.
    pub fn resolve(
        &self,
        model: &ModelText,
        context_tokens: u32,
        prompt_tokens: usize,
        unnamed: UnnamedLength,
        seed: u64,
    ) -> Result<SamplingParams, ApiError> {
        let defaults = &model.defaults;
        let recommended = defaults.max_tokens;
        let max_tokens = self.output_budget(context_tokens, prompt_tokens, recommended, unnamed)?;
        let min_tokens = self.least_output(max_tokens, prompt_tokens, defaults.min_tokens)?;
        let temperature = self.temperature.or(defaults.temperature).unwrap_or(1.0);
        let mut stop_tokens = self.stop_tokens.clone();
        // A structured answer ends where its grammar does: nothing may follow it.
        if self.end_tokens == EndTokens::Honour || self.structure.is_some() {
            stop_tokens.extend(&model.end_tokens);
        }
        stop_tokens.sort_unstable();
        stop_tokens.dedup();
        Ok(SamplingParams {
            max_tokens,
            min_tokens,
            temperature: if temperature < TEMPERATURE_MIN { 0.0 } else { temperature },
            top_p: self.top_p.or(defaults.top_p).unwrap_or(1.0),
            top_k: self.top_k.or(defaults.top_k).unwrap_or(0),
            min_p: self.min_p.or(defaults.min_p).unwrap_or(0.0),
            repetition_penalty: self.repetition_penalty.or(defaults.repetition_penalty).unwrap_or(1.0),
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed.unwrap_or(seed),
            stop_tokens,
            // Without them nobody knows which candidates are the likeliest.
            logprobs: self.logprobs.or((self.candidates > self.n).then_some(0)),
            logit_bias: self.logit_bias.clone(),
            structure: self.structure.as_ref().map(|wanted| Arc::new(structure(wanted, model))),
            allowed_tokens: self.allowed_tokens.clone(),
            bad_words: Vec::new(),
            prompt_logprobs: self.prompt_report.top(),
        })
    }

    fn output_budget(
        &self,
        context_tokens: u32,
        prompt_tokens: usize,
        recommended: Option<Length>,
        unnamed: UnnamedLength,
    ) -> Result<u32, ApiError> {
        let left = u32::try_from(prompt_tokens).ok().and_then(|prompt| context_tokens.checked_sub(prompt)).unwrap_or(0);
        if left == 0 {
            let message = format!(
                "This model's maximum context length is {context_tokens} tokens. However, your request has \
                 {prompt_tokens} input tokens. Please reduce the length of the input."
            );
            return Err(ApiError::context_overflow("input_tokens", message));
        }
        match self.max_tokens {
            Some(asked) if asked > left && self.beyond_context == BeyondContext::Refuse => {
                let message = format!(
                    "'max_tokens' or 'max_completion_tokens' is too large: {asked}. This model's maximum context \
                     length is {context_tokens} tokens and your request has {prompt_tokens} input tokens \
                     ({asked} > {context_tokens} - {prompt_tokens})."
                );
                Err(ApiError::context_overflow("max_tokens", message))
            }
            Some(asked) => Ok(asked.min(left)),
            None => {
                let tokens = match (unnamed.configured, recommended) {
                    (Some(tokens), _) => tokens,
                    (None, None) => unnamed.default.unwrap_or(left),
                    (None, Some(length)) => {
                        length.of_answer(prompt_tokens).ok_or_else(|| beyond_recommended(prompt_tokens))?
                    }
                };
                Ok(tokens.min(left).min(unnamed.share))
            }
        }
    }

    /// Returns the fewest tokens of an answer; the authors' recommendation yields to the client's longest length.
    fn least_output(
        &self,
        max_tokens: u32,
        prompt_tokens: usize,
        recommended: Option<Length>,
    ) -> Result<u32, ApiError> {
        match self.min_tokens {
            // The client named a longer answer, and the context cut it.
            Some(asked) if self.max_tokens.is_some_and(|named| asked <= named) => Ok(asked.min(max_tokens)),
            Some(asked) if asked > max_tokens => {
                let message = format!("min_tokens ({asked}) must not be above max_tokens ({max_tokens})");
                Err(ApiError::invalid("min_tokens", message))
            }
            Some(asked) => Ok(asked),
            None => {
                let recommended = recommended.and_then(|length| length.of_answer(prompt_tokens));
                Ok(recommended.unwrap_or(0).min(max_tokens))
            }
        }
    }
}

/// Structure for workers: the text may end where the model would end it.
fn structure(wanted: &Wanted, model: &ModelText) -> Structure {
    Structure { grammar: Arc::clone(&wanted.grammar), ends: model.end_tokens.clone() }
}

/// Error: the recommended length leaves nothing for an answer, and the client sets none.
fn beyond_recommended(prompt_tokens: usize) -> ApiError {
    let message = format!(
        "max_length of this model's generation_config.json leaves nothing for an answer to {prompt_tokens} input tokens. \
         Please set max_tokens."
    );
    ApiError::invalid("max_tokens", message)
}

fn positive(name: &str, value: Option<f32>) -> Result<Option<f32>, ApiError> {
    match value {
        Some(0.0) => Err(ApiError::invalid(name, format!("{name} must be above 0"))),
        Some(_) | None => Ok(value),
    }
}

/// Clients draw seeds as signed or unsigned 64-bit integers; equal bits are the same seed.
fn take_seed(fields: &mut Fields) -> Result<Option<u64>, ApiError> {
    let Some(value) = fields.take("seed") else { return Ok(None) };
    let seed = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
    seed.map(Some).ok_or_else(|| fields::wrong("seed", "an integer of 64 bits", &value))
}

/// Takes the stop strings under the name `name`.
pub(crate) fn take_stops(name: &str, fields: &mut Fields, limits: &Limits) -> Result<Vec<String>, ApiError> {
    let stops = match fields.take(name) {
        None => return Ok(Vec::new()),
        Some(Value::String(stop)) => vec![stop],
        Some(Value::Array(list)) => {
            let stops = list.into_iter().enumerate();
            stops
                .map(|(index, stop)| fields::string(&format!("{name}[{index}]"), stop))
                .collect::<Result<Vec<_>, _>>()?
        }
        Some(other) => return Err(fields::wrong(name, "a string or a list of strings", &other)),
    };
    if stops.len() > limits.stop_max {
        let message = format!("{name} may have {} strings at most, but has {}", limits.stop_max, stops.len());
        return Err(ApiError::invalid(name, message));
    }
    if stops.iter().any(String::is_empty) {
        return Err(ApiError::invalid(name, format!("{name} must not contain an empty string")));
    }
    if let Some(long) = stops.iter().find(|stop| stop.len() > limits.stop_bytes_max) {
        let message = format!("a stop string may have {} bytes at most, but has {}", limits.stop_bytes_max, long.len());
        return Err(ApiError::invalid(name, message));
    }
    Ok(stops)
}

fn take_stop_tokens(fields: &mut Fields, limits: &Limits) -> Result<Vec<TokenId>, ApiError> {
    let list = fields.list("stop_token_ids")?.unwrap_or_default();
    if list.len() > STOP_TOKENS_MAX {
        let message = format!("stop_token_ids may have {STOP_TOKENS_MAX} tokens at most, but has {}", list.len());
        return Err(ApiError::invalid("stop_token_ids", message));
    }
    let tokens = list.iter().enumerate();
    tokens.map(|(index, value)| token(&format!("stop_token_ids[{index}]"), value, limits.vocab_size)).collect()
}

pub(super) fn token(name: &str, value: &Value, vocab_size: u32) -> Result<TokenId, ApiError> {
    fields::count(name, value, &(0..=vocab_size.saturating_sub(1))).map(TokenId)
}

fn take_delivery(fields: &mut Fields) -> Result<Delivery, ApiError> {
    let stream = fields.flag("stream")?.unwrap_or(false);
    let options = fields.object("stream_options")?;
    if options.is_some() && !stream {
        return Err(ApiError::invalid("stream_options", "stream_options needs stream to be true"));
    }
    if !stream {
        return Ok(Delivery::Whole);
    }
    let mut options = Fields::of(options.unwrap_or_default());
    let mut flag = |name: &str| {
        let value = options.take(name).map(|value| fields::flag(&format!("stream_options.{name}"), &value));
        value.transpose().map(|value| value.unwrap_or(false))
    };
    let (include, continuous) = (flag("include_usage")?, flag("continuous_usage_stats")?);
    note_unknown("stream_options.", &options);
    Ok(Delivery::Stream(match (include, continuous) {
        (false, _) => UsageChunk::Omit,
        (true, false) => UsageChunk::Include,
        (true, true) => UsageChunk::Continuous,
    }))
}

fn take_logit_bias(fields: &mut Fields, limits: &Limits) -> Result<Vec<(TokenId, f32)>, ApiError> {
    let map = fields.object("logit_bias")?.unwrap_or_default();
    if map.len() > LOGIT_BIAS_ENTRIES_MAX {
        let message = format!("logit_bias may have {LOGIT_BIAS_ENTRIES_MAX} entries at most, but has {}", map.len());
        return Err(ApiError::invalid("logit_bias", message));
    }
    let mut biases = map
        .iter()
        .map(|(key, value)| {
            let id = key.parse::<u32>().ok().filter(|id| *id < limits.vocab_size && id.to_string() == *key);
            let id = id.ok_or_else(|| {
                let last = limits.vocab_size.saturating_sub(1);
                ApiError::invalid("logit_bias", format!("logit_bias key {key:?} must be a token id from 0 to {last}"))
            })?;
            let name = format!("logit_bias.{id}");
            Ok((TokenId(id), fields::number(&name, value, &(-LOGIT_BIAS_MAX..=LOGIT_BIAS_MAX))?))
        })
        .collect::<Result<Vec<_>, ApiError>>()?;
    biases.sort_unstable_by_key(|(token, _)| *token);
    Ok(biases)
}
