//! Takes in the result of a step: KV caches grow, tokens go out, choices end.
//!
//! The step after it may be in flight already. A sequence that ends here has a row there: its blocks stay quarantined
//! until that step has ended, and the row's token is dropped.

use std::collections::BTreeSet;

use super::finish::finish;
use super::lane::{Flight, Holds, Part};
use super::leg::Stage;
use super::sequence::{Place, SequenceKey};
use super::{PrefixCache, Replica};
use crate::message::FromWorker;
use crate::{
    Choice, Failure, FailureKind, LaneId, Leg, SampleOutcome, SampledToken, ScoreOutcome, Scores, StepId, StepResult,
    Time,
};

struct Landed {
    flight: Flight,
    order: Order,
}

/// Order in which a step ended, among the steps of its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    AsSubmitted,
    /// A step that was submitted before it is still in flight.
    TooEarly,
}

impl Replica {
    pub(super) fn step_done(&mut self, lane: LaneId, step: StepId, result: StepResult) {
        let Some(Landed { flight, order }) = self.land(lane, step) else {
            return;
        };
        if let Some(defect) = self.defect(&flight, order, &result) {
            return self.fail_parts(&flight, &Failure::new(FailureKind::Internal, defect));
        }
        self.learn(&flight);
        if flight.layers.end < self.config.layers {
            return self.layers_done(&flight.parts, flight.layers.end);
        }
        let (mut samples, mut scores) = (result.samples.into_iter(), result.scores.into_iter());
        for part in flight.parts {
            let outcomes: Vec<_> = part.sampled.iter().copied().zip(samples.by_ref()).collect();
            let scored: Vec<_> = scores.by_ref().take(part.scored.len()).collect();
            let tokens = self.tokens_of(part.key, outcomes).and_then(|tokens| {
                self.tell_scores(&part, scored)?;
                Ok(tokens)
            });
            match tokens {
                Ok(tokens) => self.part_done(&part, tokens, flight.started),
                Err(failure) => self.part_failed(part.key, failure),
            }
        }
    }

    /// Takes the time of a step into the model that the worker learns, if its scheduling needs one.
    fn learn(&mut self, flight: &Flight) {
        if let Some(own_steps) = &mut self.own_steps {
            own_steps.ended(&flight.work, self.now.since(flight.runs_since));
        }
    }

    /// Takes in a step's progress. Only the oldest step counts: the others build on KV that is not stored yet.
    pub(super) fn step_progressed(&mut self, lane: LaneId, step: StepId, layers_done: u32) {
        let front = self.lanes.get(usize::from(lane.0)).and_then(|lane| lane.flights.front());
        let Some(flight) = front.filter(|flight| flight.step == step) else {
            return;
        };
        let layers = flight.layers.end.min(flight.layers.start.saturating_add(layers_done));
        if layers < self.config.layers {
            let parts = flight.parts.clone();
            self.layers_done(&parts, layers);
        }
    }

    /// Tells followers that the first `layers` have run for these rows, but not the last one.
    fn layers_done(&mut self, parts: &[Part], layers: u32) {
        for part in parts {
            let Some(leg) = self.sequences.find(part.key).map(|sequence| sequence.leg) else { continue };
            let Some(Stage::Give(Some(giving))) = self.legs.get_mut(&leg).map(|run| &mut run.stage) else { continue };
            let lease = giving.lease;
            if giving.machine.filling(part.computed, layers) {
                self.tell_follower(lease);
            }
        }
    }

    /// Returns the tokens of a part, or the failure of a choice that is still wanted.
    fn tokens_of(
        &mut self,
        key: SequenceKey,
        outcomes: Vec<(Choice, SampleOutcome)>,
    ) -> Result<Vec<(Choice, SampledToken)>, Failure> {
        let Some(sequence) = self.sequences.find(key) else {
            return Ok(Vec::new());
        };
        let wanted = |choice| sequence.members.iter().any(|member| member.choice == choice);
        let outcomes = outcomes.into_iter().filter(|(choice, _)| wanted(*choice));
        outcomes.map(|(choice, outcome)| outcome.map(|token| (choice, token))).collect()
    }

    /// Tells the router what a part scored, unless its leg has ended; or returns the failure of a row.
    fn tell_scores(&mut self, part: &Part, scored: Vec<ScoreOutcome>) -> Result<(), Failure> {
        let Some(leg) = self.sequences.find(part.key).map(|sequence| sequence.leg) else { return Ok(()) };
        let scores = scored.into_iter().collect::<Result<Vec<_>, Failure>>()?;
        if !scores.is_empty() {
            self.tell(FromWorker::Scored { leg, scores: Scores { first: part.scored.start, scores } });
        }
        Ok(())
    }

    /// Ends the leg of a row that could not be sampled, and no other. Unless the parameters are at fault, the KV that
    /// the row was computed from is in doubt and can no longer be found by content.
    fn part_failed(&mut self, key: SequenceKey, failure: Failure) {
        let Some(sequence) = self.sequences.find(key) else {
            return;
        };
        let leg = sequence.leg;
        if failure.kind != FailureKind::InvalidRequest {
            self.forget_blocks(leg);
        }
        self.fail(leg, failure);
    }

    fn forget_blocks(&mut self, leg: Leg) {
        for key in self.legs.get(&leg).into_iter().flat_map(|run| &run.sequences) {
            self.sequences.at(*key).table.blocks().iter().for_each(|block| self.pool.forget(*block));
        }
    }

    pub(super) fn step_failed(&mut self, lane: LaneId, step: StepId, failure: &Failure) {
        if let Some(Landed { flight, .. }) = self.land(lane, step) {
            self.fail_parts(&flight, failure);
        }
    }

    /// Takes a step out of flight, which touches no block any more; `None` if it was not in flight.
    fn land(&mut self, id: LaneId, step: StepId) -> Option<Landed> {
        let lane = self.lanes.get_mut(usize::from(id.0))?;
        let at = lane.flights.iter().position(|flight| flight.step == step)?;
        let flight = lane.flights.remove(at)?;
        lane.former_started = flight.started;
        self.let_go(&flight.holds);
        for part in &flight.parts {
            if let Some(sequence) = self.sequences.find(part.key) {
                sequence.awaited -= u32::from(!part.sampled.is_empty());
            }
        }
        if at > 0 {
            return Some(Landed { flight, order: Order::TooEarly });
        }
        self.front_starts(id);
        Some(Landed { flight, order: Order::AsSubmitted })
    }

    pub(super) fn let_go(&mut self, holds: &Holds) {
        holds.named.iter().for_each(|slot| self.slots.let_go(*slot));
        holds.touched.iter().for_each(|block| self.pool.end_access(*block));
        holds.read.iter().for_each(|block| self.pool.end_read(*block));
    }

    /// How this result breaks the backend's contract, if it does.
    fn defect(&self, flight: &Flight, order: Order, result: &StepResult) -> Option<String> {
        let step = flight.step;
        let wanted: usize = flight.parts.iter().map(|part| part.sampled.len()).sum();
        let to_score: usize = flight.parts.iter().map(|part| part.scored.len()).sum();
        let (samples, scores, layers) = (result.samples.len(), result.scores.len(), result.layers_done);
        match order {
            Order::TooEarly => Some(format!("the backend ended {step} before the step that it follows")),
            Order::AsSubmitted if layers < flight.layers.len() as u32 || samples != wanted => {
                Some(format!("the backend ended {step} after {layers} layers with {samples} of {wanted} samples"))
            }
            Order::AsSubmitted if scores != to_score => {
                Some(format!("the backend ended {step} with {scores} of {to_score} scores"))
            }
            Order::AsSubmitted => None,
        }
    }

    fn fail_parts(&mut self, flight: &Flight, failure: &Failure) {
        let legs: BTreeSet<Leg> =
            flight.parts.iter().filter_map(|part| self.sequences.find(part.key).map(|sequence| sequence.leg)).collect();
        for leg in legs {
            self.fail(leg, failure.clone());
        }
    }

    fn part_done(&mut self, part: &Part, tokens: Vec<(Choice, SampledToken)>, step_started: Time) {
        let Some(sequence) = self.sequences.find(part.key) else {
            return;
        };
        let decoded = sequence.computed >= sequence.prompt.len() as u32;
        sequence.computed = part.computed;
        let leg = sequence.leg;
        if self.config.prefix_cache == PrefixCache::On {
            sequence.publish(self.config.block_tokens, &mut self.pool);
        }
        if decoded {
            self.decoded(part.key, step_started);
        }
        let Some(run) = self.legs.get_mut(&leg) else { unreachable!("{leg} has ended, but its sequence lives") };
        match &mut run.stage {
            Stage::Give(Some(giving)) => {
                giving.machine.filled(part.computed);
                let lease = giving.lease;
                self.tell_follower(lease);
                if !tokens.is_empty() {
                    self.commit_firsts(part.key, tokens, step_started);
                }
            }
            Stage::Give(None) | Stage::Whole | Stage::Take(_) => {
                if !tokens.is_empty() {
                    self.deliver(part.key, tokens, step_started);
                }
            }
        }
    }

    /// Sends the tokens of a sequence to the router and goes on with the choices that have not ended.
    fn deliver(&mut self, key: SequenceKey, tokens: Vec<(Choice, SampledToken)>, step_started: Time) {
        let leg = self.sequences.at(key).leg;
        let index = self.sequences.at(key).generated.len() as u32;
        let mut going_on = Vec::with_capacity(tokens.len());
        for (choice, token) in tokens {
            let Some(member) = self.sequences.at_mut(key).take_member(choice) else {
                continue; // cancelled while the step ran
            };
            let id = token.token;
            let sequence = self.sequences.at(key);
            let prompt = sequence.prompt.len() as u32;
            let ended = finish(&sequence.params, prompt, index + 1, id, self.config.context_max);
            let timing = self.legs.get_mut(&leg).and_then(|run| run.timing.report(step_started, self.now));
            self.tell(FromWorker::Token { leg, choice, index, token, ended, timing });
            match ended {
                Some(_) => {
                    self.answer_ended(index + 1);
                    self.free_slot(key, member);
                }
                None => going_on.push((member, id)),
            }
        }
        self.branch(key, going_on, Place::Running);
    }
}
