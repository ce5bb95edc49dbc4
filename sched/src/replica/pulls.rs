//! The pulls of a reader: which blocks they may write, how many run from each giver, and who waits for a turn. Knows
//! neither leases nor what becomes of a leg.
//!
//! A giver's link is shared by all pulls from it. More of them at a time end no sooner, so a few run and the others wait
//! in order of arrival, with all their time for reading still before them.

use std::collections::{BTreeMap, BTreeSet};

use super::sequence::SequenceKey;
use crate::{BlockId, InstanceId, Leg, PullId};

/// All pulls.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    /// Those whose bytes may still land, also those of legs that have ended.
    running: BTreeMap<PullId, Running>,
    /// How many of them read from each giver.
    of_giver: BTreeMap<InstanceId, u32>,
    /// Legs that could read if there were room, the oldest first.
    waiting: BTreeMap<InstanceId, BTreeSet<(SequenceKey, Leg)>>,
    begun: u64,
}

/// A pull that may still write.
#[derive(Debug)]
pub(super) struct Running {
    /// For which leg.
    pub(super) leg: Leg,
    /// From which giver.
    pub(super) giver: InstanceId,
    /// What it writes.
    pub(super) blocks: Vec<BlockId>,
}

impl Pulls {
    /// How many run from a giver.
    pub(super) fn from(&self, giver: InstanceId) -> u32 {
        self.of_giver.get(&giver).copied().unwrap_or(0)
    }

    /// A pull begins; it writes these blocks until it has ended.
    pub(super) fn begin(&mut self, pull: Running) -> PullId {
        self.begun += 1;
        let id = PullId(self.begun);
        *self.of_giver.entry(pull.giver).or_insert(0) += 1;
        self.running.insert(id, pull);
        id
    }

    /// No byte of a pull lands any more.
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

    /// The pulls of a leg that may still write.
    pub(super) fn of_leg(&self, leg: Leg) -> Vec<PullId> {
        self.running.iter().filter(|(_, running)| running.leg == leg).map(|(pull, _)| *pull).collect()
    }

    /// A leg has to wait for its turn.
    pub(super) fn wait(&mut self, giver: InstanceId, key: SequenceKey, leg: Leg) {
        self.waiting.entry(giver).or_default().insert((key, leg));
    }

    /// Whether any leg waits for its turn at a giver.
    pub(super) fn is_awaited(&self, giver: InstanceId) -> bool {
        self.waiting.contains_key(&giver)
    }

    /// The leg whose turn is next.
    pub(super) fn next(&mut self, giver: InstanceId) -> Option<Leg> {
        let waiting = self.waiting.get_mut(&giver)?;
        let next = waiting.pop_first().map(|(_, leg)| leg);
        if waiting.is_empty() {
            self.waiting.remove(&giver);
        }
        next
    }

    /// A leg that has ended waits no more.
    pub(super) fn leave(&mut self, giver: InstanceId, leg: Leg) {
        if let Some(waiting) = self.waiting.get_mut(&giver) {
            waiting.retain(|(_, of)| *of != leg);
            if waiting.is_empty() {
                self.waiting.remove(&giver);
            }
        }
    }

    /// Whether a pull of the leg may still write.
    pub(super) fn reads_for(&self, leg: Leg) -> bool {
        self.running.values().any(|running| running.leg == leg)
    }

    /// Whether none may.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Every block that a pull may write.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &BlockId> {
        self.running.values().flat_map(|running| &running.blocks)
    }

    /// Every leg that waits.
    pub(super) fn waiting(&self) -> impl Iterator<Item = Leg> {
        self.waiting.values().flatten().map(|(_, leg)| *leg)
    }

    /// Recounts; the error says what does not add up.
    pub(super) fn check(&self, max: u32) -> Result<(), String> {
        let mut counted = BTreeMap::new();
        self.running.values().for_each(|running| *counted.entry(running.giver).or_insert(0) += 1);
        if counted != self.of_giver || counted.values().any(|count| *count > max) {
            return Err(format!("pulls by giver are {counted:?}, {:?} are counted", self.of_giver));
        }
        // Whoever waits is woken by the end of a pull of the same giver.
        match self.waiting.keys().find(|giver| self.from(**giver) < max) {
            Some(giver) => Err(format!("legs wait for {giver}, which has room")),
            None => Ok(()),
        }
    }
}
