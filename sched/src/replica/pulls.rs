//! Pulls of a reader: blocks they may write, how many run per giver, legs that wait for a turn; knows no lease.
//!
//! All pulls from a giver share its link. More of them at a time end no sooner, so a few run and the others wait in
//! order of arrival; waiting takes no time from a pull.

use std::collections::{BTreeMap, BTreeSet};

use super::sequence::SequenceKey;
use crate::{BlockId, InstanceId, Leg, PullId};

#[derive(Debug, Default)]
pub(super) struct Pulls {
    /// Pulls whose bytes may still land, also those of legs that have ended.
    running: BTreeMap<PullId, Running>,
    of_giver: BTreeMap<InstanceId, u32>,
    /// Legs that could read if their giver had a turn for them, the oldest first.
    waiting: BTreeMap<InstanceId, BTreeSet<(SequenceKey, Leg)>>,
    begun: u64,
}

/// A pull that may still write.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) leg: Leg,
    pub(super) giver: InstanceId,
    /// Blocks that it writes.
    pub(super) blocks: Vec<BlockId>,
}

impl Pulls {
    /// Number of pulls that run from a giver.
    pub(super) fn from(&self, giver: InstanceId) -> u32 {
        self.of_giver.get(&giver).copied().unwrap_or(0)
    }

    /// Begins a pull, which may write its blocks until it has ended.
    pub(super) fn begin(&mut self, pull: Running) -> PullId {
        self.begun += 1;
        let id = PullId(self.begun);
        *self.of_giver.entry(pull.giver).or_insert(0) += 1;
        self.running.insert(id, pull);
        id
    }

    /// Ends a pull: no byte of it lands any more.
    pub(super) fn end(&mut self, pull: PullId) -> Option<Running> {
        let ended = self.running.remove(&pull)?;
        if let Some(count) = self.of_giver.get_mut(&ended.giver) {
            *count -= 1;
            if *count == 0 {
                self.of_giver.remove(&ended.giver);
            }
        }
        Some(ended)
    }

    pub(super) fn of_leg(&self, leg: Leg) -> Vec<PullId> {
        self.running.iter().filter(|(_, running)| running.leg == leg).map(|(pull, _)| *pull).collect()
    }

    pub(super) fn wait(&mut self, giver: InstanceId, key: SequenceKey, leg: Leg) {
        self.waiting.entry(giver).or_default().insert((key, leg));
    }

    pub(super) fn is_awaited(&self, giver: InstanceId) -> bool {
        self.waiting.contains_key(&giver)
    }

    pub(super) fn next(&mut self, giver: InstanceId) -> Option<Leg> {
        let waiting = self.waiting.get_mut(&giver)?;
        let next = waiting.pop_first().map(|(_, leg)| leg);
        if waiting.is_empty() {
            self.waiting.remove(&giver);
        }
        next
    }

    pub(super) fn leave(&mut self, giver: InstanceId, leg: Leg) {
        if let Some(waiting) = self.waiting.get_mut(&giver) {
            waiting.retain(|(_, of)| *of != leg);
            if waiting.is_empty() {
                self.waiting.remove(&giver);
            }
        }
    }

    /// True if a pull of the leg may still write.
    pub(super) fn reads_for(&self, leg: Leg) -> bool {
        self.running.values().any(|running| running.leg == leg)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    pub(super) fn blocks(&self) -> impl Iterator<Item = &BlockId> {
        self.running.values().flat_map(|running| &running.blocks)
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = Leg> {
        self.waiting.values().flatten().map(|(_, leg)| *leg)
    }

    pub(super) fn check(&self, max: u32) -> Result<(), String> {
        let mut counted = BTreeMap::new();
        self.running.values().for_each(|running| *counted.entry(running.giver).or_insert(0) += 1);
        if counted != self.of_giver || counted.values().any(|count| *count > max) {
            return Err(format!("pulls by giver are {counted:?}, {:?} are counted", self.of_giver));
        }
        // A waiting leg is woken only by the end of a pull from the same giver.
        match self.waiting.keys().find(|giver| self.from(**giver) < max) {
            Some(giver) => Err(format!("legs wait for {giver}, which has room")),
            None => Ok(()),
        }
    }
}
