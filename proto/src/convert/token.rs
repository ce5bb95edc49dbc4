//! Sampled tokens; log-probabilities keep their bits.

use sched::message::{Commit, FirstTiming, FirstToken, JoinTiming, TokenTiming};
use sched::{Choice, FinishReason, SampledToken, Score, Span, TokenId};

use super::limits::{ALTERNATIVES_MAX, CHOICES_MAX};
use super::{ConvertError, Field, Problem, Wire};
use crate::generated as wire;

impl Wire for SampledToken {
    type Message = wire::SampledToken;

    fn to_wire(&self) -> wire::SampledToken {
        let (top_tokens, top_logprobs) = self.top.iter().map(|(token, logprob)| (token.0, *logprob)).unzip();
        wire::SampledToken { token: self.token.0, logprob: self.logprob, top_tokens, top_logprobs }
    }

    fn from_wire(message: wire::SampledToken) -> Result<Self, ConvertError> {
        let top = alternatives("SampledToken", message.top_tokens, message.top_logprobs)?;
        Ok(SampledToken { token: TokenId(message.token), logprob: message.logprob, top })
    }
}

impl Wire for Score {
    type Message = wire::Score;

    fn to_wire(&self) -> wire::Score {
        let (top_tokens, top_logprobs) = self.top.iter().map(|(token, logprob)| (token.0, *logprob)).unzip();
        wire::Score { logprob: self.logprob, rank: self.rank, top_tokens, top_logprobs }
    }

    fn from_wire(message: wire::Score) -> Result<Self, ConvertError> {
        let top = alternatives("Score", message.top_tokens, message.top_logprobs)?;
        Ok(Score { logprob: message.logprob, rank: message.rank, top })
    }
}

/// Joins tokens with their log-probabilities.
fn alternatives(
    message: &'static str,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
) -> Result<Vec<(TokenId, f32)>, ConvertError> {
    let top = Field(message, "top_logprobs");
    top.at_most(logprobs.len(), ALTERNATIVES_MAX)?;
    Ok(top.zip(logprobs, tokens)?.map(|(logprob, token)| (TokenId(token), logprob)).collect())
}

/// `FINISH_REASON_UNSPECIFIED` means that the choice goes on, so most tokens spend no byte on it.
pub(super) fn ended_to_wire(ended: Option<FinishReason>) -> i32 {
    let reason = match ended {
        None => wire::FinishReason::Unspecified,
        Some(FinishReason::Stop) => wire::FinishReason::Stop,
        Some(FinishReason::Length) => wire::FinishReason::Length,
    };
    reason.into()
}

pub(super) fn ended_from_wire(field: Field, ended: i32) -> Result<Option<FinishReason>, ConvertError> {
    match wire::FinishReason::try_from(ended).map_err(|_| field.error(Problem::Unknown(ended)))? {
        wire::FinishReason::Unspecified => Ok(None),
        wire::FinishReason::Stop => Ok(Some(FinishReason::Stop)),
        wire::FinishReason::Length => Ok(Some(FinishReason::Length)),
    }
}

impl Wire for FirstToken {
    type Message = wire::FirstToken;

    fn to_wire(&self) -> wire::FirstToken {
        wire::FirstToken { choice: self.choice.0, token: Some(self.token.to_wire()), ended: ended_to_wire(self.ended) }
    }

    fn from_wire(message: wire::FirstToken) -> Result<Self, ConvertError> {
        Ok(FirstToken {
            choice: Choice(message.choice),
            token: Field("FirstToken", "token").take(message.token)?,
            ended: ended_from_wire(Field("FirstToken", "ended"), message.ended)?,
        })
    }
}

impl Wire for Commit {
    type Message = wire::Commit;

    fn to_wire(&self) -> wire::Commit {
        wire::Commit { leg: Some(self.leg.to_wire()), firsts: self.firsts.iter().map(Wire::to_wire).collect() }
    }

    fn from_wire(message: wire::Commit) -> Result<Self, ConvertError> {
        let firsts = Field("Commit", "firsts");
        firsts.not_empty(message.firsts.len())?;
        Ok(Commit {
            leg: Field("Commit", "leg").take(message.leg)?,
            firsts: firsts.take_all(message.firsts, CHOICES_MAX)?,
        })
    }
}

impl Wire for FirstTiming {
    type Message = wire::FirstTiming;

    fn to_wire(&self) -> wire::FirstTiming {
        wire::FirstTiming {
            queue_us: self.queue.us(),
            prefill_us: self.prefill.us(),
            cached_tokens: self.cached_tokens,
        }
    }

    fn from_wire(message: wire::FirstTiming) -> Result<Self, ConvertError> {
        Ok(FirstTiming {
            queue: Span(message.queue_us),
            prefill: Span(message.prefill_us),
            cached_tokens: message.cached_tokens,
        })
    }
}

impl Wire for JoinTiming {
    type Message = wire::JoinTiming;

    fn to_wire(&self) -> wire::JoinTiming {
        wire::JoinTiming {
            wait_us: self.wait.us(),
            transfer_us: self.transfer.us(),
            queue_us: self.queue.us(),
            step_us: self.step.us(),
        }
    }

    fn from_wire(message: wire::JoinTiming) -> Result<Self, ConvertError> {
        Ok(JoinTiming {
            wait: Span(message.wait_us),
            transfer: Span(message.transfer_us),
            queue: Span(message.queue_us),
            step: Span(message.step_us),
        })
    }
}

impl Wire for TokenTiming {
    type Message = wire::token::Timing;

    fn to_wire(&self) -> wire::token::Timing {
        match self {
            TokenTiming::First(timing) => wire::token::Timing::First(timing.to_wire()),
            TokenTiming::Joined(timing) => wire::token::Timing::Joined(timing.to_wire()),
        }
    }

    fn from_wire(message: wire::token::Timing) -> Result<Self, ConvertError> {
        Ok(match message {
            wire::token::Timing::First(timing) => TokenTiming::First(FirstTiming::from_wire(timing)?),
            wire::token::Timing::Joined(timing) => TokenTiming::Joined(JoinTiming::from_wire(timing)?),
        })
    }
}
