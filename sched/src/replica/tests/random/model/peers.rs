//! Words between the scheduler and its readers and givers; knows no step.

use super::answers::picked;
use super::{Model, READER, STRANGER};
use crate::handoff::Watermark;
use crate::message::{ReleaseAnswer, ToGiver, ToReader};
use crate::replica::Event;
use crate::{Failure, FailureKind, InstanceId, LeaseId, Leg};

impl Model {
    /// Answers a release; without an answer it was not heard.
    pub(super) fn answer_release(&mut self, pick: u16, answer: Option<ReleaseAnswer>) {
        if let Some(leg) = picked(&self.releases, pick) {
            self.releases.remove(&leg);
            self.legs.get_mut(&leg).expect("a known leg").unverified &= answer != Some(ReleaseAnswer::Ok);
            self.released(leg, answer);
        }
    }

    pub(super) fn released(&mut self, leg: Leg, answer: Option<ReleaseAnswer>) {
        let Some(&(giver, lease)) = self.offers.get(&leg) else { return };
        self.feed(match answer {
            Some(answer) => Event::Giver(giver, ToReader::Released { lease, answer }),
            None => Event::ReleaseUnheard { giver, lease },
        });
    }

    pub(super) fn with_grant(&mut self, pick: u16, word: impl FnOnce(LeaseId) -> ToGiver) {
        if let Some(lease) = picked(&self.grants, pick) {
            self.feed(Event::Reader(READER, word(lease)));
        }
    }

    /// Lets a stranger use a lease whose reader has been heard of: nothing about it changes.
    pub(super) fn stranger(&mut self, pick: u16) {
        let Some(lease) = picked(&self.grants, pick) else { return };
        self.feed(Event::Reader(READER, ToGiver::Renew(vec![lease])));
        for word in
            [ToGiver::Renew(vec![lease]), ToGiver::Follow(lease), ToGiver::Release(lease), ToGiver::Abort(lease)]
        {
            self.feed(Event::Reader(STRANGER, word));
        }
        assert!(self.grants.contains_key(&lease), "a stranger has ended {lease}");
    }

    pub(super) fn filled(&mut self, pick: u16, tokens: u32, layers: u32) {
        let Some(leg) = picked(&self.offers, pick).filter(|leg| !self.legs[leg].committed) else { return };
        let (giver, lease) = self.offers[&leg];
        let all = self.legs[&leg].request.prefill_tokens() as u32;
        let tokens = tokens.min(all);
        let chunk_end = (tokens + 20).min(all);
        let mark = if chunk_end > tokens { Watermark { tokens, chunk_end, layers } } else { Watermark::whole(tokens) };
        let stored = self.stored.entry(leg).or_default();
        // A giver's marks only rise, but they may come late.
        if mark.max(*stored) == mark
            && (mark.tokens >= stored.chunk_end || mark.tokens == stored.tokens && mark.chunk_end == stored.chunk_end)
        {
            *stored = mark;
        }
        let stored = *stored;
        self.feed(Event::Giver(giver, ToReader::Filled { lease, stored }));
    }

    pub(super) fn giver_met(&mut self, giver: InstanceId) {
        self.feed(Event::GiverMet(giver));
        self.met.insert(giver);
        self.asked_for.remove(&giver);
        self.unmet.retain(|leg| self.offers[leg].0 != giver);
        self.feed(Event::GiverUp(giver));
    }

    pub(super) fn giver_down(&mut self, giver: InstanceId) {
        self.met.remove(&giver);
        self.feed(Event::GiverDown(giver));
    }

    pub(super) fn giver_unmet(&mut self, giver: InstanceId) {
        let failure = Failure::new(FailureKind::Unavailable, "nobody answers");
        self.asked_for.remove(&giver);
        self.feed(Event::GiverUnmet { giver, address: "p:1".into(), failure });
        let waits = |leg: &&Leg| self.offers[*leg].0 == giver && !self.legs[*leg].over;
        assert_eq!(self.unmet.iter().find(waits), None, "it waits on for {giver}");
    }

    pub(super) fn giver_lost(&mut self, giver: InstanceId) {
        self.met.remove(&giver);
        self.feed(Event::GiverLost(giver));
    }

    pub(super) fn told_giver(&mut self, giver: InstanceId, word: &ToGiver) {
        let leg_of = |lease| self.offers.iter().find(|(_, held)| **held == (giver, lease)).map(|(leg, _)| *leg);
        let leases = match word {
            ToGiver::Renew(leases) => leases.clone(),
            ToGiver::Follow(lease) | ToGiver::Release(lease) | ToGiver::Abort(lease) => vec![*lease],
        };
        let legs: Vec<Leg> = leases.iter().map(|lease| leg_of(*lease).expect("a lease that was offered")).collect();
        assert!(legs.iter().all(|leg| !self.unmet.contains(leg)), "{giver} was never met and is told {word:?}");
        if let ToGiver::Release(lease) = word {
            self.releases.insert(legs[0], *lease);
        }
    }

    /// Checks that what the reader has read is valid until now, as it was told.
    pub(super) fn answered(&mut self, lease: LeaseId, answer: ReleaseAnswer) {
        if answer == ReleaseAnswer::Ok && self.grants.contains_key(&lease) {
            self.assert_granted_content(lease);
        }
    }

    pub(super) fn assert_granted_content(&self, lease: LeaseId) {
        let leg = &self.legs[&self.leg_of_grant[&lease]];
        assert!(leg.committed, "{lease} is released before its commit");
        let values = leg.prefill_values();
        assert_eq!(self.backend.stored(&self.grants[&lease], values.len() as u32), values, "{lease} holds other bytes");
    }
}
