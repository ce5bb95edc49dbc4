//! Checks what arrives from a router once and queues it; knows nothing of when it will run.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::finish::stored_positions_max;
use super::leg::{LegRun, Stage, Taking};
use super::sequence::{Member, Place, Sequence, SequenceKey};
use super::timers::Timer;
use super::timing::Timing;
use super::{Replica, Transfer};
use crate::block::{BlockTable, HashChain, blocks_for};
use crate::message::{Envelope, FromWorker, Offer, Work};
use crate::{Failure, FailureKind, Leg, Request, TokenId};

/// Most prompt tokens, in total, of offers whose giver is not met.
const UNMET_TOKENS_MAX: usize = 16 << 20;

impl Replica {
    pub(super) fn submit(&mut self, request: &Request, work: Work) {
        let last_position = match work {
            Work::Whole => LastPosition::OfOutput,
            Work::Give => LastPosition::OfPrompt,
        };
        if !self.accepts(request, last_position) {
            return;
        }
        let stage = match work {
            Work::Whole => Stage::Whole,
            Work::Give => Stage::Give(None),
        };
        self.enqueue(request, stage, Timing::prefill(self.now), Place::Waiting);
    }

    pub(super) fn offer(&mut self, offer: Offer) {
        let Offer { request, giver, giver_address, lease, blocks } = offer;
        if !self.accepts(&request, LastPosition::OfOutput) {
            return;
        }
        let is_up = self.givers_up.contains(&giver);
        if let (false, Err(failure)) = (is_up, self.check_unmet(&request)) {
            return self.refuse(request.leg, failure);
        }
        if self.taken.contains_key(&(lease, giver)) {
            let detail = format!("{lease} of {giver} is already being taken over");
            return self.refuse(request.leg, Failure::new(FailureKind::InvalidRequest, detail));
        }
        self.taken.insert((lease, giver), request.leg);
        let leg = request.leg;
        let taking = Taking::new(giver, Arc::clone(&giver_address), lease, blocks);
        self.enqueue(&request, Stage::Take(taking), Timing::join(), Place::Unmet);
        match is_up {
            true => self.queue_take(leg),
            false => self.transfer(Transfer::Meet { giver, address: giver_address }),
        }
    }

    pub(super) fn renew(&mut self, legs: &[Leg]) {
        for leg in legs {
            if self.legs.contains_key(leg) {
                self.timers.set(Timer::RequestLease(*leg), self.now + self.config.lease.span);
            }
        }
    }

    /// Returns whether a leg may be queued. Drops a repeat of a living leg; tells the router about every other refusal.
    fn accepts(&mut self, request: &Request, last: LastPosition) -> bool {
        if self.legs.contains_key(&request.leg) {
            return false;
        }
        let verdict = self.check_names(request).and_then(|()| check_params(request));
        let verdict = verdict.and_then(|()| self.check_tokens(request));
        let verdict = verdict.and_then(|()| self.check_size(request, last));
        match verdict.and_then(|()| self.check_queue()) {
            Ok(()) => true,
            Err(failure) => {
                self.refuse(request.leg, failure);
                false
            }
        }
    }

    fn refuse(&mut self, leg: Leg, failure: Failure) {
        self.tell(FromWorker::Failed { leg, failure });
        self.say(Envelope::Over(leg));
    }

    fn check_names(&self, request: &Request) -> Result<(), Failure> {
        let invalid = |detail: &str| Err(Failure::new(FailureKind::InvalidRequest, detail));
        let distinct: BTreeSet<_> = request.choices.iter().map(|state| state.choice).collect();
        if self.pulls.reads_for(request.leg) {
            return invalid("an earlier leg of the same name is still ending here");
        }
        if request.prompt.is_empty() {
            return invalid("the prompt has no tokens");
        }
        if request.choices.is_empty() || distinct.len() != request.choices.len() {
            return invalid("the choices of a leg must be at least one and distinct");
        }
        if request.choices.len() > 1 && request.choices.iter().any(|state| !state.generated.is_empty()) {
            return invalid("a leg of several choices cannot resume any of them");
        }
        if request.choices.iter().any(|state| state.generated.len() >= request.params.max_tokens as usize) {
            return invalid("nothing is left to generate");
        }
        Ok(())
    }

    /// Checks all tokens, because each is an index: of an embedding's row or of a logit.
    fn check_tokens(&self, request: &Request) -> Result<(), Failure> {
        let params = &request.params;
        self.check_vocabulary("the prompt", request.prompt.iter().copied())?;
        for state in &request.choices {
            self.check_vocabulary("what was generated", state.generated.iter().copied())?;
        }
        self.check_vocabulary("stop_token_ids", params.stop_tokens.iter().copied())?;
        self.check_vocabulary("allowed_token_ids", params.allowed_tokens.iter().copied())?;
        self.check_vocabulary("bad_words", params.bad_words.iter().flatten().copied())?;
        self.check_vocabulary("logit_bias", params.logit_bias.iter().map(|(token, _)| *token))
    }

    /// Checks that the model has all these tokens; the failure names the first that it lacks.
    pub(super) fn check_vocabulary(
        &self,
        place: &str,
        mut tokens: impl Iterator<Item = TokenId>,
    ) -> Result<(), Failure> {
        let vocab = self.config.vocab;
        tokens.find(|token| token.0 >= vocab).map_or(Ok(()), |TokenId(token)| {
            let detail = format!("{place} names token {token}, the vocabulary has {vocab} entries");
            Err(Failure::new(FailureKind::InvalidRequest, detail))
        })
    }

    fn check_size(&self, request: &Request, last: LastPosition) -> Result<(), Failure> {
        let too_long = |detail: String| Err(Failure::new(FailureKind::TooLong, detail));
        let (tokens, context) = (request.prefill_tokens(), self.config.context_max);
        if tokens > context as usize || tokens == context as usize && last == LastPosition::OfOutput {
            return too_long(format!("{tokens} tokens leave nothing to generate in a context of {context}"));
        }
        let seats = self.config.sequences_max;
        if request.choices.len() > seats as usize {
            let detail = format!("{} choices are asked for, {seats} can run at once", request.choices.len());
            return Err(Failure::new(FailureKind::InvalidRequest, detail));
        }
        let positions = match last {
            LastPosition::OfPrompt => tokens as u32,
            LastPosition::OfOutput => stored_positions_max(&request.params, request.prompt.len() as u32, context),
        };
        let (needed, total) = (blocks_for(positions, self.config.block_tokens), self.pool.total());
        match needed <= total {
            true => Ok(()),
            false => too_long(format!("{positions} tokens need {needed} KV blocks, the worker has {total}")),
        }
    }

    fn check_queue(&self) -> Result<(), Failure> {
        let waiting = self.places.count(Place::Waiting) + self.places.count(Place::Unmet);
        match waiting < self.config.queue_legs_max {
            true => Ok(()),
            false => Err(Failure::new(FailureKind::Overloaded, format!("all {waiting} places in the queue are taken"))),
        }
    }

    /// Checks that offers whose giver is not met leave half of the queue, and memory, to others.
    fn check_unmet(&self, request: &Request) -> Result<(), Failure> {
        let waiting = self.places.count(Place::Unmet);
        let tokens_of = |key: &SequenceKey| self.sequences.at(*key).prompt.len();
        let tokens: usize = self.places.at(Place::Unmet).iter().map(tokens_of).sum();
        match waiting < self.config.queue_legs_max.div_ceil(2) && tokens + request.prompt.len() <= UNMET_TOKENS_MAX {
            true => Ok(()),
            false => {
                let detail = format!("{waiting} offers wait for givers that are not met yet, that is enough");
                Err(Failure::new(FailureKind::Overloaded, detail))
            }
        }
    }

    fn enqueue(&mut self, request: &Request, stage: Stage, timing: Timing, place: Place) {
        self.arrivals += 1;
        let key = SequenceKey { arrival: self.arrivals, branch: 0 };
        let deadline = self.now + request.deadline_in;
        self.sequences.insert(key, self.newcomer(request, place));
        self.enter_place(key);
        let (sequences, arrived, slo) = (BTreeSet::from([key]), self.now, request.slo);
        let run = LegRun { sequences, branches: 1, arrived, deadline, slo, stage, timing };
        self.legs.insert(request.leg, run);
        self.timers.set(Timer::Deadline(request.leg), deadline);
        self.timers.set(Timer::RequestLease(request.leg), self.now + self.config.lease.span);
    }

    fn newcomer(&self, request: &Request, place: Place) -> Sequence {
        Sequence {
            leg: request.leg,
            place,
            prompt: Arc::clone(&request.prompt),
            params: Arc::clone(&request.params),
            generated: request.choices.first().map(|state| state.generated.clone()).unwrap_or_default(),
            members: request.choices.iter().map(|state| Member { choice: state.choice, slot: None }).collect(),
            computed: 0,
            submitted: 0,
            awaited: 0,
            table: BlockTable::default(),
            spares: Vec::new(),
            chain: HashChain::new(self.config.hash_salt, self.config.block_tokens),
            published: 0,
        }
    }
}

fn check_params(request: &Request) -> Result<(), Failure> {
    request.params.check().map_err(|problem| Failure::new(FailureKind::InvalidRequest, problem))
}

/// Last position up to which a leg's KV cache can grow here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LastPosition {
    OfPrompt,
    OfOutput,
}
