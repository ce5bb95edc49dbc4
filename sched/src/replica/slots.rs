//! Sampler slots of one lane: dense numbers, the lowest free one first; knows not who sits where.

use std::collections::BTreeSet;

use crate::SlotId;

/// Free slots, and those whose state the backend still has to drop.
#[derive(Debug)]
pub(super) struct Slots {
    free: BTreeSet<SlotId>,
    retired: Vec<SlotId>,
}

/// Whether the backend was told who sits in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seat {
    /// Not yet.
    Promised,
    /// It was.
    Taken,
}

impl Slots {
    pub(super) fn new(total: u32) -> Slots {
        Slots { free: (0..total).map(SlotId).collect(), retired: Vec::new() }
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    pub(super) fn take(&mut self) -> Option<SlotId> {
        self.free.pop_first()
    }

    pub(super) fn give_back(&mut self, slot: SlotId, seat: Seat) {
        let news = self.free.insert(slot);
        assert!(news, "{slot} is given back twice");
        match seat {
            Seat::Promised => {}
            Seat::Taken => self.retired.push(slot),
        }
    }

    /// The slots to retire in the next plan.
    pub(super) fn drain_retired(&mut self) -> Vec<SlotId> {
        std::mem::take(&mut self.retired)
    }
}
