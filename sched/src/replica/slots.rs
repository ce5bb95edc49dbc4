//! Sampler slots of a worker: dense numbers, the lowest free one first; knows no sequence.

use std::collections::{BTreeMap, BTreeSet};

use crate::{LaneId, SlotId};

/// Free slots. If a step in flight still names one for a sequence that has ended, only the lane of that step may use it
/// again: steps of one lane run one after the other, those of other lanes beside them.
#[derive(Debug)]
pub(super) struct Slots {
    free: BTreeSet<SlotId>,
    /// For each named slot, the lane of the steps that name it and their number.
    named: BTreeMap<SlotId, (LaneId, u32)>,
}

/// State of a slot at the backend, which is told which choice sits there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seat {
    /// Not told yet.
    Promised,
    /// Told.
    Taken,
}

impl Slots {
    pub(super) fn new(total: u32) -> Slots {
        Slots { free: (0..total).map(SlotId).collect(), named: BTreeMap::new() }
    }

    /// Slots that a lane may use, the lowest first.
    pub(super) fn open_to(&self, lane: LaneId) -> impl Iterator<Item = SlotId> {
        let elsewhere = move |slot: &SlotId| self.named.get(slot).is_some_and(|(of, _)| *of != lane);
        self.free.iter().copied().filter(move |slot| !elsewhere(slot))
    }

    pub(super) fn take(&mut self, lane: LaneId) -> Option<SlotId> {
        let slot = self.open_to(lane).next()?;
        self.free.take(&slot)
    }

    pub(super) fn give_back(&mut self, slot: SlotId) {
        let news = self.free.insert(slot);
        assert!(news, "{slot} is given back twice");
    }

    /// Records that a step of a lane still names a slot that is given back.
    pub(super) fn hold(&mut self, slot: SlotId, lane: LaneId) {
        let (of, steps) = self.named.entry(slot).or_insert((lane, 0));
        assert!(*of == lane, "{slot} is named by steps of {of} and of {lane}");
        *steps += 1;
    }

    pub(super) fn let_go(&mut self, slot: SlotId) {
        let Some((_, steps)) = self.named.get_mut(&slot) else { unreachable!("{slot} is let go of twice") };
        *steps -= 1;
        if *steps == 0 {
            self.named.remove(&slot);
        }
    }

    /// Number of free slots, and of names of slots in steps.
    pub(super) fn counts(&self) -> (usize, u32) {
        (self.free.len(), self.named.values().map(|(_, steps)| steps).sum())
    }
}
