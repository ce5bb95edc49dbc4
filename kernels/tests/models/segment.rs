//! A segment of loom's counters instead of the mapping of `src/collective/segment.rs`, whose zeroed bytes loom cannot
//! use. Checks who may touch each array: taking its address counts as touching it.

use std::cell::{Cell, UnsafeCell};
use std::sync::Arc;

use super::counter::Counter;
use crate::cell::Watched;
use crate::sync::thread::{self, Thread};

pub(super) const REPORT_BYTES: usize = 64;
const WORDS: usize = REPORT_BYTES / size_of::<u32>();
const NUMBERS: usize = 3;
const SLOT_SETS: usize = 2;

pub(crate) struct SegmentShape {
    pub(crate) ranks: usize,
    pub(crate) group_ranks: usize,
    pub(crate) order_words_max: usize,
    pub(crate) row_values_max: usize,
    pub(crate) logit_values_max: usize,
}

#[derive(Clone, Copy)]
pub(super) enum Number {
    Ordered,
    Answered,
    Summed,
}

/// Plain words, and a cell with which loom checks their users.
struct Array {
    words: [UnsafeCell<u32>; WORDS],
    watched: Watched,
    asked_by_leader: Cell<u32>,
}

pub(crate) struct Segment {
    shape: SegmentShape,
    leader: Thread,
    over: Counter,
    numbers: Vec<Counter>,
    order: Array,
    rows: Array,
    logits: Array,
    reports: Vec<Array>,
    slots: Vec<Array>,
}

impl Array {
    fn new() -> Array {
        Array { words: Default::default(), watched: Watched::default(), asked_by_leader: Cell::new(0) }
    }

    /// For a user that must be the only one.
    fn alone(&self) -> *mut u32 {
        self.watched.set(0);
        self.words.as_ptr().cast_mut().cast()
    }

    /// For a reader beside other readers.
    fn with_readers(&self) -> *mut u32 {
        self.watched.get();
        self.words.as_ptr().cast_mut().cast()
    }
}

impl Segment {
    pub(crate) fn new(ranks: usize) -> Arc<Segment> {
        let arrays = |count: usize| (0..count).map(|_| Array::new()).collect();
        let (order_words_max, row_values_max, logit_values_max) = (WORDS, WORDS, WORDS);
        Arc::new(Segment {
            shape: SegmentShape { ranks, group_ranks: ranks, order_words_max, row_values_max, logit_values_max },
            leader: thread::current(),
            over: Counter::default(),
            numbers: (0..ranks * NUMBERS).map(|_| Counter::default()).collect(),
            order: Array::new(),
            rows: Array::new(),
            logits: Array::new(),
            reports: arrays(ranks),
            slots: arrays(ranks * SLOT_SETS),
        })
    }

    pub(super) fn shape(&self) -> &SegmentShape {
        &self.shape
    }

    pub(super) fn over(&self) -> &Counter {
        &self.over
    }

    pub(super) fn number(&self, rank: usize, number: Number) -> &Counter {
        &self.numbers[rank * NUMBERS + number as usize]
    }

    pub(super) fn order(&self) -> *mut u32 {
        if self.is_leader() { self.order.alone() } else { self.order.with_readers() }
    }

    pub(super) fn rows(&self) -> *mut f32 {
        self.rows.alone().cast()
    }

    pub(super) fn logits(&self) -> *mut f32 {
        self.logits.alone().cast()
    }

    pub(super) fn report(&self, rank: usize) -> *mut u8 {
        self.reports[rank].alone().cast()
    }

    /// For sums of few values, which the first rank alone sums: it fills its slot, sums all slots and reads its own,
    /// while the others read that slot too.
    pub(super) fn slot(&self, rank: usize, round: u32) -> *mut f32 {
        let slot = &self.slots[round as usize % SLOT_SETS * self.shape.ranks + rank];
        let asked = slot.asked_by_leader.get();
        slot.asked_by_leader.set(asked + u32::from(self.is_leader()));
        let reads = rank == 0 && (!self.is_leader() || asked % 3 == 2);
        if reads { slot.with_readers().cast() } else { slot.alone().cast() }
    }

    fn is_leader(&self) -> bool {
        thread::current().id() == self.leader.id()
    }
}
