//! Load of a worker, for routing and metrics.

use super::Replica;
use super::leg::Stage;
use super::sequence::{Place, SequenceKey};
use crate::message::Load;

impl Replica {
    /// A snapshot of the worker's queues and blocks. O(sequences).
    #[must_use]
    pub fn load(&self) -> Load {
        let mut load = Load {
            blocks_free: self.pool.free(),
            blocks_cached: self.pool.cached(),
            blocks_in_use: self.pool.in_use(),
            blocks_quarantined: self.pool.quarantined(),
            cached_tokens: self.cached_tokens,
            preemptions: self.preemptions,
            foreign_claims: self.foreign_claims,
            ..Load::default()
        };
        let (places, count) = (&self.places, |place| self.places.count(place));
        let filling = places.at(Place::Filling);
        let started = filling.iter().filter(|key| self.has_started(**key)).count() as u32;
        let at_rest = [Place::Unmet, Place::Waiting, Place::Preempted, Place::Taking, Place::Ready].map(count);
        load.running = count(Place::Running) + started;
        load.waiting = at_rest.iter().sum::<u32>() + filling.len() as u32 - started;
        load.held = count(Place::Held);
        let to_compute = [Place::Waiting, Place::Preempted, Place::Filling, Place::Running];
        let keys = to_compute.iter().flat_map(|place| places.at(*place));
        load.waiting_tokens = keys.map(|key| self.tokens_to_compute(*key)).sum();
        load
    }

    fn has_started(&self, key: SequenceKey) -> bool {
        self.legs.get(&self.sequences.at(key).leg).is_some_and(|run| run.timing.has_started())
    }

    /// Counts tokens that will be prefilled here; those of an offer are pulled instead.
    fn tokens_to_compute(&self, key: SequenceKey) -> u64 {
        let sequence = self.sequences.at(key);
        let taken_over = sequence.place == Place::Waiting
            && matches!(self.legs.get(&sequence.leg).map(|run| &run.stage), Some(Stage::Take(_)));
        let decodes = sequence.place == Place::Running && sequence.computed >= sequence.prompt.len() as u32;
        match taken_over || decodes {
            true => 0,
            false => u64::from(sequence.len() - sequence.computed),
        }
    }
}
