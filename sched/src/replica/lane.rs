//! A lane: one stream of steps with its own limits, over blocks it shares with other lanes; knows no blocks.

use std::collections::{BTreeSet, VecDeque};

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
    pub(super) parts: Vec<Part>,
    /// Parts whose sequence still lives.
    pub(super) living: usize,
    /// Blocks that the step writes to or copies from.
    pub(super) touched: Vec<BlockId>,
    /// Blocks of sequences that have ended meanwhile: the step may still read them.
    pub(super) read: Vec<BlockId>,
}

/// The rows of one sequence in a step.
#[derive(Debug)]
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

    /// A sequence has ended. Returns the steps in which nobody lives any more because of that, in their order.
    pub(super) fn abandon(&mut self, key: SequenceKey) -> Vec<StepId> {
        let mut lifeless = Vec::new();
        for flight in self.flights.iter_mut().filter(|flight| flight.parts.iter().any(|part| part.key == key)) {
            flight.living -= 1;
            if flight.living == 0 {
                lifeless.push(flight.step);
            }
        }
        lifeless
    }

    /// The last step that has rows of a sequence.
    pub(super) fn last_flight_of(&mut self, key: SequenceKey) -> Option<&mut Flight> {
        self.flights.iter_mut().rev().find(|flight| flight.parts.iter().any(|part| part.key == key))
    }

    /// Number of sequences in a place.
    pub(super) fn count(&self, place: Place) -> u32 {
        self.at(place).len() as u32
    }
}
