//! Finds a block for the next token of every running sequence, by preempting the youngest when there is none.

use super::Replica;
use super::draft::Draft;
use super::leg::Stage;
use super::sequence::{Place, SequenceKey};

/// Block that the next position of a sequence needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// None: the sequence has a block of its own there.
    Nothing,
    Growth,
    /// A copy of the block at this index, which it shares with another choice and is about to write.
    Copy(u32),
}

impl Replica {
    /// Gives every sequence of `picked` (oldest first) a block to write its next position to; returns those that keep
    /// running. Preempts only sequences younger than the one in need, so the oldest always goes on.
    pub(super) fn make_room(&mut self, picked: Vec<SequenceKey>, draft: &mut Draft) -> Vec<SequenceKey> {
        let mut kept = Vec::with_capacity(picked.len());
        for key in picked {
            if self.sequences.at(key).place == Place::Running && self.make_room_for(key, draft) {
                kept.push(key);
            }
        }
        kept
    }

    /// True if `picked` needs no preemption. May count a shared block twice, which is conservative.
    pub(super) fn has_room(&self, picked: &[SequenceKey]) -> bool {
        let wants =
            |key: &&SequenceKey| self.need(**key) != Need::Nothing && self.sequences.at(**key).spares.is_empty();
        picked.iter().filter(wants).count() <= self.pool.available() as usize
    }

    fn make_room_for(&mut self, key: SequenceKey, draft: &mut Draft) -> bool {
        loop {
            let need = self.need(key);
            if need == Need::Nothing {
                return true;
            }
            let sequence = self.sequences.at_mut(key);
            let Some(block) = sequence.spares.pop().or_else(|| self.pool.allocate()) else {
                let Some(victim) = self.victim(key) else { return false };
                self.preempt(victim);
                if victim == key {
                    return false;
                }
                continue;
            };
            match need {
                Need::Nothing => {}
                Need::Growth => sequence.table.push(block),
                Need::Copy(index) => {
                    draft.copy(sequence.table.blocks()[index as usize], block, &mut self.pool);
                    sequence.table.replace(index, block, &mut self.pool);
                }
            }
            return true;
        }
    }

    fn need(&self, key: SequenceKey) -> Need {
        let sequence = self.sequences.at(key);
        let index = sequence.submitted / self.config.block_tokens;
        match sequence.table.blocks().get(index as usize) {
            None => Need::Growth,
            Some(block) if self.pool.references(*block) > 1 => Need::Copy(index),
            Some(_) => Need::Nothing,
        }
    }

    /// Sequence that loses its blocks to `key`: the youngest that may yield, else `key` itself. `None` while a step of
    /// another lane computes it; the end of that step decides again.
    fn victim(&self, key: SequenceKey) -> Option<SequenceKey> {
        let younger = |place| self.places.at(place).iter().rev().take_while(|other| **other > key);
        let yields = |place| younger(place).copied().find(|other| self.may_yield(*other, key));
        let victim = [Place::Running, Place::Ready, Place::Filling].into_iter().filter_map(yields).max().unwrap_or(key);
        let sequence = self.sequences.at(victim);
        (sequence.submitted == sequence.computed).then_some(victim)
    }

    /// True if a sequence may lose its blocks to an older one. A prompt that is reserved for a reader never does.
    pub(super) fn may_yield(&self, key: SequenceKey, to: SequenceKey) -> bool {
        let leg = self.sequences.at(key).leg;
        key > to && !matches!(self.legs.get(&leg).map(|run| &run.stage), Some(Stage::Give(_)))
    }

    /// Oldest running sequence that cannot go on for want of a block. Prompts that may have to make room for it are
    /// left out of further steps, so that their lane lets go of them.
    pub(super) fn wants_room(&self) -> Option<SequenceKey> {
        let context_max = self.config.context_max;
        let stuck = |key: &SequenceKey| {
            let sequence = self.sequences.at(*key);
            sequence.goes_on(context_max) && sequence.spares.is_empty() && self.need(*key) != Need::Nothing
        };
        let full = self.pool.available() == 0;
        full.then(|| self.places.at(Place::Running).iter().copied().find(stuck)).flatten()
    }

    fn preempt(&mut self, key: SequenceKey) {
        self.preemptions += 1;
        self.move_to(key, Place::Preempted);
        self.free_slots(key);
        let sequence = self.sequences.at_mut(key);
        assert!(sequence.submitted == sequence.computed, "{key:?} is preempted while a step computes it");
        sequence.drop_blocks(&mut self.pool);
    }
}
