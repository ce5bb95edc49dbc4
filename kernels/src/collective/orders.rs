//! A leader tells ranks what to do next and hears how it went; knows no meaning of an order.
//!
//! There is one order at a time: the next one is written when all who were given the last have answered. An order and
//! its answer also order memory: what a rank wrote before it answered is seen by whoever is ordered afterwards.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::counter::{Patience, Unmet};
use super::segment::{Number, REPORT_BYTES};
use super::{CollectiveError, Segment};

/// The value of `Segment::over` after the leader has gone; others are `1 + rank` of a rank that has ended.
const CLOSED: u32 = u32::MAX;
/// Length and kind before the text of a report.
const REPORT_HEAD_BYTES: usize = 2 * size_of::<u32>();
/// How an order went, in the note beside its answer.
const WENT_WELL: u32 = 1;

/// The side that gives orders; its drop ends the group.
pub struct Leader {
    segment: Arc<Segment>,
    sequence: u32,
    /// Who has not answered yet.
    awaited: Vec<usize>,
}

impl Leader {
    /// The leader of a fresh segment.
    pub fn new(segment: &Arc<Segment>) -> Leader {
        Leader { segment: Arc::clone(segment), sequence: 0, awaited: Vec::new() }
    }

    /// Gives an order to some ranks. All answers to the last one must have been heard.
    pub fn give(&mut self, ranks: impl IntoIterator<Item = usize>, order: &[u32]) -> Result<(), CollectiveError> {
        let max = self.segment.shape().order_words_max;
        if order.len() > max {
            return Err(CollectiveError::TooLarge { what: "words of an order", count: order.len(), max });
        }
        if let Some(&rank) = self.awaited.first() {
            return Err(CollectiveError::Late { rank, what: "answered the last order", waited: Duration::ZERO });
        }
        // SAFETY: the order has room for `max` words, and nobody reads it: all who were given the last one have answered.
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

    /// Waits until everybody has answered; the first error that one of them said.
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
        // Sleepers look at `over` when they are woken for nothing. One that is about to sleep can miss this wake, because no
        // number changes; it looks by itself soon.
        for rank in 0..self.segment.shape().ranks {
            let ordered = self.segment.number(rank, Number::Ordered);
            ordered.raise(ordered.value());
        }
    }
}

/// What a follower heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// An order; it must be answered.
    Order,
    /// The group is over.
    End,
}

/// The side that follows orders. If it is dropped before the group is over, the group is over.
pub struct Follower {
    segment: Arc<Segment>,
    rank: usize,
    sequence: u32,
}

impl Follower {
    /// Rank `rank` of a segment, which is not the leader's.
    pub fn new(segment: &Arc<Segment>, rank: usize) -> Result<Follower, CollectiveError> {
        let ranks = segment.shape().ranks;
        if rank == 0 || rank >= ranks {
            let must = format!("between 1 and {}", ranks - 1);
            return Err(CollectiveError::Shape { what: "rank of a follower", found: rank, must });
        }
        Ok(Follower { segment: Arc::clone(segment), rank, sequence: 0 })
    }

    /// Waits for the next order, as long as the group exists, and copies it into `order`.
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
        // Orders to others have numbers too.
        self.sequence = ordered.value();
        let len = (ordered.notes[0].load(Ordering::Relaxed) as usize).min(self.segment.shape().order_words_max);
        order.clear();
        order.reserve(len);
        // SAFETY: the segment has room for `len` words, which the leader leaves alone until this rank has answered; the
        // vector has room for them, and every word is a value.
        unsafe {
            std::ptr::copy_nonoverlapping(self.segment.order().cast_const(), order.as_mut_ptr(), len);
            order.set_len(len);
        }
        Heard::Order
    }

    /// Answers the order that was heard last; an error has a kind, of which this knows nothing, and a text.
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
        // Whoever catches the panic says what it was.
        if std::thread::panicking() {
            return;
        }
        self.segment.over().set_once(1 + self.rank as u32);
    }
}

impl Segment {
    /// Ends the group because `rank` has ended; for whoever keeps it. Does nothing when the group is over.
    pub fn declare_ended(&self, rank: usize, said: &str) {
        if rank < self.shape().ranks && self.over().value() == 0 {
            self.say(rank, 0, said);
            self.over().set_once(1 + rank as u32);
        }
    }

    /// Whether the group has ended.
    pub fn is_over(&self) -> bool {
        self.over().value() != 0
    }

    /// Why the group has ended, if it has.
    pub fn why_over(&self) -> Option<CollectiveError> {
        self.is_over().then(|| self.unmet(Unmet::Over, 0, ""))
    }

    /// Why a wait for `rank` has failed.
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

    /// Ends the group because `rank` was waited for in vain: whoever asks later hears the same reason.
    fn give_up(&self, rank: usize, waited: Duration) {
        if !self.is_over() {
            let waited_ms = u32::try_from(waited.as_millis()).unwrap_or(u32::MAX).max(1);
            self.over().notes[0].store(waited_ms, Ordering::Relaxed);
            self.over().set_once(1 + rank as u32);
        }
    }

    /// Leaves a text in a rank's name, cut to what fits, behind its length and its kind.
    fn say(&self, rank: usize, kind: u32, said: &str) {
        let bytes = &said.as_bytes()[..said.len().min(REPORT_BYTES - REPORT_HEAD_BYTES)];
        let report = self.report(rank);
        // SAFETY: a report has `REPORT_BYTES` bytes and begins at a multiple of 64; one rank writes it, or its keeper when
        // the rank is no more.
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
