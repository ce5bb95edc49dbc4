//! How long a sequence each worker can bring to its last token, and the longest of all; knows no link.

use std::collections::BTreeMap;

use crate::{ModelId, WorkerId};

/// Those that can bring any.
#[derive(Debug, Clone, Default)]
pub(super) struct Reaches {
    of: BTreeMap<WorkerId, (ModelId, u32)>,
    /// How many reach so far.
    counts: BTreeMap<(ModelId, u32), u32>,
}

impl Reaches {
    /// A worker reaches so far now, or nowhere.
    pub(super) fn set(&mut self, id: WorkerId, reach: Option<(ModelId, u32)>) {
        let before = match reach {
            Some(reach) => self.of.insert(id, reach),
            None => self.of.remove(&id),
        };
        if let Some(reach) = reach {
            *self.counts.entry(reach).or_insert(0) += 1;
        }
        if let Some(before) = before
            && let Some(count) = self.counts.get_mut(&before)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&before);
            }
        }
    }

    /// The longest of each model.
    pub(super) fn all(&self) -> impl Iterator<Item = (ModelId, u32)> {
        let below = |end: std::ops::Bound<(ModelId, u32)>| {
            self.counts.range((std::ops::Bound::Unbounded, end)).next_back().map(|(reach, _)| *reach)
        };
        let last = below(std::ops::Bound::Unbounded);
        std::iter::successors(last, move |(model, _)| below(std::ops::Bound::Excluded((*model, 0))))
    }

    /// The longest sequence of a model that somebody can bring to its last token.
    pub(super) fn longest(&self, model: ModelId) -> Option<u32> {
        self.counts.range((model, 0)..=(model, u32::MAX)).next_back().map(|((_, tokens), _)| *tokens)
    }
}
