//! Sequences by place, oldest first; knows no lane and no block.

use std::collections::BTreeSet;

use super::sequence::{Place, SequenceKey};

#[derive(Debug, Default)]
pub(super) struct Places([BTreeSet<SequenceKey>; Place::COUNT]);

impl Places {
    pub(super) fn at(&self, place: Place) -> &BTreeSet<SequenceKey> {
        &self.0[place as usize]
    }

    pub(super) fn count(&self, place: Place) -> u32 {
        self.at(place).len() as u32
    }

    pub(super) fn enter(&mut self, place: Place, key: SequenceKey) {
        let news = self.0[place as usize].insert(key);
        assert!(news, "{key:?} is {place:?} twice");
    }

    pub(super) fn leave(&mut self, place: Place, key: SequenceKey) {
        let known = self.0[place as usize].remove(&key);
        assert!(known, "{key:?} is not {place:?}");
    }
}
