//! The giver's side of the hand-off: offers a reserved prompt, commits first tokens, keeps the blocks for a reader.

use std::collections::BTreeMap;

use super::finish::finish;
use super::leg::{Giving, Stage};
use super::sequence::{Place, SequenceKey};
use super::timers::Timer;
use super::{Replica, Transfer};
use crate::handoff::{Give, LeaseIds, Released, Renewed};
use crate::message::{Commit, Envelope, FirstTiming, FirstToken, FromWorker, ReleaseAnswer, ToReader, TokenTiming};
use crate::{Choice, InstanceId, LeaseId, Leg, SampledToken, Time};

/// What bounds an answer is the context of the worker that decodes it, which may be longer than the giver's: the router
/// has seen to it that the whole answer fits there.
const CONTEXT_OF_READER: u32 = u32::MAX;

impl Replica {
    /// Offers a prompt whose blocks were just reserved, if a reader will take it.
    pub(super) fn open_give(&mut self, key: SequenceKey) {
        let sequence = self.sequences.at(key);
        let (leg, blocks) = (sequence.leg, sequence.table.blocks().to_vec());
        let Some(Stage::Give(giving)) = self.legs.get_mut(&leg).map(|run| &mut run.stage) else {
            return;
        };
        let lease = fresh(&mut self.lease_ids, &self.given);
        let machine = Give::new(self.now, self.config.lease.span);
        *giving = Some(Giving { lease, machine });
        self.given.insert(lease, leg);
        self.timers.set(Timer::ReaderLease(lease), machine.lease_ends());
        self.transfer(Transfer::Grant { lease, blocks: blocks.clone() });
        self.tell(FromWorker::Offered { leg, lease, blocks });
    }

    /// Commits a complete prompt: tells the first tokens and keeps the blocks, unless every choice has ended.
    pub(super) fn commit_firsts(&mut self, key: SequenceKey, tokens: Vec<(Choice, SampledToken)>, step_started: Time) {
        let sequence = self.sequences.at(key);
        let (leg, prompt) = (sequence.leg, sequence.prompt.len() as u32);
        let generated = sequence.generated.len() as u32 + 1;
        let living = tokens.into_iter().filter(|(choice, _)| sequence.members.iter().any(|m| m.choice == *choice));
        let firsts: Vec<_> = living
            .map(|(choice, token)| {
                let ended = finish(&sequence.params, prompt, generated, token.token, CONTEXT_OF_READER);
                FirstToken { choice, token, ended }
            })
            .collect();
        let over: Vec<_> = firsts.iter().filter(|first| first.ended.is_some()).map(|first| first.choice).collect();
        let timing = self.first_timing(leg, step_started);
        self.tell(FromWorker::Committed { commit: Commit { leg, firsts }, timing });
        self.free_slots(key);
        self.sequences.at_mut(key).members.retain(|member| !over.contains(&member.choice));
        if self.sequences.at(key).members.is_empty() {
            return self.close(leg);
        }
        self.move_to(key, Place::Held);
        if let Some(giving) = self.giving_mut(leg) {
            giving.machine.completed();
        }
    }

    fn first_timing(&mut self, leg: Leg, step_started: Time) -> FirstTiming {
        match self.legs.get_mut(&leg).and_then(|run| run.timing.report(step_started, self.now)) {
            Some(TokenTiming::First(timing)) => timing,
            Some(TokenTiming::Joined(_)) | None => unreachable!("{leg} commits twice or was not prefilled here"),
        }
    }

    /// Takes in a heartbeat. Tells the reader which of the leases it named are not its own or have ended.
    pub(super) fn reader_renewed(&mut self, reader: InstanceId, leases: &[LeaseId]) {
        let renewed: Vec<_> = leases.iter().map(|lease| (*lease, self.renew_lease(reader, *lease))).collect();
        self.foreign_claims += u64::from(renewed.iter().any(|(_, renewed)| *renewed == Renewed::Foreign));
        let gone = renewed.iter().filter(|(_, renewed)| *renewed != Renewed::Alive);
        let gone: Vec<LeaseId> = gone.map(|(lease, _)| *lease).collect();
        if !gone.is_empty() {
            self.say(Envelope::Reader(reader, ToReader::Gone(gone)));
        }
    }

    pub(super) fn reader_follows(&mut self, reader: InstanceId, lease: LeaseId) {
        let followed = self.renew_by(lease, |giving, now| giving.followed(now, reader));
        self.foreign_claims += u64::from(followed == Renewed::Foreign);
        match followed {
            Renewed::Alive => self.tell_follower(lease),
            Renewed::Late | Renewed::Foreign => self.say(Envelope::Reader(reader, ToReader::Gone(vec![lease]))),
        }
    }

    /// Tells the reader that follows a prompt how much of it is stored.
    pub(super) fn tell_follower(&mut self, lease: LeaseId) {
        let Some(giving) = self.given.get(&lease).copied().and_then(|leg| self.giving_mut(leg)) else {
            return;
        };
        let (follower, stored) = (giving.machine.follower(), giving.machine.stored());
        if let Some(reader) = follower {
            self.say(Envelope::Reader(reader, ToReader::Filled { lease, stored }));
        }
    }

    fn renew_lease(&mut self, reader: InstanceId, lease: LeaseId) -> Renewed {
        self.renew_by(lease, |giving, now| giving.renewed(now, reader))
    }

    fn renew_by(&mut self, lease: LeaseId, renew: impl FnOnce(&mut Give, Time) -> Renewed) -> Renewed {
        let now = self.now;
        let Some(giving) = self.given.get(&lease).copied().and_then(|leg| self.giving_mut(leg)) else {
            return Renewed::Late;
        };
        let renewed = renew(&mut giving.machine, now);
        let ends = giving.machine.lease_ends();
        self.timers.set(Timer::ReaderLease(lease), ends);
        renewed
    }

    pub(super) fn reader_released(&mut self, reader: InstanceId, lease: LeaseId) {
        let now = self.now;
        let Some(leg) = self.given.get(&lease).copied() else {
            let answer = self.answers.recall(now, lease, reader);
            return self.answer_release(reader, lease, answer);
        };
        let released = self.giving_mut(leg).map_or(Released::Late, |giving| giving.machine.released(now, reader));
        let answer = released.answer();
        self.answer_release(reader, lease, answer);
        match released {
            Released::Foreign => {
                self.foreign_claims += 1;
                return;
            }
            Released::HandedOver => {
                self.answers.remember(now, lease, reader);
                self.tell(FromWorker::HandedOver { leg });
            }
            Released::Incomplete | Released::Late => self.tell(FromWorker::ReaderLost { leg }),
        }
        self.close(leg);
    }

    fn answer_release(&mut self, reader: InstanceId, lease: LeaseId, answer: ReleaseAnswer) {
        self.say(Envelope::Reader(reader, ToReader::Released { lease, answer }));
    }

    pub(super) fn reader_aborted(&mut self, reader: InstanceId, lease: LeaseId) {
        if let Some(leg) = self.given.get(&lease).copied()
            && !self.lose_reader(leg, |machine| machine.given_up(reader))
        {
            self.foreign_claims += 1;
        }
    }

    pub(super) fn reader_silent(&mut self, lease: LeaseId) {
        let now = self.now;
        if let Some(leg) = self.given.get(&lease).copied() {
            self.lose_reader(leg, |machine| machine.expire(now));
        }
    }

    /// Moves the end of a lease to `until` or later.
    pub(super) fn extend_lease(&mut self, lease: LeaseId, until: Time) {
        if let Some(giving) = self.given.get(&lease).copied().and_then(|leg| self.giving_mut(leg)) {
            giving.machine.extend(until);
            let ends = giving.machine.lease_ends();
            self.timers.set(Timer::ReaderLease(lease), ends);
        }
    }

    fn lose_reader(&mut self, leg: Leg, end: impl FnOnce(&mut Give) -> bool) -> bool {
        let lost = self.giving_mut(leg).is_some_and(|giving| end(&mut giving.machine));
        if lost {
            self.tell(FromWorker::ReaderLost { leg });
            self.close(leg);
        }
        lost
    }

    /// Revokes a lease: nobody may read under it any more.
    pub(super) fn close_give(&mut self, lease: LeaseId) {
        self.given.remove(&lease);
        self.timers.clear(Timer::ReaderLease(lease));
        self.transfer(Transfer::Revoke(lease));
    }

    fn giving_mut(&mut self, leg: Leg) -> Option<&mut Giving> {
        match &mut self.legs.get_mut(&leg)?.stage {
            Stage::Give(giving) => giving.as_mut(),
            Stage::Whole | Stage::Take(_) => None,
        }
    }
}

/// Draws an id that no living lease has.
fn fresh(ids: &mut LeaseIds, given: &BTreeMap<LeaseId, Leg>) -> LeaseId {
    loop {
        let lease = ids.draw();
        if !given.contains_key(&lease) {
            return lease;
        }
    }
}
