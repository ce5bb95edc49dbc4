//! Finds workers for legs, and new ones for what lost legs had not finished.

use std::sync::Arc;

use super::leg::{Course, Handoff, LegState, Part, Side, Told};
use super::{Instead, Journey, JourneyAction, JourneyConfig, LostHandoffs};
use crate::cluster::{Conduct, Kind};
use crate::message::{Offer, ToWorker, Work};
use crate::route::{Avoided, Output, Passage, Pick, Route, RouteAsk};
use crate::{Attempt, Choice, ChoiceState, Failure, FailureKind, Leg, Request, Span, Time, WorkerId};

/// Choices that need a worker together.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) choices: Vec<Choice>,
    /// Time of the first search for a worker; `None` once a search has found none.
    pub(super) due: Option<Time>,
    pub(super) patience: Patience,
    pub(super) manner: Manner,
}

#[derive(Debug, Clone)]
pub(super) enum Manner {
    /// Any route that the router prefers.
    Any,
    /// At workers that have not failed it; holds the failure with which it ends if there are none.
    Elsewhere(Failure),
    /// Without a hand-off, because too many were lost; holds the last failure.
    Locally(Failure),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) since: Time,
    pub(super) span: Span,
}

impl Patience {
    pub(super) fn ends_at(self) -> Time {
        self.since + self.span
    }
}

impl Waiting {
    pub(super) fn new(choices: Vec<Choice>, now: Time, config: &JourneyConfig) -> Waiting {
        let patience = Patience { since: now, span: config.worker_wait };
        Waiting { choices, due: Some(now), patience, manner: Manner::Any }
    }
}

impl Journey {
    /// Patience that ends first, among the choices that wait for a worker.
    pub(super) fn least_patience(&self) -> Option<Patience> {
        self.waiting.iter().map(|waiting| waiting.patience).min_by_key(|patience| patience.ends_at())
    }

    pub(super) fn place_waiting(&mut self, now: Time, pick: &mut dyn Pick) {
        for mut waiting in std::mem::take(&mut self.waiting) {
            if waiting.due.is_none_or(|due| due <= now) {
                waiting.due = None;
                match self.submit(now, &waiting, pick) {
                    Placed::Yes => continue,
                    Placed::No => {}
                    Placed::Never(failure) => {
                        return match waiting.manner {
                            Manner::Locally(_) => self.give_up(failure, Instead::Failure),
                            Manner::Any | Manner::Elsewhere(_) => self.fail(failure),
                        };
                    }
                }
            }
            self.waiting.push(waiting);
        }
    }

    fn submit(&mut self, now: Time, waiting: &Waiting, pick: &mut dyn Pick) -> Placed {
        let request = self.request(now, &waiting.choices);
        let ask = self.ask(now, &request);
        let route = match &waiting.manner {
            Manner::Any => pick.route(&ask).ok_or(Placed::No),
            Manner::Elsewhere(failure) => {
                let elsewhere = RouteAsk { avoided: Avoided::Never, ..ask };
                pick.route(&elsewhere).ok_or_else(|| Placed::Never(failure.clone()))
            }
            Manner::Locally(failure) => pick.local(&ask).ok_or_else(|| Placed::Never(failure.clone())),
        };
        let chosen = match route {
            Ok(chosen) => chosen,
            Err(nowhere) => return nowhere,
        };
        match &waiting.manner {
            Manner::Any => {}
            Manner::Elsewhere(failure) => self.actions.push_back(JourneyAction::Retry { failure: failure.clone() }),
            Manner::Locally(failure) => self.give_up(failure.clone(), Instead::LocalPrefill),
        }
        self.next_attempt += 1;
        let (worker, work, course) = match chosen.route {
            Route::Whole(worker) => (worker, Work::Whole, Course::Whole(Side { worker, part: Part::Bound })),
            Route::Pair { giver, reader } => (giver, Work::Give, Course::Handoff(Handoff::new(giver, reader))),
        };
        self.kind = pick.kind(worker);
        self.actions.push_back(JourneyAction::Placed { leg: request.leg, chosen });
        self.send(worker, ToWorker::Submit(request.clone(), work));
        self.legs.insert(request.leg.attempt, LegState { request, submitted: now, course });
        Placed::Yes
    }

    fn request(&self, now: Time, choices: &[Choice]) -> Request {
        let state = |choice: &Choice| ChoiceState { choice: *choice, generated: self.generated(*choice).to_vec() };
        Request {
            leg: Leg { request: self.parts.id, attempt: Attempt(self.next_attempt) },
            prompt: Arc::clone(&self.parts.prompt),
            choices: choices.iter().map(state).collect(),
            params: Arc::clone(&self.parts.params),
            slo: self.parts.slo,
            deadline_in: self.deadline.since(now),
        }
    }

    /// Kind of workers at which the request must go on, so that all its tokens are computed in one way.
    pub(super) fn begun(&self) -> Option<Kind> {
        let has_token = self.choices.iter().any(|choice| !choice.generated.is_empty());
        self.kind.filter(|_| has_token || !self.legs.is_empty())
    }

    fn ask<'a>(&'a self, now: Time, request: &Request) -> RouteAsk<'a> {
        let (prompt, max_tokens) = (request.prompt.len() as u32, request.params.max_tokens);
        let generated = (request.prefill_tokens() - request.prompt.len()) as u32;
        let has_token = self.choices.iter().any(|choice| !choice.generated.is_empty());
        let ttft = self.parts.slo.ttft.filter(|_| !has_token);
        RouteAsk {
            now,
            model: self.parts.model,
            begun: self.begun(),
            prompt: &self.parts.prompt,
            slo: self.parts.slo,
            ttft_slack: ttft.map(|ttft| (self.arrived + ttft).since(now)),
            prefill_tokens: request.prefill_tokens() as u32,
            sequence_tokens: prompt.saturating_add(max_tokens),
            choices: request.choices.len() as u32,
            output: if generated.saturating_add(1) >= max_tokens { Output::FirstToken } else { Output::Sequence },
            avoid: &self.avoid,
            avoided: Avoided::LastResort,
        }
    }

    /// Passes offers and commits on to readers; finds another reader where there is none any more.
    pub(super) fn forward_offers(&mut self, now: Time, pick: &mut dyn Pick) {
        for (attempt, mut leg) in std::mem::take(&mut self.legs) {
            self.forward_offer(now, &mut leg, pick);
            self.legs.insert(attempt, leg);
        }
    }

    fn forward_offer(&mut self, now: Time, leg: &mut LegState, pick: &mut dyn Pick) {
        let ask = self.ask(now, &leg.request);
        let Course::Handoff(handoff) = &mut leg.course else { return };
        if handoff.told == Told::Nothing
            && let Some((lease, blocks)) = &handoff.offer
        {
            if handoff.again_at.is_some_and(|time| now < time) {
                return;
            }
            handoff.again_at = None;
            let Some((reader, giver)) = find_reader(handoff, &ask, pick).zip(pick.giver(handoff.giver.worker)) else {
                return;
            };
            let request = Request { deadline_in: self.deadline.since(now), ..leg.request.clone() };
            let (lease, blocks) = (*lease, blocks.clone());
            let offer = Offer { request, giver: giver.instance, giver_address: giver.address, lease, blocks };
            (handoff.reader, handoff.told) = (Some(reader), Told::Offer);
            self.actions.push_back(JourneyAction::Send { worker: reader, message: ToWorker::Offer(offer) });
        }
        if handoff.told == Told::Offer
            && let Some((reader, commit)) = handoff.reader.zip(handoff.commit.clone())
        {
            handoff.told = Told::Commit;
            self.actions.push_back(JourneyAction::Send { worker: reader, message: ToWorker::Commit(commit) });
        }
    }

    /// Ends a lost leg: its workers stop, and its unfinished choices are tried again, or the request fails.
    pub(super) fn lose(&mut self, now: Time, leg: &LegState, failure: Failure, by: WorkerId) {
        self.dismiss(leg);
        if failure.kind == FailureKind::Internal {
            self.conducts.push((by, Conduct::Failed));
        }
        let unfinished: Vec<Choice> = leg.choices().filter(|choice| !self.is_finished(*choice)).collect();
        if unfinished.is_empty() {
            return;
        }
        let pair = leg.lost_pair(&failure, by);
        self.learned.extend(pair.map(|(giver, reader)| (giver, reader, Passage::Lost)));
        let losses = self.count_loss(&unfinished);
        let remedy = Remedy::of(failure.kind);
        let is_helpless = match remedy {
            Remedy::None => true,
            // Twice in a row: perhaps it is the request.
            Remedy::Elsewhere => losses > 1,
            Remedy::Again => false,
        };
        if is_helpless {
            return self.fail(failure);
        }
        if losses >= self.config.attempts_max {
            return match pair {
                Some(_) => self.end_handoffs(now, unfinished, losses, &failure),
                None => self.fail(not_by_the_client(failure)),
            };
        }
        if is_refusal(&failure) || remedy == Remedy::Elsewhere {
            self.avoid.insert(by);
        }
        let times = (now, now + self.pause_after(losses, &failure));
        if remedy == Remedy::Elsewhere {
            return self.wait_again(unfinished, times, &Manner::Elsewhere(failure));
        }
        self.wait_again(unfinished, times, &Manner::Any);
        self.actions.push_back(JourneyAction::Retry { failure });
    }

    /// After too many lost hand-offs in a row: fails, or waits for a local prefill and never tries a hand-off again.
    fn end_handoffs(&mut self, now: Time, choices: Vec<Choice>, losses: u32, last: &Failure) {
        let detail = format!("{losses} attempts in a row were lost, the last one on its way to decode: {last}");
        let failure = Failure::new(last.kind, detail);
        match self.config.lost_handoffs {
            LostHandoffs::Fail => self.give_up(failure, Instead::Failure),
            LostHandoffs::PrefillLocally => self.wait_again(choices, (now, now), &Manner::Locally(failure)),
        }
    }

    fn give_up(&mut self, failure: Failure, instead: Instead) {
        self.actions.push_back(JourneyAction::GaveUpHandoffs { failure: failure.clone(), instead });
        match instead {
            Instead::LocalPrefill => {}
            Instead::Failure => self.fail(failure),
        }
    }

    /// Pause before the next attempt. A worker that refuses needs time; a single loss may be chance.
    pub(super) fn pause_after(&self, losses: u32, failure: &Failure) -> Span {
        const DOUBLINGS_MAX: u32 = 8;
        let pause = self.config.retry_pause.us();
        match losses {
            _ if is_refusal(failure) => Span(pause.saturating_mul(losses.into())),
            0 | 1 => Span::ZERO,
            more => Span(pause.saturating_mul(1 << (more - 2).min(DOUBLINGS_MAX))),
        }
    }

    pub(super) fn count_loss(&mut self, choices: &[Choice]) -> u32 {
        let mut most = 0;
        for choice in choices {
            if let Some(progress) = self.progress_mut(*choice) {
                progress.losses += 1;
                most = most.max(progress.losses);
            }
        }
        most
    }

    /// Queues choices again: those without tokens as one prefill, each other one alone, as its prefix is its own.
    fn wait_again(&mut self, choices: Vec<Choice>, (now, due): (Time, Time), manner: &Manner) {
        let patience = Patience { since: now, span: self.config.lost_wait };
        let (fresh, begun): (Vec<_>, Vec<_>) = choices.into_iter().partition(|c| self.generated(*c).is_empty());
        let fresh = (!fresh.is_empty()).then_some(fresh);
        let groups = fresh.into_iter().chain(begun.into_iter().map(|choice| vec![choice]));
        for choices in groups {
            self.waiting.push(Waiting { choices, due: Some(due), patience, manner: manner.clone() });
        }
    }
}

/// Returns the reader that was chosen with the giver, if it can still take the leg; else another.
fn find_reader(handoff: &Handoff, ask: &RouteAsk<'_>, pick: &mut dyn Pick) -> Option<WorkerId> {
    let giver = handoff.giver.worker;
    handoff.reader.filter(|reader| pick.takes(giver, *reader)).or_else(|| pick.reader(giver, ask))
}

/// A worker that cancels a leg unasked has lost the request's lease: for the client, which is still there, that is a lost
/// worker.
fn not_by_the_client(failure: Failure) -> Failure {
    let kind = if failure.kind == FailureKind::Cancelled { FailureKind::WorkerLost } else { failure.kind };
    Failure { kind, ..failure }
}

fn is_refusal(failure: &Failure) -> bool {
    matches!(failure.kind, FailureKind::Overloaded | FailureKind::Unavailable)
}

enum Placed {
    Yes,
    No,
    /// No worker can prefill it locally; holds the failure of the last hand-off.
    Never(Failure),
}

/// What may help after a worker has failed a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    /// Nothing: the request itself is at fault, or its time is over.
    None,
    /// Another attempt, at any worker.
    Again,
    /// One attempt at another worker, at once: this one may be broken.
    Elsewhere,
}

impl Remedy {
    fn of(kind: FailureKind) -> Remedy {
        match kind {
            FailureKind::Internal => Remedy::Elsewhere,
            FailureKind::Overloaded | FailureKind::Unavailable | FailureKind::WorkerLost | FailureKind::KvLost => {
                Remedy::Again
            }
            // A worker that cancels a leg unasked has lost the request lease: the request itself is fine.
            FailureKind::Cancelled => Remedy::Again,
            FailureKind::InvalidRequest
            | FailureKind::TooLong
            | FailureKind::NotFound
            | FailureKind::DeadlineExceeded
            | FailureKind::Incompatible => Remedy::None,
        }
    }
}

/// True if a leg that a worker has failed in this way may be tried again.
#[must_use]
pub fn may_be_retried(kind: FailureKind) -> bool {
    Remedy::of(kind) != Remedy::None
}
