//! Finding workers for legs, and what happens to legs that lost theirs.

use std::sync::Arc;

use super::leg::{Commitment, Course, Handoff, LegState, Part, Side, Told};
use super::{Journey, JourneyAction};
use crate::message::{Offer, ToWorker, Work};
use crate::route::{Output, Pick, Route, RouteAsk};
use crate::{Attempt, Choice, ChoiceState, Failure, FailureKind, Leg, Request, Span, Time, WorkerId};

/// Choices that need a worker together.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) choices: Vec<Choice>,
    /// When to look for a worker first; `None` once that was done and found nobody.
    pub(super) due: Option<Time>,
}

impl Waiting {
    pub(super) fn new(choices: Vec<Choice>, due: Time) -> Waiting {
        Waiting { choices, due: Some(due) }
    }
}

impl Journey {
    /// When a request that never had a worker stops waiting for one.
    pub(super) fn gives_up_at(&self) -> Option<Time> {
        let never_placed = self.next_attempt == 1 && !self.waiting.is_empty();
        never_placed.then(|| self.started + self.config.worker_wait)
    }

    pub(super) fn place_waiting(&mut self, now: Time, pick: &mut dyn Pick) {
        for mut waiting in std::mem::take(&mut self.waiting) {
            if waiting.due.is_none_or(|due| due <= now) {
                waiting.due = None;
                if self.submit(now, &waiting, pick) == Placed::Yes {
                    continue;
                }
            }
            self.waiting.push(waiting);
        }
    }

    fn submit(&mut self, now: Time, waiting: &Waiting, pick: &mut dyn Pick) -> Placed {
        let request = self.request(now, &waiting.choices);
        let Some(route) = pick.route(&self.ask(&request)) else {
            return Placed::No;
        };
        self.next_attempt += 1;
        let (worker, work, course) = match route {
            Route::Whole(worker) => (worker, Work::Whole, Course::Whole(Side { worker, part: Part::Bound })),
            Route::Pair { giver, reader } => (giver, Work::Give, Course::Handoff(Handoff::new(giver, reader))),
        };
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

    fn ask<'a>(&'a self, request: &Request) -> RouteAsk<'a> {
        let (prompt, max_tokens) = (request.prompt.len() as u32, request.params.max_tokens);
        let generated = (request.prefill_tokens() - request.prompt.len()) as u32;
        RouteAsk {
            prefill_tokens: request.prefill_tokens() as u32,
            sequence_tokens: prompt.saturating_add(max_tokens),
            choices: request.choices.len() as u32,
            output: if generated.saturating_add(1) >= max_tokens { Output::FirstToken } else { Output::Sequence },
            avoid: &self.avoid,
        }
    }

    /// Passes on what readers can be told by now; finds a reader where there is none any more.
    pub(super) fn forward_offers(&mut self, now: Time, pick: &mut dyn Pick) {
        for (attempt, mut leg) in std::mem::take(&mut self.legs) {
            self.forward_offer(now, &mut leg, pick);
            self.legs.insert(attempt, leg);
        }
    }

    fn forward_offer(&mut self, now: Time, leg: &mut LegState, pick: &mut dyn Pick) {
        let ask = self.ask(&leg.request);
        let Course::Handoff(handoff) = &mut leg.course else { return };
        if handoff.told == Told::Nothing && handoff.offer.is_some() {
            handoff.reader = handoff.reader.or_else(|| pick.reader(handoff.giver.worker, &ask));
            let Some((reader, giver)) = handoff.reader.zip(pick.giver(handoff.giver.worker)) else { return };
            let Some((lease, blocks)) = handoff.offer.take() else { return };
            let request = Request { deadline_in: self.deadline.since(now), ..leg.request.clone() };
            let offer = Offer { request, giver: giver.instance, giver_address: giver.address, lease, blocks };
            handoff.told = Told::Offer;
            self.actions.push_back(JourneyAction::Send { worker: reader, message: ToWorker::Offer(offer) });
        }
        let Some(reader) = handoff.reader.filter(|_| handoff.told == Told::Offer) else { return };
        match std::mem::replace(&mut handoff.commitment, Commitment::Passed) {
            Commitment::Held(commit) => {
                handoff.told = Told::Commit;
                self.actions.push_back(JourneyAction::Send { worker: reader, message: ToWorker::Commit(commit) });
            }
            other @ (Commitment::Awaited | Commitment::Passed) => handoff.commitment = other,
        }
    }

    /// A leg cannot go on: whoever still works on it stops, and what it had not finished is tried again, or the
    /// request fails.
    pub(super) fn lose(&mut self, now: Time, leg: &LegState, failure: Failure, by: WorkerId) {
        self.dismiss(leg);
        let unfinished: Vec<Choice> = leg.choices().filter(|choice| !self.is_finished(*choice)).collect();
        if unfinished.is_empty() {
            return;
        }
        let losses = self.count_loss(&unfinished);
        if !may_be_retried(failure.kind) || losses >= self.config.attempts_max {
            return self.fail(failure);
        }
        let mut due = now;
        if matches!(failure.kind, FailureKind::Overloaded | FailureKind::Unavailable) {
            self.avoid.insert(by);
            due = now + Span(self.config.retry_pause.us().saturating_mul(losses.into()));
        }
        self.wait_again(unfinished, due);
        self.actions.push_back(JourneyAction::Retry { failure });
    }

    fn count_loss(&mut self, choices: &[Choice]) -> u32 {
        let mut most = 0;
        for choice in choices {
            if let Some(progress) = self.progress_mut(*choice) {
                progress.losses += 1;
                most = most.max(progress.losses);
            }
        }
        most
    }

    /// Choices without tokens are still one prefill; each other one has a prefix of its own.
    fn wait_again(&mut self, choices: Vec<Choice>, due: Time) {
        let (fresh, begun): (Vec<_>, Vec<_>) = choices.into_iter().partition(|c| self.generated(*c).is_empty());
        if !fresh.is_empty() {
            self.waiting.push(Waiting::new(fresh, due));
        }
        self.waiting.extend(begun.into_iter().map(|choice| Waiting::new(vec![choice], due)));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placed {
    Yes,
    No,
}

/// A worker that cancels what nobody asked it to cancel has lost the request lease: the request itself is fine.
fn may_be_retried(kind: FailureKind) -> bool {
    kind.may_be_retried() || kind == FailureKind::Cancelled
}
