//! Pulls of a prompt's parts, in the order in which its giver stores them.

use super::leg::Stage;
use super::pulls::Running;
use super::sequence::SequenceKey;
use super::{Pull, Reading, Replica, ReplicaConfig, Transfer};
use crate::block::blocks_for;
use crate::handoff::{Asked, Extent, PullOutcome, Region, Watermark};
use crate::message::{Envelope, ToGiver};
use crate::{InstanceId, LeaseId, Leg, PullId};

impl Replica {
    /// Begins to read an offer for which blocks were just reserved.
    pub(super) fn reserved_for_take(&mut self, key: SequenceKey) {
        let sequence = self.sequences.at(key);
        let (leg, computed) = (sequence.leg, sequence.computed);
        let Some(taking) = self.taking_mut(leg) else {
            return;
        };
        taking.machine.reserved();
        taking.asked = Asked::from(computed);
        self.follow(leg);
        self.read_on(leg);
    }

    /// Asks the giver to tell how much of a prompt is stored, if it is read before it is complete.
    pub(super) fn follow(&mut self, leg: Leg) {
        if self.config.reading == Reading::WhenComplete {
            return;
        }
        if let Some(taking) = self.taking_mut(leg).filter(|taking| !taking.machine.is_committed()) {
            let (giver, lease) = (taking.giver, taking.lease);
            self.say(Envelope::Giver(giver, ToGiver::Follow(lease)));
        }
    }

    pub(super) fn giver_filled(&mut self, giver: InstanceId, lease: LeaseId, stored: Watermark) {
        let wanted = self.config.reading == Reading::WhileFilling;
        let Some(leg) = self.taken.get(&(lease, giver)).copied().filter(|_| wanted) else {
            return;
        };
        if let Some(taking) = self.taking_mut(leg) {
            taking.stored = taking.stored.max(stored);
            self.read_on(leg);
        }
    }

    /// Pulls what is stored and not here yet, while the giver has a turn for it. After the last pull of a finished
    /// prompt, asks the giver for the release.
    pub(super) fn read_on(&mut self, leg: Leg) {
        while let Some((region, asked)) = self.next_region(leg) {
            let (Some(key), Some(taking)) = (self.prompt_of(leg), self.taking_mut(leg)) else {
                return;
            };
            let giver = taking.giver;
            if self.pulls.from(giver) >= self.config.pulls_per_giver_max {
                return self.pulls.wait(giver, key, leg);
            }
            self.start_pull(leg, key, (region, asked));
        }
        let now = self.now;
        let Some(run) = self.legs.get_mut(&leg) else {
            return;
        };
        let Stage::Take(taking) = &mut run.stage else {
            return;
        };
        if taking.machine.read_all() {
            run.timing.pull_started(now);
            self.ask_release(leg);
        }
    }

    /// Region that could be pulled next, and what would then have been asked for.
    fn next_region(&mut self, leg: Leg) -> Option<(Region, Asked)> {
        let tokens = self.sequences.at(self.prompt_of(leg)?).len();
        let ReplicaConfig { layers, pull_tokens_max, .. } = self.config;
        let extent = Extent { tokens, layers, pull_tokens_max };
        let taking = self.taking_mut(leg).filter(|taking| taking.machine.may_read())?;
        let stored = if taking.machine.is_committed() { Watermark::whole(tokens) } else { taking.stored };
        let mut asked = taking.asked;
        asked.next(stored, extent).map(|region| (region, asked))
    }

    fn start_pull(&mut self, leg: Leg, key: SequenceKey, (region, asked): (Region, Asked)) {
        let now = self.now;
        let Some(run) = self.legs.get_mut(&leg) else {
            return;
        };
        run.timing.pull_started(now);
        let deadline_in = run.deadline.since(now);
        let Stage::Take(taking) = &mut run.stage else {
            return;
        };
        taking.asked = asked;
        let (giver, lease) = (taking.giver, taking.lease);
        self.pulls.leave(giver, leg);
        let local = self.sequences.at(key).table.blocks();
        let (first, end) = (
            region.positions.start / self.config.block_tokens,
            blocks_for(region.positions.end, self.config.block_tokens),
        );
        let blocks = local[first as usize..end as usize].to_vec();
        blocks.iter().for_each(|block| self.pool.begin_access(*block));
        let id = self.pulls.begin(Running { leg, giver, blocks });
        taking.machine.pull_begun();
        let (remote, local) = (taking.remote.clone(), local.to_vec());
        let Region { positions, layers } = region;
        self.transfer(Transfer::Pull(Pull { id, leg, giver, lease, remote, local, positions, layers, deadline_in }));
    }

    /// Takes in the end of a pull, of which no byte can land any more.
    pub(super) fn pull_ended(&mut self, pull: PullId, outcome: PullOutcome) {
        if let Some(Running { leg, giver, blocks }) = self.pulls.end(pull) {
            blocks.iter().for_each(|block| self.pool.end_access(*block));
            self.pull_landed(leg, outcome);
            self.read_next(giver);
        }
    }

    /// Gives the free turns of a giver to the oldest legs that wait for one.
    fn read_next(&mut self, giver: InstanceId) {
        while self.pulls.from(giver) < self.config.pulls_per_giver_max {
            let Some(leg) = self.pulls.next(giver) else { return };
            self.read_on(leg);
        }
    }

    fn pull_landed(&mut self, leg: Leg, outcome: PullOutcome) {
        let Some(taking) = self.taking_mut(leg) else {
            return;
        };
        let (giver, lease) = (taking.giver, taking.lease);
        match taking.machine.pull_ended(outcome) {
            // The turn that has become free goes to the oldest leg that waits.
            Ok(()) if self.pulls.is_awaited(giver) && self.next_region(leg).is_some() => {
                if let Some(key) = self.prompt_of(leg) {
                    self.pulls.wait(giver, key, leg);
                }
            }
            Ok(()) => self.read_on(leg),
            Err(why) => {
                self.abort_pulls(leg);
                self.abort_lease(giver, lease);
                self.lose_kv(leg, format!("the pull of {leg} failed: {why}"));
            }
        }
    }
}
