//! Ends legs and sequences, whatever they were doing: everything they held goes back, and nothing is said twice.

use super::lane::Holds;
use super::leg::Stage;
use super::sequence::{Member, SequenceKey};
use super::slots::Seat;
use super::timers::Timer;
use super::{Action, Compute, Replica};
use crate::message::{Envelope, FromWorker};
use crate::{Choice, Failure, FailureKind, LaneId, Leg};

impl Replica {
    /// Ends a leg with a failure and tells the router.
    pub(super) fn fail(&mut self, leg: Leg, failure: Failure) {
        if self.legs.contains_key(&leg) {
            self.tell(FromWorker::Failed { leg, failure });
            self.close(leg);
        }
    }

    /// Ends a leg: gives back everything it holds and says that it is over.
    pub(super) fn close(&mut self, leg: Leg) {
        let Some(run) = self.legs.remove(&leg) else {
            return;
        };
        self.timers.clear(Timer::Deadline(leg));
        self.timers.clear(Timer::RequestLease(leg));
        match run.stage {
            Stage::Whole | Stage::Give(None) => {}
            Stage::Give(Some(giving)) => self.close_give(giving.lease),
            Stage::Take(taking) => self.close_take(leg, taking),
        }
        for key in run.sequences {
            self.remove_sequence(key);
        }
        self.say(Envelope::Over(leg));
    }

    /// Ends a choice that the router no longer wants; the leg ends with its last choice.
    pub(super) fn cancel_choice(&mut self, leg: Leg, choice: Choice) {
        let Some(run) = self.legs.get(&leg) else {
            return;
        };
        for key in run.sequences.iter().copied().collect::<Vec<_>>() {
            if let Some(member) = self.sequences.at_mut(key).take_member(choice) {
                self.free_slot(key, member);
                if self.sequences.at(key).members.is_empty() {
                    self.drop_sequence(key);
                }
                return;
            }
        }
    }

    /// Ends a sequence, and its leg if it was the last.
    pub(super) fn drop_sequence(&mut self, key: SequenceKey) {
        let leg = self.sequences.at(key).leg;
        let Some(run) = self.legs.get_mut(&leg) else { unreachable!("{leg} has ended, but its sequence lives") };
        if run.sequences.len() == 1 {
            return self.close(leg);
        }
        run.sequences.remove(&key);
        self.remove_sequence(key);
    }

    fn remove_sequence(&mut self, key: SequenceKey) {
        self.leave_place(key);
        self.free_slots(key);
        let Some(mut sequence) = self.sequences.remove(key) else {
            return;
        };
        let Some((lane, holds)) = self.holds_of(key) else {
            return sequence.drop_blocks(&mut self.pool);
        };
        // Until that step has ended, its attention may read all of these blocks.
        holds.read.extend_from_slice(sequence.table.blocks());
        sequence.table.blocks().iter().for_each(|block| self.pool.begin_read(*block));
        sequence.drop_blocks(&mut self.pool);
        let (lifeless, holds) = self.lane_mut(lane).abandon(key);
        self.let_go(&holds);
        self.out.extend(lifeless.into_iter().map(|step| Action::Compute(Compute::Cancel { lane, step })));
    }

    pub(super) fn free_slots(&mut self, key: SequenceKey) {
        for at in 0..self.sequences.at(key).members.len() {
            let member = self.sequences.at(key).members[at];
            self.free_slot(key, member);
            self.sequences.at_mut(key).members[at].slot = None;
        }
    }

    pub(super) fn free_slot(&mut self, key: SequenceKey, member: Member) {
        let Some((slot, seat)) = member.slot else { return };
        if seat == Seat::Taken
            && let Some((lane, holds)) = self.holds_of(key)
        {
            holds.named.push(slot);
            self.slots.hold(slot, lane);
        }
        self.slots.give_back(slot);
    }

    /// Lane and holds of the last step that has, or will have, rows of a sequence.
    fn holds_of(&mut self, key: SequenceKey) -> Option<(LaneId, &mut Holds)> {
        self.lanes.iter_mut().find_map(|lane| {
            let id = lane.id;
            lane.holds_of(key).map(|holds| (id, holds))
        })
    }

    pub(super) fn deadline_passed(&mut self, leg: Leg) {
        self.fail(leg, Failure::new(FailureKind::DeadlineExceeded, "the request's deadline has passed"));
    }

    pub(super) fn router_silent(&mut self, leg: Leg) {
        let detail = format!("no router has renewed the request for {} s", self.config.lease.span.secs_f64());
        self.fail(leg, Failure::new(FailureKind::Cancelled, detail));
    }
}
