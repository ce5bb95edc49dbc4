//! Sampler slots of a worker: dense numbers, the lowest free one first; knows not who sits where.

use std::collections::{BTreeMap, BTreeSet};

use crate::{LaneId, SlotId};

/// Slots that nobody sits in. Where a step in flight still names one for a sequence that has ended, only the lane of that
/// step may use it again: its steps run one after the other, those of other lanes beside them.
#[derive(Debug)]
pub(super) struct Slots {
    free: BTreeSet<SlotId>,
    /// The lane whose steps still name a slot, and how many of them do.
    named: BTreeMap<SlotId, (LaneId, u32)>,
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

    /// A step of a lane still names a slot that is given back.
    pub(super) fn hold(&mut self, slot: SlotId, lane: LaneId) {
        let (of, steps) = self.named.entry(slot).or_insert((lane, 0));
        assert!(*of == lane, "{slot} is named by steps of {of} and of {lane}");
        *steps += 1;
    }

    /// A step that named a slot has ended.
    pub(super) fn let_go(&mut self, slot: SlotId) {
        let Some((_, steps)) = self.named.get_mut(&slot) else { unreachable!("{slot} is let go of twice") };
        *steps -= 1;
        if *steps == 0 {
            self.named.remove(&slot);
        }
    }

    /// Free slots, and how many steps still name one.
    pub(super) fn counts(&self) -> (usize, u32) {
        (self.free.len(), self.named.values().map(|(_, steps)| steps).sum())
    }
}
