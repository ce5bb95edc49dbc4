//! The mapping that the ranks of a worker share, and the place of each counter and array in it. Knows no protocol.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::CollectiveError;
use super::counter::Counter;
use crate::memory::{Backing, HostMemory};

/// "BATR": marks a segment of this version.
const MAGIC: u32 = 0x4241_5452;
const VERSION: u32 = 2;
pub(super) const REPORT_BYTES: usize = 1024;
const LINE_BYTES: usize = size_of::<Counter>();
const RANKS_MAX: usize = 64;
/// Sets of slots: a fast rank may begin the next sum while a slow one still reads the last.
const SLOT_SETS: usize = 2;

/// Sizes of a segment; the same at all ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentShape {
    /// Ranks of the worker, the leader (rank 0) included.
    pub ranks: usize,
    /// Ranks of a group that sums together; group `g` has the ranks from `g * group_ranks` on.
    pub group_ranks: usize,
    /// Most words of an order.
    pub order_words_max: usize,
    /// Most f32 values of rows that are summed or passed on at once.
    pub row_values_max: usize,
    /// Most f32 values of the logits of one step.
    pub logit_values_max: usize,
    /// Number of tallies.
    pub tallies: usize,
}

/// Shared memory with the counters, orders, rows and sums of one worker's ranks.
///
/// Orders, boards and sums are plain memory: their users must keep to the order that the counters give.
pub struct Segment {
    memory: HostMemory,
    shape: SegmentShape,
    offsets: Offsets,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    /// Number of the latest order to the rank.
    Ordered,
    /// Number of the latest order that the rank has answered.
    Answered,
    /// Phases of sums that the rank has finished.
    Summed,
}

const NUMBERS: usize = 3;

#[derive(Debug, Clone, Copy)]
struct Offsets {
    numbers: usize,
    reports: usize,
    tallies: usize,
    order: usize,
    rows: usize,
    logits: usize,
    slots: usize,
    end: usize,
}

impl SegmentShape {
    fn check(&self) -> Result<(), CollectiveError> {
        let shape = |what, found, must: &str| Err(CollectiveError::Shape { what, found, must: must.to_owned() });
        if !matches!(self.group_ranks, 1 | 2 | 4 | 8) {
            return shape("number of tensor ranks", self.group_ranks, "1, 2, 4 or 8");
        }
        if self.ranks == 0 || self.ranks > RANKS_MAX || !self.ranks.is_multiple_of(self.group_ranks) {
            return shape("number of ranks", self.ranks, "a multiple of the tensor ranks, at most 64");
        }
        Ok(())
    }

    /// `None` where the sizes cannot be addressed.
    fn offsets(&self) -> Option<Offsets> {
        let values = |count: usize| count.checked_mul(size_of::<f32>()).map(|bytes| bytes.next_multiple_of(LINE_BYTES));
        let numbers = 2 * LINE_BYTES;
        let reports = numbers + self.ranks * NUMBERS * LINE_BYTES;
        let tallies = reports + self.ranks * REPORT_BYTES;
        let order = tallies.checked_add(values(self.tallies.checked_mul(2)?)?)?;
        let rows = order.checked_add(values(self.order_words_max)?)?;
        let logits = rows.checked_add(values(self.row_values_max)?)?;
        let slots = logits.checked_add(values(self.logit_values_max)?)?;
        let end = slots.checked_add(values(self.row_values_max)?.checked_mul(self.ranks * SLOT_SETS)?)?;
        Some(Offsets { numbers, reports, tallies, order, rows, logits, slots, end })
    }

    /// The sizes as words, which both sides compare.
    fn words(&self) -> [u32; 8] {
        let sizes = [self.order_words_max, self.row_values_max, self.logit_values_max, self.tallies];
        let [order, rows, logits, tallies] = sizes.map(|size| size as u32);
        [MAGIC, VERSION, self.ranks as u32, self.group_ranks as u32, order, rows, logits, tallies]
    }
}

impl Segment {
    /// Makes a new segment. Pages that are never used take no memory.
    pub fn new(shape: SegmentShape, backing: Backing) -> Result<Arc<Segment>, CollectiveError> {
        let offsets = laid_out(&shape)?;
        let memory = HostMemory::new(offsets.end, backing)?;
        let segment = Segment { memory, shape, offsets };
        for (note, word) in segment.head().notes.iter().zip(shape.words()) {
            note.store(word, std::sync::atomic::Ordering::Relaxed);
        }
        segment.head().raise(1);
        Ok(Arc::new(segment))
    }

    /// Opens a segment that another process has made in `memory`.
    pub fn open(memory: HostMemory, shape: SegmentShape) -> Result<Arc<Segment>, CollectiveError> {
        let offsets = laid_out(&shape)?;
        if memory.len() < offsets.end {
            let must = format!("at least {}", offsets.end);
            return Err(CollectiveError::Shape { what: "bytes of the segment", found: memory.len(), must });
        }
        let segment = Segment { memory, shape, offsets };
        for (note, word) in segment.head().notes.iter().zip(shape.words()) {
            let found = note.load(std::sync::atomic::Ordering::Relaxed);
            if segment.head().value() != 1 || found != word {
                let what = "a word of the segment's head";
                return Err(CollectiveError::Shape { what, found: found as usize, must: word.to_string() });
            }
        }
        Ok(Arc::new(segment))
    }

    /// Size of a segment of this shape, in bytes.
    pub fn bytes(shape: &SegmentShape) -> Result<usize, CollectiveError> {
        laid_out(shape).map(|offsets| offsets.end)
    }

    /// The mapping, which can be bequeathed to another process.
    pub fn memory(&self) -> &HostMemory {
        &self.memory
    }

    /// Sizes of the segment.
    pub fn shape(&self) -> &SegmentShape {
        &self.shape
    }

    fn head(&self) -> &Counter {
        self.counter(0)
    }

    /// 0 while the group exists; then `1 + rank` of the rank that ended it, or `orders::CLOSED`.
    pub(super) fn over(&self) -> &Counter {
        self.counter(LINE_BYTES)
    }

    pub(super) fn number(&self, rank: usize, number: Number) -> &Counter {
        assert!(rank < self.shape.ranks, "a rank of this segment");
        self.counter(self.offsets.numbers + (rank * NUMBERS + number as usize) * LINE_BYTES)
    }

    fn counter(&self, offset: usize) -> &Counter {
        // SAFETY: counters lie at multiples of 64 bytes below `offsets.numbers + ranks * NUMBERS` lines, inside the
        // mapping; they consist of atomics, which processes may share and for which zeroed memory is a value.
        unsafe { &*self.memory.as_ptr().add(offset).cast::<Counter>() }
    }

    pub(super) fn report(&self, rank: usize) -> *mut u8 {
        assert!(rank < self.shape.ranks, "a rank of this segment");
        self.at(self.offsets.reports + rank * REPORT_BYTES)
    }

    pub(super) fn tallies(&self) -> &[AtomicU64] {
        // SAFETY: so many numbers lie at this multiple of 64 bytes, inside the mapping; processes may share atomics,
        // and zeroed memory is a value of theirs.
        unsafe { std::slice::from_raw_parts(self.at(self.offsets.tallies).cast(), self.shape.tallies) }
    }

    pub(super) fn order(&self) -> *mut u32 {
        self.at(self.offsets.order).cast()
    }

    pub(super) fn rows(&self) -> *mut f32 {
        self.at(self.offsets.rows).cast()
    }

    pub(super) fn logits(&self) -> *mut f32 {
        self.at(self.offsets.logits).cast()
    }

    /// First of the `row_values_max` values of `rank` in the sum of this `round`.
    pub(super) fn slot(&self, rank: usize, round: u32) -> *mut f32 {
        assert!(rank < self.shape.ranks, "a rank of this segment");
        let slot_bytes = (self.offsets.end - self.offsets.slots) / (self.shape.ranks * SLOT_SETS);
        let set = round as usize % SLOT_SETS;
        self.at(self.offsets.slots + (set * self.shape.ranks + rank) * slot_bytes).cast()
    }

    fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset <= self.offsets.end);
        // SAFETY: every offset used lies inside the mapping, which has at least `offsets.end` bytes.
        unsafe { self.memory.as_ptr().add(offset) }
    }
}

fn laid_out(shape: &SegmentShape) -> Result<Offsets, CollectiveError> {
    shape.check()?;
    shape.offsets().ok_or_else(|| CollectiveError::Shape {
        what: "values of the segment's rows",
        found: shape.row_values_max,
        must: "addressable together with orders and logits".to_owned(),
    })
}
