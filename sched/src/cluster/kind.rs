//! Workers that give the same bits, and how many sequences they run at once; knows no link.

use std::collections::BTreeMap;

use super::Worker;
use crate::{CompatKey, ModelId, Role};

/// Workers that give the same bits from the same request: one model, one compatibility key. A request that has begun at one
/// of them goes on at one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    /// What they serve.
    pub model: ModelId,
    /// What they compute it with: weights, formats, kernels.
    pub compat: CompatKey,
}

/// How many sequences workers run at once, by kind and role.
#[derive(Debug, Clone, Default)]
pub(super) struct Rooms {
    counts: BTreeMap<(Kind, Role, u32), u32>,
}

impl Rooms {
    pub(super) fn insert(&mut self, worker: &Worker) {
        *self.counts.entry(room_of(worker)).or_insert(0) += 1;
    }

    pub(super) fn remove(&mut self, worker: &Worker) {
        if let Some(count) = self.counts.get_mut(&room_of(worker)) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&room_of(worker));
            }
        }
    }

    /// The most that one worker runs.
    pub(super) fn most(&self, kind: Kind, role: Role) -> u32 {
        let rooms = self.counts.range((kind, role, 0)..=(kind, role, u32::MAX));
        rooms.last().map_or(0, |((_, _, sequences), _)| *sequences)
    }
}

fn room_of(worker: &Worker) -> (Kind, Role, u32) {
    (worker.info.kind(), worker.info.role, worker.info.sequences_max)
}
