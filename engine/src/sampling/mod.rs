//! Sampling: the state of every running choice, and one draw at a time; knows no step and no scheduler.
//!
//! A draw depends on (seed of the choice, position among its generated tokens), not on batch, worker or attempt.

mod draw;
mod elementary;
mod logprob;
mod mask;
mod order;
mod penalty;
mod score;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sched::{
    Failure, FailureKind, SampleOutcome, SampledToken, SamplingParams, ScoreOutcome, SlotId, SlotInit, TokenId, rng,
};
use vocabulary::GrammarError;

use self::draw::{Scratch, draw};
use self::logprob::LogSoftmax;
use self::mask::Recent;
use self::penalty::Seen;
use crate::EngineError;
use crate::structure::{Follower, Structures};

/// Draws for one lane. Samplers of the lanes of one replica share its [`Choices`].
#[derive(Debug)]
pub struct Sampler {
    choices: Choices,
    adjusted: Vec<f32>,
    scratch: Scratch,
}

/// State of all running choices of a replica. A choice is in the steps of one lane at a time, and moves from the lane
/// that prefills it to the one that decodes it.
#[derive(Debug, Clone)]
pub(crate) struct Choices {
    structures: Structures,
    slots: Arc<Mutex<BTreeMap<SlotId, Arc<Mutex<Slot>>>>>,
}

#[derive(Debug)]
struct Slot {
    params: Arc<SamplingParams>,
    seed: u64,
    /// Tokens generated so far, which is the position of the next one.
    generated: u32,
    last: Last,
    seen: Seen,
    recent: Recent,
    follower: Option<Follower>,
}

#[derive(Debug, Clone, Copy)]
enum Last {
    /// The choice has no token yet.
    Nothing,
    Token(TokenId),
    /// The step that should have sampled it did not; the scheduler ignores this slot from now on.
    Void,
}

/// Input token of void slots; any token of the vocabulary will do.
const VOID_INPUT: TokenId = TokenId(0);
/// Sample of void slots; outside of every vocabulary, so that it cannot pass for a token.
const VOID_SAMPLE: TokenId = TokenId(u32::MAX);

impl Sampler {
    pub(crate) fn new(choices: Choices) -> Sampler {
        Sampler { choices, adjusted: Vec::new(), scratch: Scratch::default() }
    }

    /// Starts a choice, and forgets the one that had its slot before.
    pub fn admit(&mut self, init: &SlotInit) {
        let slot = Slot {
            params: Arc::clone(&init.params),
            seed: init.seed,
            generated: init.generated.len() as u32,
            last: init.generated.last().map_or(Last::Nothing, |token| Last::Token(*token)),
            seen: Seen::new(&init.params, &init.prompt, &init.generated),
            recent: Recent::new(&init.params, &init.generated),
            follower: init
                .params
                .structure
                .as_ref()
                .map(|structure| self.choices.structures.follow(structure, &init.generated)),
        };
        lock(&self.choices.slots).insert(init.slot, Arc::new(Mutex::new(slot)));
    }

    /// Returns the last token of a choice, sampled here or admitted with it; for a void slot, an arbitrary token.
    pub fn last_token(&self, slot: SlotId) -> Result<TokenId, EngineError> {
        match self.choices.find(slot).map(|slot| lock(&slot).last) {
            Some(Last::Token(token)) => Ok(token),
            Some(Last::Void) => Ok(VOID_INPUT),
            Some(Last::Nothing) | None => Err(EngineError::Plan(format!("{slot} has no last token to continue from"))),
        }
    }

    /// Marks a slot whose step ended without its sample: until it is admitted again its samples are meaningless, and
    /// its rows must not make the next step fail. Unknown slots are ignored.
    pub fn void(&mut self, slot: SlotId) {
        if let Some(slot) = self.choices.find(slot) {
            lock(&slot).last = Last::Void;
        }
    }

    /// Samples the next token of a choice from one row of logits, `[vocab]`. A row that gives no token is an outcome,
    /// not an error: it voids only its own slot.
    pub fn sample(&mut self, slot: SlotId, logits: &[f32]) -> Result<SampleOutcome, EngineError> {
        let Sampler { choices, adjusted, scratch } = self;
        let Some(state) = choices.find(slot) else {
            return Err(EngineError::Plan(format!("{slot} samples but was not admitted")));
        };
        let mut state = lock(&state);
        if let Last::Void = state.last {
            return Ok(Ok(SampledToken { token: VOID_SAMPLE, logprob: None, top: Vec::new() }));
        }
        let outcome = state.draw(logits, adjusted, scratch);
        match &outcome {
            Ok(sampled) => state.note(sampled.token),
            Err(_) => state.last = Last::Void,
        }
        Ok(outcome)
    }

    /// Scores a known token from one row of logits, `[vocab]`, with the `top` most likely ones.
    pub fn score(&mut self, logits: &[f32], token: TokenId, top: u8) -> ScoreOutcome {
        score::score(logits, token, top, &mut self.scratch)
    }
}

impl Choices {
    /// No choices; `structures` has the grammars of those that follow one.
    pub(crate) fn new(structures: Structures) -> Choices {
        Choices { structures, slots: Arc::default() }
    }

    fn find(&self, slot: SlotId) -> Option<Arc<Mutex<Slot>>> {
        lock(&self.slots).get(&slot).cloned()
    }
}

/// Ignores poison: a panic ends the executor of a lane, and with it all steps of the choices that it left half drawn.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    fn draw(&self, logits: &[f32], adjusted: &mut Vec<f32>, scratch: &mut Scratch) -> SampleOutcome {
        let params = &self.params;
        let raw_maximum = order::maximum(logits).map_err(|problem| broken_model(&problem))?;
        let is_adjusted = penalty::changes_logits(params, self.generated) || mask::has_masks(params);
        let (view, maximum) = if is_adjusted || self.follower.is_some() {
            if is_adjusted {
                adjusted.clear();
                adjusted.extend_from_slice(logits);
                self.seen.adjust(params, self.generated, adjusted);
                self.recent.mask(params, adjusted);
            }
            if let Some(follower) = &self.follower {
                let barred = follower.allowed(|allowed| match is_adjusted {
                    true => allowed.bar(logits, adjusted),
                    false => allowed.copy(logits, adjusted),
                });
                barred.map_err(|error| broken_structure(&error))?;
            }
            (adjusted.as_slice(), order::maximum(adjusted).map_err(|problem| broken_params(&problem))?)
        } else {
            (logits, raw_maximum)
        };
        let uniform = rng::uniform_f64(self.seed, u64::from(self.generated), 0);
        let token = draw(view, maximum, params, uniform, scratch);
        Ok(report(params, logits, raw_maximum, token, scratch))
    }

    fn note(&mut self, token: TokenId) {
        self.seen.note(&self.params, token);
        self.recent.note(token);
        if let Some(follower) = &self.follower {
            follower.push(token);
        }
        self.generated += 1;
        self.last = Last::Token(token);
    }
}

/// Failure of a row without a most likely token: damaged weights or KV cache, or the model overflows for this text.
fn broken_model(problem: &str) -> Failure {
    Failure::new(FailureKind::Internal, format!("the model gave logits that no token can be sampled from: {problem}"))
}

/// Failure of a row that was fine until bias, masks or penalties left no token.
fn broken_params(problem: &str) -> Failure {
    const CAUSES: &str =
        "logit_bias, min_tokens, allowed_token_ids, bad_words, penalties and the structure of the answer";
    let detail = format!("{CAUSES} leave no token that can be sampled: {problem}");
    Failure::new(FailureKind::InvalidRequest, detail)
}

/// Failure of a row whose grammar cannot be followed any further.
fn broken_structure(error: &GrammarError) -> Failure {
    Failure::new(FailureKind::InvalidRequest, format!("the structure of the answer cannot be followed: {error}"))
}

/// Adds the log-probabilities that were asked for, from the raw logits, to a token.
fn report(params: &SamplingParams, logits: &[f32], maximum: f32, token: u32, scratch: &mut Scratch) -> SampledToken {
    let token_id = TokenId(token);
    let Some(alternatives) = params.logprobs else {
        return SampledToken { token: token_id, logprob: None, top: Vec::new() };
    };
    let distribution = LogSoftmax::of(logits, maximum);
    let logprob = Some(distribution.of_logit(logits[token as usize]));
    let top = match alternatives {
        0 => Vec::new(),
        count => distribution.top(logits, usize::from(count), &mut scratch.entries),
    };
    SampledToken { token: token_id, logprob, top }
}
