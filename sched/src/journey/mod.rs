//! The life of one request as its router sees it: legs, retries and in-order delivery; knows no text and no network.
//!
//! A request is served by one leg, or after a loss by one leg per unfinished choice. A leg runs whole at one worker or
//! is prefilled by a giver and taken over by a reader. Whatever workers say, how often and in which order:
//! every choice's tokens come out in order without gap or repeat, and the request ends exactly once.

mod api;
mod leg;
mod place;
mod worker;

pub use api::{Delivery, Ending, Instead, JourneyAction, JourneyConfig, JourneyEvent, LostHandoffs, Parts};
pub use place::may_be_retried;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::cluster::{Conduct, Kind};
use crate::message::{ToWorker, TokenTiming};
use crate::route::{Passage, Pick};
use crate::{Attempt, Choice, Failure, FailureKind, FinishReason, Leg, SampledToken, Time, TokenId, WorkerId};
use leg::LegState;
use place::{Patience, Waiting};

/// One request. Call `on(Tick)` right after `new`, then on every fact; `poll` until it is empty after each.
#[derive(Debug)]
pub struct Journey {
    parts: Parts,
    config: JourneyConfig,
    arrived: Time,
    deadline: Time,
    choices: Vec<Progress>,
    /// Legs that are bound to workers. Messages of any other attempt are stale.
    legs: BTreeMap<Attempt, LegState>,
    /// Choices that need a worker.
    waiting: Vec<Waiting>,
    next_attempt: u32,
    /// Kind of the workers at which it was last placed.
    kind: Option<Kind>,
    /// Workers that refused this request; used again only if there is no other.
    avoid: BTreeSet<WorkerId>,
    /// Outcomes of hand-offs that routing was not told yet.
    learned: Vec<(WorkerId, WorkerId, Passage)>,
    /// What workers have done with its legs, which routing was not told yet.
    conducts: Vec<(WorkerId, Conduct)>,
    actions: VecDeque<JourneyAction>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    Over,
}

/// Progress of one choice at the client.
#[derive(Debug, Clone, Default)]
struct Progress {
    generated: Vec<TokenId>,
    finished: Option<FinishReason>,
    /// Legs lost since the last token of a worker that generates.
    losses: u32,
}

impl Journey {
    /// Creates a request that starts now. It does nothing before the first `on`.
    #[must_use]
    pub fn new(now: Time, parts: Parts, config: JourneyConfig) -> Journey {
        let all: Vec<Choice> = (0..parts.choices).map(Choice).collect();
        let mut journey = Journey {
            config,
            arrived: now,
            deadline: now + config.deadline,
            choices: vec![Progress::default(); all.len()],
            legs: BTreeMap::new(),
            waiting: vec![Waiting::new(all, now, &config)],
            next_attempt: 1,
            kind: None,
            avoid: BTreeSet::new(),
            learned: Vec::new(),
            conducts: Vec::new(),
            actions: VecDeque::new(),
            stage: Stage::Running,
            parts,
        };
        if journey.parts.prompt.is_empty() || journey.parts.choices == 0 || journey.parts.params.max_tokens == 0 {
            journey.fail(Failure::new(FailureKind::InvalidRequest, "prompt, n and max_tokens must not be empty or 0"));
        }
        journey
    }

    /// Counts latency and deadline from an earlier time, when a request came that had to wait for its turn.
    #[must_use]
    pub fn arrived(mut self, at: Time) -> Journey {
        self.arrived = at;
        self.deadline = at + self.config.deadline;
        self
    }

    /// Takes in one fact. After the end, nothing changes any more.
    pub fn on(&mut self, now: Time, event: JourneyEvent, pick: &mut dyn Pick) {
        if self.is_over() {
            return;
        }
        match event {
            JourneyEvent::FromWorker { worker, message } => self.on_message(now, worker, message),
            JourneyEvent::WorkerLost { worker, name } => self.on_worker_lost(now, worker, &name),
            JourneyEvent::StopChoice { choice } => self.stop_choice(choice),
            JourneyEvent::GivenUp(failure) => self.fail(failure),
            JourneyEvent::ClientGone => self.fail(Failure::new(FailureKind::Cancelled, "the client went away")),
            JourneyEvent::WorkersChanged | JourneyEvent::Tick => {}
        }
        for (giver, reader, passage) in std::mem::take(&mut self.learned) {
            pick.learn(now, giver, reader, passage);
        }
        for (worker, conduct) in std::mem::take(&mut self.conducts) {
            pick.learn_conduct(now, worker, conduct);
        }
        self.settle(now, pick);
    }

    /// Gives out one decision.
    pub fn poll(&mut self) -> Option<JourneyAction> {
        self.actions.pop_front()
    }

    /// Time by which `on(Tick)` is due; `None` after the end.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        if self.is_over() {
            return None;
        }
        let placing = self.waiting.iter().filter_map(|waiting| waiting.due);
        let asking = self.legs.values().filter_map(LegState::again_at);
        placing.chain(asking).chain(self.least_patience().map(Patience::ends_at)).chain([self.deadline]).min()
    }

    /// True once the terminal action has been given out or waits in `poll`.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Legs with the workers that still work on them: the router renews their request leases.
    pub fn bound(&self) -> impl Iterator<Item = (WorkerId, Leg)> {
        self.legs.values().flat_map(|leg| leg.bound().map(|worker| (worker, leg.request.leg)))
    }

    /// Does what has become possible or due.
    fn settle(&mut self, now: Time, pick: &mut dyn Pick) {
        if self.is_over() {
            return;
        }
        if self.choices.iter().all(|choice| choice.finished.is_some()) {
            return self.end(Ending::Done);
        }
        if now >= self.deadline {
            let detail = format!("the request did not end within {} s", self.config.deadline.secs_f64());
            return self.fail(Failure::new(FailureKind::DeadlineExceeded, detail));
        }
        self.place_waiting(now, pick);
        self.forward_offers(now, pick);
        if let Some(patience) = self.least_patience().filter(|patience| patience.ends_at() <= now) {
            let (waited, lack) = (patience.span.secs_f64(), pick.lack(self.parts.model, self.begun()));
            let detail = format!("no worker could take the request within {waited} s: it waited for {lack}");
            self.fail(Failure::new(lack.failure_kind(), detail));
        }
    }

    fn stop_choice(&mut self, choice: Choice) {
        if self.is_finished(choice) {
            return;
        }
        self.finish(choice, FinishReason::Stop);
        self.waiting.retain_mut(|waiting| {
            waiting.choices.retain(|waits| *waits != choice);
            !waiting.choices.is_empty()
        });
        let Some(attempt) = self.legs.values().find(|leg| leg.choices().any(|c| c == choice)).map(LegState::attempt)
        else {
            return;
        };
        if let Some(mut leg) = self.legs.remove(&attempt) {
            if self.is_done(&leg) {
                self.conducts.extend(leg.generator().map(|worker| (worker, Conduct::Served)));
                return self.dismiss(&leg);
            }
            leg.mark_stopped(choice);
            if let Some(worker) = leg.generator() {
                self.send(worker, ToWorker::Cancel { leg: leg.request.leg, choice: Some(choice) });
            }
            self.legs.insert(attempt, leg);
        }
    }

    fn deliver(&mut self, delivery: Delivery, ended: Option<FinishReason>) {
        let choice = delivery.choice;
        if let Some(progress) = self.progress_mut(choice) {
            progress.generated.push(delivery.token.token);
            self.actions.push_back(JourneyAction::Deliver(delivery));
            if let Some(reason) = ended {
                self.finish(choice, reason);
            }
        }
    }

    fn finish(&mut self, choice: Choice, reason: FinishReason) {
        if let Some(progress) = self.progress_mut(choice) {
            progress.finished = Some(reason);
            self.actions.push_back(JourneyAction::FinishChoice { choice, reason });
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.end(Ending::Failed(failure));
    }

    /// Ends the request: the only way to the terminal action. Workers that still work on it are told to stop.
    fn end(&mut self, ending: Ending) {
        if self.is_over() {
            return;
        }
        for leg in std::mem::take(&mut self.legs).into_values() {
            self.dismiss(&leg);
        }
        self.waiting.clear();
        self.stage = Stage::Over;
        self.actions.push_back(JourneyAction::End(ending));
    }

    /// Tells every worker that still works on a leg to stop. The leg is not looked at again.
    fn dismiss(&mut self, leg: &LegState) {
        for worker in leg.bound() {
            self.send(worker, ToWorker::Cancel { leg: leg.request.leg, choice: None });
        }
    }

    fn send(&mut self, worker: WorkerId, message: ToWorker) {
        self.actions.push_back(JourneyAction::Send { worker, message });
    }

    fn progress_mut(&mut self, choice: Choice) -> Option<&mut Progress> {
        self.choices.get_mut(choice.0 as usize)
    }

    fn generated(&self, choice: Choice) -> &[TokenId] {
        self.choices.get(choice.0 as usize).map_or(&[], |progress| &progress.generated)
    }

    /// True also if the choice does not exist.
    fn is_finished(&self, choice: Choice) -> bool {
        self.choices.get(choice.0 as usize).is_none_or(|progress| progress.finished.is_some())
    }

    fn is_done(&self, leg: &LegState) -> bool {
        leg.choices().all(|choice| self.is_finished(choice))
    }

    fn delivery(&self, leg: &LegState, choice: Choice, token: SampledToken, timing: Option<TokenTiming>) -> Delivery {
        let index = self.generated(choice).len() as u32;
        Delivery { choice, index, token, timing, submitted: leg.submitted }
    }
}

#[cfg(test)]
mod tests;
