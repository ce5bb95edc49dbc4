//! One client request between the workers' tokens and the client's text; knows neither HTTP nor JSON.

use std::sync::Arc;

use sched::journey::Ending;
use sched::message::TokenTiming;
use sched::{Choice, Failure, FinishReason, RequestId, Scores, TokenId};

use crate::admission::Permit;
use crate::dispatch::{Batch, Dispatcher, Inbox, Job, RequestEvent, Unread};
use crate::metrics::Account;
use crate::model_output::{Pieces, Reader, Reading, Status};
use crate::openai::{
    Amount, ApiError, Delta, Generation, PromptLogprobs, PromptReport, StopReason, TokenIds, TokenLogprob, TokenNames,
    Usage,
};
use crate::prompt_scores::PromptScores;
use crate::text::{ChoiceText, Detokenizer, SpecialText, StopMatcher, Tokenizer};

/// Events after which no further batch is collected before the text goes out.
const EVENTS_ENOUGH: usize = 64;

/// Running request. Dropping it cancels the rest of it at the workers.
pub(crate) struct Exchange {
    tokenizer: Tokenizer,
    dispatcher: Dispatcher,
    events: Inbox,
    /// Request at the workers for each prompt; `None` once it has ended.
    requests: Vec<Option<RequestId>>,
    choices_per_prompt: u32,
    choices: Vec<ChoiceState>,
    /// Scores of each prompt; empty unless the client wants some.
    scored: Vec<PromptScores>,
    /// Bytes of the answer that the listed scores take.
    scored_bytes: usize,
    /// Tokens of each prompt that a prefix cache had; `None` before its first token.
    cached_tokens: Vec<Option<u64>>,
    /// Tokens with which the client wants a choice to end.
    stop_tokens: Vec<TokenId>,
    reports: Reports,
    usage: Usage,
    account: Account,
    stage: Stage,
    /// Whether the client knows that there is a first token.
    first: First,
    /// Place inside, held until the answer is over; `None` once the answer keeps it.
    permit: Option<Permit>,
}

/// Values that the client wants for each token besides its text.
#[derive(Debug, Clone, Copy)]
struct Reports {
    logprobs: bool,
    token_ids: bool,
    token_names: TokenNames,
    special_text: SpecialText,
    prompt: PromptReport,
    amount: Amount,
}

struct ChoiceState {
    text: ChoiceText,
    /// Takes the text apart, where the answer may have more than text.
    parts: Option<Parts>,
    /// Text and tokens not yet handed out.
    pending: Delta,
    /// Tokens so far.
    tokens: u64,
    /// Characters of the echo before its own text, where that goes with log-probabilities.
    echo_chars: usize,
    finish: Option<FinishReason>,
}

struct Parts {
    reader: Reader,
    /// Text of the current token.
    text: String,
}

#[derive(Debug, Clone, PartialEq)]
enum Stage {
    Running,
    Failed(ApiError),
}

/// Whether a turn has told of the first token, which may say nothing yet: thoughts that are left out, half a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Awaited,
    Told,
}

/// Next turn for the client.
#[derive(Debug)]
pub(crate) enum Turn {
    /// New text and tokens of some choices; none at the first token if that says nothing.
    Deltas(Vec<Delta>),
    /// End: everything has been handed out.
    Done(Usage),
    /// Failure: nothing more will come.
    Failed(ApiError),
}

pub(crate) struct ExchangeParts<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) dispatcher: &'a Dispatcher,
    pub(crate) generation: &'a Generation,
    /// One job per prompt.
    pub(crate) jobs: Vec<Job>,
    /// How the answers are taken apart, if they may have more than text.
    pub(crate) reading: Option<Arc<Reading>>,
    /// Texts that are echoed with log-probabilities, one per prompt; empty if none are.
    pub(crate) echoes: Vec<String>,
    pub(crate) unread: &'a Unread,
    pub(crate) account: Account,
    pub(crate) permit: Permit,
}

impl Exchange {
    pub(crate) fn begin(parts: ExchangeParts<'_>) -> Exchange {
        let generation = parts.generation;
        let mut account = parts.account;
        account.admitted();
        let stop = StopMatcher::new(&generation.stops).with_text(generation.stop_text);
        let reading = parts.reading.as_deref();
        let splits = reading.is_some_and(|reading| reading.thoughts.is_some());
        let mut usage = Usage { reasoning_tokens: splits.then_some(0), ..Usage::default() };
        let mut choices = Vec::new();
        for job in &parts.jobs {
            usage.prompt_tokens += job.prompt.len() as u64;
            for index in (choices.len() as u32..).take(job.choices as usize) {
                let mut detokenizer = Detokenizer::after(parts.tokenizer, generation.special_text, &job.prompt);
                if let Some(reading) = reading {
                    detokenizer = detokenizer.showing(Arc::clone(&reading.shown));
                }
                let apart = reading.map(|reading| Parts {
                    reader: Reader::new(reading, parts.dispatcher.seed()),
                    text: String::new(),
                });
                let text = ChoiceText::new(detokenizer, stop.clone(), job.params.min_tokens);
                let pending = Delta { index, ..Delta::default() };
                choices.push(ChoiceState { text, parts: apart, pending, tokens: 0, echo_chars: 0, finish: None });
            }
        }
        let prompts = parts.jobs.len();
        let scored = scored_prompts(&parts.jobs, parts.echoes, generation.prompt_report);
        let (trail, id) = account.called();
        let (events, requests) = parts.dispatcher.submit((&trail, id), parts.jobs, parts.unread);
        Exchange {
            tokenizer: parts.tokenizer.clone(),
            dispatcher: parts.dispatcher.clone(),
            events,
            requests: requests.into_iter().map(Some).collect(),
            choices_per_prompt: generation.candidates,
            choices,
            scored,
            scored_bytes: 0,
            cached_tokens: vec![None; prompts],
            stop_tokens: generation.stop_tokens.clone(),
            reports: Reports {
                logprobs: generation.logprobs.is_some(),
                token_ids: generation.token_ids == TokenIds::Include,
                token_names: generation.token_names,
                special_text: generation.special_text,
                prompt: generation.prompt_report,
                amount: generation.amount,
            },
            usage,
            account,
            stage: Stage::Running,
            first: First::Awaited,
            permit: Some(parts.permit),
        }
    }

    /// Counts bytes of the answer that are held until it is whole, or taken. Fails the request if they are too many.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), ApiError> {
        let Some(permit) = &mut self.permit else { return Ok(()) };
        permit.grow_answer(bytes).inspect_err(|error| self.account.failed(error))
    }

    /// Notes that the answer begins to go out: its status is sent and stays, whatever comes.
    pub(crate) fn begins_to_answer(&mut self) {
        self.account.answering();
    }

    /// Returns the place inside, for the answer to keep.
    pub(crate) fn into_permit(mut self) -> Option<Permit> {
        self.permit.take()
    }

    /// Waits for the next turn; after `Done` or `Failed` there is none.
    pub(crate) async fn next(&mut self) -> Turn {
        loop {
            if let Stage::Failed(error) = &self.stage {
                self.account.failed(error);
                return Turn::Failed(error.clone());
            }
            if self.choices.iter().all(|choice| choice.finish.is_some()) {
                self.account.done();
                return Turn::Done(self.usage());
            }
            let mut next = self.events.take().await;
            if next.is_none() {
                self.fail(ApiError::from(too_slow()));
            }
            let mut events = 0;
            while let Some(batch) = next {
                events += batch.len();
                self.take(batch);
                next = if events < EVENTS_ENOUGH { self.events.try_take() } else { None };
            }
            let deltas = self.deltas();
            let is_first = self.first == First::Awaited && self.choices.iter().any(|choice| choice.tokens > 0);
            if is_first || !deltas.is_empty() {
                self.first = First::Told;
                return Turn::Deltas(deltas);
            }
        }
    }

    fn take(&mut self, batch: Batch) {
        for event in batch {
            match event {
                RequestEvent::Token { index, delivery, ended } => self.take_token(index, &delivery, ended),
                RequestEvent::Scores { index, scores } => self.take_scores(index, scores),
                RequestEvent::End { request, ending } => {
                    for ended in self.requests.iter_mut().filter(|running| **running == Some(request)) {
                        *ended = None;
                    }
                    if let Ending::Failed(failure) = ending {
                        self.fail(failure.into());
                    }
                }
            }
        }
    }

    fn usage(&self) -> Usage {
        Usage { cached_tokens: Some(self.cached_tokens.iter().flatten().sum()), ..self.usage }
    }

    fn take_token(&mut self, index: u32, delivery: &sched::journey::Delivery, ended: Option<FinishReason>) {
        self.note_cached(index, delivery.timing);
        let Some(choice) = self.choices.get_mut(index as usize) else { return };
        if choice.finish.is_some() {
            // A stop string was found, but the worker does not know yet.
            return;
        }
        if choice.tokens == 0
            && let Err(failure) = self.begin_choice(index)
        {
            return self.fail(failure.into());
        }
        let Some(choice) = self.choices.get_mut(index as usize) else { return };
        self.account.token(self.account.now(), delivery, index);
        if self.reports.amount == Amount::Nothing {
            choice.finish = ended.and(Some(FinishReason::Length));
            choice.pending.finish = choice.finish;
            if let Some(reason) = choice.finish {
                self.account.choice_ended(index, reason);
            }
            return;
        }
        self.usage.completion_tokens += 1;
        choice.tokens += 1;
        choice.pending.completed = choice.tokens;
        choice.pending.logprob_sum += delivery.token.logprob.map_or(0.0, f64::from);
        if self.reports.logprobs {
            let offset = choice.echo_chars + choice.text.offset_of(delivery.token.token);
            let names = self.reports.token_names;
            choice.pending.logprobs.push(TokenLogprob::of(&delivery.token, &self.tokenizer, offset, names));
        }
        if self.reports.token_ids {
            choice.pending.tokens.push(delivery.token.token);
        }
        let kind = choice.push(delivery.token.token, ended);
        choice.pending.stop_reason = choice.stop_reason(delivery.token.token, ended, &self.stop_tokens);
        if let Some(reason) = choice.finish {
            self.account.choice_ended(index, reason);
        }
        if let (TokenKind::Thought, Some(thoughts)) = (kind, &mut self.usage.reasoning_tokens) {
            *thoughts += 1;
        }
        if choice.finish.is_some() && ended.is_none() {
            self.stop_at_worker(index);
        }
    }

    /// Begins a choice with what it repeats of its prompt, all of which has its scores by now.
    fn begin_choice(&mut self, index: u32) -> Result<(), Failure> {
        let Some(prompt) = self.scored.get((index / self.choices_per_prompt) as usize) else { return Ok(()) };
        prompt.check()?;
        if let (Some(choice), Some(top)) = (self.choices.get_mut(index as usize), self.reports.prompt.echoed) {
            choice.echo_chars = prompt.echo.chars().count();
            choice.pending.text.push_str(&prompt.echo);
            let shown = (self.reports.special_text, self.reports.token_names);
            choice.pending.logprobs = prompt.echoed(top, &self.tokenizer, shown);
        }
        Ok(())
    }

    fn take_scores(&mut self, index: u32, scores: Scores) {
        let Some(prompt) = self.scored.get_mut((index / self.choices_per_prompt) as usize) else { return };
        let before = prompt.scores.len();
        let taken = prompt.take(scores);
        let more = prompt.scores.len() - before;
        let bytes = self.reports.prompt.held_bytes(more, self.choices_per_prompt);
        self.scored_bytes += bytes;
        let held = self.hold(bytes);
        if let Err(error) = taken.map_err(ApiError::from).and(held) {
            self.fail(error);
        }
    }

    /// Takes out what `prompt_logprobs` lists, one entry per prompt, with the bytes that are held for it.
    pub(crate) fn take_listed(&mut self) -> (Vec<PromptLogprobs>, usize) {
        let Some(top) = self.reports.prompt.listed else { return (Vec::new(), 0) };
        let prompts = std::mem::take(&mut self.scored).into_iter();
        let listed = prompts.map(|PromptScores { tokens, scores, .. }| PromptLogprobs {
            tokens,
            scores,
            top,
            tokenizer: self.tokenizer.clone(),
        });
        (listed.collect(), self.scored_bytes)
    }

    /// Notes what the prefill of a prompt found in its worker's cache. The first token of the prompt says so; a later
    /// attempt after a loss finds what the first one left.
    fn note_cached(&mut self, index: u32, timing: Option<TokenTiming>) {
        let Some(TokenTiming::First(first)) = timing else { return };
        if let Some(cached @ None) = self.cached_tokens.get_mut((index / self.choices_per_prompt) as usize) {
            *cached = Some(first.cached_tokens.into());
            self.account.found_cached(first.cached_tokens);
        }
    }

    /// Tells the worker to end a choice by a stop string, which it cannot see.
    fn stop_at_worker(&self, index: u32) {
        let prompt = (index / self.choices_per_prompt) as usize;
        let choice = Choice(index % self.choices_per_prompt);
        if let Some(request) = self.requests.get(prompt).copied().flatten() {
            self.dispatcher.stop_choice(request, choice);
        }
    }

    fn fail(&mut self, error: ApiError) {
        if self.stage == Stage::Running {
            self.stage = Stage::Failed(error);
        }
    }

    /// Returns the text that has become certain, as one delta per choice.
    fn deltas(&mut self) -> Vec<Delta> {
        self.choices
            .iter_mut()
            .filter(|choice| !choice.pending.is_empty())
            .map(|choice| {
                let next = Delta { index: choice.pending.index, ..Delta::default() };
                std::mem::replace(&mut choice.pending, next)
            })
            .collect()
    }
}

/// Part of an answer to which a token belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenKind {
    Thought,
    Other,
}

impl ChoiceState {
    /// Takes the next token.
    fn push(&mut self, token: TokenId, ended: Option<FinishReason>) -> TokenKind {
        let kind = match &mut self.parts {
            None => {
                self.finish = self.text.push(token, ended, &mut self.pending.text);
                TokenKind::Other
            }
            Some(Parts { reader, text }) => {
                text.clear();
                self.finish = self.text.push(token, ended, text);
                let Delta { text: content, reasoning, calls, .. } = &mut self.pending;
                let mut pieces = Pieces { content, reasoning, calls };
                let was_thinking = reader.is_thinking();
                let status = reader.push(text, &mut pieces);
                if self.finish.is_some() {
                    reader.finish(&mut pieces);
                } else if status == Status::Complete {
                    self.finish = Some(FinishReason::Stop);
                }
                self.pending.next = reader.next_speaker();
                if was_thinking || reader.is_thinking() { TokenKind::Thought } else { TokenKind::Other }
            }
        };
        self.pending.finish = self.finish;
        kind
    }

    /// Returns what the client had set to end the choice, if that has ended it with `token`.
    fn stop_reason(&self, token: TokenId, ended: Option<FinishReason>, stops: &[TokenId]) -> Option<StopReason> {
        match (self.text.stop_string(), ended) {
            (Some(stop), _) => Some(StopReason::Text(stop.to_owned())),
            (None, Some(FinishReason::Stop)) => stops.contains(&token).then_some(StopReason::Token(token.0)),
            (None, Some(FinishReason::Length) | None) => None,
        }
    }
}

/// Returns a place for the scores of each prompt, if any are wanted.
fn scored_prompts(jobs: &[Job], echoes: Vec<String>, report: PromptReport) -> Vec<PromptScores> {
    if report.top().is_none() {
        return Vec::new();
    }
    let echoes = echoes.into_iter().chain(std::iter::repeat(String::new()));
    jobs.iter().zip(echoes).map(|(job, echo)| PromptScores::new(Arc::clone(&job.prompt), echo)).collect()
}

/// The dispatcher drops a request whose news are not read in time, and all requests when it stops.
fn too_slow() -> Failure {
    Failure::new(sched::FailureKind::Unavailable, "the answer was read too slowly or the router has stopped")
}

/// Cancels the request at the workers, as its result is not needed any more.
impl Drop for Exchange {
    fn drop(&mut self) {
        for &request in self.requests.iter().flatten() {
            self.dispatcher.cancel(request);
        }
    }
}
