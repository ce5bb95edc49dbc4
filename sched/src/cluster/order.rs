//! Workers that take new legs, least busy first; knows no pair.

use std::collections::{BTreeMap, BTreeSet};

use super::{Intake, Kind, Worker};
use crate::{Role, WorkerId};

/// Workers that take new legs, by kind and role.
#[derive(Debug, Clone, Default)]
pub(super) struct Orders {
    of: BTreeMap<(Kind, Role), Order>,
}

#[derive(Debug, Clone, Default)]
struct Order {
    by_prompts: BTreeSet<(u64, u64, WorkerId)>,
    by_sequences: BTreeSet<(u64, WorkerId)>,
}

impl Orders {
    pub(super) fn insert(&mut self, worker: &Worker) {
        if worker.intake == Intake::Open {
            let (prompts, sequences) = (worker.waiting_tokens(), worker.sequences());
            let order = self.of.entry((worker.info.kind(), worker.info.role)).or_default();
            order.by_prompts.insert((prompts, sequences, worker.id));
            order.by_sequences.insert((sequences, worker.id));
        }
    }

    pub(super) fn remove(&mut self, worker: &Worker) {
        let key = (worker.info.kind(), worker.info.role);
        if let Some(order) = self.of.get_mut(&key) {
            let (prompts, sequences) = (worker.waiting_tokens(), worker.sequences());
            order.by_prompts.remove(&(prompts, sequences, worker.id));
            order.by_sequences.remove(&(sequences, worker.id));
            if order.by_sequences.is_empty() {
                self.of.remove(&key);
            }
        }
    }

    pub(super) fn by_prompts(&self, kind: Kind, role: Role) -> impl Iterator<Item = WorkerId> {
        self.of.get(&(kind, role)).into_iter().flat_map(|order| &order.by_prompts).map(|(_, _, id)| *id)
    }

    pub(super) fn by_sequences(&self, kind: Kind, role: Role) -> impl Iterator<Item = WorkerId> {
        self.of.get(&(kind, role)).into_iter().flat_map(|order| &order.by_sequences).map(|(_, id)| *id)
    }
}
