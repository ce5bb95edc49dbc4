//! A lane: one stream of steps with its own limits, over blocks it shares with other lanes; knows no blocks.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use super::course::Course;
use super::sequence::{Place, SequenceKey};
use super::slots::Slots;
use crate::{BlockId, Choice, LaneId, Role, StepId, Time};

/// Who is where in one lane, and its steps in flight.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) id: LaneId,
    pub(super) role: Role,
    pub(super) slots: Slots,
    /// Steps that the backend holds, in the order in which it runs them.
    pub(super) flights: VecDeque<Flight>,
    /// Rows that have not been through all layers, and whose next layers are in no step yet.
    pub(super) course: Option<Course>,
    /// When the step that ended last started; the next layers of its rows go on from there.
    pub(super) former_started: Time,
    /// Who got the last decode row of the step before; where rows are few, the next one's turn comes after it.
    pub(super) last_decoded: Option<SequenceKey>,
    places: [BTreeSet<SequenceKey>; Place::COUNT],
}

/// A step that the backend runs, or will run next.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) step: StepId,
    /// When it was formed or, if it had to wait for the step before it, when that one ended.
    pub(super) started: Time,
    /// The layers that it runs.
    pub(super) layers: Range<u32>,
    pub(super) parts: Vec<Part>,
    /// Parts whose sequence still lives.
    pub(super) living: usize,
    pub(super) holds: Holds,
}

/// Blocks that stay as they are until a step has ended.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// Those that the step writes to or copies from.
    pub(super) touched: Vec<BlockId>,
    /// Those of sequences that have ended meanwhile: the step may still read them.
    pub(super) read: Vec<BlockId>,
}

impl Holds {
    fn take_over(&mut self, other: Holds) {
        self.touched.extend(other.touched);
        self.read.extend(other.read);
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
}

impl Lane {
    pub(super) fn new(id: LaneId, role: Role, sequences_max: u32) -> Lane {
        Lane {
            id,
            role,
            slots: Slots::new(sequences_max),
            flights: VecDeque::new(),
            course: None,
            former_started: Time(0),
            last_decoded: None,
            places: Default::default(),
        }
    }

    /// The sequences of a place, oldest first.
    pub(super) fn at(&self, place: Place) -> &BTreeSet<SequenceKey> {
        &self.places[place as usize]
    }

    pub(super) fn enter(&mut self, place: Place, key: SequenceKey) {
        let news = self.places[place as usize].insert(key);
        assert!(news, "{key:?} is {place:?} twice");
    }

    pub(super) fn leave(&mut self, place: Place, key: SequenceKey) {
        let known = self.places[place as usize].remove(&key);
        assert!(known, "{key:?} is not {place:?}");
    }

    /// A sequence has ended. Returns the steps in which nobody lives any more because of that, in their order, and what a
    /// course held that ends with them; a step of it that has not ended holds that on.
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

    /// What the last step that will have rows of a sequence holds; `None` if there is no such step.
    pub(super) fn holds_of(&mut self, key: SequenceKey) -> Option<&mut Holds> {
        if let Some(course) = self.course.as_mut().filter(|course| has(&course.parts, key)) {
            return Some(&mut course.holds);
        }
        self.flights.iter_mut().rev().find(|flight| has(&flight.parts, key)).map(|flight| &mut flight.holds)
    }

    /// What is held for steps, and for what has yet to become one.
    pub(super) fn all_holds(&self) -> impl Iterator<Item = &Holds> {
        self.flights.iter().map(|flight| &flight.holds).chain(self.course.iter().map(|course| &course.holds))
    }

    /// Nothing is in flight or has to be.
    pub(super) fn is_idle(&self) -> bool {
        self.flights.is_empty() && self.course.is_none()
    }

    /// Number of sequences in a place.
    pub(super) fn count(&self, place: Place) -> u32 {
        self.at(place).len() as u32
    }
}

fn has(parts: &[Part], key: SequenceKey) -> bool {
    parts.iter().any(|part| part.key == key)
}
