//! Reserves blocks and slots: for preempted sequences first, then for newcomers in their order.

use super::Replica;
use super::leg::Stage;
use super::sequence::{Place, Sequence, SequenceKey};
use super::slots::Seat;
use crate::LaneId;
use crate::block::BlockState;

/// Source of the KV cache of a sequence that gets blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Computed here, which needs one slot per choice.
    Fill,
    /// Pulled from a giver.
    Take,
}

impl Replica {
    /// Admits sequences in order while they fit: the first that does not fit stops all behind it.
    pub(super) fn admit(&mut self) {
        self.seat_ready();
        while let Some(key) = self.places.at(Place::Preempted).first().copied() {
            if !self.admit_one(key) {
                return;
            }
        }
        while let Some(key) = self.next_newcomer() {
            let full = self.filling_blocks > self.config.filling_blocks_max();
            if full || !self.admit_one(key) {
                return;
            }
        }
    }

    /// Gives free slots to sequences whose KV cache is complete.
    fn seat_ready(&mut self) {
        while let Some(key) = self.places.at(Place::Ready).first().copied() {
            if !self.take_slots(key, self.decode_lane) {
                return;
            }
            self.move_to(key, Place::Running);
        }
    }

    fn admit_one(&mut self, key: SequenceKey) -> bool {
        let purpose = self.purpose(key);
        if purpose == Purpose::Fill && !self.has_slots(key, self.prefill_lane) {
            return false;
        }
        if !self.reserve_blocks(key, purpose) {
            return false;
        }
        match purpose {
            Purpose::Fill => {
                self.take_slots(key, self.prefill_lane);
                self.move_to(key, Place::Filling);
                self.open_give(key);
            }
            Purpose::Take => {
                self.move_to(key, Place::Taking);
                self.reserved_for_take(key);
            }
        }
        true
    }

    /// A preempted sequence is computed here, wherever it came from.
    fn purpose(&self, key: SequenceKey) -> Purpose {
        let sequence = self.sequences.at(key);
        let newcomer = sequence.place == Place::Waiting;
        match self.legs.get(&sequence.leg).map(|run| &run.stage) {
            Some(Stage::Take(_)) if newcomer => Purpose::Take,
            Some(Stage::Take(_) | Stage::Whole | Stage::Give(_)) | None => Purpose::Fill,
        }
    }

    fn has_slots(&self, key: SequenceKey, lane: LaneId) -> bool {
        let wanted = self.sequences.at(key).members.len();
        self.slots.open_to(lane).take(wanted).count() == wanted
    }

    /// Takes one slot per choice of the sequence, or none if too few are free; a step of `lane` seats them.
    fn take_slots(&mut self, key: SequenceKey, lane: LaneId) -> bool {
        let seats = self.has_slots(key, lane);
        if seats {
            for member in &mut self.sequences.at_mut(key).members {
                member.slot = self.slots.take(lane).map(|slot| (slot, Seat::Promised));
            }
        }
        seats
    }

    /// Reserves everything at once: blocks found by content, new ones for the rest, and a spare per choice if the
    /// sequence joins another batch, so that joining cannot fail. Leaves each running sequence one block to grow.
    fn reserve_blocks(&mut self, key: SequenceKey, purpose: Purpose) -> bool {
        let block_tokens = self.config.block_tokens;
        let found = self.find_prefix(key, purpose);
        let sequence = self.sequences.at(key);
        let needed = sequence.blocks_needed(block_tokens);
        let spares = match self.joins(sequence, purpose) {
            true => (sequence.members.len() as u32).min(self.pool.total() - needed),
            false => 0,
        };
        let growth = self.places.count(Place::Running) + self.places.count(Place::Ready);
        // Found blocks that a step still reads are not among the available ones.
        let idle_found = found.iter().filter(|block| self.pool.state(**block) == BlockState::Cached).count() as u32;
        let fresh = needed - found.len() as u32 + spares;
        if fresh + growth > self.pool.available() - idle_found || !self.future_fits(key) {
            return false;
        }
        let sequence = self.sequences.at_mut(key);
        for block in &found {
            self.pool.acquire(*block);
            sequence.table.push(*block);
        }
        for _ in found.len() as u32..needed {
            self.pool.allocate().into_iter().for_each(|block| sequence.table.push(block));
        }
        sequence.spares.extend((0..spares).filter_map(|_| self.pool.allocate()));
        sequence.has_stored(found.len() as u32 * block_tokens);
        sequence.published = found.len() as u32;
        if sequence.place == Place::Waiting {
            // A preempted sequence finds its own blocks again, which is no saving.
            let spared = sequence.computed.min(sequence.prompt.len() as u32);
            let leg = sequence.leg;
            self.cached_tokens += u64::from(spared);
            if let Some(run) = self.legs.get_mut(&leg) {
                run.timing.found(spared);
            }
        }
        true
    }

    /// Whether a sequence that is complete joins a batch other than the one that completed it.
    fn joins(&self, sequence: &Sequence, purpose: Purpose) -> bool {
        let gives = matches!(self.legs.get(&sequence.leg).map(|run| &run.stage), Some(Stage::Give(_)));
        match purpose {
            Purpose::Fill => self.prefill_lane != self.decode_lane && !gives,
            Purpose::Take => true,
        }
    }

    /// Finds cached blocks of the sequence's beginning. If it is computed here its last token is left, for the logits.
    fn find_prefix(&mut self, key: SequenceKey, purpose: Purpose) -> Vec<crate::BlockId> {
        if self.config.prefix_cache == super::PrefixCache::Off {
            return Vec::new();
        }
        let sequence = self.sequences.at_mut(key);
        if purpose == Purpose::Fill && sequence.scored_with().is_some() {
            // Cached positions have no logits, so what is scored is computed.
            return Vec::new();
        }
        let reusable = match purpose {
            Purpose::Fill => sequence.len() - 1,
            Purpose::Take => sequence.len(),
        };
        self.pool.find_leading(sequence.names(reusable / self.config.block_tokens))
    }
}
