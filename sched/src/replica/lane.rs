//! A lane: one stream of steps with its own limits, over sequences, slots and blocks of the worker; knows none of them.

use std::collections::VecDeque;
use std::ops::Range;

use super::LaneConfig;
use super::course::Course;
use super::sequence::SequenceKey;
use crate::cost::StepWork;
use crate::{BlockId, Choice, LaneId, SlotId, StepId, Time};

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) id: LaneId,
    pub(super) config: LaneConfig,
    /// Steps that the backend holds, in the order in which it runs them.
    pub(super) flights: VecDeque<Flight>,
    /// Rows that have layers left which are in no step yet.
    pub(super) course: Option<Course>,
    /// Start of the step that ended last, which also counts for a step that continues its rows.
    pub(super) former_started: Time,
    /// Sequence that got the last decode row; where rows are few, the next step's turns begin after it.
    pub(super) last_decoded: Option<SequenceKey>,
}

/// A step that the backend runs, or will run next.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) step: StepId,
    /// When it was formed or the step before it ended, whichever is later; in a course, when its first step started.
    pub(super) started: Time,
    /// What it asks of the device, and since when it runs.
    pub(super) work: StepWork,
    pub(super) runs_since: Time,
    pub(super) layers: Range<u32>,
    pub(super) parts: Vec<Part>,
    /// Parts whose sequence still lives.
    pub(super) living: usize,
    pub(super) holds: Holds,
}

/// Blocks and slots that are not reused until a step has ended.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// Blocks that the step writes to or copies from.
    pub(super) touched: Vec<BlockId>,
    /// Blocks of sequences that have ended meanwhile: the step may still read them.
    pub(super) read: Vec<BlockId>,
    /// Slots of such sequences: the step may still sample them.
    pub(super) named: Vec<SlotId>,
}

impl Holds {
    fn take_over(&mut self, other: Holds) {
        self.touched.extend(other.touched);
        self.read.extend(other.read);
        self.named.extend(other.named);
    }
}

/// The rows of one sequence in a step.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) key: SequenceKey,
    /// Positions stored when the step is done.
    pub(super) computed: u32,
    /// Choices that get a token, in the order of the step's samples.
    pub(super) sampled: Vec<Choice>,
    /// Positions of the prompt tokens that are scored, in the order of the step's scores.
    pub(super) scored: Range<u32>,
}

impl Lane {
    pub(super) fn new(id: LaneId, config: LaneConfig) -> Lane {
        Lane { id, config, flights: VecDeque::new(), course: None, former_started: Time(0), last_decoded: None }
    }

    /// Counts an ended sequence out. Returns the steps in which no sequence lives any more, in their order, and the
    /// holds of a course that ends with it, unless a step of the course is in flight and takes them over.
    pub(super) fn abandon(&mut self, key: SequenceKey) -> (Vec<StepId>, Holds) {
        let mut lifeless = Vec::new();
        for flight in self.flights.iter_mut().filter(|flight| has(&flight.parts, key)) {
            flight.living -= 1;
            if flight.living == 0 {
                lifeless.push(flight.step);
            }
        }
        (lifeless, self.abandon_course(key))
    }

    fn abandon_course(&mut self, key: SequenceKey) -> Holds {
        let Some(course) = self.course.as_mut().filter(|course| has(&course.parts, key)) else {
            return Holds::default();
        };
        course.living -= 1;
        if course.living > 0 {
            return Holds::default();
        }
        let holds = self.course.take().map(|course| course.holds).unwrap_or_default();
        match self.flights.back_mut() {
            Some(last) => {
                last.holds.take_over(holds);
                Holds::default()
            }
            None => holds,
        }
    }

    /// Holds of the course, else of the last step, that has rows of a sequence.
    pub(super) fn holds_of(&mut self, key: SequenceKey) -> Option<&mut Holds> {
        if let Some(course) = self.course.as_mut().filter(|course| has(&course.parts, key)) {
            return Some(&mut course.holds);
        }
        self.flights.iter_mut().rev().find(|flight| has(&flight.parts, key)).map(|flight| &mut flight.holds)
    }

    /// Rows of a sequence in steps in flight and in the course, in their order.
    pub(super) fn parts_of(&self, key: SequenceKey) -> Vec<&Part> {
        let in_flight = self.flights.iter().flat_map(|flight| &flight.parts);
        let ahead = self.course.iter().flat_map(|course| &course.parts);
        in_flight.chain(ahead).filter(|part| part.key == key).collect()
    }

    pub(super) fn all_holds(&self) -> impl Iterator<Item = &Holds> {
        self.flights.iter().map(|flight| &flight.holds).chain(self.course.iter().map(|course| &course.holds))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.flights.is_empty() && self.course.is_none()
    }
}

fn has(parts: &[Part], key: SequenceKey) -> bool {
    parts.iter().any(|part| part.key == key)
}
