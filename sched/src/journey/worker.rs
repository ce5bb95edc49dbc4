//! Words of workers about legs, and their effect on the request.

use super::leg::{Course, Effect, Handoff, LegState, Part, Told};
use super::{Delivery, Journey, JourneyAction};
use crate::cluster::Conduct;
use crate::message::{Commit, FirstTiming, FromWorker, TokenTiming};
use crate::route::Passage;
use crate::{Attempt, BlockId, Choice, FinishReason, LeaseId};
use crate::{Failure, FailureKind, SampledToken, Scores, Time, WorkerId};

/// Effect of a worker's word on its leg.
enum Fate {
    GoesOn,
    /// Nothing more of the leg is wanted.
    Done,
    Lost(Failure),
    /// The leg was lost once too often.
    LostFinally(Failure),
}

struct Arrival {
    choice: Choice,
    index: u32,
    token: SampledToken,
    ended: Option<FinishReason>,
    timing: Option<TokenTiming>,
}

impl Journey {
    pub(super) fn on_message(&mut self, now: Time, worker: WorkerId, message: FromWorker) {
        let name = message.leg();
        if name.request != self.parts.id {
            return;
        }
        // A leg that is missing here is an older attempt, or has ended.
        let Some(mut leg) = self.legs.remove(&name.attempt) else { return };
        let fate = match message {
            FromWorker::Offered { lease, blocks, .. } => on_offered(&mut leg, worker, lease, blocks),
            FromWorker::Committed { commit, timing } => self.on_committed(&mut leg, worker, commit, timing),
            FromWorker::HandedOver { .. } => on_handed_over(&mut leg, worker),
            FromWorker::ReaderLost { .. } => on_reader_lost(&mut leg, worker),
            FromWorker::Scored { scores, .. } => self.on_scored(&leg, worker, scores),
            FromWorker::Token { choice, index, token, ended, timing, .. } => {
                self.on_token(&mut leg, worker, Arrival { choice, index, token, ended, timing })
            }
            FromWorker::Failed { failure, .. } if leg.is_refused(&failure, worker) => {
                self.on_refused(now, &mut leg, worker, failure)
            }
            FromWorker::Failed { failure, .. } => match leg.drop_worker(worker) {
                Effect::GoesOn => Fate::GoesOn,
                Effect::Lost => Fate::Lost(failure),
            },
        };
        match fate {
            Fate::GoesOn => drop(self.legs.insert(name.attempt, leg)),
            Fate::Done => self.dismiss(&leg),
            Fate::Lost(failure) => self.lose(now, &leg, failure, worker),
            Fate::LostFinally(failure) => {
                self.dismiss(&leg);
                self.fail(failure);
            }
        }
    }

    pub(super) fn on_worker_lost(&mut self, now: Time, worker: WorkerId, name: &str) {
        let drop = |leg: &mut LegState| leg.drop_worker(worker) == Effect::Lost;
        let lost: Vec<Attempt> =
            self.legs.iter_mut().filter_map(|(attempt, leg)| drop(leg).then_some(*attempt)).collect();
        for attempt in lost {
            // One loss may end the request; then the other legs were dismissed with it.
            let Some(leg) = self.legs.remove(&attempt) else { return };
            let failure = Failure::new(FailureKind::WorkerLost, format!("{name} was lost"));
            self.lose(now, &leg, failure, worker);
        }
    }

    /// Takes in a reader's refusal of the leg. The giver goes on, and another reader is asked.
    fn on_refused(&mut self, now: Time, leg: &mut LegState, worker: WorkerId, failure: Failure) -> Fate {
        let unfinished: Vec<Choice> = leg.choices().filter(|choice| !self.is_finished(*choice)).collect();
        let losses = self.count_loss(&unfinished);
        if losses >= self.config.attempts_max {
            leg.drop_worker(worker);
            return Fate::LostFinally(failure);
        }
        self.avoid.insert(worker);
        leg.seek_reader(now + self.pause_after(losses, &failure));
        self.actions.push_back(JourneyAction::Retry { failure });
        Fate::GoesOn
    }

    fn on_committed(&mut self, leg: &mut LegState, worker: WorkerId, commit: Commit, timing: FirstTiming) -> Fate {
        let Some(handoff) = given_by(leg, worker) else { return Fate::GoesOn };
        if handoff.commit.is_some() {
            return Fate::GoesOn;
        }
        let all_ended = commit.firsts.iter().all(|first| first.ended.is_some());
        let offered = handoff.offer.is_some() || handoff.told != Told::Nothing;
        if all_ended {
            handoff.giver.part = Part::Over;
            self.conducts.push((worker, Conduct::Served));
        }
        if !commit.firsts.iter().map(|first| first.choice).eq(leg.choices()) || !(all_ended || offered) {
            return Fate::Lost(defect(worker, leg, "committed other choices, or before it offered its blocks"));
        }
        let commit = self.deliver_firsts(leg, commit, timing);
        if self.is_done(leg) {
            return Fate::Done;
        }
        if let Course::Handoff(handoff) = &mut leg.course {
            handoff.commit = Some(commit);
        }
        Fate::GoesOn
    }

    /// Delivers the first tokens; returns the commit, with choices marked that the router has stopped meanwhile.
    fn deliver_firsts(&mut self, leg: &LegState, mut commit: Commit, timing: FirstTiming) -> Commit {
        let mut timing = Some(TokenTiming::First(timing));
        for first in &mut commit.firsts {
            if self.is_finished(first.choice) {
                first.ended = first.ended.or(Some(FinishReason::Stop));
                continue;
            }
            let delivery = self.delivery(leg, first.choice, first.token.clone(), timing.take());
            self.deliver(delivery, first.ended);
        }
        commit
    }

    /// Delivers scores of the prompt, from the worker that prefills it and before the leg's first token.
    fn on_scored(&mut self, leg: &LegState, worker: WorkerId, scores: Scores) -> Fate {
        let (first, prompt) = (scores.first as usize, self.parts.prompt.len());
        if leg.prefiller() != Some(worker) || self.parts.params.prompt_logprobs.is_none() {
            return Fate::GoesOn;
        }
        if first == 0 || scores.scores.len() > prompt.saturating_sub(first) {
            let count = scores.scores.len();
            let what = format!("scored {count} tokens from {first} on in a prompt of {prompt}");
            return Fate::Lost(defect(worker, leg, &what));
        }
        self.actions.push_back(JourneyAction::DeliverScores(scores));
        Fate::GoesOn
    }

    fn on_token(&mut self, leg: &mut LegState, worker: WorkerId, arrival: Arrival) -> Fate {
        let Arrival { choice, index, token, ended, timing } = arrival;
        if leg.generator() != Some(worker) || !leg.choices().any(|c| c == choice) || self.is_finished(choice) {
            return Fate::GoesOn;
        }
        let expected = self.generated(choice).len() as u32;
        if index > expected {
            return Fate::Lost(defect(worker, leg, &format!("sent token {index} of {choice} instead of {expected}")));
        }
        if index < expected {
            return Fate::GoesOn;
        }
        if let Some((giver, reader)) = leg.has_joined() {
            self.learned.push((giver, reader, Passage::Arrived));
            self.conducts.push((giver, Conduct::Served));
        }
        let delivery: Delivery = self.delivery(leg, choice, token, timing);
        self.deliver(delivery, ended);
        // A commit's first tokens reset no losses: they come from the giver, whatever becomes of the hand-off.
        if let Some(progress) = self.progress_mut(choice) {
            progress.losses = 0;
        }
        if !self.is_done(leg) {
            return Fate::GoesOn;
        }
        leg.generator_is_over();
        self.conducts.push((worker, Conduct::Served));
        Fate::Done
    }
}

fn on_offered(leg: &mut LegState, worker: WorkerId, lease: LeaseId, blocks: Vec<BlockId>) -> Fate {
    if let Some(handoff) = given_by(leg, worker)
        && handoff.told == Told::Nothing
        && handoff.offer.is_none()
    {
        handoff.offer = Some((lease, blocks));
    }
    Fate::GoesOn
}

fn on_handed_over(leg: &mut LegState, worker: WorkerId) -> Fate {
    let Some(handoff) = given_by(leg, worker) else { return Fate::GoesOn };
    handoff.giver.part = Part::Over;
    if handoff.told == Told::Commit {
        return Fate::GoesOn;
    }
    Fate::Lost(defect(worker, leg, "let go of blocks that no reader was to have yet"))
}

fn on_reader_lost(leg: &mut LegState, worker: WorkerId) -> Fate {
    let Some(handoff) = given_by(leg, worker) else { return Fate::GoesOn };
    handoff.giver.part = Part::Over;
    Fate::Lost(Failure::new(FailureKind::KvLost, format!("the reader's lease at {worker} ended before it had read")))
}

/// The hand-off of a leg, if this worker is its giver and has not let go.
fn given_by(leg: &mut LegState, worker: WorkerId) -> Option<&mut Handoff> {
    match &mut leg.course {
        Course::Handoff(handoff) if handoff.giver.is(worker) => Some(handoff),
        Course::Handoff(_) | Course::Whole(_) => None,
    }
}

fn defect(worker: WorkerId, leg: &LegState, what: &str) -> Failure {
    Failure::new(FailureKind::Internal, format!("{worker} {what} in {}", leg.request.leg))
}
