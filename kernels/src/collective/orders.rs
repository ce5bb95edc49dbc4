//! Orders of a leader to the other ranks, and their answers; knows no meaning of an order.
//!
//! There is one order at a time: the leader writes the next one when all ranks that were given the last one have
//! answered. Order and answer also order memory: whoever gets a later order sees what a rank wrote before it answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::counter::{Patience, Unmet};
use super::segment::{Number, REPORT_BYTES};
use super::{CollectiveError, Segment};

/// Value of `Segment::over` after the leader has closed the segment; `1 + rank` names a rank that has ended.
const CLOSED: u32 = u32::MAX;
/// Bytes of length and kind before the text of a report.
const REPORT_HEAD_BYTES: usize = 2 * size_of::<u32>();
/// Outcome of an order, in the note of its answer.
const WENT_WELL: u32 = 1;

/// The rank that gives orders; dropping it ends the group.
pub struct Leader {
    segment: Arc<Segment>,
    sequence: u32,
    awaited: Vec<usize>,
}

impl Leader {
    /// Makes the leader of a new segment.
    pub fn new(segment: &Arc<Segment>) -> Leader {
        Leader { segment: Arc::clone(segment), sequence: 0, awaited: Vec::new() }
    }

    /// Gives an order to some ranks. All answers to the last order must have been heard.
    pub fn give(&mut self, ranks: impl IntoIterator<Item = usize>, order: &[u32]) -> Result<(), CollectiveError> {
        let max = self.segment.shape().order_words_max;
        if order.len() > max {
            return Err(CollectiveError::TooLarge { what: "words of an order", count: order.len(), max });
        }
        if let Some(&rank) = self.awaited.first() {
            return Err(CollectiveError::Late { rank, what: "answered the last order", waited: Duration::ZERO });
        }
        // SAFETY: the order has room for `max` words, and nobody reads it: the last order was answered by all its
        // ranks.
        unsafe { std::ptr::copy_nonoverlapping(order.as_ptr(), self.segment.order(), order.len()) };
        self.sequence = self.sequence.wrapping_add(1);
        for rank in ranks {
            let ordered = self.segment.number(rank, Number::Ordered);
            ordered.notes[0].store(order.len() as u32, Ordering::Relaxed);
            ordered.raise(self.sequence);
            self.awaited.push(rank);
        }
        Ok(())
    }

    /// Waits for all answers; returns the first error among them.
    pub fn hear(&mut self, patience: Patience) -> Result<(), CollectiveError> {
        let mut first = Ok(());
        for rank in std::mem::take(&mut self.awaited) {
            let answered = self.segment.number(rank, Number::Answered);
            let met = answered.wait_for(self.sequence, self.segment.over(), patience);
            met.map_err(|unmet| self.segment.unmet(unmet, rank, "answered"))?;
            if answered.notes[0].load(Ordering::Relaxed) != WENT_WELL && first.is_ok() {
                let (kind, said) = self.segment.said(rank);
                first = Err(CollectiveError::Failed { rank, kind, said });
            }
        }
        first
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.segment.over().set_once(CLOSED);
        // A woken rank reads `over` even if its number is unchanged. One that is about to sleep can miss this wake; it
        // reads `over` at its next timeout.
        for rank in 0..self.segment.shape().ranks {
            let ordered = self.segment.number(rank, Number::Ordered);
            ordered.raise(ordered.value());
        }
    }
}

/// Result of a follower's wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A new order, which must be answered.
    Order,
    /// The group has ended.
    End,
}

/// A rank that follows orders. If it is dropped before the group has ended, the group ends.
pub struct Follower {
    segment: Arc<Segment>,
    rank: usize,
    sequence: u32,
}

impl Follower {
    /// Makes the follower for `rank`, which is not the leader's.
    pub fn new(segment: &Arc<Segment>, rank: usize) -> Result<Follower, CollectiveError> {
        let ranks = segment.shape().ranks;
        if rank == 0 || rank >= ranks {
            let must = format!("between 1 and {}", ranks - 1);
            return Err(CollectiveError::Shape { what: "rank of a follower", found: rank, must });
        }
        Ok(Follower { segment: Arc::clone(segment), rank, sequence: 0 })
    }

    /// Waits for the next order as long as the group exists, and copies it into `order`.
    pub fn next(&mut self, order: &mut Vec<u32>, spin: Duration) -> Heard {
        const LOOK: Duration = Duration::from_secs(1);
        let ordered = self.segment.number(self.rank, Number::Ordered);
        let next = self.sequence.wrapping_add(1);
        loop {
            match ordered.wait_for(next, self.segment.over(), Patience { spin, limit: LOOK }) {
                Ok(()) => break,
                Err(Unmet::Over) => return Heard::End,
                Err(Unmet::Late(_)) => {}
            }
        }
        // Orders to other ranks are numbered too.
        self.sequence = ordered.value();
        let len = (ordered.notes[0].load(Ordering::Relaxed) as usize).min(self.segment.shape().order_words_max);
        order.clear();
        order.reserve(len);
        // SAFETY: the segment has room for `len` words, which the leader does not change until this rank has answered;
        // the vector has room for them, and every word is a value.
        unsafe {
            std::ptr::copy_nonoverlapping(self.segment.order().cast_const(), order.as_mut_ptr(), len);
            order.set_len(len);
        }
        Heard::Order
    }

    /// Answers the last order; an error has a kind, which is only passed on, and a text.
    pub fn answer(&mut self, outcome: Result<(), (u32, &str)>) {
        if let Err((kind, said)) = outcome {
            self.segment.say(self.rank, kind, said);
        }
        let answered = self.segment.number(self.rank, Number::Answered);
        let went = if outcome.is_ok() { WENT_WELL } else { 0 };
        answered.notes[0].store(went, Ordering::Relaxed);
        answered.raise(self.sequence);
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // The code that catches the panic reports it.
        if std::thread::panicking() {
            return;
        }
        self.segment.over().set_once(1 + self.rank as u32);
    }
}

impl Segment {
    /// Ends the group because `rank` has ended; called by its keeper. Does nothing when the group has ended.
    pub fn declare_ended(&self, rank: usize, said: &str) {
        if rank < self.shape().ranks && self.over().value() == 0 {
            self.say(rank, 0, said);
            self.over().set_once(1 + rank as u32);
        }
    }

    /// True once the group has ended.
    pub fn is_over(&self) -> bool {
        self.over().value() != 0
    }

    /// Reason why the group has ended, if it has.
    pub fn why_over(&self) -> Option<CollectiveError> {
        self.is_over().then(|| self.unmet(Unmet::Over, 0, ""))
    }

    /// The error for a failed wait for `rank`.
    pub(super) fn unmet(&self, unmet: Unmet, rank: usize, what: &'static str) -> CollectiveError {
        match (unmet, self.over().value()) {
            (Unmet::Late(waited), _) => {
                self.give_up(rank, waited);
                CollectiveError::Late { rank, what, waited }
            }
            (Unmet::Over, CLOSED) => CollectiveError::Closed,
            (Unmet::Over, ended) => {
                let rank = (ended as usize).saturating_sub(1).min(self.shape().ranks - 1);
                match self.over().notes[0].load(Ordering::Relaxed) {
                    0 => {
                        let (kind, said) = self.said(rank);
                        CollectiveError::Ended { rank, kind, said }
                    }
                    waited_ms => CollectiveError::Late {
                        rank,
                        what: "come",
                        waited: Duration::from_millis(u64::from(waited_ms)),
                    },
                }
            }
        }
    }

    /// Ends the group because `rank` is late, with a reason for all who ask later.
    fn give_up(&self, rank: usize, waited: Duration) {
        if !self.is_over() {
            let waited_ms = u32::try_from(waited.as_millis()).unwrap_or(u32::MAX).max(1);
            self.over().notes[0].store(waited_ms, Ordering::Relaxed);
            self.over().set_once(1 + rank as u32);
        }
    }

    /// Writes a report for a rank: length, kind and as much of the text as fits.
    fn say(&self, rank: usize, kind: u32, said: &str) {
        let bytes = &said.as_bytes()[..said.len().min(REPORT_BYTES - REPORT_HEAD_BYTES)];
        let report = self.report(rank);
        // SAFETY: a report has `REPORT_BYTES` bytes and begins at a multiple of 64; only the rank writes it, or its
        // keeper after the rank has ended.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), report.add(REPORT_HEAD_BYTES), bytes.len());
            report.cast::<[u32; 2]>().write([bytes.len() as u32, kind]);
        }
    }

    fn said(&self, rank: usize) -> (u32, String) {
        let report = self.report(rank);
        let mut bytes = [0; REPORT_BYTES];
        // SAFETY: a report has `REPORT_BYTES` bytes; its writer has answered or ended.
        unsafe { std::ptr::copy_nonoverlapping(report.cast_const(), bytes.as_mut_ptr(), REPORT_BYTES) };
        let (head, text) = bytes.split_at(REPORT_HEAD_BYTES);
        let word = |at: usize| head[at..at + 4].iter().rev().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        let (len, kind) = (word(0) as usize, word(4));
        (kind, String::from_utf8_lossy(&text[..len.min(text.len())]).into_owned())
    }
}
