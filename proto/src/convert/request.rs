//! A leg of work: prompt, choices, sampling parameters and targets.

use std::sync::Arc;

use sched::{Choice, ChoiceState, Request, SamplingParams, Slo, Span, Structure, TokenId};

use super::ids::{span_to_wire, tokens_from_wire, tokens_to_wire};
use super::limits::{
    BAD_WORD_TOKENS_MAX, BAD_WORDS_MAX, CHOICES_MAX, GRAMMAR_BYTES_MAX, LOGIT_BIAS_MAX, STOP_TOKENS_MAX, TOKENS_MAX,
};
use super::{ConvertError, Field, Wire};
use crate::generated as wire;

impl Wire for Request {
    type Message = wire::Request;

    fn to_wire(&self) -> wire::Request {
        wire::Request {
            leg: Some(self.leg.to_wire()),
            prompt: tokens_to_wire(&self.prompt),
            choices: self.choices.iter().map(Wire::to_wire).collect(),
            params: Some(self.params.to_wire()),
            slo: Some(self.slo.to_wire()),
            deadline_in_us: self.deadline_in.us(),
        }
    }

    fn from_wire(message: wire::Request) -> Result<Self, ConvertError> {
        let (prompt, choices) = (Field("Request", "prompt"), Field("Request", "choices"));
        prompt.not_empty(message.prompt.len())?;
        prompt.at_most(message.prompt.len(), TOKENS_MAX)?;
        choices.not_empty(message.choices.len())?;
        Ok(Request {
            leg: Field("Request", "leg").take(message.leg)?,
            prompt: message.prompt.into_iter().map(TokenId).collect(),
            choices: choices.take_all(message.choices, CHOICES_MAX)?,
            params: Arc::new(Field("Request", "params").take(message.params)?),
            slo: Field("Request", "slo").take(message.slo)?,
            deadline_in: Span(message.deadline_in_us),
        })
    }
}

impl Wire for ChoiceState {
    type Message = wire::ChoiceState;

    fn to_wire(&self) -> wire::ChoiceState {
        wire::ChoiceState { choice: self.choice.0, generated: tokens_to_wire(&self.generated) }
    }

    fn from_wire(message: wire::ChoiceState) -> Result<Self, ConvertError> {
        Field("ChoiceState", "generated").at_most(message.generated.len(), TOKENS_MAX)?;
        Ok(ChoiceState { choice: Choice(message.choice), generated: tokens_from_wire(message.generated) })
    }
}

impl Wire for SamplingParams {
    type Message = wire::SamplingParams;

    fn to_wire(&self) -> wire::SamplingParams {
        let (logit_bias_tokens, logit_bias_values) =
            self.logit_bias.iter().map(|(token, bias)| (token.0, *bias)).unzip();
        wire::SamplingParams {
            max_tokens: self.max_tokens,
            min_tokens: self.min_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed,
            stop_tokens: tokens_to_wire(&self.stop_tokens),
            logprobs: self.logprobs.map(u32::from),
            logit_bias_tokens,
            logit_bias_values,
            structure: self.structure.as_deref().map(Wire::to_wire),
            allowed_tokens: tokens_to_wire(&self.allowed_tokens),
            prompt_logprobs: self.prompt_logprobs.map(u32::from),
            bad_words: self.bad_words.iter().map(|word| wire::BadWord { tokens: tokens_to_wire(word) }).collect(),
        }
    }

    fn from_wire(message: wire::SamplingParams) -> Result<Self, ConvertError> {
        let bias = Field("SamplingParams", "logit_bias_values");
        bias.at_most(message.logit_bias_values.len(), LOGIT_BIAS_MAX)?;
        Field("SamplingParams", "stop_tokens").at_most(message.stop_tokens.len(), STOP_TOKENS_MAX)?;
        Field("SamplingParams", "allowed_tokens").at_most(message.allowed_tokens.len(), TOKENS_MAX)?;
        let logit_bias = bias.zip(message.logit_bias_values, message.logit_bias_tokens)?;
        let logprobs = message.logprobs.map(|count| Field("SamplingParams", "logprobs").u8(count)).transpose()?;
        let prompt_logprobs = message.prompt_logprobs.map(|count| Field("SamplingParams", "prompt_logprobs").u8(count));
        Ok(SamplingParams {
            max_tokens: message.max_tokens,
            min_tokens: message.min_tokens,
            temperature: message.temperature,
            top_p: message.top_p,
            top_k: message.top_k,
            min_p: message.min_p,
            repetition_penalty: message.repetition_penalty,
            presence_penalty: message.presence_penalty,
            frequency_penalty: message.frequency_penalty,
            seed: message.seed,
            stop_tokens: tokens_from_wire(message.stop_tokens),
            logprobs,
            logit_bias: logit_bias.map(|(bias, token)| (TokenId(token), bias)).collect(),
            structure: message.structure.map(Structure::from_wire).transpose()?.map(Arc::new),
            allowed_tokens: tokens_from_wire(message.allowed_tokens),
            bad_words: bad_words_from_wire(message.bad_words)?,
            prompt_logprobs: prompt_logprobs.transpose()?,
        })
    }
}

impl Wire for Structure {
    type Message = wire::Structure;

    fn to_wire(&self) -> wire::Structure {
        wire::Structure { grammar: self.grammar.to_string(), ends: tokens_to_wire(&self.ends) }
    }

    fn from_wire(message: wire::Structure) -> Result<Self, ConvertError> {
        Field("Structure", "grammar").at_most(message.grammar.len(), GRAMMAR_BYTES_MAX)?;
        Field("Structure", "ends").at_most(message.ends.len(), STOP_TOKENS_MAX)?;
        Ok(Structure { grammar: message.grammar.into(), ends: tokens_from_wire(message.ends) })
    }
}

fn bad_words_from_wire(words: Vec<wire::BadWord>) -> Result<Vec<Vec<TokenId>>, ConvertError> {
    let field = Field("SamplingParams", "bad_words");
    field.at_most(words.len(), BAD_WORDS_MAX)?;
    let word = |word: wire::BadWord| {
        field.not_empty(word.tokens.len())?;
        field.at_most(word.tokens.len(), BAD_WORD_TOKENS_MAX)?;
        Ok(tokens_from_wire(word.tokens))
    };
    words.into_iter().map(word).collect()
}

impl Wire for Slo {
    type Message = wire::Slo;

    fn to_wire(&self) -> wire::Slo {
        wire::Slo {
            class: u32::from(self.class),
            ttft_us: span_to_wire(self.ttft),
            tpot_us: span_to_wire(self.tpot),
            itl_tail_us: span_to_wire(self.itl_tail),
        }
    }

    fn from_wire(message: wire::Slo) -> Result<Self, ConvertError> {
        Ok(Slo {
            class: Field("Slo", "class").u16(message.class)?,
            ttft: message.ttft_us.map(Span),
            tpot: message.tpot_us.map(Span),
            itl_tail: message.itl_tail_us.map(Span),
        })
    }
}
