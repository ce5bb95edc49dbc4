//! One client request between the workers' tokens and the client's text; knows neither HTTP nor JSON.

use sched::journey::Ending;
use sched::{Choice, FinishReason, RequestId};

use crate::admission::Permit;
use crate::dispatch::{Batch, Dispatcher, Inbox, Job, RequestEvent, Unread};
use crate::metrics::Account;
use crate::openai::{ApiError, Delta, Generation, TokenIds, TokenLogprob, Usage};
use crate::text::{ChoiceText, Detokenizer, StopMatcher, Tokenizer};

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
    reports: Reports,
    usage: Usage,
    account: Account,
    stage: Stage,
    /// Place inside, held until the answer is over; `None` once the answer keeps it.
    permit: Option<Permit>,
}

/// Values that the client wants for each token besides its text.
#[derive(Debug, Clone, Copy)]
struct Reports {
    logprobs: bool,
    token_ids: bool,
}

struct ChoiceState {
    text: ChoiceText,
    /// Text and tokens not yet handed out.
    pending: Delta,
    finish: Option<FinishReason>,
}

#[derive(Debug, Clone, PartialEq)]
enum Stage {
    Running,
    Failed(ApiError),
}

/// Next turn for the client.
#[derive(Debug)]
pub(crate) enum Turn {
    /// New text and tokens of some choices.
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
    pub(crate) unread: &'a Unread,
    pub(crate) account: Account,
    pub(crate) permit: Permit,
}

impl Exchange {
    pub(crate) fn begin(parts: ExchangeParts<'_>) -> Exchange {
        let generation = parts.generation;
        let mut account = parts.account;
        account.admitted();
        let stop = StopMatcher::new(&generation.stops);
        let mut usage = Usage::default();
        let mut choices = Vec::new();
        for job in &parts.jobs {
            usage.prompt_tokens += job.prompt.len() as u64;
            for index in (choices.len() as u32..).take(job.choices as usize) {
                let detokenizer = Detokenizer::after(parts.tokenizer, generation.special_text, &job.prompt);
                let text = ChoiceText::new(detokenizer, stop.clone(), job.params.min_tokens);
                let pending = Delta { index, ..Delta::default() };
                choices.push(ChoiceState { text, pending, finish: None });
            }
        }
        let (name, id) = account.called();
        let (events, requests) = parts.dispatcher.submit((&name, id), parts.jobs, parts.unread);
        Exchange {
            tokenizer: parts.tokenizer.clone(),
            dispatcher: parts.dispatcher.clone(),
            events,
            requests: requests.into_iter().map(Some).collect(),
            choices_per_prompt: generation.n,
            choices,
            reports: Reports {
                logprobs: generation.logprobs.is_some(),
                token_ids: generation.token_ids == TokenIds::Include,
            },
            usage,
            account,
            stage: Stage::Running,
            permit: Some(parts.permit),
        }
    }

    /// Counts bytes of the answer that are held until it is whole, or taken. Fails the request if they are too many.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), ApiError> {
        let Some(permit) = &mut self.permit else { return Ok(()) };
        permit.grow_answer(bytes).inspect_err(|error| self.account.failed(error))
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
                return Turn::Done(self.usage);
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
            if !deltas.is_empty() {
                return Turn::Deltas(deltas);
            }
        }
    }

    fn take(&mut self, batch: Batch) {
        for event in batch {
            match event {
                RequestEvent::Token { index, delivery, ended } => self.take_token(index, &delivery, ended),
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

    fn take_token(&mut self, index: u32, delivery: &sched::journey::Delivery, ended: Option<FinishReason>) {
        let Some(choice) = self.choices.get_mut(index as usize) else { return };
        if choice.finish.is_some() {
            // A stop string was found, but the worker does not know yet.
            return;
        }
        self.usage.completion_tokens += 1;
        self.account.token(self.account.now(), delivery, index);
        if self.reports.logprobs {
            let offset = choice.text.offset_of(delivery.token.token);
            choice.pending.logprobs.push(TokenLogprob::of(&delivery.token, &self.tokenizer, offset));
        }
        if self.reports.token_ids {
            choice.pending.tokens.push(delivery.token.token);
        }
        choice.finish = choice.text.push(delivery.token.token, ended, &mut choice.pending.text);
        choice.pending.finish = choice.finish;
        if choice.finish.is_some() && ended.is_none() {
            self.stop_at_worker(index);
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

/// The dispatcher drops a request whose news are not read in time, and all requests when it stops.
fn too_slow() -> sched::Failure {
    sched::Failure::new(sched::FailureKind::Unavailable, "the answer was read too slowly or the router has stopped")
}

/// Cancels the request at the workers, as its result is not needed any more.
impl Drop for Exchange {
    fn drop(&mut self) {
        for &request in self.requests.iter().flatten() {
            self.dispatcher.cancel(request);
        }
    }
}
