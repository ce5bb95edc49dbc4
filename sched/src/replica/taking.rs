//! The reader's side of the hand-off: keeps the lease alive, takes in the commit, joins when the giver has said `Ok`.

use std::collections::{BTreeMap, BTreeSet};

use super::finish::finish;
use super::leg::{Stage, Taking};
use super::sequence::{Member, Place, SequenceKey};
use super::timers::Timer;
use super::{LeaseConfig, PrefixCache, Replica, Transfer};
use crate::handoff::{Abandoned, TakeState};
use crate::message::{Commit, Envelope, FirstToken, ReleaseAnswer, ToGiver};
use crate::{Failure, FailureKind, InstanceId, LeaseId, Leg, Time, TokenId};

impl Replica {
    /// Queues an offer whose giver is up: from now on its lease is renewed, and blocks are reserved in turn.
    pub(super) fn queue_take(&mut self, leg: Leg) {
        let (Some(key), Some(taking)) = (self.prompt_of(leg), self.taking_mut(leg)) else {
            return;
        };
        taking.machine.met();
        let index = (taking.lease, taking.giver);
        self.unrenewed.insert(index);
        self.move_to(key, Place::Waiting);
        let LeaseConfig { beat, .. } = self.config.lease;
        for (timer, after) in [(Timer::Beat, beat), (Timer::FirstBeat, self.config.lease.first_beat())] {
            if !self.timers.is_set(timer) {
                self.timers.set(timer, self.now + after);
            }
        }
    }

    pub(super) fn committed(&mut self, commit: Commit) {
        let (leg, now) = (commit.leg, self.now);
        if !self.taking_mut(leg).is_some_and(|taking| taking.machine.committed()) {
            return;
        }
        if let Some(run) = self.legs.get_mut(&leg) {
            run.timing.committed(now);
        }
        match self.accept_firsts(leg, commit.firsts) {
            Ok(()) => self.read_on(leg),
            Err(failure) => self.fail(leg, failure),
        }
    }

    /// Keeps the first tokens of the choices that go on. The others end silently here: the giver told the router.
    fn accept_firsts(&mut self, leg: Leg, firsts: Vec<FirstToken>) -> Result<(), Failure> {
        let Some(key) = self.prompt_of(leg) else {
            return Ok(());
        };
        let wrong = |detail: String| Err(Failure::new(FailureKind::Internal, detail));
        let (place, tokens) = (format!("the commit of {leg}"), firsts.iter().map(|first| first.token.token));
        self.check_vocabulary(&place, tokens)?;
        let sequence = self.sequences.at(key);
        let (prompt, generated) = (sequence.prompt.len() as u32, sequence.generated.len() as u32 + 1);
        for member in &sequence.members {
            let mut named = firsts.iter().filter(|first| first.choice == member.choice);
            let (Some(first), None) = (named.next(), named.next()) else {
                return wrong(format!("the commit of {leg} does not name {} once", member.choice));
            };
            let at_limit = finish(&sequence.params, prompt, generated, first.token.token, self.config.context_max);
            if first.ended.is_none() && at_limit.is_some() {
                return wrong(format!("the commit of {leg} goes on with {}, which has ended", member.choice));
            }
        }
        let members: Vec<_> = sequence.members.iter().map(|member| member.choice).collect();
        let (over, going_on): (Vec<_>, Vec<_>) =
            firsts.into_iter().filter(|first| members.contains(&first.choice)).partition(|first| first.ended.is_some());
        if let Some(taking) = self.taking_mut(leg) {
            taking.firsts = going_on;
        }
        over.iter().for_each(|first| self.cancel_choice(leg, first.choice));
        Ok(())
    }

    /// Asks the giver whether its lease covered the pull. Repeated every beat for one lease span.
    pub(super) fn ask_release(&mut self, leg: Leg) {
        let (now, lease_config) = (self.now, self.config.lease);
        let Some(taking) = self.taking_mut(leg) else {
            return;
        };
        let (giver, lease) = (taking.giver, taking.lease);
        let give_up = *taking.release_by.get_or_insert(now + lease_config.span);
        self.timers.set(Timer::Release(leg), give_up.min(now + lease_config.beat));
        self.say(Envelope::Giver(giver, ToGiver::Release(lease)));
    }

    pub(super) fn extend_release(&mut self, leg: Leg, until: Time) {
        if let Some(taking) = self.taking_mut(leg) {
            taking.release_by = taking.release_by.map(|by| by.max(until));
        }
    }

    pub(super) fn release_unanswered(&mut self, leg: Leg) {
        let now = self.now;
        let Some(taking) = self.taking_mut(leg) else {
            return;
        };
        if taking.release_by.is_some_and(|by| now >= by) {
            self.lose_kv(leg, format!("the giver of {leg} did not answer its release in time"));
        } else {
            self.ask_release(leg);
        }
    }

    pub(super) fn release_answered(&mut self, giver: InstanceId, lease: LeaseId, answer: ReleaseAnswer) {
        let Some(leg) = self.taken.get(&(lease, giver)).copied() else {
            return;
        };
        match self.taking_mut(leg).and_then(|taking| taking.machine.release_answered(answer)) {
            None => {}
            Some(true) => self.join(leg),
            Some(false) => self.lose_kv(leg, format!("the giver of {leg} answered its release with {answer:?}")),
        }
    }

    pub(super) fn release_unheard(&mut self, giver: InstanceId, lease: LeaseId) {
        let Some(leg) = self.taken.get(&(lease, giver)).copied() else {
            return;
        };
        if self.taking_mut(leg).is_some_and(|taking| taking.machine.release_unheard()) {
            self.lose_kv(leg, format!("the giver of {leg} could not be asked whether its lease held"));
        }
    }

    /// Continues every choice with its first token, now that the KV cache is valid here.
    fn join(&mut self, leg: Leg) {
        let now = self.now;
        let (Some(key), Some(taking)) = (self.prompt_of(leg), self.taking_mut(leg)) else {
            return;
        };
        let firsts = std::mem::take(&mut taking.firsts);
        let index = (taking.lease, taking.giver);
        self.taken.remove(&index);
        self.timers.clear(Timer::Release(leg));
        if let Some(run) = self.legs.get_mut(&leg) {
            run.timing.verified(now);
        }
        let sequence = self.sequences.at_mut(key);
        sequence.has_stored(sequence.len());
        if self.config.prefix_cache == PrefixCache::On {
            sequence.publish(self.config.block_tokens, &mut self.pool);
        }
        let going_on = std::mem::take(&mut sequence.members);
        let going_on = going_on.into_iter().filter_map(|member| with_first(member, &firsts)).collect();
        self.branch(key, going_on, Place::Ready);
    }

    pub(super) fn leases_gone(&mut self, giver: InstanceId, leases: &[LeaseId]) {
        for lease in leases {
            let Some(leg) = self.taken.get(&(*lease, giver)).copied() else {
                continue;
            };
            if self.taking_mut(leg).is_some_and(|taking| taking.machine.lease_gone()) {
                self.lose_kv(leg, format!("the giver of {leg} has ended its lease"));
            }
        }
    }

    /// Asks again for what is not answered yet, without waiting for the next beat.
    pub(super) fn giver_met(&mut self, giver: InstanceId) {
        for leg in self.taken_from(giver) {
            match self.taking_mut(leg).map(|taking| taking.machine.state()) {
                Some(TakeState::Releasing) => self.ask_release(leg),
                Some(TakeState::Reserved | TakeState::Reading { .. }) => self.follow(leg),
                Some(
                    TakeState::Unmet | TakeState::Queued | TakeState::Verified | TakeState::Failed | TakeState::Aborted,
                )
                | None => {}
            }
        }
    }

    /// Queues the offers that waited for the giver.
    pub(super) fn giver_up(&mut self, giver: InstanceId) {
        self.givers_up.insert(giver);
        for leg in self.taken_from(giver).into_iter().filter(|leg| self.is_unmet(*leg)).collect::<Vec<_>>() {
            self.queue_take(leg);
        }
    }

    pub(super) fn giver_down(&mut self, giver: InstanceId) {
        self.givers_up.remove(&giver);
    }

    /// Fails offers that wait for the giver at this address; those for another address are answered separately.
    pub(super) fn giver_unmet(&mut self, giver: InstanceId, address: &str, failure: &Failure) {
        for leg in self.taken_from(giver) {
            if self.is_unmet(leg) && self.taking(leg).is_some_and(|taking| &*taking.giver_address == address) {
                self.fail(leg, failure.clone());
            }
        }
    }

    /// Fails hand-offs under way. An offer that still waits for the giver is answered when the giver was met or not.
    pub(super) fn giver_lost(&mut self, giver: InstanceId) {
        self.givers_up.remove(&giver);
        for leg in self.taken_from(giver) {
            if !self.is_unmet(leg) {
                self.lose_kv(leg, format!("the giver of {leg} is gone"));
            }
        }
    }

    fn is_unmet(&self, leg: Leg) -> bool {
        self.taking(leg).is_some_and(|taking| taking.machine.state() == TakeState::Unmet)
    }

    fn taken_from(&self, giver: InstanceId) -> Vec<Leg> {
        self.taken.iter().filter(|((_, of), _)| *of == giver).map(|(_, leg)| *leg).collect()
    }

    pub(super) fn lose_kv(&mut self, leg: Leg, detail: String) {
        self.fail(leg, Failure::new(FailureKind::KvLost, detail));
    }

    pub(super) fn beat(&mut self) {
        self.unrenewed.clear();
        self.timers.clear(Timer::FirstBeat);
        if !self.taken.is_empty() {
            self.timers.set(Timer::Beat, self.now + self.config.lease.beat);
        }
        self.renew_at_givers(self.taken.keys().copied().collect());
    }

    pub(super) fn first_beat(&mut self) {
        let fresh = std::mem::take(&mut self.unrenewed);
        self.renew_at_givers(fresh);
    }

    /// Renews those of the leases that are still needed, one message per giver.
    fn renew_at_givers(&mut self, leases: BTreeSet<(LeaseId, InstanceId)>) {
        let mut by_giver: BTreeMap<InstanceId, Vec<LeaseId>> = BTreeMap::new();
        let is_needed = |leg: &Leg| self.taking(*leg).is_some_and(|taking| taking.machine.needs_lease());
        for (lease, giver) in leases.into_iter().filter(|lease| self.taken.get(lease).is_some_and(is_needed)) {
            by_giver.entry(giver).or_default().push(lease);
        }
        for (giver, leases) in by_giver {
            self.say(Envelope::Giver(giver, ToGiver::Renew(leases)));
        }
    }

    /// Ends a hand-off with its leg. Bytes of a pull may land until it has ended, so its blocks stay quarantined.
    pub(super) fn close_take(&mut self, leg: Leg, mut taking: Taking) {
        let (giver, lease) = (taking.giver, taking.lease);
        self.timers.clear(Timer::Release(leg));
        self.pulls.leave(giver, leg);
        if taking.machine.state() != TakeState::Verified {
            self.taken.remove(&(lease, giver));
        }
        match taking.machine.abort() {
            Abandoned::Nothing => {}
            Abandoned::Lease => self.abort_lease(giver, lease),
            Abandoned::LeaseAndPulls => {
                self.abort_pulls(leg);
                self.abort_lease(giver, lease);
            }
        }
    }

    pub(super) fn abort_pulls(&mut self, leg: Leg) {
        for pull in self.pulls.of_leg(leg) {
            self.transfer(Transfer::AbortPull(pull));
        }
    }

    pub(super) fn abort_lease(&mut self, giver: InstanceId, lease: LeaseId) {
        self.say(Envelope::Giver(giver, ToGiver::Abort(lease)));
    }

    /// Sequence that stands for all choices of a leg that is being taken over.
    pub(super) fn prompt_of(&self, leg: Leg) -> Option<SequenceKey> {
        self.legs.get(&leg)?.sequences.first().copied()
    }

    fn taking(&self, leg: Leg) -> Option<&Taking> {
        match &self.legs.get(&leg)?.stage {
            Stage::Take(taking) => Some(taking),
            Stage::Whole | Stage::Give(_) => None,
        }
    }

    pub(super) fn taking_mut(&mut self, leg: Leg) -> Option<&mut Taking> {
        match &mut self.legs.get_mut(&leg)?.stage {
            Stage::Take(taking) => Some(taking),
            Stage::Whole | Stage::Give(_) => None,
        }
    }
}

fn with_first(member: Member, firsts: &[FirstToken]) -> Option<(Member, TokenId)> {
    let first = firsts.iter().find(|first| first.choice == member.choice)?;
    Some((member, first.token.token))
}
